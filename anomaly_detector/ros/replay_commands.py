"""The command lines that ``replay.launch.py`` runs beside the node.

Of ``ros2 bag``, only options that it has had since Humble.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.ros.result_publishers import TOPICS

__all__ = [
    "play_command",
    "record_command",
    "recorded_topics",
    "report_command",
    "score_command",
    "view_options",
]

_CLOCK_HZ = 100
_RECORDER = "/rosbag2_recorder"
_PICTURES = frozenset({"~/anomaly_map", "~/overlay", "~/overlay/compressed"})


def play_command(bag: Path, topic: str, node: str, *, rate: float, timeout_s: float) -> list[str]:
    """Give the command that plays one topic of a bag, with its clock.

    It begins when the node hears the player, and the recorder the node. ``ros2 bag play`` waits for
    nobody, and how long processes take to find each other is not known: an announcement that gets
    lost on a busy machine is repeated after three seconds.

    Args:
        bag: the bag.
        topic: the only topic to play.
        node: the detector node's full name.
        rate: speed, as a factor.
        timeout_s: longest time for them to find each other, seconds.
    """
    return [
        sys.executable, "-m", "anomaly_detector", "play", str(bag), "--topic", topic,
        "--rate", f"{rate:g}", "--clock", str(_CLOCK_HZ),
        "--wait-for-subscribers", f"{timeout_s:g}",
        "--wait-for-listener", node, topic,
        "--wait-for-listener", _RECORDER, f"{node}/detection",
    ]  # fmt: skip


def recorded_topics(node: str, image_topic: str, *, images: bool) -> list[str]:
    """Give the names of the topics to record.

    Args:
        node: the detector node's full name.
        image_topic: the camera topic.
        images: record that and the overlay, too. The raw overlay and the map are left out: the
            compressed overlay shows the same at a hundredth of the size.
    """
    answers = [t.name.replace("~", node, 1) for t in TOPICS if t.name not in _PICTURES]
    pictures = [image_topic, f"{node}/overlay/compressed"] if images else []
    return [*pictures, *answers, "/diagnostics", "/rosout"]


def record_command(output: Path, topics: Iterable[str], *, storage: str = "") -> list[str]:
    """Give the command that records topics, in simulated time, as they appear.

    Args:
        output: bag to write.
        topics: full names.
        storage: ``mcap`` or ``sqlite3``; empty for the distro's default.
    """
    command = ["ros2", "bag", "record", "--output", str(output), "--use-sim-time"]
    command += ["--storage", storage] if storage else []
    # A list of topics is positional on Humble and an option later; a pattern is the same on both.
    return [*command, "--regex", f"^({'|'.join(topics)})$"]


def view_options(params_file: Path, node_name: str) -> list[str]:
    """Return the options that show offline scoring what a params file shows the node.

    Args:
        params_file: YAML file with the node's parameters.
        node_name: the node's, without its namespace.

    Raises:
        AnomalyDetectorError: the file cannot be read.
    """
    try:
        content = yaml.safe_load(params_file.read_text(encoding="utf-8"))
        values: dict[str, Any] = {}
        for node, part in (content or {}).items():
            if str(node).rpartition("/")[2] in ("**", node_name):
                values |= part.get("ros__parameters", {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise AnomalyDetectorError(
            f"params_file {params_file} cannot be read: {as_one_line(error)}"
        ) from error
    options = []
    region, scaling = values.get("region_of_interest", []), values.get("image_scaling", [])
    if any(region):
        options += ["--region", ",".join(map(str, region))]
    if len(set(scaling)) > 1:
        options += ["--image-scaling", *map(str, scaling)]
    return options


def score_command(
    bag: Path, topic: str, model: Path, out: Path, view: Sequence[str] = ()
) -> list[str]:
    """Give the command that scores the bag offline, into ``scores.csv`` and ``events.csv``.

    Frame by frame, as the node does: to be compared with what it recorded, to the last bit.
    """
    return [
        sys.executable, "-m", "anomaly_detector", "score", "--model", str(model),
        "--input", str(bag), "--topic", topic, "--batch-size", "1",
        "--output", str(out / "scores.csv"), "--events", str(out / "events.csv"), *view,
    ]  # fmt: skip


def report_command(
    bag: Path, topic: str, model: Path, out: Path, view: Sequence[str] = (), *, rate: float
) -> list[str]:
    """Give the command that replays the bag by itself, into ``report/`` with an HTML page.

    Frames that the machine was too slow for are told in the page, and no error: launch's own replay
    leaves them out, too.
    """
    return [
        sys.executable, "-m", "anomaly_detector", "replay", str(bag), "--model", str(model),
        "--topic", topic, "--rate", f"{rate:g}", "--allow-missing", "--out", str(out / "report"),
        *view,
    ]  # fmt: skip
