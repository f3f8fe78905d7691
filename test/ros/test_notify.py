"""``notify`` beside a real node: an alarm with picture and place, a sick camera, a camera gone."""

from __future__ import annotations

import base64
import itertools
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
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from notice_server import NoticeServer, notice_server, url_of
from ros_harness import DEADLINE_S, ROOT, RosClient, image_message, node_in, ros_client, running

from anomaly_detector.monitoring.state import STATE_PERIOD_S, DetectorState, Verdict
from anomaly_detector.ros.node.status_message import status_values
from anomaly_detector.ros.state.listener import FRESH_S
from anomaly_detector.ros.state.message import (
    OFFERED_DEADLINE_S,
    read_state,
    state_qos,
    write_state,
)

BLACK = image_message(np.zeros((64, 64, 3), np.uint8), "rgb8")
# Its score is low, and it is no picture of a covered camera.
GREY = image_message(
    np.where(np.indices((64, 64, 3)).sum(axis=0) // 8 % 2, 148, 108).astype(np.uint8), "rgb8"
)
NOTIFY = [sys.executable, "-m", "anomaly_detector", "notify"]


def send_until(client: RosClient, frame: Any, condition: Callable[[], bool], what: str) -> None:
    """Send a frame again and again, each time with the stamp of that moment."""

    def stamped() -> bool:
        frame.header.stamp.sec, frame.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        return condition()

    client.publish_until(frame, stamped, what)


def taken(
    client: RosClient,
    server: NoticeServer,
    kind: str,
    is_wanted: Callable[[Any], bool] = lambda _: True,
    **frame: Any,
) -> Any:
    """Wait for a notice of a kind, with frames meanwhile; return it."""

    def found() -> list[Any]:
        return [c for c in list(server.taken) if c["kind"] == kind and is_wanted(c)]

    if frame:
        send_until(client, frame["frame"], lambda: bool(found()), kind)
    else:
        client.spin_until(found, kind)
    return found()[0]


def place_at(client: RosClient, poses: Any, x: float) -> None:
    """Say where the robot is, and wait until all is well there."""
    place = PoseStamped()
    place.header.frame_id = "map"
    place.header.stamp.sec, place.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
    place.pose.position.x = x
    place.pose.orientation.w = 1.0
    poses.publish(place)

    def is_well() -> bool:
        said = status_values(client.diagnostics[-1])["Pose"] if client.diagnostics else ""
        return f"map {x:g}" in said and client.listener.state().word == "ok"

    send_until(client, GREY, is_well, "all well there")


def whole_alarm_taken(client: RosClient, server: NoticeServer, poses: Any) -> tuple[Any, float]:
    """Wait for a notice of an alarm that tells more than its number, with a picture.

    The event of an alarm is lost on a listener that the node has not found yet, and on a busy
    machine the picture does not come in time. Then there is another alarm at another place, since
    one at the same would be a repeat. Returns the place, too.
    """
    for x in itertools.count(4.5, 10.0):
        place_at(client, poses, x)
        notice = taken(client, server, "alarm", frame=BLACK)
        if "place" in notice["alarm"] and notice["picture_jpeg_base64"]:
            return notice, x
        server.taken.remove(notice)
    raise AssertionError


def test_alarm_sick_camera_and_unknown_state_are_told(model: Path, tmp_path: Path) -> None:
    pose = {"pose_topic": "/told/pose", "pose_max_age": 60.0}
    # A picture that is sent for long is not to count as a frozen camera.
    limits = {"frozen_timeout": 0.0, "diagnostics_period": 0.1}
    with notice_server() as server, node_in("told", model=model, **pose, **limits) as client:
        options = ["--node", "/told/anomaly_detector", "--queue", str(tmp_path / "queue")]
        # Both sides may take a while to find each other.
        options += [
            "--ignore",
            "no state",
            "--unknown-after",
            "1",
            "--cooldown",
            "0",
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
            poses = client.node.create_publisher(PoseStamped, "/told/pose", 1)
            client.spin_until(poses.get_subscription_count, "the node")
            client.wait_until_found()
            notice, x = whole_alarm_taken(client, server, poses)
            where = f"alarm {notice['alarm']['number']} at map {x:g} 0"
            assert notice["text"].startswith(f"/told/anomaly_detector: {where}")
            assert notice["alarm"]["place"]["x"] == f"{x:g}"
            assert notice["alarm"]["score"] == 16384.0
            assert (notice["node"], notice["suppressed"]) == ("/told/anomaly_detector", 0)
            assert notice["review"] == "https://robot:8765/#/events"
            jpeg = np.frombuffer(base64.b64decode(notice["picture_jpeg_base64"]), np.uint8)
            assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR) is not None
            topic = "/told/anomaly_detector/overlay/compressed"
            client.spin_until(lambda: not client.node.count_subscribers(topic), "it has let go")

            def is_sick() -> bool:
                said = [line for line in client.log_lines() if line.startswith("camera: ")]
                return said[-1:] != [] and said[-1].startswith("camera: dark")

            send_until(client, BLACK, is_sick, "a camera that sees nothing")
            # Another one may have been told while the node started.
            taken(client, server, "unknown", lambda c: c["unknown"]["reason"] == "no frames")
            notice = taken(client, server, "camera")
            assert notice["text"].startswith("/told/anomaly_detector: camera: dark since ")
            assert notice["camera"]["Cause"] == "dark"
            assert notice["camera"]["Strength"] == "1.00"
            assert {content["kind"] for content in server.taken} == {"alarm", "unknown", "camera"}
            # The server has a notice before notify has its answer and takes it out of the queue.
            queue = tmp_path / "queue"
            client.spin_until(lambda: not list(queue.iterdir()), "the queue is empty")
            notify.send_signal(signal.SIGTERM)
            assert notify.wait() == 0
            assert "Traceback" not in notify.output


def test_alarm_that_is_on_already_is_told(model: Path, tmp_path: Path) -> None:
    with (
        notice_server() as server,
        node_in("on_already", model=model, frozen_timeout=0.0) as client,
    ):
        send_until(client, BLACK, lambda: client.listener.state().word == "alarm", "the alarm")
        options = ["--node", client.node_name, "--queue", str(tmp_path / "queue"), "--no-picture"]
        with running([*NOTIFY, *options, "--post", url_of(server)]):
            notice = taken(client, server, "alarm", frame=BLACK)
    assert notice["text"] == "/on_already/anomaly_detector: alarm 1 is on"
    assert notice["alarm"] == {"number": 1}


def test_alarms_are_told_from_the_state_unless_they_call_nobody(tmp_path: Path) -> None:
    """Of a publisher that sends no event."""
    name = "/calls_nobody/anomaly_detector"
    qos = state_qos(OFFERED_DEADLINE_S)
    with notice_server() as server, ros_client(name, "/calls_nobody/image") as client:
        publisher = client.node.create_publisher(DiagnosticArray, f"{name}/state", qos)

        def say(number: int, *, is_alarm: bool = True, is_quiet: bool = False) -> None:
            now = time.monotonic()
            verdict = Verdict(True, is_alarm, 1, now, number, is_quiet)
            state = DetectorState("alarm" if is_alarm else "anomaly")
            message = write_state(state, verdict, now, name, "", "")
            if not number:  # as a node of an earlier version
                (status,) = message.status
                status.values = [v for v in status.values if not v.key.startswith("alarm_")]
            assert read_state(message).alarm_number == number
            publisher.publish(message)
            time.sleep(STATE_PERIOD_S)

        options = ["--node", name, "--queue", str(tmp_path / "queue"), "--no-picture"]
        options += ["--cooldown", "0"]
        with running([*NOTIFY, *options, "--post", url_of(server)]) as notify:
            notify.wait_for_line("telling")
            until = time.monotonic() + 3.0
            while time.monotonic() < until:
                say(1, is_quiet=True)
                say(0)
            until += DEADLINE_S
            # Each for long enough to be told; more, since one that listens late misses some.
            numbers = itertools.count(2)
            while len({content["alarm"]["number"] for content in server.taken}) < 2:
                assert time.monotonic() < until, notify.output
                for _ in range(5):
                    say(0, is_alarm=False)
                number = next(numbers)
                for _ in range(25):
                    say(number)
            # Silence is no end: the same alarm is not told again.
            time.sleep(1.5 * FRESH_S)
            for _ in range(25):
                say(number)
        told = [content["alarm"]["number"] for content in server.taken]
    assert min(told) >= 2
    assert len(set(told)) == len(told), told


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "one of the arguments --post --command is required"),
        (["--post"], 1, "error: the URL to post to is none: give https://HOST/PATH"),
        (["--command", "true", "--cooldown", "-1"], 1, "error: --cooldown is -1"),
        (["--command", "true", "--timeout", "0"], 1, "--timeout is 0: give a number above 0"),
        (
            ["--command", "true", "--review-url", "robot:8765"],
            1,
            "--review-url is 'robot:8765': give",
        ),
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
