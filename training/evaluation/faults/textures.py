"""Surfaces for stress objects: formulas and noise, nothing taken from a picture."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np

from training.evaluation.faults.base import Floats, smooth_noise

Maker = Callable[[np.random.Generator, int], Floats]


def random_color(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.1, 0.95),
    value: tuple[float, float] = (0.15, 1.0),
) -> Floats:
    """Draw a colour, float RGB [3] in 0..255, of any hue."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.asarray(rgb, np.float32) * 255


def _mix(first: Floats, second: Floats, share: Floats) -> Floats:
    share = share[..., np.newaxis]
    return np.asarray(first * (1 - share) + second * share, np.float32)


def _grid(size: int) -> tuple[Floats, Floats]:
    places = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = np.meshgrid(places, places, indexing="ij")
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def _wood(rng: np.random.Generator, size: int) -> Floats:
    """Boards: distorted growth rings between two browns, with fine grain along them."""
    x, y = _grid(size)
    bend = smooth_noise(rng, (size, size), 3)
    rings = (x * rng.uniform(3, 7) + 0.8 * bend + 0.25 * np.sin(6 * y)) % 1.0
    grain = cv2.GaussianBlur(rng.random((size, size), np.float32), (0, 0), 0.8, sigmaY=size / 16)
    light = random_color(rng, (0.35, 0.6), (0.6, 0.9))
    light[1], light[2] = light.max() * 0.72, light.max() * rng.uniform(0.35, 0.5)
    light[0] = light.max()
    return _mix(light, light * 0.55, np.clip(rings + 2 * (grain - 0.5), 0, 1).astype(np.float32))


def _checker(rng: np.random.Generator, size: int) -> Floats:
    """Two colours in squares."""
    x, y = _grid(size)
    cells = int(rng.integers(2, 6))
    odd = (np.floor(x * cells) + np.floor(y * cells)) % 2
    return _mix(random_color(rng), random_color(rng), odd.astype(np.float32))


def _print(rng: np.random.Generator, size: int) -> Floats:
    """A printed label: rows of strokes like words on a light ground, and a coloured bar."""
    surface = np.full((size, size, 3), rng.uniform(170, 250), np.float32)
    ink = random_color(rng, (0.0, 0.9), (0.0, 0.45))
    rows = int(rng.integers(4, 8))
    pitch = size / rows
    for row in range(rows):
        x, top = 0.06 * size, row * pitch + 0.2 * pitch
        while x < 0.9 * size:
            width = rng.uniform(0.03, 0.16) * size
            high = top + rng.uniform(0.45, 0.65) * pitch
            corner = (int(min(x + width, 0.94 * size)), int(high))
            cv2.rectangle(surface, (int(x), int(top)), corner, ink.tolist(), -1)
            x += width + rng.uniform(0.02, 0.06) * size
    start = int(rng.integers(0, rows)) * pitch
    surface[int(start) : int(start + 0.9 * pitch)] = random_color(rng, (0.6, 1.0), (0.5, 1.0))
    return surface


def _gradient(rng: np.random.Generator, size: int) -> Floats:
    """One colour running into another along a random direction, like lacquer under a lamp."""
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
    return _mix(random_color(rng), random_color(rng), np.clip(along + 0.5, 0, 1))


def _natural(rng: np.random.Generator, size: int) -> Floats:
    """Noise whose amplitude falls as 1/f, the spectrum of photographs, around a colour."""
    fy = np.fft.fftfreq(size)[:, np.newaxis]
    fx = np.fft.rfftfreq(size)[np.newaxis]
    amplitude = 1 / np.maximum(np.hypot(fx, fy), 1 / size)
    amplitude[0, 0] = 0
    surface = np.empty((size, size, 3), np.float32)
    shared = rng.standard_normal((2, *amplitude.shape))
    for channel, level in enumerate(random_color(rng, (0.1, 0.7), (0.35, 0.85))):
        own = shared + 0.5 * rng.standard_normal(shared.shape)
        noise = np.fft.irfft2(amplitude * (own[0] + 1j * own[1]), s=(size, size))
        surface[..., channel] = level + 45 * noise / noise.std()
    return np.clip(surface, 0, 255)


def _stripes(rng: np.random.Generator, size: int) -> Floats:
    """Slanted stripes of two colours."""
    x, y = _grid(size)
    slope, count = rng.uniform(-1, 1), rng.uniform(2, 5)
    second = ((x + slope * y) * count) % 1.0 < 0.5
    return _mix(random_color(rng), random_color(rng), second.astype(np.float32))


TEXTURES: dict[str, Maker] = {
    "wood": _wood,
    "checker": _checker,
    "print": _print,
    "gradient": _gradient,
    "natural": _natural,
    "stripes": _stripes,
}
"""Name to maker; a maker takes a generator and a size and gives float RGB [size, size, 3]."""
