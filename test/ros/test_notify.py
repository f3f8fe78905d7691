"""``notify`` beside a real node: an alarm with picture and place, a sick camera, a camera gone."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from notice_server import NoticeServer, notice_server, url_of
from ros_harness import ROOT, RosClient, image_message, node_in, running

from anomaly_detector.ros.node.status_message import status_values

BLACK = image_message(np.zeros((64, 64, 3), np.uint8), "rgb8")
NOTIFY = [sys.executable, "-m", "anomaly_detector", "notify"]


def send_until(client: RosClient, frame: Any, condition: Callable[[], bool], what: str) -> None:
    """Send a frame again and again, each time with the stamp of that moment."""

    def stamped() -> bool:
        frame.header.stamp.sec, frame.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        return condition()

    client.publish_until(frame, stamped, what)


def taken(client: RosClient, server: NoticeServer, kind: str, **frame: Any) -> Any:
    """Wait for a notice of a kind, with frames meanwhile; return it."""

    def found() -> list[Any]:
        return [content for content in server.taken if content["kind"] == kind]

    if frame:
        send_until(client, frame["frame"], lambda: bool(found()), kind)
    else:
        client.spin_until(found, kind)
    return found()[0]


def test_alarm_sick_camera_and_unknown_state_are_told(model: Path, tmp_path: Path) -> None:
    pose = {"pose_topic": "/told/pose", "pose_max_age": 60.0, "diagnostics_period": 0.1}
    with notice_server() as server, node_in("told", model=model, **pose) as client:
        options = ["--node", "/told/anomaly_detector", "--queue", str(tmp_path / "queue")]
        # Both sides may take a while to find each other.
        options += [
            "--ignore",
            "no state",
            "--unknown-after",
            "1",
            "--review-url",
            "https://robot:8765/",
            "--post",
        ]
        environment = os.environ | {"ANOMALY_DETECTOR_NOTIFY_URL": url_of(server)}
        server.script = ["drop"]
        with running([*NOTIFY, *options], environment) as notify:
            line = notify.wait_for_line("telling")
            assert line.endswith(
                f"telling http://127.0.0.1:{server.server_port} of "
                "/told/anomaly_detector, 0 notices wait"
            )
            place = PoseStamped()
            place.header.frame_id = "map"
            now_ns = time.time_ns()
            place.header.stamp.sec, place.header.stamp.nanosec = divmod(now_ns, 10**9)
            place.pose.position.x = 4.5
            place.pose.orientation.w = 1.0
            poses = client.node.create_publisher(PoseStamped, "/told/pose", 1)
            client.spin_until(poses.get_subscription_count, "the node")
            client.wait_until_found()
            poses.publish(place)
            grey = image_message(np.full((64, 64, 3), 128, np.uint8), "rgb8")
            grey.header = BLACK.header
            client.publish_until_status(grey, lambda s: "map 4.5" in status_values(s)["Pose"], "it")
            notice = taken(client, server, "alarm", frame=BLACK)
            assert notice["text"].startswith("/told/anomaly_detector: alarm 1 at map 4.5 0")
            assert notice["alarm"]["place"]["x"] == "4.5"
            assert notice["alarm"]["score"] == 16384.0
            assert (notice["node"], notice["suppressed"]) == ("/told/anomaly_detector", 0)
            assert notice["review"] == "https://robot:8765/#/events"
            jpeg = np.frombuffer(base64.b64decode(notice["picture_jpeg_base64"]), np.uint8)
            assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR) is not None
            topic = "/told/anomaly_detector/overlay/compressed"
            client.spin_until(lambda: not client.node.count_subscribers(topic), "it has let go")

            def is_sick() -> bool:
                return any(line.startswith("camera: dark") for line in client.log_lines())

            send_until(client, BLACK, is_sick, "a camera that sees nothing")
            assert taken(client, server, "unknown")["unknown"]["reason"] == "no frames"
            notice = taken(client, server, "camera")
            assert notice["text"].startswith("/told/anomaly_detector: camera: dark since ")
            assert notice["camera"]["Cause"] == "dark"
            assert notice["camera"]["Strength"] == "1.00"
            assert len(server.taken) == 3
            # The server has a notice before notify has its answer and takes it out of the queue.
            queue = tmp_path / "queue"
            client.spin_until(lambda: not list(queue.iterdir()), "the queue is empty")
            notify.send_signal(signal.SIGTERM)
            assert notify.wait() == 0
            assert "Traceback" not in notify.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "one of the arguments --post --command is required"),
        (["--post"], 1, "error: the URL to post to is none: give https://HOST/PATH"),
        (["--command", "true", "--cooldown", "-1"], 1, "error: --cooldown is -1"),
        (["--command", "/no/such"], 1, "there is no such program"),
        (["--command", "true", "--node", "no good"], 1, "--node is 'no good'"),
    ],
)
def test_wrong_arguments_are_reported_and_nothing_is_made(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    command = [*NOTIFY, "--queue", str(tmp_path / "queue"), *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == code
    assert message in result.stderr
    assert not list(tmp_path.glob("queue/*"))
