"""The events in some folders, as the page shows them; looked at anew as it asks."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from anomaly_detector.black_box import (
    RecordedEvent,
    Verdict,
    VerdictChangedError,
    find_events,
    read_event,
    read_verdict,
    write_verdict,
)
from anomaly_detector.black_box.events import ALARM, EVENT_FILE, EVENT_NAME, event_content
from anomaly_detector.black_box.verdicts import REVIEW_FILE
from anomaly_detector.errors import AnomalyDetectorError, SourceError

_LOOK_AGAIN_S = 0.5
_WORKSPACE = ".black_box_"
_YEAR_2000_NS = 946_684_800_000_000_000
"""Stamps below are of a simulation or of a clock that was never set."""

_MOST_PROBLEMS = 100
_NO_EVENTS = (
    "it holds no recorded event: give what the black box or 'score --events-dir' wrote, or wait "
    "for the first alarm"
)


@dataclass(frozen=True)
class Entry:
    """One event.

    Attributes:
        id: what the page calls it; no path.
        event: what was recorded.
        label: name of its folder, for a robot.
        facts: of ``event.json``, without its frames.
        verdict: None for none.
        problem: why there is no verdict to be read.
        writable: whether a verdict can be written.
        seen: state of its files when they were read.
    """

    id: str
    event: RecordedEvent
    label: str
    facts: dict[str, Any]
    verdict: Verdict | None
    problem: str
    writable: bool
    seen: tuple[Any, ...]

    @cached_property
    def peak(self) -> int:
        """Number of the frame with the highest score, of those recorded."""
        name = self.facts["peak"]["frame"]
        frames = self.event.frames
        found = [number for number, frame in enumerate(frames) if frame.name == name]
        scores = [-float("inf") if frame.score is None else frame.score for frame in frames]
        return found[0] if found else scores.index(max(scores))

    def picture(self, number: int) -> str:
        """Return the name of a frame's picture, as a verdict on a group records it."""
        return f"{self.event.path.name}/{self.event.frames[number].name}"

    def as_json(self) -> dict[str, Any]:
        """Return it as the page gets it."""
        facts, start = self.facts, self.facts["start_stamp_ns"]
        has_time = facts["stamps"] == "header" and start > _YEAR_2000_NS
        return {
            "id": self.id,
            "name": self.event.path.name,
            "folder": self.label,
            "time": start / 1e9 if has_time else facts["began_utc"],
            "seconds": (facts["end_stamp_ns"] - start) / 1e9,
            "score": facts["peak"]["score"],
            "normalized": facts["peak"]["normalized_score"],
            "peak": self.peak,
            "picture": self.picture(self.peak),
            "frames": len(self.event.frames),
            "threshold": facts["threshold"],
            "model": facts["model"],
            "alarms": facts["alarms"],
            "part": facts["part"],
            "continues": facts["continues"],
            "pose": facts.get("pose"),
            "kind": facts.get("event_kind", ALARM),
            "repeat_of": facts.get("repeat_of"),
            "verdict": verdict_json(self.verdict),
            "problem": self.problem,
            "writable": self.writable,
        }


def verdict_json(verdict: Verdict | None) -> dict[str, Any] | None:
    """Return a verdict as the page gets it."""
    return None if verdict is None else {**vars(verdict), "shown": len(verdict.shown)}


class Catalog:
    """The events in some folders; safe in any thread.

    Args:
        folders: of black boxes, or single events.

    Attributes:
        folders: those.
        entries: by their ids.
        problems: what else is there, and why it is not shown: path and reason.
        version: another number when anything has changed.

    Raises:
        SourceError: a folder is not there.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                what = "no folder" if folder.exists() else "not there"
                raise SourceError(f"{folder} is {what}: give folders of the robot's black box")
        self.folders = list(dict.fromkeys(folder.resolve() for folder in folders))
        names = Counter(folder.name for folder in self.folders)
        self._labels = {f: f.name if names[f.name] == 1 else str(f) for f in self.folders}
        self.entries: dict[str, Entry] = {}
        self.problems: list[tuple[str, str]] = []
        self.version = 0
        self._lock = threading.Lock()
        self._looked = -_LOOK_AGAIN_S

    def look(self) -> None:
        """Find what has changed on the disk, unless that was looked at just now."""
        with self._lock:
            if time.monotonic() - self._looked < _LOOK_AGAIN_S:
                return
            entries: dict[str, Entry] = {}
            problems: list[tuple[str, str]] = []
            for folder in self.folders:
                self._look_into(folder, entries, problems)
            if entries != self.entries or problems != self.problems:
                self.entries, self.problems = entries, problems
                self.version += 1
            self._looked = time.monotonic()

    def _look_into(
        self, folder: Path, entries: dict[str, Entry], problems: list[tuple[str, str]]
    ) -> None:
        try:
            paths = [folder] if (folder / EVENT_FILE).exists() else sorted(folder.iterdir())
        except OSError as error:
            problems.append((str(folder), f"cannot be read ({error.strerror}): copy it again"))
            return
        before = len(entries)
        for path in paths:
            key = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
            try:
                seen = (*_state(path / EVENT_FILE), *_state(path / REVIEW_FILE))
                old = self.entries.get(key)
                if old is not None and old.seen == seen and not path.is_symlink():
                    entries[key] = old
                elif not path.name.startswith(".") and (content := event_content(path)):
                    entries[key] = self._read(key, path, folder, seen, content)
                elif reason := _no_event(path):
                    problems.append((str(path), reason))
            except (AnomalyDetectorError, OSError) as error:
                problems.append((str(path), str(error)))
        if len(entries) == before and not any(str(folder) in path for path, _ in problems):
            problems.append((str(folder), _NO_EVENTS))

    def _read(
        self, key: str, path: Path, folder: Path, seen: tuple[Any, ...], content: dict[str, Any]
    ) -> Entry:
        event = read_event(path, content)
        facts = {name: value for name, value in content.items() if name != "frames"}
        verdict, problem = None, ""
        try:
            verdict = read_verdict(path)
        except SourceError as error:
            problem = str(error)
        writable = os.access(path, os.W_OK | os.X_OK)
        label = self._labels[folder]
        entry = Entry(key, event, label, facts, verdict, problem, writable, seen)
        try:
            if not event.frames:
                raise ValueError("it has no frame")
            json.dumps(entry.as_json(), allow_nan=False)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{path / EVENT_FILE} is damaged ({error}): copy it again") from error
        return entry

    def judge(self, key: str, verdict: Verdict, seen: str | None) -> Entry:
        """Write a verdict; return the event with what is there then.

        Args:
            key: the event's id.
            verdict: what to write.
            seen: as for :func:`~anomaly_detector.black_box.write_verdict`.

        Raises:
            KeyError: no such event.
            AnomalyDetectorError: it cannot be written, or another verdict is there by now.
        """
        entry = self.entries[key]
        path = entry.event.path
        try:
            write_verdict(path, verdict, seen=seen)
        except VerdictChangedError:
            self._looked = -_LOOK_AGAIN_S
            raise
        with self._lock:
            state = (*_state(path / EVENT_FILE), *_state(path / REVIEW_FILE))
            # What is there in this state: another program may have written since.
            entry = replace(entry, verdict=read_verdict(path), problem="", seen=state)
            self.entries[key] = entry
            self.version += 1
        return entry

    def as_json(self) -> dict[str, Any]:
        """Return all as the page gets it."""
        return {
            "version": self.version,
            "events": [entry.as_json() for entry in list(self.entries.values())],
            "problems": self.problems[:_MOST_PROBLEMS],
            "more_problems": max(0, len(self.problems) - _MOST_PROBLEMS),
        }


def _state(file: Path) -> tuple[int, ...]:
    try:
        state = file.lstat()
    except OSError:
        return ()
    return state.st_mtime_ns, state.st_size, state.st_ino


def _no_event(path: Path) -> str:
    """Return why something in a folder is no event; empty for what nobody misses."""
    if path.name.startswith(_WORKSPACE):
        return "an event is being written here, or was when the power went"
    if path.is_symlink():
        return "it is a link, and links are not followed"
    if not path.is_dir() or path.name.startswith("."):
        return ""
    if (path / EVENT_FILE).exists():
        return "its event.json is damaged, a link or of another program: copy it again"
    if EVENT_NAME.fullmatch(path.name):
        return "it has no event.json: half an event; copy it again"
    if found := len(find_events(path)):
        return f"it holds {found} events: give this folder, too"
    return "it is no event of the black box"
