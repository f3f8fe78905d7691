"""A robot's drive past a textured wall, for tests of what is judged from many frames."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

_SIDE = 64
_STEP = 9
"""Pixels from one frame to the next."""


def drive_past_wall(count: int, seed: int = 0) -> list[Picture]:
    """Return frames, uint8 RGB [64, 64, 3]: a light wall with doors, above a darker floor.

    Drives of different seeds pass other things; each frame has noise of its own.
    """
    generator = np.random.default_rng(seed)
    shape = (_SIDE, _SIDE + _STEP * count)
    rows = np.arange(_SIDE)[:, np.newaxis]
    world = np.where(rows < 38, 150.0, 70.0).astype(np.float32) * np.ones(shape, np.float32)
    for sigma, contrast in ((1.0, 14.0), (3.0, 20.0), (9.0, 25.0)):
        layer = np.asarray(
            cv2.GaussianBlur(generator.standard_normal(shape, np.float32), (0, 0), sigma)
        )
        world += contrast * layer / layer.std()
    for x in range(12, shape[1] - 12, 31):
        right, grey = x + int(generator.integers(6, 14)), float(generator.integers(60, 220))
        cv2.rectangle(world, (x, 8), (right, 38), grey, -1)
    frames = []
    for number in range(count):
        view = world[:, number * _STEP : number * _STEP + _SIDE, np.newaxis]
        tinted = view * np.array([1.0, 0.95, 0.9])
        noisy = tinted + generator.normal(0, 1.5, tinted.shape)
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return frames
