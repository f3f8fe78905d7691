"""``python -m anomaly_detector adapt``: a model and a drive of today in, a new model out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.black_box import find_events
from anomaly_detector.cli.arguments import add_recordings, add_shared
from anomaly_detector.cli.compare_models import conclude
from anomaly_detector.drawing.page import write_page
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.recordings import expand_sources
from training.adaptation.adapt import STEPS, AdaptOptions, adapt
from training.adaptation.changes import LIMITS, Changes
from training.evaluation.replacement import compare_to_old, held_out_past
from training.reports.changes import changes_page

Images: TypeAlias = NDArray[np.uint8]
Stretches: TypeAlias = Sequence[tuple[int, int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add = parser.add_argument
    add(
        "--model", required=True, metavar="FILE",
        help="model file, with the NAME.training folder of its training beside it",
    )  # fmt: skip
    purpose = "normal drives of today: image folders, bags or videos; a minute is enough"
    add_recordings(parser, "--data", purpose, required=True)
    add(
        "--out", "--output", type=Path, required=True, metavar="FILE",
        help="model file to write (.onnx)",
    )  # fmt: skip
    purpose = (
        "folders of the robot's black box: events judged normal join today's frames as with train, "
        "those judged anomalies are learned as anomalies, and the new model is compared to the old "
        "one on them, with exit code 1 when it is worse; or recordings of anomalies"
    )
    add_recordings(parser, "--events", purpose)
    add_shared(parser, "--topic", "--cache")
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


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code: 1 when the model is worse than the old one."""
    page = arguments.out.with_suffix(".changes.html")

    def write(changes: Changes, past: Images, today: Images, stretches: Stretches) -> None:
        content = changes_page(changes, past, today, stretches, arguments.accept_change)
        write_page(content, page)
        print(f"{page}: what has changed since the past")

    given = vars(arguments) | {"model": resolve_model(arguments.model), "on_compared": write}
    options = AdaptOptions(**given)
    adapt(options)
    boxes = [path for path in expand_sources(options.events) if find_events(Path(path))]
    if not boxes:
        return 0
    note = f"{options.out.name} has learnt all of today's drive: none of it is compared."
    past = held_out_past(options.model)
    return conclude(*compare_to_old(options.model, options.out, boxes, past, [note]))
