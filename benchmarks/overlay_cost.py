"""Time the overlay picture of the node, and draw the one in docs/seeing-it-live.md.

    python -m benchmarks.overlay_cost
    python -m benchmarks.overlay_cost --picture docs/images/overlay.png

The frames are those of the synthetic corridor, the model is the one that models/ ships.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmFilter
from anomaly_detector.drawing.overlay import draw_overlay
from anomaly_detector.files import atomic_path
from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.model.shipped import share_path
from benchmarks.common import print_table
from training.data.corridor import HAZARD_LABELS, CorridorDrive

SIZES = ((160, 120), (640, 480), (1280, 720), (1920, 1080), (1080, 1920))
ROUNDS = 200
FRAMES = 400
NORMAL, HAZARD = 10, 135
SHOWN = (NORMAL, 156, HAZARD)
"""A normal frame, the first frames of an anomaly, and an alarm."""

Frame = tuple[Image, Detection, bool]


def score_drive(detector: Detector) -> dict[int, Frame]:
    """Return the frames :data:`SHOWN` of a drive with hazards, with their results and alarms."""
    drive = CorridorDrive(FRAMES, 0, hazards=tuple(HAZARD_LABELS))
    alarms = AlarmFilter()
    frames = {}
    for index in range(max(SHOWN) + 1):
        pixels = Image(drive[index].image, "rgb")
        result = detector.detect(pixels)
        state = alarms.update(result)
        if index in SHOWN:
            frames[index] = pixels, result, state.is_alarm
    return frames


def draw(frame: Frame, **options: Any) -> NDArray[np.uint8]:
    """Draw the overlay of one frame, as the node does."""
    pixels, result, is_alarm = frame
    return draw_overlay(pixels, result, is_alarm=is_alarm, **options)


def cell(frame: Frame, width: int, height: int) -> str:
    """Return the median and the 99th percentile of the time for one overlay of that size."""
    pixels, result, is_alarm = frame
    array = np.asarray(cv2.resize(pixels.array, (width, height)), np.uint8)
    sized = Image(array, "rgb"), result, is_alarm
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        draw(sized)
        times.append(1e3 * (time.perf_counter() - start))
    return f"{np.median(times):.2f} / {np.quantile(times, 0.99):.2f} ms"


def main() -> None:
    """Print the table, or write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="write the picture of the docs and stop")
    arguments = parser.parse_args()
    detector = Detector(share_path("models", "corridor.onnx"), providers=["CPUExecutionProvider"])
    frames = score_drive(detector)
    if arguments.picture is not None:
        pictures = [draw(frames[index], max_side=320) for index in SHOWN]
        gap = np.full((pictures[0].shape[0], 6, 3), 255, np.uint8)
        row = [pictures[0], gap, pictures[1], gap, pictures[2]]
        with atomic_path(arguments.picture) as temporary:
            cv2.imwrite(str(temporary), np.hstack(row), [cv2.IMWRITE_PNG_COMPRESSION, 9])
        return
    cv2.setNumThreads(1)
    print_table(
        ("frame", "normal, p50 / p99", "with a hazard, p50 / p99"),
        (
            (f"{width}x{height}", *(cell(frames[i], width, height) for i in (NORMAL, HAZARD)))
            for width, height in SIZES
        ),
    )


if __name__ == "__main__":
    main()
