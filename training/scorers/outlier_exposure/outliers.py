"""Outliers made from normal frames: outlier exposure that needs no recorded anomaly.

Outlier exposure (Hendrycks et al. 2019; for robots Mantegazza et al. 2022) teaches a detector with
frames that are surely not normal. Here the trainer makes them from the normal drive itself: foreign
shapes pasted into a frame, in the manner of CutPaste (Li et al. 2021) and DRAEM (Zavrtanik et al.
2021), and faults of the whole picture. They need not look real: they have to be many and varied, so
that what separates them from normal frames is the frame's own normality.

None of them shows the drive's view in another place: no crops of other frames, no views shifted,
zoomed or mirrored, no half of another frame; only a tenth of the pasted shapes is filled with the
frame itself, shifted. Such an outlier shows normal things in another place, and all
that tells it is to know every place of the drive by heart. A network that has learnt that takes the
next unknown corner for an anomaly, and its threshold comes from such corners
(``benchmarks/exposure_ablation.py`` has them for comparison).

The stress test (:mod:`training.evaluation.stress`) has generators of its own; nothing is shared
with them. All pictures here are float32 [S, S, 3], RGB, 0..255, such as [64, 64, 3]; lengths are in
*units*, the 64th part of a side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.preprocessing import INPUT_SIZE

Picture: TypeAlias = NDArray[Any]
Generator: TypeAlias = np.random.Generator
Texture: TypeAlias = Callable[[Generator, int], Picture]
"""From the source of chance and a size S to a texture [S, S, 3]."""
GlobalOutlier: TypeAlias = Callable[[Picture, Generator, Sequence[Texture]], Picture]
"""From a frame, the source of chance and textures to the frame with a fault."""

_FINE = 2
"""Shapes are drawn at so many times the size and then made smaller, which gives them soft edges."""

_MIN_CONTRAST = 6.0
"""Grey levels by which a pasted pixel must differ to count as anomalous: what cannot be seen is not
to be learnt."""

_MIN_AREA = 4.0
"""Square units; smaller shapes are drawn again."""


def vary_normal(picture: Picture, generator: Generator) -> Picture:
    """Vary a normal frame as far as another normal drive may: pose, light, sensor.

    Args:
        picture: float32 [S, S, 3].
        generator: source of chance.
    """
    if generator.random() < 0.8:
        picture = _warp(picture, _pose(generator, len(picture)), cv2.BORDER_REFLECT, generator)
    return _vary_light(picture, generator)


def roll_camera(picture: Picture, generator: Generator) -> tuple[Picture, float]:
    """Show a normal frame as a camera sees it that has rolled about its axis.

    Varied as a normal frame otherwise, and with a single interpolation as those have: a second one
    would make rolled frames less sharp than normal ones, and the network would learn to tell that.

    Args:
        picture: float32 [S, S, 3].
        generator: source of chance.

    Returns:
        The picture, and by how many degrees it has rolled, counterclockwise.
    """
    angle = float(np.exp(generator.uniform(np.log(3), np.log(25))) * generator.choice([-1, 1]))
    # The camera's pixels are square, those of the squeezed frame are not.
    aspect = generator.uniform(1, 1.8)
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    # Corners zoomed away, or in view and mirrored, stretched or black.
    zoom = (
        (cosine + aspect * abs(sine)) * generator.uniform(0.97, 1.1)
        if generator.random() < 0.6
        else generator.uniform(0.95, 1.2)
    )
    roll = np.array([[cosine, sine / aspect], [-sine * aspect, cosine]]) * zoom
    motion = _then(_pose(generator, len(picture)), roll, len(picture))
    borders = (cv2.BORDER_REFLECT, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT)
    border = int(generator.choice(borders, p=(0.6, 0.2, 0.2)))
    return _vary_light(_warp(picture, motion, border, generator), generator), angle


def _pose(generator: Generator, size: int) -> Picture:
    """Return the motion, float64 [2, 3], of a slightly different way through the scene."""
    angle, scale = generator.uniform(-1, 1), 1 + generator.uniform(-0.04, 0.04)
    motion = np.asarray(cv2.getRotationMatrix2D(_center(size), angle, scale), np.float64)
    motion[:, 2] += generator.uniform(-2, 2, 2) * _unit(size)
    return motion


def _then(motion: Picture, stretch: Picture, size: int) -> Picture:
    """Return one motion [2, 3] for another one and then a linear map about the middle."""
    center = np.array(_center(size))
    joined = stretch @ motion
    joined[:, 2] += center - stretch @ center
    return np.asarray(joined)


def _vary_light(picture: Picture, generator: Generator) -> Picture:
    gain = (1 + generator.uniform(-0.15, 0.15)) * (1 + generator.uniform(-0.04, 0.04, 3))
    picture = picture * gain.astype(np.float32) + np.float32(generator.uniform(-8, 8))
    if generator.random() < 0.3:
        sigma = generator.uniform(0, 3) * _unit(len(picture)) ** 0.5
        picture = _add_noise(picture, sigma, generator)
    if generator.random() < 0.3:
        picture = _blur(picture, generator.uniform(0.1, 0.45) * _unit(len(picture)))
    return picture


def add_local_outlier(
    picture: Picture, generator: Generator, textures: Sequence[Texture]
) -> tuple[Picture, Picture]:
    """Paste one to three foreign things into a frame.

    Args:
        picture: float32 [S, S, 3].
        generator: source of chance.
        textures: to fill shapes with, such as :data:`TEXTURES`.

    Returns:
        The picture, and a mask float32 [S, S], 1 where it visibly differs.
    """
    size, unit = len(picture), _unit(len(picture))
    mask = np.zeros((size, size), np.float32)
    count = 1 if generator.random() < 0.8 else int(generator.integers(2, 4))
    for _ in range(count):
        shape = _shape(generator, size)
        filling = _filling(picture, generator, textures)
        if generator.random() < 0.35:
            sigma = generator.uniform(0.5, 4) * unit
            shape = np.asarray(cv2.GaussianBlur(shape, (0, 0), sigma), np.float32)
        if generator.random() < 0.4:
            shape = shape * np.float32(generator.uniform(0.5, 1))
        if generator.random() < 0.3:
            shade = np.linspace(generator.uniform(0.5, 1), generator.uniform(0.5, 1.2), size)
            filling = filling * shade.astype(np.float32)[:, np.newaxis, np.newaxis]
        pasted = _blend(picture, filling, shape[:, :, np.newaxis])
        visible = (shape > 0.3) & (np.abs(pasted - picture).mean(axis=2) > _MIN_CONTRAST)
        mask = np.maximum(mask, visible.astype(np.float32))
        picture = pasted
    return picture, mask


def add_global_outlier(
    picture: Picture,
    generator: Generator,
    textures: Sequence[Texture],
    faults: Sequence[tuple[GlobalOutlier, float]],
) -> Picture:
    """Apply one fault to the whole frame.

    Args:
        picture: float32 [S, S, 3].
        generator: source of chance.
        textures: to cover the frame with, such as :data:`TEXTURES`.
        faults: each with how often it is sampled, in relation to the others, such as
            :data:`GLOBAL_OUTLIERS`.
    """
    shares = np.array([share for _, share in faults])
    fault, _ = faults[generator.choice(len(faults), p=shares / shares.sum())]
    return fault(picture, generator, textures)


# --- local outliers: what is pasted --------------------------------------------------------------


def _shape(generator: Generator, size: int) -> Picture:
    """Draw a shape, float32 [size, size] in 0..1: polygon, ellipse, curve, box or blob."""
    side, unit = _FINE * size, _unit(size)
    while True:
        radius = float(np.exp(generator.uniform(np.log(1.8), np.log(20)))) * _FINE * unit
        center = generator.uniform(0, side, 2)
        draw = _SHAPES[int(generator.integers(len(_SHAPES)))]
        canvas = draw(np.zeros((side, side), np.float32), center, radius, generator)
        shape = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
        if shape.sum() >= _MIN_AREA * unit**2:
            return np.asarray(shape, np.float32)


def _polygon(canvas: Any, center: Any, radius: float, generator: Generator) -> Any:
    corners = int(generator.integers(3, 9))
    angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
    radii = radius * generator.uniform(0.6, 1.3, corners)
    aspect = generator.uniform(0.5, 2) ** 0.5
    offsets = np.stack([np.cos(angles) * aspect, np.sin(angles) / aspect], 1) * radii[:, np.newaxis]
    return cv2.fillPoly(canvas, [(center + offsets).astype(np.int32)], (1.0,))


def _ellipse(canvas: Any, center: Any, radius: float, generator: Generator) -> Any:
    axes = np.maximum(2, radius * generator.uniform(0.5, 1.4, 2)).astype(int).tolist()
    angle = generator.uniform(0, 180)
    return cv2.ellipse(canvas, center.astype(int).tolist(), axes, angle, 0, 360, (1.0,), -1)


def _curve(canvas: Any, center: Any, radius: float, generator: Generator) -> Any:
    fine = len(canvas) / INPUT_SIZE
    steps = generator.normal(0, radius * 1.2 + 4 * fine, (int(generator.integers(2, 5)), 2))
    points = (np.cumsum(steps, 0) + center).astype(np.int32)
    closed = bool(generator.random() < 0.2)
    thickness = int(np.exp(generator.uniform(0, np.log(3.5 * fine))))
    return cv2.polylines(canvas, [points], closed, (1.0,), thickness)


def _box(canvas: Any, center: Any, radius: float, generator: Generator) -> Any:
    sides = (2 * radius * generator.uniform(0.6, 1.2, 2)).tolist()
    corners = cv2.boxPoints((center.tolist(), sides, generator.uniform(0, 90)))
    return cv2.fillPoly(canvas, [corners.astype(np.int32)], (1.0,))


def _blob(canvas: Any, center: Any, radius: float, generator: Generator) -> Any:
    cells = int(generator.integers(3, 9))
    coarse = generator.normal(0, 1, (cells, cells)).astype(np.float32)
    field = cv2.resize(coarse, canvas.shape, interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[0 : len(canvas), 0 : len(canvas)]
    distance = (columns - center[0]) ** 2 + (rows - center[1]) ** 2
    return (field - distance / (1.5 * radius**2) > -0.5).astype(np.float32)


# Thin things are the hardest to see.
_SHAPES: Sequence[Callable[..., Any]] = (_polygon, _ellipse, _curve, _curve, _box, _blob)


def _filling(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    """Return what fills a shape: mostly a foreign texture, else the frame itself, spoilt."""
    kind, size = generator.random(), len(picture)
    if kind < 0.72:
        return _texture(generator, textures, size)
    if kind < 0.80:
        return _blur(picture, generator.uniform(2, 6) * _unit(size))
    if kind < 0.85:
        return np.asarray(picture * np.float32(generator.uniform(0, 0.6)), np.float32)
    if kind < 0.90:
        return np.asarray(
            picture + (255 - picture) * np.float32(generator.uniform(0.3, 0.9)), np.float32
        )
    shift = generator.integers(size // 8, size - size // 8, 2)
    return np.roll(picture, (int(shift[0]), int(shift[1])), (0, 1))


# --- textures -------------------------------------------------------------------------------------


def _texture(generator: Generator, textures: Sequence[Texture], size: int) -> Picture:
    make = textures[int(generator.integers(len(textures)))]
    return np.clip(make(generator, size), 0, 255).astype(np.float32)


def _flat(generator: Generator, size: int) -> Picture:
    return np.full((size, size, 3), generator.uniform(0, 255, 3), np.float32)


def _shaded(generator: Generator, size: int) -> Picture:
    """Smooth shading between four colours."""
    corners = generator.uniform(0, 255, (2, 2, 3)).astype(np.float32)
    return np.asarray(cv2.resize(corners, (size, size)), np.float32)


def _band_noise(generator: Generator, size: int) -> Picture:
    """Noise of one coarseness, grey or coloured."""
    cells = int(2 ** generator.uniform(1, np.log2(size)))
    channels = 3 if generator.random() < 0.6 else 1
    coarse = generator.uniform(0, 255, (cells, cells, channels)).astype(np.float32)
    fine = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    fine = np.broadcast_to(fine.reshape(size, size, channels), (size, size, 3))
    contrast, level = generator.uniform(0.2, 1), generator.uniform(20, 235, 3)
    return np.asarray((fine - 128) * contrast + level, np.float32)


def _stripes(generator: Generator, size: int) -> Picture:
    angle, period = generator.uniform(0, np.pi), generator.uniform(2, size / 4)
    rows, columns = _places(size)
    phase = (columns * np.cos(angle) + rows * np.sin(angle)) * (2 * np.pi / period)
    first = (np.sin(phase) > 0)[:, :, np.newaxis]
    colors = generator.uniform(0, 255, (2, 3))
    return np.asarray(np.where(first, colors[0], colors[1]).astype(np.float32), np.float32)


def _grey_grain(generator: Generator, size: int) -> Picture:
    grain = generator.normal(0, generator.uniform(0, 20), (size, size, 1))
    return np.repeat(generator.uniform(0, 255) + grain, 3, axis=2).astype(np.float32)


TEXTURES: Sequence[Texture] = (
    _flat,
    _shaded,
    _band_noise,
    _stripes,
    _grey_grain,
)
"""Each gives a texture [S, S, 3] from the source of chance."""


# --- global outliers: faults of the whole picture -------------------------------------------------


def _unsharp(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    sigma = float(np.exp(generator.uniform(np.log(0.9), np.log(6))))
    return _blur(picture, sigma * _unit(len(picture)))


def _smeared(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    """Smeared along a line, as by motion."""
    unit = _unit(len(picture))
    length = int(generator.integers(int(4 * unit), int(14 * unit)))
    angle, half = generator.uniform(0, np.pi), (length - 1) / 2
    reach = np.array([np.cos(angle), np.sin(angle)]) * half
    kernel = np.zeros((length, length), np.float32)
    start, end = np.rint(half - reach).astype(int), np.rint(half + reach).astype(int)
    cv2.line(kernel, start.tolist(), end.tolist(), (1.0,))
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum()), np.float32)


def _darkened(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    return np.asarray(picture * np.float32(generator.uniform(0, 0.55)), np.float32)


def _brightened(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    return np.asarray(
        picture * np.float32(generator.uniform(1.45, 3)) + np.float32(generator.uniform(0, 30)),
        np.float32,
    )


def _noisy(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    sigma = float(np.exp(generator.uniform(np.log(9), np.log(50)))) * _unit(len(picture)) ** 0.5
    return _add_noise(picture, sigma, generator, channels=3 if generator.random() < 0.6 else 1)


def _dead_pixels(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    share = generator.uniform(0.01, 0.2)
    chance = generator.random((*picture.shape[:2], 1))
    low, high = chance < share / 2, chance > 1 - share / 2
    return np.where(low, 0.0, np.where(high, 255.0, picture)).astype(np.float32)


def _tinted(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    """Another white balance, or no colour at all."""
    gains = np.exp(generator.normal(0, 0.35, 3))
    gains /= gains.mean()
    if np.abs(gains - 1).max() < 0.18:
        gains[generator.integers(3)] *= generator.choice([0.6, 1.5])
    picture = picture * gains.astype(np.float32)
    kind = generator.random()
    if kind < 0.3:
        picture = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    elif kind < 0.45:
        picture = picture[..., np.roll(np.arange(3), int(generator.integers(1, 3)))]
    return picture


def _veiled(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    """Fog, glare or shade that comes from one side or spreads from a point."""
    angle = generator.uniform(0, 2 * np.pi)
    rows, columns = _places(len(picture))
    if generator.random() < 0.5:
        distance = columns * np.cos(angle) + rows * np.sin(angle)
    else:
        x, y = generator.uniform(0, len(picture), 2)
        distance = np.hypot(columns - x, rows - y)
    share = (distance.max() - distance) / np.ptp(distance)
    share = share ** generator.uniform(0.5, 3)
    weight = (share * generator.uniform(0.5, 1)).astype(np.float32)[:, :, np.newaxis]
    level = generator.uniform(0, 40) if generator.random() < 0.35 else generator.uniform(140, 255)
    veil = np.full(3, level, np.float32) + generator.normal(0, 10, 3).astype(np.float32)
    return _blend(picture, veil, weight)


def _flattened(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    """Too little or too much contrast, or another gamma."""
    if generator.random() < 0.5:
        contrast = float(generator.choice([generator.uniform(0.1, 0.6), generator.uniform(1.8, 3)]))
        mean = picture.mean()
        return np.asarray((picture - mean) * np.float32(contrast) + mean, np.float32)
    gamma = float(generator.choice([generator.uniform(0.25, 0.55), generator.uniform(1.9, 4)]))
    return np.asarray(255 * (np.clip(picture, 0, 255) / 255) ** np.float32(gamma), np.float32)


def _lined(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    """Rows or columns dead, glaring or in a rhythm."""
    size = len(picture)
    lines = np.zeros((size, 1, 1), np.float32)
    if generator.random() < 0.5:
        period, phase = generator.uniform(2, 20), generator.uniform(0, 2 * np.pi)
        wave = np.sin(np.arange(size) * (2 * np.pi / period) + phase)
        lines[:, 0, 0] = wave * generator.uniform(15, 60)
    else:
        hit = generator.random(size) < generator.uniform(0.04, 0.3)
        lines[hit, 0, 0] = generator.normal(0, 90, int(hit.sum()))
    if generator.random() < 0.5:
        lines = lines.transpose(1, 0, 2)
    return np.asarray(picture + lines, np.float32)


def _jittered(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    """Rows out of line, as without synchronisation."""
    sigma = generator.uniform(2, 8) * _unit(len(picture))
    shifts = generator.normal(0, sigma, len(picture)).astype(int)
    rows = [np.roll(row, int(shift), 0) for row, shift in zip(picture, shifts, strict=True)]
    return np.stack(rows)


def _blocky(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    size = len(picture)
    side = size // int(generator.choice([4, 8, 16]))
    coarse = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged, np.float32)


def _compressed(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    quality = int(generator.integers(1, 8))
    data = np.clip(picture, 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", data, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.float32)


def _covered(picture: Picture, generator: Generator, textures: Sequence[Texture]) -> Picture:
    """Covered all over by something out of focus, more or less opaque."""
    size = len(picture)
    cover = _texture(generator, textures, size)
    cover = _blur(cover, generator.uniform(0.5, 10) * _unit(size))
    return _blend(picture, cover, np.float32(generator.uniform(0.5, 1)))


GLOBAL_OUTLIERS: Sequence[tuple[GlobalOutlier, float]] = (
    (_unsharp, 2.2),
    (_smeared, 1.0),
    (_darkened, 1.0),
    (_brightened, 1.0),
    (_noisy, 1.0),
    (_dead_pixels, 0.7),
    (_tinted, 1.2),
    # One of the hardest to learn.
    (_jittered, 2.2),
    (_veiled, 1.0),
    (_flattened, 0.8),
    (_lined, 0.8),
    (_blocky, 0.7),
    (_compressed, 1.0),
    (_covered, 1.3),
)
"""Each fault and how often it is sampled, in relation to the others."""


# --- shared steps ---------------------------------------------------------------------------------


def _unit(size: int) -> float:
    return size / INPUT_SIZE


def _center(size: int) -> tuple[float, float]:
    return (size - 1) / 2, (size - 1) / 2


@functools.cache
def _places(size: int) -> tuple[Picture, Picture]:
    """Return row and column of every pixel."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    return rows, columns


def _warp(picture: Picture, motion: Any, border: int, generator: Generator) -> Picture:
    # Either way of interpolating, so that sharpness says nothing about the motion.
    flags = cv2.INTER_LINEAR if generator.random() < 0.5 else cv2.INTER_CUBIC
    warped = cv2.warpAffine(picture, motion, picture.shape[:2], flags=flags, borderMode=border)
    return np.asarray(warped, np.float32)


def _blur(picture: Picture, sigma: float) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.float32)


def _add_noise(picture: Picture, sigma: float, generator: Generator, channels: int = 3) -> Picture:
    noise = generator.standard_normal((*picture.shape[:2], channels), np.float32)
    return np.asarray(picture + noise * np.float32(sigma), np.float32)


def _blend(picture: Picture, other: Picture, weight: Any) -> Picture:
    return np.asarray(picture * (1 - weight) + other * weight, np.float32)
