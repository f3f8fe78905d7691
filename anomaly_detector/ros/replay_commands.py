"""The command lines that ``replay.launch.py`` runs beside the node.

Only options that ``ros2 bag`` has had since Humble.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from anomaly_detector.ros.result_publishers import TOPICS

__all__ = ["play_command", "record_command", "recorded_topics", "report_command", "score_command"]

_CLOCK_HZ = 100
_ACKNOWLEDGE_MS = 5000
_PICTURES = frozenset({"~/anomaly_map", "~/overlay", "~/overlay/compressed"})


def play_command(bag: Path, topic: str, *, rate: float, delay_s: float) -> list[str]:
    """Give the command that plays one topic of a bag, with its clock.

    Args:
        bag: the bag.
        topic: the only topic to play.
        rate: speed, as a factor.
        delay_s: seconds between making the publisher and the first message.
    """
    command = ["ros2", "bag", "play", str(bag), "--clock", str(_CLOCK_HZ), "--rate", f"{rate:g}"]
    # ros2 bag refuses a delay of zero.
    command += ["--delay", f"{delay_s:g}"] if delay_s > 0.0 else []
    command += ["--wait-for-all-acked", str(_ACKNOWLEDGE_MS), "--disable-keyboard-controls"]
    # Last: it takes all that follows.
    return [*command, "--topics", topic]


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


def score_command(bag: Path, topic: str, model: Path, out: Path) -> list[str]:
    """Give the command that scores the bag offline, into ``scores.csv`` and ``events.csv``."""
    return [
        sys.executable, "-m", "anomaly_detector", "score", "--model", str(model),
        "--input", str(bag), "--topic", topic,
        "--output", str(out / "scores.csv"), "--events", str(out / "events.csv"),
    ]  # fmt: skip


def report_command(bag: Path, topic: str, model: Path, out: Path, *, rate: float) -> list[str]:
    """Give the command that replays the bag by itself, into ``report/`` with an HTML page.

    Frames that the machine was too slow for are told in the page, and no error: launch's own replay
    leaves them out, too.
    """
    return [
        sys.executable, "-m", "anomaly_detector", "replay", str(bag), "--model", str(model),
        "--topic", topic, "--rate", f"{rate:g}", "--allow-missing", "--out", str(out / "report"),
    ]  # fmt: skip
