"""What a model makes of injected faults.

Every test frame is taken twice, as it is and with a fault (a paired design), for every fault of a
documented family (:mod:`training.evaluation.faults`). A fault's place and parameters come from a
generator seeded with (seed, fault, frame number), so a figure depends neither on the order of
frames nor on which other faults are run.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.errors import SourceError
from anomaly_detector.images.image import Image, to_rgb
from anomaly_detector.images.preprocessing import INPUT_SIZE, View, preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.fingerprint import TrainedRecording, trained_warning
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.normalization import normalize_for
from anomaly_detector.ordered_pool import map_in_order
from anomaly_detector.recordings import Frame, FrameSource, count_frames
from training.evaluation.bootstrap import DEFAULT_BLOCK, frame_blocks, resampled_means
from training.evaluation.faults import UNITS, Fault, FrozenFrame, as_seen
from training.evaluation.metrics import Interval, Ranking, json_safe, ranking_table

TRAINED_REMEDY = "these figures say little about new frames: stress it with another normal drive"
"""What to do about a model that was trained on what it is measured with."""

# Threads, not processes: OpenCV works without the interpreter's lock.
_WORKERS = 2
_MOST_FRAMES = 8
_POINTING_MARGIN = 1
"""Pixels at 64x64 by which an object is widened before the map's maximum is looked for in it."""

Exclusion = tuple[int, int]
"""First and last frame number to leave out, counted from 0, both included."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class StressExample:
    """A frame to look at.

    Attributes:
        frame: frame name.
        image: uint8 RGB [H, W, 3], as the model saw it.
        anomaly_map: float32 [H, W].
        score: its score.
    """

    frame: str
    image: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32]
    score: float


@dataclass(frozen=True)
class FaultResult:
    """What the model makes of one fault.

    Attributes:
        fault: the fault.
        roc_auc: faulted against clean frames; 0.5 is chance, below it the model finds faulted
            frames *more* normal than clean ones.
        narrow: the interval is too narrow (:func:`training.evaluation.bootstrap.frame_blocks`).
        recall: share of the faulted frames at or above the model's threshold.
        raised: share of the faulted frames that score above the same frame without the fault.
        pointing: share of the faulted frames in which the anomaly map's maximum lies in the
            changed region, widened by one pixel at 64x64; NaN for faults without a place.
        median_score: of the faulted frames.
        median_normalized_score: the same on the scale that all models share, 0.5 at the threshold.
        example: the same frame for all faults.
    """

    fault: Fault
    roc_auc: Interval
    narrow: bool
    recall: float
    raised: float
    pointing: float
    median_score: float
    median_normalized_score: float
    example: StressExample

    @property
    def counted(self) -> bool:
        """Whether it enters mean and minimum: one frame alone must show the fault."""
        return self.fault.per_frame

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-safe, NaN as None, without the pictures."""
        return {
            "fault": self.fault.name,
            "group": self.fault.group,
            "description": self.fault.description,
            "stage": self.fault.stage,
            "parameters": json_safe(self.fault.parameters()),
            "counted": self.counted,
            "roc_auc": self.roc_auc.to_dict(),
            "interval_too_narrow": self.narrow,
            "recall": json_safe(self.recall),
            "raised": json_safe(self.raised),
            "pointing": json_safe(self.pointing),
            "median_score": json_safe(self.median_score),
            "median_normalized_score": json_safe(self.median_normalized_score),
        }


@dataclass(frozen=True)
class StressResult:
    """All results of one stress test.

    Attributes:
        model: file name of the model.
        metadata: what the model says about itself.
        threshold: the model's.
        frames: number of clean frames, and of faulted ones per fault.
        seed: of the faults and of the bootstrap.
        bootstrap: number of resamples; 0 for no intervals.
        block: frames of a bootstrap block.
        clean_scores: float64 [frames].
        faults: one per fault, in the order asked for.
        mean_roc_auc: over the counted faults; NaN without any.
        recall: mean over the counted faults; NaN without any.
        clean_example: the examples' frame without a fault.
        trained_on: the recording, if the model was trained on it.
    """

    model: str
    metadata: ModelMetadata
    threshold: float
    frames: int
    seed: int
    bootstrap: int
    block: int
    clean_scores: FloatArray
    faults: tuple[FaultResult, ...]
    mean_roc_auc: Interval
    recall: Interval
    clean_example: StressExample
    trained_on: tuple[TrainedRecording, ...] = ()

    @property
    def warning(self) -> str | None:
        """The line that says that the model was trained on these frames; None if it was not."""
        return trained_warning(self.trained_on, TRAINED_REMEDY)

    @property
    def false_alarms(self) -> float:
        """Share of the clean frames at or above the threshold."""
        return float(np.mean(self.clean_scores >= self.threshold))

    @property
    def counted(self) -> tuple[FaultResult, ...]:
        """The faults that enter mean and minimum."""
        return tuple(item for item in self.faults if item.counted)

    @property
    def worst(self) -> FaultResult | None:
        """The counted fault with the lowest ROC-AUC; None without any."""
        return min(self.counted, key=lambda item: item.roc_auc.value, default=None)

    @property
    def mean_recall(self) -> float:
        """Mean recall over the counted faults; NaN without any."""
        return self.recall.value

    @property
    def mean_pointing(self) -> float:
        """Mean pointing accuracy over the counted faults that have a place; NaN without any."""
        return _mean([item.pointing for item in self.counted if not math.isnan(item.pointing)])

    def of(self, name: str) -> FaultResult:
        """Return the result of one fault.

        Raises:
            KeyError: it was not run.
        """
        for item in self.faults:
            if item.fault.name == name:
                return item
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return all but pictures and per-frame scores, JSON-safe, NaN as None."""
        worst = self.worst
        summary = {
            "mean_roc_auc": self.mean_roc_auc.to_dict(),
            "minimum_roc_auc": None if worst is None else json_safe(worst.roc_auc.value),
            "worst_fault": None if worst is None else worst.fault.name,
            "mean_recall": json_safe(self.mean_recall),
            "mean_recall_interval_95": json_safe([self.recall.low, self.recall.high]),
            "minimum_recall": json_safe(min((f.recall for f in self.counted), default=math.nan)),
            "mean_pointing": json_safe(self.mean_pointing),
            "false_alarm_rate": self.false_alarms,
            "faults_counted": len(self.counted),
        }
        return {
            "model": self.model,
            "trained_on": [asdict(item) for item in self.trained_on],
            "metadata": json_safe(asdict(self.metadata)),
            "threshold": self.threshold,
            "frames": self.frames,
            "seed": self.seed,
            "bootstrap": {"resamples": self.bootstrap, "block_frames": self.block},
            "clean_median_score": float(np.median(self.clean_scores)),
            "summary": summary,
            "faults": [item.to_dict() for item in self.faults],
        }


def numbered_frames(
    source: FrameSource, view: View, exclude: Sequence[Exclusion] = ()
) -> Iterator[tuple[int, Frame]]:
    """Yield the readable frames of a recording with their numbers, but for excluded ranges.

    Numbers count from 0 over all frames of the recording; unreadable frames count too.

    Args:
        source: the recording.
        view: what the model sees of a frame.
        exclude: ranges to leave out.

    Raises:
        SourceError: no frame is readable, or an excluded range lies past the recording's end.
    """
    for first, last in exclude:
        if first >= len(source):
            raise SourceError(
                f"--exclude {first}-{last}: {source.path} has frames 0 to {len(source) - 1}: "
                "give a range within these"
            )
    source.view = view
    for position, frame in enumerate(source):
        number = position + count_frames(source.unreadable)
        if not any(first <= number <= last for first, last in exclude):
            yield number, frame


def fault_generator(seed: int, fault: Fault, number: int) -> np.random.Generator:
    """Return the generator that draws place and parameters of a fault in frame ``number``."""
    return np.random.default_rng([seed, zlib.crc32(fault.name.encode()), number])


def inject(
    fault: Fault, frame: Frame, rng: np.random.Generator, size: int = INPUT_SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Put a fault on a frame and resize it, or resize it first where the fault asks for that.

    Returns:
        uint8 RGB [size, size, 3], and the changed region, bool [size, size], or None.
    """
    if fault.stage == "input":
        return fault.apply(preprocess(frame.pixels, size), rng)
    image, mask = fault.apply(to_rgb(frame.pixels), rng)
    return preprocess(Image(image, "rgb"), size), None if mask is None else as_seen(mask, size)


def run_stress(
    detector: Detector,
    frames: Iterable[tuple[int, Frame]],
    faults: Sequence[Fault],
    seed: int = 0,
    *,
    bootstrap: int = 1000,
    block: int = DEFAULT_BLOCK,
    trained_on: tuple[TrainedRecording, ...] = (),
    total: int | None = None,
    progress: bool = True,
) -> StressResult:
    """Score frames without and with every fault.

    Only scores and one example per fault are kept; full-size frames are held a few at a time.

    Args:
        detector: the model.
        frames: normal frames with their numbers in the recording, ascending
            (:func:`numbered_frames`).
        faults: at least one, of different names.
        seed: of the faults and of the bootstrap, 0 or more.
        bootstrap: resamples for the intervals, 0 for none.
        block: frames of a bootstrap block; stretches before and after a gap are kept apart.
        trained_on: the recording, if the model was trained on it, for the result.
        total: number of frames, for the progress bar.
        progress: show it on a terminal.

    Raises:
        SourceError: no frame at all.
        ModelError: the model fails.
        ValueError: no fault, or two of one name.
    """
    names = [fault.name for fault in faults]
    if not faults or len(set(names)) != len(names):
        raise ValueError(f"faults {names}: give at least one, and every name once")
    inject_all = partial(_inject_all, faults, seed, detector.view.size)
    injected = map_in_order(inject_all, frames, _WORKERS, _MOST_FRAMES)
    shown = None if progress else True
    scored = _score(
        detector, faults, seed, tqdm(injected, "stressing", total, unit="frame", disable=shown)
    )
    areas, mean = _areas(scored, faults, bootstrap, block, seed)
    clean, threshold = scored.scores[:, 0], detector.threshold
    medians = np.median(scored.scores[:, 1:], axis=0)
    normalized = normalize_for(detector.metadata, medians.astype(np.float32), threshold)
    results = []
    for i, fault in enumerate(faults):
        own, hits = scored.scores[:, i + 1], scored.hits[:, i]
        results.append(
            FaultResult(
                fault=fault,
                roc_auc=areas[i].roc_auc,
                narrow=areas[i].narrow,
                recall=float(np.mean(own >= threshold)),
                raised=float(np.mean(own > clean)),
                pointing=_mean(hits[~np.isnan(hits)].tolist()),
                median_score=float(medians[i]),
                median_normalized_score=float(normalized[i]),
                example=scored.examples[i + 1],
            )
        )
    return StressResult(
        model=detector.path.name,
        metadata=detector.metadata,
        threshold=threshold,
        frames=len(clean),
        seed=seed,
        bootstrap=bootstrap,
        block=block,
        clean_scores=clean,
        faults=tuple(results),
        mean_roc_auc=mean,
        recall=_recall(scored, faults, threshold, bootstrap, block, seed),
        clean_example=scored.examples[0],
        trained_on=trained_on,
    )


@dataclass(frozen=True)
class _Injected:
    """A frame without and with all faults, as the model gets them.

    Attributes:
        number: of the frame.
        name: of the frame.
        images: uint8 [H, W, 3], the clean one first; also for a fault that needs the frames
            before, which are not known here.
        masks: per fault bool [H, W], or None.
    """

    number: int
    name: str
    images: list[NDArray[np.uint8]]
    masks: list[NDArray[np.bool_] | None]


def _inject_all(
    faults: Sequence[Fault], seed: int, size: int, item: tuple[int, Frame]
) -> _Injected:
    number, frame = item
    result = _Injected(number, frame.name, [preprocess(frame.pixels, size)], [])
    for fault in faults:
        image, mask = result.images[0], None
        if not isinstance(fault, FrozenFrame):
            image, mask = inject(fault, frame, fault_generator(seed, fault, number), size)
        result.images.append(image)
        result.masks.append(mask)
    return result


@dataclass(frozen=True)
class _Scored:
    """N frames, clean and with F faults: numbers, scores [N, 1 + F], hits [N, F], examples."""

    numbers: list[int]
    scores: FloatArray
    hits: FloatArray
    examples: list[StressExample]


def _score(
    detector: Detector, faults: Sequence[Fault], seed: int, frames: Iterable[_Injected]
) -> _Scored:
    chooser = np.random.default_rng(seed)
    numbers, all_scores, hits = [], [], []
    examples: list[StressExample] = []
    held: dict[int, tuple[int, NDArray[np.uint8]]] = {}
    for frame in frames:
        for index, fault in enumerate(faults, 1):
            if isinstance(fault, FrozenFrame):
                # After a gap the first frame at hand stands still.
                shown = fault.shown(frame.number)
                if index not in held or held[index][0] != shown:
                    held[index] = (shown, frame.images[0])
                frame.images[index] = held[index][1]
        images = np.stack(frame.images)
        scores, _, maps = detector.score_batch(images)
        numbers.append(frame.number)
        all_scores.append(scores)
        hits.append([_points_into(*pair) for pair in zip(maps[1:], frame.masks, strict=True)])
        # One frame of all with equal chance, though their number is not known before.
        if chooser.random() * len(numbers) < 1:
            examples = [
                StressExample(frame.name, image, one.copy(), float(score))
                for image, one, score in zip(images, maps, scores, strict=True)
            ]
    if not numbers:
        raise SourceError("no frame to stress: give a recording, or exclude less of it")
    return _Scored(numbers, np.array(all_scores, np.float64), np.array(hits), examples)


def _areas(
    scored: _Scored, faults: Sequence[Fault], bootstrap: int, block: int, seed: int
) -> tuple[dict[int, Ranking], Interval]:
    """Rank each fault's frames against the clean ones; the mean is over the counted faults."""
    areas: dict[int, Ranking] = {}
    mean = Interval(math.nan)
    for counted in (True, False):
        chosen = [i for i, fault in enumerate(faults) if fault.per_frame is counted]
        if not chosen:
            continue
        table = ranking_table(
            scored.scores[:, [0, *(i + 1 for i in chosen)]].T.ravel(),
            np.repeat(np.arange(len(chosen) + 1), len(scored.numbers)),
            {k + 1: faults[i].name for k, i in enumerate(chosen)},
            recordings=np.tile(_stretches(scored.numbers), len(chosen) + 1),
            bootstrap=bootstrap,
            block=block,
            seed=seed,
        )
        areas |= dict(zip(chosen, table.classes, strict=True))
        if counted:
            mean = table.macro.roc_auc
    return areas, mean


def _recall(
    scored: _Scored,
    faults: Sequence[Fault],
    threshold: float,
    bootstrap: int,
    block: int,
    seed: int,
) -> Interval:
    """Return the mean recall of the counted faults; a frame is drawn with all of its faults."""
    counted = [number for number, fault in enumerate(faults, 1) if fault.per_frame]
    if not counted:
        return Interval(math.nan)
    flagged = scored.scores[:, counted] >= threshold
    mean = _mean(flagged.mean(axis=0).tolist())
    if not bootstrap:
        return Interval(mean)
    shares = flagged.mean(axis=1)
    blocks, _ = frame_blocks(np.zeros(len(shares), np.int64), _stretches(scored.numbers), block)
    low, high = np.percentile(resampled_means(shares, blocks, bootstrap, seed), [2.5, 97.5])
    return Interval(mean, float(low), float(high))


def _points_into(anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> float:
    """Return whether the map's maximum lies in the region, widened; NaN without a region."""
    if mask is None or not mask.any():
        return math.nan
    size = mask.shape[0]
    side = 2 * _POINTING_MARGIN * size // UNITS + 1
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8))
    height, width = anomaly_map.shape
    row, column = divmod(int(np.argmax(anomaly_map)), width)
    y, x = int((row + 0.5) * size / height), int((column + 0.5) * size / width)
    return float(wide[y, x])


def _stretches(numbers: Sequence[int]) -> NDArray[np.int64]:
    """Number the stretches of consecutive frames, int64 [N]."""
    return np.cumsum(np.diff(np.array(numbers, np.int64), prepend=numbers[0]) > 1)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
