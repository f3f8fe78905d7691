"""Figures of a camera's newest frames, smoothed so that one frame does not count."""

from __future__ import annotations

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
        self._short, self._long = np.empty((_SHORT, 6)), np.empty((_LONG, 2))
        self._added = 0

    def add(self, look: Look) -> Figures:
        """Take the next frame in."""
        levels = np.partition(look.cells, _QUARTERS, axis=None)
        dim, bright = float(levels[_QUARTERS[0]]), float(levels[_QUARTERS[1]])
        light = look.level + _EMPTY
        fine, coarse = upper_quartile(look.fine), upper_quartile(look.coarse)
        contrast = (bright - dim) / light
        short = dim, bright, look.white, contrast, coarse / light, look.steps
        self._short[self._added % _SHORT] = short
        self._long[self._added % _LONG] = fine / (coarse + 0.5), fine / light
        self._added += 1
        count = min(self._added, _SHORT)
        ordered = np.sort(self._short[:count], axis=0)
        median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
        long = [0.0, 0.0]
        if self.is_full:
            count = min(self._added, _LONG)
            long = np.sort(self._long[:count], axis=0)[count * 3 // 4].tolist()
        return Figures(*median.tolist(), *long)

    @property
    def is_full(self) -> bool:
        """Whether all figures are there."""
        return self._added >= _LEAST
