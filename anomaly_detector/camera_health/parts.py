"""Which part of the picture shows nothing of the scene: a cover, or spots of dirt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.camera_health.look import CELLS, Floats, upper_quartile

_LITTLE = 0.35
"""A cell has lost its change or detail with less than this share of it, for what others have."""

_BUSY = 0.2
"""Cells that had less than this share of the median in training have nothing to lose."""

_STANDING = 0.4
"""More standing edges than in training by this share of all are a pattern on the lens."""

_OTHER_LEVEL, _OTHER_SPREAD = 8.0, 3.0
"""A cell of a camera that stood has another brightness at so many grey levels, and so many standard
deviations more, off its mean."""

_STOOD = 6.0
"""Grey levels: a cell of a camera that stood had less deviation than this."""


@dataclass(frozen=True)
class BlockedParts:
    """Parts of the picture, as shares of it.

    Attributes:
        share: all connected parts of two cells or more.
        at_edge: the largest one that reaches the edge of the picture.
    """

    share: float = 0.0
    at_edge: float = 0.0


def lost_parts(today: Floats, past: Mapping[str, Floats]) -> BlockedParts:
    """Return what has lost its change or detail, or shows a standing pattern.

    Args:
        today: change, detail and standing pattern, float32 [3, 16, 16].
        past: the maps of the reference.
    """
    change, detail, standing = today
    lost = _lost(change, past["change"], 1.0) | _lost(detail, past["detail"], 0.3)
    return _parts(lost | (standing - past["standing"] > _STANDING))


def _lost(today: Floats, past: Floats, noise: float) -> NDArray[np.bool_]:
    ratio = (today + noise) / (past + noise)
    # Another day may have less of it as a whole; most of the picture is free.
    lost = ratio < _LITTLE * upper_quartile(ratio)
    median = np.partition(past, past.size // 2, axis=None)[past.size // 2]
    return np.asarray(lost & (past > _BUSY * median))


def changed_parts(cells: Floats, past: Mapping[str, Floats]) -> BlockedParts:
    """Return what has another brightness, of a camera that stood still in training.

    Args:
        cells: mean levels, float32 [16, 16].
        past: the maps of the reference.
    """
    stood = past["spread"] < _STOOD
    if np.mean(stood) < 0.5:
        return BlockedParts()
    limit = _OTHER_LEVEL + _OTHER_SPREAD * past["spread"]
    return _parts(stood & (np.abs(cells - past["level"]) > limit))


def _parts(blocked: NDArray[np.bool_]) -> BlockedParts:
    count, _, boxes, _ = cv2.connectedComponentsWithStats(blocked.astype(np.uint8), connectivity=4)
    share = at_edge = 0
    for x, y, width, height, area in boxes[1:count].tolist():
        if area < 2:
            continue
        share += area
        if x == 0 or y == 0 or x + width == CELLS or y + height == CELLS:
            at_edge = max(at_edge, area)
    return BlockedParts(share / CELLS**2, at_edge / CELLS**2)
