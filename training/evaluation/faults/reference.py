"""The reference faults: few, plain, and never to be changed, since figures are quoted for them.

All work on the resized frame, so that they mean the same for every camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.evaluation.faults.base import UNITS, Fault, Image, Mask, as_image


@dataclass(frozen=True)
class FlatBox(Fault, group="reference", stage="input"):
    """A square of one random colour at a random place in the lower half of the frame.

    Attributes:
        size: its side, pixels at 64x64.
        top_row: its highest row.
    """

    size: int
    top_row: int = UNITS // 2

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        x = int(rng.integers(0, UNITS - self.size + 1))
        y = int(rng.integers(self.top_row, UNITS - self.size + 1))
        mask = np.zeros(image.shape[:2], bool)
        mask[y : y + self.size, x : x + self.size] = True
        result = image.copy()
        result[mask] = rng.integers(0, 256, 3)
        return result, mask


@dataclass(frozen=True)
class PlainBlur(Fault, group="reference", stage="input"):
    """Gaussian blur of the resized frame.

    Attributes:
        sigma: standard deviation, pixels at 64x64.
    """

    sigma: float

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), self.sigma), np.uint8), None


@dataclass(frozen=True)
class PlainGain(Fault, group="reference", stage="input"):
    """All pixel values multiplied by one number and clipped.

    Attributes:
        gain: that number; 0 gives black.
    """

    gain: float

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        return as_image(image * self.gain), None


@dataclass(frozen=True)
class PlainNoise(Fault, group="reference", stage="input"):
    """Gaussian noise, independent for every pixel and channel of the resized frame.

    Attributes:
        sigma: standard deviation, grey levels.
    """

    sigma: float

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        return as_image(image + rng.normal(0, self.sigma, image.shape)), None


@dataclass(frozen=True)
class FlatDisc(Fault, group="reference", stage="input"):
    """Dirt on the lens: an opaque grey disc wholly inside the frame, at a random place.

    Attributes:
        radius: pixels at 64x64.
        level: its grey level.
    """

    radius: float
    level: int = 150

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        x, y = rng.uniform(self.radius, UNITS - self.radius, 2)
        rows, columns = np.mgrid[0:UNITS, 0:UNITS] + 0.5
        mask = np.hypot(columns - x, rows - y) <= self.radius
        result = image.copy()
        result[mask] = self.level
        return result, mask


@dataclass(frozen=True)
class PlainTurn(Fault, group="reference", stage="input"):
    """The resized frame turned about its middle to either side, its corners mirrored.

    Attributes:
        degrees: by how much.
    """

    degrees: float

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        angle = self.degrees * (1 if rng.random() < 0.5 else -1)
        middle = (UNITS - 1) / 2
        turn = cv2.getRotationMatrix2D((middle, middle), angle, 1.0)
        # Black corners would be seen more easily than the turn itself.
        result = cv2.warpAffine(image, turn, (UNITS, UNITS), borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(result, np.uint8), None
