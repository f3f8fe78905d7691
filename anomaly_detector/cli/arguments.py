"""Options that several verbs share, each declared once."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import RegionOfInterest, parse_region
from anomaly_detector.images.mask import MaskSource
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View
from anomaly_detector.poses import POSE_SETTINGS, PoseSettings

REGION_HELP = "part of the frame to look at, X,Y,WIDTH,HEIGHT in pixels, 0 to the edge"
SCALING_HELP = (
    "values that become black and white, for depth and infrared (16UC1, 32FC1) and for 16-bit "
    "cameras of fewer bits"
)
MASK_HELP = (
    "picture of the frame's shape, white where the model is not to look: the robot's own bumper, a "
    "burnt-in clock, a screen"
)
POLYGON_HELP = (
    "the same by its corners, X,Y,X,Y,X,Y,... in pixels of the frame; several polygons are joined"
)


_SHARED: Mapping[str, Mapping[str, Any]] = {
    "--model": {"required": True, "help": "model file, or name of a shipped model"},
    "--topic": {"help": "image topic, for a bag with more than one"},
    "--threshold": {"type": float, "help": "instead of the model's own"},
    "--cache": {"type": Path, "help": "folder for resized frames (default ~/.cache)"},
    "--providers": {
        "nargs": "+",
        "metavar": "NAME",
        "help": "ONNX Runtime execution providers in order of preference, such as tensorrt cuda "
        "cpu (default: what is there of these; on a GPU experimental)",
    },
}


def add_shared(parser: argparse.ArgumentParser, *names: str) -> None:
    """Declare options that mean the same in every verb."""
    for name in names:
        parser.add_argument(name, **_SHARED[name])


def add_recordings(
    parser: argparse.ArgumentParser,
    name: str,
    purpose: str,
    *,
    required: bool = False,
    metavar: str = "RECORDING",
) -> None:
    """Declare an option that takes recordings and may be given several times."""
    parser.add_argument(
        name, nargs="+", action="extend", default=[], required=required, metavar=metavar,
        help=purpose,
    )  # fmt: skip


def parse_stretch(text: str) -> tuple[int, int]:
    """Return the first and last frame of ``A-B``, or of ``A`` for one frame.

    Raises:
        argparse.ArgumentTypeError: it is not that, or ends before it starts.
    """
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text)
    if match is None or int(match[1]) > int(match[2] or match[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no stretch of frames: give first and last, such as 324-369"
        )
    return int(match[1]), int(match[2] or match[1])


def add_exclude(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Declare the option that leaves stretches of a recording out."""
    parser.add_argument(
        "--exclude", type=parse_stretch, nargs="+", action="extend", default=[], metavar="A-B",
        help=f"{purpose}, numbers from 0, both ends included",
    )  # fmt: skip


def add_pose_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one option a field of :class:`~anomaly_detector.poses.PoseSettings`."""
    group = parser.add_argument_group("poses", "where the robot was, from a topic of the bag")
    for item in POSE_SETTINGS:
        group.add_argument(
            f"--pose-{item.name.replace('_', '-')}", type=type(item.default), default=item.default,
            help=item.description + (f" (default {item.default})" if item.default else ""),
            metavar=item.name.split("_")[-1].upper(),
        )  # fmt: skip


def pose_settings(arguments: argparse.Namespace) -> PoseSettings:
    """Return the settings that a command line with :func:`add_pose_arguments` has.

    Raises:
        AnomalyDetectorError: a value out of range.
    """
    return PoseSettings(*(getattr(arguments, f"pose_{item.name}") for item in POSE_SETTINGS))


def add_view_arguments(parser: argparse.ArgumentParser, default: str = "the model's") -> None:
    """Declare the options that say what a model sees of a frame."""
    parser.add_argument("--region", help=f"{REGION_HELP} (default: {default})")
    parser.add_argument(
        "--image-scaling", type=float, nargs=2, metavar=("MIN", "MAX"),
        help=f"{SCALING_HELP} (default: {default})",
    )  # fmt: skip


def add_mask_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say what a model does not look at."""
    parser.add_argument("--mask", type=Path, metavar="FILE", help=MASK_HELP)
    parser.add_argument(
        "--mask-polygon", nargs="+", action="extend", default=[], metavar="CORNERS",
        help=POLYGON_HELP,
    )  # fmt: skip


def given_mask(arguments: argparse.Namespace) -> MaskSource:
    """Return the mask that a command line with :func:`add_mask_arguments` states."""
    return MaskSource(arguments.mask, tuple(arguments.mask_polygon))


def view_of(arguments: argparse.Namespace) -> View:
    """Return the view that a command line with :func:`add_view_arguments` states.

    Raises:
        AnomalyDetectorError: no region, or no range of values.
    """
    return View(
        RegionOfInterest() if arguments.region is None else parse_region(arguments.region),
        None if arguments.image_scaling is None else ImageScaling(*arguments.image_scaling),
    )


def given_view(
    arguments: argparse.Namespace,
    model: Path,
    own: View = WHOLE_FRAME,
    verb: str = "calibrate",
) -> View:
    """Return what a command line has in place of a model's view; warn when it is another.

    Args:
        arguments: as for :func:`view_of`.
        model: the model file.
        own: in place of the model's where no option is given.
        verb: what the warning says is to be done to the model.

    Raises:
        AnomalyDetectorError: a value that cannot be, or the model cannot be read.
    """
    # Imported here: verbs without a model start without ONNX Runtime.
    from anomaly_detector.model.file import read_metadata

    view = view_of(arguments).over(own)
    metadata = read_metadata(model)
    if warning := metadata.view_warning(view.over(metadata.view), verb):
        print(f"warning: {warning}", file=sys.stderr)
    return view
