"""What is measured on the frames of a drive, about ten times a second."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.mask import Mask
from anomaly_detector.recordings.cache import CachedFrames
from training.data.frames import FrameSet, frame_period, names_of

Floats: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.int64]

_Value = TypeVar("_Value", bound=np.generic)

FEWEST = 30
"""Frames of a recording that can be looked at."""

RATE = 10.0
"""Frames looked at in a second, at most."""

_MOST = 6000
_BATCH = 256
_GREY = 64
CELLS = 16
_STILL_FLOW = 0.15
"""Pixels at 64x64 that the picture of a robot that stands moves in half a second, at most."""

_STILL_SHARE = 0.2
"""The same as a share of the drive's median."""

_STILL_SECONDS = 2.0

_EMPTY = 0.3
"""Grey levels of detail in a picture without any."""


@dataclass(frozen=True)
class Look:
    """Figures of some frames of a recording, K of N.

    Attributes:
        name: of the recording.
        numbers: int64 [K], the frames that were looked at, ascending.
        times: float64 [N], seconds of every frame since the first; its number without stamps.
        timed: whether they are seconds.
        step: seconds between two frames that were looked at; 1 / RATE without stamps.
        grey: float32 [K, 64, 64].
        cells: float32 [K, 16, 16, 3], means of the picture's cells, RGB.
        sharpness: float32 [K], detail of one pixel at 64x64 relative to that of two.
        used: bool [K], whether the frame is not left out.
        mask: what of the frames is not looked at.
    """

    name: str
    numbers: Numbers
    times: NDArray[np.float64]
    timed: bool
    step: float
    grey: Floats
    cells: Floats
    sharpness: Floats
    used: NDArray[np.bool_]
    mask: Mask | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def seconds(self) -> float:
        """Length of the recording; of one without stamps, in frames."""
        return float(self.times[-1] - self.times[0])

    def seen(self, values: NDArray[_Value]) -> NDArray[_Value]:
        """Return the values of cells, [K, S, S], of those that no mask covers, [K, cells]."""
        side = values.shape[1]
        if self.mask is None:
            return values.reshape(len(values), -1)
        return values[:, ~self.mask.cells(side, side)]

    @property
    def every(self) -> int:
        """Which frames were looked at: every so many."""
        return int(self.numbers[1] - self.numbers[0])

    @cached_property
    def flow(self) -> Floats:
        """How far the picture moves in half a second, pixels at 64x64, float32 [K].

        That is the normal flow, change over gradient. Of the cells with edges the median counts,
        so that people may walk by a robot that stands.
        """
        lag = min(self.samples(0.5), len(self) - 1)
        grey = self.grey - self.grey.mean(axis=(1, 2), keepdims=True)
        change = np.abs(grey[lag:] - grey[:-lag])
        slope = np.zeros_like(grey)
        slope[:, :, 1:] += np.abs(np.diff(grey, axis=2))
        slope[:, 1:] += np.abs(np.diff(grey, axis=1))
        change, slope = (halved(halved(halved(item))) for item in (change, slope[lag:]))
        ratio = (change / (slope + 1)).reshape(len(change), -1)
        slope = slope.reshape(len(slope), -1)
        ratio[slope < np.median(slope, axis=1, keepdims=True)] = np.nan
        moved = np.asarray(np.nanmedian(ratio, axis=1), np.float32)
        return np.pad(moved, (lag // 2, lag - lag // 2), "edge")

    @cached_property
    def still(self) -> NDArray[np.bool_]:
        """Whether the robot stands, of each frame, bool [K]."""
        moved = smoothed(self.flow, self.samples(0.3))
        mask = moved < max(_STILL_FLOW, _STILL_SHARE * float(np.median(moved)))
        still = np.zeros(len(self), bool)
        for first, last in stretches_of(mask & self.used, self.samples(_STILL_SECONDS)):
            still[first : last + 1] = True
        return still

    def samples(self, seconds: float) -> int:
        """Return how many of the frames looked at are in a time, at least 1, at most all."""
        return max(1, min(len(self), round(seconds / self.step)))

    def span(self, first: int, last: int) -> str:
        """Return when a stretch of the frames looked at is, in words."""
        if self.timed:
            start, end = self.times[self.numbers[[first, last]]]
            return f"{start:.1f} to {end:.1f} s"
        return f"frames {self.numbers[first]} to {self.numbers[last]}"


def look_at(frames: FrameSet, fps: float | None = None) -> list[Look]:
    """Look at recordings.

    Args:
        frames: recordings with at least :data:`FEWEST` frames each.
        fps: frames a second of a recording without stamps; None where nobody knows.
    """
    least = math.ceil(len(frames) / _MOST)
    rows = zip(names_of(frames.parts), frames.parts, frames.left_out, strict=True)
    return [_look(name, part, left_out, frames.mask, least, fps) for name, part, left_out in rows]


def _look(
    name: str,
    part: CachedFrames,
    left_out: Sequence[tuple[int, int]],
    mask: Mask | None,
    least: int,
    fps: float | None,
) -> Look:
    period = frame_period(part)
    stamps = np.arange(len(part), dtype=np.float64) * (1 / fps if fps else 1)
    if period is not None:
        whole = np.array(part.stamps_ns, np.int64)
        stamps = (whole - whole[0]) / 1e9
    elif fps:
        period = 1 / fps
    every = max(least, round(1 / (RATE * period)) if period else 1, 1)
    every = min(every, len(part) // FEWEST)
    numbers = np.arange(0, len(part), every)
    figures = [
        _figures(part.images[rows] if mask is None else mask.filled(part.images[rows]))
        for rows in np.array_split(numbers, range(_BATCH, len(numbers), _BATCH))
    ]
    grey, cells, sharpness = (np.concatenate(kind) for kind in zip(*figures, strict=True))
    return Look(
        name,
        numbers,
        stamps,
        period is not None,
        every * period if period else 1 / RATE,
        grey,
        cells,
        sharpness,
        ~np.isin(numbers, FrameSet([part], [left_out]).unused),
        mask,
    )


def _figures(images: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
    grey, cells, sharpness = [], [], []
    for image in images:
        whole = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        small = cv2.resize(whole, (_GREY, _GREY), interpolation=cv2.INTER_AREA)
        soft, softer = (cv2.GaussianBlur(small, (0, 0), sigma) for sigma in (0.7, 1.5))
        fine, medium = float(np.square(small - soft).mean()), float(np.square(soft - softer).mean())
        sharpness.append((math.sqrt(fine) + _EMPTY) / (math.sqrt(medium) + _EMPTY))
        grey.append(small)
        colors = cv2.resize(image, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        cells.append(colors.astype(np.float32))
    return np.stack(grey), np.stack(cells), np.array(sharpness, np.float32)


def stretches_of(mask: NDArray[np.bool_], least: int = 1) -> list[tuple[int, int]]:
    """Return the first and the last index of each run of True, of at least so many."""
    edges = np.flatnonzero(np.diff(np.pad(mask, 1).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2) if b - a >= least]


def joined(runs: Sequence[tuple[int, int]], apart: int) -> list[tuple[int, int]]:
    """Return runs with those joined between which there are at most so many others."""
    result: list[tuple[int, int]] = []
    for first, last in runs:
        if result and first - result[-1][1] - 1 <= apart:
            result[-1] = (result[-1][0], last)
        else:
            result.append((first, last))
    return result


def smoothed(values: Floats, reach: int) -> Floats:
    """Return the running median over so many values on either side."""
    padded = np.pad(values, reach, "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.asarray(np.median(windows, axis=1), np.float32)


def directions(cells: Floats) -> Floats:
    """Return a unit vector of each picture, without its mean colour: products are correlations."""
    rows = (cells - cells.mean(axis=(1, 2), keepdims=True)).reshape(len(cells), -1)
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6), np.float32)


def halved(cells: Floats) -> Floats:
    """Return pictures of half the size, [K, S, S, ...]."""
    return np.asarray(
        np.mean([cells[:, y::2, x::2] for y, x in itertools.product((0, 1), (0, 1))], axis=0),
        np.float32,
    )
