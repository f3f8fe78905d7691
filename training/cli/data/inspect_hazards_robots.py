"""The ``inspect-hazards-robots`` verb: what the loader finds in a copy of the data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.data.hazards_robots.loader import describe, load_hazards_robots


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`run`."""
    parser.add_argument("folder", type=Path, help="folder the data set was extracted to")


def run(arguments: argparse.Namespace) -> int:
    """Print the splits, classes and difficulty found, and how the metadata were taken.

    Raises:
        SourceError: see :func:`training.data.hazards_robots.loader.load_hazards_robots`.
    """
    print(describe(load_hazards_robots(arguments.folder)))
    return 0
