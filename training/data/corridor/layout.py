"""What a corridor is made of: sizes, colours, doors, lamps and furniture, all from its seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.data.corridor.textures import Colour, Rng, palette, pick, vary

PERIOD_M = 30.0
DOOR_HEIGHT_M = 2.04

Side = Literal["left", "right"]
FloorKind = Literal["tiles", "lino", "terrazzo", "carpet"]


@dataclass(frozen=True)
class Door:
    """A closed door: `z` is its centre along the corridor, sizes in metres."""

    side: Side
    z: float
    width: float
    colour: Colour
    kind: int


@dataclass(frozen=True)
class Fixture:
    """A flat piece of wall furniture, centred at `z`; `bottom` above the floor, in metres."""

    side: Side
    z: float
    bottom: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True)
class Lamp:
    """A bright panel in the ceiling centred at (`x`, `z`); `power` is relative, 0 is broken."""

    x: float
    z: float
    width: float
    length: float
    power: float


@dataclass(frozen=True)
class Layout:
    """One corridor without its pixels."""

    width: float
    height: float
    floor: FloorKind
    floor_colours: tuple[Colour, Colour]
    floor_tile: float
    gloss: float
    wall_upper: Colour
    wall_lower: Colour
    dado_height: float
    brick: bool
    rail: bool
    skirting: Colour
    skirting_height: float
    ceiling: Colour
    ceiling_grid: bool
    frame: Colour
    light_tint: Colour
    doors: tuple[Door, ...]
    fixtures: tuple[Fixture, ...]
    lamps: tuple[Lamp, ...]


_WALLS = palette("ded8c8 cdd4d0 d6ceba c4d0da e0ded8 ccd6c0")
_DADOS = palette("80988c 788ca4 aa9476 969ca0 a47a68 8c9674")
_DOORS = palette("966840 b0885c 687c94 5c786c bcbab2 7a4838")
_FLOORS: dict[FloorKind, tuple[Colour, ...]] = {
    "tiles": ((168, 160, 148), (150, 152, 152), (176, 164, 140), (140, 128, 116)),
    "lino": ((120, 136, 140), (150, 140, 120), (104, 124, 112), (146, 120, 100)),
    "terrazzo": ((164, 158, 150), (150, 150, 146), (172, 160, 142)),
    "carpet": ((92, 98, 112), (112, 98, 88), (84, 100, 92), (104, 84, 88)),
}
_GLOSS: dict[FloorKind, float] = {"tiles": 0.55, "lino": 0.75, "terrazzo": 0.9, "carpet": 0.0}
_TINTS: tuple[Colour, ...] = ((1.0, 0.98, 0.93), (0.96, 0.99, 1.0), (1.0, 0.96, 0.87))
# kind, width, height, bottom, relative frequency
_FIXTURES: tuple[tuple[str, float, float, float, float], ...] = (
    ("notice_board", 1.5, 0.95, 1.15, 2.0),
    ("poster", 0.6, 0.84, 1.2, 2.5),
    ("extinguisher", 0.22, 1.2, 0.55, 2.0),
    ("picture", 0.9, 0.65, 1.3, 1.5),
    ("radiator", 1.3, 0.6, 0.14, 1.2),
    ("cabinet", 0.6, 0.8, 0.95, 1.0),
    ("switches", 0.16, 0.9, 0.25, 1.5),
    ("exit_sign", 0.5, 0.2, 1.95, 1.0),
    ("window", 1.3, 1.0, 1.0, 0.8),
)


def make_layout(seed: int) -> Layout:
    """The corridor of `seed`; different seeds differ in size, colours and furniture."""
    rng = np.random.default_rng([seed, 101])
    kinds: tuple[FloorKind, ...] = ("lino", "tiles", "terrazzo", "carpet")
    floor = kinds[seed % 4] if rng.random() < 0.7 else kinds[int(rng.integers(4))]
    first = pick(rng, _FLOORS[floor], 8.0)
    dark = float(rng.uniform(0.72, 0.95))
    second = vary(rng, tuple(c * dark for c in first), 4.0)
    upper = pick(rng, _WALLS)
    two_tone = bool(rng.random() < 0.6)
    width, height = float(rng.uniform(1.95, 2.55)), float(rng.uniform(2.45, 2.8))
    frame = pick(rng, (*_DOORS, (225, 225, 220), (120, 124, 128)))
    doors, fixtures = _furnish(rng, pick(rng, _DOORS, 10.0))
    return Layout(
        width=width,
        height=height,
        floor=floor,
        floor_colours=(first, second),
        floor_tile=(0.3, 0.5, 0.6)[int(rng.integers(3))],
        gloss=_GLOSS[floor] * float(rng.uniform(0.7, 1.1)),
        wall_upper=upper,
        wall_lower=pick(rng, _DADOS, 10.0) if two_tone else vary(rng, upper, 4.0),
        dado_height=float(rng.uniform(0.95, 1.3)),
        brick=bool(rng.random() < 0.3),
        rail=bool(rng.random() < 0.3),
        skirting=pick(rng, ((70, 66, 62), (96, 82, 66), (200, 198, 192), (60, 66, 76))),
        skirting_height=float(rng.uniform(0.07, 0.13)),
        ceiling=vary(rng, (226, 225, 220), 5.0),
        ceiling_grid=bool(rng.random() < 0.75),
        frame=frame,
        light_tint=_TINTS[int(rng.integers(len(_TINTS)))],
        doors=doors,
        fixtures=fixtures,
        lamps=_lamps(rng),
    )


def _furnish(rng: Rng, door_colour: Colour) -> tuple[tuple[Door, ...], tuple[Fixture, ...]]:
    doors: list[Door] = []
    fixtures: list[Fixture] = []
    weights = np.array([f[4] for f in _FIXTURES])
    weights /= weights.sum()
    kind = int(rng.integers(3))
    sides: tuple[Side, Side] = ("left", "right")
    for side in sides:
        count = int(rng.integers(6, 9))
        pitch = PERIOD_M / count
        first = float(rng.uniform(0.0, pitch))
        width = float(rng.uniform(0.88, 1.02))
        centres = [
            (first + i * pitch + float(rng.uniform(-0.12, 0.12)) * pitch) % PERIOD_M
            for i in range(count)
        ]
        centres.sort()
        for i, z in enumerate(centres):
            doors.append(Door(side, z, width, vary(rng, door_colour, 4.0), kind))
            end = centres[i + 1] if i + 1 < count else centres[0] + PERIOD_M
            cursor = z + width / 2.0 + 0.25
            limit = end - width / 2.0 - 0.25
            last = ""
            while True:
                name, w, h, bottom, _ = _FIXTURES[int(rng.choice(len(_FIXTURES), p=weights))]
                if name == last:
                    continue
                last = name
                cursor += float(rng.uniform(0.1, 1.0))
                if cursor + w > limit:
                    break
                fixtures.append(Fixture(side, (cursor + w / 2) % PERIOD_M, bottom, w, h, name))
                cursor += w
    return tuple(doors), tuple(fixtures)


def _lamps(rng: Rng) -> tuple[Lamp, ...]:
    count = int(rng.integers(9, 13))
    width, length = ((0.6, 0.6), (0.6, 1.2), (0.16, 1.5), (1.2, 0.3))[int(rng.integers(4))]
    spacing = PERIOD_M / count
    return tuple(
        Lamp(0.0, (i + 0.5) * spacing, width, length, _lamp_power(rng)) for i in range(count)
    )


def _lamp_power(rng: Rng) -> float:
    return 0.35 if rng.random() < 0.08 else float(rng.uniform(0.92, 1.08))
