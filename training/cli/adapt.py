"""``python -m training adapt``: a trained model and a drive of today in, a new model out."""

from __future__ import annotations

import argparse
from pathlib import Path

from anomaly_detector.model.shipped import resolve_model
from training.adaptation.adapt import STEPS, AdaptOptions, adapt
from training.adaptation.changes import LIMITS
from training.config.options import DEVICES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add = parser.add_argument
    add(
        "--model", required=True, metavar="FILE",
        help="model file, with the NAME.training folder of its training beside it",
    )  # fmt: skip
    add(
        "--data", nargs="+", required=True, metavar="SOURCE",
        help="normal drives of today: image folders, bags or videos; a minute is enough",
    )  # fmt: skip
    add("--out", type=Path, required=True, metavar="FILE", help="model file to write (.onnx)")
    add(
        "--events", nargs="+", default=[], metavar="FOLDER",
        help="folders of the robot's black box: frames of their alarms are learned as anomalies",
    )  # fmt: skip
    add("--topic", help="image topic, for a bag with more than one")
    add(
        "--steps", type=int, default=STEPS, metavar="N",
        help="steps of fine-tuning, of 48 frames a step (default %(default)s)",
    )  # fmt: skip
    add(
        "--false-alarm-rate", type=float, metavar="SHARE",
        help="share of normal frames to be flagged (default: the model's)",
    )  # fmt: skip
    add(
        "--accept-change", nargs="+", default=[], choices=[*LIMITS], metavar="CHANGE",
        help="changes since the past that would be refused as faults, but are none: "
        f"{', '.join(LIMITS)}",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="makes the run repeatable (default %(default)s)")
    add(
        "--resume", action="store_true",
        help="go on from the last checkpoint of an adaptation that was cut off, if there is one",
    )  # fmt: skip
    add("--device", choices=DEVICES, default="auto", help="where to compute (default %(default)s)")
    add("--cache", type=Path, metavar="FOLDER", help="folder for resized frames (default ~/.cache)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    adapt(AdaptOptions(**vars(arguments) | {"model": resolve_model(arguments.model)}))
    return 0
