"""Whether a new model may take the place of an old one: both on judged events and normal drives.

An event counts for a model when the alarm is on in a frame that its verdict is for. Both models
score it anew, each with its own view and threshold, and the alarm filter is the same for both. The
false-alarm rate is of single frames, of which neighbours tell the same: its interval is that of the
effective number of frames (:func:`~anomaly_detector.alarms.calibration.effective_frames`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.alarms.alarm_filter import AlarmSettings
from anomaly_detector.alarms.calibration import effective_frames, rate_interval
from anomaly_detector.black_box import find_events, read_verdict
from anomaly_detector.black_box.events import SAMPLE
from anomaly_detector.black_box.reviewed import ChosenFrames, RecordedEventsSource, read_reviewed
from anomaly_detector.drawing.overlay import draw_overlay
from anomaly_detector.errors import SourceError
from anomaly_detector.files import printable
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.fingerprint import frame_hash, known_again
from anomaly_detector.ordered_pool import usable_cores
from anomaly_detector.recordings import Frame, FrameSource, warn_unreadable
from anomaly_detector.review.what_if import Frame as Decided
from anomaly_detector.review.what_if import held_states
from anomaly_detector.scoring.stream import score_recording

Kind: TypeAlias = Literal["anomaly", "normal", "drive"]
By: TypeAlias = Literal["both", "old", "new", "neither"]

MOST_PICTURES = 100
"""Of each kind of change; of true events that were lost all are shown."""

_FEW_FRAMES = 70
"""From fewer independent ones a rate of 0 could as well be 5 %."""

_PICTURE_SIDE = 320
_QUALITY = 80


@dataclass(frozen=True)
class Case:
    """What both models are asked about: a judged event, or a normal drive.

    Attributes:
        name: for people.
        kind: an event judged ``anomaly`` or ``normal``, or a normal ``drive``.
        old: its frames, for the old model.
        new: the same for the new one; may be the same source.
        chosen: names of the frames that count; None for all.
        settings: of the alarm filter.
        hold: how many frames of the camera each stands for.
        note: what the operator wrote.
        is_held_out: of a drive that was trained on, frames that were held out.
    """

    name: str
    kind: Kind
    old: FrameSource
    new: FrameSource
    chosen: frozenset[str] | None = None
    settings: AlarmSettings = field(default_factory=AlarmSettings)
    hold: int = 1
    note: str = ""
    is_held_out: bool = False


@dataclass(frozen=True)
class Judged:
    """The judged events of some folders.

    Attributes:
        cases: one each.
        counts: number of events of each verdict, unreviewed ones included.
    """

    cases: Sequence[Case]
    counts: Counter[str]

    def __str__(self) -> str:
        counts = self.counts
        return (
            f"events: {counts['anomaly']} judged anomaly, {counts['normal']} normal; left out: "
            f"{counts['unsure']} unsure, {counts['unreviewed']} unreviewed"
        )


@dataclass(frozen=True)
class Finding:
    """A judged event, or one stretch of a normal drive with an alarm of either model.

    Attributes:
        case: name of the event or the drive.
        kind: as in :class:`Case`.
        by: which model raised an alarm.
        frame: name of the frame to look at: the highest score of the model that raised it.
        frames: number of frames with an alarm of either model; of an event, of those that count.
        old: normalised score of that frame, 0.5 at the threshold.
        new: likewise.
        note: what the operator wrote.
        pictures: that frame with either model's overlay, as JPEG; none beyond
            :data:`MOST_PICTURES`.
    """

    case: str
    kind: Kind
    by: By
    frame: str
    frames: int
    old: float
    new: float
    note: str = ""
    pictures: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Rate:
    """The share of normal frames that a model flags.

    Attributes:
        frames: of the normal drives.
        flagged: of these, at or above the threshold.
        effective: number of independent frames that they are worth.
    """

    frames: int
    flagged: int
    effective: int

    @property
    def value(self) -> float:
        """The share."""
        return self.flagged / self.frames

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return rate_interval(self.value, self.effective)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2%} [{low:.2%}, {high:.2%}]"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return vars(self) | {"rate": self.value, "interval_95": self.interval}


@dataclass(frozen=True)
class Side:
    """One of the two models: its file and name, and its rate; None without normal drives."""

    file: str
    name: str
    threshold: float
    input_size: int
    rate: Rate | None


@dataclass(frozen=True)
class Comparison:
    """What a new model would change.

    Attributes:
        old: the model before.
        new: the one to take its place.
        findings: of events in their order, then of drives.
        counts: number of events of each verdict; empty without events.
        drives: names of the normal drives.
        notes: what limits the figures, a sentence each.
    """

    old: Side
    new: Side
    findings: tuple[Finding, ...]
    counts: Counter[str]
    drives: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def of(self, by: By, *kinds: Kind) -> list[Finding]:
        """Return the findings of some kinds that the one, the other, both or neither has."""
        return [item for item in self.findings if item.by == by and item.kind in kinds]

    @property
    def failures(self) -> list[str]:
        """Why the new model is not to take the place; none when it may."""
        found = []
        if lost := len(self.of("old", "anomaly")):
            found.append(f"it loses {lost} true event{'s' if lost > 1 else ''}")
        if self.old.rate and self.new.rate and self.new.rate.value > self.old.rate.interval[1]:
            found.append("its false-alarm rate is worse beyond the interval of the old one's")
        return found

    @property
    def verdict(self) -> str:
        """The result in one line."""
        new, old = self.new.file, self.old.file
        parts = [
            f"failed: {new} may not replace {old}, {' and '.join(self.failures)}"
            if self.failures
            else f"passed: {new} may replace {old}"
        ]
        if self.counts:
            missed = len(self.of("neither", "anomaly"))
            parts.append(f"true events: {self.changes('anomaly', 'lost')}, {missed} missed by both")
        parts.append(f"false alarms: {self.changes('normal', 'gone', 'drive')}")
        if self.old.rate and self.new.rate:
            parts.append(f"false-alarm rate {self.old.rate} before, {self.new.rate} now")
        return "; ".join(parts)

    def changes(self, kind: Kind, went: str, *more: Kind) -> str:
        """Count the alarms of some kinds that both models raise, and those of only one."""
        names: Sequence[tuple[By, str]] = (("both", "kept"), ("old", went), ("new", "new"))
        return ", ".join(f"{len(self.of(by, kind, *more))} {name}" for by, name in names)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the pictures, as JSON knows it."""
        sides = {
            name: vars(side) | {"rate": side.rate.to_dict() if side.rate else None}
            for name, side in (("old", self.old), ("new", self.new))
        }
        findings = [
            {name: value for name, value in vars(item).items() if name != "pictures"}
            for item in self.findings
        ]
        return {
            **sides,
            "passed": not self.failures,
            "failures": self.failures,
            "events": dict(self.counts),
            "drives": self.drives,
            "notes": self.notes,
            "findings": findings,
        }


def judged_events(folders: Sequence[str], settings: AlarmSettings) -> Judged:
    """Open the events that people judged, in folders of the robot's black box.

    Raises:
        SourceError: a folder has no event, or a damaged one; or no event was judged normal or an
            anomaly.
    """
    counts: Counter[str] = Counter()
    cases: list[Case] = []
    for folder in map(Path, folders):
        found = read_reviewed(folder)
        if found is None:
            raise SourceError(
                f"{folder} holds no recorded event: give a folder of the robot's black box"
            )
        counts += found.counts
        kinds: tuple[tuple[Kind, Sequence[ChosenFrames]], ...] = (
            ("anomaly", found.anomalies),
            ("normal", found.normal),
        )
        own = {item.event.path: (kind, item) for kind, items in kinds for item in items}
        order = [path for path in find_events(folder) if path in own]
        cases += [_event_case(*own[path], settings) for path in order]
    if folders and not cases:
        raise SourceError(
            f"{', '.join(folders)}: none of {counts.total()} events is judged normal or an "
            f"anomaly: judge them with python -m anomaly_detector review {folders[0]}"
        )
    return Judged(cases, counts)


def _event_case(kind: Kind, chosen: ChosenFrames, settings: AlarmSettings) -> Case:
    event = chosen.event
    source = RecordedEventsSource(event.path, [ChosenFrames(event, event.frames)])
    verdict = read_verdict(event.path)
    return Case(
        printable(f"{event.path.parent.name}/{event.path.name}"),
        kind,
        source,
        source,
        frozenset(f"{event.path.name}/{frame.name}" for frame in chosen.frames),
        # A sample is a single frame.
        replace(settings, mode="off") if event.kind == SAMPLE else settings,
        event.hold,
        verdict.note if verdict else "",
    )


def compare_models(
    old: Detector,
    new: Detector,
    judged: Judged,
    drives: Sequence[Case],
    *,
    notes: Sequence[str] = (),
    fps: float | None = None,
    progress: bool = True,
) -> Comparison:
    """Ask both models about events and drives.

    Args:
        old: the model before.
        new: the one to take its place.
        judged: events with a verdict.
        drives: normal drives. Neither model may have been trained on the frames that count.
        notes: what else limits the figures, a sentence each.
        fps: frames a second of drives without stamps, for an alarm filter in seconds.
        progress: show a progress bar on a terminal.

    Raises:
        SourceError: a recording is not readable, or one that a model was trained on.
        ModelError: a model fails.
    """
    # A drive that was trained on is found before there is much work.
    cases = [*drives, *judged.cases]
    rates: list[tuple[int, int, int]] = []
    found: list[tuple[int, Finding]] = []
    hashes: dict[Path, tuple[set[str], set[str]]] = {}
    total = sum(len(case.old) + len(case.new) for case in cases)
    off = None if progress else True
    with tqdm(total=total, desc="comparing", unit="frame", disable=off) as bar:
        for number, case in enumerate(cases):
            scored = _both_scored(case, old, new, fps, bar)
            if case.kind == "drive":
                _check_unknown(case, old, new, scored)
                rates += [item.rate() for item in scored]
                found += [(number, item) for item in _stretches(case, *scored)]
                continue
            found.append((number, _finding(case, *scored, np.flatnonzero(scored[0].chosen))))
            known = hashes.setdefault(case.old.path.parent, (set(), set()))
            for own, item in zip(known, scored, strict=True):
                own.update(item.hashes[item.chosen].tolist())
    trained = [
        f"{detector.path.name} was trained on events of {folder.name}: what it makes of them says "
        "little about new ones."
        for number, detector in enumerate((old, new))
        for folder, own in hashes.items()
        if any(known_again(folder.name, list(own[number]), detector.metadata.training_recordings))
    ]
    untold = [
        f"{detector.path.name} does not say what it was trained on: make sure that none of the "
        "normal drives was."
        for detector in (old, new)
        if rates and not detector.metadata.training_recordings
    ]
    few = []
    before = _sum(rates[::2])
    if before and before.effective < _FEW_FRAMES:
        few = [
            f"The normal frames are worth {before.effective} independent ones: a false-alarm rate "
            f"of up to {before.interval[1]:.0%} would pass. Give longer drives."
        ]
    sides = [
        Side(
            printable(detector.path.name),
            detector.metadata.name,
            detector.threshold,
            detector.view.size,
            _sum(rates[number::2]),
        )
        for number, detector in enumerate((old, new))
    ]
    return Comparison(
        sides[0],
        sides[1],
        tuple(_pictured(found, cases, old, new, progress)),
        judged.counts,
        tuple(case.name for case in drives),
        tuple(map(printable, (*notes, *few, *trained, *untold))),
    )


@dataclass(frozen=True)
class _Scored:
    """What one model makes of N frames: names, scores, hashes; which count; where alarms are."""

    names: list[str]
    scores: NDArray[np.float32]
    normalized: NDArray[np.float32]
    flagged: NDArray[np.bool_]
    hashes: NDArray[np.str_]
    chosen: NDArray[np.bool_]
    alarm: NDArray[np.bool_]

    def rate(self) -> tuple[int, int, int]:
        scores = self.scores[self.chosen]
        return len(scores), int(self.flagged[self.chosen].sum()), effective_frames(scores)


def _scored(
    detector: Detector, source: FrameSource, case: Case, fps: float | None, bar: tqdm[Any]
) -> _Scored:
    names, hashes, frames = [], [], []
    stamps: list[int] = []
    for item in score_recording(detector, source, fps=fps):
        names.append(item.name)
        hashes.append(frame_hash(item.image))
        frames.append(Decided(item.score, item.normalized_score, item.is_anomaly))
        stamps += [] if item.time_ns is None else [item.time_ns]
        bar.update()
    alarm = np.zeros(len(names), bool)
    all_stamps = stamps if len(stamps) == len(names) else None
    for number, state in held_states(frames, all_stamps, case.hold, case.settings):
        alarm[number] |= state.is_alarm
    chosen = np.ones(len(names), bool)
    if case.chosen is not None:
        chosen = np.array([name in case.chosen for name in names])
        if not chosen.any():
            raise SourceError(
                f"{source.path}: none of the frames that the verdict is for can be read: copy the "
                "event again or leave it out"
            )
    return _Scored(
        names,
        np.array([frame.score for frame in frames], np.float32),
        np.array([frame.normalized_score for frame in frames], np.float32),
        np.array([frame.is_anomaly for frame in frames], bool),
        np.array(hashes),
        chosen,
        alarm & chosen,
    )


def _both_scored(
    case: Case, old: Detector, new: Detector, fps: float | None, bar: tqdm[Any]
) -> tuple[_Scored, _Scored]:
    """Score the frames of a case with both models.

    Raises:
        SourceError: the models can read different frames of it.
    """
    first = _scored(old, case.old, case, fps, bar)
    warn_unreadable(case.old.path, case.old.unreadable)
    second = _scored(new, case.new, case, fps, bar)
    if first.names != second.names:
        raise SourceError(
            f"{case.old.path}: the models can read different frames of it, with regions "
            f"{old.view.region} and {new.view.region}: leave it out"
        )
    return first, second


def _check_unknown(case: Case, old: Detector, new: Detector, scored: Sequence[_Scored]) -> None:
    """Refuse a drive that a model was trained on."""
    if case.is_held_out:
        return
    for detector, item in zip((old, new), scored, strict=True):
        hashes = item.hashes.tolist()
        for known in known_again(case.name, hashes, detector.metadata.training_recordings):
            raise SourceError(
                f"{case.old.path}: model {detector.metadata.name} was trained on it (as "
                f"{known.trained_as}), and its false alarms there say nothing: give a drive that "
                "neither model was trained on"
            )


def _by(old: bool, new: bool) -> By:
    if old and new:
        return "both"
    return "old" if old else "new" if new else "neither"


def _finding(case: Case, old: _Scored, new: _Scored, rows: NDArray[np.int64]) -> Finding:
    """Return what either model makes of some frames, by their numbers."""
    by = _by(bool(old.alarm[rows].any()), bool(new.alarm[rows].any()))
    own = new if by == "new" else old
    # Of the frames with the alarm on, if there are any.
    peak = int(rows[np.lexsort((own.scores[rows], own.alarm[rows]))[-1]])
    return Finding(
        case.name,
        case.kind,
        by,
        printable(own.names[peak]),
        int((old.alarm | new.alarm)[rows].sum()),
        float(old.normalized[peak]),
        float(new.normalized[peak]),
        case.note,
    )


def _stretches(case: Case, old: _Scored, new: _Scored) -> Iterator[Finding]:
    """Yield a finding for every stretch of frames with an alarm of either model."""
    alarm = old.alarm | new.alarm
    edges = np.flatnonzero(np.diff(alarm, prepend=False, append=False))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield _finding(case, old, new, np.arange(start, stop))


def _sum(rates: Sequence[tuple[int, int, int]]) -> Rate | None:
    return Rate(*map(sum, zip(*rates, strict=True))) if rates else None


def _pictured(
    found: Sequence[tuple[int, Finding]],
    cases: Sequence[Case],
    old: Detector,
    new: Detector,
    progress: bool,
) -> list[Finding]:
    """Return findings with the pictures that the page shows, events before drives.

    Each comes with the number of its case. The recordings are read again.
    """
    shown: dict[int, set[str]] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for number, item in found:
        group = item.kind, item.by
        counts[group] += 1
        is_lost = item.kind == "anomaly" and item.by in ("old", "neither")
        if is_lost or (counts[group] <= MOST_PICTURES and group != ("normal", "neither")):
            shown.setdefault(number, set()).add(item.frame)
    pictures: dict[tuple[int, str], list[bytes]] = {}
    for number in tqdm(shown, "pictures", unit="case", disable=None if progress else True):
        case = cases[number]
        for detector, source in ((old, case.old), (new, case.new)):
            for frame in _frames(source, detector, shown[number]):
                overlay = draw_overlay(frame, detector.detect(frame), max_side=_PICTURE_SIDE)
                data = cv2.imencode(".jpg", overlay, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
                key = number, printable(frame.name)
                pictures.setdefault(key, []).append(bytes(data))
    ordered = sorted(found, key=lambda pair: (pair[1].kind == "drive", pair[0]))
    return [
        replace(item, pictures=tuple(pictures.get((number, item.frame), ())))
        for number, item in ordered
    ]


def _frames(source: FrameSource, detector: Detector, names: set[str]) -> Iterator[Frame]:
    """Yield frames of a recording by their names, and read it no further than needed."""
    source.view = detector.view
    left = set(names)

    def wanted(frame: Frame) -> Frame | None:
        return frame if printable(frame.name) in names else None

    for frame in source.mapped(wanted, usable_cores(), reduced=True):
        if frame is not None:
            left.discard(printable(frame.name))
            yield frame
        if not left:
            return
