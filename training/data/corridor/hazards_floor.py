"""Hazards that lie flat on the floor: water, cables, foil, damage, small parts, dust."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from training.data.corridor.canvas import Canvas
from training.data.corridor.fixtures import scaled
from training.data.corridor.layout import Layout
from training.data.corridor.textures import (
    ByteImage,
    FloatImage,
    Patch,
    Rng,
    blob,
    blur,
    noise,
    palette,
    pick,
    premultiplied,
    resize,
    vary,
)

# Draws a hazard that stands at world z (metres), at a time (seconds).
Drawer = Callable[[Canvas, float, float], None]


def lateral(rng: Rng, layout: Layout, half_width: float, spread: float = 1.0) -> float:
    """A seeded x so that something of `half_width` metres stays between the walls."""
    room = max(0.0, layout.width / 2 - half_width - 0.05) * spread
    return float(rng.uniform(-room, room))


def with_shadow(texture: ByteImage, sigma: float, strength: float) -> ByteImage:
    """A premultiplied texture on top of its own soft shadow (sigma in texels)."""
    alpha = texture[..., 3].astype(np.float32) / 255.0
    below = np.roll(blur(alpha, sigma), round(0.7 * sigma), axis=0) * strength
    out = texture.astype(np.float32)
    out[..., 3] = 255.0 * (alpha + below * (1.0 - alpha))
    return np.asarray(np.clip(np.rint(out), 0, 255), dtype=np.uint8)


def _lying(
    texture: ByteImage, x: float, size: tuple[float, float], turn: float, mask_gain: float
) -> Drawer:
    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        canvas.decal(texture, (x, z), size, turn, mask_gain)

    return draw


def _spread(rng: Rng, side: float, power: float, reach: float) -> tuple[float, float]:
    """Return a place on a square of `side`, denser in its middle."""
    spread = float(rng.uniform(0.0, 1.0)) ** power * side * reach
    bearing = float(rng.uniform(0, 6.28))
    return side / 2 + spread * float(np.cos(bearing)), side / 2 + spread * float(np.sin(bearing))


def water(rng: Rng, layout: Layout) -> Drawer:
    """A puddle that darkens the floor and mirrors the corridor."""
    size = float(rng.uniform(1.0, 1.7))
    extent = (size, size * float(rng.uniform(0.8, 1.5)))
    main = blob(rng, 256, float(rng.uniform(0.25, 0.5)), 3, 0.05)
    texture = premultiplied(np.zeros((256, 256, 3), np.float32), main)
    x, turn = lateral(rng, layout, size * 0.4), float(rng.uniform(0.0, 6.28))
    dull = layout.floor == "carpet"
    darkness, mirror = (0.5, 0.3) if dull else (float(rng.uniform(0.36, 0.5)), 0.9)

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        canvas.wet(texture, (x, z), extent, turn, darkness, mirror)

    return draw


_CABLE_COLOURS = palette("1e1e20 ce6024 c4b23c e2e2de 2e4a8c 28282c")


def cable(rng: Rng, layout: Layout) -> Drawer:
    """A power cable lying in loops or across the floor."""
    ppm, side = 300.0, 1.9
    patch = Patch(side, side, ppm, None)
    colour = pick(rng, _CABLE_COLOURS)
    thick = float(rng.uniform(0.024, 0.038))
    for _ in range(int(rng.integers(1, 3))):
        t = np.linspace(0.0, 1.0, 160)
        if rng.random() < 0.5:
            turns = float(rng.uniform(1.5, 3.2))
            radius = 0.22 + 0.1 * np.sin(2.0 * np.pi * t * 1.3 + float(rng.uniform(0, 6)))
            px = side / 2 + radius * np.cos(2 * np.pi * turns * t) + (t - 0.5) * 0.9
            py = side / 2 + radius * np.sin(2 * np.pi * turns * t) * 0.9
        else:
            px = 0.06 + t * (side - 0.12)
            waves = [
                float(rng.normal(0.0, 0.24 / k)) * np.sin(np.pi * t * k + float(rng.uniform(0, 3)))
                for k in range(1, 6)
            ]
            py = side / 2 + np.add.reduce(waves)
        py = np.clip(py, 0.06, side - 0.06)
        points = list(zip(px.tolist(), py.tolist(), strict=True))
        patch.line(points, thick, scaled(colour, 0.62))
        upper = [(a, b - 0.18 * thick) for a, b in points]
        patch.line(upper, thick * 0.6, colour)
        patch.line([(a, b - 0.3 * thick) for a, b in points], thick * 0.18, scaled(colour, 1.6))
    texture = with_shadow(patch.texture(), 5.0, 0.5)
    x, turn = lateral(rng, layout, 0.85), float(rng.normal(0.0, 0.35))
    return _lying(texture, x, (side, side), turn, 1.3)


def _crumpled(rng: Rng, size: int) -> ByteImage:
    """Clear foil: flat facets between straight creases, some of them with a glint."""
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    xx, yy = np.meshgrid(axis, axis)
    height = np.zeros((size, size), np.float32)
    # A sum of folds along random lines is flat between its creases, like crumpled foil.
    for count, depth in ((24, 0.07), (70, 0.026)):
        for angle, offset, fold in zip(
            rng.uniform(0.0, np.pi, count),
            rng.uniform(-0.9, 0.9, count),
            rng.normal(0.0, depth, count),
            strict=True,
        ):
            wobble = 0.025 * np.sin(5.0 * xx * np.sin(angle) + 5.0 * yy * np.cos(angle) + 9 * fold)
            line = xx * np.cos(angle) + yy * np.sin(angle) - offset + wobble
            height += np.float32(fold) * np.abs(line).astype(np.float32)
    slope_y, slope_x = (np.asarray(g) * size / 2.0 for g in np.gradient(height))
    length = np.sqrt(slope_x**2 + slope_y**2 + 1.0)
    half = rng.normal(0.0, 0.25, 2)
    towards = np.clip((1.0 - slope_x * half[0] - slope_y * (0.35 + half[1])) / length, 0.0, 1.1)
    towards /= np.sqrt(1.0 + half[0] ** 2 + (0.35 + half[1]) ** 2)
    glint = np.clip((towards - 0.80) * 6.0, 0.0, 1.0) ** 3
    crease = np.abs(cv2.Laplacian(height, cv2.CV_32F, ksize=3)) * size
    crease = np.clip(blur(np.asarray(crease, np.float32), 0.8) * 0.35, 0.0, 1.0)
    shape = blob(rng, size, 0.5, 2, 0.03)
    tint = np.asarray(vary(rng, (188, 198, 206), 6.0), np.float32)
    rgb = tint * (0.62 + 0.45 * towards)[..., None] + (70.0 * glint + 40.0 * crease)[..., None]
    rim = np.clip(shape - blur(shape, 2.5), 0.0, 1.0)
    alpha = shape * np.clip(0.20 + 0.62 * glint + 0.42 * crease + 0.8 * rim, 0.0, 0.94)
    return premultiplied(rgb.astype(np.float32), alpha.astype(np.float32))


def cellophane(rng: Rng, layout: Layout) -> Drawer:
    """A crumpled sheet of clear foil with glints and bright creases."""
    side = float(rng.uniform(1.1, 1.6))
    sheet, heap = _crumpled(rng, 240), _crumpled(rng, 220)
    x = lateral(rng, layout, side * 0.35)
    rise = float(rng.uniform(0.22, 0.42))

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        canvas.shadow((x, z), (side * 0.9, side * 0.8), 0.22)
        canvas.decal(sheet, (x, z), (side, side), mask_gain=3.0)
        # The bulging middle: a second sheet that rises away from us.
        w, d = side * 0.85, side * 0.5
        canvas.quad((x - w / 2, rise, z + d / 2), (w, 0, 0), (0, -rise, -d), heap, mask_gain=3.0)

    return draw


def floor(rng: Rng, layout: Layout) -> Drawer:
    """Damage of the floor itself: missing covering, a stained or a discoloured area."""
    size = float(rng.uniform(1.0, 1.6))
    extent = (size, size * float(rng.uniform(0.8, 1.4)))
    n = 320
    base = np.asarray(layout.floor_colours[0], np.float32)
    variant = int(rng.integers(3))
    if variant == 0:
        # Tiles or covering torn out: rough screed with a dark edge.
        grid = 6
        keep = blob(rng, 64, 0.4, 2, 0.3)
        cells = resize(keep, grid, grid, 3) > 0.42
        cells[2:4, 2:4] = True
        alpha = np.kron(cells, np.ones((n // grid + 1, n // grid + 1)))[:n, :n].astype(np.float32)
        alpha = np.clip(blur(alpha, 1.5) * 1.4 - 0.2 + 0.12 * noise(rng, n, n, 30, 30, 2), 0, 1)
        alpha = np.clip((alpha - 0.5) * 8.0 + 0.5, 0.0, 1.0)
        rgb = np.asarray(vary(rng, (118, 110, 100), 10.0), np.float32) + np.zeros((n, n, 3))
        rgb = (
            rgb + (11.0 * noise(rng, n, n, 90, 90, 3) + 9.0 * noise(rng, n, n, 6, 6, 2))[..., None]
        )
        rim = np.clip(1.0 - blur(alpha, 7.0), 0.0, 1.0)
        rgb = rgb * (1.0 - 0.75 * rim[..., None])
        # The far side is in the shadow of its own edge.
        rgb = rgb * (1.0 - 0.35 * np.clip(alpha - np.roll(alpha, 9, axis=0), 0, 1)[..., None])
    elif variant == 1:
        alpha = blob(rng, n, 0.55, 5, 0.25) * 0.82
        tint = pick(rng, ((74, 58, 40), (44, 44, 46), (104, 76, 50)))
        inner = blur(alpha, 12.0)[..., None]
        rgb = np.asarray(tint, np.float32) * (1.25 - 0.35 * inner)
        rgb = rgb + (7.0 * noise(rng, n, n, 12, 12, 3))[..., None]
    else:
        alpha = blob(rng, n, 0.5, 4, 0.05)
        factor = float(rng.choice([0.5, 0.58, 1.5]))
        rgb = np.clip(base * factor + np.asarray((12.0, 4.0, -8.0)), 20, 240) + np.zeros((n, n, 3))
        rgb = rgb + (12.0 * noise(rng, n, n, 40, 40, 3))[..., None]
        cracks = np.abs(noise(rng, n, n, 7, 7, 3)) < 0.045
        rgb = np.where(cracks[..., None], rgb * 0.4, rgb)
    texture = premultiplied(rgb.astype(np.float32), alpha.astype(np.float32))
    x, turn = lateral(rng, layout, size * 0.4), 0.0 if variant == 0 else float(rng.uniform(0, 6))
    return _lying(texture, x, extent, turn, 1.5)


def screws(rng: Rng, layout: Layout) -> Drawer:
    """Bolts, screws and nuts scattered on the floor."""
    side = float(rng.uniform(0.8, 1.1))
    patch = Patch(side, side, 520.0, None)
    metal = pick(rng, ((196, 198, 202), (208, 180, 108), (84, 84, 90), (190, 192, 198)))
    for _ in range(int(rng.integers(45, 75))):
        cx, cy = _spread(rng, side, 0.7, 0.43)
        angle = float(rng.uniform(0, 6.28))
        tone = vary(rng, metal, 12.0)
        length = float(rng.uniform(0.035, 0.08))
        dx, dy = float(np.cos(angle)) * length, float(np.sin(angle)) * length
        if rng.random() < 0.25:
            patch.ellipse(cx, cy, 0.014, 0.014, scaled(tone, 0.75))
            patch.ellipse(cx, cy, 0.006, 0.006, (40, 40, 42))
            continue
        patch.line([(cx, cy), (cx + dx, cy + dy)], 0.011, scaled(tone, 0.6))
        patch.line([(cx, cy - 0.002), (cx + dx, cy + dy - 0.002)], 0.005, scaled(tone, 1.2))
        patch.ellipse(cx, cy, 0.014, 0.014, scaled(tone, 0.7))
        patch.ellipse(cx - 0.002, cy - 0.003, 0.009, 0.009, scaled(tone, 1.15))
    texture = with_shadow(patch.texture(), 4.0, 0.55)
    x = lateral(rng, layout, side * 0.45, 0.8)
    return _lying(texture, x, (side, side), 0.0, 2.2)


def shard(rng: Rng, layout: Layout) -> Drawer:
    """Broken glass or crockery."""
    side = float(rng.uniform(0.9, 1.2))
    patch = Patch(side, side, 400.0, None)
    glass = bool(rng.random() < 0.5)
    crockery = ((232, 230, 224), (86, 112, 150), (176, 92, 66))
    tone = pick(rng, ((198, 220, 210), (186, 206, 214)) if glass else crockery)
    for _ in range(int(rng.integers(18, 32))):
        cx, cy = _spread(rng, side, 0.6, 0.38)
        size = float(rng.uniform(0.02, 0.10))
        angles = np.sort(rng.uniform(0.0, 2 * np.pi, int(rng.integers(3, 6))))
        points = [
            (cx + size * float(np.cos(a)), cy + size * float(np.sin(a)) * 0.8) for a in angles
        ]
        own = vary(rng, scaled(tone, float(rng.uniform(0.7, 1.1))), 8.0)
        patch.polygon(points, scaled(own, 0.8))
        inner = [(cx + (a - cx) * 0.86, cy + (b - cy) * 0.86 - 0.003) for a, b in points]
        patch.polygon(inner, own)
        patch.line(points[:2], 0.005, (250, 252, 252))
    texture = patch.texture()
    if glass:
        texture = np.asarray(texture * np.float32(0.72), dtype=np.uint8)
    texture = with_shadow(texture, 5.0, 0.45)
    x = lateral(rng, layout, side * 0.45, 0.8)
    return _lying(texture, x, (side, side), 0.0, 1.6)


def sawdust(rng: Rng, layout: Layout) -> Drawer:
    """A spill of sawdust, dense in the middle and grainy at the edge."""
    side = float(rng.uniform(0.9, 1.4))
    n = 420
    axis = np.linspace(-1.0, 1.0, n, dtype=np.float32)
    radius = np.hypot(axis[None, :], axis[:, None]) / 0.8
    heap = np.clip(1.0 - radius + 0.22 * noise(rng, n, n, 4, 4, 4), 0.0, 1.0)
    grains = rng.random((n, n)).astype(np.float32)
    alpha = np.clip((heap * 3.2 - grains * 0.9) * 3.0, 0.0, 1.0) * (radius < 1.24)
    relief = heap + 0.05 * noise(rng, n, n, 24, 24, 3)
    slope = blur((relief - np.roll(relief, -3, axis=0)).astype(np.float32), 2.0)
    tint = np.asarray(pick(rng, ((208, 172, 116), (222, 190, 140), (180, 138, 88))), np.float32)
    shade = 1.0 - np.clip(slope * 5.0, -0.25, 0.4) + 0.09 * noise(rng, n, n, n / 2, n / 2)
    rgb: FloatImage = (tint * shade[..., None]).astype(np.float32)
    texture = premultiplied(rgb, alpha.astype(np.float32))
    x, turn = lateral(rng, layout, side * 0.4), float(rng.normal(0.0, 0.3))
    return _lying(texture, x, (side, side * 0.9), turn, 1.6)
