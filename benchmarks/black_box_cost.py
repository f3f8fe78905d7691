"""What a frame costs the caller of the black box, for the table in docs/black-box.md.

    python -m benchmarks.black_box_cost

Frames come at 30 Hz; an alarm is on all the time, so that frames are also encoded and written
meanwhile.
"""

from __future__ import annotations

import tempfile
import time

import cv2
import numpy as np

from anomaly_detector.alarms.alarm_filter import AlarmState
from anomaly_detector.black_box import BlackBox, BlackBoxFrame, BlackBoxSettings, EncodedPicture
from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detection

SECONDS = 20.0
FPS = 30
SIZES = ((640, 480), (1920, 1080))


def measure(picture: Image | EncodedPicture) -> tuple[list[float], list[float], int]:
    """Return microseconds of each ``add``, of frames not recorded and recorded; frames dropped."""
    costs: tuple[list[float], list[float]] = ([], [])
    score = Detection(1.5, 0.75, 1.0, True, np.zeros((32, 32), np.float32), 1.0)
    state = AlarmState(True, False, None)
    with tempfile.TemporaryDirectory() as folder:
        box = BlackBox(BlackBoxSettings(folder))
        start = time.monotonic()
        for number in range(round(SECONDS * FPS)):
            due = start + number / FPS
            time.sleep(max(0.0, due - time.monotonic()))
            frame = BlackBoxFrame(picture, score, state, 10**18 + round(number * 1e9 / FPS), 0)
            # Every 6th of 30 Hz is one of 5 Hz.
            began = time.perf_counter()
            box.add(frame)
            costs[number % 6 == 0].append(1e6 * (time.perf_counter() - began))
        box.close()
        return *costs, box.statistics.frames_dropped


def main() -> None:
    """Print the table."""
    print("| Picture | not recorded: p50, p99 | recorded (5 Hz): p50, p99 | dropped |")
    print("|---|---:|---:|---:|")
    generator = np.random.default_rng(0)
    for width, height in SIZES:
        noise = generator.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        image = np.asarray(cv2.resize(noise, (width, height)), np.uint8)
        _, data = cv2.imencode(".jpg", image)
        for name, picture in (
            ("rgb8", Image(image, "rgb")),
            ("JPEG", EncodedPicture("jpeg", bytes(data))),
        ):
            skipped, taken, dropped = measure(picture)
            cells = [
                f"{np.percentile(values, 50):.0f}, {np.percentile(values, 99):.0f} us"
                for values in (skipped, taken)
            ]
            print(f"| {width}x{height} {name} | {cells[0]} | {cells[1]} | {dropped} |")


if __name__ == "__main__":
    main()
