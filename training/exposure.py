"""The discriminative detector: a small network trained by outlier exposure on made-up outliers.

It looks at a frame once and answers twice: a map of log-odds that a cell shows something foreign,
and log-odds that the frame as a whole is not a normal one. Reconstruction knows neither: a smooth
or dark frame reconstructs too well, and a small object hardly moves the mean error (thesis 5.4.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from anomaly_detector.preprocessing import INPUT_SIZE
from training.outliers import paste_outlier, picture_fault, vary_normal

__all__ = ["MAP_SIZE", "ExposureSettings", "build_exposure_network", "exposure_batch"]

MAP_SIZE = INPUT_SIZE // 2
"""Height and width of the network's map."""

_MASK_SHARE = 0.3
"""A map cell counts as anomalous when this share of it is covered."""


@dataclass(frozen=True)
class ExposureSettings:
    """How the network is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: frames a step: half of them normal, a quarter with something pasted in, a
            quarter with a fault of the whole picture.
        learning_rate: of AdamW at its peak; rises for 5 % of the steps, then falls as a cosine.
        weight_decay: of AdamW.
        seed: of weights, outliers and order.
    """

    steps: int = 1600
    batch_size: int = 48
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0


def build_exposure_network() -> Any:
    """Build the network: float32 [N, 64, 64, 3] in 0..255 to a dict of log-odds.

    ``map`` is [N, 32, 32], ``frame`` [N, 1]. An encoder of stride-2 and stride-1 3x3 convolutions
    down to 4x4, a decoder with skip connections up to 32x32, and a head that sees the whole frame.
    Two channels tell every pixel where it is, since what is normal depends on the place in the
    picture.
    """
    image = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="image")
    axis = np.linspace(-1, 1, INPUT_SIZE, dtype=np.float32)
    place = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)[np.newaxis]
    pixels = image / 64.0 - 2.0
    places = ops.zeros_like(pixels[..., :2]) + place
    half = _convolution(_convolution(ops.concatenate([pixels, places], -1), 24, 2), 24)
    quarter = _convolution(_convolution(half, 48, 2), 48)
    eighth = _convolution(_convolution(quarter, 96, 2), 96)
    sixteenth = _convolution(eighth, 128, 2)
    up_eighth = _merge(sixteenth, eighth, 64)
    up_quarter = _merge(up_eighth, quarter, 48)
    up_half = _merge(up_quarter, half, 24)
    # Few cells are anomalous: starting near their share spares the first steps.
    rare = keras.initializers.Constant(-3.0)
    log_odds = layers.Conv2D(1, 3, padding="same", bias_initializer=rare)(up_half)
    whole = layers.Dropout(0.3)(layers.Flatten()(sixteenth))
    whole = layers.Dense(96, activation="relu")(whole)
    evidence = layers.Concatenate()(
        [
            whole,
            layers.GlobalMaxPooling2D()(up_quarter),
            layers.GlobalAveragePooling2D()(up_half),
        ]
    )
    frame = layers.Dense(1, name="frame")(layers.Dense(64, activation="relu")(evidence))
    cells = layers.Reshape((MAP_SIZE, MAP_SIZE), name="map")(log_odds)
    return keras.Model(image, {"map": cells, "frame": frame}, name="exposure")


def _convolution(tensor: Any, filters: int, stride: int = 1, size: int = 3) -> Any:
    tensor = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(tensor)
    tensor = layers.BatchNormalization(momentum=0.97)(tensor)
    return layers.Activation("relu")(tensor)


def _merge(coarse: Any, fine: Any, filters: int) -> Any:
    """Enlarge a coarse feature map and join it with a fine one."""
    coarse = layers.UpSampling2D(2)(_convolution(coarse, filters, size=1))
    return _convolution(layers.Concatenate()([coarse, fine]), filters)


def exposure_batch(
    generator: np.random.Generator,
    size: int,
    pool: NDArray[np.uint8],
    anomalies: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Make a batch of normal frames and outliers.

    Args:
        generator: source of chance.
        size: frames in the batch, a multiple of 4.
        pool: uint8 [N, 64, 64, 3], normal frames.
        anomalies: uint8 [M, 64, 64, 3], recorded anomalies; half of the frames that would get a
            fault of the whole picture are drawn from them.

    Returns:
        Pictures float32 [size, 64, 64, 3]; targets ``map`` [size, 32, 32] and ``frame``
        [size, 1] in 0..1; weights for both, [size].
    """
    pictures = np.empty((size, *pool.shape[1:]), np.float32)
    maps = np.zeros((size, MAP_SIZE, MAP_SIZE), np.float32)
    frame = np.zeros((size, 1), np.float32)
    map_weight = np.ones(size, np.float32)
    for index in range(size):
        picture = pool[generator.integers(len(pool))].astype(np.float32)
        if index % 4 == 3 and anomalies is not None and generator.random() < 0.5:
            picture = anomalies[generator.integers(len(anomalies))].astype(np.float32)
            picture = vary_normal(picture, generator)
            # Where in the frame the anomaly lies is not known.
            frame[index], map_weight[index] = 1, 0
        else:
            picture = vary_normal(picture, generator)
            if index % 4 == 2:
                picture, mask = paste_outlier(picture, generator, pool)
                cells = cv2.resize(mask, (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA)
                maps[index] = cells > _MASK_SHARE
                frame[index] = mask.sum() > 2
            elif index % 4 == 3:
                picture = picture_fault(picture, generator, pool)
                frame[index], map_weight[index] = 1, 0
        # A camera gives whole grey levels between 0 and 255, whatever happened before.
        pictures[index] = np.rint(np.clip(picture, 0, 255))
    weights = {"map": map_weight, "frame": np.ones(size, np.float32)}
    return pictures, {"map": maps, "frame": frame}, weights
