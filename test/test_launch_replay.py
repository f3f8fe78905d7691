"""replay.launch.py, from start to end, by the real launch system.

``ros2 bag`` is C++ and comes with ROS 2 only. Where it is not installed, a script takes its name:
its ``play`` is this package's player, over real DDS, and its ``record`` waits for the end as the
real one does. Then the order of the processes, the node and the results are tested; the recording
is not.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="needs launch_ros, which comes with ROS 2 and not by pip")

from launch_harness import launch_environment, launched
from model_files import write_grey_difference_model
from ros_harness import noise, ros_client, write_image_bag

from anomaly_detector.ros.detection_message import read_detection, stamp_to_ns

HAS_ROS2_BAG = shutil.which("ros2") and importlib.util.find_spec("rosbag2_py")
LAUNCH = "replay.launch.py"

STAND_IN = f"""#!{sys.executable}
import argparse, signal, sys
from anomaly_detector.cli import main
parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["bag"])
verbs = parser.add_subparsers(dest="verb", required=True)
play = verbs.add_parser("play")
play.add_argument("bag")
play.add_argument("--rate", required=True)
play.add_argument("--clock", required=True)
play.add_argument("--wait-for-all-acked", required=True)
play.add_argument("--disable-keyboard-controls", action="store_true")
play.add_argument("--topics", nargs="+")
record = verbs.add_parser("record")
record.add_argument("--output", required=True)
record.add_argument("--use-sim-time", action="store_true")
record.add_argument("--regex", required=True)
args = parser.parse_args()
if args.verb == "play":
    sys.exit(main(["play", args.bag, "--topic", *args.topics, "--rate", args.rate]))
signal.sigwait([signal.SIGINT])
"""


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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grey_difference_model(tmp_path_factory.mktemp("model") / "grey.onnx")


def test_replay_answers_each_frame_scores_offline_and_ends(
    environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    bag, out = tmp_path / "drive", tmp_path / "out"
    stamps = write_image_bag(bag, [noise(seed) for seed in range(20)], hz=20.0)
    arguments = {"bag": bag, "out": out, "model": model, "start_delay": 0}
    with (
        ros_client("/anomaly_detector", "/unused") as client,
        launched(environment, LAUNCH, **arguments) as process,
    ):
        client.spin_until(lambda: not process.is_running, "the replay has ended")
        assert process.wait() == 0, process.output
        answers = {stamp_to_ns(m.header.stamp): read_detection(m) for m in client.detections}
    assert f"the replay is complete, its results are in {out}" in process.output
    assert process.output.count("process has finished cleanly") >= 3
    with (out / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(stamps)
    assert set(answers) <= set(stamps)
    # The client, started first, hears the node from its first answer on or soon after.
    assert len(answers) >= len(stamps) // 2
    by_stamp = {round(float(row["stamp"]) * 1e9, -3): row for row in rows}
    for stamp, answer in answers.items():
        assert float(by_stamp[round(float(stamp), -3)]["score"]) == pytest.approx(answer.score)
    if HAS_ROS2_BAG:
        assert (out / "recording" / "metadata.yaml").is_file()


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
