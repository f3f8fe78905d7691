"""``python -m training export``: saved weights in, a detector out, without training again.

From a ``NAME.training`` folder the same detector comes out again, or one with another threshold;
from a lone ``.weights.h5`` file of an autoencoder, a reconstruction detector. With ``--precision
int8`` its network computes in int8 (:mod:`training.export.quantization`); so can that of any model
file, without Keras.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.calibration import check_false_alarm_rate
from anomaly_detector.alarms.recalibration import recalibrate
from anomaly_detector.cli.arguments import add_recordings, add_shared, add_view_arguments, view_of
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.metadata import Calibration, ModelMetadata
from anomaly_detector.model.normalization import check_threshold
from anomaly_detector.model.shipped import check_model_output
from anomaly_detector.recordings import warn_unreadable
from training.data.frames import open_frame_set
from training.evaluation.precision import (
    MAX_AUC_LOSS,
    MAX_RECALL_LOSS,
    PRECISIONS,
    STRESS_FRAMES,
    StressFrames,
    write_variant,
)
from training.export.quantization import MAX_RANGE_FRAMES, to_int8
from training.fitting.run import ScoringFunction
from training.networks.autoencoders import (
    ARCHITECTURES,
    Autoencoder,
    NetworkSettings,
    build_autoencoder,
)
from training.networks.backend import import_keras
from training.scorers.reconstruction import reconstruction_scorer
from training.scorers.registry import find_scorer, with_scorer_facts

if TYPE_CHECKING:
    from training.fitting.run_folder import RunFolder

_SCORER = "reconstruction"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--weights", type=Path, required=True,
        help="NAME.training folder of a finished training, a .weights.h5 file of an autoencoder, "
        "or, for int8, a model file, also one that was adapted",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="model file to write (.onnx)")
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), help="of a .weights.h5 file")
    purpose = "normal drives that were not trained on, to calibrate the threshold"
    add_recordings(parser, "--data", purpose)
    add_shared(parser, "--topic")
    add_view_arguments(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--false-alarm-rate", type=float, default=0.01, metavar="SHARE",
        help="share of the normal frames of --data that is flagged (default %(default)s)",
    )  # fmt: skip
    group.add_argument("--threshold", type=float, help="a fixed threshold instead")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32",
        help="numbers of the network; int8 takes --data, and is not written when on the "
        f"stress test the mean ROC-AUC falls by more than {MAX_AUC_LOSS:g} or the mean recall by "
        f"more than {MAX_RECALL_LOSS:g} (default %(default)s)",
    )  # fmt: skip
    purpose = "drives that were trained on, which int8 takes the ranges from (default: --data)"
    add_recordings(parser, "--range-data", purpose)
    parser.add_argument(
        "--stress-frames", type=int, default=STRESS_FRAMES, metavar="N",
        help="frames of --data for the stress test of int8 (default %(default)s)",
    )  # fmt: skip
    add_shared(parser, "--cache")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    check_model_output(arguments.out)
    _check_precision(arguments)
    check_threshold(arguments.threshold)
    check_false_alarm_rate(arguments.false_alarm_rate)
    if arguments.weights.suffix == ".onnx":
        return _from_model(arguments)
    view = view_of(arguments).over(_view(arguments.weights))
    images = _images(arguments, arguments.data, view) if arguments.data else None
    import_keras()
    from training.export.convert import convert, masked, score_images, write_detector
    from training.fitting.run_folder import RunFolder
    from training.train import choose_threshold

    if arguments.weights.is_dir():
        metadata, scorer = _from_folder(RunFolder(arguments.weights), arguments.architecture)
    else:
        metadata, scorer = _from_file(
            arguments.weights,
            arguments.architecture,
            has_threshold=images is not None or arguments.threshold is not None,
        )
    model = convert(scorer, view.size)
    if images is not None:
        threshold, calibration = choose_threshold(
            score_images(masked(model, metadata.input_mask), images),
            arguments.threshold,
            arguments.false_alarm_rate,
        )
        metadata = replace(metadata, threshold=threshold, calibration=calibration)
    else:
        images = _smooth_images(view.size)
        if arguments.threshold is not None:
            fixed = replace(metadata.calibration, method="fixed", false_alarm_rate=None, frames=0)
            metadata = replace(metadata, threshold=arguments.threshold, calibration=fixed)
    metadata = with_scorer_facts(replace(metadata, name=arguments.out.stem).with_view(view))
    if arguments.precision != "float32":
        with tempfile.TemporaryDirectory() as folder:
            float32 = Path(folder) / "float32.onnx"
            write_detector(model, metadata, float32, scorer=scorer, images=images)
            return _write_int8(arguments, float32, metadata, images)
    difference = write_detector(model, metadata, arguments.out, scorer=scorer, images=images)
    print(
        f"{arguments.out}: {metadata.architecture} + {metadata.scorer}, threshold "
        f"{metadata.threshold:.4g} ({metadata.calibration.method}), "
        f"ONNX Runtime against Keras {difference:.1e} relative"
    )
    return 0


def _check_precision(arguments: argparse.Namespace) -> None:
    if arguments.precision == "float32":
        if arguments.range_data:
            raise AnomalyDetectorError("--range-data is for --precision int8: leave it out")
        return
    if not arguments.data:
        raise AnomalyDetectorError(
            "--precision int8 gives other scores: give --data RECORDING, normal "
            "drives to calibrate and test it on"
        )
    if arguments.stress_frames < 1:
        raise AnomalyDetectorError(f"--stress-frames is {arguments.stress_frames}: give 1 or more")


def _view(weights: Path) -> View:
    """Return what a training saw of the frames; a lone file of weights says none."""
    from training.fitting.run_folder import RunFolder

    return RunFolder(weights).metadata().view if weights.is_dir() else View()


def _images(arguments: argparse.Namespace, sources: Sequence[str], view: View) -> NDArray[np.uint8]:
    frames = open_frame_set(sources, arguments.topic, view=view, cache=arguments.cache)
    return frames.load(np.arange(len(frames)))


def _from_model(arguments: argparse.Namespace) -> int:
    """Write an int8 copy of a finished model, which may have been adapted."""
    source = arguments.weights
    unfit = (arguments.architecture, arguments.threshold)
    if arguments.precision == "float32" or unfit != (None, None):
        raise AnomalyDetectorError(
            f"{source} is a finished model: give --precision int8, without --architecture and "
            "--threshold; python -m anomaly_detector calibrate gives it another threshold"
        )
    if "precision" in read_metadata(source).provenance:
        raise AnomalyDetectorError(f"{source} is in int8 already: give the float32 model")
    view = view_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        float32 = Path(folder) / "float32.onnx"
        recalibrate(
            source, arguments.data, float32,
            topic=arguments.topic, view=view, false_alarm_rate=arguments.false_alarm_rate,
        )  # fmt: skip
        metadata = replace(read_metadata(float32), name=arguments.out.stem)
        images = _images(arguments, arguments.data, metadata.view)
        return _write_int8(arguments, float32, metadata, images)


def _write_int8(
    arguments: argparse.Namespace,
    float32: Path,
    metadata: ModelMetadata,
    images: NDArray[np.uint8],
) -> int:
    """Write a model file's int8 variant, if it sees as much."""
    import onnx

    from training.data.opening import open_recording
    from training.export.convert import score_images
    from training.train import choose_threshold

    ranges = images
    if arguments.range_data:
        ranges = _images(arguments, arguments.range_data, metadata.view)
    variant = to_int8(onnx.load(float32), ranges)
    threshold, calibration = choose_threshold(
        score_images(variant, images), arguments.threshold, arguments.false_alarm_rate
    )
    sources = [open_recording(source, arguments.topic) for source in arguments.data]
    before, own = write_variant(
        variant,
        with_scorer_facts(replace(metadata, threshold=threshold, calibration=calibration)),
        arguments.out,
        float32=float32,
        frames=StressFrames(sources, metadata.view, arguments.stress_frames),
        range_frames=min(len(ranges), MAX_RANGE_FRAMES),
    )
    for source in sources:
        warn_unreadable(source.path, source.unreadable)
    print(
        f"{arguments.out}: {metadata.architecture} + {metadata.scorer} in int8, "
        f"threshold {threshold:.4g} ({calibration.method}); stress test with "
        f"{len(own.counted)} faults: mean ROC-AUC {own.mean_roc_auc.value:.4f}, float32 "
        f"{before.mean_roc_auc.value:.4f}; mean recall {own.mean_recall:.3f}, float32 "
        f"{before.mean_recall:.3f}"
    )
    return 0


def _from_folder(
    folder: RunFolder, architecture: str | None
) -> tuple[ModelMetadata, ScoringFunction]:
    metadata = folder.metadata()
    if architecture not in (None, metadata.architecture):
        raise AnomalyDetectorError(
            f"{folder.path} holds weights of {metadata.architecture}, not of {architecture}: "
            "leave --architecture out"
        )
    if "adapted" in metadata.provenance and not any(folder.path.glob("*.weights.h5")):
        raise AnomalyDetectorError(
            f"{folder.path} is of an adapted model, whose weights are in its model file alone: "
            "give that file with --precision int8, or the folder of the training it came from"
        )
    kind = find_scorer(metadata.scorer)
    autoencoder: Autoencoder | None = None
    if kind.needs_autoencoder:
        recipe = metadata.provenance.get("recipe", {})
        settings = NetworkSettings(dropout=recipe.get("dropout", 0.0))
        autoencoder = build_autoencoder(metadata.architecture, settings)
        folder.load_weights("autoencoder", autoencoder.model)
    return metadata, kind.restore(autoencoder, folder)


def _from_file(
    file: Path, architecture: str | None, *, has_threshold: bool
) -> tuple[ModelMetadata, ScoringFunction]:
    from training.fitting.run_folder import load_weights

    if architecture is None:
        raise AnomalyDetectorError(
            f"weights {file}: give --architecture, the network that they are of"
        )
    if not has_threshold:
        raise AnomalyDetectorError(
            f"weights {file} have no threshold: give --data RECORDING to calibrate, or --threshold"
        )
    autoencoder: Autoencoder = build_autoencoder(architecture)
    load_weights(file, autoencoder.model)
    metadata = ModelMetadata(
        name=file.stem,
        architecture=architecture,
        scorer=_SCORER,
        score_units=find_scorer(_SCORER).unit_on(architecture),
        threshold=0.0,
        calibration=Calibration("fixed"),
        provenance={"weights": file.name},
    )
    return metadata, reconstruction_scorer(autoencoder)


def _smooth_images(size: int) -> NDArray[np.uint8]:
    """Return gradients to compare both runtimes on, uint8 [4, size, size, 3]."""
    rows, columns = np.mgrid[0:size, 0:size] * 256 // size
    images = [np.stack([rows, columns, np.full_like(rows, 60 * i)], -1) for i in range(4)]
    return np.stack(images).astype(np.uint8)
