"""The discriminative detector: a small network trained by outlier exposure on made-up outliers.

It looks at a frame once and answers twice: a map of log-odds that a cell shows something foreign,
and log-odds that the frame as a whole is not a normal one. Reconstruction knows neither: a smooth
or dark frame reconstructs too well, and a small object hardly moves the mean error (thesis 5.4.4).
"""

from __future__ import annotations

from typing import Any

import cv2
import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from anomaly_detector.preprocessing import INPUT_SIZE
from training.outliers import paste_outlier, picture_fault, vary_normal

__all__ = ["MAP_SIZE", "build_exposure_network", "loss_model", "make_batch"]

MAP_SIZE = INPUT_SIZE // 2
"""Height and width of the network's map."""

_MASK_SHARE = 0.3
"""A map cell counts as anomalous when this share of it is covered."""

_MIN_VISIBLE = 2
"""Pixels at 64x64 that must visibly differ for a frame to count as anomalous."""


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
    coarse = _convolution(coarse, filters, size=1)
    # Not UpSampling2D: its ONNX form uses an attribute that ONNX has given up.
    coarse = ops.repeat(ops.repeat(coarse, 2, axis=1), 2, axis=2)
    return _convolution(layers.Concatenate()([coarse, fine]), filters)


def loss_model(network: Any) -> Any:
    """Give the Keras model that is trained: from :func:`make_batch`'s arrays to each frame's loss.

    Both answers are trained by binary cross-entropy. Anomalous cells weigh five times as much,
    since they are few.

    Returns:
        A model with output float32 [N]. It shares its weights with the network.
    """
    inputs = {
        "image": keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="image"),
        "map": keras.Input((MAP_SIZE, MAP_SIZE), name="map"),
        "map_weight": keras.Input((), name="map_weight"),
        "frame": keras.Input((), name="frame"),
    }
    answers = network(inputs["image"])
    cells = _cross_entropy(inputs["map"], answers["map"]) * (1 + 4 * inputs["map"])
    map_loss = 4 * ops.mean(cells, axis=(1, 2)) * inputs["map_weight"]
    frame_loss = _cross_entropy(inputs["frame"], answers["frame"][:, 0])
    return keras.Model(inputs, map_loss + frame_loss, name="exposure_loss")


def _cross_entropy(target: Any, log_odds: Any) -> Any:
    # log(1 + exp(-|x|)) keeps its accuracy where the sigmoid has lost it.
    return ops.relu(log_odds) - log_odds * target + ops.log1p(ops.exp(-ops.abs(log_odds)))


def make_batch(
    generator: np.random.Generator,
    images: NDArray[np.uint8],
    pool: NDArray[np.uint8],
    anomalies: NDArray[np.uint8] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Turn normal frames into a batch for training.

    Of every four frames two stay normal, the third gets something pasted in, and the fourth a fault
    of the whole picture.

    Args:
        generator: source of chance.
        images: uint8 [N, 64, 64, 3], normal frames.
        pool: uint8 [M, 64, 64, 3], normal frames to take textures from.
        anomalies: uint8 [K, 64, 64, 3], recorded anomalies; they take the place of half of the
            whole-picture faults.

    Returns:
        ``image`` float32 [N, 64, 64, 3], whole grey levels; ``map`` [N, 32, 32] and ``frame`` [N],
        1 where anomalous; ``map_weight`` [N], 0 where nothing is known of the place.
    """
    count = len(images)
    batch = {
        "image": np.empty(images.shape, np.float32),
        "map": np.zeros((count, MAP_SIZE, MAP_SIZE), np.float32),
        "map_weight": np.ones(count, np.float32),
        "frame": np.zeros(count, np.float32),
    }
    for index in range(count):
        picture = images[index].astype(np.float32)
        kind = index % 4
        if kind == 3 and anomalies is not None and generator.random() < 0.5:
            recorded = anomalies[int(generator.integers(len(anomalies)))]
            picture = vary_normal(recorded.astype(np.float32), generator)
        else:
            picture = vary_normal(picture, generator)
            if kind == 3:
                picture = picture_fault(picture, generator, pool)
        if kind == 2:
            picture, mask = paste_outlier(picture, generator, pool)
            cells = cv2.resize(mask, (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA)
            batch["map"][index] = cells > _MASK_SHARE
            batch["frame"][index] = mask.sum() > _MIN_VISIBLE
        elif kind == 3:
            batch["frame"][index] = 1
            batch["map_weight"][index] = 0
        # A camera gives whole grey levels between 0 and 255, whatever was done to them.
        batch["image"][index] = np.rint(np.clip(picture, 0, 255))
    return batch
