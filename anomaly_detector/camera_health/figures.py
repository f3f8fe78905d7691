"""Figures of a camera's newest frames, smoothed so that one frame does not count."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import NamedTuple

import numpy as np

from anomaly_detector.camera_health.look import CELLS, Look, upper_quartile

_SHORT = 10
"""Frames of which light and structure are the medians: two seconds of those looked at."""

_LONG = 40
_LEAST = 20
"""Frames of which sharpness is the upper quartile, and the fewest of them."""

_QUARTERS = [CELLS**2 // 4, CELLS**2 * 3 // 4]
_EMPTY = 8.0
"""Grey levels added to the mean level, so that ratios to it say something of a black picture."""


class Figures(NamedTuple):
    """Figures of the newest frames; sharpness and detail are 0 before there are enough.

    Attributes:
        dim: grey level that three quarters of the picture are above.
        bright: grey level that one quarter is above.
        white: share of the picture that is white.
        contrast: difference of these levels, for the mean level.
        structure: coarse detail, for the mean level.
        steps: differences of neighbouring cells, grey levels.
        sharpness: fine detail, for the coarse one.
        detail: fine detail, for the mean level.
    """

    dim: float
    bright: float
    white: float
    contrast: float
    structure: float
    steps: float
    sharpness: float
    detail: float


class Smoothing:
    """Makes :class:`Figures` frame by frame."""

    def __init__(self) -> None:
        self._short: deque[tuple[float, ...]] = deque(maxlen=_SHORT)
        self._long: deque[tuple[float, ...]] = deque(maxlen=_LONG)

    def add(self, look: Look) -> Figures:
        """Take the next frame in."""
        levels = np.partition(look.cells.ravel(), _QUARTERS)[_QUARTERS]
        dim, bright = levels.tolist()
        light = float(look.cells.mean()) + _EMPTY
        fine, coarse = upper_quartile(look.fine), upper_quartile(look.coarse)
        contrast = (bright - dim) / light
        self._short.append((dim, bright, look.white, contrast, coarse / light, look.steps))
        self._long.append((fine / (coarse + 0.5), fine / light))
        short = [median(values) for values in zip(*self._short, strict=True)]
        long = [0.0, 0.0]
        if self.is_full:
            place = len(self._long) * 3 // 4
            long = [sorted(values)[place] for values in zip(*self._long, strict=True)]
        return Figures(*short, *long)

    @property
    def is_full(self) -> bool:
        """Whether all figures are there."""
        return len(self._long) >= _LEAST
