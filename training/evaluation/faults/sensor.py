"""Faults of the sensor and its settings: exposure, colour and noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.evaluation.faults.base import (
    UNITS,
    Fault,
    Image,
    Mask,
    as_image,
    optical_scale,
    wide_blur,
)


@dataclass(frozen=True)
class Dark(Fault, group="sensor"):
    """The lights are out or the exposure is too short: less light, and the sensor's own noise.

    Attributes:
        gain: share of the light that is left.
        read_noise: standard deviation per camera pixel, grey levels.
    """

    gain: float = 0.3
    read_noise: float = 2.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        noise = self.read_noise * rng.standard_normal(image.shape, np.float32)
        return as_image(image * np.float32(self.gain) + noise), None


@dataclass(frozen=True)
class Black(Fault, group="sensor"):
    """A dead sensor or a closed shutter: black except for the sensor's own noise.

    Attributes:
        level: darkest and brightest black, grey levels.
        read_noise: standard deviation per camera pixel, grey levels.
    """

    level: tuple[float, float] = (0.0, 5.0)
    read_noise: float = 1.5

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        noise = self.read_noise * rng.standard_normal(image.shape, np.float32)
        return as_image(np.float32(rng.uniform(*self.level)) + noise), None


@dataclass(frozen=True)
class Bright(Fault, group="sensor"):
    """Too long an exposure: the light parts run into white.

    Attributes:
        gain: by which the light is multiplied.
    """

    gain: float = 1.8

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        return as_image(image * self.gain), None


@dataclass(frozen=True)
class Overexposed(Fault, group="sensor"):
    """The sensor blinded by light: most is white, and white spills into its surroundings.

    Attributes:
        gain: by which the light is multiplied.
        bloom: standard deviation of the spill, units.
        spill: share of the light above white that spills.
    """

    gain: float = 3.5
    bloom: float = 4.0
    spill: float = 0.3

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        light = image.astype(np.float32) * self.gain
        excess = np.maximum(light - 255, 0)
        halo = wide_blur(excess, self.bloom * optical_scale(image))
        return as_image(light + self.spill * halo), None


@dataclass(frozen=True)
class ColorCast(Fault, group="sensor"):
    """A wrong white balance or a lost colour filter: one of four tints over the frame.

    Attributes:
        tints: gains of red, green and blue to draw from.
        strength: least and most of the tint that is applied, 1 for all.
    """

    tints: tuple[tuple[float, float, float], ...] = (
        (1.4, 0.95, 0.5),
        (0.55, 0.9, 1.5),
        (0.7, 1.35, 0.7),
        (1.35, 0.6, 1.3),
    )
    strength: tuple[float, float] = (0.7, 1.0)

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        tint = np.array(self.tints[int(rng.integers(len(self.tints)))])
        return as_image(image * (1 + rng.uniform(*self.strength) * (tint - 1))), None


@dataclass(frozen=True)
class SensorNoise(Fault, group="sensor"):
    """Noise of a camera at its highest gain: blotchy grain, as denoising leaves it.

    White noise per camera pixel would be averaged away by resizing; the grain is scaled so that
    the resized frame has the given deviation, before it is clipped to 0..255.

    Attributes:
        sigma: standard deviation at 64x64, grey levels.
        grain: standard deviation of the blur of white noise that makes the blotches, units.
    """

    sigma: float = 20.0
    grain: float = 0.35

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        noise = rng.standard_normal(image.shape, np.float32)
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), self.grain * optical_scale(image)))
        seen = cv2.resize(noise, (UNITS, UNITS), interpolation=cv2.INTER_AREA)
        return as_image(image + noise * (self.sigma / float(np.std(seen)))), None


@dataclass(frozen=True)
class SaltAndPepper(Fault, group="sensor"):
    """Bit errors on the way from the sensor: black and white specks of one unit.

    Attributes:
        share: of the frame that is covered by specks, half of them black.
    """

    share: float = 0.05

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        draws = cv2.resize(
            rng.random((UNITS, UNITS)), (width, height), interpolation=cv2.INTER_NEAREST
        )
        result = image.copy()
        result[draws < self.share / 2] = 0
        result[draws > 1 - self.share / 2] = 255
        return result, None
