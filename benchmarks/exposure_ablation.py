"""What each part of the default scorer is good for: the ablation of docs/detection-quality.md.

Train the scorer without one part at a time, and put the evidence of the thesis beside it. A row is
measured on a clean test drive, as it is and with each fault of the stress test: ROC-AUCs, and
recall and false alarms at the threshold that the held-out frames give for 1 %:

    python -m benchmarks.exposure_ablation --data lap1 --test lap2 --exclude 324-369

Evidence of different kinds is joined on one scale: the distance from the median of the held-out
normal frames, in units of the way from there to their 99th percentile; the highest one counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.calibration import calibrate_threshold
from anomaly_detector.images.preprocessing import INPUT_SIZE, WHOLE_FRAME, preprocess
from anomaly_detector.recordings import open_source
from benchmarks.common import options, run
from training.config.options import TrainOptions
from training.evaluation.faults import FAULT_SETS, Fault
from training.evaluation.metrics import area_under_roc
from training.evaluation.stress import (
    Exclusion,
    fault_generator,
    inject,
    numbered_frames,
)
from training.networks.backend import import_keras
from training.scorers.options import without_unused
from training.scorers.outlier_exposure.outliers import (
    GLOBAL_OUTLIERS,
    TEXTURES,
    GlobalOutlier,
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

    def __init__(
        self, path: str, topic: str | None, exclude: Sequence[Exclusion], seed: int
    ) -> None:
        faults = [fault for fault in FAULT_SETS["full"] if fault.per_frame]
        frames = list(numbered_frames(open_source(path, topic), WHOLE_FRAME, exclude))
        self.clean = np.stack([preprocess(frame.pixels) for _, frame in frames])

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


def _once(function: Callable[[NDArray[np.uint8]], Any]) -> Callable[[NDArray[np.uint8]], Any]:
    """Compute a result once for the same frames, which live as long as the test."""
    known: dict[int, Any] = {}

    def result(images: NDArray[np.uint8]) -> Any:
        if id(images) not in known:
            known[id(images)] = function(images)
        return known[id(images)]

    return result


def _answers(network: Any) -> Callable[[NDArray[np.uint8]], tuple[Scores, Scores]]:
    """Return the function from frames to the log-odds of the frame and of its hottest cells."""

    def answers(images: NDArray[np.uint8]) -> tuple[Scores, Scores]:
        given = network.predict(images.astype(np.float32), batch_size=_BATCH, verbose=0)
        cells = np.sort(given["map"].reshape(len(images), -1), axis=1)[:, -_HIGHEST_CELLS:]
        return given["frame"][:, 0].astype(float), cells.mean(axis=1).astype(float)

    return _once(answers)


def _both(network: Any) -> Score:
    answers = _answers(network)
    return lambda images: np.asarray(np.logaddexp(*answers(images)))


def _keras_score(scorer: Any) -> Score:
    def score(images: NDArray[np.uint8]) -> Scores:
        starts = range(0, len(images), _BATCH)
        parts = [np.asarray(scorer(images[i : i + _BATCH])["score"]) for i in starts]
        return np.concatenate(parts).astype(float)

    return _once(score)


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
) -> tuple[list[Texture], list[tuple[GlobalOutlier, float]]]:
    """Return the trainer's textures and faults, and those that show the drive itself out of place.

    Args:
        pool: uint8 [N, 64, 64, 3], normal frames.
    """

    def crop(generator: np.random.Generator, size: int) -> Any:
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

    return [*TEXTURES, crop], [*GLOBAL_OUTLIERS, (moved, 2.4), (torn, 1.1)]


def variants(arguments: argparse.Namespace) -> Iterator[tuple[str, Score, NDArray[np.uint8]]]:
    """Train every variant; yield its name, its score and the held-out frames."""
    import_keras()
    from training.scorers.autoencoder import train_autoencoder
    from training.scorers.outlier_exposure.batches import ExposureParts
    from training.scorers.outlier_exposure.training import fit_exposure

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
        held_out = whole.frames.load(whole.split.calibration)
        network, _ = fit_exposure(whole)
        answers, both = _answers(network), _both(network)
        yield "frame and cells: the default", both, held_out
        yield "frame alone", lambda images: answers(images)[0], held_out
        yield "cells alone", lambda images: answers(images)[1], held_out
        textures, faults = _pieces_of_the_drive(whole.frames.load(whole.split.train))
        for name, parts in {
            "without weight decay": ExposureParts(weight_decay=0.0),
            "views of the drive in another place too": ExposureParts(
                textures=textures, faults=faults
            ),
            "without the roll to learn": ExposureParts(roll=False),
            "without CoordConv": ExposureParts(coord_conv=False),
            "without global outliers": ExposureParts(global_outliers=False),
            "without local outliers": ExposureParts(local_outliers=False),
        }.items():
            reduced, _ = fit_exposure(job(f"variant_{len(name)}"), parts)
            yield name, _both(reduced), held_out
        flow_job = job("realnvp", "realnvp")
        base = train_autoencoder(flow_job)
        reconstruction = _keras_score(base.scorer)
        density = _keras_score(find_scorer("realnvp").train(flow_job, base).scorer)
        yield "reconstruction error alone", reconstruction, held_out
        yield "latent density alone", density, held_out
        default = _on_scale(both, held_out)
        for name, other in {
            "default or reconstruction error": _on_scale(reconstruction, held_out),
            "default or reconstruction error, two-sided": _on_scale(
                reconstruction, held_out, two_sided=True
            ),
            "default or latent density": _on_scale(density, held_out),
        }.items():
            yield name, _highest(default, other), held_out


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Print the row of each variant as it is done."""
    test = _Test(arguments.test, arguments.topic, arguments.exclude, arguments.seed)
    rows: dict[str, Any] = {}
    start = time.perf_counter()
    print(f"| variant | mean | recall | false alarms | {' | '.join(_GROUPS)} | minimum |")
    print("|---|---:|---:|---:|" + "---:|" * len(_GROUPS) + "---:|")
    for name, score, held_out in variants(arguments):
        row = rows[name] = test.row(score, held_out)
        figures = [row[key] for key in ("mean", "recall", "false_alarms", *_GROUPS, "minimum")]
        cells = " | ".join(f"{value:.3f}" for value in figures)
        print(f"| {name} | {cells} ({row['worst']}) |", flush=True)
    print(f"{time.perf_counter() - start:.0f} s, load {os.getloadavg()[0]:.1f}")
    return rows, True


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--topic", "--exclude", "--seed")
    parser.add_argument(
        "--data", required=True, metavar="RECORDING", help="normal drive to train on"
    )
    parser.add_argument("--test", required=True, metavar="RECORDING", help="clean drive to test on")
    parser.add_argument(
        "--epochs", type=int, default=7, help="of each network; the default scorer gets more"
    )
    parser.add_argument("--steps", type=int, default=100, help="of each epoch")
    parser.add_argument("--autoencoder-epochs", type=int, default=30)
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
