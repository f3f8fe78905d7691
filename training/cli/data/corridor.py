"""``python -m training corridor``: a synthetic patrol drive as images, labels and a bag."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from tqdm import tqdm

from anomaly_detector.images.image import to_rgb
from anomaly_detector.recordings import ImageFolderSource
from training.data.bags import IMAGE_TOPIC, StampedImage, write_image_bag
from training.data.corridor import HAZARD_LABELS, CorridorDrive, write_drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must be new")
    parser.add_argument("--frames", type=int, required=True, help="length of the drive")
    parser.add_argument("--seed", type=int, default=0, help="which corridor (default %(default)s)")
    parser.add_argument(
        "--drive", type=int, default=0,
        help="which drive through it: sway, exposure and noise differ (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--hazards", nargs="*", default=[], metavar="NAME",
        help="hazards to meet on the way, or 'all'; known are " + ", ".join(HAZARD_LABELS),
    )  # fmt: skip
    parser.add_argument("--width", type=int, default=640, help="default %(default)s")
    parser.add_argument("--height", type=int, default=480, help="default %(default)s")
    parser.add_argument("--fps", type=float, default=20.0, help="default %(default)s")
    parser.add_argument(
        "--bag", nargs="?", const="raw", choices=("raw", "compressed"),
        help=f"also write OUT/bag, a rosbag2 with the frames on {IMAGE_TOPIC}, raw (the default) "
        "or compressed",
    )  # fmt: skip
    parser.add_argument(
        "--bag-storage", choices=("sqlite3", "mcap"), default="sqlite3", help="default %(default)s"
    )
    parser.add_argument("--workers", type=int, help="render processes (default: one per core)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    hazards = list(HAZARD_LABELS) if arguments.hazards == ["all"] else arguments.hazards
    drive = CorridorDrive(
        arguments.frames,
        arguments.seed,
        drive=arguments.drive,
        hazards=hazards,
        width=arguments.width,
        height=arguments.height,
        fps=arguments.fps,
    )
    write_drive(drive, arguments.out, workers=arguments.workers)
    print(f"{arguments.out}: {len(drive)} frames and labels.csv")
    if arguments.bag:
        bag = write_drive_bag(
            arguments.out,
            compressed=arguments.bag == "compressed",
            storage=arguments.bag_storage,
        )
        print(f"{bag}: the same frames as a rosbag2")
    return 0


def write_drive_bag(folder: Path, *, compressed: bool = False, storage: str = "sqlite3") -> Path:
    """Write the frames of a rendered drive's folder into ``folder/bag``.

    The bag gets the frames as the JPEG files hold them, so that scoring the folder and scoring the
    bag give the same.

    Returns:
        The bag's folder.
    """
    with (folder / "labels.csv").open(newline="") as file:
        stamps = {row["frame"]: int(row["stamp_ns"]) for row in csv.DictReader(file)}
    frames = (
        StampedImage(stamps[frame.name], to_rgb(frame.pixels))
        for frame in tqdm(ImageFolderSource(folder), "writing bag", len(stamps), unit="frame")
    )
    bag = folder / "bag"
    write_image_bag(bag, frames, compressed=compressed, storage=storage)
    return bag
