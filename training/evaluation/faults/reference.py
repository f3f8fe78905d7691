"""The reference faults: few, plain, and never to be changed, since figures are quoted for them.

All work on the resized frame, so that they mean the same for every camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from .base import UNITS, Fault, Image, Mask, Stage, as_image


@dataclass(frozen=True)
class FlatBox(Fault):
    """A square of one random colour at a random place in the lower half of the frame.

    Attributes:
        size: its side, pixels at 64x64.
        top_row: its highest row.
    """

    size: int
    top_row: int = UNITS // 2

    group: ClassVar[str] = "reference"
    stage: ClassVar[Stage] = "input"

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        """See :meth:`Fault.apply`."""
        x = int(rng.integers(0, UNITS - self.size + 1))
        y = int(rng.integers(self.top_row, UNITS - self.size + 1))
        mask = np.zeros(image.shape[:2], bool)
        mask[y : y + self.size, x : x + self.size] = True
        result = image.copy()
        result[mask] = rng.integers(0, 256, 3)
        return result, mask


@dataclass(frozen=True)
class PlainBlur(Fault):
    """Gaussian blur of the resized frame.

    Attributes:
        sigma: standard deviation, pixels at 64x64.
    """

    sigma: float

    group: ClassVar[str] = "reference"
    stage: ClassVar[Stage] = "input"

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        """See :meth:`Fault.apply`."""
        return np.asarray(cv2.GaussianBlur(image, (0, 0), self.sigma), np.uint8), None


@dataclass(frozen=True)
class PlainGain(Fault):
    """All pixel values multiplied by one number and clipped.

    Attributes:
        gain: that number; 0 gives black.
    """

    gain: float

    group: ClassVar[str] = "reference"
    stage: ClassVar[Stage] = "input"

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        """See :meth:`Fault.apply`."""
        return as_image(image * self.gain), None


@dataclass(frozen=True)
class PlainNoise(Fault):
    """Gaussian noise, independent for every pixel and channel of the resized frame.

    Attributes:
        sigma: standard deviation, grey levels.
    """

    sigma: float

    group: ClassVar[str] = "reference"
    stage: ClassVar[Stage] = "input"

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        """See :meth:`Fault.apply`."""
        return as_image(image + rng.normal(0, self.sigma, image.shape)), None


@dataclass(frozen=True)
class FlatDisc(Fault):
    """Dirt on the lens: an opaque grey disc wholly inside the frame, at a random place.

    Attributes:
        radius: pixels at 64x64.
        level: its grey level.
    """

    radius: float
    level: int = 150

    group: ClassVar[str] = "reference"
    stage: ClassVar[Stage] = "input"

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        """See :meth:`Fault.apply`."""
        x, y = rng.uniform(self.radius, UNITS - self.radius, 2)
        rows, columns = np.mgrid[0:UNITS, 0:UNITS] + 0.5
        mask = np.hypot(columns - x, rows - y) <= self.radius
        result = image.copy()
        result[mask] = self.level
        return result, mask


@dataclass(frozen=True)
class PlainTurn(Fault):
    """The resized frame turned about its middle to either side, its corners mirrored.

    Attributes:
        degrees: by how much.
    """

    degrees: float

    group: ClassVar[str] = "reference"
    stage: ClassVar[Stage] = "input"

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        """See :meth:`Fault.apply`."""
        angle = self.degrees * (1 if rng.random() < 0.5 else -1)
        middle = (UNITS - 1) / 2
        turn = cv2.getRotationMatrix2D((middle, middle), angle, 1.0)
        # Black corners would be seen more easily than the turn itself.
        result = cv2.warpAffine(image, turn, (UNITS, UNITS), borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(result, np.uint8), None
