"""Adapt a model to one drive after another, and test it on all of them: what does it forget?

The model is trained on the first drive of a place and adapted with the first seconds of each later
one, in turn. Each drive is tested twice: with the model that has just learnt it, and with the last
one. The part that was adapted to does not count; of the first drive, all frames were trained on.

    python -m benchmarks.week --shared ../shared/data --out build/drives

It shares models and frames with ``benchmarks.drives``, and goes on after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_detector.files import atomic_path
from anomaly_detector.model.detector import Detector
from benchmarks.common import print_table, resumable, row_options
from benchmarks.drives import NONE, WAYS, Row, folder_of, measure, run_apart, train_row
from benchmarks.places import PLACES, Drive, read_drive
from training.config.options import DEFAULT_SCORER
from training.scorers.options import resolve_options


def week(place: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of each drive of a place: just learnt, and at the end.

    Raises:
        AnomalyDetectorError: the data are not there, or a step failed.
    """
    frames = arguments.out / "frames"
    drives = [read_drive(arguments.shared, place, name, frames) for name in PLACES[place]]
    row = Row((drives[0],), drives[1], DEFAULT_SCORER, 0, NONE, 0, arguments.test_frames)
    given = {"data": (), "out": Path(), "scorer": DEFAULT_SCORER, "seed": 0, "resume": True}
    options = resolve_options(given | {"progress": sys.stderr.isatty()})
    models = [train_row(row, options, None, arguments.out)]
    for number, drive in enumerate(drives[1:], 1):
        name = f"week_{number}_{drive.name}_{arguments.seconds}s.onnx"
        model = arguments.out / "week" / place / name
        if not model.is_file():
            first = folder_of(arguments.out, drive, drive.frames_of(arguments.seconds))
            run_apart(WAYS["adapt"], models[-1], first, model)
        models.append(model)
    return [
        {"drive": drive.name}
        | {
            when: _measured(model, drive, number, arguments)
            for when, model in (("learnt", models[number]), ("last", models[-1]))
        }
        for number, drive in enumerate(drives)
    ]


def _measured(
    model: Path, drive: Drive, number: int, arguments: argparse.Namespace
) -> dict[str, float]:
    name = f"{model.stem}_on_{drive.name}_{arguments.test_frames}frames.json"
    file = arguments.out / "week" / drive.place / name
    if not file.is_file():
        start = drive.frames_of(arguments.seconds) if number else 0
        with Detector(model) as detector:
            figures = measure(detector, drive, start, arguments.test_frames)
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    figures = json.loads(file.read_text(encoding="utf-8"))
    found = {"flagged": figures["normal_flagged"]}
    for family in ("stress", "unseen"):
        own = [fault for fault in figures["faults"].values() if fault["family"] == family]
        found[family] = float(np.mean([fault["roc_auc"] for fault in own]))
    return found


def main() -> int:
    """Run the command line and return the exit code.

    Raises:
        AnomalyDetectorError: the data are not there, or a step failed.
    """
    parser = row_options(__doc__)
    add = parser.add_argument
    several = [place for place, drives in PLACES.items() if len(drives) > 2]
    text = f"of {', '.join(several)} (default: the first)"
    add("--places", nargs="+", choices=several, default=several[:1], metavar="PLACE", help=text)
    add("--seconds", type=int, default=60, help="of each drive to adapt with (%(default)s)")
    add("--test-frames", type=int, default=60, help="frames with each fault (%(default)s)")
    arguments = parser.parse_args()
    names = ("flagged", "last", "stress", "last", "unseen", "last")
    rows = (
        (place, row["drive"], *cells(row))
        for place in arguments.places
        for row in week(place, arguments)
    )
    print_table(("place", "drive", *names), rows)
    return 0


def cells(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures of a drive as text."""
    for figure, text in (("flagged", ".1%"), ("stress", ".3f"), ("unseen", ".3f")):
        for when in ("learnt", "last"):
            yield f"{row[when][figure]:{text}}"


if __name__ == "__main__":
    sys.exit(resumable(main))
