"""Train on one drive, test on another one: how well a model holds on the next day.

For each place and pair of drives a model is measured on the other drive, as it was trained and
after adapting it with the first seconds of that drive (then on the rest of it): normal frames
flagged, ROC-AUC and recall over the stress faults and over those of ``benchmarks.unseen_faults``,
which are put on frames of the test drive. Two places have real things instead: ``nao_canteen``
(people, a blocked lens) and ``lens_hand`` (a hand; the model comes from ``donkeycar_track``):

    python -m benchmarks.drives --shared ../shared/data --out build/drives --pairs all --seeds 3
    python -m benchmarks.drives --out build/drives --table

Each row is a JSON file in FOLDER/rows, beside its models. A row that is there is not computed
again, so the same command goes on after Ctrl-C. After changes to the code take a new folder.

Seconds are counted at the rates of the data's README. Where they are more than half of the drive,
or its rate is unknown, the first quarter stands for 60 s, a twelfth for 20 s, half for 120 s.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.alarms.recalibration import recalibrate
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory, atomic_path
from anomaly_detector.model.detector import Detector
from anomaly_detector.ordered_pool import usable_cores
from anomaly_detector.recordings import Frame
from anomaly_detector.scoring.stream import score_recording
from benchmarks.common import resumable, row_options
from benchmarks.places import PLACES, Drive, read_drive
from benchmarks.unseen_faults import UNSEEN_FAULTS
from training.adaptation.adapt import AdaptOptions, adapt
from training.adaptation.changes import LIMITS
from training.cli.train import add_options
from training.config.options import DEFAULT_SCORER, TrainOptions
from training.evaluation.faults import FAULT_SETS, Fault
from training.evaluation.metrics import area_under_roc
from training.evaluation.stress import fault_generator, inject
from training.scorers.options import resolve_options
from training.scorers.outlier_exposure import train_exposure
from training.scorers.registry import find_scorer, scorers
from training.train import export_trained, prepare, train

TWINS: Mapping[str, tuple[str, ...]] = {
    "local": ("object_", "thin_lines", "lens_dirt"),
    "global": (
        *("blur_", "defocus_", "motion_blur_", "tilt_", "cover_cloth", "cover_all", "dark"),
        *("black", "bright", "overexposed", "color_cast", "noise_", "salt_pepper"),
        *("shifted_rows", "jpeg_ruin"),
    ),
}
"""Faults that have a twin among the trainer's outliers, by the family of these."""

STRESS_FAULTS = tuple(fault for fault in FAULT_SETS["full"] if fault.per_frame)
FAULTS: tuple[Fault, ...] = (*STRESS_FAULTS, *UNSEEN_FAULTS)
_BATCH = 50


def _calibrate(model: Path, frames: Path, out: Path) -> None:
    recalibrate(model, [str(frames)], out, progress=False)


def _adapt(model: Path, frames: Path, out: Path) -> None:
    # Whether a drive is refused is another question.
    options = AdaptOptions(model, [str(frames)], out, accept_change=[*LIMITS], progress=False)
    adapt(replace(options, cache=out.parent / "cache"))


NONE = "none"
WAYS: Mapping[str, Callable[[Path, Path, Path], None]] = {"calibrate": _calibrate, "adapt": _adapt}
"""Ways of adapting: from a model, a folder of normal frames in order, and the model to write."""


@dataclass(frozen=True)
class Row:
    """What is trained on, adapted with and tested on.

    Attributes:
        train: drives trained on.
        test: drive tested on.
        variant: scorer and options of the training.
        seed: of the training.
        way: of adapting.
        seconds: of the test drive to adapt with; 0 for none.
        test_frames: most frames that each fault is put on.
    """

    train: tuple[Drive, ...]
    test: Drive
    variant: str
    seed: int
    way: str
    seconds: int
    test_frames: int

    @property
    def model(self) -> Path:
        """The trained model, which rows share; relative to the folder of rows."""
        drives = "+".join(drive.name for drive in self.train)
        return Path(self.train[0].place, drives, f"{self.variant}_seed{self.seed}", "model.onnx")

    @property
    def file(self) -> Path:
        """The row itself; likewise."""
        way = self.way if self.way == NONE else f"{self.way}_{self.seconds}s"
        return self.model.with_name(f"{self.test.name}_{way}_{self.test_frames}frames.json")

    def to_dict(self) -> dict[str, Any]:
        """Return what it is known by, for its file."""
        drives = {"train": [drive.name for drive in self.train], "test": self.test.name}
        return vars(self) | drives | {"place": self.test.place}


def has_twin(fault: str, left_out: str | None) -> bool:
    """Return whether the trainer makes outliers like a fault, one family of them left out."""
    own = [family for family, names in TWINS.items() if fault.startswith(names)]
    return any(family != left_out for family in own)


def measure(
    detector: Detector, drive: Drive, start: int, test_frames: int, left_out: str | None = None
) -> dict[str, Any]:
    """Measure a model on a drive.

    Args:
        detector: the model.
        drive: real things in it count wherever they are: nothing adapts to them.
        start: the first normal frame that counts.
        test_frames: most frames that each fault is put on, spread evenly.
        left_out: family of outliers that the trainer did not have.

    Raises:
        AnomalyDetectorError: a frame cannot be read, or the model fails.
    """

    def scores_of(numbers: Sequence[int]) -> NDArray[np.float64]:
        scored = score_recording(detector, drive.source(numbers))
        return np.array([frame.score for frame in scored], np.float64)

    normal = drive.numbers(start=start)
    clean = scores_of(normal)
    # What other ways of choosing an adapted model's threshold would give, for comparison.
    adapted = detector.metadata.provenance.get("adapted", [])
    others = adapted[-1]["thresholds"] if adapted else {}

    def at_others(name: str, scores: NDArray[Any]) -> dict[str, dict[str, float]]:
        shares = {rule: float(np.mean(scores >= value)) for rule, value in others.items()}
        return {f"{name}_at": shares} if others else {}

    def figures(scores: NDArray[Any]) -> dict[str, Any]:
        truth = np.repeat([False, True], [len(clean), len(scores)])
        area = area_under_roc(np.concatenate([clean, scores]), truth)
        recall = {"recall": float(np.mean(scores >= detector.threshold))}
        return {"roc_auc": area} | recall | at_others("recall", scores)

    def of_fault(images: NDArray[np.uint8]) -> dict[str, Any]:
        parts = np.array_split(images, range(_BATCH, len(images), _BATCH))
        return figures(np.concatenate([detector.score_batch(part).score for part in parts]))

    faults: dict[str, dict[str, Any]] = {}
    if not drive.things:
        spread = np.unique(np.linspace(0, len(normal) - 1, test_frames).round().astype(int))
        images = faulted(drive, tuple(normal[index] for index in spread), detector.view.size)
        with ThreadPoolExecutor(usable_cores()) as pool:
            for fault, found in zip(FAULTS, pool.map(of_fault, images), strict=True):
                family = "stress" if fault in STRESS_FAULTS else "unseen"
                own = {"family": family, "twin": has_twin(fault.name, left_out)}
                faults[fault.name] = own | found
    things = {label: drive.numbers(label) for label in drive.things}
    return {
        "threshold": detector.threshold,
        "normal_frames": len(normal),
        "normal_flagged": float(np.mean(clean >= detector.threshold)),
        **at_others("normal_flagged", clean),
        "normal_median_score": float(np.median(clean)),
        "faults": faults,
        "things": {
            label: {"frames": len(numbers)} | figures(scores_of(numbers))
            for label, numbers in things.items()
        },
    }


@lru_cache(maxsize=4)  # the parts that the rows of one drive are measured on, 80 MB each
def faulted(drive: Drive, numbers: tuple[int, ...], size: int) -> NDArray[np.uint8]:
    """Put each fault on some frames, the same in every row; uint8 [faults, frames, H, W, 3]."""
    number_of = {drive.files[number].name: number for number in numbers}

    def inject_all(frame: Frame) -> list[NDArray[np.uint8]]:
        number = number_of[frame.name]
        return [inject(each, frame, fault_generator(0, each, number), size)[0] for each in FAULTS]

    return np.stack(list(drive.source(numbers).mapped(inject_all, usable_cores())), axis=1)


def folder_of(out: Path, drive: Drive, stop: int | None = None) -> Path:
    """Make the normal frames of a drive a folder of links: all, or those before a frame."""
    name = drive.name if stop is None else f"{drive.name}_first_{stop}"
    folder = out / "frames" / drive.place / name
    if not folder.is_dir():
        with atomic_directory(folder) as temporary:
            for file in (drive.files[number] for number in drive.numbers(stop=stop)):
                (temporary / file.name).symlink_to(file.resolve())
    return folder


def _train(options: TrainOptions, left_out: str | None) -> None:
    if left_out is None:
        train(options)
        return
    run = prepare(options)
    # Not at the top: it imports Keras.
    from training.scorers.outlier_exposure.batches import ExposureParts

    parts = ExposureParts(local_outliers=left_out != "local", global_outliers=left_out != "global")
    export_trained(run, train_exposure(run, parts=parts))


def run_apart(function: Callable[..., None], *arguments: object) -> None:
    """Call a function in a process of its own: TensorFlow gives no memory back.

    Ctrl-C kills that process. In the trainer it would mean that the model is good enough.
    """
    default = (signal.SIGINT, signal.SIG_DFL)
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=signal.signal, initargs=default) as pool:
        pool.submit(function, *arguments).result()


def train_row(row: Row, options: TrainOptions, left_out: str | None, out: Path) -> Path:
    """Train the model of a row, if no other row has done so, and return its path.

    Raises:
        AnomalyDetectorError: training failed.
        BrokenProcessPool: its process died.
    """
    model = out / "rows" / row.model
    if not model.is_file():
        data = [str(folder_of(out, drive)) for drive in row.train]
        own = replace(options, data=data, out=model, seed=row.seed, cache=out / "cache")
        run_apart(_train, own, left_out)
    return model


def compute(row: Row, options: TrainOptions, left_out: str | None, out: Path) -> None:
    """Train, if no other row has done so; adapt, measure, and write the row.

    Raises:
        AnomalyDetectorError: a step failed; the row is not written.
        BrokenProcessPool: the process of the trainer died.
    """
    file, model = out / "rows" / row.file, train_row(row, options, left_out, out)
    start = time.perf_counter()
    stop = 0 if row.way == NONE else row.test.frames_of(row.seconds)
    if row.way != NONE:
        trained, model = model, file.with_suffix(".onnx")
        run_apart(WAYS[row.way], trained, folder_of(out, row.test, stop), model)
    took = {"adapt_frames": len(row.test.numbers(stop=stop))}
    took |= {"adapt_s": round(time.perf_counter() - start)}
    with Detector(model) as detector:
        figures = measure(detector, row.test, stop, row.test_frames, left_out)
    with atomic_path(file) as temporary:
        content = json.dumps(row.to_dict() | took | figures, indent=1, allow_nan=False)
        temporary.write_text(content + "\n", encoding="utf-8")


def plan(arguments: argparse.Namespace, variant: str) -> Iterator[Row]:
    """Yield the rows, those of one test drive together.

    Raises:
        AnomalyDetectorError: the data are not there.
    """
    for place in arguments.places:
        names = [(place, name) for name in PLACES[place]]
        if place == "lens_hand":  # too short to train on
            names.insert(0, ("donkeycar_track", "lap1"))
        drives = [read_drive(arguments.shared, *name, arguments.out / "frames") for name in names]
        every = arguments.pairs == "all" and not drives[-1].things
        for test in drives if every else drives[-1:]:
            others = [drive for drive in drives if drive is not test]
            combinations = itertools.combinations(others, arguments.train_drives)
            for known in itertools.islice(combinations, None if every else 1):
                for seed, way in itertools.product(range(arguments.seeds), arguments.adapt):
                    for seconds in [0] if way == NONE else arguments.seconds:
                        yield Row(known, test, variant, seed, way, seconds, arguments.test_frames)


def tables(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of Markdown tables: a line a place and way, means over pairs and seeds."""
    groups: dict[Any, dict[Any, list[Mapping[str, Any]]]] = {}
    for row in rows:
        title = row["variant"], len(row["train"]), row["test_frames"], bool(row["things"])
        for place in (row["place"], *(() if row["things"] else ("all places",))):
            line = place, row["way"], row["seconds"]
            groups.setdefault(title, {}).setdefault(line, []).append(row)
    for (variant, drives, frames, is_real), lines in sorted(groups.items()):
        yield f"{variant}; drives trained on: {drives}; frames with each fault: {frames}\n"
        names = ["thing", "ROC-AUC", "flagged"]
        if not is_real:
            names = ["stress", "minimum", "recall", "unseen", "minimum", "recall"]
            names += ["with twin", "without"]
        yield f"| place | adapted with | rows | normal flagged | {' | '.join(names)} |"
        yield "|---|---|" + "---:|" * (len(names) + 2)
        for (place, way, seconds), same in sorted(lines.items()):
            start = f"| {place} | {way}{f' {seconds} s' if seconds else ''} | {len(same)} "
            start += f"| {np.mean([row['normal_flagged'] for row in same]):.1%} |"
            for cells in _thing_cells(same) if is_real else [_fault_cells(same)]:
                yield f"{start} {' | '.join(cells)} |"
        yield ""
        if not is_real:
            yield from _rules(lines)


def _rules(lines: Mapping[Any, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield a table of the rules for an adapted model's threshold: means over places."""
    found: dict[str, list[list[float]]] = {}
    for (place, _, _), same in sorted(lines.items()):
        if place == "all places" or "normal_flagged_at" not in same[0]:
            continue
        for rule in same[0]["normal_flagged_at"]:
            faults = [fault for row in same for fault in row["faults"].values()]
            recalls = [
                [fault["recall_at"][rule] for fault in faults if fault["family"] == family]
                for family in ("stress", "unseen")
            ]
            flagged = [row["normal_flagged_at"][rule] for row in same]
            found.setdefault(rule, []).append([float(np.mean(v)) for v in (flagged, *recalls)])
    if found:
        yield "| threshold | normal flagged | worst place | recall, stress | unseen |"
        yield "|---|" + "---:|" * 4
    for rule, figures in sorted(found.items()):
        flagged, stress, unseen = np.mean(figures, axis=0)
        worst = max(item[0] for item in figures)
        yield f"| {rule} | {flagged:.1%} | {worst:.1%} | {stress:.3f} | {unseen:.3f} |"
    if found:
        yield ""


def _mean(items: Iterable[Mapping[str, float]], key: str = "roc_auc") -> str:
    values = [item[key] for item in items]
    return f"{np.mean(values):.3f}" if values else ""


def _thing_cells(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for thing in rows[0]["things"]:
        found = [row["things"][thing] for row in rows]
        yield [thing, _mean(found), _mean(found, "recall")]


def _fault_cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    items = [[{"name": name} | item for name, item in row["faults"].items()] for row in rows]
    cells = []
    for family in ("stress", "unseen"):
        own = [[item for item in row if item["family"] == family] for row in items]
        worst = [min(row, key=lambda item: item["roc_auc"]) for row in own]
        name = min(worst, key=lambda item: item["roc_auc"])["name"]
        together = list(itertools.chain(*own))
        cells += [_mean(together), f"{_mean(worst)} ({name})", _mean(together, "recall")]
    together = list(itertools.chain(*items))
    return cells + [_mean(i for i in together if i["twin"] == twin) for twin in (True, False)]


def _parse() -> tuple[argparse.Namespace, TrainOptions]:
    parser = row_options(__doc__)
    add = parser.add_argument
    add("--table", action="store_true", help="only print tables of the rows that are there")
    text = f"of {', '.join(PLACES)} (default: all)"
    add("--places", nargs="+", choices=PLACES, default=[*PLACES], metavar="PLACE", help=text)
    text = "of the drives of a place: the one that is furthest apart, or every one (%(default)s)"
    add("--pairs", choices=("headline", "all"), default="headline", help=text)
    add("--train-drives", type=int, default=1, metavar="N", help="drives to train on (1)")
    add("--seeds", type=int, default=1, metavar="N", help="trainings of each row (1)")
    add("--scorer", choices=[*scorers()], default=DEFAULT_SCORER, help="(%(default)s)")
    text = "more options of 'python -m training train', as in --train-options='--held-out 0.1'"
    add("--train-options", default="", metavar="OPTIONS", help=text)
    add("--leave-out", choices=[*TWINS], help="a family of outliers that the trainer goes without")
    text = "ways of adapting (default: all that the scorer has); calibrate: a new threshold alone"
    add("--adapt", nargs="+", choices=[NONE, *WAYS], help=text)
    text = "of the test drive to adapt with (20 60 120)"
    add("--seconds", nargs="+", type=int, default=[20, 60, 120], metavar="SECONDS", help=text)
    text = "most frames that each fault is put on (%(default)s); all clean ones are tested"
    add("--test-frames", type=int, default=150, metavar="N", help=text)
    arguments = parser.parse_args()
    if arguments.adapt is None:
        can_adapt = find_scorer(arguments.scorer).adapts
        arguments.adapt = [NONE, *(way for way in WAYS if can_adapt or way != "adapt")]
    counts = (arguments.train_drives, arguments.seeds, arguments.test_frames, *arguments.seconds)
    if min(counts) < 1 or max(arguments.seconds) > 180:
        raise AnomalyDetectorError("give counts of 1 or more, and --seconds of at most 180")
    if arguments.leave_out and scorers()[arguments.scorer].train is not train_exposure:
        raise AnomalyDetectorError(
            f"--scorer {arguments.scorer} makes no outliers to --leave-out: give {DEFAULT_SCORER}"
        )
    inner = argparse.ArgumentParser(prog="--train-options", add_help=False)
    add_options(inner)
    given = vars(inner.parse_args(shlex.split(arguments.train_options)))
    own = {"data": (), "out": Path(), "scorer": arguments.scorer, "seed": 0, "resume": True}
    if fixed := given.keys() & own.keys():
        raise AnomalyDetectorError(f"--train-options has {sorted(fixed)}: leave these out")
    return arguments, resolve_options(own | given | {"progress": sys.stderr.isatty()})


def main() -> int:
    """Run the command line and return the exit code."""
    arguments, options = _parse()
    folder = arguments.out / "rows"
    if arguments.table:
        files = sorted(folder.glob("*/*/*/*.json"))
        if not files:
            raise AnomalyDetectorError(f"{folder} has no rows yet: compute some first")
        print("\n".join(tables(json.loads(file.read_text("utf-8")) for file in files)))
        return 0
    left_out = arguments.leave_out
    text = f"{arguments.scorer} {arguments.train_options}"
    text += f" no {left_out}" if left_out else ""
    rows = list(plan(arguments, re.sub(r"[^\w.+-]+", "_", text.strip())))
    missing = [row for row in rows if not (folder / row.file).is_file()]
    failed = 0
    for row in tqdm(missing, f"{len(missing)} of {len(rows)} rows are missing", unit="row"):
        try:
            compute(row, options, left_out, arguments.out)
        except (AnomalyDetectorError, BrokenProcessPool) as error:
            failed += 1
            tqdm.write(f"error: {row.file}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(resumable(main))
