"""Things that should not be there: solid objects, lines and loops of cable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.faults.base import (
    UNITS,
    Fault,
    Floats,
    Image,
    Mask,
    Stencil,
    as_image,
    blend,
)
from training.evaluation.faults.textures import TEXTURES, random_color

_SIDE = 128
"""Objects are drawn this large, then shrunk to their place."""

Quad = list[tuple[float, float]]


def _place_texture(
    canvas: Floats, alpha: Floats, texture: Floats, quad: Quad, light: float
) -> None:
    """Put a texture on a quadrilateral, corners (x, y) in 0..1 clockwise from top left."""
    corners = np.array(quad, np.float32) * _SIDE
    square = np.array([(0, 0), (_SIDE, 0), (_SIDE, _SIDE), (0, _SIDE)], np.float32)
    warp = cv2.getPerspectiveTransform(square, corners)
    flat = cv2.warpPerspective(texture, warp, (_SIDE, _SIDE), borderMode=cv2.BORDER_REPLICATE)
    face = np.zeros((_SIDE, _SIDE), np.uint8)
    cv2.fillConvexPoly(face, np.rint(corners - 0.5).astype(np.int32), 255)
    canvas[face > 0] = np.asarray(flat, np.float32)[face > 0] * light
    alpha[face > 0] = 1


def _box(rng: np.random.Generator, texture: Floats) -> tuple[Floats, Floats]:
    """A box seen from above its front, the top lit and one side in shade."""
    canvas, alpha = np.zeros((_SIDE, _SIDE, 3), np.float32), np.zeros((_SIDE, _SIDE), np.float32)
    x, y = rng.uniform(0.68, 0.9), rng.uniform(0.12, 0.3)
    front: Quad = [(0, y), (x, y), (x, 1), (0, 1)]
    top: Quad = [(1 - x, 0), (1, 0), (x, y), (0, y)]
    side: Quad = [(x, y), (1, 0), (1, 1 - y), (x, 1)]
    _place_texture(canvas, alpha, texture, front, 0.9)
    _place_texture(canvas, alpha, texture, top, 1.25)
    _place_texture(canvas, alpha, texture, side, 0.5)
    if rng.random() < 0.5:
        canvas, alpha = canvas[:, ::-1], alpha[:, ::-1]
    return canvas, alpha


def _round_shading(rng: np.random.Generator) -> Floats:
    """Brightness across an upright cylinder lit from one side, float [1, SIDE, 1]."""
    across = np.linspace(-1, 1, _SIDE, dtype=np.float32)
    towards = rng.uniform(-0.6, 0.6)
    normal_z = np.sqrt(np.maximum(0, 1 - across**2))
    lit = np.maximum(0, normal_z * np.sqrt(1 - towards**2) + across * towards)
    shine = np.exp(-(((across - towards) / 0.12) ** 2))
    return np.asarray(0.35 + 0.75 * lit + 0.35 * shine, np.float32)[np.newaxis, :, np.newaxis]


def _turned(rng: np.random.Generator, texture: Floats, outline: Floats) -> tuple[Floats, Floats]:
    """A body of revolution; ``outline`` is half its width at every height, float [SIDE], 0..1."""
    across = np.abs(np.linspace(-1, 1, _SIDE, dtype=np.float32))
    alpha = (across[np.newaxis] <= outline[:, np.newaxis]).astype(np.float32)
    return np.asarray(texture * _round_shading(rng), np.float32), alpha


def _can(rng: np.random.Generator, texture: Floats) -> tuple[Floats, Floats]:
    """A can: a printed cylinder with a metal lid."""
    rows, across = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32) / (_SIDE - 1)
    bulge = 0.09 * np.sqrt(np.maximum(0, 1 - (2 * across - 1) ** 2))
    lid = 0.09
    canvas, _ = _turned(rng, texture, np.ones(_SIDE, np.float32))
    alpha = ((rows >= lid - bulge) & (rows <= 1 - lid + bulge)).astype(np.float32)
    canvas[rows <= lid + bulge] = rng.uniform(150, 220)
    canvas[(rows > lid + bulge - 0.03) & (rows <= lid + bulge + 0.01)] = 90
    return canvas, alpha


def _bottle(rng: np.random.Generator, texture: Floats) -> tuple[Floats, Floats]:
    """A bottle: a body with a label, shoulders and a neck with a cap."""
    height = np.linspace(0, 1, _SIDE, dtype=np.float32)
    neck, shoulder = rng.uniform(0.3, 0.45), rng.uniform(0.3, 0.4)
    rise = np.clip((height - 0.18) / (shoulder - 0.18), 0, 1)
    outline = neck + (1 - neck) * (3 * rise**2 - 2 * rise**3)
    plain = np.broadcast_to(random_color(rng, (0.3, 0.9), (0.2, 0.7)), texture.shape).copy()
    label = (height > 0.5) & (height < 0.85)
    plain[label] = texture[label]
    plain[height < 0.1] = random_color(rng, (0.5, 1.0), (0.4, 1.0))
    return _turned(rng, plain, outline)


def _ball(rng: np.random.Generator, texture: Floats) -> tuple[Floats, Floats]:
    """A ball, lit from above."""
    places = np.linspace(-1, 1, _SIDE, dtype=np.float32)
    y, x = np.meshgrid(places, places, indexing="ij")
    radius = np.hypot(x, y)
    z = np.sqrt(np.maximum(0, 1 - radius**2))
    side = rng.uniform(-0.5, 0.5)
    lit = np.maximum(0, side * x - 0.6 * y + 0.65 * z)
    canvas = texture * (0.3 + 0.85 * lit)[..., np.newaxis]
    return np.asarray(canvas, np.float32), (radius <= 1).astype(np.float32)


_SHAPES: dict[str, Callable[[np.random.Generator, Floats], tuple[Floats, Floats]]] = {
    "box": _box,
    "can": _can,
    "bottle": _bottle,
    "ball": _ball,
}


def _random_place(
    rng: np.random.Generator, size: float, rows: tuple[float, float]
) -> tuple[float, float]:
    """Return left and top, in units, of a square whose bottom lies between two rows."""
    left = rng.uniform(0, UNITS - size)
    bottom = rng.uniform(max(rows[0], size), max(rows[1], size))
    return left, bottom - size


@dataclass(frozen=True)
class SolidObject(Fault, group="objects"):
    """An object left on the floor: a shaded box, can, bottle or ball with a texture of its own.

    It is as light as the scene, casts a faint shadow at its foot, and stands anywhere across the
    frame.

    Attributes:
        size: width and height, units.
        shapes: those to draw from.
        textures: surfaces to draw from.
        bottom_rows: the rows between which it stands, units from the top.
    """

    size: float = 10.0
    shapes: tuple[str, ...] = tuple(_SHAPES)
    textures: tuple[str, ...] = tuple(TEXTURES)
    bottom_rows: tuple[float, float] = (38.0, 63.0)

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        shape = _SHAPES[self.shapes[int(rng.integers(len(self.shapes)))]]
        texture = TEXTURES[self.textures[int(rng.integers(len(self.textures)))]](rng, _SIDE)
        canvas, alpha = shape(rng, texture)
        left, top = _random_place(rng, self.size, self.bottom_rows)
        wide = max(1, round(self.size * width / UNITS))
        high = max(1, round(self.size * height / UNITS))
        x = min(round(left * width / UNITS), width - wide)
        y = min(round(top * height / UNITS), height - high)
        # A lamp that lights the scene lights the object too.
        light = np.clip(0.35 + 0.65 * image.mean() / 110, 0.4, 1.2)
        sized = cv2.resize(
            canvas * alpha[..., np.newaxis] * light, (wide, high), interpolation=cv2.INTER_AREA
        )
        cover = cv2.resize(alpha, (wide, high), interpolation=cv2.INTER_AREA)[..., np.newaxis]
        foot = (left + self.size / 2, top + self.size * 0.97)
        shadow = _shadow(image, foot, self.size)
        result = image * (1 - shadow[..., np.newaxis])
        place = slice(y, y + high), slice(x, x + wide)
        result[place] = result[place] * (1 - cover) + sized
        mask = np.zeros((height, width), bool)
        mask[place] = cover[..., 0] >= 0.5
        return as_image(result), mask


def _shadow(image: Image, foot: tuple[float, float], size: float) -> Floats:
    """Return the share of light that an object of ``size`` units takes from the floor."""
    angles = np.linspace(0, 2 * np.pi, 33)
    ring = np.stack([np.cos(angles) * 0.5 * size, np.sin(angles) * 0.05 * size], 1) + foot
    return 0.35 * Stencil().polygon(ring).opacity(image, softness=0.04 * size)


def _contrasting(rng: np.random.Generator, image: Image, least: float) -> Floats:
    """Draw a colour whose brightness differs from the frame's mean by ``least`` grey levels."""
    mean = float(image.mean())
    while True:
        color = random_color(rng, (0.0, 0.9), (0.02, 1.0))
        if abs(float(color.mean()) - mean) >= least:
            return color


@dataclass(frozen=True)
class ThinLines(Fault, group="objects"):
    """Wires or ropes across the way: long thin lines that sag a little.

    Attributes:
        count: least and most lines.
        thickness: thinnest and thickest, units.
        length: shortest and longest, units.
        sag: how far the middle hangs, at most, units.
        contrast: least difference of brightness from the frame's mean, grey levels.
    """

    count: tuple[int, int] = (2, 3)
    thickness: tuple[float, float] = (0.7, 1.3)
    length: tuple[float, float] = (30.0, 55.0)
    sag: float = 5.0
    contrast: float = 50.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        result, mask = image, np.zeros(image.shape[:2], bool)
        for _ in range(int(rng.integers(self.count[0], self.count[1] + 1))):
            angle, length = rng.uniform(0, np.pi), rng.uniform(*self.length)
            along = np.array([np.cos(angle), np.sin(angle)])
            steps = np.linspace(-0.5, 0.5, 25)[:, np.newaxis]
            line = rng.uniform(20, 44, 2) + steps * length * along
            line[:, 1] += rng.uniform(0, self.sag) * (1 - 4 * steps[:, 0] ** 2)
            alpha = Stencil().line(line, rng.uniform(*self.thickness)).opacity(image)
            result = blend(result, _contrasting(rng, image, self.contrast), alpha)
            mask |= alpha >= 0.5
        return result, mask


@dataclass(frozen=True)
class CableLoop(Fault, group="objects"):
    """A cable on the floor: a coil of about two uneven turns and a loose end.

    Attributes:
        size: width of the coil, units; it is drawn flattened, as the floor is seen.
        thickness: of the cable, units.
        contrast: least difference of brightness from the frame's mean, grey levels.
        bottom_rows: the rows between which it ends, units from the top.
    """

    size: float = 22.0
    thickness: float = 1.1
    contrast: float = 40.0
    bottom_rows: tuple[float, float] = (44.0, 62.0)

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        turns = rng.uniform(1.6, 2.8)
        angles = np.linspace(0, 2 * np.pi * turns, 140)
        # Radius and middle wander, so that the turns do not lie on each other.
        radius = 0.5 * self.size * (0.8 + 0.2 * _wandering(rng, angles))
        loop = np.stack([np.cos(angles) * radius, 0.5 * np.sin(angles) * radius], 1)
        loop[:, 0] += 0.12 * self.size * _wandering(rng, angles)
        left, top = _random_place(rng, self.size, self.bottom_rows)
        loop += (left + self.size / 2, top + 0.7 * self.size)
        outwards = np.array([np.cos(angles[-1]), 0.5 * np.sin(angles[-1])])
        end = loop[-1] + self.size * rng.uniform(0.4, 0.8) * outwards
        stencil = Stencil().line(loop, self.thickness).line([loop[-1], end], self.thickness)
        alpha = stencil.opacity(image)
        return blend(image, _contrasting(rng, image, self.contrast), alpha), alpha >= 0.5


def _wandering(rng: np.random.Generator, angles: NDArray[Any]) -> NDArray[Any]:
    """Return values that vary slowly along the turns, between -1 and 1."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    waves = np.sin(0.6 * angles + phase[0]) + 0.6 * np.sin(1.3 * angles + phase[1])
    return np.asarray(waves / 1.6)
