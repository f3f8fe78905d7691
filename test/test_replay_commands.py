"""The command lines of a replay, as 'ros2 bag' is given them."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.player import add_arguments
from anomaly_detector.ros.replay_commands import (
    play_command,
    record_command,
    recorded_topics,
    report_command,
    score_command,
    view_options,
)
from anomaly_detector.ros.result_publishers import TOPICS

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_player_gets_clock_rate_and_one_topic_and_waits_for_node_and_recorder() -> None:
    command = play_command(Path("drive"), "/camera/image", "/front/eye", rate=2.0, timeout_s=20.0)
    assert command[:5] == [sys.executable, "-m", "anomaly_detector", "play", "drive"]
    options = dict(itertools.pairwise(command))
    assert options["--topic"] == "/camera/image"
    assert options["--clock"] == "100"
    assert options["--rate"] == "2"
    assert options["--wait-for-subscribers"] == "20"
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(command[4:]).wait_for_listener == [
        ["/front/eye", "/camera/image"],
        ["/rosbag2_recorder", "/front/eye/detection"],
    ]


def test_recorder_takes_every_answer_and_nothing_else() -> None:
    topics = recorded_topics("/front/anomaly_detector", "/camera/image", images=True)
    command = record_command(Path("out"), topics, storage="mcap")
    assert command[command.index("--storage") + 1] == "mcap"
    pattern = re.compile(command[command.index("--regex") + 1])
    for topic in TOPICS:
        name = topic.name.replace("~", "/front/anomaly_detector")
        is_raw_picture = topic.name in {"~/overlay", "~/anomaly_map"}
        assert bool(pattern.search(name)) != is_raw_picture, name
    assert pattern.search("/camera/image")
    assert pattern.search("/diagnostics")
    for other in ("/camera/image/compressed", "/rear/anomaly_detector/score", "/diagnostics_agg"):
        assert not pattern.search(other)


def test_recorder_leaves_pictures_and_storage_out_on_request() -> None:
    topics = recorded_topics("/anomaly_detector", "/camera/image", images=False)
    assert "/camera/image" not in topics
    assert not [topic for topic in topics if "overlay" in topic]
    assert "--storage" not in record_command(Path("out"), topics)


VIEW = ["--region", "0,10,64,0", "--image-scaling", "500.0", "4000.0"]


@pytest.mark.parametrize("node", ["/**", "eye", "/front/eye"])
def test_what_the_params_file_shows_the_node_goes_to_offline_scoring(
    node: str, tmp_path: Path
) -> None:
    file = tmp_path / "params.yaml"
    parameters = "    region_of_interest: [0, 10, 64, 0]\n    image_scaling: [500.0, 4000.0]\n"
    file.write_text(f"{node}:\n  ros__parameters:\n{parameters}")
    assert view_options(file, "eye") == VIEW
    assert view_options(file, "other") == (VIEW if node == "/**" else [])


def test_params_file_that_overrides_no_view_gives_no_option(tmp_path: Path) -> None:
    assert view_options(ROOT / "config" / "detector.yaml", "anomaly_detector") == []
    for text in ("- a list", "a: [", "/**: text"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(AnomalyDetectorError, match="cannot be read"):
            view_options(tmp_path / "bad.yaml", "anomaly_detector")


@pytest.mark.parametrize(
    ("command", "verb"),
    [
        (play_command(Path("drive"), "/image", "/node", rate=1.0, timeout_s=1.0), "play"),
        (score_command(Path("drive"), "/image", Path("m.onnx"), Path("out"), VIEW), "score"),
        (
            report_command(Path("drive"), "/image", Path("m.onnx"), Path("out"), VIEW, rate=2.0),
            "replay",
        ),
    ],
)
def test_our_own_verbs_take_their_commands(command: list[str], verb: str, tmp_path: Path) -> None:
    assert command[:4] == [sys.executable, "-m", "anomaly_detector", verb]
    if verb not in subprocess.check_output([*command[:3], "--help"], cwd=ROOT, text=True):
        pytest.skip(f"no verb {verb} yet")
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    # Read and understood: it stops at the bag or the model that is not there.
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "usage:" not in result.stderr
