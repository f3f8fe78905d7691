"""The roll of a camera: the angle at which views of the training have to be turned to be alike."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.camera_health.look import CELLS, SIDE, Floats, reduced

_HALF = SIDE // 2
_ANGLES = np.arange(-24, 25, 4)


class Rolls:
    """Views of the training at every angle, to be compared with those of today.

    Args:
        views: uint8 [N, 32, 32], grey.
    """

    def __init__(self, views: NDArray[np.uint8]) -> None:
        shapes = [_shapes(view.astype(np.float32)) for view in views]
        turned = [_turned(shape, float(angle)) for angle in _ANGLES for shape in shapes]
        cells = np.stack([reduced(shape, CELLS).ravel() for shape in turned])
        directions = _directions(cells[:, _DISC])
        # A product an angle: BLAS shares larger ones among threads, which wait for each other.
        self._turned = directions.reshape(len(_ANGLES), len(shapes), -1).transpose(0, 2, 1)

    def similarities(self, half: Floats) -> Floats:
        """Return how alike a view is to the most similar one at each angle and shift, -1 to 1."""
        shifted = _directions(reduced(_shapes(half), CELLS).ravel()[_SHIFTED])
        return np.asarray((shifted @ self._turned).max(axis=2))


def roll_of(similarities: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the roll in degrees, and by how much it is plain in the likeness of the views.

    That is by how much more alike they are than at no turn, at most a third of by how much more
    than at the opposite turn: what looks like no view of the training is a little more alike at
    some turn, and as much at the opposite one. At each angle the shift counts at which they are the
    most alike: a camera that points a little higher or more to the left is not rolled.

    Args:
        similarities: mean over views, from :meth:`Rolls.similarities`.
    """
    by_angle = similarities.max(axis=1)
    best = int(np.argmax(by_angle))
    level, opposite = by_angle[len(_ANGLES) // 2], by_angle[-1 - best]
    gain = min(by_angle[best] - level, (by_angle[best] - opposite) / 3)
    return float(_ANGLES[best]), float(gain)


def _turned(shapes: Floats, angle: float) -> Floats:
    turn = cv2.getRotationMatrix2D(((_HALF - 1) / 2,) * 2, angle, 1)
    result = cv2.warpAffine(shapes, turn, (_HALF, _HALF), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(result, np.float32)


_FINE, _COARSE, _AROUND = (
    cv2.getGaussianKernel(size, sigma, cv2.CV_32F)
    for size, sigma in ((7, 0.6), (21, 2.5), (25, 3.0))
)


def _blurred(picture: Floats, kernel: NDArray[Any]) -> Floats:
    return np.asarray(cv2.sepFilter2D(picture, -1, kernel, kernel))


def _shapes(half: Floats) -> Floats:
    """Return what of a view does not depend on light and contrast."""
    shapes = _blurred(half, _FINE) - _blurred(half, _COARSE)
    return np.asarray(shapes / (np.sqrt(_blurred(shapes * shapes, _AROUND)) + 4.0), np.float32)


def _directions(rows: Floats) -> Floats:
    """Return unit vectors: products of two are correlations."""
    rows = rows - rows.sum(axis=1, keepdims=True) / rows.shape[1]
    return np.asarray(rows / (np.sqrt((rows * rows).sum(axis=1, keepdims=True)) + 1e-6), np.float32)


_PLACES = np.arange(CELLS) - (CELLS - 1) / 2
_ROWS, _COLUMNS = np.nonzero(np.hypot(_PLACES, _PLACES[:, np.newaxis]) < CELLS / 2 - 0.4)


def _shifted(down: int, right: int) -> NDArray[np.intp]:
    rows, columns = np.clip((_ROWS + down, _COLUMNS + right), 0, CELLS - 1)
    return np.asarray(rows * CELLS + columns, np.intp)


_DISC = _shifted(0, 0)
"""What stays in the picture when it is turned."""

_SHIFTED = np.stack([_DISC, *(_shifted(*way) for way in ((0, 1), (0, -1), (1, 0), (-1, 0)))])
"""The same of a picture that is shifted by a cell."""
