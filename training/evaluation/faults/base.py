"""What a stress fault is, and the coordinates that its size is given in.

Sizes are in *units*: pixels of the model's 64x64 input. A frame of any size is 64 units wide and
64 high, so a box of 10 units is 10x10 pixels large in what the model sees, whatever the camera.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Stage = Literal["camera", "input"]

UNITS = 64
"""Width and height of every frame in units."""

_SUPERSAMPLING = 8
_SHIFT = 4


@dataclass(frozen=True)
class Fault(abc.ABC):
    """One way in which a frame goes wrong; the fields of a subclass are its parameters.

    Attributes:
        name: unique among all registered faults.
        group: heading under which it is listed.
        stage: ``camera`` for a fault of the full-size frame, before resizing; ``input`` for one
            that is put on the resized frame itself.
        per_frame: whether one faulted frame shows the fault; False for faults of a sequence.
    """

    name: str

    group: ClassVar[str]
    stage: ClassVar[Stage]
    per_frame: ClassVar[bool]

    def __init_subclass__(cls, group: str, stage: Stage = "camera", per_frame: bool = True) -> None:
        super().__init_subclass__()
        cls.group, cls.stage, cls.per_frame = group, stage, per_frame

    @abc.abstractmethod
    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        """Put the fault on a frame.

        Args:
            image: uint8 RGB [H, W, 3]; not changed.
            rng: all that is random comes from here.

        Returns:
            The faulted frame, uint8 RGB [H, W, 3], and for a fault with a place the changed
            region, bool [H, W]; None for a fault of the whole frame.
        """

    @property
    def description(self) -> str:
        """What it stands for: the first paragraph of the class's docstring."""
        return " ".join((inspect.getdoc(type(self)) or "").split("\n\n")[0].split())

    def parameters(self) -> dict[str, Any]:
        """Return all fields but the name."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "name"}

    @property
    def parameter_text(self) -> str:
        """The parameters in words, as in ``docs/stress-faults.md``."""
        pairs = [f"{key} {_in_words(value)}" for key, value in self.parameters().items()]
        return "; ".join(pairs) or "none"


def _in_words(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if not isinstance(value, tuple):
        return str(value)
    texts = [_in_words(item) for item in value]
    if all(isinstance(item, tuple) for item in value):
        return ", ".join(f"({text})" for text in texts)
    is_range = len(value) == 2 and not isinstance(value[0], str)
    return " to ".join(texts) if is_range else ", ".join(texts)


def as_image(values: NDArray[Any]) -> Image:
    """Round and clip float values to uint8."""
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def blend(image: Image, paint: Floats, alpha: Floats) -> Image:
    """Lay paint over a frame.

    Args:
        image: uint8 [H, W, 3].
        paint: float [H, W, 3], or a colour [3], in 0..255.
        alpha: float [H, W], opacity in 0..1.
    """
    opacity = alpha[..., np.newaxis]
    return as_image(image + (paint - image) * opacity)


def optical_scale(image: Image) -> float:
    """Return camera pixels per unit for faults of the lens.

    A lens blurs alike in both directions, while resizing squeezes a wide frame sideways. The
    geometric mean of both scales keeps the fault's area at 64x64.
    """
    height, width = image.shape[:2]
    return float(np.sqrt(height * width)) / UNITS


def wide_blur(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Blur with a Gaussian that may be wide: on a smaller copy, which a wide one cannot tell.

    Args:
        image: uint8 or float32 [H, W, 3].
        sigma: standard deviation, pixels.
    """
    return _on_smaller(
        image, sigma / 4, lambda small, f: cv2.GaussianBlur(small, (0, 0), sigma / f)
    )


def disc_blur(image: Image, radius: float) -> Image:
    """Blur with an evenly lit disc.

    Args:
        image: uint8 [H, W, 3].
        radius: of the disc, pixels.
    """

    def filtered(small: NDArray[Any], factor: float) -> Any:
        own = radius / factor
        reach = int(np.ceil(own))
        fine = (np.arange(8 * (2 * reach + 1)) + 0.5) / 8 - reach - 0.5
        disc = (np.hypot(fine[:, np.newaxis], fine) <= own).astype(np.float32)
        kernel = cv2.resize(disc, (2 * reach + 1, 2 * reach + 1), interpolation=cv2.INTER_AREA)
        return cv2.filter2D(small, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)

    return np.asarray(_on_smaller(image, radius / 6, filtered), np.uint8)


def _on_smaller(
    image: NDArray[Any], factor: float, function: Callable[[NDArray[Any], float], Any]
) -> NDArray[Any]:
    """Shrink by a whole factor, apply a function of image and factor, and enlarge again."""
    height, width = image.shape[:2]
    whole = max(1, int(factor))
    if whole == 1:
        return np.asarray(function(image, 1.0))
    size = (max(1, width // whole), max(1, height // whole))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    result = function(small, float(np.sqrt(width * height / (size[0] * size[1]))))
    return np.asarray(cv2.resize(result, (width, height), interpolation=cv2.INTER_LINEAR))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> Floats:
    """Make smooth random values with about ``cells`` bumps on a side, float [H, W], 0..1."""
    count = max(2, round(cells) + 1)
    grid = rng.random((count, count), np.float32)
    big = cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.asarray(big, np.float32), 0, 1)


def as_seen(mask: Mask, size: int = UNITS) -> Mask:
    """Resize a mask to what the model sees of it.

    A cell counts when half of it is covered; where nothing covers a half, as with a thin line,
    when any of it is.

    Returns:
        bool [size, size].
    """
    height, width = mask.shape
    shares = mask.astype(np.float32)
    if (height, width) != (size, size):
        method = cv2.INTER_AREA if min(height, width) >= size else cv2.INTER_LINEAR
        shares = np.asarray(cv2.resize(shares, (size, size), interpolation=method), np.float32)
    half = shares >= 0.5
    return half if half.any() else shares > 0


class Stencil:
    """A drawing surface in units, whose shapes become opacities of a frame of any size."""

    def __init__(self) -> None:
        side = UNITS * _SUPERSAMPLING
        self._levels = np.zeros((side, side), np.uint8)

    def polygon(self, points: NDArray[np.floating[Any]] | Sequence[Sequence[float]]) -> Stencil:
        """Fill a polygon, points (x, y) [N, 2] in units; return the stencil itself."""
        cv2.fillPoly(self._levels, [self._scaled(points)], 255, shift=_SHIFT)
        return self

    def line(
        self, points: NDArray[np.floating[Any]] | Sequence[Sequence[float]], thickness: float
    ) -> Stencil:
        """Draw a line through points (x, y) [N, 2] in units; return the stencil itself."""
        width = max(1, round(thickness * _SUPERSAMPLING))
        cv2.polylines(self._levels, [self._scaled(points)], False, 255, width, shift=_SHIFT)
        return self

    def opacity(self, image: Image, *, softness: float = 0.0) -> Floats:
        """Return the opacity at every pixel of a frame.

        Args:
            image: the frame, for its size.
            softness: standard deviation of the edge's blur, in units.

        Returns:
            float [H, W], 0..1.
        """
        height, width = image.shape[:2]
        levels = self._levels
        if softness > 0:
            # At a quarter of the resolution: a soft edge has no detail to lose.
            levels = np.asarray(cv2.resize(levels, None, fx=0.25, fy=0.25), np.uint8)
            sigma = softness * _SUPERSAMPLING / 4
            levels = np.asarray(cv2.GaussianBlur(levels, (0, 0), sigma), np.uint8)
        shrinks = height <= levels.shape[0] and width <= levels.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        sized = cv2.resize(levels, (width, height), interpolation=method)
        return np.asarray(np.asarray(sized, np.float32) / 255, np.float32)

    @staticmethod
    def _scaled(points: NDArray[np.floating[Any]] | Sequence[Sequence[float]]) -> NDArray[np.int32]:
        # OpenCV puts whole coordinates on pixel centres, units count from the frame's edge.
        fine = np.asarray(points, np.float64) * _SUPERSAMPLING - 0.5
        return np.asarray(np.rint(fine * 2**_SHIFT), np.int32)
