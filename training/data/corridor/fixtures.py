"""Drawings of the fixed furniture: doors, boards, posters, extinguishers and the like."""

from __future__ import annotations

from training.data.corridor.layout import DOOR_HEIGHT_M, Door, Fixture, Layout
from training.data.corridor.textures import Colour, Patch, Rng, palette, pick, vary

_PAPERS = palette("eceae2 f0ecc8 d2e2ec ecd6ce d6e8d0")
_INKS = palette("3c5482 963c34 426e50 46464a")
_METAL: Colour = (176, 178, 180)


def scaled(colour: Colour, factor: float) -> Colour:
    """`colour` times `factor`, cut at 255."""
    red, green, blue = (min(255.0, c * factor) for c in colour)
    return red, green, blue


def door_leaf(patch: Patch, x: float, y: float, w: float, h: float, door: Door) -> None:
    """Draw a door leaf with its panels, window, handle and kick plate into `patch`."""
    colour = door.colour
    patch.rect(x, y, w, h, colour)
    if door.colour[0] > door.colour[2] + 25.0:
        # Wood grain: the warm colours are wood, the others are paint.
        for i in range(14):
            gx = x + w * ((i * 0.618) % 1.0) * 0.94 + 0.03 * w
            tone = scaled(colour, 0.93 if i % 3 else 1.05)
            patch.line([(gx, y), (gx + 0.012, y + h / 2), (gx, y + h)], 0.006, tone)
    if door.kind == 0:
        for top, height in ((0.14, 0.38), (0.58, 0.34)):
            px, py, pw, ph = x + 0.16 * w, y + top * h, 0.68 * w, height * h
            patch.rect(px, py, pw, ph, scaled(colour, 0.78))
            patch.rect(px + 0.015, py + 0.02, pw - 0.02, ph - 0.02, scaled(colour, 1.1))
            patch.rect(px + 0.022, py + 0.028, pw - 0.044, ph - 0.05, scaled(colour, 0.97))
    elif door.kind == 1:
        patch.rect(x + 0.58 * w, y + 0.12 * h, 0.2 * w, 0.4 * h, scaled(colour, 0.6))
        patch.rect(x + 0.60 * w, y + 0.13 * h, 0.16 * w, 0.38 * h, (86, 98, 104))
        patch.polygon(
            [
                (x + 0.60 * w, y + 0.34 * h),
                (x + 0.76 * w, y + 0.2 * h),
                (x + 0.76 * w, y + 0.28 * h),
                (x + 0.60 * w, y + 0.42 * h),
            ],
            (132, 144, 148),
        )
        patch.rect(x + 0.02 * w, y + 0.9 * h, 0.96 * w, 0.09 * h, (158, 160, 162))
    else:
        patch.rect(x + 0.3 * w, y + 0.19 * h, 0.4 * w, 0.035 * h, (232, 232, 228))
        patch.rect(x + 0.34 * w, y + 0.198 * h, 0.3 * w, 0.008 * h, (70, 70, 74))
    hx, hy = x + 0.1 * w, y + 0.51 * h
    patch.rect(hx - 0.022, hy - 0.07, 0.044, 0.2, (140, 142, 144))
    patch.rect(hx - 0.01, hy - 0.012, 0.13, 0.026, (206, 208, 210))
    patch.rect(hx - 0.01, hy + 0.014, 0.13, 0.009, (84, 84, 86))
    patch.ellipse(hx, hy + 0.09, 0.012, 0.016, (48, 48, 50))


def door_patch(door: Door, layout: Layout, rng: Rng, ppm: float) -> Patch:
    """A closed door with its frame, seen square on; its bottom is at the floor."""
    rim = 0.07
    patch = Patch(door.width + 2 * rim, DOOR_HEIGHT_M + rim, ppm, layout.frame)
    w, h = patch.width, patch.height
    patch.rect(0.0, 0.0, w, 0.012, scaled(layout.frame, 1.15))
    patch.rect(0.0, 0.0, 0.012, h, scaled(layout.frame, 1.1))
    patch.rect(w - 0.012, 0.0, 0.012, h, scaled(layout.frame, 0.85))
    patch.rect(rim - 0.012, rim - 0.012, door.width + 0.024, h, scaled(layout.frame, 0.55))
    door_leaf(patch, rim, rim, door.width, DOOR_HEIGHT_M - 0.01, door)
    patch.rect(rim, rim, door.width, 0.03, scaled(door.colour, 0.62))
    patch.rect(rim, rim, 0.018, h, scaled(door.colour, 0.7))
    patch.rect(rim, h - 0.012, door.width, 0.012, (40, 38, 36))
    return patch


def fixture_patch(fixture: Fixture, rng: Rng, ppm: float) -> Patch:
    """The drawing of one piece of wall furniture."""
    w, h = fixture.width, fixture.height
    if fixture.kind == "notice_board":
        return _notice_board(w, h, rng, ppm)
    if fixture.kind == "poster":
        return _poster(w, h, rng, ppm)
    if fixture.kind == "picture":
        return _picture(w, h, rng, ppm)
    if fixture.kind == "extinguisher":
        return _extinguisher(w, h, ppm)
    if fixture.kind == "radiator":
        patch = Patch(w, h, ppm, (214, 212, 206))
        for i in range(round(w / 0.05)):
            patch.rect(i * 0.05, 0.03, 0.014, h - 0.06, (166, 164, 160))
            patch.rect(i * 0.05 + 0.014, 0.03, 0.014, h - 0.06, (232, 230, 226))
        patch.rect(0.0, 0.0, w, 0.03, (236, 235, 230))
        return patch.rect(0.0, h - 0.03, w, 0.03, (150, 148, 144))
    if fixture.kind == "cabinet":
        colour = pick(rng, ((190, 192, 190), (180, 60, 48), (160, 168, 176)))
        patch = Patch(w, h, ppm, scaled(colour, 0.8))
        patch.rect(0.015, 0.015, w - 0.03, h - 0.03, colour)
        patch.rect(0.02, 0.02, w - 0.04, 0.01, scaled(colour, 1.15))
        patch.rect(w - 0.09, h * 0.45, 0.03, 0.1, (70, 70, 72))
        return patch.rect(0.18, 0.16, w - 0.36, 0.2, (230, 228, 220))
    if fixture.kind == "switches":
        patch = Patch(w, h, ppm, None)
        patch.rect(0.04, 0.0, 0.08, 0.08, (238, 238, 234)).rect(0.06, 0.015, 0.04, 0.05, _METAL)
        patch.rect(0.0, h - 0.08, 0.16, 0.08, (236, 236, 232))
        patch.ellipse(0.04, h - 0.04, 0.022, 0.022, (150, 150, 148))
        return patch.ellipse(0.12, h - 0.04, 0.022, 0.022, (150, 150, 148))
    if fixture.kind == "exit_sign":
        patch = Patch(w, h, ppm, (44, 138, 86))
        patch.ellipse(0.12, 0.05, 0.022, 0.022, (232, 240, 232))
        patch.line([(0.13, 0.07), (0.11, 0.12), (0.15, 0.17)], 0.02, (232, 240, 232))
        patch.line([(0.08, 0.1), (0.15, 0.1)], 0.014, (232, 240, 232))
        patch.rect(0.22, 0.08, 0.12, 0.04, (232, 240, 232))
        return patch.polygon([(0.34, 0.04), (0.43, 0.1), (0.34, 0.16)], (232, 240, 232))
    return _window(w, h, ppm)


def _notice_board(w: float, h: float, rng: Rng, ppm: float) -> Patch:
    patch = Patch(w, h, ppm, pick(rng, ((150, 112, 74), (110, 114, 118), (196, 196, 192))))
    cork = pick(rng, ((176, 140, 98), (84, 108, 128), (90, 112, 92)))
    patch.rect(0.03, 0.03, w - 0.06, h - 0.06, cork)
    x = 0.08
    while x < w - 0.28:
        y = 0.07 + float(rng.uniform(0.0, 0.06))
        while y < h - 0.36:
            paper = pick(rng, _PAPERS)
            pw, ph = float(rng.uniform(0.16, 0.22)), float(rng.uniform(0.22, 0.3))
            patch.rect(x + 0.008, y + 0.008, pw, ph, scaled(cork, 0.7))
            patch.rect(x, y, pw, ph, paper)
            patch.rect(x + 0.02, y + 0.02, pw - 0.06, 0.025, pick(rng, _INKS))
            for line in range(int(rng.integers(3, 7))):
                width = (pw - 0.04) * float(rng.uniform(0.6, 1.0))
                patch.rect(x + 0.02, y + 0.07 + 0.025 * line, width, 0.008, (140, 140, 142))
            y += ph + float(rng.uniform(0.03, 0.08))
        x += float(rng.uniform(0.24, 0.34))
    return patch


def _poster(w: float, h: float, rng: Rng, ppm: float) -> Patch:
    ground = pick(rng, (*_PAPERS, (62, 92, 132), (186, 84, 62), (84, 128, 112)))
    patch = Patch(w, h, ppm, scaled(ground, 0.9))
    patch.rect(0.012, 0.012, w - 0.024, h - 0.024, ground)
    ink = pick(rng, _INKS)
    patch.rect(0.05, 0.06, w - 0.1, 0.09, ink)
    patch.rect(0.07, 0.2, w - 0.14, 0.34, vary(rng, scaled(ground, 0.8), 14.0))
    if rng.random() < 0.5:
        patch.ellipse(w / 2, 0.37, 0.13, 0.13, pick(rng, _INKS))
    else:
        peak = (w / 2 + float(rng.uniform(-0.1, 0.1)), 0.25)
        patch.polygon([(0.08, 0.54), peak, (w - 0.08, 0.54)], pick(rng, _INKS))
    for line in range(5):
        patch.rect(0.07, 0.6 + 0.035 * line, (w - 0.14) * (0.95 - 0.08 * line), 0.012, ink)
    return patch


def _picture(w: float, h: float, rng: Rng, ppm: float) -> Patch:
    patch = Patch(w, h, ppm, pick(rng, ((52, 46, 40), (140, 104, 62), (190, 190, 188))))
    patch.rect(0.03, 0.03, w - 0.06, h - 0.06, (238, 236, 230))
    x, y, pw, ph = 0.09, 0.09, w - 0.18, h - 0.18
    patch.rect(x, y, pw, ph, pick(rng, ((168, 196, 214), (214, 190, 160), (188, 204, 196))))
    horizon = y + ph * float(rng.uniform(0.4, 0.65))
    hills = [(x, y + ph), (x, horizon)]
    for i in range(1, 6):
        hills.append((x + pw * i / 6, horizon + float(rng.uniform(-0.08, 0.05))))
    hills += [(x + pw, horizon), (x + pw, y + ph)]
    patch.polygon(hills, pick(rng, ((96, 118, 92), (112, 104, 90), (84, 106, 122))))
    return patch.rect(x, y + ph * 0.82, pw, ph * 0.18, pick(rng, ((120, 116, 82), (88, 98, 80))))


def _extinguisher(w: float, h: float, ppm: float) -> Patch:
    patch = Patch(w, h, ppm, None)
    patch.rect(0.01, 0.0, 0.2, 0.2, (190, 44, 38))
    patch.rect(0.06, 0.05, 0.05, 0.1, (238, 230, 228)).rect(0.13, 0.03, 0.03, 0.13, (238, 230, 228))
    top = h - 0.58
    for x, width, tone in (
        (0.035, 0.15, (112, 20, 18)),
        (0.05, 0.115, (172, 32, 28)),
        (0.07, 0.06, (204, 58, 48)),
        (0.082, 0.02, (236, 140, 128)),
    ):
        patch.rect(x, top + 0.1, width, 0.46, tone)
    patch.polygon(
        [(0.035, top + 0.1), (0.08, top + 0.04), (0.14, top + 0.04), (0.185, top + 0.1)],
        (156, 30, 26),
    )
    patch.rect(0.085, top, 0.05, 0.05, (40, 40, 42)).rect(
        0.06, top - 0.02, 0.12, 0.02, (30, 30, 32)
    )
    patch.line([(0.13, top + 0.02), (0.2, top + 0.1), (0.195, top + 0.38)], 0.018, (34, 34, 36))
    patch.rect(0.055, top + 0.24, 0.105, 0.16, (230, 220, 190))
    return patch.rect(0.04, h - 0.03, 0.14, 0.02, (40, 38, 38))


def _window(w: float, h: float, ppm: float) -> Patch:
    """An inner window into a dim office with a blind."""
    patch = Patch(w, h, ppm, (196, 196, 192))
    patch.rect(0.04, 0.04, w - 0.08, h - 0.08, (92, 104, 112))
    for i in range(round((h - 0.12) / 0.05)):
        patch.rect(0.06, 0.06 + 0.05 * i, w - 0.12, 0.032, (178, 184, 186))
    patch.rect(w / 2 - 0.02, 0.0, 0.04, h, (190, 190, 186))
    return patch.rect(0.0, h - 0.04, w, 0.04, (150, 150, 146))


def ceiling_patch(name: str, width: float, ppm: float) -> Patch:
    """A vent, smoke detector or sprinkler seen from below."""
    half = width / 2
    if name == "vent":
        patch = Patch(width, width, ppm, (206, 206, 202))
        for i in range(9):
            patch.rect(0.04, 0.04 + 0.055 * i, width - 0.08, 0.028, (96, 98, 98))
        return patch
    patch = Patch(width, width, ppm, None)
    patch.ellipse(half, half, half, half, (214, 214, 210))
    inner = (150, 150, 146) if name == "detector" else (168, 150, 120)
    return patch.ellipse(half, half, half * 0.6, half * 0.6, inner)
