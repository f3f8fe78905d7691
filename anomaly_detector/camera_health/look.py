"""What is measured of a frame, and of many frames of a moving camera by cells of the picture."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

SIDE = 64
"""Side of the picture that is measured, pixels: larger inputs are reduced to it."""

CELLS = 16
"""Cells on a side."""

VIEWS = 60
"""Pictures that differ, of a camera that has moved, from which maps are made."""

_WHITE = 250
_MOVED = 0.6
"""A picture whose cells differ by so much of their difference from their neighbours is another view
than the one before."""

_INNER = SIDE // 2 - 2
_ENDS = np.cumsum([CELLS**2] * 3 + [_INNER**2] * 3).tolist()
"""Where each thing that is kept of a view ends in its row: levels of cells, their squares, detail,
edges across and down, and their strength."""


class Look(NamedTuple):
    """What is measured of one frame.

    Attributes:
        half: grey levels at half of :data:`SIDE`, float32.
        cells: mean grey level of each cell, float32 [16, 16].
        level: their mean.
        fine: detail of each cell: mean absolute Laplacian of the picture.
        coarse: the same of the picture at half its size.
        steps: differences of neighbouring cells: a quarter is above this.
        white: share of the picture that is white.
    """

    half: Floats
    cells: Floats
    level: float
    fine: Floats
    coarse: Floats
    steps: float
    white: float

    @classmethod
    def at(cls, image: NDArray[np.uint8]) -> Look:
        """Look at the model's input, uint8 [H, W, 3] RGB."""
        grey: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if len(grey) != SIDE:
            grey = reduced(grey, SIDE)
        picture = np.asarray(grey, np.float32)
        half = reduced(picture, SIDE // 2)
        cells = reduced(half, CELLS)
        return cls(
            half,
            cells,
            cv2.mean(cells)[0],
            reduced(np.abs(cv2.Laplacian(picture, cv2.CV_32F)), CELLS),
            reduced(np.abs(cv2.Laplacian(half, cv2.CV_32F)), CELLS),
            upper_quartile(np.abs(cells[:, 1:] - cells[:, :-1])),
            np.count_nonzero(grey >= _WHITE) / grey.size,
        )


def reduced(picture: NDArray[Any], side: int) -> NDArray[Any]:
    """Return a picture with that many pixels on each side, means of those it had."""
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA))


def upper_quartile(values: Floats) -> float:
    """Return the value that a quarter of an array is above."""
    place = values.size * 3 // 4
    return float(np.partition(values, place, axis=None)[place])


class Views:
    """The newest :data:`VIEWS` pictures that differ from each other: the camera has moved.

    Args:
        steps: usual :attr:`Look.steps` of the camera. A cover may have more of them.
    """

    def __init__(self, steps: float = math.inf) -> None:
        self._steps = steps
        self._rows = np.zeros((VIEWS, _ENDS[-1]), np.float32)
        self._sum = np.zeros(_ENDS[-1])
        self._added = 0
        self._last: Floats | None = None

    def __len__(self) -> int:
        return min(self._added, VIEWS)

    def moves_on(self, look: Look) -> bool:
        """Return whether a frame shows another view than the last one that did."""
        cells = look.cells - look.level
        if self._last is not None:
            # Quarters, not means: a part that is covered does not move.
            least = _MOVED * (min(look.steps, self._steps) + 2.0)
            if upper_quartile(np.abs(cells - self._last)) < least:
                return False
        self._last = cells
        return True

    def add(self, look: Look) -> None:
        """Take in a frame that shows another view."""
        cells = look.cells - look.level
        across = look.half[1:-1, 2:] - look.half[1:-1, :-2]
        down = look.half[2:, 1:-1] - look.half[:-2, 1:-1]
        own = cells, cells * cells, look.fine, across, down, cv2.magnitude(across, down)
        row = self._rows[self._added % VIEWS]
        self._sum -= row
        np.concatenate(own, axis=None, out=row)
        self._sum += row
        self._added += 1

    def maps(self) -> Floats:
        """Return change, detail and standing pattern of each cell, float32 [3, 16, 16].

        Change is the standard deviation of a cell's level over the views. The pattern is the share
        of the edges that stay where they are, 0..1.
        """
        mean = np.split(self._sum / len(self), _ENDS[:-1])
        level, squares, fine = (values.reshape(CELLS, CELLS) for values in mean[:3])
        across, down, edges = (values.reshape(_INNER, _INNER) for values in mean[3:])
        change = np.sqrt(np.maximum(squares - level * level, 0.0))
        standing = _by_cell(cv2.magnitude(across, down)) / (_by_cell(edges) + 0.5)
        return np.array([change, fine, standing], np.float32)


def _by_cell(values: NDArray[Any]) -> NDArray[Any]:
    """Return means of cells of two pixels of a picture that lacks its outermost pixels."""
    return reduced(cv2.copyMakeBorder(values, 1, 1, 1, 1, cv2.BORDER_REPLICATE), CELLS)
