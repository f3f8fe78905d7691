"""Whether a drive has seen each place more than once.

As in SeqSLAM (Milford and Wyeth 2012) a place is known again by a sequence of frames, at any of a
few speeds. How alike a sequence has to be depends on the place: one corridor looks alike all over.
So a sequence counts as seen again when it is more alike to one of another time than to any that
runs backwards, which no robot drives.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.check.look import Floats, Numbers
from training.data.check.samples import Samples

_AWAY_SECONDS = 4.0
"""Frames of one recording are of another time when they are this far apart."""

_REACH_SECONDS = 2.0
_SLACK_SECONDS = 0.4
_SPEEDS = (0.67, 0.8, 1.0, 1.25, 1.5)
_OFFSETS = 8
_MORE_ALIKE = 0.02
"""Correlation by which a sequence is more alike than any that runs backwards."""


@dataclass(frozen=True)
class Route:
    """Where else each place was seen.

    Attributes:
        seen_again: bool [K], of each sample.
        matches: int64 [K], the sample of another time that is most like it.
    """

    seen_again: NDArray[np.bool_]
    matches: Numbers

    @property
    def share(self) -> float:
        """Share of the samples whose place was seen at another time, too."""
        return float(self.seen_again.mean())


def find_route(samples: Samples) -> Route:
    """Match each sample to those of other times."""
    slack = samples.count_in(_SLACK_SECONDS)
    # A sequence need not be in step with the other: the best of the neighbours counts.
    near = np.ones((1, 2 * slack + 1), np.uint8)
    alike = np.asarray(cv2.dilate(samples.views @ samples.views.T, near), np.float32)
    forwards, matches = _best(samples, _sequences(samples, alike, 1))
    backwards, _ = _best(samples, _sequences(samples, alike, -1))
    return Route(forwards - backwards > _MORE_ALIKE, matches)


def _sequences(samples: Samples, alike: Floats, direction: int) -> Floats:
    """Return how alike the sequence around each sample is to that around each other, [K, K]."""
    count, reach = len(samples), max(2, samples.count_in(_REACH_SECONDS))
    offsets = np.unique(np.linspace(-reach, reach, _OFFSETS + 1).round().astype(int)).tolist()
    best = np.full_like(alike, -1)
    for speed in _SPEEDS:
        total, number = np.zeros_like(alike), np.zeros_like(alike)
        for offset in offsets:
            rows, rows_there = _shifted(count, offset)
            columns, columns_there = _shifted(count, direction * round(speed * offset))
            total[rows, columns] += alike[rows_there, columns_there]
            number[rows, columns] += 1
        mean = total / np.maximum(number, 1)
        np.maximum(best, np.where(2 * number >= len(offsets), mean, -1), out=best)
    return best


def _shifted(count: int, offset: int) -> tuple[slice, slice]:
    """Return the places that have another one so far on, and these other ones."""
    first = min(count, max(0, -offset))
    end = max(first, min(count, count - offset))
    return slice(first, end), slice(first + offset, end + offset)


def _best(samples: Samples, alike: Floats) -> tuple[Floats, Numbers]:
    """Return how alike the best match of another time is, and which one that is.

    What is next to a sample is like it, and less so the farther it is: that is no match.
    """
    count, away = len(samples), max(3, samples.count_in(_AWAY_SECONDS))
    best, matches = np.zeros(count, np.float32), np.zeros(count, np.int64)
    owners = samples.recordings
    firsts, ends = np.searchsorted(owners, owners), np.searchsorted(owners, owners, side="right")
    for row, (own, first, end) in enumerate(zip(alike, firsts, ends, strict=True)):
        low, high = max(first, row - away + 1), min(end, row + away)
        while high < end - 1 and own[high + 1] <= own[high]:
            high += 1
        while low > first and own[low - 1] <= own[low]:
            low -= 1
        others = own.copy()
        others[low : high + 1 if high < end else high] = -1
        matches[row] = int(others.argmax())
        best[row] = others[matches[row]]
    return best, matches
