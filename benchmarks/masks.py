"""What a mask is good for: a screen that changes below it, and hazards beside it.

    python -m benchmarks.masks

A thing that is fixed to the camera is put into drives through the synthetic corridor: a clock that
was burnt in, a screen, a display along the lower edge. It shows something else in every frame, and
frames are JPEG of quality 85, whose blocks carry some of it over the edge. ``calibrate`` makes
three models of the shipped one: on a normal drive without the thing, on one with it, and on that
with a mask. They are tested on another normal drive, and on one with every hazard that is a thing
(``defects`` of the camera have no place) and lies beside the mask.

The score's change is that between two contents of the thing in the same frame, as the largest of
all frames, in distances from the median normal score to the threshold: 1 moves a usual frame to an
alarm. It is given for raw frames and for JPEG. The last table has it, for JPEG, for a thing that is
larger than its mask by some pixels on each side.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.recalibration import recalibrate
from anomaly_detector.images.mask import NO_MASK, MaskSource
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.normalization import normalization_scale
from benchmarks.common import judge, options, print_table, run
from training.data.corridor import HAZARD_LABELS, CorridorDrive

WIDTH, HEIGHT = 320, 240
_FRAMES = 600
_CALIBRATION, _NORMAL, _HAZARDS = 11, 12, 13
"""Drives."""

_PLACES = {
    "clock": (212, 12, 96, 20),
    "screen": (24, 60, 80, 72),
    "display": (0, 204, 320, 36),
}
"""x, y, width and height, pixels."""

_BEYOND = (0, 1, 2, 4, 8, 16)
_QUALITY = 85
_LEAST_BESIDE = 0.5
"""A hazard counts when so much of it lies beside the mask."""

Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Figures:
    flagged: float
    found: float
    change: float
    change_in_jpeg: float


def grown(box: Box, pixels: int) -> Box:
    """Return a box that is larger on each side, inside the frame."""
    x, y = max(0, box[0] - pixels), max(0, box[1] - pixels)
    right, bottom = box[0] + box[2] + pixels, box[1] + box[3] + pixels
    return x, y, min(WIDTH, right) - x, min(HEIGHT, bottom) - y


def with_thing(frame: Picture, box: Box, seed: int) -> Picture:
    """Return a frame, RGB, with a thing at a place, and what it shows by a seed."""
    x, y, width, height = box
    generator = np.random.default_rng(seed)
    tiles = generator.integers(0, 256, (*generator.integers(1, 7, 2), 3)).astype(np.uint8)
    content = cv2.resize(tiles, (width, height), interpolation=cv2.INTER_NEAREST)
    text = f"{generator.integers(10**8):08d}"
    cv2.putText(content, text, (2, height - 5), cv2.FONT_HERSHEY_PLAIN, 1.1, (255, 255, 255))
    frame = frame.copy()
    frame[y : y + height, x : x + width] = content
    return frame


def sent(frame: Picture) -> Picture:
    """Return a frame, BGR, after JPEG."""
    data = cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def drive(number: int, hazards: Sequence[str] = ()) -> CorridorDrive:
    """Return a drive."""
    return CorridorDrive(_FRAMES, drive=number, hazards=hazards, width=WIDTH, height=HEIGHT)


def scores(
    detector: Detector, frames: Iterator[Picture], *, raw: bool = False
) -> NDArray[np.float64]:
    """Return the score of each frame, RGB."""
    pictures = (frame[:, :, ::-1] if raw else sent(frame) for frame in frames)
    return np.array([detector.detect(picture, order="bgr").score for picture in pictures])


def largest_change(
    detector: Detector, frames: Sequence[Picture], box: Box, *, raw: bool = False
) -> float:
    """Return the largest change of the score between two contents of a thing."""
    pair = (
        scores(
            detector,
            (with_thing(frame, box, seed + number) for number, frame in enumerate(frames)),
            raw=raw,
        )
        for seed in (10**6, 2 * 10**6)
    )
    scale = float(normalization_scale(detector.metadata))
    return float(np.abs(next(pair) - next(pair)).max()) / scale


def figures(
    detector: Detector, box: Box | None, normal: Sequence[Picture], hazards: Sequence[Picture]
) -> _Figures:
    """Measure a model on frames with a thing at a place, or without."""

    def shown(frames: Sequence[Picture], seed: int) -> Iterator[Picture]:
        for number, frame in enumerate(frames):
            yield frame if box is None else with_thing(frame, box, seed + number)

    return _Figures(
        float(np.mean(scores(detector, shown(normal, 1000)) >= detector.threshold)),
        float(np.mean(scores(detector, shown(hazards, 5000)) >= detector.threshold)),
        0.0 if box is None else largest_change(detector, normal[::4], box, raw=True),
        0.0 if box is None else largest_change(detector, normal[::4], box),
    )


def record(folder: Path, box: Box | None) -> Path:
    """Write the normal drive for calibration, with a thing at a place or without."""
    folder.mkdir()
    for number, frame in enumerate(drive(_CALIBRATION)[::2]):
        picture = frame.image if box is None else with_thing(frame.image, box, number)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        cv2.imwrite(str(folder / f"{number}.jpg"), picture[:, :, ::-1], quality)
    return folder


def calibrated(model: Path, recording: Path, mask: MaskSource) -> Detector:
    """Return a model that was calibrated on a recording."""
    out = recording / ("masked.onnx" if mask else "plain.onnx")
    recalibrate(model, [str(recording)], out, mask=mask, progress=False)
    return Detector(out)


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure, print and return the figures; the bars are that of the mask's promise."""
    things = [name for name in HAZARD_LABELS if name not in ("normal", "defects")]
    normal = [frame.image for frame in drive(_NORMAL)[::3]]
    hazards = [frame for frame in drive(_HAZARDS, things)[::2] if frame.mask.any()]
    rows: dict[str, dict[str, _Figures]] = {}
    edges: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        plain = calibrated(arguments.model, record(Path(folder, "none"), None), NO_MASK)
        for name, box in _PLACES.items():
            x, y, width, height = box
            inside = np.s_[y : y + height, x : x + width]
            beside = [
                frame.image
                for frame in hazards
                if frame.mask[inside].sum() <= (1 - _LEAST_BESIDE) * frame.mask.sum()
            ]
            right, bottom = x + width - 1, y + height - 1
            corners = (x, y, right, y, right, bottom, x, bottom)
            mask = MaskSource(polygons=[",".join(map(str, corners))])
            recording = record(Path(folder, name), box)
            masked = calibrated(arguments.model, recording, mask)
            rows[name] = {
                "no thing, no mask": figures(plain, None, normal, beside),
                "no mask": figures(plain, box, normal, beside),
                "no mask, calibrated with it": figures(
                    calibrated(arguments.model, recording, NO_MASK), box, normal, beside
                ),
                "mask": figures(masked, box, normal, beside),
            }
            edges[name] = [
                largest_change(masked, normal[::4], grown(box, pixels)) for pixels in _BEYOND
            ]
    print_table(
        ("thing", "model", "normal flagged", "hazards found", "score's change", "in JPEG"),
        (
            (
                *(name, way, f"{item.flagged:.1%}", f"{item.found:.1%}"),
                *(f"{item.change:.3f}", f"{item.change_in_jpeg:.3f}"),
            )
            for name, ways in rows.items()
            for way, item in ways.items()
        ),
    )
    print()
    print_table(
        ("larger than its mask by", *(f"{pixels} px" for pixels in _BEYOND)),
        ((name, *(f"{value:.3f}" for value in values)) for name, values in edges.items()),
    )
    is_met = judge(
        {
            "what changes below a mask changes no score of a raw frame": all(
                ways["mask"].change == 0 for ways in rows.values()
            ),
            "with the mask at most 3 % of normal frames are flagged": all(
                ways["mask"].flagged <= 0.03 for ways in rows.values()
            ),
        }
    )
    found = {name: {way: vars(item) for way, item in ways.items()} for name, ways in rows.items()}
    return {"things": found, "pixels beyond": _BEYOND, "change beyond": edges}, is_met


if __name__ == "__main__":
    sys.exit(run(options(__doc__, "--model"), measure))
