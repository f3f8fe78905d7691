"""Hazards with a body: boxes, cones, tape, trolleys, rubble, foam, cables from above, doors."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from training.data.corridor.canvas import Canvas, Capsule
from training.data.corridor.fixtures import door_leaf, scaled
from training.data.corridor.hazards_floor import Drawer, lateral
from training.data.corridor.layout import DOOR_HEIGHT_M, Door, Layout
from training.data.corridor.textures import (
    ByteImage,
    Colour,
    FloatImage,
    Patch,
    Rng,
    blob,
    blur,
    noise,
    pick,
    premultiplied,
    vary,
)

_CUBE = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
Point = tuple[float, float, float]


def _cube(size: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size / 2
    c, s = float(np.cos(turn)), float(np.sin(turn))
    return np.asarray(corners @ np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]))


def hanging_cable(rng: Rng, layout: Layout) -> Drawer:
    """Cables that hang from the ceiling, straight down or in loops."""
    top = layout.height
    colour = pick(rng, ((32, 32, 34), (208, 100, 40), (120, 122, 126), (40, 40, 42)))
    radius = float(rng.uniform(0.012, 0.02))
    strands: list[NDArray[np.float64]] = []
    x0 = lateral(rng, layout, 0.35, 0.85)
    for _ in range(int(rng.integers(1, 4))):
        t = np.linspace(0.0, 1.0, 22)
        start = x0 + float(rng.normal(0.0, 0.12))
        low = float(rng.uniform(0.25, 0.9))
        depth = float(rng.normal(0.0, 0.15))
        if rng.random() < 0.55:
            width = float(rng.uniform(0.4, 0.9)) * (1 if start < 0 else -1)
            x = start + width * t
            y = top - (top - low) * (1.0 - (2.0 * t - 1.0) ** 2) ** 0.8
        else:
            sway, phase = float(rng.normal(0.0, 0.07)), float(rng.uniform(0, 6))
            x = start + sway * np.sin(3.2 * t + phase) * t + 0.10 * t**6 * np.sin(14.0 * t)
            y = top - (top - low) * t
        strands.append(np.stack([x, y, np.full_like(t, depth)], axis=1))

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        swing = 0.012 * float(np.sin(1.7 * seconds))
        rods = []
        for strand in strands:
            points = strand + np.array([0.0, 0.0, z])
            points[:, 0] += swing * (top - points[:, 1])
            pairs = itertools.pairwise(points.tolist())
            rods += [Capsule(a, b, radius, radius, colour, shine=0.3) for a, b in pairs]
        canvas.capsules(rods)

    return draw


def _cardboard(rng: Rng, width: float, height: float, top: bool) -> tuple[ByteImage, Colour]:
    base = pick(rng, ((178, 136, 92), (190, 152, 106), (164, 124, 84), (206, 200, 190)), 5.0)
    patch = Patch(width, height, 260.0, base)
    grooves = int(width / 0.03)
    for i in range(grooves):
        patch.rect(i * 0.03, 0.0, 0.008, height, scaled(base, 0.98 if i % 2 else 1.02))
    tape = pick(rng, ((206, 186, 140), (140, 104, 66)))
    if top:
        patch.rect(0.0, height / 2 - 0.003, width, 0.006, scaled(base, 0.5))
        patch.rect(0.0, height / 2 - 0.03, width, 0.06, scaled(tape, 1.05))
    else:
        patch.rect(width / 2 - 0.03, 0.0, 0.06, min(0.1, height / 3), tape)
        if rng.random() < 0.75:
            lx, ly = width * float(rng.uniform(0.1, 0.5)), height * float(rng.uniform(0.3, 0.5))
            lw, lh = min(0.16, width * 0.4), min(0.11, height * 0.4)
            patch.rect(lx, ly, lw, lh, (236, 234, 228))
            for line in range(4):
                patch.rect(lx + 0.01, ly + 0.015 + 0.02 * line, lw * 0.7, 0.006, (90, 90, 92))
        patch.rect(0.0, height - 0.012, width, 0.012, scaled(base, 0.7))
    return patch.texture(), base


def boxes(rng: Rng, layout: Layout) -> Drawer:
    """One to five cardboard boxes, side by side or stacked."""
    parts: list[tuple[float, float, float, Point, float, list[ByteImage], Colour]] = []
    x0 = lateral(rng, layout, 0.42)
    count = int(rng.integers(1, 4))
    for i in range(count):
        w, h, d = rng.uniform((0.3, 0.22, 0.28), (0.6, 0.5, 0.5)).tolist()
        turn = float(rng.normal(0.0, 0.35))
        bx = x0 + (i - (count - 1) / 2) * 0.52 + float(rng.normal(0.0, 0.04))
        bx = float(np.clip(bx, -layout.width / 2 + 0.35, layout.width / 2 - 0.35))
        bz = float(rng.normal(0.0, 0.06)) + 0.48 * (i % 2)
        side, colour = _cardboard(rng, w, h, False)
        parts.append((bx, bz, 0.0, (w, h, d), turn, [side, _cardboard(rng, w, d, True)[0]], colour))
        if rng.random() < 0.5:
            small = (w * 0.8, float(rng.uniform(0.18, 0.36)), d * 0.8)
            tex, upper = _cardboard(rng, small[0], small[1], False)
            lid = _cardboard(rng, small[0], small[2], True)[0]
            parts.append((bx, bz, h, small, turn + float(rng.normal(0, 0.2)), [tex, lid], upper))
    parts.sort(key=lambda p: (-p[1], p[2]))

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        for bx, bz, bottom, size, _turn, _faces, _colour in parts:
            if bottom == 0.0:
                canvas.shadow((bx, z + bz), (size[0] * 1.75, size[2] * 1.75), 0.55)
        for bx, bz, bottom, size, turn, faces, colour in parts:
            canvas.box((bx, z + bz), bottom, size, turn, faces, colour)

    return draw


def _cone_texture(rng: Rng, top: float, bottom: float) -> tuple[ByteImage, Colour]:
    rows, columns = 300, 160
    y = np.linspace(0.0, 1.0, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, columns, dtype=np.float32)[None, :]
    radius = (top + (bottom - top) * y) / bottom
    across = x / radius
    alpha = np.clip((radius - np.abs(x)) * columns / 2 + 0.5, 0.0, 1.0)
    round_ = np.sqrt(np.clip(1.0 - across**2, 0.0, 1.0))
    orange = pick(rng, ((226, 84, 30), (214, 70, 28), (230, 104, 36)))
    level = y + 0.035 * (1.0 - round_)
    rgb = np.broadcast_to(np.asarray(orange, np.float32), (rows, columns, 3)).copy()
    bands = ((0.28, 0.42), (0.58, 0.74)) if rng.random() < 0.7 else ((0.34, 0.6),)
    for start, stop in bands:
        rgb[(level > start) & (level < stop)] = (228.0, 228.0, 224.0)
    shade = 0.48 + 0.52 * np.clip(0.85 * round_ - 0.3 * across, 0.0, 1.0)
    lit: FloatImage = np.asarray(rgb * shade[..., None], dtype=np.float32)
    return premultiplied(lit, np.asarray(alpha, dtype=np.float32)), orange


def cones(rng: Rng, layout: Layout) -> Drawer:
    """One to four traffic cones."""
    height = float(rng.uniform(0.48, 0.78))
    bottom, top = 0.19 * height + 0.03, 0.028
    texture, orange = _cone_texture(rng, top, bottom)
    base = pick(rng, (scaled(orange, 0.9), (44, 44, 46)))
    count = int(rng.integers(1, 5))
    x0 = lateral(rng, layout, 0.3)
    edge = layout.width / 2 - 0.25
    places = [
        (
            float(np.clip(x0 + (i - (count - 1) / 2) * 0.5, -edge, edge)),
            float(rng.normal(0.0, 0.25)),
            float(rng.uniform(0.0, 1.5)),
        )
        for i in range(count)
    ]
    places.sort(key=lambda p: -p[1])

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        for x, dz, turn in places:
            canvas.shadow((x, z + dz), (bottom * 5.0, bottom * 4.4), 0.5)
            side = bottom * 2.35
            canvas.box((x, z + dz), 0.0, (side, 0.035, side), turn, None, base)
            canvas.quad(
                (x - bottom, height, z + dz), (2 * bottom, 0, 0), (0, 0.03 - height, 0), texture
            )

    return draw


def tape(rng: Rng, layout: Layout) -> Drawer:
    """Barrier tape across the corridor."""
    first, second = (
        ((206, 44, 38), (236, 234, 230)),
        ((226, 186, 40), (38, 38, 40)),
        ((206, 44, 38), (236, 234, 230)),
    )[int(rng.integers(3))]
    half = layout.width / 2
    width = float(rng.uniform(0.075, 0.12))
    level = float(rng.uniform(0.45, 0.95))
    lines = [(level + float(rng.normal(0, 0.08)), level + float(rng.normal(0, 0.08)))]
    kind = int(rng.integers(3))
    if kind == 1:
        lines = [(0.35, 1.05), (1.05, 0.35)]
    elif kind == 2:
        lines.append((level + 0.4, level + 0.4 + float(rng.normal(0, 0.06))))
    sag, skew = float(rng.uniform(0.02, 0.14)), float(rng.normal(0.0, 0.15))
    step = width * 1.3
    count = int(np.ceil(2 * half / step))

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        for left, right in lines:
            t = np.linspace(0.0, 1.0, count + 1)
            x = -half + 2 * half * t
            y = left + (right - left) * t - sag * 4 * t * (1 - t)
            y = y + 0.006 * np.sin(2.1 * seconds + 9.0 * t)
            depth = z + skew * (2 * t - 1) + 0.02 * np.sin(11.0 * t)
            lower = np.stack([x, y - width / 2, depth], axis=1)
            upper = np.stack([x, y + width / 2, depth], axis=1)
            lean = step * 0.55
            for i in range(count):
                colour = first if i % 2 else second
                shade = 0.9 + 0.12 * float(np.sin(7.0 * t[i]))
                a, b = lower[i].copy(), lower[i + 1].copy()
                c, d = upper[i + 1].copy(), upper[i].copy()
                c[0], d[0] = min(c[0] + lean, half), min(d[0] + lean, half)
                canvas.polygon(np.stack([a, b, c, d]), colour, shade)

    return draw


def trolley(rng: Rng, layout: Layout) -> Drawer:
    """A platform trolley or a service cart."""
    x = lateral(rng, layout, 0.42)
    turn = float(rng.normal(0.0, 0.5)) + (1.57 if rng.random() < 0.4 else 0.0)
    platform = bool(rng.random() < 0.5)
    w, d = (0.6, 0.85) if platform else (0.5, 0.75)
    height = 0.95 if platform else 0.92
    metal = pick(rng, ((170, 174, 178), (70, 74, 80), (60, 92, 150)))
    deck = pick(rng, ((62, 66, 74), (150, 118, 84), (52, 84, 132), (186, 188, 188)))
    loads = []
    if rng.random() < 0.75:
        size = (0.42, float(rng.uniform(0.22, 0.4)), 0.45)
        side, colour = _cardboard(rng, size[0], size[1], False)
        loads.append((size, [side, _cardboard(rng, size[0], size[2], True)[0]], colour))
    c, s = float(np.cos(turn)), float(np.sin(turn))

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        def at(a: float, y: float, b: float) -> Point:
            return x + c * a - s * b, y, z + s * a + c * b

        def rod(p: Point, q: Point, radius: float, colour: Colour, shine: float = 0.4) -> Capsule:
            return Capsule(p, q, radius, radius, colour, shine=shine)

        canvas.shadow((x, z), (1.3, 1.3), 0.6)
        wheels = itertools.product((-w / 2 + 0.06, w / 2 - 0.06), (-d / 2 + 0.09, d / 2 - 0.09))
        canvas.capsules(
            [
                rod(at(a - 0.012, 0.062, b), at(a + 0.012, 0.062, b), 0.06, (46, 46, 48), 0.1)
                for a, b in wheels
            ]
        )
        corners = [(a, b) for a in (-w / 2 + 0.02, w / 2 - 0.02) for b in (-d / 2, d / 2)]
        if platform:
            corners = [(a, b) for a, b in corners if b > 0]
        posts = [rod(at(a, 0.15, b), at(a, height, b), 0.016, metal) for a, b in corners]
        posts += [
            rod(at(-w / 2 + 0.02, height, b), at(w / 2 - 0.02, height, b), 0.017, metal)
            for b in sorted({b for _, b in corners})
        ]
        eye = canvas.view.centre

        def distance(p: Capsule) -> float:
            middle = (np.asarray(p.start) + np.asarray(p.end)) / 2
            return float(np.hypot(middle[0] - eye[0], middle[2] - eye[2]))

        own = float(np.hypot(x - eye[0], z - eye[2]))
        canvas.capsules([p for p in posts if distance(p) > own])
        shelves = (0.14,) if platform else (0.16, 0.50, 0.84)
        for i, level in enumerate(shelves):
            canvas.box((x, z), level, (w, 0.05, d), turn, None, deck if platform else metal)
            if i == len(shelves) - 1 or (i == 0 and not platform):
                for (wide, high, deep), faces, colour in loads:
                    size = (wide, high * (1 if platform else 0.6), deep)
                    canvas.box((x, z), level + 0.05, size, turn + 0.1, faces, colour)
        canvas.capsules([p for p in posts if distance(p) <= own])

    return draw


def debris(rng: Rng, layout: Layout) -> Drawer:
    """Rubble: broken plaster, concrete, bricks or boards with dust around them."""
    x0 = lateral(rng, layout, 0.5)
    palette: tuple[Colour, ...] = (
        ((168, 162, 152), (146, 140, 132), (190, 186, 178)),
        ((158, 84, 62), (140, 74, 56), (172, 150, 136)),
        ((162, 124, 80), (140, 104, 66), (176, 146, 104)),
    )[int(rng.integers(3))]
    pieces: list[tuple[NDArray[np.float64], Colour]] = []
    for i in range(int(rng.integers(34, 52))):
        big = 0.24 if i < 4 else 0.13 if i < 14 else 0.065
        size = rng.uniform(0.3, 1.0, 3) * big
        size[1] *= 0.7
        corners = _cube(size, float(rng.uniform(0, 3.1)))
        corners += rng.normal(0.0, 0.12, corners.shape) * size
        tip = float(rng.normal(0.0, 0.35))
        corners[:, 1] += tip * corners[:, 0]
        corners[:, 1] -= corners[:, 1].min()
        spread = abs(float(rng.normal(0.0, 0.3)))
        bearing = float(rng.uniform(0.0, 6.28))
        corners += np.array([spread * np.cos(bearing), 0.0, spread * np.sin(bearing)])
        if spread < 0.15:
            corners[:, 1] += float(rng.uniform(0.0, 0.1))
        pieces.append((corners, pick(rng, palette, 9.0)))
    pieces.sort(key=lambda p: -float(p[0][:, 2].mean()))
    corners_of_all = np.stack([corners for corners, _ in pieces])
    colours = [colour for _, colour in pieces]
    dust = premultiplied(
        np.broadcast_to(np.asarray(palette[0], np.float32), (192, 192, 3)),
        np.clip(blob(rng, 192, 0.5, 4, 0.6) * (0.55 + 0.2 * noise(rng, 192, 192, 40, 40, 2)), 0, 1),
    )

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        canvas.decal(dust, (x0, z), (1.7, 1.5), mask_gain=0.9)
        canvas.shadow((x0, z), (1.2, 1.1), 0.5)
        canvas.solids(corners_of_all + np.array([x0, 0.0, z]), _CUBE, colours)

    return draw


def _foam_texture(rng: Rng, width: float, height: float, tint: Colour) -> ByteImage:
    """A heap of bubbles seen from the front, far ones behind near ones."""
    ppm = 240.0
    rows, columns = round(height * ppm), round(width * ppm)
    rgb = np.zeros((rows, columns, 3), np.float32)
    alpha = np.zeros((rows, columns), np.float32)
    bumps = noise(rng, 1, 64, 1, 7, 2)[0]
    count = 520
    depth = np.sort(rng.uniform(0.0, 1.0, count))
    for i in range(count):
        a = float(np.clip(rng.normal(0.0, 0.19), -0.44, 0.44))
        hill = float(np.exp(-((a / 0.24) ** 2)) * (1.0 + 0.18 * bumps[int((a + 0.5) * 63)]))
        radius = float(rng.gamma(3.0, 0.011)) * ppm * (0.55 + 0.6 * hill)
        radius = min(radius, 0.075 * ppm)
        foot = 0.10 * (1.0 - depth[i]) + 0.9 * a * a
        level = (hill * (1.0 - depth[i]) * 0.72 + foot) * rows
        cx, cy = (a + 0.5) * columns, rows - 2.0 - radius * 0.7 - level
        x0, x1 = int(max(cx - radius - 1, 0)), int(min(cx + radius + 2, columns))
        y0, y1 = int(max(cy - radius - 1, 0)), int(min(cy + radius + 2, rows))
        if x1 <= x0 or y1 <= y0:
            continue
        nx = (np.arange(x0, x1, dtype=np.float32)[None, :] - cx) / radius
        ny = (np.arange(y0, y1, dtype=np.float32)[:, None] - cy) / radius
        square = nx * nx + ny * ny
        cover = np.clip((1.0 - np.sqrt(square)) * radius + 0.5, 0.0, 1.0)
        light = 0.80 + 0.16 * np.clip(-0.75 * ny + 0.2 * nx, -1.0, 1.0)
        light += 0.05 * np.sqrt(np.clip(1.0 - square, 0.0, 1.0)) + 0.05 * (level / rows - 0.5)
        part, seen = rgb[y0:y1, x0:x1], alpha[y0:y1, x0:x1]
        part *= (1.0 - cover)[..., None]
        part += (cover * light)[..., None] * np.asarray(tint, np.float32)
        seen[:] = seen * (1.0 - cover) + cover
    soft = np.dstack([rgb, alpha * 255.0])
    soft = np.dstack([blur(np.ascontiguousarray(soft[..., k]), 1.2) for k in range(4)])
    return np.asarray(np.clip(np.rint(soft), 0, 255), dtype=np.uint8)


def foam(rng: Rng, layout: Layout) -> Drawer:
    """A heap of white foam."""
    width, height = float(rng.uniform(1.1, 1.8)), float(rng.uniform(0.28, 0.48))
    depth = 0.55 * width
    texture = _foam_texture(rng, width, height, vary(rng, (238, 240, 240), 3.0))
    film = premultiplied(
        np.full((160, 160, 3), 226.0, np.float32),
        np.asarray(blob(rng, 160, 0.45, 4, 0.5) * 0.8, dtype=np.float32),
    )
    x = lateral(rng, layout, width * 0.32)

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        canvas.decal(film, (x, z), (width * 1.15, depth * 1.6), mask_gain=1.2)
        canvas.shadow((x, z), (width * 0.9, depth * 1.2), 0.22)
        # The heap leans away from us, as its top is behind its foot.
        canvas.quad(
            (x - width / 2, height, z + depth * 0.25),
            (width, 0.0, 0.0),
            (0.0, -height, -depth * 0.6),
            texture,
        )

    return draw


def clutter(rng: Rng, layout: Layout) -> Drawer:
    """Things left lying about: paper, bottles, cans, books, a bag, a cloth."""
    x0 = lateral(rng, layout, 0.6, 0.8)
    items: list[tuple[float, int, float, float, float, Colour, NDArray[np.float64]]] = []
    for i in range(int(rng.integers(9, 15))):
        kind = 4 if i == 0 else int(rng.integers(4))
        a, b = float(rng.normal(0.0, 0.33)), float(rng.normal(0.0, 0.33))
        a = float(np.clip(x0 + a, -layout.width / 2 + 0.2, layout.width / 2 - 0.2))
        turn = float(rng.uniform(0.0, 3.1))
        colour = pick(
            rng,
            (
                ((234, 232, 226), (222, 216, 200)),
                ((70, 120, 84), (150, 176, 190), (116, 78, 46)),
                ((180, 44, 40), (190, 192, 196), (50, 90, 150)),
                ((126, 44, 42), (44, 70, 112), (188, 168, 110), (70, 92, 72)),
                ((50, 56, 70), (96, 60, 56), (70, 82, 62), (54, 54, 58)),
            )[kind],
        )
        shape = rng.normal(0.0, 1.0, (8, 3))
        items.append((b, kind, a, turn, float(rng.uniform(0.8, 1.25)), colour, shape))
    items.sort(key=lambda p: -p[0])

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        for b, kind, a, turn, scale, colour, shape in items:
            dx, dz = float(np.cos(turn)), float(np.sin(turn))
            place = np.array([a, 0.0, z + b])
            if kind == 0:
                canvas.shadow((a, z + b), (0.26 * scale, 0.24 * scale), 0.45)
                ball = _cube(np.array([0.12, 0.10, 0.12]) * scale, turn)
                ball = ball + shape * 0.016 + place + np.array([0.0, 0.055 * scale, 0.0])
                canvas.solids(ball[None], _CUBE, [colour])
            elif kind in (1, 2):
                long, r = (0.2, 0.038) if kind == 1 else (0.1, 0.034)
                canvas.shadow((a, z + b), (0.34, 0.24), 0.4)
                p, q = (a, r, z + b), (a + dx * long, r, z + b + dz * long)
                rods = [Capsule(p, q, r, r, colour, shine=0.8)]
                if kind == 1:
                    end = (q[0] + dx * 0.09, r, q[2] + dz * 0.09)
                    rods.append(Capsule(q, end, r * 0.9, r * 0.35, colour, shine=0.8))
                canvas.capsules(rods)
            elif kind == 3:
                canvas.shadow((a, z + b), (0.5, 0.4), 0.45)
                size = (0.27 * scale, 0.05 * scale, 0.2 * scale)
                canvas.box((a, z + b), 0.0, size, turn, None, colour)
            else:
                canvas.shadow((a, z + b), (0.95, 0.7), 0.55)
                p, q = (a - 0.14, 0.17, z + b), (a + 0.16, 0.15, z + b)
                left, right = (a - 0.1, 0.3, z + b), (a + 0.1, 0.28, z + b)
                strap, dark = (a - 0.02, 0.38, z + b), scaled(colour, 0.6)
                pocket = (a - 0.1, 0.12, z + b - 0.13), (a + 0.12, 0.12, z + b - 0.12)
                canvas.capsules(
                    [
                        Capsule(p, q, 0.17, 0.15, colour, grain=0.12),
                        Capsule(left, strap, 0.012, 0.012, dark),
                        Capsule(strap, right, 0.012, 0.012, dark),
                        Capsule(*pocket, 0.07, 0.07, scaled(colour, 0.85), grain=0.1),
                    ]
                )

    return draw


def misc(rng: Rng, layout: Layout) -> Drawer:
    """Things of no other class: a ball, a bucket or a potted plant."""
    x = lateral(rng, layout, 0.35)
    kind = int(rng.integers(3))
    colour = pick(rng, ((196, 62, 52), (58, 104, 170), (210, 176, 60), (88, 140, 92)))
    leaves = [
        (float(rng.uniform(0, 6.28)), float(rng.uniform(0.2, 0.42)), float(rng.uniform(0.3, 0.75)))
        for _ in range(26)
    ]

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        canvas.shadow((x, z), (0.8, 0.66), 0.55)
        if kind == 0:
            place = (x, 0.17, z)
            canvas.capsules([Capsule(place, place, 0.17, 0.17, colour, shine=0.7)])
        elif kind == 1:
            pail = Capsule((x, 0.12, z), (x, 0.3, z), 0.13, 0.16, colour, shine=0.4)
            dark = scaled(colour, 0.4)
            rim = Capsule((x - 0.13, 0.36, z), (x + 0.13, 0.36, z), 0.05, 0.05, dark)
            canvas.capsules([pail, rim], ordered=True)
            top = (x + 0.32, 1.25, z + 0.1)
            canvas.capsules([Capsule((x, 0.3, z), top, 0.014, 0.014, (190, 160, 110))])
        else:
            rods = [Capsule((x, 0.12, z), (x, 0.26, z), 0.12, 0.15, (150, 86, 60))]
            for bearing, reach, height in leaves:
                dx, dz = reach * float(np.cos(bearing)), reach * float(np.sin(bearing))
                tip = (x + dx, 0.35 + height, z + dz)
                middle = ((x + tip[0]) / 2, 0.32 + height * 0.8, (z + tip[2]) / 2)
                green = (56.0 + 40.0 * reach, 104.0 + 50.0 * height, 52.0)
                rods.append(Capsule((x, 0.3, z), middle, 0.008, 0.035, scaled(green, 0.8)))
                rods.append(Capsule(middle, tip, 0.035, 0.006, green))
            canvas.capsules(rods)

    return draw


def open_door(rng: Rng, layout: Layout, door: Door) -> Drawer:
    """One of the corridor's doors standing open, with the room behind it."""
    sign = -1.0 if door.side == "left" else 1.0
    angle = float(rng.uniform(0.45, 1.15))
    far_hinge = bool(rng.random() < 0.5)
    inward = bool(rng.random() < 0.3)
    bright = bool(rng.random() < 0.4)
    light, dark = ((204, 200, 186), (214, 210, 204)), ((34, 36, 40), (46, 44, 42))
    room = pick(rng, light if bright else dark)
    inside = Patch(door.width, DOOR_HEIGHT_M, 110.0, room)
    inside.rect(0.0, DOOR_HEIGHT_M * 0.74, door.width, DOOR_HEIGHT_M, scaled(room, 0.62))
    inside.rect(0.0, 0.0, door.width * 0.3, DOOR_HEIGHT_M, scaled(room, 0.82))
    inside.rect(door.width * 0.45, 0.95, door.width * 0.42, 0.62, scaled(room, 0.7))
    inside.rect(0.0, 0.0, door.width, 0.05, scaled(room, 0.5))
    hole = inside.texture()
    leaf_patch = Patch(door.width, DOOR_HEIGHT_M, 170.0, door.colour)
    door_leaf(leaf_patch, 0.0, 0.0, door.width, DOOR_HEIGHT_M, door)
    leaf = leaf_patch.texture()

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        wall = sign * layout.width / 2
        near, far = z - door.width / 2, z + door.width / 2
        shade = 1.0 if bright else 0.9
        size = (0, 0, near - far), (0, -DOOR_HEIGHT_M, 0)
        canvas.quad((wall, DOOR_HEIGHT_M, far), *size, hole, shade, mask_gain=2.0)
        hinge = far if far_hinge else near
        towards = -1.0 if far_hinge else 1.0
        into = sign if inward else -sign
        along = np.array([into * np.sin(angle), 0.0, towards * np.cos(angle)]) * door.width
        start = np.array([wall, DOOR_HEIGHT_M, hinge])
        if inward:
            return
        canvas.shadow((wall + along[0] / 2, hinge + along[2] / 2), (0.9, 0.7), 0.3)
        down = np.array([0.0, 0.01 - DOOR_HEIGHT_M, 0.0])
        thick = np.array([0.0, 0.0, 0.04 * (1.0 if far_hinge else -1.0)])
        end = start + along
        canvas.polygon(
            np.stack([end, end + thick, end + thick + down, end + down]), scaled(door.colour, 0.7)
        )
        # The handle is at the end away from the hinge.
        shade = 0.75 + 0.2 * abs(float(np.sin(angle)))
        canvas.quad(end, -along, down, leaf, shade, mask_gain=2.0)

    return draw
