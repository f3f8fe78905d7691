"""What each part of the default scorer is good for: the ablation of docs/detection-quality.md.

Trains the scorer without one part at a time, and puts the evidence of the thesis beside it. A row
is measured on a clean test drive, as it is and with each fault of the stress test: ROC-AUCs, and
recall and false alarms at the threshold that the held-out frames give for 1 %:

    python -m benchmarks.exposure_ablation --data bags/donkeycar_lap1_compressed_db3 \
        --test bags/donkeycar_lap2_compressed_mcap --exclude 324-369 --epochs 7 --out ablation.json

Evidence of different kinds is joined on one scale: the distance from the median of the held-out
normal frames, in units of the way from there to their 99th percentile; the highest one counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.calibration import calibrate_threshold
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from anomaly_detector.images.preprocessing import INPUT_SIZE, WHOLE_FRAME, shrink
from anomaly_detector.recordings import open_source
from training.config.options import TrainOptions, without_unused
from training.evaluation.faults import FAULT_SETS, Fault
from training.evaluation.metrics import area_under_roc
from training.evaluation.stress import fault_generator, inject, numbered_frames, parse_exclusion
from training.fitting.backend import import_keras
from training.scorers.outlier_exposure.outliers import (
    PICTURE_FAULTS,
    TEXTURES,
    PictureFault,
    Texture,
)
from training.scorers.registry import find_scorer
from training.train import prepare

_HIGHEST_CELLS = 4
_BATCH = 256
_FALSE_ALARM_RATE = 0.01
_WORKERS = 2

Scores = NDArray[np.float64]
Score = Callable[[NDArray[np.uint8]], Scores]

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "things": ("object_", "thin_lines", "cable_loop", "lost_blocks"),
    "lens": ("lens_", "cover_"),
    "smooth": ("blur_", "defocus_", "motion_", "dark", "black"),
    "tilt_5": ("tilt_5",),
}


class _Test:
    """A drive of clean frames, each also with every fault.

    Attributes:
        clean: uint8 [N, 64, 64, 3].
        faulted: name of a fault to the same frames with it.
    """

    def __init__(self, path: str, topic: str | None, exclude: Sequence[str], seed: int) -> None:
        faults = [fault for fault in FAULT_SETS["full"] if fault.per_frame]
        left_out = [parse_exclusion(text) for text in exclude]
        frames = list(numbered_frames(open_source(path, topic), WHOLE_FRAME, left_out))
        self.clean = np.stack([shrink(frame.pixels) for _, frame in frames])

        def faulted(fault: Fault) -> NDArray[np.uint8]:
            made = [inject(fault, f, fault_generator(seed, fault, n))[0] for n, f in frames]
            return np.stack(made)

        with ThreadPoolExecutor(_WORKERS) as pool:
            names = [fault.name for fault in faults]
            self.faulted = dict(zip(names, pool.map(faulted, faults), strict=True))

    def row(self, score: Score, held_out: NDArray[np.uint8]) -> dict[str, Any]:
        """Return the figures of a score.

        Args:
            score: from frames to scores.
            held_out: normal frames that the threshold is calibrated on.
        """
        clean = score(self.clean)
        threshold, _ = calibrate_threshold(score(held_out).astype(np.float32), _FALSE_ALARM_RATE)
        areas, recalls = {}, []
        for name, images in self.faulted.items():
            scores = score(images)
            labels = np.repeat([False, True], [len(clean), len(images)])
            areas[name] = area_under_roc(np.concatenate([clean, scores]), labels)
            recalls.append(np.mean(scores >= threshold))
        worst = min(areas, key=lambda name: areas[name])
        row: dict[str, Any] = {
            "mean": float(np.mean(list(areas.values()))),
            "recall": float(np.mean(recalls)),
            "false_alarms": float(np.mean(clean >= threshold)),
        }
        for group, prefixes in _GROUPS.items():
            members = [area for name, area in areas.items() if name.startswith(prefixes)]
            row[group] = float(np.mean(members))
        return row | {"minimum": areas[worst], "worst": worst, "faults": areas}


def _answers(network: Any) -> Callable[[NDArray[np.uint8]], tuple[Scores, Scores]]:
    """Give the function from frames to the log-odds of the frame and of its four hottest cells."""
    # Several rows look at the same frames, which live as long as the test: by their identity.
    known: dict[int, tuple[Scores, Scores]] = {}

    def answers(images: NDArray[np.uint8]) -> tuple[Scores, Scores]:
        if id(images) in known:
            return known[id(images)]
        given = network.predict(images.astype(np.float32), batch_size=_BATCH, verbose=0)
        cells = np.sort(given["map"].reshape(len(images), -1), axis=1)[:, -_HIGHEST_CELLS:]
        result = given["frame"][:, 0].astype(float), cells.mean(axis=1).astype(float)
        known[id(images)] = result
        return result

    return answers


def _both(network: Any) -> Score:
    answers = _answers(network)
    return lambda images: np.asarray(np.logaddexp(*answers(images)))


def _keras_score(scorer: Any) -> Score:
    known: dict[int, Scores] = {}

    def score(images: NDArray[np.uint8]) -> Scores:
        if id(images) in known:
            return known[id(images)]
        starts = range(0, len(images), _BATCH)
        parts = [np.asarray(scorer(images[i : i + _BATCH])["score"]) for i in starts]
        known[id(images)] = np.concatenate(parts).astype(float)
        return known[id(images)]

    return score


def _on_scale(score: Score, held_out: NDArray[np.uint8], two_sided: bool = False) -> Score:
    """Put a score on the common scale: 0 at the median normal frame, 1 at the 99th percentile."""
    normal = score(held_out)
    middle = np.median(normal)

    def distance(values: Scores) -> Scores:
        return np.abs(values - middle) if two_sided else values - middle

    unit = np.quantile(distance(normal), 0.99)
    return lambda images: distance(score(images)) / unit


def _highest(first: Score, second: Score) -> Score:
    return lambda images: np.maximum(first(images), second(images))


def _pieces_of_the_drive(
    pool: NDArray[np.uint8],
) -> tuple[list[Texture], list[tuple[PictureFault, float]]]:
    """Return the trainer's textures and faults, and those that show the drive itself out of place.

    Args:
        pool: uint8 [N, 64, 64, 3], normal frames.
    """

    def crop(generator: np.random.Generator) -> Any:
        """A piece of another frame, enlarged, turned, with other colours and contrast."""
        side = int(generator.integers(8, INPUT_SIZE + 1))
        top, left = generator.integers(0, INPUT_SIZE - side + 1, 2)
        piece = pool[generator.integers(len(pool))][top : top + side, left : left + side]
        piece = cv2.resize(piece, (INPUT_SIZE, INPUT_SIZE)).astype(np.float32)
        if generator.random() < 0.5:
            piece = piece[:, ::-1]
        if generator.random() < 0.5:
            piece = piece[..., generator.permutation(3)]
        contrast, level = generator.uniform(0.3, 1.8), generator.uniform(10, 245)
        return np.asarray((piece - piece.mean()) * contrast + level, np.float32)

    def moved(picture: Any, generator: np.random.Generator, textures: Any) -> Any:
        """The view shifted, zoomed or mirrored."""
        if generator.random() < 0.3:
            return np.ascontiguousarray(picture[:, ::-1])
        zoom, reach = 1.0, 0.0
        if generator.random() < 0.5:
            zoom = float(np.exp(generator.uniform(np.log(1.25), np.log(2.2))))
        else:
            reach = generator.uniform(9, 26)
        direction, middle = generator.uniform(0, 2 * np.pi), (INPUT_SIZE - 1) / 2
        motion = cv2.getRotationMatrix2D((middle, middle), 0, zoom)
        motion[:, 2] += reach * np.cos(direction), reach * np.sin(direction)
        size = (INPUT_SIZE, INPUT_SIZE)
        return cv2.warpAffine(picture, motion, size, borderMode=cv2.BORDER_REFLECT)

    def torn(picture: Any, generator: np.random.Generator, textures: Any) -> Any:
        """The lower part shifted, or of another frame."""
        row, result = int(generator.integers(8, INPUT_SIZE - 8)), picture.copy()
        if generator.random() < 0.5:
            result[row:] = np.roll(picture[row:], int(generator.integers(6, INPUT_SIZE - 6)), 1)
        else:
            result[row:] = pool[generator.integers(len(pool))][row:]
        return result

    return [*TEXTURES, crop], [*PICTURE_FAULTS, (moved, 2.4), (torn, 1.1)]


def ablate(arguments: argparse.Namespace, report: Callable[[str, dict[str, Any]], None]) -> None:
    """Train every variant and report each row as it is done.

    Raises:
        AnomalyDetectorError: a recording or an option is at fault.
    """
    test = _Test(arguments.test, arguments.topic, arguments.exclude, arguments.seed)
    import_keras()
    from training.fitting.autoencoder import train_autoencoder
    from training.scorers.outlier_exposure.training import ExposureParts, fit_exposure

    with tempfile.TemporaryDirectory() as folder:

        def job(name: str, scorer: str = "outlier-exposure") -> Any:
            options = TrainOptions(
                data=[arguments.data],
                out=Path(folder) / f"{name}.onnx",
                topic=arguments.topic,
                scorer=scorer,
                exposure_epochs=arguments.epochs,
                exposure_steps=arguments.steps,
                epochs=arguments.autoencoder_epochs,
                seed=arguments.seed,
                progress=False,
            )
            return prepare(without_unused(options))

        whole = job("whole")
        held_out = whole.frames.take(whole.split.calibration)
        network, _ = fit_exposure(whole)
        answers = _answers(network)
        both = _both(network)
        report("frame and cells: the default", test.row(both, held_out))
        report("frame alone", test.row(lambda images: answers(images)[0], held_out))
        report("cells alone", test.row(lambda images: answers(images)[1], held_out))
        textures, faults = _pieces_of_the_drive(whole.frames.take(whole.split.train))
        for name, parts in (
            ("without weight decay", ExposureParts(weight_decay=0.0)),
            (
                "views of the drive in another place too",
                ExposureParts(textures=textures, faults=faults),
            ),
            ("without the turn to learn", ExposureParts(turn=False)),
            ("without place", ExposureParts(place=False)),
            ("without faults of the whole picture", ExposureParts(whole=False)),
            ("without pasted things", ExposureParts(pasted=False)),
        ):
            reduced, _ = fit_exposure(job(f"variant_{len(name)}"), parts)
            report(name, test.row(_both(reduced), held_out))
        flow_job = job("realnvp", "realnvp")
        base = train_autoencoder(flow_job)
        reconstruction = _keras_score(base.scorer)
        density = _keras_score(find_scorer("realnvp").train(flow_job, base).scorer)
        default = _on_scale(both, held_out)
        report("reconstruction error alone", test.row(reconstruction, held_out))
        report("latent density alone", test.row(density, held_out))
        for name, other in (
            ("default or reconstruction error", _on_scale(reconstruction, held_out)),
            (
                "default or reconstruction error, two-sided",
                _on_scale(reconstruction, held_out, two_sided=True),
            ),
            ("default or latent density", _on_scale(density, held_out)),
        ):
            report(name, test.row(_highest(default, other), held_out))


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, metavar="SOURCE", help="normal drive to train on")
    parser.add_argument("--test", required=True, metavar="SOURCE", help="clean drive to test on")
    parser.add_argument("--topic", help="image topic, for bags with several")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="A-B", help="of the test drive")
    parser.add_argument(
        "--epochs", type=int, default=7, help="of each network; the default scorer gets more"
    )
    parser.add_argument("--steps", type=int, default=100, help="of each epoch")
    parser.add_argument("--autoencoder-epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    start = time.perf_counter()

    def report(name: str, row: dict[str, Any]) -> None:
        rows[name] = row
        cells = [
            f"{row[key]:.3f}" for key in ("mean", "recall", "false_alarms", *_GROUPS, "minimum")
        ]
        print(f"| {name} | {' | '.join(cells)} ({row['worst']}) |", flush=True)

    print(f"| variant | mean | recall | false alarms | {' | '.join(_GROUPS)} | minimum |")
    print("|---|---:|---:|---:|" + "---:|" * len(_GROUPS) + "---:|")
    try:
        ablate(arguments, report)
        if arguments.out is not None:
            with atomic_path(arguments.out) as temporary:
                temporary.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    except AnomalyDetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{time.perf_counter() - start:.0f} s, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
