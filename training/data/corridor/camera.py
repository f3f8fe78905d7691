"""The robot's camera: pin-hole projection and the smooth sway of a drive.

World axes: x to the right, y up, z along the corridor, in metres, with x = 0 on the centre line
and y = 0 on the floor. Camera axes: x right, y down, z along the optical axis.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

HORIZONTAL_FIELD_OF_VIEW_DEG = 80.0
CAMERA_HEIGHT_M = 0.55
CAMERA_PITCH_DEG = -5.0
SPEED_MPS = 1.0


@dataclass(frozen=True)
class Pose:
    """Where the camera is (metres) and looks (radians; positive: left yaw, up, clockwise roll)."""

    x: float
    y: float
    z: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


@dataclass(frozen=True)
class Camera:
    """A pin-hole camera of `width` x `height` pixels with square pixels and no distortion."""

    width: int
    height: int

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return 0.5 * self.width / math.tan(math.radians(HORIZONTAL_FIELD_OF_VIEW_DEG) / 2.0)

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        """The 3x3 camera matrix (pixel centres at whole numbers)."""
        return np.array(
            [
                [self.focal, 0.0, (self.width - 1) / 2.0],
                [0.0, self.focal, (self.height - 1) / 2.0],
                [0.0, 0.0, 1.0],
            ]
        )


def rotation(pose: Pose) -> NDArray[np.float64]:
    """The 3x3 matrix that turns camera axes into world axes."""
    cy, sy = math.cos(pose.yaw), math.sin(pose.yaw)
    cp, sp = math.cos(pose.pitch), math.sin(pose.pitch)
    cr, sr = math.cos(pose.roll), math.sin(pose.roll)
    yaw = np.array([[cy, 0.0, -sy], [0.0, 1.0, 0.0], [sy, 0.0, cy]])
    pitch = np.array([[1.0, 0.0, 0.0], [0.0, cp, sp], [0.0, -sp, cp]])
    roll = np.array([[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]])
    flip = np.diag([1.0, -1.0, 1.0])
    return np.asarray(yaw @ pitch @ flip @ roll)


@dataclass(frozen=True)
class View:
    """A camera at a pose: what projects world points into one frame."""

    camera: Camera
    pose: Pose

    @functools.cached_property
    def _turn(self) -> NDArray[np.float64]:
        return rotation(self.pose)

    @property
    def centre(self) -> NDArray[np.float64]:
        """The camera centre in the world, shape (3,)."""
        return np.array([self.pose.x, self.pose.y, self.pose.z])

    def to_camera(self, points: ArrayLike) -> NDArray[np.float64]:
        """World points (N, 3) in camera axes (N, 3)."""
        relative = np.asarray(points, dtype=np.float64).reshape(-1, 3) - self.centre
        return np.asarray(relative @ self._turn)

    def to_pixels(self, in_camera: NDArray[np.float64]) -> NDArray[np.float64]:
        """Camera-axes points in front of the camera (N, 3) as pixel coordinates (N, 2)."""
        scale = self.camera.focal / in_camera[:, 2:3]
        centre = np.array([(self.camera.width - 1) / 2.0, (self.camera.height - 1) / 2.0])
        return np.asarray(in_camera[:, :2] * scale + centre)

    def plane_to_pixels(self, origin: ArrayLike, u: ArrayLike, v: ArrayLike) -> NDArray[np.float64]:
        """The homography of the plane ``origin + a*u + b*v``: maps (a, b, 1) to pixels, 3x3."""
        turn = self._turn.T
        columns = [np.asarray(u), np.asarray(v), np.asarray(origin) - self.centre]
        return np.asarray(self.camera.intrinsics @ np.stack([turn @ c for c in columns], axis=1))


class Sway:
    """Smooth seeded motion and exposure of one drive, in closed form.

    Every quantity is a sum of a few sines of the time, so that frame k needs no frame before it.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the phases and frequencies of one drive from `rng`."""
        self._waves = {
            name: [
                (
                    amplitude * float(rng.uniform(0.6, 1.0)),
                    2.0 * math.pi * frequency * float(rng.uniform(0.75, 1.3)),
                    float(rng.uniform(0.0, 2.0 * math.pi)),
                )
                for amplitude, frequency in parts
            ]
            for name, parts in _WAVES.items()
        }
        self._start_z = float(rng.uniform(-0.5, 0.5))

    def _value(self, name: str, t: float) -> float:
        return sum(a * math.sin(w * t + p) for a, w, p in self._waves[name])

    def pose(self, t: float) -> Pose:
        """The camera pose `t` seconds after the start."""
        return Pose(
            x=self._value("x", t),
            y=CAMERA_HEIGHT_M + self._value("y", t),
            z=self._start_z + SPEED_MPS * t + self._value("z", t),
            yaw=self._value("yaw", t),
            pitch=math.radians(CAMERA_PITCH_DEG) + self._value("pitch", t),
            roll=self._value("roll", t),
        )

    def exposure(self, t: float) -> float:
        """Brightness factor of the exposure drift, about 0.85 to 1.15."""
        return math.exp(self._value("exposure", t))

    def warmth(self, t: float) -> float:
        """White-balance drift: relative gain of red over blue, about -0.03 to 0.03."""
        return self._value("warmth", t)


# Per quantity: (amplitude, frequency in Hz); the fast parts are the wheels on the floor.
_WAVES: dict[str, tuple[tuple[float, float], ...]] = {
    "x": ((0.13, 0.05), (0.05, 0.13)),
    "y": ((0.003, 1.1), (0.0015, 2.9)),
    "z": ((0.10, 0.06), (0.03, 0.17)),
    "yaw": ((0.024, 0.08), (0.010, 0.27), (0.0015, 1.3)),
    "pitch": ((0.006, 0.21), (0.003, 1.2), (0.0015, 3.1)),
    "roll": ((0.006, 0.15), (0.003, 0.9), (0.001, 2.7)),
    "exposure": ((0.07, 0.045), (0.035, 0.16)),
    "warmth": ((0.02, 0.03), (0.008, 0.11)),
}
