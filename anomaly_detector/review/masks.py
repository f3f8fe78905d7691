"""Proposes a mask where the heat of events that look alike lies at the same pixels of the camera.

What stands in the world moves through the frame while the robot drives. What stays at its pixels
belongs to the robot or the camera: a bumper, a burnt-in clock, a screen.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.drawing.overlay import hatch
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.image import Image, to_bgr
from anomaly_detector.model.detector import Detection
from anomaly_detector.model.regions import HOT
from anomaly_detector.review.catalog import Entry
from anomaly_detector.review.pictures import THUMBNAIL_WIDTH, Pictures

LEAST_EVENTS = 3
_MOST_EVENTS = 24

_STEADY = 0.9
"""A cell belongs to the mask when it is hot in this share of the frames."""

_INSIDE = 0.7
"""Share of the heat that has to lie inside: else something else is hot too."""

_MOST_COVERED = 0.3
"""Of the map; more is no thing at a place."""

_LEAST_MOTION = 4.0
"""Grey levels by which the rest of the picture varies, at least, or the robot stood still."""


@dataclass(frozen=True)
class Proposal:
    """A mask that would take the heat of some events away.

    Attributes:
        mask: uint8 [H, W], in the size of the camera's frame, white where it is ignored.
        picture: uint8 BGR, a small frame with the mask hatched.
    """

    mask: NDArray[np.uint8]
    picture: NDArray[np.uint8]

    def as_json(self, model: Path) -> dict[str, str]:
        """Return it as the page gets it."""
        return {
            "mask": _as_url(self.mask),
            "picture": _as_url(self.picture),
            "command": f"python -m anomaly_detector calibrate --model {model} --data NORMAL_DRIVE "
            f"--mask mask.png --output {model.stem}_masked.onnx",
        }


def propose(entries: Sequence[Entry], pictures: Pictures) -> Proposal | None:
    """Return a mask for events; None where their heat does not stay at its pixels.

    Frames that cannot be read are passed over.

    Args:
        entries: the events.
        pictures: with a model.
    """
    step = max(1, -(-len(entries) // _MOST_EVENTS))
    seen: list[tuple[Image, Detection]] = []
    readable = 0
    for entry in entries[::step]:
        try:
            found = [pictures.detect(entry, number) for number in _frames(entry)]
        except (AnomalyDetectorError, OSError):
            continue
        readable += 1
        seen += found
    if readable < LEAST_EVENTS or seen[0][1].map_scale.high is None:
        return None
    sizes = {(image.array.shape[:2], detection.extent) for image, detection in seen}
    if len(sizes) > 1:  # of several cameras
        return None
    heat = np.stack([each.map_scale.strength(each.anomaly_map) for _, each in seen])
    steady = np.mean(heat >= HOT, axis=0) >= _STEADY
    grown = cv2.dilate(steady.astype(np.uint8), np.ones((3, 3), np.uint8))
    cells = np.asarray(grown, np.uint8)
    inside = (heat * cells).sum() / max(1e-9, float(heat.sum()))
    if not steady.any() or inside < _INSIDE or cells.mean() > _MOST_COVERED:
        return None
    image, detection = seen[0]
    mask = _in_frame(cells, image, detection)
    if _motion([image for image, _ in seen], mask) < _LEAST_MOTION:
        return None
    frame = to_bgr(image)
    size = THUMBNAIL_WIDTH, max(1, round(frame.shape[0] * THUMBNAIL_WIDTH / frame.shape[1]))
    small = np.ascontiguousarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    hatch(small, mask > 0)
    return Proposal(mask, small)


def _frames(entry: Entry) -> list[int]:
    """Return the numbers of the peak, and of the first and last frame of the alarm."""
    during = [n for n, frame in enumerate(entry.event.frames) if frame.phase == "during"]
    return sorted({entry.peak, *during[:1], *during[-1:]})


def _in_frame(cells: NDArray[np.uint8], image: Image, detection: Detection) -> NDArray[np.uint8]:
    """Return cells of a map as a mask of the whole frame."""
    mask = np.zeros(image.array.shape[:2], np.uint8)
    part = detection.extent
    inside = mask[part.y : part.y + part.height, part.x : part.x + part.width]
    rows, columns = inside.shape
    inside[:] = 255 * cv2.resize(cells, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return mask


def _motion(images: Sequence[Image], mask: NDArray[np.uint8]) -> float:
    """Return by how much the frames vary beside a mask, grey levels."""
    size = 32, 32
    small = [cv2.resize(to_bgr(each), size, interpolation=cv2.INTER_AREA) for each in images]
    beside = cv2.resize(mask, size, interpolation=cv2.INTER_AREA) == 0
    return float(np.stack(small).std(axis=0)[beside].mean()) if beside.any() else 0.0


def _as_url(picture: NDArray[np.uint8]) -> str:
    data = cv2.imencode(".png", picture)[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
