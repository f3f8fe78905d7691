"""One recording's share of a job: what a worker gets, does and gives back."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import anomaly_detector
from anomaly_detector.alarms.alarm_filter import AlarmSettings
from anomaly_detector.black_box.offline import EventRecorder
from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.images.compressed import DECODE_METHOD
from anomaly_detector.images.preprocessing import RESIZE_METHOD, WHOLE_FRAME, View
from anomaly_detector.model.detector import Detector
from anomaly_detector.poses import PoseSettings
from anomaly_detector.recordings import is_bag, open_source, path_identity, read_poses
from anomaly_detector.scoring.stream import BATCH_SIZE
from anomaly_detector.scoring.tables import ScoreSummary, write_scores


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How recordings are scored.

    Attributes:
        topic: image topic, for bags with more than one; other recordings leave it aside.
        fps: frames a second of recordings without stamps.
        threshold: instead of the model's own.
        view: see :class:`anomaly_detector.model.detector.Detector`.
        providers: ONNX Runtime execution providers; None for the default.
        decision: when an alarm is raised and cleared.
        batch_size: see :func:`anomaly_detector.scoring.stream.score_recording`.
        pose: where the robot was, for bags; other recordings leave it aside.
        events_dir: folder for the events of each recording, the same for every worker; None for
            none.
    """

    topic: str | None = None
    fps: float | None = None
    threshold: float | None = None
    view: View = WHOLE_FRAME
    providers: Sequence[str] | None = None
    decision: AlarmSettings = AlarmSettings()  # noqa: RUF009
    batch_size: int = BATCH_SIZE
    pose: PoseSettings = PoseSettings()  # noqa: RUF009
    events_dir: str | None = None


@dataclass(frozen=True)
class ScoreTask(ScoreOptions):
    """A recording to score, and how; goes to other processes and machines.

    Attributes:
        name: of its result, unique in the job.
        source: path of the recording, the same for every worker.
        model: path of the model file, likewise.
        model_sha256: of that file's bytes.
        workers: threads, see :func:`anomaly_detector.scoring.stream.score_recording`.
    """

    name: str
    source: str
    model: str
    model_sha256: str
    workers: int = 1

    @property
    def events_folder(self) -> Path | None:
        """The folder for this recording's events."""
        return Path(self.events_dir, self.name) if self.events_dir else None

    def digest(self) -> str:
        """Return a hash of all that the result depends on: recording, model, options, software.

        Raises:
            OSError: the recording is not there.
        """
        parts = [
            *(path_identity(Path(self.source)), self.model_sha256, self.topic, self.fps),
            *(self.threshold, self.providers, self.batch_size, asdict(self.decision)),
            asdict(self.view),
            *([asdict(self.pose)] if self.pose.topic else []),
            *([self.events_dir] if self.events_dir else []),
            *(anomaly_detector.__version__, DECODE_METHOD, RESIZE_METHOD),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class ScoreOutcome:
    """What a worker gives back.

    Attributes:
        summary: counts.
        scores: bytes of the table of scores.
        events: bytes of the table of alarms.
        threshold: that was used.
        seconds: that it took.
    """

    summary: ScoreSummary
    scores: bytes
    events: bytes
    threshold: float
    seconds: float


def score_task(task: ScoreTask) -> ScoreOutcome:
    """Score one recording in this process.

    Raises:
        AnomalyDetectorError: the recording or the model is at fault.
    """
    start = time.perf_counter()
    path = Path(task.source)
    detector = _detector(task)
    source = open_source(path, task.topic if is_bag(path) else None)
    poses = read_poses(path, task.pose) if is_bag(path) else None
    recorder = None if task.events_folder is None else EventRecorder(detector, poses)
    with tempfile.TemporaryDirectory(prefix="anomaly_detector.") as folder:
        scores, events = Path(folder, "scores.csv"), Path(folder, "events.csv")
        summary = write_scores(
            detector,
            source,
            scores,
            decision=task.decision,
            events=events,
            poses=poses,
            recorder=recorder,
            fps=task.fps,
            workers=task.workers,
            batch_size=task.batch_size,
            progress=False,
        )
        tables = scores.read_bytes(), events.read_bytes()
    if recorder is not None and task.events_folder is not None:
        recorder.write(source, task.events_folder)
    return ScoreOutcome(summary, *tables, detector.threshold, time.perf_counter() - start)


class _Loaded(threading.local):
    """The model that this thread used last: one model is not run from two threads on a GPU."""

    key: tuple[object, ...] | None = None
    detector: Detector | None = None


_loaded = _Loaded()


def _detector(task: ScoreTask) -> Detector:
    """Load a model once for all recordings that a worker's thread gets."""
    key = (task.model, task.model_sha256, task.threshold, task.view, task.providers)
    if _loaded.key != key or _loaded.detector is None:
        path = Path(task.model)
        found = file_sha256(path)
        if found != task.model_sha256:
            raise ModelError(
                f"model {path} has other bytes here than where the job was started (SHA-256 "
                f"{found[:12]} and {task.model_sha256[:12]}): give all workers the same file"
            )
        _loaded.detector = Detector(
            path, providers=task.providers, threshold=task.threshold, view=task.view
        )
        _loaded.key = key
    return _loaded.detector


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises:
        AnomalyDetectorError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise AnomalyDetectorError(
            f"{path} cannot be read ({error.strerror}): check the path"
        ) from error
