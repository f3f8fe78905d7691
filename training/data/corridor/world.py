"""A lit corridor as one texture pyramid, looked up per pixel by the renderer.

The four faces are unrolled into one strip: rows run around the cross section (floor left to right,
right wall up, ceiling right to left, left wall down), columns run along z over one period. Light is
baked in. The strip is stored as a ripmap: seen at a grazing angle, a pixel covers far more of the
corridor's length than of its girth, so each level halves the two directions independently.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.corridor.layout import PERIOD_M, Lamp, Layout, make_layout
from training.data.corridor.surfaces import ceiling_image, floor_image, wall_image
from training.data.corridor.textures import ByteImage, FloatImage, Patch, paste, resize

GIRTH_LEVELS = 5
LENGTH_LEVELS = 9
PAD = 2
_STEP = 2 ** (LENGTH_LEVELS - 1)
_GAMMA = 2.2
_BASE_LEVEL = 0.9


@dataclass(frozen=True)
class Ripmap:
    """All levels of the strip in one image.

    Attributes:
        atlas: uint8 (rows, columns, 3) RGB.
        row0: row of each level's first texel, shape (GIRTH_LEVELS, LENGTH_LEVELS).
        column0: its column, same shape.
    """

    atlas: ByteImage
    row0: NDArray[np.float32]
    column0: NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """A corridor ready to render.

    Attributes:
        layout: what it is made of.
        ripmap: its pixels.
        face_rows: rows of the floor, right wall, ceiling and left wall at level 0.
        columns: columns of one period at level 0.
        object_light: brightness factor for things standing at z, one entry a texel column / 16.
        haze: colour of the far end, (3,) 0 to 255.
    """

    layout: Layout
    ripmap: Ripmap
    face_rows: tuple[int, int, int, int]
    columns: int
    object_light: NDArray[np.float32]
    haze: NDArray[np.float32]

    def light_at(self, z: float) -> float:
        """Brightness factor (about 0.7 to 1.1) for an object at `z` metres."""
        place = (z % PERIOD_M) / PERIOD_M * len(self.object_light)
        return float(self.object_light[int(place) % len(self.object_light)])


@functools.lru_cache(maxsize=2)
def make_world(seed: int, width: int) -> World:
    """Build the corridor of `seed` with textures fine enough for frames `width` pixels wide.

    The two latest corridors are kept in memory (about 70 MB each for 640 pixels).
    """
    layout = make_layout(seed)
    wanted = min(160.0, max(40.0, 160.0 * width / 640.0))
    columns = max(1, round(wanted * PERIOD_M / _STEP)) * _STEP
    ppm = columns / PERIOD_M
    block = 2 ** (GIRTH_LEVELS - 1)
    across = max(1, round(layout.width * ppm / block)) * block
    upright = max(1, round(layout.height * ppm / block)) * block
    strip, light = _bake(layout, seed, across, upright, columns)
    return World(
        layout=layout,
        face_rows=(across, upright, across, upright),
        columns=columns,
        object_light=light,
        haze=strip[:, ::16].reshape(-1, 3).mean(axis=0).astype(np.float32) * np.float32(0.92),
        ripmap=_ripmap(strip),
    )


def _bake(
    layout: Layout, seed: int, across: int, upright: int, columns: int
) -> tuple[ByteImage, NDArray[np.float32]]:
    """The lit strip at level 0 and the light for objects along z."""
    faces = [
        floor_image(layout, np.random.default_rng([seed, 1]), across, columns),
        wall_image(layout, np.random.default_rng([seed, 2]), upright, columns, "right")[::-1],
        ceiling_image(layout, np.random.default_rng([seed, 3]), across, columns),
        wall_image(layout, np.random.default_rng([seed, 4]), upright, columns, "left"),
    ]
    lights = _light_fields(layout)
    level = float(np.mean(lights[0]))
    tint = np.asarray(layout.light_tint, np.float32)
    strip = np.empty((2 * (across + upright), columns, 3), np.uint8)
    row = 0
    for index, (face, field) in enumerate(zip(faces, lights, strict=True)):
        factor = (np.clip(field / level, 0.02, None) ** (1.0 / _GAMMA)).astype(np.float32)
        # One more column on each side, so that the enlarged light is periodic as well.
        factor = np.concatenate([factor[:, -1:], factor, factor[:, :1]], axis=1)
        scale = columns // (factor.shape[1] - 2)
        wide = (factor.shape[1]) * columns / (factor.shape[1] - 2)
        big = resize(factor, face.shape[0], round(wide), cv2.INTER_LINEAR)
        big = big[:, scale : scale + columns]
        lit = np.ascontiguousarray(face * (big[..., None] * tint * np.float32(_BASE_LEVEL)))
        if index == 2:
            _draw_lamps(lit, layout)
        strip[row : row + face.shape[0]] = np.clip(_shoulder(lit), 0.0, 255.0)
        row += face.shape[0]
    middle = 0.5 * (lights[0].mean(axis=0) + lights[1].mean(axis=0)) / level
    return strip, (np.clip(middle, 0.1, 1.6) ** (1.0 / _GAMMA) * _BASE_LEVEL).astype(np.float32)


def _shoulder(lit: FloatImage) -> FloatImage:
    """Compress the brightest values softly, as a camera does."""
    knee = np.float32(185.0)
    over = np.maximum(lit - knee, 0.0)
    return np.asarray(np.minimum(lit, knee) + over / (1.0 + over / 75.0), dtype=np.float32)


def _light_fields(layout: Layout) -> list[NDArray[np.float64]]:
    """Irradiance of the floor, right wall (bottom first), ceiling and left wall, on a grid.

    Each face has 24 rows and 240 columns. Lamps are spread over a few points; the light that comes
    from the other faces is a constant plus what a darker corner loses.
    """
    z = (np.arange(240) + 0.5) / 240 * PERIOD_M
    span = (np.arange(24) + 0.5) / 24
    w, h = layout.width, layout.height
    zeros = np.zeros(24)
    faces = [
        ((span - 0.5) * w, zeros, (0.0, 1.0)),
        (zeros + w / 2, span * h, (-1.0, 0.0)),
        ((0.5 - span) * w, zeros + h, (0.0, -1.0)),
        (zeros - w / 2, (1.0 - span) * h, (1.0, 0.0)),
    ]
    fields = []
    for x, y, normal in faces:
        total = np.zeros((24, 240))
        for lamp in layout.lamps:
            for px, pz in _lamp_points(lamp):
                dz = (pz - z + PERIOD_M / 2) % PERIOD_M - PERIOD_M / 2
                dx, dy = (px - x)[:, None], (h - 0.03 - y)[:, None]
                square = dx**2 + dy**2 + dz[None, :] ** 2
                facing = np.maximum(dx * normal[0] + dy * normal[1], 0.0)
                emitted = np.maximum(dy, 0.0) + 0.02
                total += lamp.power * facing * emitted / square**2
        fields.append(total)
    level = float(np.mean(fields[0]))
    around = 0.55 * level
    for index, field in enumerate(fields):
        if index == 2:
            # The ceiling sees only what the floor and the walls send back.
            field += 0.45 * fields[0].mean(axis=0)[None, :]
            field += 0.30 * level
        corner = np.minimum(span, 1.0 - span) * (w if index % 2 == 0 else h)
        field += around
        field *= (1.0 - 0.42 * np.exp(-corner / 0.10) - 0.12 * np.exp(-corner / 0.45))[:, None]
    return fields


def _lamp_points(lamp: Lamp) -> list[tuple[float, float]]:
    xs = np.linspace(-0.35, 0.35, 2 if lamp.width > 0.3 else 1) * lamp.width + lamp.x
    zs = np.linspace(-0.35, 0.35, 3 if lamp.length > 0.3 else 1) * lamp.length + lamp.z
    return [(float(x), float(z)) for x in xs for z in zs]


def _draw_lamps(ceiling: FloatImage, layout: Layout) -> None:
    rows, columns = ceiling.shape[:2]
    ppm = columns / PERIOD_M
    for lamp in layout.lamps:
        bright = 255.0 if lamp.power > 0.6 else 190.0
        patch = Patch(lamp.length + 0.06, lamp.width + 0.06, ppm, (168.0, 168.0, 166.0))
        patch.rect(0.03, 0.03, lamp.length, lamp.width, (bright, bright, bright))
        if lamp.width >= 0.5 and lamp.length >= 0.5:
            for k in range(1, 4):
                patch.rect(0.03, 0.03 + lamp.width * k / 4, lamp.length, 0.008, (214, 216, 216))
        left = round((lamp.z - patch.width / 2) * ppm)
        paste(ceiling, patch, left, round(rows / 2 - (lamp.x + patch.height / 2) * ppm))
        # Undo the shoulder for the lamp itself: it shall reach white.
    ceiling[ceiling > 250.0] = 400.0


def _ripmap(strip: ByteImage) -> Ripmap:
    """Store all levels (girth i, length j >= i) in one atlas with wrapped borders."""
    rows = strip.shape[0]
    shape = (GIRTH_LEVELS, LENGTH_LEVELS)
    row0, column0 = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    levels: list[tuple[int, int, int, int, ByteImage]] = []
    base = strip
    top = left = width = 0
    for i in range(GIRTH_LEVELS):
        if i > 0:
            base = _halved(_halved(base, 0), 1)
        level = base
        if i >= 2:
            # The third and later rows of levels fit beside the second one.
            top, left = rows + 2 * PAD, width
        elif i == 1:
            top, left = rows + 2 * PAD, 0
        for j in range(i, LENGTH_LEVELS):
            if j > i:
                level = _halved(level, 1)
            levels.append((i, j, top, left, level))
            left += level.shape[1] + 2 * PAD
        width = left if i >= 1 else 0
    high = max(t + lv.shape[0] + 2 * PAD for _, _, t, _, lv in levels)
    wide = max(lf + lv.shape[1] + 2 * PAD for _, _, _, lf, lv in levels)
    atlas = np.zeros((high, wide, 3), np.uint8)
    for i, j, t, lf, level in levels:
        padded = np.pad(level, ((PAD, PAD), (PAD, PAD), (0, 0)), mode="wrap")
        atlas[t : t + padded.shape[0], lf : lf + padded.shape[1]] = padded
        row0[i, j], column0[i, j] = t + PAD, lf + PAD
    return Ripmap(atlas, row0, column0)


def _halved(image: ByteImage, axis: int) -> ByteImage:
    rows, columns = image.shape[:2]
    size = (columns, rows // 2) if axis == 0 else (columns // 2, rows)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
