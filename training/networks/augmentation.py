"""Augmentation of training frames: presets of the thesis and of the paper.

Split in two, so that it costs little and can be repeated exactly. :meth:`Preset.sample` chooses
what happens to each frame of a batch: a few numbers, from the seed, the epoch and the batch.
:func:`augment` then does it to the whole batch with ``keras.ops``, as a part of the training graph:
one warp for all of flip, rotation, zoom and crop, one multiplication and addition for all of
brightness and contrast. The autoencoder is to reproduce the augmented image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.preprocessing import INPUT_SIZE
from training.networks.backend import import_keras, import_tensorflow

Samples = dict[str, NDArray[Any]]
"""What is done to each of N frames:

* ``matrix`` float32 [N, 6]: the two lines of the map from (column, row, 1) of a pixel of the
  result to the column and the row in the frame that it shows;
* ``gain`` and ``offset`` float32 [N]: of the grey levels;
* ``noise`` uint8 [N, 64, 64] and ``noise_weight`` float32 [N]: grey noise and its share of the
  result (with ``noise_probability`` alone);
* ``impulse`` int8 [N, 64, 64]: 1 for a white pixel, -1 for a black one (with ``impulse_share``
  alone).
"""

_CENTRE = (INPUT_SIZE - 1) / 2
_BANK_SIZE = 256
_BANK_COUNT = 16


@dataclass(frozen=True)
class Preset:
    """What may happen to a frame, and how often; by default nothing does.

    Attributes:
        flip_probability: of a horizontal flip.
        rotation: largest angle either way, degrees.
        rotation_probability: of a rotation.
        zoom: least and largest factor from the result's size to that of the part of the frame it
            shows, sampled for rows and columns separately.
        crop: least and largest height of a random square that is resized back, pixels.
        crop_probability: of a crop.
        gain: least and largest factor of the grey levels.
        offset: largest shift of the grey levels either way.
        color_probability: of a change of gain and offset.
        noise_probability: of Perlin noise.
        noise_weight: largest share of the noise in the result.
        impulse_share: share of pixels that turn black or white, half of them each.
        fill_mode: what lies outside the frame: ``nearest``, its border pixels, or ``reflect``, its
            mirror image.
    """

    flip_probability: float = 0.0
    rotation: float = 0.0
    rotation_probability: float = 1.0
    zoom: tuple[float, float] = (1.0, 1.0)
    crop: tuple[int, int] = (INPUT_SIZE, INPUT_SIZE)
    crop_probability: float = 0.0
    gain: tuple[float, float] = (1.0, 1.0)
    offset: float = 0.0
    color_probability: float = 1.0
    noise_probability: float = 0.0
    noise_weight: float = 0.0
    impulse_share: float = 0.0
    fill_mode: str = "nearest"

    def sample(self, generator: np.random.Generator, count: int) -> Samples:
        """Choose what happens to each of ``count`` frames."""
        samples: Samples = {"matrix": self._matrices(generator, count)}
        changed = generator.random(count) < self.color_probability
        gain = np.where(changed, generator.uniform(*self.gain, count), 1.0)
        offset = np.where(changed, generator.uniform(-self.offset, self.offset, count), 0.0)
        samples["gain"] = gain.astype(np.float32)
        samples["offset"] = offset.astype(np.float32)
        if self.noise_probability:
            weight = generator.uniform(0.0, self.noise_weight, count)
            weight[generator.random(count) >= self.noise_probability] = 0.0
            samples["noise"] = _crops_of_noise(generator, count)
            samples["noise_weight"] = weight.astype(np.float32)
        if self.impulse_share:
            uniform = generator.random((count, INPUT_SIZE, INPUT_SIZE), np.float32)
            half = np.float32(self.impulse_share / 2)
            white, black = uniform < half, uniform > 1 - half
            samples["impulse"] = white.astype(np.int8) - black.astype(np.int8)
        return samples

    def neutral(self, count: int) -> Samples:
        """Return the samples, of the same names and shapes, that leave frames as they are."""
        samples: Samples = {
            "matrix": np.tile(np.array([1, 0, 0, 0, 1, 0], np.float32), (count, 1)),
            "gain": np.ones(count, np.float32),
            "offset": np.zeros(count, np.float32),
        }
        if self.noise_probability:
            samples["noise"] = np.zeros((count, INPUT_SIZE, INPUT_SIZE), np.uint8)
            samples["noise_weight"] = np.zeros(count, np.float32)
        if self.impulse_share:
            samples["impulse"] = np.zeros((count, INPUT_SIZE, INPUT_SIZE), np.int8)
        return samples

    def _matrices(self, generator: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Return float32 [count, 6]: rotate, zoom, crop and flip, from the result to the frame."""
        flipped = generator.random(count) < self.flip_probability
        sign = np.where(flipped, -1.0, 1.0)
        flip = _scaling(sign, np.ones(count))
        zoom = _scaling(generator.uniform(*self.zoom, count), generator.uniform(*self.zoom, count))

        height = generator.integers(self.crop[0], self.crop[1] + 1, count).astype(np.float64)
        height[generator.random(count) >= self.crop_probability] = INPUT_SIZE
        scale = height / INPUT_SIZE
        crop = _scaling(scale, scale)
        free = INPUT_SIZE - height
        # Away from the centre, by whole pixels of the frame as a slice would be.
        crop[:, 0, 2] += np.floor(generator.random(count) * (free + 1)) - free / 2
        crop[:, 1, 2] += np.floor(generator.random(count) * (free + 1)) - free / 2

        angle = np.deg2rad(generator.uniform(-self.rotation, self.rotation, count))
        angle[generator.random(count) >= self.rotation_probability] = 0.0
        rotation = _about_centre(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
        matrix = flip @ crop @ zoom @ rotation
        return matrix[:, :2].reshape(count, 6).astype(np.float32)


AUGMENTATIONS: Mapping[str, Preset | None] = {
    "none": None,
    # Thesis 5.7, its 4.5 for the salt and pepper, of which no amount is given.
    "thesis": Preset(
        flip_probability=0.5,
        rotation=40.0,
        zoom=(0.5, 1.0),
        gain=(0.6, 1.7),
        impulse_share=0.02,
    ),
    # The paper's published code; how much of the noise shows is not stated.
    "paper": Preset(
        flip_probability=0.5,
        rotation=10.0,
        rotation_probability=0.5,
        crop=(50, 64),
        crop_probability=0.5,
        gain=(0.9, 1.1),
        offset=25.5,
        color_probability=0.5,
        noise_probability=0.5,
        noise_weight=0.3,
        fill_mode="reflect",
    ),
}
"""Name to preset; None for no augmentation."""


def augment(image: Any, samples: Mapping[str, Any], fill_mode: str = "nearest") -> Any:
    """Do to a batch what was sampled for it.

    Args:
        image: [N, 64, 64, 3] in 0..255, a tensor of any type.
        samples: see :data:`Samples`, as tensors or arrays.
        fill_mode: what lies outside the frame: ``nearest`` or ``reflect``.

    Returns:
        float32 [N, 64, 64, 3] in 0..255.
    """
    ops = import_keras().ops
    pixels = _warp(ops.cast(image, "float32"), samples["matrix"], fill_mode)
    pixels = pixels * _per_frame(samples["gain"]) + _per_frame(samples["offset"])
    pixels = ops.clip(pixels, 0.0, 255.0)
    if "noise" in samples:
        noise = ops.expand_dims(ops.cast(samples["noise"], "float32"), -1)
        pixels = pixels + _per_frame(samples["noise_weight"]) * (noise - pixels)
    if "impulse" in samples:
        # 255 is beyond either end of the range, whatever the pixel was.
        impulse = ops.expand_dims(ops.cast(samples["impulse"], "float32"), -1)
        pixels = ops.clip(pixels + 255.0 * impulse, 0.0, 255.0)
    return pixels


def compiled_augment(fill_mode: str) -> Callable[[Any, Mapping[str, Any]], Any]:
    """Return :func:`augment` for a training graph.

    On TensorFlow it is compiled by XLA, which fuses the whole of it into one loop. That costs a
    seventh of ``keras.ops.image.affine_transform`` alone, which would take a fifth of a step.
    """

    def function(image: Any, samples: Mapping[str, Any]) -> Any:
        return augment(image, samples, fill_mode)

    if import_keras().backend.backend() != "tensorflow":
        return function
    compiled: Callable[[Any, Mapping[str, Any]], Any] = import_tensorflow().function(
        function, jit_compile=True, autograph=False
    )
    return compiled


def _warp(pixels: Any, matrix: Any, fill_mode: str) -> Any:
    """Resample frames, bilinear.

    Args:
        pixels: float32 [N, 64, 64, 3].
        matrix: float32 [N, 6], from (column, row) of the result to (column, row) of the frame.
        fill_mode: see :func:`augment`.
    """
    ops = import_keras().ops
    size = INPUT_SIZE
    row, column = np.divmod(np.arange(size * size, dtype=np.float32), np.float32(size))
    factors = [matrix[:, i : i + 1] for i in range(6)]
    x = factors[0] * column + factors[1] * row + factors[2]
    y = factors[3] * column + factors[4] * row + factors[5]
    left, top = ops.floor(x), ops.floor(y)
    weight_x, weight_y = ops.expand_dims(x - left, -1), ops.expand_dims(y - top, -1)

    def inside(index: Any) -> Any:
        index = ops.cast(index, "int32")
        if fill_mode == "reflect":
            index = ops.where(index < 0, -1 - index, index)
            index = ops.where(index >= size, 2 * size - 1 - index, index)
        return ops.clip(index, 0, size - 1)

    columns = inside(left), inside(left + 1)
    flat = ops.reshape(pixels, (-1, pixels.shape[-1]))
    first = ops.expand_dims(ops.arange(ops.shape(pixels)[0], dtype="int32") * (size * size), -1)
    lines = []
    for line in (inside(top), inside(top + 1)):
        start, end = (ops.take(flat, first + line * size + c, axis=0) for c in columns)
        lines.append(start + weight_x * (end - start))
    result = lines[0] + weight_y * (lines[1] - lines[0])
    return ops.reshape(result, (-1, size, size, pixels.shape[-1]))


def _per_frame(values: Any) -> Any:
    return import_keras().ops.reshape(values, (-1, 1, 1, 1))


def _about_centre(
    xx: NDArray[np.float64],
    xy: NDArray[np.float64],
    yx: NDArray[np.float64],
    yy: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return [N, 3, 3] matrices on (column, row, 1) that keep the frame's centre in place."""
    matrix = np.zeros((len(xx), 3, 3))
    matrix[:, 0, 0], matrix[:, 0, 1] = xx, xy
    matrix[:, 1, 0], matrix[:, 1, 1] = yx, yy
    matrix[:, 0, 2] = _CENTRE * (1 - xx - xy)
    matrix[:, 1, 2] = _CENTRE * (1 - yx - yy)
    matrix[:, 2, 2] = 1
    return matrix


def _scaling(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    zero = np.zeros(len(x))
    return _about_centre(x, zero, zero, y)


def _crops_of_noise(generator: np.random.Generator, count: int) -> NDArray[np.uint8]:
    bank = perlin_bank()
    pictures = generator.integers(len(bank), size=count)
    corners = generator.integers(_BANK_SIZE - INPUT_SIZE + 1, size=(count, 2))
    return np.stack(
        [
            bank[picture, row : row + INPUT_SIZE, column : column + INPUT_SIZE]
            for picture, (row, column) in zip(pictures, corners, strict=True)
        ]
    )


@cache
def perlin_bank() -> NDArray[np.uint8]:
    """Return pictures of Perlin noise to cut crops from, uint8 [16, 256, 256]; always the same.

    Gradient noise (Perlin 1985, "An image synthesizer") of four octaves: cells of 64, 32, 16 and
    8 pixels, each with half the amplitude of the one before, stretched over 0..255. Drawing it
    anew for every frame would cost more than a training step.
    """
    generator = np.random.default_rng(0)
    bank = np.empty((_BANK_COUNT, _BANK_SIZE, _BANK_SIZE), np.uint8)
    for picture in bank:
        total = sum(_gradient_noise(generator, 64 >> i) * 0.5**i for i in range(4))
        low, high = np.min(total), np.max(total)
        picture[:] = np.round(255 * (total - low) / (high - low))
    return bank


def _gradient_noise(generator: np.random.Generator, cell: int) -> NDArray[np.float64]:
    """Return one octave, [256, 256]: random slopes at the corners of cells, blended smoothly."""
    cells = _BANK_SIZE // cell
    angle = generator.uniform(0, 2 * np.pi, (cells + 1, cells + 1))
    slopes = np.stack([np.sin(angle), np.cos(angle)], -1)
    index, fraction = np.divmod(np.arange(_BANK_SIZE), cell)
    position = (fraction + 0.5) / cell
    # 6t^5 - 15t^4 + 10t^3, whose first two derivatives vanish at both ends (Perlin 2002).
    blend = position**3 * (position * (6 * position - 15) + 10)
    total = np.zeros((_BANK_SIZE, _BANK_SIZE))
    for down in (0, 1):
        for right in (0, 1):
            slope = slopes[np.ix_(index + down, index + right)]
            ramp = slope[..., 0] * (position[:, None] - down) + slope[..., 1] * (position - right)
            rows = blend if down else 1 - blend
            columns = blend if right else 1 - blend
            total += ramp * rows[:, None] * columns
    return total
