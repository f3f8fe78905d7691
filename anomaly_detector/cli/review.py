"""``python -m anomaly_detector review``: a web page to look at recorded events and judge them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.review.server import Review, ReviewOptions, is_loopback, serve

_MOST_WARNINGS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add = parser.add_argument
    add(
        "folders", nargs="+", type=Path, metavar="FOLDER",
        help="folders of the robot's black box, or single events",
    )  # fmt: skip
    add(
        "--model",
        help="model file, or name of a shipped model, for overlays, likeness and the nearest "
        "normal frame",
    )  # fmt: skip
    add(
        "--scores", nargs="+", type=Path, default=[], metavar="TABLE",
        help="tables that 'score --output' wrote of drives, to try a threshold on",
    )  # fmt: skip
    add(
        "--map", type=Path, metavar="YAML",
        help="yaml file of a ROS map, to draw the plan of the events on",
    )  # fmt: skip
    add(
        "--host", default="127.0.0.1",
        help="address to listen on (default %(default)s, this machine alone); there is no password",
    )  # fmt: skip
    add("--port", type=int, default=8765, help="port, 0 for a free one (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    model = None if arguments.model is None else resolve_model(arguments.model)
    if not is_loopback(arguments.host):
        print(
            f"warning: whoever reaches {arguments.host} can see the pictures and judge them",
            file=sys.stderr,
        )
    options = ReviewOptions(
        arguments.folders, model, arguments.scores, arguments.map, arguments.host, arguments.port
    )

    def on_ready(address: str, review: Review) -> None:
        count = len(review.catalog.entries)
        for path, reason in [] if count else review.catalog.problems[:_MOST_WARNINGS]:
            print(f"warning: {path}: {reason}", file=sys.stderr)
        print(f"{address}  {count} events, Ctrl-C ends it", flush=True)

    serve(options, on_ready)
    return 0
