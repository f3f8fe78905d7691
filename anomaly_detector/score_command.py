"""``python -m anomaly_detector score``: a recording in, CSV files of scores and alarms out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from anomaly_detector.decision import add_decision_arguments, decision_settings
from anomaly_detector.detector import Detector
from anomaly_detector.resources import resolve_model
from anomaly_detector.scoring import write_scores
from anomaly_detector.sources import open_source

__all__ = ["add_arguments", "run"]

_MAX_NAMED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--model", required=True, help="model file, or name of a shipped model")
    parser.add_argument(
        "--input", required=True, metavar="SOURCE", help="image folder, bag or video to score"
    )
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--events", type=Path, help="CSV file for the alarms, one row each")
    parser.add_argument("--topic", help="image topic, for a bag with more than one")
    parser.add_argument(
        "--fps", type=float, help="frames a second of an image folder, which has no time stamps"
    )
    parser.add_argument("--threshold", type=float, help="instead of the model's own")
    parser.add_argument("--providers", nargs="+", help="ONNX Runtime execution providers, in order")
    add_decision_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command line; gives the exit code."""
    decision = decision_settings(arguments)
    source = open_source(arguments.input, arguments.topic)
    detector = Detector(
        resolve_model(arguments.model),
        providers=arguments.providers,
        threshold=arguments.threshold,
    )
    summary = write_scores(
        detector,
        source,
        arguments.output,
        decision=decision,
        events=arguments.events,
        fps=arguments.fps,
    )
    for item in source.unreadable[:_MAX_NAMED]:
        print(f"warning: {item.name} skipped: {item.reason}", file=sys.stderr)
    if summary.unreadable > _MAX_NAMED:
        print(f"warning: {summary.unreadable - _MAX_NAMED} more skipped", file=sys.stderr)
    print(
        f"{arguments.output}: {summary.scored} frames scored, {summary.flagged} anomalous at "
        f"threshold {detector.threshold:.6g}, {summary.alarms} alarms, "
        f"{summary.unreadable} unreadable"
    )
    return 0
