"""Faults that neither the trainer's outliers nor the stress test hold, as a probe of both.

Both families were written by the same people, who also looked at the figures. These here were
written afterwards, once, and neither the outliers nor the network were changed for them:

    python -m benchmarks.unseen_faults --model lap1.onnx --normal lap2 --exclude 324-369
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import open_source
from benchmarks.common import options, run
from training.cli.stress import format_stress
from training.evaluation.faults import UNITS, Fault
from training.evaluation.faults.base import Image, Mask
from training.evaluation.stress import numbered_frames, run_stress

Random = np.random.Generator
Faulted = tuple[Image, Mask | None]


@dataclass(frozen=True)
class UnseenFault(Fault, group="unseen"):
    """A fault that a function of this module puts on a frame.

    Attributes:
        put: the function, with the arguments and results of :meth:`Fault.apply`.
    """

    put: Callable[[Image, Random], Faulted]

    def apply(self, image: Image, rng: Random) -> Faulted:
        return self.put(image, rng)

    @property
    def description(self) -> str:
        """The function's docstring."""
        return " ".join((inspect.getdoc(self.put) or "").split())

    def parameters(self) -> dict[str, Any]:
        """Return nothing: a function has no parameters but those in its name."""
        return {}


def _poster(size: float) -> Callable[[Image, Random], Faulted]:
    def put(image: Image, rng: Random) -> Faulted:
        """A poster: a picture with the spectrum of a photograph and a thin white border."""
        height, width = image.shape[:2]
        rows, columns = round(0.75 * size * height / UNITS), round(size * width / UNITS)
        frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None])
        frequency[0, 0] = 1
        phases = np.exp(2j * np.pi * rng.random((3, rows, columns)))
        field = np.real(np.fft.ifft2(phases / frequency)).transpose(1, 2, 0)
        field = (field - field.mean()) / field.std()
        patch = np.clip(rng.uniform(70, 180, 3) + 50 * field, 0, 255)
        edge = max(1, columns // 16)
        patch[:edge] = patch[-edge:] = patch[:, :edge] = patch[:, -edge:] = 230
        top = int(rng.integers(height // 3, height - rows))
        left = int(rng.integers(0, width - columns))
        result, mask = image.copy(), np.zeros((height, width), bool)
        result[top : top + rows, left : left + columns] = patch
        mask[top : top + rows, left : left + columns] = True
        return result, mask

    return put


def _lens_crack(image: Image, rng: Random) -> Faulted:
    """A cracked lens: bright, forked lines from one point, and the scene offset behind them."""
    height, width = image.shape[:2]
    start = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height])
    lines = np.zeros((height, width), np.uint8)
    angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.uniform(0.6, 1.6, 5))
    for angle in angles:
        point = start
        for _ in range(12):
            angle += rng.normal(0, 0.25)
            step = np.array([np.cos(angle), np.sin(angle)]) * width / 20
            begin, end = (np.rint(p).astype(int).tolist() for p in (point, point + step))
            cv2.line(lines, begin, end, 255, max(1, width // 120), cv2.LINE_AA)
            point = point + step
    share = lines[..., None] / 255.0
    behind = np.roll(image, (height // 40, width // 40), (0, 1))
    seen = image * (1 - share) + (0.4 * behind + 0.6 * 215) * share
    return np.clip(seen, 0, 255).astype(np.uint8), lines > 60


def _rain(image: Image, rng: Random) -> Faulted:
    """Heavy rain: many short, slanted, faint streaks."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.float32)
    slant = rng.uniform(-0.4, 0.4)
    for x, y, length in rng.uniform((0, 0, 0.06), (1, 1, 0.16), (140, 3)):
        start = (int(x * width), int(y * height))
        end = (int((x + slant * length) * width), int((y + length) * height))
        cv2.line(layer, start, end, float(rng.uniform(0.2, 0.5)), 1, cv2.LINE_AA)
    seen = image + (225 - image.astype(np.float32)) * layer[..., None]
    return np.clip(seen, 0, 255).astype(np.uint8), None


def _sun_ghosts(image: Image, rng: Random) -> Faulted:
    """The sun in the lens: a glaring spot, rays, and a chain of coloured ghosts."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    sun = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.05, 0.4) * height])
    away = np.hypot(columns - sun[0], rows - sun[1]) / width
    angle = np.arctan2(rows - sun[1], columns - sun[0])
    light = np.exp(-away / 0.05) + 0.5 * np.exp(-away / 0.2) * np.cos(4 * angle) ** 8
    seen = image + 255 * light[..., None]
    middle = np.array([width / 2, height / 2])
    for position in (0.5, 1.3, 1.7):
        x, y = sun + (middle - sun) * position
        disc = np.hypot(columns - x, rows - y) < width * rng.uniform(0.02, 0.06)
        seen[disc] += rng.uniform(10, 70, 3)
    return np.clip(seen, 0, 255).astype(np.uint8), None


def _wavy_pane(image: Image, rng: Random) -> Faulted:
    """A warped view, as through a wavy pane: rows and columns pushed to and fro."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    a, b = rng.uniform(0, 2 * np.pi, 2)
    across = 2.5 * width / UNITS * np.sin(rows * (2 * np.pi * 3 / height) + a)
    down = 2.5 * height / UNITS * np.sin(columns * (2 * np.pi * 3 / width) + b)
    moved = cv2.remap(
        image, (columns + across).astype(np.float32), (rows + down).astype(np.float32),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip
    return np.asarray(moved, np.uint8), None


def _posterized(image: Image, rng: Random) -> Faulted:
    """Too few bits: every channel has four levels."""
    step = 256 / 4
    return np.asarray((np.floor(image / step) + 0.5) * step, np.uint8), None


def _negative(image: Image, rng: Random) -> Faulted:
    """Light and dark exchanged."""
    return 255 - image, None


def _wrong_quarters(image: Image, rng: Random) -> Faulted:
    """The picture's quarters in a wrong order, as of a wrongly assembled buffer."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    parts = [image[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    a, b, c, d = (parts[i] for i in np.roll(np.arange(4), int(rng.integers(1, 4))))
    result = image.copy()
    result[: 2 * height, : 2 * width] = np.vstack([np.hstack([a, b]), np.hstack([c, d])])
    return result, None


def _double_exposure(image: Image, rng: Random) -> Faulted:
    """Two exposures in one frame: the scene once more, shifted and half transparent."""
    move = round(7.0 * image.shape[1] / UNITS) * (1 if rng.random() < 0.5 else -1)
    other = np.roll(image, move, 1)
    return np.asarray(image * 0.55 + other * 0.45, np.uint8), None


def _puddle(image: Image, rng: Random) -> Faulted:
    """Spilt water: a flat patch on the floor that mirrors, darkly, what stands above it."""
    height, width = image.shape[:2]
    center = (rng.uniform(0.2, 0.8) * width, rng.uniform(0.68, 0.9) * height)
    axes = (20.0 * width / UNITS / 2, 20.0 * height / UNITS / 6)
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (center, (2 * axes[0], 2 * axes[1]), 0), 255, -1)
    share = cv2.GaussianBlur(mask, (0, 0), width / 120)[..., None] / 255.0 * 0.75
    mirrored = image[::-1] * 0.6 + 12
    return np.asarray(image * (1 - share) + mirrored * share, np.uint8), mask > 0


def _legs(image: Image, rng: Random) -> Faulted:
    """A person close by: two dark trouser legs with shoes, from the top of the frame."""
    height, width = image.shape[:2]
    result, mask = image.copy(), np.zeros((height, width), np.uint8)
    x, foot = rng.uniform(0.2, 0.8) * width, rng.uniform(0.7, 0.95) * height
    trousers, shoe = rng.uniform(15, 110, 3), rng.uniform(20, 230, 3)
    for side in (-1, 1):
        ankle = x + side * rng.uniform(0.02, 0.08) * width
        hip, half = x + side * 0.03 * width, 0.03 * width
        leg = np.array(
            [[hip - half, 0], [hip + half, 0], [ankle + half, foot], [ankle - half, foot]]
        )
        cv2.fillPoly(result, [np.rint(leg).astype(np.int32)], trousers.tolist(), cv2.LINE_AA)
        cv2.fillPoly(mask, [np.rint(leg).astype(np.int32)], 255)
        box = ((ankle, foot), (0.09 * width, 0.05 * height), 0)
        cv2.ellipse(result, box, shoe.tolist(), -1, cv2.LINE_AA)
        cv2.ellipse(mask, box, 255, -1)
    return result, mask > 0


UNSEEN_FAULTS = (
    UnseenFault("poster_8", _poster(8.0)),
    UnseenFault("poster_14", _poster(14.0)),
    UnseenFault("puddle", _puddle),
    UnseenFault("legs", _legs),
    UnseenFault("lens_crack", _lens_crack),
    UnseenFault("rain", _rain),
    UnseenFault("sun_ghosts", _sun_ghosts),
    UnseenFault("wavy_pane", _wavy_pane),
    UnseenFault("posterized", _posterized),
    UnseenFault("negative", _negative),
    UnseenFault("wrong_quarters", _wrong_quarters),
    UnseenFault("double_exposure", _double_exposure),
)


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Score a drive without and with every fault."""
    source = open_source(arguments.normal, arguments.topic)
    detector = Detector(arguments.model)
    result = run_stress(
        detector,
        numbered_frames(source, detector.view, arguments.exclude),
        UNSEEN_FAULTS,
        arguments.seed,
        bootstrap=0,
        total=len(source),
    )
    print(format_stress(result))
    return result.to_dict(), True


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--model", "--topic", "--exclude", "--seed")
    parser.add_argument("--normal", required=True, metavar="RECORDING", help="clean test drive")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
