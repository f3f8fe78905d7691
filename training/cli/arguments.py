"""Options that several verbs of training share, each declared once; see also the robot side's."""

from __future__ import annotations

import argparse
from pathlib import Path

from anomaly_detector.errors import AnomalyDetectorError
from training.evaluation.bootstrap import DEFAULT_BLOCK


def add_report_argument(parser: argparse.ArgumentParser, files: str) -> None:
    """Declare the folder that a report is written into; ``files`` are named in the help."""
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help=f"new folder for {files}"
    )


def add_bootstrap_arguments(parser: argparse.ArgumentParser, seed: str) -> None:
    """Declare the options of the intervals; ``seed`` is the help of its option."""
    parser.add_argument(
        "--bootstrap", type=int, default=1000, metavar="N",
        help="resamples for the 95 %% intervals, 0 for none (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--block", type=int, default=DEFAULT_BLOCK, metavar="FRAMES",
        help="consecutive frames that are resampled together, since neighbours look alike; "
        "1 for unrelated pictures (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help=f"{seed} (default: %(default)s)")


def check_bootstrap(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be.

    Raises:
        AnomalyDetectorError: an option of :func:`add_bootstrap_arguments` is too small.
    """
    for name, least in (("seed", 0), ("bootstrap", 0), ("block", 1)):
        if (value := getattr(arguments, name)) < least:
            raise AnomalyDetectorError(f"--{name} is {value}: give {least} or more")
