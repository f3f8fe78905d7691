"""replay.launch.py, from start to end, by the real launch system.

``ros2 bag`` is C++ and comes with ROS 2 only. Where it is not installed, a script takes its name,
which looks for topics, waits for the time, subscribes and keeps what it hears, as the real one
does: then all but the format of the recording is tested.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("launch_ros", reason="needs launch_ros, which comes with ROS 2 and not by pip")

from launch_harness import launch_environment, launched
from ros_harness import noise, ros_client, write_image_bag
from rosbags.highlevel import AnyReader

from anomaly_detector.ros.detection_message import read_detection
from anomaly_detector.stamps import stamp_to_ns

HAS_ROS2_BAG = shutil.which("ros2") and importlib.util.find_spec("rosbag2_py")
LAUNCH = "replay.launch.py"

STAND_IN = f"""#!{sys.executable}
import argparse, pathlib, re, signal, threading
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rosgraph_msgs.msg import Clock

parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["bag"])
record = parser.add_subparsers(required=True).add_parser("record")
record.add_argument("--output", required=True, type=pathlib.Path)
record.add_argument("--use-sim-time", action="store_true", required=True)
record.add_argument("--regex", required=True, type=re.compile)
args = parser.parse_args()
stop, times, heard, subscribed = threading.Event(), [], [], set()
signal.signal(signal.SIGINT, lambda *_: stop.set())
rclpy.init(args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)
node = rclpy.create_node("rosbag2_recorder")
node.create_subscription(Clock, "/clock", times.append, 10)
while not stop.is_set():
    for topic, types in node.get_topic_names_and_types() if times else []:
        if topic.endswith("/detection") and args.regex.search(topic) and topic not in subscribed:
            subscribed.add(topic)
            node.create_subscription(DiagnosticArray, topic, heard.append, 100)
    rclpy.spin_once(node, timeout_sec=0.1)
args.output.mkdir(parents=True)
stamps = [message.header.stamp for message in heard]
text = "".join(f"{{stamp.sec * 10**9 + stamp.nanosec}}\\n" for stamp in stamps)
(args.output / "stamps").write_text(text)
rclpy.shutdown()
"""

EVERY_FRAME = """
/**:
  ros__parameters:
    qos_overrides:
      /camera/image_raw:
        subscription: {reliability: reliable, depth: 100}
"""


def recorded_stamps(folder: Path) -> list[int]:
    """Give the stamps of the answers in a recording, nanoseconds."""
    if not HAS_ROS2_BAG:
        return [int(line) for line in (folder / "stamps").read_text(encoding="utf-8").split()]
    with AnyReader([folder]) as reader:
        connections = [c for c in reader.connections if c.topic == "/anomaly_detector/detection"]
        messages: list[Any] = [
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages(connections)
        ]
    return [stamp_to_ns(message.header.stamp) or 0 for message in messages]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("replay")
    environment = launch_environment(folder)
    if not HAS_ROS2_BAG:
        script = folder / "bin" / "ros2"
        script.parent.mkdir()
        script.write_text(STAND_IN, encoding="utf-8")
        script.chmod(0o755)
        environment["PATH"] = f"{script.parent}{os.pathsep}{environment['PATH']}"
    return environment


def test_replay_answers_each_frame_records_scores_offline_and_ends(
    environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    bag, out, params = tmp_path / "drive", tmp_path / "out", tmp_path / "params.yaml"
    stamps = write_image_bag(bag, [noise(seed) for seed in range(20)], hz=20.0)
    params.write_text(EVERY_FRAME, encoding="utf-8")
    arguments = {"bag": bag, "out": out, "model": model, "params_file": params}
    with (
        ros_client("/anomaly_detector", "/unused") as client,
        launched(environment, LAUNCH, **arguments) as process,
    ):
        client.spin_until(lambda: not process.is_running, "the replay has ended")
        assert process.wait() == 0, process.output
        answers = {stamp_to_ns(m.header.stamp) or 0: read_detection(m) for m in client.detections}
    assert f"the replay is complete, its results are in {out}" in process.output
    assert process.output.count("process has finished cleanly") >= 3
    assert recorded_stamps(out / "recording") == stamps
    with (out / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(stamps)
    # The player waits for the recorder, and not for the client, which may find the node later.
    assert set(answers) <= set(stamps)
    by_stamp = {round(float(row["stamp"]) * 1e9, -3): row for row in rows}
    for stamp, answer in answers.items():
        assert float(by_stamp[round(float(stamp), -3)]["score"]) == pytest.approx(answer.score)


def test_recorder_that_hears_nothing_ends_the_replay(
    environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    bag, script = tmp_path / "drive", tmp_path / "bin" / "ros2"
    write_image_bag(bag, [noise(1)])
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport signal\nsignal.pause()\n", encoding="utf-8")
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{environment['PATH']}"
    arguments = {"bag": bag, "out": tmp_path / "out", "model": model, "start_timeout": 2}
    with launched({**environment, "PATH": path}, LAUNCH, **arguments) as process:
        assert process.wait() == 1
    message = "/rosbag2_recorder did not subscribe to /anomaly_detector/detection in 2 s"
    assert message in process.output
    assert not (tmp_path / "out" / "scores.csv").exists()


def test_node_that_cannot_become_active_ends_the_replay(
    environment: dict[str, str], tmp_path: Path
) -> None:
    bag, broken = tmp_path / "drive", tmp_path / "broken.onnx"
    write_image_bag(bag, [noise(1)])
    broken.write_bytes(b"not a model")
    arguments = {"bag": bag, "out": tmp_path / "out", "model": broken}
    with launched(environment, LAUNCH, **arguments) as process:
        assert process.wait() == 1
    assert "the detector node cannot be used: its message is above" in process.output
    assert "play" not in [word for line in process.lines for word in line.split()]
    assert not (tmp_path / "out" / "scores.csv").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bag": "nowhere"}, "bag nowhere cannot be opened"),
        ({"model": "nowhere"}, "model 'nowhere' is neither a file nor a model"),
        ({"rate": "0"}, "rate is '0': give a positive number"),
        ({"start_timeout": "0"}, "start_timeout is '0': give a positive number"),
        ({"image_topic": "/rear"}, "has no image topic '/rear'"),
        ({"out": "{bag}/../used"}, "which has results: give another folder"),
    ],
)
def test_wrong_argument_starts_nothing(
    environment: dict[str, str],
    model: Path,
    tmp_path: Path,
    changes: dict[str, str],
    message: str,
) -> None:
    bag = tmp_path / "drive"
    write_image_bag(bag, [noise(1)])
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "scores.csv").touch()
    arguments: dict[str, object] = {"bag": bag, "out": tmp_path / "out", "model": model}
    arguments |= {name: value.format(bag=bag) for name, value in changes.items()}
    with launched(environment, LAUNCH, **arguments) as process:
        assert process.wait() == 1
    assert message in process.output
    assert "process started" not in process.output
