"""Seeded texture building blocks: periodic noise, soft blobs and anti-aliased patches."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Colour = tuple[float, float, float]
FloatImage = NDArray[np.float32]
ByteImage = NDArray[np.uint8]

_SUPERSAMPLE = 3


def palette(text: str) -> tuple[Colour, ...]:
    """Return colours from hexadecimal RRGGBB words."""
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, text.split()))


def resize(image: NDArray[np.float32], rows: int, cols: int, how: int) -> FloatImage:
    """`cv2.resize` of a float image with the shape in numpy's order."""
    return np.asarray(cv2.resize(image, (cols, rows), interpolation=how), dtype=np.float32)


def blur(image: FloatImage, sigma: float) -> FloatImage:
    """Gaussian blur; sigma in pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.05)), dtype=np.float32)


def mixed(
    first: ByteImage, second: ByteImage, first_weight: FloatImage, second_weight: FloatImage
) -> ByteImage:
    """The weighted sum of two images (H, W, 3) with weights per pixel (H, W), saturated."""
    # Not cv2.blendLinear: older OpenCV releases do not have it in Python.
    parts = [
        cv2.multiply(image, cv2.merge([weight, weight, weight]), dtype=cv2.CV_32F)
        for image, weight in ((first, first_weight), (second, second_weight))
    ]
    return np.asarray(cv2.add(parts[0], parts[1], dtype=cv2.CV_8U), dtype=np.uint8)


def noise(
    rng: Rng, rows: int, cols: int, cells_down: float, cells_across: float, octaves: int = 1
) -> FloatImage:
    """Smooth noise of about unit variance, shape (rows, cols), periodic across the columns.

    Args:
        rng: the source of randomness.
        rows: image height in pixels.
        cols: image width in pixels.
        cells_down: how many bumps of the coarsest octave fit into the height.
        cells_across: the same for the width.
        octaves: number of octaves; each has twice the cells and half the amplitude.
    """
    total = np.zeros((rows, cols), np.float32)
    power = 0.0
    for octave in range(octaves):
        down = max(1, min(rows, round(cells_down * 2**octave)))
        across = max(1, min(cols, round(cells_across * 2**octave)))
        grid = rng.standard_normal((down + 1, across)).astype(np.float32)
        grid = np.concatenate([grid[:, -2:], grid, grid[:, :2]], axis=1)
        wide = round(cols * grid.shape[1] / across)
        start = round(cols * (grid.shape[1] - across) / 2 / across)
        amplitude = 0.5**octave
        big = resize(grid, rows, wide, cv2.INTER_CUBIC)[:, start : start + cols]
        total += amplitude * big
        power += amplitude**2
    return np.asarray(total / np.float32(np.sqrt(power)), dtype=np.float32)


def blob(
    rng: Rng, size: int, roughness: float = 0.35, detail: int = 4, edge: float = 0.06
) -> FloatImage:
    """A soft irregular blob, shape (size, size), 0 outside to 1 inside, 0 on the border.

    Args:
        rng: the source of randomness.
        size: side in pixels.
        roughness: how far the outline strays from an ellipse.
        detail: octaves of the outline.
        edge: width of the soft edge in units of the radius.
    """
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    xx, yy = np.meshgrid(axis, axis)
    radius = np.sqrt(xx**2 + yy**2) / 0.62
    radius = radius + roughness * noise(rng, size, size, 3, 3, detail) * 0.6
    inside = np.clip((1.0 - radius) / edge, 0.0, 1.0)
    border = np.clip((1.0 - np.maximum(np.abs(xx), np.abs(yy))) / 0.08, 0.0, 1.0)
    return np.asarray(inside * border, dtype=np.float32)


def premultiplied(rgb: NDArray[np.float32], alpha: NDArray[np.float32]) -> ByteImage:
    """An RGBA texture with premultiplied alpha, as the canvas wants it.

    Args:
        rgb: colours, (H, W, 3), 0 to 255.
        alpha: coverage, (H, W), 0 to 1.
    """
    out = np.empty((*alpha.shape, 4), np.float32)
    clipped = np.clip(alpha, 0.0, 1.0)
    out[..., :3] = np.clip(rgb, 0.0, 255.0) * clipped[..., None]
    out[..., 3] = clipped * 255.0
    return np.asarray(np.rint(out), dtype=np.uint8)


def flat(rows: int, cols: int, colour: Sequence[float]) -> FloatImage:
    """An image of one colour, (rows, cols, 3) float32."""
    image = np.empty((rows, cols, 3), np.float32)
    image[:] = np.asarray(colour, np.float32)
    return image


def vary(rng: Rng, colour: Sequence[float], amount: float) -> Colour:
    """`colour` (0 to 255) with its brightness and hue jittered by about `amount` grey levels."""
    out = np.asarray(colour) + rng.normal(0.0, amount) + rng.normal(0.0, amount / 3.0, 3)
    red, green, blue = (float(v) for v in np.clip(out, 0.0, 255.0))
    return red, green, blue


def pick(rng: Rng, colours: Sequence[Colour], amount: float = 6.0) -> Colour:
    """One of `colours`, varied a little."""
    return vary(rng, colours[int(rng.integers(len(colours)))], amount)


class Patch:
    """A small flat drawing in metres, supersampled: origin top left, y down.

    Attributes:
        width: metres.
        height: metres.
    """

    def __init__(self, width: float, height: float, ppm: float, colour: Colour | None) -> None:
        """Start a patch of `width` x `height` metres at `ppm` pixels a metre.

        Args:
            width: metres.
            height: metres.
            ppm: pixels a metre of the finished patch.
            colour: background, or None for a transparent patch.
        """
        self.width, self.height = width, height
        self._rows = max(2, round(height * ppm))
        self._cols = max(2, round(width * ppm))
        self._scale = ppm * _SUPERSAMPLE
        shape = (self._rows * _SUPERSAMPLE, self._cols * _SUPERSAMPLE)
        self._rgb = np.zeros((*shape, 3), np.uint8)
        self._alpha = np.zeros(shape, np.uint8)
        if colour is not None:
            self._rgb[:] = np.asarray(colour, np.float32).astype(np.uint8)
            self._alpha[:] = 255

    def _points(self, points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
        scaled = np.asarray(points, np.float64) * self._scale * 16.0
        return np.asarray(np.rint(scaled), dtype=np.int32)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> Patch:
        """Fill a polygon given in metres."""
        pts = self._points(points)
        cv2.fillPoly(self._rgb, [pts], colour, cv2.LINE_8, 4)
        cv2.fillPoly(self._alpha, [pts], 255.0, cv2.LINE_8, 4)
        return self

    def rect(self, x: float, y: float, w: float, h: float, colour: Colour) -> Patch:
        """Fill an axis-parallel rectangle."""
        return self.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> Patch:
        """Fill an ellipse around (x, y)."""
        angle = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
        points = [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angle]
        return self.polygon(points, colour)

    def line(self, points: Sequence[tuple[float, float]], width: float, colour: Colour) -> Patch:
        """Draw a polyline of `width` metres."""
        thick = max(1, round(width * self._scale))
        pts = self._points(points)
        cv2.polylines(self._rgb, [pts], False, colour, thick, cv2.LINE_8, 4)
        cv2.polylines(self._alpha, [pts], False, 255.0, thick, cv2.LINE_8, 4)
        return self

    def finished(self) -> tuple[FloatImage, FloatImage]:
        """The patch as (rgb (H, W, 3) premultiplied, 0 to 255; alpha (H, W), 0 to 1)."""
        alpha = self._alpha.astype(np.float32) / 255.0
        rgb = self._rgb.astype(np.float32) * alpha[..., None]
        return (
            resize(rgb, self._rows, self._cols, cv2.INTER_AREA),
            resize(alpha, self._rows, self._cols, cv2.INTER_AREA),
        )

    def texture(self) -> ByteImage:
        """The patch as a premultiplied RGBA texture, uint8 (H, W, 4)."""
        rgb, alpha = self.finished()
        out = np.concatenate([rgb, alpha[..., None] * 255.0], axis=2)
        return np.asarray(np.clip(np.rint(out), 0, 255), dtype=np.uint8)


def paste(image: FloatImage, patch: Patch, left: int, top: int, shadow_px: float = 0.0) -> None:
    """Paste `patch` into `image` (periodic across the columns) with a soft shadow below it.

    Args:
        image: (H, W, 3) float32, changed in place.
        patch: what to paste.
        left: column of its left edge; wraps around.
        top: row of its top edge; rows outside the image are cut off.
        shadow_px: softness and drop of the shadow in pixels; 0 for none.
    """
    rgb, alpha = patch.finished()
    margin = int(np.ceil(3 * shadow_px))
    rows, cols = alpha.shape
    top_cut = max(0, top - margin)
    bottom_cut = min(image.shape[0], top + rows + margin)
    if bottom_cut <= top_cut:
        return
    columns = np.arange(left - margin, left + cols + margin) % image.shape[1]
    padded_alpha = np.pad(alpha, margin)
    padded_rgb = np.pad(rgb, ((margin, margin), (margin, margin), (0, 0)))
    cut = slice(top_cut - (top - margin), bottom_cut - (top - margin))
    region = image[top_cut:bottom_cut][:, columns]
    if shadow_px > 0.0:
        drop = np.roll(blur(padded_alpha, shadow_px), round(0.8 * shadow_px), axis=0)
        region = region * (1.0 - 0.45 * drop[cut][..., None])
    image[top_cut:bottom_cut, columns] = (
        region * (1.0 - padded_alpha[cut][..., None]) + padded_rgb[cut]
    )
