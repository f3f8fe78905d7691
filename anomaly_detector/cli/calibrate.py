"""``python -m anomaly_detector calibrate``: a model and a normal drive in, a new model file out.

Another camera, building or season moves the scores of normal frames. The network stays; the
threshold, the scale of the normalised score and the metadata's calibration are replaced. That needs
the package ``onnx``, but neither TensorFlow nor the training data.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import anomaly_detector
from anomaly_detector.alarms.calibration import (
    calibrate_threshold,
    calibration_shortfall,
    describe_calibration,
)
from anomaly_detector.cli.arguments import add_view_arguments, given_view
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import check_output_file
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.editing import write_with_metadata
from anomaly_detector.model.fingerprint import find_trained, trained_warning
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.normalization import import_onnx
from anomaly_detector.model.shipped import MODEL_SUFFIX, resolve_model
from anomaly_detector.recordings import FrameSource, count_frames, open_source, warn_unreadable


@dataclass(frozen=True)
class CalibrateOptions:
    """What to calibrate and how.

    Attributes:
        model: the model file to start from.
        data: recordings of normal frames that the model was not trained on.
        output: the model file to write.
        topic: image topic of bags with several.
        view: overrides the model's, in the new file too.
        false_alarm_rate: wanted share of normal frames at or above the threshold.
        exclude: first and last frame of stretches to leave out, counted from 0 over the readable
            frames of the one recording.
        force: the output may be the model itself.
        progress: show progress bars.
    """

    model: Path
    data: Sequence[str]
    output: Path
    topic: str | None = None
    view: View = WHOLE_FRAME
    false_alarm_rate: float = 0.01
    exclude: Sequence[tuple[int, int]] = ()
    force: bool = False
    progress: bool = True


def calibrate(options: CalibrateOptions) -> ModelMetadata:
    """Recalibrate a model and write it to a new file.

    Returns:
        The metadata of the new file.

    Raises:
        AnomalyDetectorError: a recording, an option or the model is at fault; nothing is written.
    """
    _check(options)
    import_onnx()  # said before an hour of scoring
    sources = [open_source(path, options.topic) for path in options.data]
    detector = Detector(options.model, view=options.view)
    old = detector.metadata
    trained_on = find_trained(sources, old)
    warning = trained_warning(
        trained_on,
        "a threshold from trained frames is too low and gives more false alarms than asked for: "
        "calibrate on another normal drive",
    )
    if warning and options.progress:
        print(warning, flush=True)
    parts = [_scores(detector, source, options.progress) for source in sources]
    for source in sources:
        warn_unreadable(source.path, source.unreadable)
    scores = np.concatenate(parts)
    used = _without(scores, options.exclude, options.data)
    threshold, calibration = calibrate_threshold(used, options.false_alarm_rate)
    entry: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        # Where a recording lay is nobody's business; its name is.
        "data": [Path(path).name for path in options.data],
        "frames": {
            "recorded": len(scores),
            "unreadable": sum(count_frames(source.unreadable) for source in sources),
            "calibration": len(used),
        },
        "trained_on": [item.trained_as for item in trained_on],
        "exclude": [list(stretch) for stretch in options.exclude],
        "previous_name": old.name,
        "previous_threshold": old.threshold,
        "version": anomaly_detector.__version__,
    }
    history = [*old.provenance.get("recalibrated", []), entry]
    new = replace(
        old.with_threshold(threshold, calibration).with_view(detector.view),
        name=options.output.stem,
        provenance={**old.provenance, "recalibrated": history},
    )
    write_with_metadata(options.model, new, options.output)
    return new


def _check(options: CalibrateOptions) -> None:
    if options.output.suffix != MODEL_SUFFIX:
        raise AnomalyDetectorError(
            f"--output {options.output} does not end with {MODEL_SUFFIX}: name an ONNX file"
        )
    if not options.force and options.output.resolve() == options.model.resolve():
        raise AnomalyDetectorError(
            f"--output {options.output} is the model itself: name another file, or give --force "
            "to replace it"
        )
    if not 0.0 < options.false_alarm_rate < 1.0:
        raise AnomalyDetectorError(
            f"false alarm rate is {options.false_alarm_rate}: give a share such as 0.01"
        )
    if options.exclude and len(options.data) > 1:
        raise AnomalyDetectorError(
            f"--exclude counts the frames of one recording, --data gives {len(options.data)}: "
            "calibrate with one"
        )
    check_output_file(options.output)


def _scores(detector: Detector, source: FrameSource, progress: bool) -> NDArray[np.float32]:
    bar = tqdm(
        detector.stream(source),
        f"scoring {source.path.name}",
        len(source),
        unit="frame",
        disable=not progress,
    )
    return np.array([detection.score for _, detection in bar], np.float32)


def _without(
    scores: NDArray[np.float32], exclude: Sequence[tuple[int, int]], data: Sequence[str]
) -> NDArray[np.float32]:
    kept = np.ones(len(scores), bool)
    for first, last in exclude:
        if last >= len(scores):
            raise AnomalyDetectorError(
                f"--exclude {first}-{last}: {data[0]} has the frames 0 to {len(scores) - 1}"
            )
        kept[first : last + 1] = False
    if not kept.any():
        raise AnomalyDetectorError(
            f"--exclude leaves no frame of {data[0]}: keep some to calibrate with"
        )
    return scores[kept]


def _stretch(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no stretch of frames: give first and last, such as 120-180"
        )
    return int(match[1]), int(match[2])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--model", required=True, help="model file, or name of a shipped model")
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="SOURCE",
        help="normal drives the model was not trained on: image folders, bags or videos",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="model file to write (.onnx)")
    parser.add_argument("--topic", help="image topic, for a bag with more than one")
    add_view_arguments(parser)
    parser.add_argument(
        "--false-alarm-rate", type=float, default=0.01, metavar="SHARE",
        help="share of normal frames to be flagged (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--exclude", type=_stretch, nargs="+", default=[], metavar="A-B",
        help="stretches of frames to leave out, numbers from 0, both ends included",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="--output may be the model itself")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    model = resolve_model(arguments.model)
    given = vars(arguments) | {"model": model, "view": given_view(arguments, model)}
    del given["region"], given["image_scaling"]
    metadata = calibrate(CalibrateOptions(**given))
    calibration = metadata.calibration
    entry = metadata.provenance["recalibrated"][-1]
    shortfall = calibration_shortfall(calibration)
    if shortfall is not None:
        print(f"warning: {shortfall}", file=sys.stderr)
    print(
        f"{arguments.output}: {describe_calibration(metadata.threshold, calibration)}, "
        f"was {entry['previous_threshold']:.6g}"
    )
    return 0
