"""``python -m training train``: a recorded drive in, a detector out."""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import anomaly_detector
from anomaly_detector.calibration import calibrate_threshold, score_quantiles
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path, writable_parent
from anomaly_detector.metadata import Calibration, ModelMetadata
from training.architectures import ARCHITECTURES, Autoencoder, build_autoencoder
from training.backend import seed_everything
from training.datasets import BlockSplit, FrameSet, open_frame_set, split_blocks
from training.scorers import SCORE_UNITS, Scorer

if TYPE_CHECKING:
    from training.fit import FitResult

__all__ = ["SCORERS", "THESIS_THRESHOLD", "TrainOptions", "add_arguments", "run", "train"]

SCORERS = ("reconstruction", "mlp")

THESIS_THRESHOLD = 200.0
"""Of the reconstruction score (thesis 5.14)."""

MLP_THRESHOLD = 0.5
"""Of the classifier's probability (thesis 5.17)."""


@dataclass(frozen=True)
class TrainOptions:
    """What to train and how.

    Attributes:
        data: recordings of normal drives.
        out: the model file to write.
        topic: image topic of bags with several.
        architecture: a name of :data:`training.architectures.ARCHITECTURES`.
        scorer: a name of :data:`SCORERS`.
        anomalies: recordings of anomalies, for the ``mlp`` scorer.
        epochs: upper limit for the autoencoder.
        mlp_epochs: upper limit for the classifier.
        batch_size: frames a step.
        learning_rate: of the autoencoder.
        held_out: share of the frames held out for validation and calibration.
        seed: makes the run repeatable.
        false_alarm_rate: of the calibrated threshold of the ``reconstruction`` scorer.
        threshold: a fixed threshold instead.
        cache: folder for shrunk frames; None for the user's cache folder.
        progress: show progress bars.
    """

    data: Sequence[str]
    out: Path
    topic: str | None = None
    architecture: str = "v5"
    scorer: str = "reconstruction"
    anomalies: Sequence[str] = ()
    epochs: int = 100
    mlp_epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3
    held_out: float = 0.2
    seed: int = 0
    false_alarm_rate: float = 0.01
    threshold: float | None = None
    cache: Path | None = None
    progress: bool = True


@dataclass
class _Trained:
    """A scoring function with what is known about its training."""

    scorer: Scorer
    metrics: dict[str, Any]
    histories: dict[str, dict[str, list[float]]]
    provenance: dict[str, Any] = field(default_factory=dict)


def train(options: TrainOptions) -> ModelMetadata:
    """Train, calibrate, export and check a detector.

    Writes ``options.out`` and, beside it, ``NAME.history.csv`` with the losses of every epoch.

    Returns:
        The metadata that went into the model.

    Raises:
        AnomalyDetectorError: a recording, an option or the export is at fault; nothing is written.
    """
    _check(options)
    frames = open_frame_set(
        options.data, options.topic, cache=options.cache, progress=options.progress
    )
    anomalies = (
        open_frame_set(
            options.anomalies, options.topic, cache=options.cache, progress=options.progress
        )
        if options.scorer == "mlp"
        else None
    )
    split = split_blocks(frames.lengths, held_out=options.held_out, seed=options.seed)
    # Keras and TensorFlow take seconds to import: only now that the data is known to be good.
    from training.export import convert, score_images, write_detector

    seed_everything(options.seed)
    autoencoder = build_autoencoder(options.architecture)
    trained = _train_reconstruction(autoencoder, frames, split, options)
    if anomalies is not None:
        trained = _train_mlp(autoencoder, trained, frames, split, anomalies, options)

    model = convert(trained.scorer)
    held_out_images = frames.take(split.held_out)
    threshold, calibration = _threshold(score_images(model, held_out_images), options)
    metadata = ModelMetadata(
        name=options.out.stem,
        architecture=options.architecture,
        scorer=options.scorer,
        score_units=SCORE_UNITS[options.scorer],
        threshold=threshold,
        calibration=calibration,
        provenance=_provenance(options, frames, split, anomalies) | trained.provenance,
        metrics=trained.metrics,
    )
    difference = write_detector(
        model, metadata, options.out, scorer=trained.scorer, images=_parity_images(held_out_images)
    )
    _write_history(options.out.with_suffix(".history.csv"), trained.histories)
    if options.progress:
        print(
            f"{options.out}: {options.architecture} + {options.scorer}, "
            f"threshold {threshold:.4g} ({calibration.method}, {calibration.frames} frames), "
            f"ONNX Runtime against Keras {difference:.1e} relative"
        )
    return metadata


def _check(options: TrainOptions) -> None:
    if options.scorer not in SCORERS:
        raise AnomalyDetectorError(
            f"scorer {options.scorer!r} is not known: choose one of {', '.join(SCORERS)}"
        )
    if options.architecture not in ARCHITECTURES:
        raise AnomalyDetectorError(
            f"architecture {options.architecture!r} is not known: "
            f"choose one of {', '.join(ARCHITECTURES)}"
        )
    if (options.scorer == "mlp") != bool(options.anomalies):
        raise AnomalyDetectorError(
            "scorer mlp learns from anomalies: give --anomalies SOURCE"
            if options.scorer == "mlp"
            else f"scorer {options.scorer} uses no anomalies: leave --anomalies out or choose "
            "--scorer mlp"
        )
    if options.out.suffix != ".onnx":
        raise AnomalyDetectorError(
            f"--out {options.out} does not end with .onnx: name an ONNX file"
        )
    for name, value in (("epochs", options.epochs), ("batch size", options.batch_size)):
        if value < 1:
            raise AnomalyDetectorError(f"{name} is {value}: give 1 or more")
    if not 0.0 < options.held_out < 0.9:
        raise AnomalyDetectorError(f"held-out share is {options.held_out}: give 0.05 to 0.5")
    if not options.learning_rate > 0.0:
        raise AnomalyDetectorError(f"learning rate is {options.learning_rate}: give 0.001 or so")
    if not 0.0 < options.false_alarm_rate < 1.0:
        raise AnomalyDetectorError(
            f"false alarm rate is {options.false_alarm_rate}: give a share such as 0.01"
        )
    # Found out now rather than after an hour of training.
    writable_parent(options.out)


def _train_reconstruction(
    autoencoder: Autoencoder, frames: FrameSet, split: BlockSplit, options: TrainOptions
) -> _Trained:
    from training.fit import FitSettings, fit
    from training.scorers import reconstruction_scorer

    def take(indices: NDArray[np.int64]) -> tuple[Any, Any]:
        images = frames.take(indices).astype(np.float32)
        return images, images

    result = fit(
        autoencoder.model,
        take,
        split.train,
        split.held_out,
        FitSettings(
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            clipnorm=ARCHITECTURES[options.architecture].clipnorm,
            seed=options.seed,
        ),
        loss="mean_squared_error",
        label=f"training {options.architecture}",
        progress=options.progress,
    )
    return _Trained(
        reconstruction_scorer(autoencoder),
        metrics={"validation_loss": result.best_loss},
        histories={"autoencoder": result.history},
        provenance={"autoencoder": _fit_summary(result)},
    )


def _train_mlp(
    autoencoder: Autoencoder,
    trained: _Trained,
    frames: FrameSet,
    split: BlockSplit,
    anomalies: FrameSet,
    options: TrainOptions,
) -> _Trained:
    """Train the classifier on the codes of normal and anomalous frames (thesis 5.4.6)."""
    from training.fit import FitSettings, fit
    from training.scorers import build_mlp, mlp_scorer

    anomaly_split = split_blocks(anomalies.lengths, held_out=options.held_out, seed=options.seed)
    codes = np.concatenate([_encode(autoencoder, frames), _encode(autoencoder, anomalies)])
    labels = np.repeat(np.array([0, 1], np.float32), [len(frames), len(anomalies)])
    mlp = build_mlp()
    train_indices = np.concatenate([split.train, anomaly_split.train + len(frames)])
    held_out = np.concatenate([split.held_out, anomaly_split.held_out + len(frames)])
    # Codes reach thousands, on which Adam at 1e-4 wanders. The classifier learns on standardised
    # codes; afterwards its first layer takes the scale over, so that it is 128-256-64-1 on the
    # plain codes as in the thesis.
    mean = codes[train_indices].mean(axis=0)
    deviation = np.maximum(codes[train_indices].std(axis=0), 1e-6)
    result = fit(
        mlp,
        lambda indices: ((codes[indices] - mean) / deviation, labels[indices, np.newaxis]),
        train_indices,
        held_out,
        FitSettings(
            epochs=options.mlp_epochs,
            batch_size=options.batch_size,
            learning_rate=1e-4,
            early_stopping_patience=20,
            plateau_patience=10,
            seed=options.seed,
        ),
        loss="binary_crossentropy",
        label="training mlp",
        progress=options.progress,
    )
    kernel, bias, *others = mlp.get_weights()
    kernel = kernel / deviation[:, np.newaxis]
    mlp.set_weights([kernel, bias - mean @ kernel, *others])
    probabilities = np.asarray(mlp(codes[held_out], training=False))[:, 0]
    accuracy = float(np.mean((probabilities > MLP_THRESHOLD) == (labels[held_out] > 0.5)))
    return _Trained(
        mlp_scorer(autoencoder, mlp),
        metrics={
            "autoencoder_validation_loss": trained.metrics["validation_loss"],
            "validation_loss": result.best_loss,
            "validation_accuracy": accuracy,
        },
        histories=trained.histories | {"mlp": result.history},
        provenance=trained.provenance | {"mlp": _fit_summary(result)},
    )


def _encode(autoencoder: Autoencoder, frames: FrameSet) -> NDArray[np.float32]:
    """Give the codes of all frames, float32 [N, 128] (thesis 5.16)."""
    codes = [
        np.asarray(autoencoder.encoder(frames.take(batch).astype(np.float32), training=False))
        for batch in np.array_split(np.arange(len(frames)), -(-len(frames) // 256))
    ]
    return np.concatenate(codes)


def _threshold(
    held_out_scores: NDArray[np.float32], options: TrainOptions
) -> tuple[float, Calibration]:
    """Calibrate on the held-out normal frames, or take the fixed threshold."""
    if options.threshold is None and options.scorer == "reconstruction":
        return calibrate_threshold(held_out_scores, options.false_alarm_rate)
    threshold = MLP_THRESHOLD if options.threshold is None else options.threshold
    return threshold, Calibration("fixed", quantiles=score_quantiles(held_out_scores))


def _parity_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give seven frames for the export check: real ones, noise, black and white."""
    real = images[np.linspace(0, len(images) - 1, 4).astype(int)]
    noise = np.random.default_rng(0).integers(0, 256, (1, *images.shape[1:]), np.uint8)
    black = np.zeros_like(noise)
    return np.concatenate([real, noise, black, 255 - black])


def _fit_summary(result: FitResult) -> dict[str, Any]:
    epochs = len(result.history["loss"])
    return {
        "epochs": epochs,
        "best_epoch": result.best_epoch,
        "stopped_by": result.stopped_by,
        "seconds": round(result.seconds, 1),
    }


def _provenance(
    options: TrainOptions, frames: FrameSet, split: BlockSplit, anomalies: FrameSet | None
) -> dict[str, Any]:
    packages = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy")
    # Where a recording lay on the training machine is nobody's business; its name is.
    sources = replace(
        options,
        data=[Path(source).name for source in options.data],
        anomalies=[Path(source).name for source in options.anomalies],
    )
    skipped = ("out", "cache", "progress")
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "options": {key: value for key, value in asdict(sources).items() if key not in skipped},
        "frames": {
            "recorded": len(frames),
            "unreadable": sum(len(part.unreadable) for part in frames.parts),
            "train": len(split.train),
            "held_out": len(split.held_out),
            "anomalies": 0 if anomalies is None else len(anomalies),
        },
        "versions": {
            "anomaly_detector": anomaly_detector.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    }


def _write_history(path: Path, histories: dict[str, dict[str, list[float]]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "epoch", "quantity", "value"])
        for network, history in histories.items():
            for quantity, values in history.items():
                for epoch, value in enumerate(values, start=1):
                    writer.writerow([network, epoch, quantity, f"{value:.9g}"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="SOURCE",
        help="normal drives: image folders, rosbag2 folders or files, videos",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="model file to write (.onnx)")
    parser.add_argument("--topic", help="image topic, for a bag with more than one")
    parser.add_argument("--architecture", default="v5", choices=list(ARCHITECTURES))
    parser.add_argument("--scorer", default="reconstruction", choices=SCORERS)
    parser.add_argument(
        "--anomalies", nargs="+", default=[], metavar="SOURCE",
        help="recordings of anomalies, for --scorer mlp",
    )  # fmt: skip
    parser.add_argument(
        "--epochs", type=int, default=100, help="most epochs to train (default %(default)s)"
    )
    parser.add_argument(
        "--mlp-epochs", type=int, default=100, help="the same for the mlp (default %(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="default %(default)s")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default %(default)s")
    parser.add_argument(
        "--held-out", type=float, default=0.2, metavar="SHARE",
        help="share of the frames for validation and calibration (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--false-alarm-rate", type=float, default=0.01, metavar="SHARE",
        help="calibrate the reconstruction threshold on the held-out normal frames so that this "
        "share of normal frames is flagged (default %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--threshold", type=float,
        help=f"a fixed threshold instead; the thesis has {THESIS_THRESHOLD:g} for reconstruction "
        f"and {MLP_THRESHOLD:g} for mlp (the default there)",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, help="folder for shrunk frames (default ~/.cache)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line; gives the exit code."""
    train(TrainOptions(**vars(arguments)))
    return 0
