"""Make the pictures of the review page in ``docs/images``, with a headless Chromium.

    python -m benchmarks.review_pictures --out docs/images

The events are those of the shipped model on a drive through the synthetic corridor.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from anomaly_detector.black_box import Verdict, find_events, write_verdict
from anomaly_detector.cli.main import main as robot_side
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from benchmarks.common import options, run
from training.cli.main import main as training

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_DRIVE = (
    *("--drive", "2", "--frames", "600", "--width", "320", "--height", "240"),
    *("--hazards", "boxes", "human", "trolley", "cones"),
    *("--bag", "compressed", "--bag-storage", "mcap"),
)
_WINDOW = (1000, 720)
_VIEWS = {"review_list": 370, "review_event": 720}
"""Pictures, and how much of the window's height they show."""

_QUALITY = 80


def _screenshot(browser: str, url: str, picture: Path, folder: Path) -> None:
    """Write what a browser shows of an address, once its pictures are there."""
    raw = folder / "screen.png"
    width, height = _WINDOW
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
    command += ["--virtual-time-budget=8000", f"--screenshot={raw}", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    image = cv2.imread(str(raw)) if raw.exists() else None
    if image is None:
        raise AnomalyDetectorError(f"{browser} made no picture: {done.stderr[-300:]}")
    raw.unlink()
    image = image[: _VIEWS[picture.stem]]
    with atomic_path(picture) as temporary:
        temporary.write_bytes(
            bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
        )


def make_pictures(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], bool]:
    """Record events, judge some of them, and make the pictures; return their sizes."""
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise AnomalyDetectorError(f"none of {', '.join(_BROWSERS)} is here: install one")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drive, box = folder / "patrol", folder / "black_box"
        training(["corridor", "--out", str(drive), *_DRIVE])
        score = ["score", "--model", "corridor", "--input", str(drive / "bag")]
        robot_side([*score, "--output", str(folder / "scores.csv"), "--events-dir", str(box)])
        events = find_events(box)
        for event, verdict in zip(events, ("anomaly", "normal"), strict=False):
            write_verdict(event, Verdict(verdict))
        command = [sys.executable, "-m", "anomaly_detector", "review", str(box)]
        command += ["--model", "corridor", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().split()[0]
                with urllib.request.urlopen(f"{url}api/events") as answer:
                    found = json.load(answer)["events"]
                highest = max(found, key=lambda event: event["score"])
                for view, picture in zip(("", f"/{highest['id']}"), _VIEWS, strict=True):
                    file = arguments.out / f"{picture}.jpg"
                    _screenshot(browser, f"{url}#/events{view}", file, folder)
            finally:
                process.terminate()
    sizes = {path.name: path.stat().st_size for path in sorted(arguments.out.glob("review_*.jpg"))}
    print("\n".join(f"{arguments.out / name}: {size} bytes" for name, size in sizes.items()))
    return {"bytes": sizes}, bool(events)


def main() -> int:
    """Run the command line and return the exit code."""
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the pictures")
    return run(parser, make_pictures)


if __name__ == "__main__":
    sys.exit(main())
