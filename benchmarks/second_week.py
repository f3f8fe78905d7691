"""What a model learns from an operator's verdicts: false alarms and recall before and after.

Each start model is trained on evening 1 of ``expo_track``. Evening 2 has two drives. Of the first
the black box' events are written, as ``score --events-dir`` does, whose folders are those of the
node (``test/ros/test_node_poses.py``). The alarm filter is off: each flagged frame is in an
event. A script judges them: all are normal. Then the model learns, by ``adapt`` on the first drive,
or by ``train`` on evening 1, both with ``--events``. The second drive is measured, as it is and
with the stress faults:

    python -m benchmarks.second_week --shared ../shared/data --out build/second_week
    python -m benchmarks.second_week --out build/second_week --table

The same again with three true anomalies in the first drive, each in twelve frames. They are of
``benchmarks.unseen_faults``, so that nothing of the stress faults is learned. Their events are
judged anomalies, and what is given to ``adapt`` as normal is the drive without these frames.

Each row is a JSON file in FOLDER, beside its model. A row that is there is not computed again, so
the same command goes on after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anomaly_detector.alarms.alarm_filter import AlarmSettings
from anomaly_detector.black_box import Verdict, find_events, read_event, write_verdict
from anomaly_detector.black_box.offline import EventRecorder
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory, atomic_path
from anomaly_detector.images.image import to_rgb
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import open_source
from anomaly_detector.scoring.tables import write_scores
from benchmarks.common import print_table, resumable, row_options
from benchmarks.drives import folder_of, measure, run_apart
from benchmarks.places import Drive, read_drive
from benchmarks.unseen_faults import UNSEEN_FAULTS
from training.adaptation.adapt import AdaptOptions, adapt
from training.config.options import DEFAULT_SCORER
from training.evaluation.stress import fault_generator
from training.scorers.options import resolve_options
from training.train import train

_PLACE = "expo_track"
_KNOWN, _FIRST, _SECOND = "evening1_run1", "evening2_run1", "evening2_run2"
_PLANTED = tuple(fault for fault in UNSEEN_FAULTS if fault.name in ("poster_14", "puddle", "legs"))
_PLANTED_FRAMES = 12
_START = "as trained"
WAYS = ("adapt", "train")


@dataclass(frozen=True)
class Job:
    """What is done with one start model.

    Attributes:
        shared: the data.
        out: for all models.
        scorer: of the start model.
        model: the start model; None to train it.
        test_frames: most frames that each fault is put on.
    """

    shared: Path
    out: Path
    scorer: str
    model: Path | None
    test_frames: int

    @property
    def folder(self) -> Path:
        """Where its models and rows are."""
        return self.out / self.scorer

    def drive(self, name: str) -> Drive:
        """Return a drive."""
        return read_drive(self.shared, _PLACE, name, self.out / "frames")

    def start(self) -> Path:
        """Return the start model, trained if it is not there yet."""
        if self.model is not None:
            return self.model
        model = self.folder / "start.onnx"
        if not model.is_file():
            run_apart(_train, self, model, ())
        return model

    def row(self, way: str, *, planted: bool) -> Path:
        """Return the file of a row; its model has the same name."""
        return self.folder / f"{way.replace(' ', '_')}{'_planted' * planted}.json"

    def compute(self, way: str, *, planted: bool) -> None:
        """Compute a row, unless it is there.

        Raises:
            AnomalyDetectorError: a step failed; the row is not written.
        """
        file = self.row(way, planted=planted)
        if file.is_file():
            return
        model, facts = self.start(), {}
        if way != _START:
            events = self.folder / f"events{'_planted' * planted}"
            drive, judged = self.judged_events(model, events, planted=planted)
            facts = {"events": dict(judged), "old_threshold": _threshold(model)}
            start, model = model, file.with_suffix(".onnx")
            if not model.is_file():
                if way == "adapt":
                    run_apart(_adapt, self, start, drive, events, model)
                else:
                    run_apart(_train, self, model, (str(events),))
        with Detector(model) as detector:
            figures = measure(detector, self.drive(_SECOND), 0, self.test_frames)
        known = {"scorer": self.scorer, "way": way, "planted": planted}
        with atomic_path(file) as temporary:
            text = json.dumps(known | facts | figures, indent=1, allow_nan=False)
            temporary.write_text(f"{text}\n", encoding="utf-8")

    def judged_events(
        self, model: Path, events: Path, *, planted: bool
    ) -> tuple[Path, Counter[str]]:
        """Drive the first drive with the black box on, and judge its events.

        Returns:
            The frames of the drive that are normal, and how many events have which verdict.
        """
        drive = self.drive(_FIRST)
        driven = normal = folder_of(self.out, drive)
        places: frozenset[int] = frozenset()
        if planted:
            driven, normal, places = _plant(drive, self.out / "frames")
        if not events.is_dir():
            with Detector(model) as detector:
                recorder, source = EventRecorder(detector), open_source(str(driven))
                write_scores(
                    detector,
                    source,
                    events.with_suffix(".csv"),
                    decision=AlarmSettings(mode="off"),
                    recorder=recorder,
                    fps=drive.rate,
                    progress=sys.stderr.isatty(),
                )
                recorder.write(source, events)
        return normal, _judge(events, places, drive.rate or 1.0)


def _plant(drive: Drive, out: Path) -> tuple[Path, Path, frozenset[int]]:
    """Put each thing on a stretch of a drive's frames.

    Returns:
        The drive with them, the drive without these frames, and their numbers.
    """
    count = len(drive.files)
    stretches = {
        fault: range(first, first + _PLANTED_FRAMES)
        for number, fault in enumerate(_PLANTED, 1)
        for first in [number * count // (len(_PLANTED) + 1)]
    }
    places = frozenset(number for stretch in stretches.values() for number in stretch)
    driven, normal = (out / drive.place / f"{drive.name}_{name}" for name in ("planted", "without"))
    for folder in (driven, normal):
        if folder.is_dir():
            continue
        with atomic_directory(folder) as temporary:
            for number, file in enumerate(drive.files):
                if number not in places:
                    (temporary / file.name).symlink_to(file.resolve())
            for fault, stretch in stretches.items() if folder == driven else ():
                for number, frame in zip(stretch, drive.source(stretch), strict=True):
                    # The thing stays the same over its stretch.
                    generator = fault_generator(0, fault, stretch.start)
                    image, _ = fault.apply(to_rgb(frame.pixels), generator)
                    name = drive.files[number].with_suffix(".png").name
                    cv2.imwrite(str(temporary / name), image[:, :, ::-1])
    return driven, normal, places


def _judge(events: Path, places: frozenset[int], rate: float) -> Counter[str]:
    """Judge recorded events: the frames with a thing planted are anomalies, all others normal."""
    judged: Counter[str] = Counter()
    for event in map(read_event, find_events(events)):
        found = [
            number
            for number, frame in enumerate(event.frames)
            if round(frame.stamp_ns / 1e9 * rate) in places
        ]
        verdict = Verdict("normal")
        if found:
            verdict = Verdict("anomaly", frames=(found[0], found[-1]))
        write_verdict(event.path, verdict)
        judged[verdict.verdict] += 1
    return judged


def _threshold(model: Path) -> float:
    with Detector(model) as detector:
        return detector.threshold


def _adapt(job: Job, model: Path, drive: Path, events: Path, out: Path) -> None:
    cache = job.out / "cache"
    adapt(AdaptOptions(model, [str(drive)], out, [str(events)], cache=cache, resume=True))


def _train(job: Job, out: Path, events: Sequence[str]) -> None:
    given: dict[str, Any] = {
        "data": [str(folder_of(job.out, job.drive(_KNOWN)))],
        "out": out,
        "scorer": job.scorer,
        "events": events,
        "resume": True,
        "cache": job.out / "cache",
        "progress": sys.stderr.isatty(),
    }
    train(resolve_options(given))


def cells(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the cells of a row of the table."""
    stress = [fault for fault in row["faults"].values() if fault["family"] == "stress"]
    planted = [row["faults"][fault.name] for fault in _PLANTED]
    judged = row.get("events", {})
    yield f"`{row['scorer']}`"
    yield row["way"] if row["way"] == _START else f"{row['way']} --events"
    yield f"{judged.get('normal', 0)}, {judged.get('anomaly', 0)}" if judged else ""
    yield f"{row['normal_flagged']:.1%}"
    for key in ("recall", "roc_auc"):
        yield f"{np.mean([fault[key] for fault in stress]):.3f}"
    yield f"{np.mean([fault['recall'] for fault in planted]):.3f}"


_HEAD = (
    *("model", "learned by", "events judged normal, anomaly", "normal frames flagged"),
    *("recall of the stress faults", "ROC-AUC of these", "recall of the things planted"),
)


def _parse() -> argparse.Namespace:
    parser = row_options(__doc__)
    add = parser.add_argument
    add("--table", action="store_true", help="only print the table of the rows that are there")
    text = "of the start models (default: %(default)s)"
    scorers = [DEFAULT_SCORER, "outlier-exposure"]
    add("--scorers", nargs="+", choices=scorers, default=scorers, help=text)
    text = "a start model that is there, with its training folder; of one scorer"
    add("--model", type=Path, metavar="FILE", help=text)
    add("--ways", nargs="+", choices=WAYS, default=WAYS, help="of learning (default: both)")
    text = "most frames that each fault is put on (%(default)s); all clean ones are tested"
    add("--test-frames", type=int, default=150, metavar="N", help=text)
    arguments = parser.parse_args()
    if arguments.model is not None and len(arguments.scorers) > 1:
        raise AnomalyDetectorError(
            f"--model {arguments.model} is of one scorer: name it, --scorers"
        )
    return arguments


def main() -> int:
    """Run the command line and return the exit code."""
    arguments = _parse()
    rows = []
    for scorer in arguments.scorers:
        job = Job(arguments.shared, arguments.out, scorer, arguments.model, arguments.test_frames)
        both = [(way, planted) for planted in (False, True) for way in arguments.ways]
        for way, planted in [(_START, False), *both]:
            if not arguments.table:
                job.compute(way, planted=planted)
            file = job.row(way, planted=planted)
            if file.is_file():
                rows.append(json.loads(file.read_text(encoding="utf-8")))
    print_table(_HEAD, (tuple(cells(row)) for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(resumable(main))
