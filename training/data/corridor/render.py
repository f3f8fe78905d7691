"""Renders the empty corridor from a pose, and turns a scene into what the sensor delivers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.corridor.camera import Camera, Pose, View, rotation
from training.data.corridor.layout import PERIOD_M
from training.data.corridor.textures import ByteImage, FloatImage, mixed
from training.data.corridor.world import GIRTH_LEVELS, LENGTH_LEVELS, World

FAR_M = 36.0
_HAZE_START_M = 5.0
_HAZE_LENGTH_M = 26.0
_FLOOR, _RIGHT, _CEILING, _LEFT = range(4)
_BLOCK_ROWS = 32
# A float32 shifted right by this keeps its exponent and two bits: four steps an octave.
_STEP_SHIFT = 21


def _step_of(inverse_depth: np.float32) -> int:
    return int(np.float32(inverse_depth).view(np.int32)) >> _STEP_SHIFT


_FIRST_STEP = _step_of(np.float32(1.0 / FAR_M))


def _level(texels: float, lowest: int, highest: int) -> int:
    """The ripmap level whose texels are about as large as a pixel that covers `texels`."""
    return int(np.clip(np.floor(np.log2(max(texels, 1e-6)) + 0.4), lowest, highest))


@dataclass
class Background:
    """The empty corridor as seen from one pose.

    Attributes:
        image: uint8 (H, W, 3) RGB, before exposure and noise.
        inverse: inverse of the depth along the optical axis in 1/m, float32 (H, W).
        on_floor: the pixels of the floor, bool (H, W).
        mirror: what a mirror on the floor would show, uint8 (H/2, W/2, 3), valid on the floor;
            None where the floor is dull and nobody needed it yet.
    """

    image: ByteImage
    inverse: FloatImage
    on_floor: NDArray[np.bool_]
    mirror: ByteImage | None = None


class Renderer:
    """Draws one corridor for one camera; holds the tables that do not change between frames."""

    def __init__(self, world: World, camera: Camera) -> None:
        """Prepare the tables for `camera`."""
        self.world = world
        self.camera = camera
        width, height = camera.width, camera.height
        self._u = ((np.arange(width) - (width - 1) / 2) / camera.focal).astype(np.float32)
        self._v = ((np.arange(height) - (height - 1) / 2) / camera.focal).astype(np.float32)
        rng = np.random.default_rng(7)
        # Hides the border between two levels.
        spread = 1 << _STEP_SHIFT
        self._dither = rng.integers(-spread, spread, (height, width), dtype=np.int32)
        self._make_level_tables()
        radius = (self._u[None, :] ** 2 + self._v[:, None] ** 2) / (1.0 + 0.75**2)
        vignette = (1.0 - 0.17 * radius - 0.05 * radius**2).astype(np.float32)
        self._vignette = np.repeat(vignette[..., None], 3, axis=2)
        # Grain larger than a frame, so that each frame can take another cut of it.
        shape = (height + 64, width + 64)
        grey, colour = rng.standard_normal((*shape, 1)), rng.standard_normal((*shape, 3))
        self._noise = (2.2 * grey + 1.6 * colour).astype(np.float32)

    def _make_level_tables(self) -> None:
        """Per (face, depth step): linear maps from corridor metres to atlas texels."""
        world, focal = self.world, self.camera.focal
        layout = world.layout
        ppm = world.columns / PERIOD_M
        reach = (0.55, layout.width / 2, layout.height - 0.55, layout.width / 2)
        a, b = world.face_rows[0], world.face_rows[1]
        ka, kb = a / layout.width, b / layout.height
        # Row in the strip = start + slope * (x on the floor and ceiling, y on the walls).
        rows = ((0.5 * a, ka), (a, kb), (1.5 * a + b, -ka), (2.0 * a + 2.0 * b, -kb))
        steps = _step_of(np.float32(8.0)) - _FIRST_STEP + 1
        shape = (4, int(steps))
        self._x_scale, self._x_offset = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._y_scale, self._y_offset = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for step in range(shape[1]):
            bits = np.int32(((step + _FIRST_STEP) << _STEP_SHIFT) + (1 << (_STEP_SHIFT - 1)))
            depth = 1.0 / float(bits.view(np.float32))
            i = _level(depth / focal * ppm, 0, GIRTH_LEVELS - 1)
            for face in range(4):
                j = _level(depth * depth / (focal * reach[face]) * ppm, i, LENGTH_LEVELS - 1)
                start, slope = rows[face]
                self._x_scale[face, step] = world.columns * 0.5**j
                self._x_offset[face, step] = world.ripmap.column0[i, j] - 0.5
                self._y_scale[face, step] = slope * 0.5**i
                self._y_offset[face, step] = start * 0.5**i + world.ripmap.row0[i, j] - 0.5

    def corridor(self, view: View) -> Background:
        """The empty corridor, from a pose inside it."""
        pose = view.pose
        image, inverse = self._look_up(pose, 1, self._dither, mirrored=False)
        background = Background(image, inverse, self._floor_mask(pose, inverse))
        if self.world.layout.gloss > 0.0:
            background.mirror = self.reflection(pose)
            self._add_reflection(background, pose)
        self._add_haze(image, inverse)
        return background

    def _planes(self, pose: Pose, mirrored: bool) -> tuple[tuple[int, float], ...]:
        """(axis, factor) per face: 1/depth is `factor` times the ray's component on `axis`."""
        layout = self.world.layout
        below = pose.y + (layout.height if mirrored else 0.0)
        return (
            (1, -1.0 / below),
            (0, 1.0 / (layout.width / 2 - pose.x)),
            (1, 1.0 / (layout.height - pose.y)),
            (0, -1.0 / (layout.width / 2 + pose.x)),
        )

    def _look_up(
        self, pose: Pose, stride: int, dither: NDArray[np.int32], mirrored: bool
    ) -> tuple[ByteImage, FloatImage]:
        """Sample the strip where each pixel's ray meets the nearest plane.

        The inverse depth of a plane is linear in the pixel coordinates, so the nearest plane is
        the largest of four linear functions. Works in blocks of rows that fit into the cache.

        Args:
            pose: where the camera is.
            stride: 1 for every pixel, 2 for every second row and column.
            dither: added to the bits of the inverse depth before the level is chosen.
            mirrored: replace the floor by the mirror image of the ceiling below it.

        Returns:
            The image and the inverse depth per pixel (1/m).
        """
        turn = rotation(pose).astype(np.float32)
        u, v = self._u[::stride], self._v[::stride]
        planes = self._planes(pose, mirrored)
        steps = np.int32(self._x_scale.shape[1])
        floor_face = np.int32((_CEILING if mirrored else _FLOOR) * steps)
        x_scale, x_offset = self._x_scale.ravel(), self._x_offset.ravel()
        y_scale, y_offset = self._y_scale.ravel(), self._y_offset.ravel()
        image = np.empty((len(v), len(u), 3), np.uint8)
        inverse = np.empty((len(v), len(u)), np.float32)
        turned_u = turn[:, 0:1] * u
        start_z = np.float32(pose.z % PERIOD_M / PERIOD_M)
        for top in range(0, len(v), _BLOCK_ROWS):
            block = slice(top, top + _BLOCK_ROWS)
            rays = [
                turned_u[axis] + (turn[axis, 1] * v[block] + turn[axis, 2])[:, None]
                for axis in range(3)
            ]
            floor, right, ceiling, left = (
                rays[axis] * np.float32(factor) for axis, factor in planes
            )
            upright, flat = np.maximum(right, left), np.maximum(floor, ceiling)
            nearest = np.maximum(upright, flat, out=inverse[block])
            np.maximum(nearest, np.float32(1.0 / FAR_M), out=nearest)
            on_wall = upright > flat
            # The top bits of a float are its logarithm: the cheapest way to a level.
            index = nearest.view(np.int32) + dither[block]
            index >>= _STEP_SHIFT
            index -= np.int32(_FIRST_STEP)
            np.clip(index, 0, steps - 1, out=index)
            side = np.where(left > right, np.int32(_LEFT * steps), np.int32(_RIGHT * steps))
            level = np.where(ceiling > floor, np.int32(_CEILING * steps), floor_face)
            index += np.where(on_wall, side, level)
            depth = np.reciprocal(nearest)
            z = rays[2]
            z *= depth
            z *= np.float32(1.0 / PERIOD_M)
            z += start_z
            z -= np.floor(z)
            y = rays[1] * depth
            y += np.float32(pose.y)
            if mirrored:
                np.abs(y, out=y)
            x = rays[0] * depth
            x += np.float32(pose.x)
            across = np.where(on_wall, y, x)
            z *= x_scale.take(index)
            z += x_offset.take(index)
            across *= y_scale.take(index)
            across += y_offset.take(index)
            image[block] = cv2.remap(self.world.ripmap.atlas, z, across, cv2.INTER_LINEAR)
        return image, inverse

    def reflection(self, pose: Pose) -> ByteImage:
        """What a mirror on the floor would show, uint8 (H/2, W/2, 3); only valid on the floor."""
        sharp = np.zeros(((self.camera.height + 1) // 2, (self.camera.width + 1) // 2), np.int32)
        return self._look_up(pose, 2, sharp, mirrored=True)[0]

    def _floor_mask(self, pose: Pose, inverse: FloatImage) -> NDArray[np.bool_]:
        """The pixels whose ray meets the floor, bool (H, W)."""
        turn = rotation(pose).astype(np.float32)
        factor = np.float32(self._planes(pose, False)[_FLOOR][1])
        down = (turn[1, 0] * self._u) * factor
        floor = down[None, :] + ((turn[1, 1] * self._v + turn[1, 2]) * factor)[:, None]
        return np.asarray(floor >= inverse * np.float32(0.99999))

    def _add_reflection(self, background: Background, pose: Pose) -> None:
        image, inverse = background.image, background.inverse
        on_floor = background.on_floor
        assert background.mirror is not None
        rows = np.flatnonzero(on_floor.any(axis=1))
        if len(rows) == 0:
            return
        top = int(rows[0]) // 2 * 2
        mirror = background.mirror[top // 2 :]
        scale = self.camera.width / 640.0
        soft = cv2.GaussianBlur(mirror, (0, 0), 1.6 * scale + 0.1, sigmaY=5.0 * scale + 0.1)
        size = (image.shape[1], image.shape[0] - top)
        big = np.asarray(cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        part = image[top:]
        # Grazing rays are reflected more; height / depth is the sine of the ray's angle.
        weight = np.float32(1.0) - np.minimum(inverse[top:] * np.float32(pose.y), 1.0)
        weight *= weight
        weight *= np.float32(0.8 * self.world.layout.gloss)
        weight *= on_floor[top:]
        keep = np.float32(1.0) - np.float32(0.6) * weight
        part[:] = mixed(part, big, keep, weight)

    def haze_at(self, depth: float) -> float:
        """Share of the haze colour at `depth` metres, 0 to 1."""
        return float(1.0 - np.exp(-max(depth - _HAZE_START_M, 0.0) / _HAZE_LENGTH_M))

    def _add_haze(self, image: ByteImage, inverse: FloatImage) -> None:
        far = inverse < np.float32(1.0 / _HAZE_START_M)
        rows, columns = np.flatnonzero(far.any(axis=1)), np.flatnonzero(far.any(axis=0))
        if len(rows) == 0:
            return
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        beyond = np.maximum(1.0 / inverse[box] - np.float32(_HAZE_START_M), 0.0)
        share = 1.0 - np.exp(beyond * np.float32(-1.0 / _HAZE_LENGTH_M))
        haze = np.broadcast_to(self.world.haze.astype(np.uint8), (*share.shape, 3)).copy()
        image[box] = mixed(np.ascontiguousarray(image[box]), haze, 1.0 - share, share)

    def develop(
        self, scene: ByteImage, gain: float, warmth: float, rng: np.random.Generator
    ) -> ByteImage:
        """Glare, exposure, vignetting and noise: the finished frame, uint8 (H, W, 3) RGB.

        Args:
            scene: uint8 (H, W, 3) RGB.
            gain: brightness factor.
            warmth: relative gain of red over blue.
            rng: of this frame's noise.
        """
        width, height = self.camera.width, self.camera.height
        small_size = (max(8, width // 8), max(6, height // 8))
        small = cv2.resize(scene, small_size, interpolation=cv2.INTER_AREA)
        bright = cv2.subtract(small, np.full_like(np.asarray(small), 212))
        glare = cv2.GaussianBlur(bright, (0, 0), 3.0 * width / 640.0 + 0.3)
        glare = cv2.resize(glare, (width, height), interpolation=cv2.INTER_LINEAR)
        lit = cv2.addWeighted(scene, 1.0, glare, 0.9, 0.0)
        toned = cv2.LUT(lit, self._tone_curve(gain, warmth))
        shaded = cv2.multiply(toned, self._vignette, dtype=cv2.CV_32F)
        top, left = (int(v) for v in rng.integers(0, 64, 2))
        noise = self._noise[top : top + height, left : left + width]
        if rng.random() < 0.5:
            noise = noise[:, ::-1]
        if rng.random() < 0.5:
            noise = noise[::-1]
        noise = np.ascontiguousarray(noise)
        return np.asarray(cv2.add(shaded, noise, dtype=cv2.CV_8U), dtype=np.uint8)

    def _tone_curve(self, gain: float, warmth: float) -> ByteImage:
        level = np.arange(256, dtype=np.float64)
        curve = np.empty((1, 256, 3), np.uint8)
        for channel, tint in enumerate((1.0, 0.0, -1.0)):
            value = level * gain * (1.0 + warmth * tint)
            # A mild S: darker shadows, softly compressed highlights.
            value = value - 9.0 * np.sin(np.clip(value, 0, 255) / 255.0 * 2.0 * np.pi)
            over = np.maximum(value - 225.0, 0.0)
            value = np.minimum(value, 225.0) + over / (1.0 + over / 60.0)
            curve[0, :, channel] = np.clip(np.rint(value), 0, 255).astype(np.uint8)
        return curve
