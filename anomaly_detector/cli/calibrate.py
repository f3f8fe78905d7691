"""``python -m anomaly_detector calibrate``: a model and a normal drive in, a new model file out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from anomaly_detector.alarms.calibration import calibration_shortfall, describe_calibration
from anomaly_detector.alarms.recalibration import recalibrate
from anomaly_detector.cli.arguments import (
    add_exclude,
    add_mask_arguments,
    add_recordings,
    add_shared,
    add_view_arguments,
    given_mask,
    given_view,
)
from anomaly_detector.model.shipped import resolve_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add_shared(parser, "--model")
    purpose = "normal drives the model was not trained on: image folders, bags or videos"
    add_recordings(parser, "--data", purpose, required=True)
    parser.add_argument(
        "--output", "--out", type=Path, required=True, help="model file to write (.onnx)"
    )
    add_shared(parser, "--topic")
    add_view_arguments(parser)
    add_mask_arguments(parser)
    parser.add_argument(
        "--false-alarm-rate", type=float, default=0.01, metavar="SHARE",
        help="share of normal frames to be flagged (default %(default)s)",
    )  # fmt: skip
    add_exclude(parser, "stretches of frames to leave out")
    parser.add_argument("--force", action="store_true", help="--output may be the model itself")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    model = resolve_model(arguments.model)
    given = vars(arguments) | {
        "model": model,
        "view": given_view(arguments, model, verb="train"),
        "mask": given_mask(arguments),
    }
    del given["region"], given["image_scaling"], given["mask_polygon"]
    metadata = recalibrate(**given)
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
