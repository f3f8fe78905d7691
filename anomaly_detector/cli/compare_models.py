"""``python -m anomaly_detector compare-models``: may a new model take the place of an old one?"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomaly_detector.alarms.alarm_filter import add_alarm_arguments, alarm_settings
from anomaly_detector.cli.arguments import add_recordings, add_shared
from anomaly_detector.drawing.page import Section, import_jinja2
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory, check_output_folder, printable
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import expand_sources, open_source
from anomaly_detector.review.comparison import (
    Case,
    Comparison,
    Judged,
    compare_models,
    judged_events,
)
from anomaly_detector.review.comparison_page import write_comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add = parser.add_argument
    add("--old", required=True, help="model file, or name of a shipped model, that is in use")
    add("--new", required=True, help="model file that is to take its place")
    purpose = "normal drives that neither model was trained on: image folders, bags or videos"
    add_recordings(parser, "--normal", purpose)
    purpose = "folders of the robot's black box with events that people have judged"
    add_recordings(parser, "--events", purpose, metavar="FOLDER")
    add(
        "--out", "--output", required=True, type=Path, metavar="DIR",
        help="new folder for comparison.json and report.html",
    )  # fmt: skip
    add_shared(parser, "--topic")
    add("--fps", type=float, help="frames a second of an image folder, which has no time stamps")
    add_shared(parser, "--providers")
    add_alarm_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code: 1 when the new model is worse."""
    comparison = compared(arguments)
    write(comparison, arguments.out)
    return conclude(comparison, arguments.out / "report.html")


def compared(arguments: argparse.Namespace) -> Comparison:
    """Compare the two models of a command line.

    Raises:
        AnomalyDetectorError: an option, a model or a recording is at fault.
    """
    import_jinja2()
    check_output_folder(arguments.out)
    settings = alarm_settings(arguments)
    if not arguments.normal and not arguments.events:
        raise AnomalyDetectorError("nothing to compare on: give --events FOLDER, --normal DRIVE")
    old, new = (
        Detector(model, providers=arguments.providers) for model in (arguments.old, arguments.new)
    )
    if old.path.samefile(new.path):
        raise AnomalyDetectorError(f"--old and --new are the same file, {old.path}: give two")
    judged = Judged([], Counter())
    if arguments.events:
        judged = judged_events(expand_sources(arguments.events), settings)
        print(judged, flush=True)
    drives = []
    for path in expand_sources(arguments.normal):
        source = open_source(path, arguments.topic)
        drives.append(Case(printable(source.path.name), "drive", source, source, settings=settings))
    return compare_models(old, new, judged, drives, fps=arguments.fps)


def write(
    comparison: Comparison,
    folder: Path,
    more: Sequence[Section] = (),
    figures: Mapping[str, Any] | None = None,
) -> None:
    """Write comparison.json and report.html into a new folder, both or none."""
    with atomic_directory(folder) as temporary:
        page, table = temporary / "report.html", temporary / "comparison.json"
        write_comparison(comparison, page, table, more, figures)


def conclude(comparison: Comparison, page: Path) -> int:
    """Print the result, and return the exit code: 1 when the new model is worse."""
    for note in comparison.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(comparison.verdict)
    print(f"report: {page}")
    return 1 if comparison.failures else 0
