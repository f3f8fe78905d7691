"""Drives: frames with truth, each rendered on its own from (seed, drive, frame number)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from training.data.corridor.camera import SPEED_MPS, Camera, Pose, Sway, View
from training.data.corridor.canvas import Canvas
from training.data.corridor.hazards import (
    HAZARD_LABELS,
    KINDS,
    Defect,
    door_near,
    make_defect,
    soil,
)
from training.data.corridor.hazards_floor import Drawer
from training.data.corridor.layout import make_layout
from training.data.corridor.render import Renderer
from training.data.corridor.world import make_world

SMALLEST_SHARE = 0.0015
_MASK_LEVEL = 0.4
_MIN_WIDTH, _MIN_HEIGHT = 32, 24
_MAX_SIDE = 4096
_START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class CorridorFrame:
    """One frame with its truth.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        mask: bool (H, W), True where the hazard is seen; all False in a normal frame.
        label: number of the class as in Hazards&Robots, 0 for a normal frame.
        hazard: name of the class, "normal" for a normal frame.
        distance_m: from the camera to the middle of the hazard along the corridor; 0 for
            `defects`, nan for a normal frame.
        stamp_ns: time stamp, nanoseconds since 1970.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    label: int
    hazard: str
    distance_m: float
    stamp_ns: int


@dataclass(frozen=True)
class Event:
    """One hazard of a drive: its class, its frames [start, stop) and its first distance."""

    number: int
    hazard: str
    start: int
    stop: int
    distance_m: float


class CorridorDrive(Sequence[CorridorFrame]):
    """A patrol drive through a synthetic corridor, a sequence of frames.

    Frames are rendered when asked for, each from its number alone: the same arguments give the
    same pixels, in any order and in any process.

    With `hazards`, the drive is cut into slots, one hazard each: first normal frames, then the
    frames of the event; a class is seen in about half the frames of its slot. The classes take
    turns, in seeded order, with seeded variants. A long drive goes through all classes as often as
    their full sight ranges fit. In a drive too short for that, every event is shortened by the
    same factor: the hazard then appears at some distance within its sight range and is gone
    before the robot has passed it. A drive of fewer frames than twice the classes does not show
    all of them. A frame carries a label if and only if the hazard covers 0.15 % of it.

    Args:
        frames: number of frames.
        seed: the corridor.
        drive: which drive through this corridor: other sway, exposure, noise and hazards.
        hazards: names of classes, see `HAZARD_LABELS`; empty for a normal drive.
        width: of the frames in pixels.
        height: of the frames in pixels.
        fps: frames a second; the robot drives at about 1 m/s.

    Raises:
        AnomalyDetectorError: an argument is out of range, or a hazard is unknown.
    """

    def __init__(
        self,
        frames: int,
        seed: int = 0,
        *,
        drive: int = 0,
        hazards: Sequence[str] = (),
        width: int = 640,
        height: int = 480,
        fps: float = 20.0,
    ) -> None:
        _check(frames, seed, drive, hazards, width, height, fps)
        self.frames = frames
        self.seed = seed
        self.drive = drive
        self.hazards = tuple(dict.fromkeys(hazards))
        self.width = width
        self.height = height
        self.fps = fps
        self._sway = Sway(np.random.default_rng([seed, drive, 11]))
        self.events = plan_events(
            frames, self.hazards, fps, np.random.default_rng([seed, drive, 12])
        )

    def __len__(self) -> int:
        return self.frames

    @overload
    def __getitem__(self, index: int) -> CorridorFrame: ...

    @overload
    def __getitem__(self, index: slice) -> list[CorridorFrame]: ...

    def __getitem__(self, index: int | slice) -> CorridorFrame | list[CorridorFrame]:
        """Frame `index`, or a list of frames for a slice."""
        if isinstance(index, slice):
            return [self.frame(i) for i in range(*index.indices(self.frames))]
        position = int(index)
        if position < 0:
            position += self.frames
        if not 0 <= position < self.frames:
            raise IndexError(f"frame {index} of a drive of {self.frames} frames")
        return self.frame(position)

    def frame(self, index: int) -> CorridorFrame:
        """Render frame `index` (0 to len - 1)."""
        seconds = index / self.fps
        pose = self._sway.pose(seconds)
        renderer = _renderer(self.seed, self.width, self.height)
        event = next((e for e in self.events if e.start <= index < e.stop), None)
        mask = np.zeros((self.height, self.width), bool)
        distance = math.nan
        if event is None:
            scene = renderer.corridor(View(renderer.camera, pose)).image
        elif event.hazard == "defects":
            scene, mask = self._defective(renderer, pose, event)
            distance = 0.0
        else:
            scene, mask, distance = self._with_hazard(renderer, pose, event, seconds)
        shown = event is not None and bool(mask.any())
        noise = np.random.default_rng([self.seed, self.drive, 13, index])
        gain, warmth = self._sway.exposure(seconds), self._sway.warmth(seconds)
        name = event.hazard if event is not None and shown else "normal"
        return CorridorFrame(
            image=renderer.develop(scene, gain, warmth, noise),
            mask=mask,
            label=HAZARD_LABELS.get(name, 0),
            hazard=name,
            distance_m=distance if shown else math.nan,
            stamp_ns=_START_NS + round(index * 1e9 / self.fps),
        )

    def _defective(
        self, renderer: Renderer, pose: Pose, event: Event
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        defect = _defect(self.seed, self.drive, event.number)
        tilted = replace(pose, pitch=pose.pitch + defect.pitch, roll=pose.roll + defect.roll)
        view = View(renderer.camera, tilted)
        scene = renderer.corridor(view).image
        if defect.dirt is None:
            return scene, np.ones((self.height, self.width), bool)
        return scene, soil(scene, defect) > _MASK_LEVEL

    def _with_hazard(
        self, renderer: Renderer, pose: Pose, event: Event, seconds: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], float]:
        draw, z = self._placed(event)
        distance = z - pose.z
        view = View(renderer.camera, pose)
        background = renderer.corridor(view)
        scene = background.image
        nothing = np.zeros((self.height, self.width), bool)
        kind = KINDS[event.hazard]
        if not kind.near_m <= distance <= kind.sight_m + 2.0:
            return scene, nothing, math.nan
        world = renderer.world
        red, green, blue = world.haze.tolist()
        canvas = Canvas(
            scene.copy(),
            view,
            world.light_at(z),
            world.layout.light_tint,
            (renderer.haze_at(distance), (red, green, blue)),
            background.on_floor,
            lambda: renderer.reflection(pose) if background.mirror is None else background.mirror,
        )
        draw(canvas, z, seconds)
        mask = canvas.mask > _MASK_LEVEL
        if float(mask.mean()) < SMALLEST_SHARE:
            return scene, nothing, math.nan
        return canvas.image, mask, distance

    def _placed(self, event: Event) -> tuple[Drawer, float]:
        """How to draw the hazard of `event`, and where it is along the corridor."""
        start = self._sway.pose(event.start / self.fps).z
        travel = (event.stop - event.start) / self.fps * SPEED_MPS
        return _hazard(self.seed, self.drive, event, start, travel)


def _check(
    frames: int, seed: int, drive: int, hazards: Sequence[str], width: int, height: int, fps: float
) -> None:
    for name, value, least in (("frames", frames, 1), ("seed", seed, 0), ("drive", drive, 0)):
        if value < least:
            raise AnomalyDetectorError(f"{name} is {value}: give {least} or more")
    if isinstance(hazards, str):
        raise AnomalyDetectorError(f"hazards is the text {hazards!r}: give a list of names")
    for hazard in hazards:
        if hazard not in HAZARD_LABELS:
            known = ", ".join(HAZARD_LABELS)
            raise AnomalyDetectorError(f"unknown hazard {hazard!r}: choose from {known}")
    if not (_MIN_WIDTH <= width <= _MAX_SIDE and _MIN_HEIGHT <= height <= _MAX_SIDE):
        raise AnomalyDetectorError(
            f"frame size is {width}x{height}: give {_MIN_WIDTH}x{_MIN_HEIGHT} to "
            f"{_MAX_SIDE}x{_MAX_SIDE}"
        )
    if not (math.isfinite(fps) and fps > 0.0):
        raise AnomalyDetectorError(f"fps is {fps}: give a number above 0")


def plan_events(
    frames: int, hazards: Sequence[str], fps: float, rng: np.random.Generator
) -> tuple[Event, ...]:
    """Spread the hazards over a drive, see `CorridorDrive`."""
    if not hazards:
        return ()
    step = SPEED_MPS / fps
    natural = {h: max(1, round((KINDS[h].sight_m - KINDS[h].near_m) / step)) for h in hazards}
    cycle = 2 * sum(natural.values())
    rounds = max(1, frames // cycle)
    order: list[str] = []
    for _ in range(rounds):
        order += [hazards[int(i)] for i in rng.permutation(len(hazards))]
    order = order[: max(1, frames // 2)]
    scale = min(1.0, frames / sum(2 * natural[h] for h in order))
    lengths = [max(1, math.floor(natural[h] * scale)) for h in order]
    spare = frames - sum(lengths)
    events = []
    position = 0
    for number, (hazard, length) in enumerate(zip(order, lengths, strict=True)):
        gap = spare * (number + 1) // (len(order)) - spare * number // len(order)
        start = position + gap
        kind = KINDS[hazard]
        distance = kind.sight_m
        if length < natural[hazard]:
            # Too short for the whole approach: show some part of it, seldom the farthest.
            low = kind.near_m + 0.4 + length * step
            high = max(low, kind.near_m + 0.75 * (kind.sight_m - kind.near_m))
            distance = float(rng.uniform(low, high))
        events.append(Event(number, hazard, start, min(start + length, frames), distance))
        position = start + length
    return tuple(events)


@functools.lru_cache(maxsize=2)
def _renderer(seed: int, width: int, height: int) -> Renderer:
    return Renderer(make_world(seed, width), Camera(width, height))


@functools.lru_cache(maxsize=4)
def _defect(seed: int, drive: int, number: int) -> Defect:
    return make_defect(np.random.default_rng([seed, drive, 14, number]))


@functools.lru_cache(maxsize=4)
def _hazard(
    seed: int, drive: int, event: Event, start: float, travel: float
) -> tuple[Drawer, float]:
    rng = np.random.default_rng([seed, drive, 14, event.number])
    layout, kind, distance = make_layout(seed), KINDS[event.hazard], event.distance_m
    if kind.build is not None:
        return kind.build(rng, layout), start + distance
    low = start + min(kind.near_m + 1.0 + travel, distance)
    return door_near(rng, layout, low, start + max(distance, kind.sight_m - 1.0))
