"""replay.launch.py, from start to end, by the real launch system."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("launch_ros", reason="needs launch_ros, which comes with ROS 2 and not by pip")

from launch_harness import launch_environment, launched
from ros_harness import noise, ros_client, write_image_bag
from rosbags.highlevel import AnyReader

from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.stamps import stamp_to_ns

LAUNCH = "replay.launch.py"
NODE = "/front/eye"

EVERY_FRAME = """
/front/eye:
  ros__parameters:
    threshold: 2.5
    alarm_mode: off
    region_of_interest: [0, 10, 64, 0]
    qos_overrides:
      /camera/image_raw:
        subscription: {reliability: reliable, depth: 100}
"""


def recorded_answers(folder: Path) -> dict[int, Any]:
    """Return the answers in a recording, by the stamps of their frames, nanoseconds."""
    with AnyReader([folder]) as reader:
        connections = [c for c in reader.connections if c.topic == f"{NODE}/detection"]
        messages: list[Any] = [
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages(connections)
        ]
    return {stamp_to_ns(m.header.stamp) or 0: read_detection(m) for m in messages}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return launch_environment(tmp_path_factory.mktemp("replay"))


def test_replay_plays_once_answers_each_frame_and_reports(
    environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    bag, out, params = tmp_path / "drive", tmp_path / "out", tmp_path / "params.yaml"
    stamps = write_image_bag(bag, [noise(seed) for seed in range(20)], hz=20.0)
    params.write_text(EVERY_FRAME, encoding="utf-8")
    arguments: dict[str, object] = {"bag": bag, "out": out, "model": model, "params_file": params}
    arguments |= {"namespace": "front", "node_name": "eye", "storage": "sqlite3"}
    with (
        ros_client(NODE, "/unused") as client,
        launched(environment, LAUNCH, **arguments) as process,
    ):
        client.spin_until(lambda: not process.is_running, "the replay has ended")
        assert process.wait() == 0, process.output
        seen = [stamp_to_ns(m.header.stamp) or 0 for m in client.detections]
    # Another node of the domain may look on; it may find the node late, but sees no frame twice.
    assert set(seen) <= set(stamps)
    assert len(set(seen)) == len(seen)
    answers = recorded_answers(out / "results")
    assert list(answers) == stamps
    assert (out / "results" / "results.db3").is_file()
    # The params file reaches the node; that its scores are those of scores.csv, the replay checks.
    assert {answer.threshold for answer in answers.values()} == {2.5}
    assert len((out / "scores.csv").read_text().splitlines()) == 1 + len(stamps)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "The node answered every frame" in page
    assert (out / "timeline.png").is_file()


def test_nothing_is_drawn_or_recorded_of_pictures_on_request(
    environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    bag, out = tmp_path / "drive", tmp_path / "out"
    write_image_bag(bag, [noise(1), noise(2)])
    arguments: dict[str, object] = {"bag": bag, "out": out, "model": model, "rate": 2}
    arguments |= {"report": "false", "record_images": "false", "providers": "cuda,cpu"}
    with launched(environment, LAUNCH, **arguments) as process:
        assert process.wait() == 0, process.output
    assert {path.name for path in out.iterdir()} == {"scores.csv", "events.csv", "results"}
    with AnyReader([out / "results"]) as reader:
        topics = {connection.topic for connection in reader.connections}
    assert "/anomaly_detector/score" in topics
    assert not [topic for topic in topics if re.search("image|overlay", topic)]


def test_node_that_does_not_become_active_in_time_ends_the_replay(
    environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    bag = tmp_path / "drive"
    write_image_bag(bag, [noise(1)])
    arguments = {"bag": bag, "out": tmp_path / "out", "model": model, "start_timeout": 0.01}
    with launched(environment, LAUNCH, **arguments) as process:
        assert process.wait() == 1
    assert "the detector node did not come up in 0.01 s" in process.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Each argument that is passed on; what else is wrong with them is in test_replay.py.
        ({"bag": "nowhere"}, "nowhere does not exist"),
        ({"model": "nowhere"}, "model 'nowhere' is neither a file nor a model"),
        ({"rate": "0"}, "rate is 0: give a number above 0"),
        ({"start_timeout": "0"}, "start timeout is 0: give a number above 0"),
        ({"image_topic": "/rear"}, "has no image topic '/rear'"),
        ({"params_file": "nowhere.yaml"}, "params file nowhere.yaml cannot be read"),
    ],
)
def test_wrong_argument_is_an_error_and_leaves_nothing(
    environment: dict[str, str],
    model: Path,
    tmp_path: Path,
    changes: dict[str, str],
    message: str,
) -> None:
    bag = tmp_path / "drive"
    write_image_bag(bag, [noise(1)])
    arguments: dict[str, object] = {"bag": bag, "out": tmp_path / "out", "model": model, **changes}
    with launched(environment, LAUNCH, **arguments) as process:
        assert process.wait() == 1
    assert [line for line in process.lines if "error: " in line and message in line]
    assert "the replay failed with exit code 1" in process.output
    assert not (tmp_path / "out").exists()
