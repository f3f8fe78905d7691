"""The pixels of a corridor's floor, walls and ceiling, unlit.

Every function returns a float32 image (rows, columns, 3), 0 to 255, whose columns run along z over
one period; walls have their top in row 0, the floor has its left edge in row 0 and the ceiling its
right edge.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.corridor.fixtures import ceiling_patch, door_patch, fixture_patch
from training.data.corridor.layout import DOOR_HEIGHT_M, PERIOD_M, Layout, Side
from training.data.corridor.textures import FloatImage, Patch, Rng, blur, flat, noise, paste


def floor_image(layout: Layout, rng: Rng, rows: int, cols: int) -> FloatImage:
    """The floor covering of a corridor."""
    ppm = cols / PERIOD_M
    image = flat(rows, cols, layout.floor_colours[0])
    other = np.asarray(layout.floor_colours[1], np.float32)
    wear = noise(rng, rows, cols, 2, 24, 3)
    if layout.floor in ("tiles", "terrazzo"):
        tile = layout.floor_tile if layout.floor == "tiles" else 1.0
        across = np.arange(cols) / ppm / tile
        down = np.arange(rows) / ppm / tile + 0.37
        number = np.floor(down)[:, None] * 131 + np.floor(across)[None, :]
        shades = rng.normal(0.0, 4.0, 8192).astype(np.float32)
        per_tile = shades[number.astype(np.int64) % 8192]
        if layout.floor == "tiles":
            checker = (np.floor(down)[:, None] + np.floor(across)[None, :]) % 2 == 1
            image[checker] = other
            image += per_tile[..., None]
            image += (noise(rng, rows, cols, 14, 14 * PERIOD_M / 2.2, 3) * 4.0)[..., None]
        else:
            image += per_tile[..., None] * 0.4
            _sprinkle(image, rng, ppm)
        _grout(image, down, across, tile, ppm, 0.62 if layout.floor == "tiles" else 0.8)
    elif layout.floor == "lino":
        streaks = noise(rng, rows, cols, 60, 60, 2)
        speckle = noise(rng, rows, cols, rows / 2, cols / 2)
        image += (streaks * 4.0 + speckle * 5.0)[..., None]
        seam = np.abs((np.arange(cols) / ppm) % 7.5 - 0.6) < 0.006
        image[:, seam] *= 0.8
        border = max(1, round(0.16 * ppm))
        image[:border] = image[:border] * 0.4 + other * 0.42
        image[-border:] = image[-border:] * 0.4 + other * 0.42
    else:
        square = 0.5
        across = np.floor(np.arange(cols) / ppm / square)
        down = np.floor(np.arange(rows) / ppm / square + 0.3)
        turned = (across[None, :] + down[:, None]) % 2 == 1
        along = noise(rng, rows, cols, rows / 2.5, cols / 9)
        upright = noise(rng, rows, cols, rows / 9, cols / 2.5)
        image[turned] = image[turned] * 0.5 + other * 0.5
        image += (np.where(turned, along, upright) * 8.0)[..., None]
        image += (noise(rng, rows, cols, rows / 1.5, cols / 1.5) * 6.0)[..., None]
    image *= (1.0 + 0.022 * wear)[..., None]
    scuffs = np.clip(noise(rng, rows, cols, 9, 50, 2) - 1.6, 0.0, 1.0)
    return np.asarray(image * (1.0 - 0.16 * scuffs)[..., None], dtype=np.float32)


def _grout(
    image: FloatImage,
    down: NDArray[np.float64],
    across: NDArray[np.float64],
    tile: float,
    ppm: float,
    darkness: float,
) -> None:
    width = max(0.006 / tile, 0.7 / (ppm * tile))
    strength = min(1.0, 0.006 * ppm / 0.7)
    factor = 1.0 - (1.0 - darkness) * strength
    image[np.abs(down - np.round(down)) < width / 2 + 1e-6] *= factor
    image[:, np.abs(across - np.round(across)) < width / 2 + 1e-6] *= factor


def _sprinkle(image: FloatImage, rng: Rng, ppm: float) -> None:
    rows, cols = image.shape[:2]
    for amount, colour in ((0.16, 60.0), (0.14, 215.0), (0.08, 120.0)):
        chips = noise(rng, rows, cols, rows / ppm / 0.016, PERIOD_M / 0.016, 1)
        inside = np.clip((chips - (1.6 - 4 * amount)) * 3.0, 0.0, 1.0) * 0.5
        tint = np.asarray((colour * 1.02, colour * 0.97, colour * 0.92), np.float32)
        image *= 1.0 - inside[..., None]
        image += inside[..., None] * tint


def wall_image(layout: Layout, rng: Rng, rows: int, cols: int, side: Side) -> FloatImage:
    """One wall with its paint, doors and furniture; top in row 0."""
    ppm = cols / PERIOD_M
    image = flat(rows, cols, layout.wall_upper)
    above_floor = np.asarray((rows - 0.5 - np.arange(rows)) / ppm, dtype=np.float64)
    lower = above_floor < layout.dado_height
    image[lower] = np.asarray(layout.wall_lower, np.float32)
    if layout.brick:
        image *= _blockwork(rng, rows, cols, ppm)[..., None]
    else:
        fine = noise(rng, rows, cols, rows / 3, cols / 3)
        image += (fine * 1.8 + noise(rng, rows, cols, 14, 170, 2) * 1.5)[..., None]
    grime = noise(rng, rows, cols, 4, 40, 3) * np.exp(-above_floor / 0.5)[:, None]
    image *= (1.0 - 0.03 * np.abs(grime) - 0.012 * noise(rng, rows, cols, 2, 20, 2))[..., None]
    _scuffs(image, rng, ppm)
    edge = np.abs(above_floor - layout.dado_height) < max(0.012, 0.7 / ppm)
    image[edge] *= 0.82
    if layout.rail:
        _rail(image, above_floor, np.asarray(layout.frame, np.float32))
    skirting = above_floor < layout.skirting_height
    image[skirting] = np.asarray(layout.skirting, np.float32)
    image[np.abs(above_floor - layout.skirting_height) < max(0.008, 0.6 / ppm)] *= 1.12
    image[
        (above_floor > layout.skirting_height)
        & (above_floor < layout.skirting_height + max(0.012, 1.0 / ppm))
    ] *= 0.8
    for fixture in layout.fixtures:
        if fixture.side == side:
            patch = fixture_patch(fixture, rng, ppm)
            top = rows - round((fixture.bottom + fixture.height) * ppm)
            paste(image, patch, round((fixture.z - fixture.width / 2) * ppm), top, 0.018 * ppm)
    for door in layout.doors:
        if door.side == side:
            patch = door_patch(door, layout, rng, ppm)
            top = rows - round((DOOR_HEIGHT_M + 0.07) * ppm)
            paste(image, patch, round((door.z - patch.width / 2) * ppm), top, 0.016 * ppm)
    return image


def _rail(image: FloatImage, above: NDArray[np.float64], colour: FloatImage) -> None:
    profile = (above - 0.82) / 0.14
    on = (profile > 0.0) & (profile < 1.0)
    shade = 0.72 + 0.42 * np.sin(np.clip(profile, 0.0, 1.0) * np.pi * 0.8)
    image[on] = colour * shade[on][:, None, None].astype(np.float32)
    image[(above > 0.70) & (above <= 0.82)] *= 0.84


def _scuffs(image: FloatImage, rng: Rng, ppm: float) -> None:
    """Marks of trolleys and shoes on the lower wall."""
    rows, cols = image.shape[:2]
    marks = np.zeros((rows, cols), np.uint8)
    for _ in range(60):
        z = float(rng.uniform(0.0, PERIOD_M)) * ppm
        y = rows - float(rng.uniform(0.15, 0.8)) * ppm
        length, drop = float(rng.uniform(0.05, 0.6)) * ppm, float(rng.normal(0.0, 0.03)) * ppm
        grey = float(rng.uniform(60.0, 200.0))
        start, end = (round(z), round(y)), (round(z + length), round(y + drop))
        cv2.line(marks, start, end, grey, max(1, round(0.008 * ppm)), cv2.LINE_AA)
    image *= (1.0 - 0.16 / 255.0 * blur(marks.astype(np.float32), 0.006 * ppm + 0.3))[..., None]


def _blockwork(rng: Rng, rows: int, cols: int, ppm: float) -> FloatImage:
    """Painted concrete blocks: a brightness factor per pixel."""
    course, length = 0.2, 0.4
    above = (rows - 0.5 - np.arange(rows)) / ppm / course
    along = np.arange(cols)[None, :] / ppm / length + 0.5 * (np.floor(above)[:, None] % 2)
    width = max(0.010, 0.8 / ppm)
    horizontal = np.abs(above - np.round(above)) * course < width / 2
    vertical = np.abs(along - np.round(along)) * length < width / 2
    number = (np.floor(above)[:, None] * 977 + np.floor(along)).astype(np.int64)
    shades = rng.normal(0.0, 0.012, 4096).astype(np.float32)
    factor = 1.0 + shades[number % 4096]
    factor += 0.018 * noise(rng, rows, cols, rows / 3, cols / 3, 2)
    joint = 1.0 - 0.14 * min(1.0, 0.010 * ppm / 0.8)
    factor[horizontal] *= joint
    factor[vertical] *= joint
    return np.asarray(factor, dtype=np.float32)


def ceiling_image(layout: Layout, rng: Rng, rows: int, cols: int) -> FloatImage:
    """The ceiling without its lamps."""
    ppm = cols / PERIOD_M
    image = flat(rows, cols, layout.ceiling)
    if layout.ceiling_grid:
        fissures = np.clip(noise(rng, rows, cols, rows / 3, cols / 5) - 1.3, 0.0, 1.0)
        image *= (1.0 - 0.10 * fissures)[..., None]
        across = np.abs((np.arange(cols) / ppm / 0.6) % 1.0 - 0.5) * 0.6
        down = np.abs(((np.arange(rows) - rows / 2) / ppm / 0.6) % 1.0 - 0.5) * 0.6
        for axis, distance in enumerate((down, across)):
            for reach, factor in ((0.3 - 0.014, 0.93), (0.3 - 0.008, 0.90)):
                on = distance > min(reach, 0.3 - 0.6 / ppm)
                if axis == 0:
                    image[on] *= factor
                else:
                    image[:, on] *= factor
    else:
        image += (noise(rng, rows, cols, rows / 3, cols / 3) * 1.6)[..., None]
    image *= (1.0 + 0.012 * noise(rng, rows, cols, 3, 40, 2))[..., None]
    lamp_z = [lamp.z for lamp in layout.lamps]
    for name, width, count in (("vent", 0.55, 3), ("detector", 0.16, 4), ("sprinkler", 0.08, 9)):
        for i in range(count):
            gap = int(rng.integers(len(lamp_z)))
            z = lamp_z[gap] + 0.5 * PERIOD_M / len(lamp_z)
            patch: Patch = ceiling_patch(name, width, ppm)
            x = rows / 2 + (0.3 * layout.width * ppm * (1 if i % 2 else -1)) * (name != "vent")
            paste(
                image,
                patch,
                round((z - width / 2) * ppm),
                round(x - width / 2 * ppm),
                0.01 * ppm,
            )
    return image
