"""The roll of a camera: the angle at which views of the training have to be turned to be alike."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.camera_health.look import CELLS, SIDE, Floats

_HALF = SIDE // 2
_ANGLES = np.arange(-24, 25, 2)


class Rolls:
    """Views of the training at every angle, to be compared with those of today.

    Args:
        views: uint8 [N, 32, 32], grey.
    """

    def __init__(self, views: NDArray[np.uint8]) -> None:
        shapes = [_shapes(view.astype(np.float32)) for view in views]
        turned = [_direction(_turned(shape, float(angle))) for angle in _ANGLES for shape in shapes]
        self._turned = np.stack(turned)

    def similarities(self, half: Floats) -> Floats:
        """Return how alike a view is to the most similar one at each angle, -1 to 1."""
        alike = self._turned @ _direction(_shapes(half))
        return np.asarray(alike.reshape(len(_ANGLES), -1).max(axis=1))


def roll_of(similarities: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the roll in degrees, and by how much more alike the views are at this angle.

    Args:
        similarities: mean over views, from :meth:`Rolls.similarities`.
    """
    best = int(np.argmax(similarities))
    return float(_ANGLES[best]), float(similarities[best] - similarities[len(_ANGLES) // 2])


def _turned(shapes: Floats, angle: float) -> Floats:
    turn = cv2.getRotationMatrix2D(((_HALF - 1) / 2,) * 2, angle, 1)
    result = cv2.warpAffine(shapes, turn, (_HALF, _HALF), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(result, np.float32)


def _blurred(picture: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma))


def _shapes(half: Floats) -> Floats:
    """Return what of a view does not depend on light and contrast."""
    shapes = _blurred(half, 0.6) - _blurred(half, 2.5)
    return np.asarray(shapes / (np.sqrt(_blurred(shapes * shapes, 3.0)) + 4.0), np.float32)


_PLACES = np.arange(CELLS) - (CELLS - 1) / 2
_DISC = np.flatnonzero(np.hypot(_PLACES, _PLACES[:, np.newaxis]) < CELLS / 2 - 0.4)
"""What stays in the picture when it is turned."""


def _direction(shapes: Floats) -> Floats:
    """Return a unit vector: products of two are correlations."""
    cells = cv2.resize(shapes, (CELLS, CELLS), interpolation=cv2.INTER_AREA).ravel()[_DISC]
    cells -= cells.sum() / len(cells)
    return np.asarray(cells / (math.sqrt(cells @ cells) + 1e-6), np.float32)
