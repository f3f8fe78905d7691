"""Recorded events on disk: ``event.json``, and how to find and read them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_detector.errors import SourceError, as_one_line
from anomaly_detector.poses import Place, place_of

EVENT_FILE = "event.json"
EVENT_KIND = "anomaly_detector black box event"
EVENT_VERSION = 1
ALARM, SAMPLE, SAVED = "alarm", "sample", "saved"
"""Kinds of events: around an alarm, a normal frame that stands for those not flagged, or seconds
that somebody asked for."""

EVENT_NAME = re.compile(r"event_\d{8}T\d{6}Z_(\d{6,})")
"""Name of an event's folder: UTC of the robot's clock, and a number that counts up."""

_MOST_HELD = 100
_LARGEST_STAMP_NS = 2**62


@dataclass(frozen=True)
class RecordedFrame:
    """One frame of a recorded event.

    Attributes:
        name: file name (jpeg), or six digits, its place in the bag (mcap); the name that
            :mod:`anomaly_detector.recordings` gives it.
        stamp_ns: time it is recorded under, nanoseconds.
        phase: ``before``, ``during`` or ``after`` the alarm, ``sample`` or ``saved``.
        score: in the model's units; None when it was not a number.
        normalized_score: in [0, 1]; None likewise.
        is_anomaly: whether the single frame was anomalous.
        place: where it was taken; None where no poses were given.
    """

    name: str
    stamp_ns: int
    phase: str
    score: float | None
    normalized_score: float | None
    is_anomaly: bool
    place: Place | None = None


@dataclass(frozen=True)
class RecordedEvent:
    """One event's folder.

    Attributes:
        path: the folder.
        format: ``mcap`` or ``jpeg``.
        frames: in the order of their stamps.
        place: where the frame with the highest score was taken; None likewise.
        kind: :data:`ALARM`, :data:`SAMPLE` or :data:`SAVED`.
        repeat_of: name of the event that it repeats; empty for one that was raised.
        alarm_frames: frames of the camera with the alarm on, recorded or not.
    """

    path: Path
    format: str
    frames: tuple[RecordedFrame, ...]
    place: Place | None = None
    kind: str = ALARM
    repeat_of: str = ""
    alarm_frames: int = 0

    @property
    def hold(self) -> int:
        """How many frames of the camera each recorded one stands for."""
        during = sum(frame.phase == "during" for frame in self.frames)
        return min(max(1, round(self.alarm_frames / max(1, during))), _MOST_HELD)

    @property
    def anomalous_frames(self) -> list[RecordedFrame]:
        """The frames that show the anomaly: flagged, and taken while the alarm was on."""
        return [frame for frame in self.frames if frame.phase == "during" and frame.is_anomaly]


def event_content(path: Path) -> dict[str, Any] | None:
    """Return the ``event.json`` of a folder that the black box wrote; None for other folders."""
    if path.is_symlink() or not path.is_dir():
        return None
    try:
        content = json.loads((path / EVENT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("kind") == EVENT_KIND else None


def is_event(path: Path) -> bool:
    """Return whether a folder was written by the black box, by its ``event.json``."""
    return event_content(path) is not None


def find_events(path: Path) -> list[Path]:
    """Return the events at a path: itself, or those directly in it, oldest first."""
    if is_event(path):
        return [path]
    if not path.is_dir():
        return []
    found = [item for item in path.iterdir() if is_event(item)]
    return sorted(found, key=lambda item: (event_number(item.name), item.name))


def event_number(name: str) -> int:
    """Return the number in the name of an event's folder; 0 for one that was renamed."""
    match = EVENT_NAME.fullmatch(name)
    return int(match[1]) if match else 0


def read_event(path: Path, content: Any = None) -> RecordedEvent:
    """Read what was recorded of an event.

    Args:
        path: its folder.
        content: of its ``event.json``, where that was read before.

    Raises:
        SourceError: its ``event.json`` is missing, damaged, or of a newer version.
    """
    file = path / EVENT_FILE
    try:
        if content is None:
            content = json.loads(file.read_text(encoding="utf-8"))
        if content["kind"] != EVENT_KIND:
            raise ValueError("it is no event of the black box")
        if content["version"] != EVENT_VERSION:
            raise SourceError(
                f"{file} has version {content['version']!r}, this package reads "
                f"{EVENT_VERSION}: use the package that recorded it"
            )
        frames = tuple(
            RecordedFrame(
                str(row["name"]),
                _stamp(row["stamp_ns"]),
                str(row["phase"]),
                _score(row["score"]),
                _score(row["normalized_score"]),
                bool(row["is_anomaly"]),
                place_of(row.get("pose"), _stamp(row["stamp_ns"])),
            )
            for row in content["frames"]
        )
        place = place_of(content.get("pose"), _stamp(content["peak"]["stamp_ns"]))
        if content["format"] == "mcap" and not isinstance(content["topic"], str):
            raise ValueError(f"its topic is {content['topic']!r}")
        kind = str(content.get("event_kind", ALARM))
        repeat_of = str(content.get("repeat_of") or "")
        alarm_frames = int(content.get("alarm_frames", 0))
        return RecordedEvent(
            path, str(content["format"]), frames, place, kind, repeat_of, alarm_frames
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise SourceError(
            f"{file} cannot be read ({as_one_line(error)}): copy the event again or leave it out"
        ) from error


def _stamp(value: Any) -> int:
    if not -_LARGEST_STAMP_NS <= int(value) <= _LARGEST_STAMP_NS:
        raise ValueError(f"a stamp is {value}")
    return int(value)


def _score(value: Any) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"a score is {value}")
    return None if value is None else float(value)
