"""``python -m training compare-models``: the robot side's, with injected faults if wanted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from anomaly_detector.cli import compare_models
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import Frame, expand_sources, open_source
from training.evaluation.faults import FAULT_SETS
from training.evaluation.stress import StressResult, numbered_frames, run_stress
from training.reports.stress import recall_comparison

_APART = 2
"""Numbers of frames left out between two drives, which are no neighbours."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    compare_models.add_arguments(parser)
    parser.add_argument(
        "--stress", nargs="?", const="full", choices=list(FAULT_SETS), metavar="SET",
        help="also put faults on the frames of --normal, and compare how many either model flags: "
        "full (the default) or reference, as in 'stress'; takes as long as that for each model",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code: 1 when the new model is worse.

    Raises:
        AnomalyDetectorError: as on the robot side, or --stress without normal drives.
    """
    if arguments.stress and not arguments.normal:
        raise AnomalyDetectorError("--stress puts faults on normal frames: give --normal DRIVE")
    comparison = compare_models.compared(arguments)
    page = arguments.out / "report.html"
    if not arguments.stress:
        compare_models.write(comparison, arguments.out)
        return compare_models.conclude(comparison, page)
    old, new = (_stressed(arguments, model) for model in (arguments.old, arguments.new))
    stress = {
        "set": arguments.stress,
        "old": old.recall.to_dict(),
        "new": new.recall.to_dict(),
        "faults": [
            {"fault": before.fault.name, "old": before.recall, "new": now.recall}
            for before, now in zip(old.faults, new.faults, strict=True)
        ],
    }
    compare_models.write(
        comparison, arguments.out, [recall_comparison(old, new)], {"stress": stress}
    )
    print(f"stress recall: {old.recall} before, {new.recall} now", flush=True)
    return compare_models.conclude(comparison, page)


def _stressed(arguments: argparse.Namespace, model: str | Path) -> StressResult:
    detector = Detector(model, providers=arguments.providers)
    sources = [open_source(path, arguments.topic) for path in expand_sources(arguments.normal)]

    def frames() -> Iterator[tuple[int, Frame]]:
        first = 0
        for source in sources:
            for number, frame in numbered_frames(source, detector.view):
                yield first + number, frame
            first += len(source) + _APART

    return run_stress(
        detector, frames(), FAULT_SETS[arguments.stress], total=sum(map(len, sources))
    )
