"""The hazards by name: label, sight range and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from training.data.corridor import hazards_floor as on_floor
from training.data.corridor import hazards_objects as objects
from training.data.corridor.hazards_floor import Drawer
from training.data.corridor.hazards_people import human, lean_pick
from training.data.corridor.layout import PERIOD_M, Layout
from training.data.corridor.textures import (
    ByteImage,
    FloatImage,
    Rng,
    blob,
    blur,
    mixed,
    noise,
    pick,
    resize,
)

Build = Callable[[Rng, Layout], Drawer]


@dataclass(frozen=True)
class Kind:
    """One class of hazards.

    Attributes:
        label: its number in Hazards&Robots.
        sight_m: the distance from which it is drawn at most.
        near_m: the distance up to which it is drawn.
        build: makes a seeded one; None for those that are made otherwise (door, defects).
    """

    label: int
    sight_m: float
    near_m: float
    build: Build | None


KINDS: Mapping[str, Kind] = {
    "water": Kind(1, 4.8, 0.5, on_floor.water),
    "cable": Kind(2, 3.7, 0.5, on_floor.cable),
    "cellophane": Kind(3, 5.0, 0.9, on_floor.cellophane),
    "defects": Kind(4, 4.0, 0.0, None),
    "hanging_cable": Kind(5, 5.0, 0.7, objects.hanging_cable),
    "floor": Kind(6, 4.8, 0.5, on_floor.floor),
    "human": Kind(7, 7.0, 0.8, human),
    "screws": Kind(8, 3.1, 0.5, on_floor.screws),
    "boxes": Kind(9, 7.0, 0.8, objects.boxes),
    "door": Kind(10, 7.0, 0.9, None),
    "cones": Kind(11, 6.5, 0.7, objects.cones),
    "tape": Kind(12, 6.0, 0.7, objects.tape),
    "trolley": Kind(13, 7.0, 0.9, objects.trolley),
    "debris": Kind(14, 6.0, 0.8, objects.debris),
    "misc": Kind(15, 6.0, 0.7, objects.misc),
    "shard": Kind(16, 3.0, 0.5, on_floor.shard),
    "sawdust": Kind(17, 4.2, 0.5, on_floor.sawdust),
    "foam": Kind(18, 6.0, 0.8, objects.foam),
    "clutter": Kind(19, 5.5, 0.8, objects.clutter),
}

HAZARD_LABELS: Mapping[str, int] = {name: kind.label for name, kind in KINDS.items()}


def door_near(rng: Rng, layout: Layout, low: float, high: float) -> tuple[Drawer, float]:
    """An open door between `low` and `high` metres along the corridor, or the next one to them.

    Returns:
        How to draw it, and where it is along the corridor.
    """
    middle = 0.5 * (low + high)
    places = []
    for door in layout.doors:
        turns = np.floor(middle / PERIOD_M)
        places += [(door.z + float(turns + k) * PERIOD_M, door) for k in (-1, 0, 1)]
    inside = [p for p in places if low <= p[0] <= high]
    if inside:
        z, door = inside[int(rng.integers(len(inside)))]
    else:
        z, door = min(places, key=lambda p: abs(p[0] - middle))
    return objects.open_door(rng, layout, door), z


@dataclass(frozen=True)
class Defect:
    """A fault of the camera: dirt on its lens, or a tilt.

    Attributes:
        pitch, roll: tilt in radians; both 0 for dirt.
        dirt: premultiplied RGBA at 1/4 resolution or so, None for a tilt.
        smear: blur radius in 1/640 of the width, where the dirt is.
    """

    pitch: float = 0.0
    roll: float = 0.0
    dirt: FloatImage | None = None
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    smear: float = 0.0


def make_defect(rng: Rng) -> Defect:
    """A seeded defect of the camera."""
    if rng.random() < 0.45:
        return Defect(pitch=float(rng.normal(0.0, 0.05)), roll=lean_pick(rng, 0.16, 0.42))
    rows, columns = 120, 160
    dirt = np.zeros((rows, columns), np.float32)
    smear = bool(rng.random() < 0.4)
    for _ in range(int(rng.integers(2, 4) if smear else rng.integers(4, 10))):
        size = int(rng.uniform(50, 95)) if smear else int(rng.uniform(14, 44))
        spot = blob(rng, size, 0.4, 3, 0.5) * float(rng.uniform(0.55, 0.95))
        top, left = int(rng.integers(0, rows - size + 1)), int(rng.integers(0, columns - size + 1))
        region = dirt[top : top + size, left : left + size]
        np.maximum(region, spot, out=region)
    dirt = blur(dirt, 2.2 if smear else 1.3)
    if smear:
        streaks = 0.75 + 0.25 * noise(rng, rows, columns, 30, 3, 2)
        colour = pick(rng, ((196, 192, 184), (170, 166, 160)))
        return Defect(dirt=np.clip(dirt * streaks, 0, 0.75), colour=colour, smear=9.0)
    colour = pick(rng, ((58, 48, 38), (40, 38, 36), (92, 78, 60)))
    return Defect(dirt=np.clip(dirt * 1.1, 0, 0.92), colour=colour, smear=4.0)


def soil(image: ByteImage, defect: Defect) -> FloatImage:
    """Put the dirt of a lens on `image` (changed in place).

    Returns:
        The coverage of the dirt, float32 (H, W), 0 to 1.
    """
    assert defect.dirt is not None
    height, width = image.shape[:2]
    amount = resize(defect.dirt, height, width, cv2.INTER_LINEAR).clip(0.0, 1.0)
    # What lies behind the dirt is out of focus; a blur of a small copy is enough.
    small = cv2.resize(image, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(0.5, defect.smear * width / 2560.0))
    soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    veil = np.float32(0.8) * amount
    coverage = np.minimum(amount * np.float32(3.0), np.float32(1.0))
    grime = np.empty_like(image)
    grime[:] = np.asarray(defect.colour, np.float32).astype(np.uint8)
    spoiled = mixed(np.asarray(soft, dtype=np.uint8), grime, 1.0 - veil, veil)
    image[:] = mixed(image, spoiled, 1.0 - coverage, coverage)
    return np.asarray(coverage, dtype=np.float32)
