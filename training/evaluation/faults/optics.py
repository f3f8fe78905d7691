"""Faults of the lens and of how the camera is held: blur, motion, tilt, dirt, drops, covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.faults.base import (
    UNITS,
    Fault,
    Image,
    Mask,
    Stencil,
    as_image,
    blend,
    disc_blur,
    optical_scale,
    smooth_noise,
    wide_blur,
)


@dataclass(frozen=True)
class GaussianBlur(Fault, group="lens"):
    """A greasy or fogged lens: Gaussian blur of the whole frame.

    Attributes:
        sigma: standard deviation, units.
    """

    sigma: float = 2.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        return np.asarray(wide_blur(image, self.sigma * optical_scale(image)), np.uint8), None


@dataclass(frozen=True)
class Defocus(Fault, group="lens"):
    """A lens out of focus: every point becomes an evenly lit disc.

    Attributes:
        radius: of the disc, units.
    """

    radius: float = 2.5

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        return disc_blur(image, self.radius * optical_scale(image)), None


@dataclass(frozen=True)
class MotionBlur(Fault, group="lens"):
    """A shaken camera or a long exposure in a turn: blur along a line of random direction.

    Attributes:
        length: of the line, units.
    """

    length: float = 8.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        half = 0.5 * self.length * optical_scale(image)
        angle = rng.uniform(0, np.pi)
        reach = int(np.ceil(half)) + 1
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        steps = np.linspace(-half, half, 8 * reach)
        x, y = reach + steps * np.cos(angle), reach + steps * np.sin(angle)
        # Each sample of the path is shared among the four kernel cells around it.
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        for dy in (0, 1):
            for dx in (0, 1):
                share = (1 - np.abs(x - left - dx)) * (1 - np.abs(y - top - dy))
                np.add.at(kernel, (top + dy, left + dx), share)
        result = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
        return np.asarray(result, np.uint8), None


@dataclass(frozen=True)
class Tilt(Fault, group="lens"):
    """A camera turned about its axis, by a fall or a loose mount, to either side.

    The frame is enlarged just so far that no corner has to be made up.

    Attributes:
        degrees: by how much.
    """

    degrees: float = 10.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        angle = self.degrees * (1 if rng.random() < 0.5 else -1)
        ratio = max(width / height, height / width)
        zoom = np.cos(np.radians(self.degrees)) + ratio * np.sin(np.radians(self.degrees))
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, zoom)
        result = cv2.warpAffine(
            image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(result, np.uint8), None


def _blob(
    rng: np.random.Generator, center: tuple[float, float], radius: float, unevenness: float
) -> NDArray[Any]:
    """Return the outline of a round spot with uneven edge, points (x, y) in units."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    edge = np.ones(angles.size)
    for order in (2, 3, 4, 5):
        edge += unevenness / order * rng.normal() * np.cos(order * angles + rng.uniform(0, 6.3))
    reach = radius * np.maximum(edge, 0.3)
    return np.stack([center[0] + reach * np.cos(angles), center[1] + reach * np.sin(angles)], 1)


@dataclass(frozen=True)
class LensDirt(Fault, group="lens"):
    """Mud or dust on the lens: spots without focus, partly transparent, dark mud to pale dust.

    Attributes:
        count: least and most spots.
        radius: smallest and largest, units.
        level: darkest and palest, grey levels.
        opacity: thinnest and thickest, 0..1.
        softness: blur of the edges, standard deviation in units: dirt on the glass is never sharp.
    """

    count: tuple[int, int] = (3, 6)
    radius: tuple[float, float] = (4.0, 10.0)
    level: tuple[float, float] = (25.0, 150.0)
    opacity: tuple[float, float] = (0.7, 0.98)
    softness: float = 1.4

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        result, mask = image, np.zeros(image.shape[:2], bool)
        for _ in range(int(rng.integers(self.count[0], self.count[1] + 1))):
            center = (rng.uniform(4, UNITS - 4), rng.uniform(4, UNITS - 4))
            spot = Stencil().polygon(_blob(rng, center, rng.uniform(*self.radius), 0.5))
            alpha = spot.opacity(image, softness=self.softness)
            grime = smooth_noise(rng, image.shape[:2], 24)
            alpha *= np.float32(rng.uniform(*self.opacity)) * (0.8 + 0.2 * grime)
            level = rng.uniform(*self.level)
            color = np.array([level, level * 0.88, level * 0.7], np.float32)
            result = blend(result, color, alpha)
            mask |= alpha >= 0.3
        return result, mask


@dataclass(frozen=True)
class LensDrops(Fault, group="lens"):
    """Water drops on the lens: each shows the scene small and upside down, with a dark rim.

    Attributes:
        count: least and most drops.
        radius: smallest and largest, units.
        reach: how much further than its radius a drop sees.
    """

    count: tuple[int, int] = (5, 9)
    radius: tuple[float, float] = (3.0, 7.0)
    reach: float = 2.2

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        scale = optical_scale(image)
        soft = wide_blur(image, 0.6 * scale)
        result, mask = image.astype(np.float32), np.zeros((height, width), bool)
        for _ in range(int(rng.integers(self.count[0], self.count[1] + 1))):
            wide = rng.uniform(*self.radius) * scale
            high = wide * rng.uniform(1.0, 1.25)
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            place = (
                slice(max(0, int(y - high) - 2), int(y + high) + 3),
                slice(max(0, int(x - wide) - 2), int(x + wide) + 3),
            )
            rows, columns = np.mgrid[
                place[0].start : min(place[0].stop, height),
                place[1].start : min(place[1].stop, width),
            ].astype(np.float32)
            dx, dy = (columns - x) / wide, (rows - y) / high
            out = np.hypot(dx, dy)
            seen = cv2.remap(
                soft,
                np.asarray(x - dx * wide * self.reach, np.float32),
                np.asarray(y - dy * wide * self.reach, np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT,
            )
            # Light comes from above: a drop is bright at its foot and dark at its upper rim.
            rim = np.clip((out - 0.6) / 0.4, 0, 1)
            shade = (1.05 - 0.55 * rim**2 + 0.3 * dy * np.clip(out, 0, 1))[..., np.newaxis]
            edge = max(0.06, 0.5 * scale / wide)
            alpha = np.clip((1 - out) / edge + 0.5, 0, 1)[..., np.newaxis]
            result[place] = result[place] * (1 - alpha) + seen * shade * alpha
            mask[place] |= out <= 1
        return as_image(result), mask


def _turned_to_side(points: NDArray[Any], side: int) -> NDArray[Any]:
    """Turn points (x, y) in units, drawn from the bottom edge, to another edge of the frame."""
    x, y = points[:, 0], points[:, 1]
    return np.stack([(x, y), (y, x), (x, UNITS - y), (UNITS - y, x)][side], 1)


@dataclass(frozen=True)
class HandCover(Fault, group="covers"):
    """Fingers over part of the lens: wide, out of focus, of the colour of skin.

    Attributes:
        fingers: least and most.
        width: of a finger, units.
        reach: how far they reach into the frame, units.
        softness: blur of the edges, standard deviation in units.
    """

    fingers: tuple[int, int] = (2, 4)
    width: tuple[float, float] = (11.0, 16.0)
    reach: tuple[float, float] = (26.0, 50.0)
    softness: float = 1.5

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        side = int(rng.integers(4))
        skin = np.array([1.0, 0.74, 0.6], np.float32) * np.float32(rng.uniform(70, 210))
        x = rng.uniform(0, 30)
        lean = rng.uniform(-0.3, 0.3)
        result, mask = image, np.zeros(image.shape[:2], bool)
        for _ in range(int(rng.integers(self.fingers[0], self.fingers[1] + 1))):
            width, reach = rng.uniform(*self.width), rng.uniform(*self.reach)
            tip = np.array([x + lean * reach, UNITS - reach + width / 2])
            path = np.array([[x, UNITS + 20.0], tip])
            bone = Stencil().line(_turned_to_side(path, side), width)
            alpha = bone.opacity(image, softness=self.softness)
            core = Stencil().line(_turned_to_side(path, side), 0.5 * width)
            light = 0.7 + 0.4 * core.opacity(image, softness=0.2 * width)[..., np.newaxis]
            result = blend(result, skin * light, alpha)
            mask |= alpha >= 0.5
            x += width * rng.uniform(0.95, 1.1)
        return result, mask


@dataclass(frozen=True)
class ClothCover(Fault, group="covers"):
    """A cloth or curtain over part of the frame: woven, in folds, with a wavy edge.

    Attributes:
        reach: how far it hangs into the frame from one side, units.
        folds: least and most.
        softness: blur of the edge, standard deviation in units.
    """

    reach: tuple[float, float] = (22.0, 40.0)
    folds: tuple[float, float] = (2.0, 5.0)
    softness: float = 0.5

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        side = int(rng.integers(4))
        count, phase = rng.uniform(*self.folds), rng.uniform(0, 2 * np.pi)
        along = np.linspace(0, UNITS, 65)
        edge = (
            UNITS
            - rng.uniform(*self.reach)
            + 2.5 * np.sin(2 * np.pi * count * along / UNITS + phase)
        )
        hem = np.concatenate(
            [np.stack([along, edge], 1), [(UNITS, UNITS + 2.0), (0.0, UNITS + 2.0)]]
        )
        alpha = Stencil().polygon(_turned_to_side(hem, side)).opacity(image, softness=self.softness)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        x, y = columns * UNITS / width, rows * UNITS / height
        across = y if side % 2 else x
        folds = 0.72 + 0.28 * np.sin(2 * np.pi * count * across / UNITS + phase + 0.5)
        weave = 1 + 0.08 * np.sin(2 * np.pi * x / 2.2) * np.sin(2 * np.pi * y / 2.2)
        shade = (folds * weave)[..., np.newaxis].astype(np.float32)
        color = rng.uniform(50, 220) * (0.55 + 0.45 * rng.random(3, np.float32))
        return blend(image, np.asarray(color * shade, np.float32), alpha), alpha >= 0.5


@dataclass(frozen=True)
class TapeCover(Fault, group="covers"):
    """A strip of adhesive tape stuck across the lens, with creases.

    Attributes:
        width: of the strip, units.
        opacity: 0..1.
        softness: blur of the edges, standard deviation in units.
    """

    width: tuple[float, float] = (12.0, 22.0)
    opacity: float = 0.96
    softness: float = 0.8

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        angle = rng.uniform(0, np.pi)
        along = np.array([np.cos(angle), np.sin(angle)])
        middle = rng.uniform(18, 46, 2)
        strip = [middle - 100 * along, middle + 100 * along]
        alpha = (
            Stencil().line(strip, rng.uniform(*self.width)).opacity(image, softness=self.softness)
        )
        tapes = ((168, 168, 172), (150, 112, 66), (28, 28, 30), (206, 178, 40))
        color = np.array(tapes[int(rng.integers(len(tapes)))], np.float32)
        creases = smooth_noise(rng, image.shape[:2], 18)[..., np.newaxis]
        paint = color * (0.9 + 0.2 * creases)
        return blend(image, paint, alpha * np.float32(self.opacity)), alpha >= 0.5


@dataclass(frozen=True)
class AllCover(Fault, group="covers"):
    """The whole lens covered from near: dark, with soft texture and light leaking in at an edge.

    Attributes:
        level: darkest and brightest mean, grey levels.
        texture: swing of the texture, as a share of the level.
        leak: brightness at the leaking edge, at most, grey levels.
    """

    level: tuple[float, float] = (8.0, 42.0)
    texture: float = 0.6
    leak: float = 30.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        texture = 0.7 * smooth_noise(rng, (height, width), 4)
        texture += 0.3 * smooth_noise(rng, (height, width), 20)
        texture = texture[..., np.newaxis]
        tint = 1 + 0.3 * (rng.random(3, np.float32) - 0.5)
        dark = rng.uniform(*self.level) * tint * (1 + self.texture * (2 * texture - 1))
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        nearness = np.cos(angle) * (columns / width - 0.5) + np.sin(angle) * (rows / height - 0.5)
        light = rng.uniform(0, self.leak) * np.clip(nearness - 0.25, 0, 1)[..., np.newaxis] * 2
        grain = 1.5 * rng.standard_normal((height, width, 1), np.float32)
        return as_image(dark + light * np.array([1.0, 0.75, 0.6], np.float32) + grain), None
