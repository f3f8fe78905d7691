"""``python -m training check``: a look at a drive before training."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from anomaly_detector.cli.arguments import (
    add_mask_arguments,
    add_shared,
    add_view_arguments,
    given_mask,
    view_of,
)
from anomaly_detector.drawing.page import import_jinja2, write_page
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import check_output_file
from anomaly_detector.images.mask import Mask
from anomaly_detector.recordings import expand_sources, frame_size
from anomaly_detector.recordings.base import check_fps
from training.config.options import DEFAULT_SCORER
from training.data.check import check_drive
from training.data.frames import exclude, open_frame_set
from training.data.opening import open_recording
from training.networks.efficientnet import open_imagenet
from training.reports.check import check_page
from training.scorers.registry import find_scorer

LOOK_FIRST = 3
"""Exit code when there is a reason to look before training."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "data", nargs="+", metavar="RECORDING",
        help="normal drives, as for train: image folders, bags or videos",
    )  # fmt: skip
    add_shared(parser, "--topic")
    add_view_arguments(parser, "all of the frame; the encoding's range")
    add_mask_arguments(parser)
    parser.add_argument(
        "--fps", type=float, help="frames a second of an image folder, which has no time stamps"
    )
    parser.add_argument(
        "--exclude", nargs="+", action="extend", default=[], metavar="A-B",
        help="frames that are used for nothing, as for train",
    )  # fmt: skip
    add_shared(parser, "--cache")
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="page to write (.html; default: NAME.check.html in this folder)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code: 3 when there is a reason to look first.

    Raises:
        AnomalyDetectorError: a recording or an option is at fault; no page is written.
    """
    import_jinja2()
    check_fps(arguments.fps)
    sources = expand_sources(arguments.data)
    # The size that the default of train looks at, so that it finds the frames in the cache.
    view = replace(view_of(arguments), size=find_scorer(DEFAULT_SCORER).input_size)
    if arguments.out is not None:
        check_output_file(arguments.out)
    frames = open_frame_set(sources, arguments.topic, view=view, cache=arguments.cache)
    page = arguments.out or Path(f"{frames.parts[0].source.stem}.check.html")
    frames = exclude(frames, arguments.exclude)
    if mask_source := given_mask(arguments):
        size = frame_size(open_recording(sources[0], arguments.topic), view)
        frames = frames.masked(Mask(mask_source.ignored(*size, view)))
    encode, unseen = None, ""
    try:
        encode = open_imagenet()
    except AnomalyDetectorError as error:
        unseen = f"small things are not looked for: {error}"
    check = check_drive(frames, fps=arguments.fps, encode=encode)
    write_page(check_page(check, frames), page)
    print(check.verdict)
    for finding in check.findings:
        print(f"- {finding.what}: {finding.advice}")
    if unseen:
        print(unseen)
    print(f"usable: {check.usable} of {check.length}")
    print(f"report: {page}")
    return 0 if check.is_good else LOOK_FIRST
