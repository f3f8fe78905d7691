"""How well the boxes of the anomaly map enclose hazards.

    python -m benchmarks.regions

Two drives through the synthetic corridor that no model was trained on meet every hazard that is a
thing (``defects`` of the camera have no place). Every third frame of an event that the model flags
is looked at: intersection over union of the hottest region's box and the box of the hazard's mask,
for several shares of the map's scale at which a cell counts as hot
(:data:`anomaly_detector.model.regions.HOT` is the one in use).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import cv2
import numpy as np

from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.model.regions import HOT, anomaly_regions
from benchmarks.common import options, print_table, run
from training.data.corridor import HAZARD_LABELS, CorridorDrive

_DRIVES = (5, 6)
_FRAMES = 800
_STEP = 3
_SHARES = (0.01, 0.1, HOT, 0.5, 0.75, 1.0)

Box = tuple[int, int, int, int]


def intersection_over_union(first: Box, second: Box) -> float:
    """Return that of two boxes: x, y, width, height."""
    sides = [
        max(0, min(a + la, b + lb) - max(a, b))
        for a, la, b, lb in zip(first[:2], first[2:], second[:2], second[2:], strict=True)
    ]
    inside = sides[0] * sides[1]
    return inside / (first[2] * first[3] + second[2] * second[3] - inside)


def overlap(detection: Detection, truth: Box, hot: float = HOT) -> float:
    """Return that of the hottest region; 0 without one."""
    for box in anomaly_regions(detection, hot=hot):
        return intersection_over_union((box.x, box.y, box.width, box.height), truth)
    return 0.0


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure, print and return the overlaps for each share."""
    detector = Detector(arguments.model)
    things = [name for name in HAZARD_LABELS if name not in ("normal", "defects")]
    flagged: list[tuple[Detection, Box]] = []
    shown = 0
    for number in _DRIVES:
        drive = CorridorDrive(_FRAMES, drive=number, hazards=things, width=320, height=240)
        for event in drive.events:
            for frame in drive[event.start : event.stop : _STEP]:
                if not frame.mask.any():
                    continue
                shown += 1
                result = detector.detect(Image(frame.image, "rgb"))
                if result.is_anomaly:
                    x, y, width, height = cv2.boundingRect(frame.mask.astype(np.uint8))
                    flagged.append((result, (x, y, width, height)))
    rows = {}
    for share in _SHARES:
        values = np.array([overlap(result, truth, share) for result, truth in flagged])
        boxes = [len(anomaly_regions(result, hot=share)) for result, _ in flagged]
        rows[f"{share:g}"] = {
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "at least 0.5": float((values >= 0.5).mean()),
            "no box": float((np.array(boxes) == 0).mean()),
            "boxes a frame": float(np.mean(boxes)),
        }
    print(f"{len(flagged)} of {shown} frames with a hazard are flagged")
    print_table(
        ("hot from", *rows[f"{HOT:g}"]),
        ((name, *(f"{value:.2f}" for value in row.values())) for name, row in rows.items()),
    )
    return {"flagged": len(flagged), "frames": shown, "overlap": rows}, True


if __name__ == "__main__":
    sys.exit(run(options(__doc__, "--model"), measure))
