"""Scoring at full speed: frames decoded by several threads, the network run on batches.

The scores are those of frames scored one by one, as the node scores them, to the last bit. ONNX
Runtime promises no such thing for batches of other sizes, so it is put to the test: all batches
have one size (the last one is filled up), and the first one is scored both ways. Where a bit
differs, every frame is scored alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.detector import BatchScores, Detector
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.frame_cache import ShrunkFrame, shrunk_frame
from anomaly_detector.sources import FrameSource, usable_cores

__all__ = ["BATCH_SIZE", "BatchScorer", "ScoredFrame", "check_fps", "score_recording", "stamp_at"]

BATCH_SIZE = 16
"""Frames a run of the network; more gain nothing on a processor."""

_CPU = "CPUExecutionProvider"

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class ScoredFrame:
    """The result for one frame of a recording.

    Attributes:
        name: see :class:`anomaly_detector.sources.Frame`.
        stamp_ns: likewise.
        score: in the model's units.
        normalized_score: in [0, 1], 0.5 at the threshold.
        is_anomaly: the score is at or above the threshold.
    """

    name: str
    stamp_ns: int | None
    score: float
    normalized_score: float
    is_anomaly: bool


class BatchScorer:
    """Scores shrunk frames in batches of one size, to the same bits as one by one.

    Args:
        detector: the model; its ``run`` is called from several threads when it runs on the CPU.
        batch_size: frames a run.

    Attributes:
        is_batched: the batches passed the test of the first one; None before it.
    """

    def __init__(self, detector: Detector, batch_size: int = BATCH_SIZE) -> None:
        self._detector = detector
        self._batch_size = batch_size
        self.is_batched: bool | None = False if batch_size == 1 else None

    def score(self, images: Sequence[NDArray[np.uint8]]) -> BatchScores:
        """Score up to ``batch_size`` frames, uint8 [64, 64, 3] RGB each.

        Raises:
            ModelError: the model fails.
        """
        count = len(images)
        if self.is_batched:
            filled = [*images, *[images[-1]] * (self._batch_size - count)]
            return BatchScores(*(values[:count] for values in self._detector.run(np.stack(filled))))
        single = [self._detector.run(image[np.newaxis]) for image in images]
        result = BatchScores(*(np.concatenate(values) for values in zip(*single, strict=True)))
        if self.is_batched is None and count == self._batch_size:
            batch = self._detector.run(np.stack(images))
            self.is_batched = _same_bits(batch, result)
        return result


def _same_bits(one: BatchScores, other: BatchScores) -> bool:
    return all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in ("score", "normalized_score")
    )


def score_recording(
    detector: Detector,
    source: FrameSource,
    *,
    fps: float | None = None,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[ScoredFrame]:
    """Score a recording, in order; the results depend neither on ``workers`` nor on ``batch_size``.

    Args:
        detector: the model.
        source: the recording.
        fps: frames a second of a recording without stamps: its readable frames get stamps from 0
            on; None leaves them without.
        workers: threads that decode, and on the CPU as many that run the network; None for one
            per processor core.
        batch_size: frames a run of the network.

    Raises:
        SourceError: no frame is readable.
        ModelError: the model fails.
        AnomalyDetectorError: ``fps``, ``workers`` or ``batch_size`` is not positive.
    """
    check_fps(fps)
    workers = usable_cores() if workers is None else workers
    for name, value in (("workers", workers), ("batch size", batch_size)):
        if value < 1:
            raise AnomalyDetectorError(f"{name} is {value}: give 1 or more")
    scorer = BatchScorer(detector, batch_size)

    def scored(frames: Sequence[ShrunkFrame]) -> tuple[Sequence[ShrunkFrame], BatchScores]:
        return frames, scorer.score([frame.image for frame in frames])

    batches = _batched(source.mapped(shrunk_frame, workers, reduced=True), batch_size)
    # A GPU takes one batch after the other anyhow.
    threads = workers if list(detector.providers) == [_CPU] else 1
    index = 0
    for frames, result in _mapped_in_order(scored, batches, threads if workers > 1 else 0):
        values = zip(frames, result.score.tolist(), result.normalized_score.tolist(), strict=True)
        for frame, score, normalized in values:
            yield ScoredFrame(
                frame.name,
                stamp_at(frame.stamp_ns, index, fps),
                score,
                normalized,
                detector.is_anomaly(score),
            )
            index += 1


def check_fps(fps: float | None) -> None:
    """Refuse a frame rate that is none.

    Raises:
        AnomalyDetectorError: it is not positive.
    """
    if fps is not None and not (fps > 0.0 and math.isfinite(fps)):
        raise AnomalyDetectorError(f"frame rate is {fps}: give a positive number, such as 20")


def stamp_at(stamp_ns: int | None, index: int, fps: float | None) -> int | None:
    """Give a frame's own stamp, or one from its number where it has none and a rate is given."""
    return stamp_ns if fps is None or stamp_ns is not None else round(index * 1e9 / fps)


def _batched(items: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while batch := list(islice(items, size)):
        yield batch


def _mapped_in_order(
    function: Callable[[_T], _R], items: Iterator[_T], threads: int
) -> Iterator[_R]:
    """Yield ``function`` of every item in order; one item more than threads is begun at most."""
    if threads == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
