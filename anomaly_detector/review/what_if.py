"""What another threshold or alarm filter would have made of stored scores.

The decision is the package's own :class:`~anomaly_detector.alarms.alarm_filter.AlarmFilter`. Events
hold fewer frames than the camera sent: each stands for those up to the next one.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmFilter, AlarmSettings, AlarmState
from anomaly_detector.black_box import UNREVIEWED
from anomaly_detector.errors import AnomalyDetectorError, SourceError, as_one_line
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.normalization import (
    float32_threshold,
    normalization_scale,
    normalize_scores,
)
from anomaly_detector.review.catalog import Entry
from anomaly_detector.stamps import parse_stamp

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Scores:
    """Stored scores of N frames in a row.

    Attributes:
        name: of the drive's table, or the event's id.
        stamps_ns: int64 [N]; None where there are none.
        scores: float32 [N], finite.
        normalized: float32 [N], at the threshold of that time.
        hold: how many frames of the camera each stands for.
    """

    name: str
    stamps_ns: NDArray[np.int64] | None
    scores: NDArray[np.float32]
    normalized: NDArray[np.float32]
    hold: int = 1

    @property
    def seconds(self) -> float:
        """From the first to the last frame."""
        return 0.0 if self.stamps_ns is None else float(np.ptp(self.stamps_ns)) / 1e9

    def scale(self) -> tuple[float, float]:
        """Return threshold and scale of the normalised score, from the stored scores.

        Raises:
            AnomalyDetectorError: too few of them differ.
        """
        inside = (self.normalized > 0.0) & (self.normalized < 1.0)
        known = self.normalized[inside].astype(np.float64)
        # The inverse of normalize_scores: the score is threshold + scale * u.
        u = np.where(known < 0.5, 1.0 - 0.5 / known, 0.5 / (1.0 - known) - 1.0)
        if len(known) < 2 or np.ptp(u) < 1e-6:
            raise AnomalyDetectorError(f"{self.name}: too few scores differ to learn their scale")
        scale, threshold = np.polyfit(u, self.scores[inside].astype(np.float64), 1)
        return float(threshold), float(scale)


@dataclass(frozen=True)
class Frame:
    """One frame's scores, as the alarm filter wants them."""

    score: float
    normalized_score: float
    is_anomaly: bool


def scores_of(entry: Entry) -> Scores:
    """Return the stored scores of an event; frames without one are left out."""
    event = entry.event
    frames = [
        (frame.stamp_ns, frame.score, frame.normalized_score)
        for frame in event.frames
        if frame.score is not None and frame.normalized_score is not None
    ]
    _, scores, normalized = np.array(frames, np.float64).reshape(-1, 3).T
    return Scores(
        entry.id,
        np.array([stamp for stamp, _, _ in frames], np.int64),
        scores.astype(np.float32),
        normalized.astype(np.float32),
        event.hold,
    )


def read_scores(path: Path) -> Scores:
    """Read a table that ``score --output`` wrote of a drive.

    Raises:
        SourceError: it is missing or another table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        stamps = [parse_stamp(row["stamp"]) for row in rows if row["stamp"]]
        scores = np.array([float(row["score"]) for row in rows], np.float32)
        normalized = np.array([float(row["normalized_score"]) for row in rows], np.float32)
        if not rows or not np.isfinite(scores).all():
            raise ValueError("it has no rows, or scores that are no numbers")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or as_one_line(error)
        raise SourceError(
            f"{path} is no table of scores ({reason}): give what 'score --output' wrote"
        ) from error
    whole = np.array(stamps, np.int64) if len(stamps) == len(rows) else None
    return Scores(path.name, whole, scores, normalized)


def alarms(
    scores: Scores, threshold: float, settings: AlarmSettings, metadata: ModelMetadata | None
) -> int:
    """Return the number of alarms that other settings would have raised.

    Args:
        scores: of one drive or event.
        threshold: in the model's units.
        settings: of the alarm filter.
        metadata: of the model that gave the scores. Without it the scale of the normalised score
            follows the threshold as it does for a calibrated model: the median normal score stays.

    Raises:
        AnomalyDetectorError: the scale cannot be learned, or seconds are asked for without stamps.
    """
    if metadata is not None:
        scale = normalization_scale(metadata, threshold)
    else:
        old, width = scores.scale()
        scale = np.float32(max(abs(threshold - (old - width)), 1e-6 * abs(threshold), 1e-30))
    limit = float32_threshold(threshold)
    normalized = normalize_scores(scores.scores, limit, scale)
    frames = [
        Frame(float(score), float(value), bool(score >= limit))
        for score, value in zip(scores.scores, normalized, strict=True)
    ]
    stamps = None if scores.stamps_ns is None else scores.stamps_ns.tolist()
    return sum(state.started for _, state in held_states(frames, stamps, scores.hold, settings))


def held_states(
    frames: Sequence[Frame], stamps_ns: Sequence[int] | None, hold: int, settings: AlarmSettings
) -> Iterator[tuple[int, AlarmState]]:
    """Yield what the alarm filter makes of frames that each stand for several.

    Args:
        frames: in order.
        stamps_ns: of each; None where there are none.
        hold: how many frames of the camera each stands for.
        settings: of the alarm filter.

    Yields:
        For every frame of the camera the number of the frame that stands for it, and the state.

    Raises:
        AnomalyDetectorError: seconds are asked for without stamps.
    """
    decide = AlarmFilter(settings)
    for number, frame in enumerate(frames):
        stamp, step = None, 0
        if stamps_ns is not None:
            stamp = stamps_ns[number]
            step = (stamps_ns[min(number + 1, len(frames) - 1)] - stamp) // hold
        for _ in range(hold):
            yield number, decide.update(frame, stamp_ns=stamp)
            stamp = None if stamp is None else stamp + step


def try_settings(
    entries: Sequence[Entry],
    drives: Sequence[Scores],
    threshold: float,
    settings: AlarmSettings,
    metadata: ModelMetadata | None,
) -> dict[str, Any]:
    """Return what settings would have made of events and drives, as the page gets it.

    Raises:
        AnomalyDetectorError: see :func:`alarms`.
    """
    kept: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    lost_anomalies, left_out = [], 0
    starts = []
    for entry in entries:
        own = metadata if metadata and metadata.name == entry.facts["model"] else None
        try:
            raised = alarms(scores_of(entry), threshold, settings, own)
        except AnomalyDetectorError:
            left_out += 1
            continue
        verdict = entry.verdict.verdict if entry.verdict else UNREVIEWED
        (kept if raised else lost)[verdict] += 1
        starts.append(entry.facts["start_stamp_ns"])
        if not raised and verdict == "anomaly":
            lost_anomalies.append(entry.id)
    days = max(1.0, (max(starts) - min(starts)) / 1e9 / _DAY_S) if starts else 1.0
    counts = [alarms(drive, threshold, settings, metadata) for drive in drives]
    seconds = sum(drive.seconds for drive in drives)
    return {
        "kept": kept,
        "lost": lost,
        "lost_anomalies": lost_anomalies,
        "left_out": left_out,
        "days": days,
        "a_day": kept.total() / days,
        "drives": [
            {"name": drive.name, "alarms": count, "seconds": drive.seconds}
            for drive, count in zip(drives, counts, strict=True)
        ],
        "drives_a_day": sum(counts) * _DAY_S / seconds if seconds else None,
    }
