"""Offline scoring: a recording in, tables of scores and alarms out."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.alarms.alarm_filter import AlarmEvent, AlarmFilter, AlarmSettings
from anomaly_detector.black_box.offline import EventRecorder
from anomaly_detector.camera_health.watch import (
    CameraState,
    CameraStretch,
    CameraWatch,
    camera_stretches,
)
from anomaly_detector.errors import AnomalyDetectorError, OutputError
from anomaly_detector.files import atomic_path, sync
from anomaly_detector.model.detector import Detector
from anomaly_detector.monitoring.health import HealthLimits, is_frozen
from anomaly_detector.monitoring.scene import SceneStretch, SceneWatch, scene_stretches
from anomaly_detector.monitoring.statistics import FrameStatistics
from anomaly_detector.poses import PLACE_COLUMNS, PoseTrack
from anomaly_detector.recordings import FrameSource, UnreadableFrame, count_frames
from anomaly_detector.scoring.stream import BATCH_SIZE, ScoredFrame, score_recording
from anomaly_detector.stamps import SteadyTime, stamp_text

SCORE_COLUMNS = ("frame", "stamp", "score", "is_anomaly", "normalized_score", "alarm")

EVENT_COLUMNS = (
    "start_frame",
    "start_stamp",
    "end_frame",
    "end_stamp",
    "frames",
    "peak_frame",
    "peak_stamp",
    "peak_score",
    "peak_normalized_score",
)

REGION_COLUMNS = ("frame", "stamp", "x", "y", "width", "height", "score")


@dataclass(frozen=True)
class ScoreSummary:
    """What :func:`write_scores` did.

    Attributes:
        scored: frames scored.
        flagged: of these at or above the threshold.
        unreadable: frames skipped, as far as their number is known.
        skipped: what was skipped, and why.
        alarms: raised by the decision over time.
        peak_score: highest score.
        without_stamp: frames of a bag whose stamp is missing.
        duration_s: from the first frame scored to the last, seconds, without steps of the clock;
            None without times.
        scene: stretches in which the scene as a whole was not that of the training.
        camera: stretches in which something ailed the camera.
    """

    scored: int
    flagged: int
    unreadable: int
    skipped: Sequence[UnreadableFrame]
    alarms: int
    peak_score: float
    without_stamp: int
    duration_s: float | None
    scene: Sequence[SceneStretch] = ()
    camera: Sequence[CameraStretch] = ()


def write_scores(
    detector: Detector,
    source: FrameSource,
    output: Path,
    *,
    decision: AlarmSettings | None = None,
    events: Path | None = None,
    regions: Path | None = None,
    poses: PoseTrack | None = None,
    recorder: EventRecorder | None = None,
    fps: float | None = None,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> ScoreSummary:
    """Score a recording into a CSV file with the columns of :data:`SCORE_COLUMNS`.

    The stamp is in seconds with nine decimals, empty where it is missing: for a folder of images
    without ``fps``, and for messages whose stamp is no time. Those are decided on by the time
    that stands in for it (:class:`~anomaly_detector.stamps.FrameClock`), as events have it;
    is_anomaly (the single frame) and alarm (the decision over time) are 0 or 1. The files appear
    when all frames are scored. Their bytes do not depend on ``workers``.

    Args:
        detector: the model.
        source: the recording.
        output: the table of scores.
        decision: when an alarm is raised and cleared; None for the defaults.
        events: CSV file for the alarms, with the columns of :data:`EVENT_COLUMNS`; None for none.
        regions: CSV file for the boxes around what is anomalous, with the columns of
            :data:`REGION_COLUMNS`, one row each
            (:func:`~anomaly_detector.model.regions.anomaly_regions`); None for none.
        poses: of the robot; tables of scores and alarms get
            :data:`~anomaly_detector.poses.PLACE_COLUMNS`, that of alarms with the place of the
            peak. None leaves these columns out.
        recorder: is shown every frame, and may write the events afterwards; None for none.
        fps: as for :meth:`anomaly_detector.model.detector.Detector.stream`.
        workers: as for :func:`anomaly_detector.scoring.stream.score_recording`.
        batch_size: likewise.
        progress: show a progress bar on stderr.

    Raises:
        SourceError: no frame is readable.
        ModelError: the model fails.
        OutputError: a table cannot be written, or would replace the model or a file of the
            recording; none is.
        AnomalyDetectorError: a frame without a stamp is to be decided on in seconds, or regions
            are asked of a model whose maps have no unit.
    """
    tables = {"scores": output, "events": events, "regions": regions}
    given = {name: path.resolve() for name, path in tables.items() if path is not None}
    for (first, path), (second, other) in combinations(given.items(), 2):
        if path == other:
            raise AnomalyDetectorError(f"{path} is given for {first} and {second}: name two files")
    for path in filter(Path.is_file, given.values()):
        if any(path.samefile(file) for file in (detector.path, *source.files) if file.exists()):
            raise OutputError(f"{path} is what is read, and would be lost: name another file")
    if regions is not None and detector.map_scale.high is None:
        raise AnomalyDetectorError(
            f"model {detector.metadata.name} has no regions: the maps of scorer "
            f"{detector.metadata.scorer} have no unit; leave out --regions"
        )
    decisions = AlarmFilter(decision)
    scored = flagged = without_stamp = 0
    peak = -math.inf
    steady = SteadyTime()
    watch = SceneWatch(detector.metadata)
    seen: list[tuple[str, float, float]] = []
    camera = _CameraLog(detector)
    alarms: list[AlarmEvent] = []
    with ExitStack() as stack:

        def table(path: Path, columns: Sequence[str]) -> tuple[TextIO, Any]:
            file = stack.enter_context(
                stack.enter_context(atomic_path(path)).open("w", newline="", encoding="utf-8")
            )
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            return file, writer

        # Before the scores, which are then complete before it.
        boxes = None if regions is None else table(regions, REGION_COLUMNS)[1]
        file, writer = table(output, SCORE_COLUMNS + _place_columns(poses))
        results = score_recording(
            detector,
            source,
            fps=fps,
            workers=workers,
            batch_size=batch_size,
            regions=regions is not None,
        )
        for frame in tqdm(results, "scoring", len(source), unit="frame", disable=not progress):
            state = decisions.update(frame, stamp_ns=frame.time_ns, name=frame.name)
            if state.ended is not None:
                alarms.append(state.ended)
            writer.writerow(
                [
                    frame.name,
                    stamp_text(frame.stamp_ns),
                    format_score(frame.score),
                    int(frame.is_anomaly),
                    format_score(frame.normalized_score),
                    int(state.is_alarm),
                    *_place(poses, frame.time_ns),
                ]
            )
            if boxes is not None:
                boxes.writerows(_region_rows(frame))
            if recorder is not None:
                recorder.see(frame, state)
            scored += 1
            flagged += frame.is_anomaly
            peak = max(peak, frame.score)
            without_stamp += frame.stamp_ns is None and frame.time_ns is not None
            if frame.time_ns is not None:
                seconds = steady.add(frame.time_ns)
                scene = watch.update(frame.time_ns, frame.score, frame.image)
                seen.append((scene.word, seconds, frame.score))
                camera.see(frame.time_ns, seconds, frame.image)
        last = decisions.finish()
        if last is not None:
            alarms.append(last)
        if events is not None:
            # A disk that is too full for the scores gives no lone table of alarms.
            file.flush()
            sync(Path(file.name))
            _write_events(alarms, poses, stack.enter_context(atomic_path(events)))
    return ScoreSummary(
        scored,
        flagged,
        count_frames(source.unreadable),
        tuple(source.unreadable),
        len(alarms),
        peak,
        without_stamp,
        steady.seconds,
        scene_stretches(seen),
        camera_stretches(camera.states),
    )


class _CameraLog:
    """What ails the camera, frame by frame, as the node says it with its default limits."""

    def __init__(self, detector: Detector) -> None:
        self.states: list[tuple[CameraState, float]] = []
        self._watch = CameraWatch(detector.camera_reference)
        self._statistics = FrameStatistics()

    def see(self, time_ns: int, seconds: float, image: NDArray[np.uint8]) -> None:
        self._statistics.see_picture(seconds, image.tobytes())
        unchanged_s = self._statistics.unchanged_s
        frozen_s = unchanged_s if is_frozen(unchanged_s, HealthLimits()) else 0.0
        self.states.append((self._watch.update(time_ns, image, frozen_s), seconds))


def _place_columns(poses: PoseTrack | None) -> tuple[str, ...]:
    return () if poses is None else PLACE_COLUMNS


def _place(poses: PoseTrack | None, time_ns: int | None) -> list[str]:
    if poses is None or time_ns is None:
        return []
    return list(poses.at(time_ns).texts().values())


def _region_rows(frame: ScoredFrame) -> Iterator[list[Any]]:
    for box in frame.regions:
        values = [box.x, box.y, box.width, box.height, format_score(box.score)]
        yield [frame.name, stamp_text(frame.stamp_ns), *values]


def _write_events(alarms: list[AlarmEvent], poses: PoseTrack | None, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(EVENT_COLUMNS + _place_columns(poses))
        for event in alarms:
            row = asdict(event)
            for name in ("start", "end", "peak"):
                row[f"{name}_stamp"] = stamp_text(row[f"{name}_stamp_ns"])
            for name in ("peak_score", "peak_normalized_score"):
                row[name] = format_score(row[name])
            place = _place(poses, event.peak_stamp_ns)
            writer.writerow([*(row[column] for column in EVENT_COLUMNS), *place])


def format_score(score: float) -> str:
    """Return the shortest text that reads back as the same float32."""
    return str(np.float32(score))
