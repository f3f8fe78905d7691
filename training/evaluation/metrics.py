"""Figures of merit from scores and labels.

Convention (paper, section V; METHOD of the thesis' comparison): ROC-AUC and PR-AUC are computed
from scores, never from 0/1 flags; *pooled* takes every anomalous frame against every normal one,
*per class* takes the frames of one hazard class against every normal one, and *macro* is the mean
over the classes. PR-AUC is the average precision (no interpolation).

Their uncertainty comes from :mod:`training.evaluation.bootstrap`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from anomaly_detector.stamps import SteadyTime
from training.data.labels import NORMAL
from training.evaluation.bootstrap import (
    DEFAULT_BLOCK,
    FloatArray,
    IntArray,
    frame_blocks,
    label_runs,
    resampled_areas,
)


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap 95 % interval; NaN where it is not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-safe, NaN as None."""
        return {"value": json_safe(self.value), "interval_95": json_safe([self.low, self.high])}

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "n/a"
        if math.isnan(self.low):
            return f"{self.value:.3f} [n/a]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Ranking:
    """How well the scores rank anomalous above normal frames.

    Attributes:
        name: ``pooled``, ``macro`` or a class.
        frames: number of anomalous frames.
        roc_auc: area under the ROC curve; 0.5 is chance.
        pr_auc: average precision; the share of anomalous frames is chance.
        narrow: the intervals are too narrow, for want of independent frames
            (:func:`frame_blocks`).
    """

    name: str
    frames: int
    roc_auc: Interval
    pr_auc: Interval
    narrow: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-safe, NaN as None."""
        return {
            "name": self.name,
            "frames": self.frames,
            "roc_auc": self.roc_auc.to_dict(),
            "pr_auc": self.pr_auc.to_dict(),
            "intervals_too_narrow": self.narrow,
        }


@dataclass(frozen=True)
class RankingTable:
    """The rankings of one evaluation and how their intervals were made.

    Attributes:
        normal_frames: number of normal frames.
        pooled: all anomalous against all normal frames.
        macro: mean over the classes.
        classes: one per class, in order of label.
        bootstrap: number of resamples; 0 for no intervals.
        block: frames of a block.
        seed: of the resampling.
    """

    normal_frames: int
    pooled: Ranking
    macro: Ranking
    classes: tuple[Ranking, ...]
    bootstrap: int
    block: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-safe, NaN as None."""
        return {
            "normal_frames": self.normal_frames,
            "pooled": self.pooled.to_dict(),
            "macro": self.macro.to_dict(),
            "classes": [ranking.to_dict() for ranking in self.classes],
            "bootstrap": {
                "resamples": self.bootstrap,
                "block_frames": self.block,
                "seed": self.seed,
            },
        }


@dataclass(frozen=True)
class OperatingPoint:
    """What flagging at one threshold gives; ratios without a denominator are NaN.

    Attributes:
        name: where the threshold comes from.
        threshold: a frame is flagged when its score is at or above it.
        accuracy: share of frames flagged or passed rightly.
        precision: share of the flagged frames that are anomalous.
        recall: share of the anomalous frames that are flagged.
        f1: harmonic mean of precision and recall.
        false_alarm_rate: share of the normal frames that are flagged.
        true_positives: anomalous and flagged.
        false_positives: normal and flagged.
        true_negatives: normal and passed.
        false_negatives: anomalous and passed.
    """

    name: str
    threshold: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    false_alarm_rate: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-safe, NaN as None."""
        return {key: json_safe(value) for key, value in vars(self).items()}


@dataclass(frozen=True)
class Curve:
    """A ROC curve (x false-alarm rate, y recall) or PR curve (x recall, y precision)."""

    x: FloatArray
    y: FloatArray


@dataclass(frozen=True)
class Event:
    """A run of consecutive frames of one recording with the same non-zero label.

    Attributes:
        label: its label.
        name: its class.
        recording: number of the recording.
        start: first frame, counted over all recordings.
        stop: one past the last frame.
    """

    label: int
    name: str
    recording: int
    start: int
    stop: int


@dataclass(frozen=True)
class EventDelay:
    """How long an event lasted before its first flagged frame.

    Attributes:
        event: the event.
        delay_frames: frames from its start until the first flagged one (0: at once); None when
            it was missed.
        delay_s: the same in seconds; None when missed or without stamps.
        flagged_frames: number of its frames that were flagged.
    """

    event: Event
    delay_frames: int | None
    delay_s: float | None
    flagged_frames: int

    @property
    def missed(self) -> bool:
        """Whether no frame of the event was flagged."""
        return self.delay_frames is None

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-safe; frames counted over all recordings."""
        return {
            "class": self.event.name,
            "label": self.event.label,
            "recording": self.event.recording,
            "start_frame": self.event.start,
            "frames": self.event.stop - self.event.start,
            "flagged_frames": self.flagged_frames,
            "missed": self.missed,
            "delay_frames": self.delay_frames,
            "delay_s": json_safe(self.delay_s),
        }


def json_safe(value: Any) -> Any:
    """Return a value with NaN and infinity as None, which JSON can say; lists and dicts too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    return value


def area_under_roc(scores: NDArray[np.floating[Any]], is_anomaly: NDArray[np.bool_]) -> float:
    """Return the ROC-AUC alone, float [N] against bool [N]; NaN for one kind of frame only."""
    truth = np.asarray(is_anomaly, dtype=bool)
    return _areas(_checked(scores, truth), ~truth, truth)[0]


def operating_point(
    scores: NDArray[np.floating[Any]],
    is_anomaly: NDArray[np.bool_],
    threshold: float,
    name: str = "threshold",
) -> OperatingPoint:
    """Compare the flags at a threshold with the truth, float [N] with bool [N]."""
    values = _checked(scores, is_anomaly)
    counts = (
        confusion_matrix(is_anomaly, values >= threshold, labels=[False, True]).ravel().tolist()
    )
    true_negatives, false_positives, false_negatives, true_positives = counts
    return OperatingPoint(
        name=name,
        threshold=float(threshold),
        accuracy=_ratio(true_positives + true_negatives, values.size),
        precision=_ratio(true_positives, true_positives + false_positives),
        recall=_ratio(true_positives, true_positives + false_negatives),
        f1=_ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives),
        false_alarm_rate=_ratio(false_positives, false_positives + true_negatives),
        true_positives=true_positives,
        false_positives=false_positives,
        true_negatives=true_negatives,
        false_negatives=false_negatives,
    )


def recall_by_class(
    scores: NDArray[np.floating[Any]], labels: IntArray, threshold: float
) -> dict[int, float]:
    """Return the share of flagged frames of every label but 0."""
    values = _checked(scores, labels)
    return {
        int(label): float(np.mean(values[labels == label] >= threshold))
        for label in np.unique(labels)
        if label
    }


def curves(
    scores: NDArray[np.floating[Any]], is_anomaly: NDArray[np.bool_]
) -> tuple[Curve, Curve] | None:
    """Return the ROC and the PR curve; None when only one kind of frame is there."""
    values = _checked(scores, is_anomaly)
    truth = np.asarray(is_anomaly, dtype=bool)
    if truth.all() or not truth.any():
        return None
    false_alarm_rate, recall, _ = roc_curve(truth, values)
    # The points in between change neither curve's shape; a long recording has very many.
    precision, pr_recall, _ = precision_recall_curve(truth, values, drop_intermediate=True)
    return (
        Curve(np.asarray(false_alarm_rate, np.float64), np.asarray(recall, np.float64)),
        Curve(np.asarray(pr_recall, np.float64), np.asarray(precision, np.float64)),
    )


def ranking_table(
    scores: NDArray[np.floating[Any]],
    labels: IntArray,
    class_names: Mapping[int, str],
    *,
    recordings: IntArray | None = None,
    bootstrap: int = 1000,
    block: int = DEFAULT_BLOCK,
    seed: int = 0,
) -> RankingTable:
    """Compute ROC-AUC and PR-AUC, pooled, macro and per class, with bootstrap intervals.

    An interval needs two frames or more on each side, else it is NaN. Without a normal or without
    an anomalous frame all is NaN.

    Args:
        scores: float [N].
        labels: int [N], 0 for normal frames.
        class_names: label to name.
        recordings: int [N], number of each frame's recording; None for one recording.
        bootstrap: number of resamples; 0 for no intervals.
        block: frames of a block, see :func:`frame_blocks`.
        seed: of the resampling.
    """
    values = _checked(scores, labels)
    present = [int(label) for label in np.unique(labels) if label]
    normal = labels == 0
    groups: list[tuple[str, NDArray[np.bool_]]] = [("pooled", ~normal)]
    groups += [(class_names[label], labels == label) for label in present]
    points = [_areas(values, normal, group) for _, group in groups]
    blocks, finer = frame_blocks(labels, recordings, block)
    # The pool's spread does not hang on a small class; that of the normal frames is in all.
    narrow = [0 in finer or all(label in finer for label in present)]
    narrow += [0 in finer or label in finer for label in present]
    usable = [
        min(np.unique(blocks[normal]).size, np.unique(blocks[group]).size) >= 2
        for _, group in groups
    ]
    samples = np.full((max(bootstrap, 1), len(groups), 2), np.nan)
    if bootstrap > 0 and usable[0]:
        samples = resampled_areas(values, labels, blocks, bootstrap, seed)
        samples[:, np.logical_not(usable)] = np.nan
    rankings = [
        _ranking(name, int(group.sum()), points[index], samples[:, index], narrow[index])
        for index, (name, group) in enumerate(groups)
    ]
    # A mean over some classes with a spread and some without one (NaN) would look too certain.
    classes = slice(1 if present else 0, None)
    macro = _ranking(
        "macro",
        rankings[0].frames,
        np.mean(points[classes], axis=0),
        samples[:, classes].mean(axis=1),
        any(narrow[1:]),
    )
    return RankingTable(
        int(normal.sum()), rankings[0], macro, tuple(rankings[1:]), bootstrap, block, seed
    )


def find_events(
    labels: IntArray, class_names: Mapping[int, str], recordings: IntArray | None = None
) -> list[Event]:
    """Return the maximal runs of consecutive frames with the same non-zero label.

    No run crosses from one recording into the next; ``recordings`` is None for one recording.
    """
    return [
        Event(
            int(labels[a]),
            class_names[int(labels[a])],
            0 if recordings is None else int(recordings[a]),
            a,
            b,
        )
        for a, b in label_runs(labels, recordings)
        if labels[a]
    ]


def detection_delays(
    events: Sequence[Event],
    flagged: NDArray[np.bool_],
    stamps_ns: Sequence[int | None] | None = None,
) -> list[EventDelay]:
    """Return each event's frames, and seconds, from its start to its first flagged frame.

    Args:
        events: from :func:`find_events`.
        flagged: bool [N].
        stamps_ns: stamp of every frame; None, or None for a frame, where there is none. Steps of
            their clock count nothing.
    """
    delays = []
    steady = SteadyTime()
    times = [None if stamp is None else steady.add(stamp) for stamp in stamps_ns or ()]
    for event in events:
        hits = np.flatnonzero(flagged[event.start : event.stop])
        first = int(hits[0]) if hits.size else None
        seconds = None
        if first is not None and times:
            begin, end = times[event.start], times[event.start + first]
            if begin is not None and end is not None:
                seconds = round(end - begin, 9)
        delays.append(EventDelay(event, first, seconds, int(hits.size)))
    return delays


def _checked(
    scores: NDArray[np.floating[Any]], labels: NDArray[np.int64] | NDArray[np.bool_]
) -> FloatArray:
    """Return scores of every frame, float64 [N].

    Raises:
        ValueError: shapes differ or a score is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.shape != labels.shape:
        raise ValueError(f"scores {values.shape} and labels {labels.shape}: give one per frame")
    if not np.isfinite(values).all():
        raise ValueError("a score is NaN or infinite: the model is damaged")
    return values


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _areas(
    values: FloatArray, normal: NDArray[np.bool_], group: NDArray[np.bool_]
) -> tuple[float, float]:
    if not normal.any() or not group.any():
        return math.nan, math.nan
    chosen = normal | group
    truth = group[chosen]
    return (
        float(roc_auc_score(truth, values[chosen])),
        float(average_precision_score(truth, values[chosen])),
    )


def _ranking(
    name: str, frames: int, point: Sequence[float], samples: FloatArray, narrow: bool
) -> Ranking:
    low, high = np.percentile(samples, [2.5, 97.5], axis=0).tolist()
    roc_auc, pr_auc = map(Interval, map(float, point), low, high)
    return Ranking(name, frames, roc_auc, pr_auc, narrow)


def class_name_table(labels: IntArray, classes: Sequence[str]) -> dict[int, str]:
    """Return label to class name from per-frame columns; label 0 is always there."""
    return {0: NORMAL} | dict(zip(labels.tolist(), classes, strict=True))
