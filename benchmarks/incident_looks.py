"""How well the look of an alarm tells hazards apart.

    python -m benchmarks.incident_looks

The hazards of two drives through the synthetic corridor are met as a robot meets them. The peak of
each event is compared with other frames of the same event: the first that is flagged, and one near
the peak, also at 0.7 and 1.2 times its brightness; and with the peaks of other hazards. Two looks
are the same from :data:`anomaly_detector.alarms.incidents.ALIKE` on.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.incidents import ALIKE, describe_look, likeness
from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detector
from benchmarks.common import options, print_table, run
from training.data.corridor import HAZARD_LABELS, CorridorDrive

_DRIVES = 2
_FRAMES = 800
_NEAR = 3
"""Frames between the peak and the one near it."""


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure, print and return the shares of pairs that are alike."""
    detector = Detector(arguments.model)

    def seen(image: Image, gain: float = 1.0) -> tuple[float, bool, NDArray[np.float32]]:
        result = detector.detect(image)
        pixels = np.clip(image.array * gain, 0, 255).astype(np.uint8)
        return result.score, result.is_anomaly, describe_look(pixels, result.anomaly_map)

    likenesses: dict[str, list[float]] = {}
    peaks: list[tuple[str, NDArray[np.float32]]] = []
    for number in range(_DRIVES):
        drive = CorridorDrive(
            _FRAMES, drive=number, hazards=list(HAZARD_LABELS), width=320, height=240
        )
        for event in drive.events:
            frames = (Image(drive[index].image, "rgb") for index in range(event.start, event.stop))
            images = [detector.prepare(frame) for frame in frames]
            scores, flags, looks = zip(*map(seen, images), strict=True)
            if not any(flags):
                continue
            peak = int(np.argmax(scores))
            near = peak - _NEAR if peak >= _NEAR else min(peak + _NEAR, len(images) - 1)
            for name, look in {
                "same event, first flagged frame": looks[flags.index(True)],
                "same event, near the peak": looks[near],
                "same event, darker": seen(images[near], 0.7)[2],
                "same event, brighter": seen(images[near], 1.2)[2],
            }.items():
                likenesses.setdefault(name, []).append(likeness(looks[peak], look))
            peaks.append((event.hazard, looks[peak]))
    likenesses["another hazard"] = [
        likeness(first, second)
        for index, (hazard, first) in enumerate(peaks)
        for other, second in peaks[:index]
        if other != hazard
    ]
    shares = {name: float(np.mean(np.array(v) >= ALIKE)) for name, v in likenesses.items()}
    print_table(
        ("compared with the peak", "pairs", "alike"),
        ((name, str(len(likenesses[name])), f"{share:.3f}") for name, share in shares.items()),
    )
    return {"alike": shares}, True


if __name__ == "__main__":
    sys.exit(run(options(__doc__, "--model"), measure))
