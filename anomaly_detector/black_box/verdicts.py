"""What people said of recorded events: ``review.json`` in the event's own folder.

It travels with the folder. Keys that this version does not know are kept.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from anomaly_detector.black_box.events import is_event
from anomaly_detector.errors import AnomalyDetectorError, SourceError, as_one_line
from anomaly_detector.files import atomic_path

REVIEW_FILE = "review.json"
UNREVIEWED = "unreviewed"
VERDICTS = ("normal", "anomaly", "unsure")
_KIND = "anomaly_detector review"


class VerdictChangedError(AnomalyDetectorError):
    """Another page has judged the event since this one looked."""


@dataclass(frozen=True)
class Verdict:
    """What an event is.

    Attributes:
        verdict: one of :data:`VERDICTS`, or :data:`UNREVIEWED` once it was taken back.
        note: free text.
        when: ISO time in UTC; empty for now.
        frames: numbers of the first and last frame that it is for, in the event's list from 0;
            None for all.
        model: name of the model that the operator looked with.
        keep: the black box shall not remove the event.
        shown: what was on the screen for a verdict on a group of events, ``EVENT/FRAME``.
    """

    verdict: str
    note: str = ""
    when: str = ""
    frames: tuple[int, int] | None = None
    model: str = ""
    keep: bool = False
    shown: tuple[str, ...] = ()

    @property
    def is_reviewed(self) -> bool:
        """Whether there is a verdict."""
        return self.verdict != UNREVIEWED

    def covers(self, number: int) -> bool:
        """Return whether it is for a frame, by its number in the event's list."""
        return self.frames is None or self.frames[0] <= number <= self.frames[1]


def read_verdict(event: Path) -> Verdict | None:
    """Return the verdict on an event; None when nobody has looked at it.

    Args:
        event: its folder.

    Raises:
        SourceError: its ``review.json`` is damaged.
    """
    content = _read(event / REVIEW_FILE)
    return None if content is None else _parsed(content, event / REVIEW_FILE)


def write_verdict(event: Path, verdict: Verdict, *, seen: str | None = None) -> Verdict:
    """Write the verdict on an event; a power cut leaves the one before or this one.

    Args:
        event: its folder.
        verdict: what to write.
        seen: time of the verdict that the operator saw, empty for none; None: whatever is there is
            replaced.

    Returns:
        What was written, with its time.

    Raises:
        SourceError: the event is gone, or its ``review.json`` is damaged.
        VerdictChangedError: the verdict on the disk is not the one that was seen.
        OutputError: it cannot be written.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    when = verdict.when or now
    new: dict[str, Any] = {"kind": _KIND} | vars(verdict) | {"when": when}
    new["frames"] = "all" if verdict.frames is None else list(verdict.frames)
    file = event / REVIEW_FILE
    result = _parsed(new, file)
    with _locked(event):
        old = _read(file)
        before = None if old is None else _parsed(old, file)
        if seen is not None and seen != (before.when if before else ""):
            raise VerdictChangedError(
                f"{event.name} was judged {before.verdict if before else UNREVIEWED} on another "
                "page meanwhile: look again"
            )
        with atomic_path(file) as temporary:
            text = json.dumps((old or {}) | new, indent=1, allow_nan=False)
            temporary.write_text(f"{text}\n", encoding="utf-8")
    return result


@contextmanager
def _locked(event: Path) -> Iterator[None]:
    """Keep others from writing the verdict, in this process or another."""
    # Writing would make the folder anew.
    if not is_event(event):
        raise SourceError(f"{event} is no recorded event any more: it was removed or moved")
    handle = os.open(event, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(file: Path) -> dict[str, Any] | None:
    # A link may lead out of the folder.
    if not os.path.lexists(file):
        return None
    try:
        if file.is_symlink() or not file.is_file():
            raise ValueError("it is no regular file")
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("kind") != _KIND:
            raise ValueError(f"its kind is not {_KIND!r}")
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    return content


def _parsed(content: dict[str, Any], file: Path) -> Verdict:
    try:
        verdict, frames = content["verdict"], content.get("frames", "all")
        if verdict not in (*VERDICTS, UNREVIEWED):
            raise ValueError(f"its verdict is {verdict!r}")
        if frames != "all":
            first, last = frames
            if type(first) is not int or type(last) is not int or not 0 <= first <= last:
                raise ValueError(f"its frames are {frames!r}")
            frames = (first, last)
        keep = content.get("keep", False)
        if not isinstance(keep, bool):
            raise ValueError(f"its keep is {keep!r}")
        note, when, model = (str(content.get(name, "")) for name in ("note", "when", "model"))
        shown = tuple(str(name) for name in content.get("shown", ()))
        return Verdict(verdict, note, when, None if frames == "all" else frames, model, keep, shown)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{file} cannot be read ({as_one_line(error)}): mend it, or remove it and review the "
        "event again"
    )
