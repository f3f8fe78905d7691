"""How well a model tells hazards from normal frames.

Frames are streamed and scored one by one, exactly as on the robot; only scores, latents (512 bytes
a frame), labels and a few small pictures are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.model.detector import Detector
from anomaly_detector.model.fingerprint import TrainedRecording, trained_warning
from anomaly_detector.model.latents import find_encoder
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.recordings import UnreadableFrame, count_frames, warn_unreadable
from training.data.latents import FrameTable
from training.data.opening import LabelledRecording, Truths
from training.evaluation.bootstrap import DEFAULT_BLOCK
from training.evaluation.metrics import (
    EventDelay,
    OperatingPoint,
    RankingTable,
    class_name_table,
    detection_delays,
    find_events,
    json_safe,
    operating_point,
    ranking_table,
    recall_by_class,
)

THESIS_THRESHOLD = 200.0
"""Fixed threshold on the mean squared reconstruction error (thesis code 5.14)."""

TRAINED_REMEDY = "these figures say little about new frames: evaluate on other recordings"
"""What to do about a model that was trained on what it is measured with."""

DEFAULT_GALLERY = 12
_GALLERY_GAP = 20


@dataclass(frozen=True)
class RecordingSummary:
    """A recording that was evaluated: where it is, its scored frames and those skipped."""

    path: str
    frames: int
    unreadable: tuple[UnreadableFrame, ...]


@dataclass(frozen=True)
class GalleryFrame:
    """A frame worth a look.

    Attributes:
        name: frame name.
        recording: number of its recording.
        class_name: true class.
        score: its score.
        image: uint8 RGB [H, W, 3].
        anomaly_map: float32 [H, W].
    """

    name: str
    recording: int
    class_name: str
    score: float
    image: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32]


@dataclass(frozen=True)
class ScoredFrames(FrameTable):
    """Columns of N frames, over all recordings in order.

    Attributes:
        scores: float64 [N].
    """

    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """All results of one evaluation.

    Attributes:
        model: file name of the model.
        metadata: what the model says about itself.
        recordings: what was scored.
        frames: the per-frame table.
        ranking: ROC-AUC and PR-AUC.
        operating_points: at the model's threshold, then (for reconstruction errors) at the
            thesis' 200.
        class_recall: label to share of flagged frames at the model's threshold.
        delays: one per event, at the model's threshold.
        misses: anomalous frames with the lowest scores, worst first.
        false_alarms: normal frames with the highest scores, worst first.
        latents: float32 [N, size], the encoder's vector of every frame; None for a model without.
        trained_on: the recordings that the model was trained on.
    """

    model: str
    metadata: ModelMetadata
    recordings: tuple[RecordingSummary, ...]
    frames: ScoredFrames
    ranking: RankingTable
    operating_points: tuple[OperatingPoint, ...]
    class_recall: dict[int, float]
    delays: tuple[EventDelay, ...]
    misses: tuple[GalleryFrame, ...]
    false_alarms: tuple[GalleryFrame, ...]
    latents: NDArray[np.float32] | None = None
    trained_on: tuple[TrainedRecording, ...] = ()

    @property
    def warning(self) -> str | None:
        """The line that says that the model was trained on these frames; None if it was not."""
        return trained_warning(self.trained_on, TRAINED_REMEDY)

    @property
    def threshold(self) -> float:
        """The threshold that events, recall per class and galleries are about."""
        return self.operating_points[0].threshold

    @property
    def class_names(self) -> dict[int, str]:
        """Label to class name, of the labels that occur, and 0."""
        return class_name_table(self.frames.labels, self.frames.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the per-frame table and the latents, JSON-safe, NaN as None."""
        names = self.class_names
        return {
            "model": self.model,
            "trained_on": [asdict(item) for item in self.trained_on],
            "metadata": json_safe(asdict(self.metadata)),
            "recordings": [asdict(recording) for recording in self.recordings],
            "frames": len(self.frames),
            "ranking": self.ranking.to_dict(),
            "operating_points": [point.to_dict() for point in self.operating_points],
            "class_recall": {names[k]: json_safe(v) for k, v in self.class_recall.items()},
            "events": [delay.to_dict() for delay in self.delays],
        }


def evaluate(
    detector: Detector,
    recordings: Sequence[LabelledRecording],
    *,
    bootstrap: int = 1000,
    block: int = DEFAULT_BLOCK,
    seed: int = 0,
    gallery: int = DEFAULT_GALLERY,
    trained_on: tuple[TrainedRecording, ...] = (),
) -> Evaluation:
    """Score recordings and compare with their truth.

    Args:
        detector: the model.
        recordings: in the order in which their frames are to be listed.
        bootstrap: resamples for the intervals, 0 for none.
        block: frames of a bootstrap block (:func:`training.evaluation.bootstrap.frame_blocks`).
        seed: of the bootstrap.
        gallery: number of worst misses and of worst false alarms to keep pictures of.
        trained_on: the recordings that the model was trained on, for the result.

    Raises:
        SourceError: no frame is readable, or the labels do not fit the recording.
        ModelError: the model fails.
    """
    truths = Truths(recordings)
    encoder = find_encoder(detector.path)
    latents: list[NDArray[np.float32]] = []
    misses, false_alarms = _WorstFrames(gallery), _WorstFrames(gallery)
    rows: list[tuple[int, str, int | None, int, str, float]] = []
    summaries = []
    total = sum(len(recording.source) for recording in recordings)
    with tqdm(total=total, desc="evaluating", unit="frame", disable=None) as bar:
        for number, recording in enumerate(recordings):
            source, before = recording.source, len(rows)
            for frame, detection in detector.stream(source):
                # Labels without names count the unreadable frames too.
                position = len(rows) - before + count_frames(source.unreadable)
                label, class_name, stamp = truths.of(number, position, frame.name)
                score = detection.score
                worst, sign = (misses, -1) if label else (false_alarms, 1)
                if worst.wants(sign * score):
                    image, anomaly_map = detector.prepare(frame).array, detection.anomaly_map.copy()
                    kept = GalleryFrame(frame.name, number, class_name, score, image, anomaly_map)
                    worst.add((number, position // _GALLERY_GAP, label), sign * score, kept)
                if encoder is not None:
                    latents.append(encoder.encode(detector.prepare(frame).array[np.newaxis]))
                stamp = stamp if frame.stamp_ns is None else frame.stamp_ns
                rows.append((number, frame.name, stamp, label, class_name, score))
                bar.update()
            unreadable = tuple(source.unreadable)
            warn_unreadable(source.path, unreadable)
            summaries.append(RecordingSummary(str(source.path), len(rows) - before, unreadable))
    owners, names, stamps, labels, classes, scores = map(list, zip(*rows, strict=True))
    table = ScoredFrames(
        np.array(owners, np.int64),
        names,
        stamps,
        np.array(labels, np.int64),
        classes,
        np.array(scores, np.float64),
    )
    class_names = class_name_table(table.labels, classes)
    anomalous = table.labels != 0
    points = [operating_point(table.scores, anomalous, detector.threshold, "model")]
    if detector.metadata.scorer == "reconstruction":
        points.append(operating_point(table.scores, anomalous, THESIS_THRESHOLD, "thesis"))
    events = find_events(table.labels, class_names, table.recordings)
    return Evaluation(
        model=detector.path.name,
        metadata=detector.metadata,
        recordings=tuple(summaries),
        frames=table,
        ranking=ranking_table(
            table.scores,
            table.labels,
            class_names,
            recordings=table.recordings,
            bootstrap=bootstrap,
            block=block,
            seed=seed,
        ),
        operating_points=tuple(points),
        class_recall=recall_by_class(table.scores, table.labels, detector.threshold),
        delays=tuple(detection_delays(events, table.scores >= detector.threshold, table.stamps_ns)),
        misses=misses.worst_first(),
        false_alarms=false_alarms.worst_first(),
        latents=np.concatenate(latents) if latents else None,
        trained_on=trained_on,
    )


@dataclass
class _WorstFrames:
    """The worst frames of a stream, at most one of each bucket.

    Without buckets, one bad second of video would fill the whole gallery with the same picture.
    """

    size: int
    _kept: dict[tuple[int, ...], tuple[float, GalleryFrame]] = field(default_factory=dict)

    def wants(self, badness: float) -> bool:
        """Return whether a frame so bad may enter, before its picture is made."""
        if self.size <= 0:
            return False
        return len(self._kept) < self.size or badness > min(b for b, _ in self._kept.values())

    def add(self, bucket: tuple[int, ...], badness: float, frame: GalleryFrame) -> None:
        if bucket not in self._kept or badness > self._kept[bucket][0]:
            self._kept[bucket] = (badness, frame)
        if len(self._kept) > self.size:
            del self._kept[min(self._kept, key=lambda key: self._kept[key][0])]

    def worst_first(self) -> tuple[GalleryFrame, ...]:
        ranked = sorted(self._kept.values(), key=lambda item: -item[0])
        return tuple(frame for _, frame in ranked)


def iterate_recordings(evaluation: Evaluation) -> Iterator[tuple[RecordingSummary, slice]]:
    """Yield every recording with the rows of its frames in the per-frame table."""
    start = 0
    for recording in evaluation.recordings:
        yield recording, slice(start, start + recording.frames)
        start += recording.frames
