"""Scoring at full speed: several threads decode frames and run the network.

The network takes several frames a run, which costs less a frame than one by one: about half on a
processor for the thesis' v5, and far less on a GPU. One frame a run, as in the node, gives the
node's scores to the last bit. ONNX Runtime promises no such thing for larger batches, and does not
keep it: of the shipped model, whose score takes a logarithm, 2 of 64 corridor frames differ in the
last bit in batches of 4 or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.model.regions import AnomalyRegion, anomaly_regions
from anomaly_detector.ordered_pool import map_in_order, usable_cores
from anomaly_detector.recordings import Frame, FrameSource
from anomaly_detector.recordings.base import check_fps, stamp_and_time
from anomaly_detector.recordings.cache import preprocessed_frame

BATCH_SIZE = 16
"""Frames a run where the last bit of a score does not matter: larger ones gain nothing more."""

_FRAMES_A_TASK = 16
"""Frames that a thread takes at a time, at least: handing them over one by one costs more."""

_MOST_FRAMES = 1024
"""Frames a run at most: their activations take gigabytes then."""

_CPU = "CPUExecutionProvider"

_Scores: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]
"""Scores and normalised scores of some frames, float32 [N] each, and their maps [N, H, W] where
they are asked for."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class ScoredFrame:
    """The result for one frame of a recording.

    Attributes:
        name: see :class:`anomaly_detector.recordings.Frame`.
        stamp_ns: likewise.
        time_ns: the time to decide by: the stamp, or what stands in for a missing one.
        score: in the model's units.
        normalized_score: in [0, 1], 0.5 at the threshold.
        is_anomaly: the score is at or above the threshold.
        image: what the network saw, uint8 [H, W, 3] RGB.
        regions: boxes around what is anomalous, where they were asked for.
    """

    name: str
    stamp_ns: int | None
    time_ns: int | None
    score: float
    normalized_score: float
    is_anomaly: bool
    image: NDArray[np.uint8] = field(compare=False, repr=False)
    regions: Sequence[AnomalyRegion] = ()


def _run(
    detector: Detector, images: Sequence[NDArray[np.uint8]], batch_size: int, *, maps: bool
) -> _Scores:
    """Score frames in runs of just ``batch_size``: the last one is filled up and cut.

    So a score depends on the frame and the size of the batch, not on how many frames follow.
    """
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        filled = [*batch, *[batch[-1]] * (batch_size - len(batch))]
        result = detector.score_batch(np.stack(filled))
        parts.append([values[: len(batch)] for values in result[: 3 if maps else 2]])
    score, normalized, *rest = (np.concatenate(values) for values in zip(*parts, strict=True))
    return score, normalized, rest[0] if rest else None


def score_recording(
    detector: Detector,
    source: FrameSource,
    *,
    fps: float | None = None,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    regions: bool = False,
) -> Iterator[ScoredFrame]:
    """Score a recording, in order; the results do not depend on ``workers``.

    Args:
        detector: the model.
        source: the recording; it is read with the detector's view.
        fps: frames a second of a recording without stamps: its readable frames get stamps from 0
            on; None leaves them without.
        workers: threads that decode, and on the CPU as many that run the network; None for one
            per processor core.
        batch_size: frames a run of the network; 1 gives the bits of the node's scores.
        regions: look for them, too.

    Raises:
        SourceError: no frame is readable.
        ModelError: the model fails.
        AnomalyDetectorError: ``fps``, ``workers`` or ``batch_size`` is out of range.
    """
    check_fps(fps)
    workers = usable_cores() if workers is None else workers
    if workers < 1:
        raise AnomalyDetectorError(f"workers is {workers}: give 1 or more")
    if not 1 <= batch_size <= _MOST_FRAMES:
        raise AnomalyDetectorError(f"batch size is {batch_size}: give 1 to {_MOST_FRAMES}")

    def scored(frames: Sequence[Frame]) -> tuple[Sequence[Frame], _Scores]:
        images = [frame.pixels.array for frame in frames]
        return frames, _run(detector, images, batch_size, maps=regions)

    source.view = detector.view
    resize = partial(preprocessed_frame, size=detector.view.size)
    size = batch_size * max(1, _FRAMES_A_TASK // batch_size)
    batches = _batched(source.mapped(resize, workers, reduced=True), size)
    # A GPU takes one batch after the other anyhow.
    threads = workers if list(detector.providers) == [_CPU] else 1
    index = 0
    results = (
        map_in_order(scored, batches, threads, threads + 1) if workers > 1 else map(scored, batches)
    )
    for frames, scores in results:
        maps = scores[2]
        values = (array.tolist() for array in scores[:2])
        for place, (frame, score, normalized) in enumerate(zip(frames, *values, strict=True)):
            stamp_ns, time_ns = stamp_and_time(frame, index, fps)
            is_anomaly = score >= detector.threshold
            image = frame.pixels.array
            found: Sequence[AnomalyRegion] = ()
            if maps is not None:
                found = anomaly_regions(
                    Detection(
                        score,
                        normalized,
                        detector.threshold,
                        is_anomaly,
                        maps[place],
                        inference_ms=0.0,
                        map_scale=detector.map_scale,
                        extent=frame.pixels.extent,
                    )
                )
            yield ScoredFrame(
                frame.name, stamp_ns, time_ns, score, normalized, is_anomaly, image, found
            )
            index += 1


def _batched(items: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while batch := list(islice(items, size)):
        yield batch
