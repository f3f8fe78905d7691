"""The discriminative detector: a small network trained by outlier exposure on made-up outliers.

It looks at a frame once and answers twice: a map of log-odds that a cell shows something foreign,
and log-odds that the frame as a whole is not a normal one. Reconstruction knows neither: a smooth
or dark frame reconstructs too well, and a small object hardly moves the mean error (thesis 5.4.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.preprocessing import INPUT_SIZE
from training.networks.efficientnet import efficientnet_lite0
from training.networks.layers import BatchNormalization, CoordConv
from training.networks.quiet_keras import keras
from training.scorers.outlier_exposure.outliers import (
    GLOBAL_OUTLIERS,
    TEXTURES,
    GlobalOutlier,
    Texture,
    add_global_outlier,
    add_local_outlier,
    roll_camera,
    vary_normal,
)

layers, ops = keras.layers, keras.ops

MAP_SIZE = INPUT_SIZE // 2
"""Height and width of the network's map."""

ROLL_UNIT = 10.0
"""Degrees."""

_MOST_ROLL = 2.0
"""Units; farther than this is only far."""

_ROLL_WEIGHT = 4.0
"""Of rolled frames: not to be rolled is the rule, and must not be all there is to learn."""

_KINDS = ("normal", "normal", "local", "global")

# Of the faults of the whole picture. A slight roll is the hardest of all to learn.
_ROLLED_SHARE = 0.4

_FEW_ANOMALIES = 10
"""So many recorded anomalies take the place of a quarter of the whole-picture faults."""

_MASK_SHARE = 0.3
"""A map cell counts as anomalous when this share of it is covered; less of the larger ones, since
lines are thinner there."""

_MIN_VISIBLE = 2
"""Square units that must visibly differ for a frame to count as anomalous."""


@dataclass(frozen=True)
class ExposureParts:
    """What the training consists of; parts are left out to see what they are good for.

    Attributes:
        coord_conv: the network knows where in the picture every cell is.
        roll: it learns to tell by how much the camera has rolled.
        local_outliers: things pasted in.
        global_outliers: faults of the whole picture.
        textures: what local outliers are filled with.
        faults: global outliers, and how often each is sampled.
        weight_decay: times the learning rate, a step: over the whole training the kernels would
            shrink to a sixth. It is meant to keep the network from knowing the drive's few places
            by heart.
    """

    coord_conv: bool = True
    roll: bool = True
    local_outliers: bool = True
    global_outliers: bool = True
    textures: Sequence[Texture] = TEXTURES
    faults: Sequence[tuple[GlobalOutlier, float]] = GLOBAL_OUTLIERS
    weight_decay: float = 1.0


ALL_PARTS = ExposureParts()


def build_exposure_network(
    size: int = INPUT_SIZE, *, coord_conv: bool = True, pretrained: bool = False
) -> Any:
    """Build the network: float32 [N, size, size, 3] in 0..255 to a dict of log-odds.

    ``map`` is [N, 32, 32] and ``frame`` [N, 1], log-odds; ``roll`` [N, 8, 8] is each cell's guess
    of how far the camera has rolled, in units of :data:`ROLL_UNIT` degrees. Its mean is one of the
    frame's pieces of evidence; scores do not use it otherwise.

    An encoder down to 4x4, a decoder up to 32x32 that adds the encoder's features, and a head that
    sees the whole frame. The widths are multiples of 16, which ONNX Runtime's convolutions are
    fastest with on a CPU.

    Args:
        size: 64, or 128 if pretrained.
        coord_conv: tell every cell where it is, since what is normal depends on the place in the
            picture (:class:`training.networks.layers.CoordConv`); without it for comparison.
        pretrained: the encoder stands on a frozen EfficientNet-Lite0. It has random weights:
            see :func:`training.networks.efficientnet.load_imagenet`.
    """
    image = keras.Input((size, size, 3), name="image")
    place = CoordConv(2 * MAP_SIZE) if coord_conv else layers.Identity()
    half, quarter, eighth = (_pretrained_encoder if pretrained else _encoder)(image, place)
    sixteenth = _convolution(eighth, 128, 2)
    up_eighth = _merge(sixteenth, eighth, 64)
    up_quarter = _merge(up_eighth, quarter, 48)
    up_half = _merge(up_quarter, half, 32)
    # Few cells are anomalous: starting near their share spares the first steps.
    rare = keras.initializers.Constant(-3.0)
    log_odds = layers.Conv2D(1, 3, padding="same", bias_initializer=rare)(up_half)
    roll = layers.Conv2D(1, 1)(up_eighth)
    whole = layers.Dropout(0.3)(layers.Flatten()(sixteenth))
    whole = layers.Dense(96, activation="relu")(whole)
    evidence = layers.Concatenate()(
        [
            whole,
            layers.GlobalAveragePooling2D()(roll),
            layers.GlobalAveragePooling2D()(up_eighth),
            layers.GlobalMaxPooling2D()(up_quarter),
            layers.GlobalAveragePooling2D()(up_half),
        ]
    )
    frame = layers.Dense(1, name="frame")(layers.Dense(64, activation="relu")(evidence))
    answers = {
        "map": layers.Reshape((MAP_SIZE, MAP_SIZE), name="map")(log_odds),
        "frame": frame,
        "roll": layers.Reshape(roll.shape[1:3], name="roll")(roll),
    }
    return keras.Model(image, answers, name="exposure")


def _encoder(image: Any, place: Any) -> tuple[Any, Any, Any]:
    """Return features at 32x32, 16x16 and 8x8, of convolutions of stride 2 and 1 in turn."""
    half = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(image / 64.0 - 2.0)
    half = _convolution(_normalized(place(half)), 32)
    quarter = _convolution(_convolution(half, 48, 2), 48)
    return half, quarter, _convolution(_convolution(quarter, 96, 2), 96)


def _pretrained_encoder(image: Any, place: Any) -> tuple[Any, Any, Any]:
    """Return features at 32x32, 16x16 and 8x8, each of a stage of the frozen EfficientNet-Lite0.

    Beside the stages goes what convolutions of the picture itself see: noise and fine lines, which
    a network for ImageNet looks past.
    """
    stages = efficientnet_lite0(image.shape[1])(image)
    own = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(image / 64.0 - 2.0)
    own = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(_normalized(own))
    half = layers.Add()([layers.Conv2D(32, 1, use_bias=False)(stages["stage2"]), own])
    half = _convolution(_normalized(place(half)), 32)
    quarter = layers.Concatenate()([stages["stage3"], _convolution(half, 32, 2)])
    quarter = _convolution(quarter, 48)
    eighth = layers.Concatenate()([stages["stage5"], _convolution(quarter, 48, 2)])
    return half, quarter, _convolution(eighth, 96)


def _convolution(tensor: Any, filters: int, stride: int = 1) -> Any:
    return _normalized(
        layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(tensor)
    )


def _normalized(tensor: Any) -> Any:
    return layers.Activation("relu")(BatchNormalization(momentum=0.97)(tensor))


def _merge(coarse: Any, fine: Any, filters: int) -> Any:
    """Enlarge a coarse feature map and join it with a fine one."""
    height, width, channels = fine.shape[1:]
    coarse = layers.Conv2D(channels, 1, use_bias=False)(coarse)
    # Not UpSampling2D: it repeats rows and columns, which costs several times as much in ONNX.
    coarse = ops.image.resize(coarse, (height, width), interpolation="nearest")
    return _convolution(layers.Add()([coarse, fine]), filters)


def batch_inputs(size: int = INPUT_SIZE) -> dict[str, Any]:
    """Return the Keras inputs for :func:`make_batch`'s arrays of frames of a size."""
    shapes = {"image": (size, size, 3), "map": (MAP_SIZE, MAP_SIZE)}
    names = ("image", "map", "map_weight", "frame", "roll", "roll_weight")
    return {name: keras.Input(shapes.get(name, ()), name=name) for name in names}


def loss_model(network: Any) -> Any:
    """Return the model to train: from :func:`make_batch`'s arrays to each frame's loss.

    Map and frame are trained by binary cross-entropy. Anomalous cells weigh five times as much,
    since they are few. The angle is trained by its squared error.

    Returns:
        A model with output float32 [N]. It shares its weights with the network.
    """
    inputs = batch_inputs(network.input_shape[1])
    answers = network(inputs["image"])
    cells = _cross_entropy(inputs["map"], answers["map"]) * (1 + 4 * inputs["map"])
    map_loss = 4 * ops.mean(cells, axis=(1, 2)) * inputs["map_weight"]
    frame_loss = _cross_entropy(inputs["frame"], answers["frame"][:, 0])
    roll_error = ops.square(answers["roll"] - ops.reshape(inputs["roll"], (-1, 1, 1)))
    roll_loss = ops.mean(roll_error, axis=(1, 2)) * inputs["roll_weight"]
    return keras.Model(inputs, map_loss + frame_loss + roll_loss, name="exposure_loss")


def _cross_entropy(target: Any, log_odds: Any) -> Any:
    # log(1 + exp(-|x|)) keeps its accuracy where the sigmoid has lost it.
    return ops.relu(log_odds) - log_odds * target + ops.log1p(ops.exp(-ops.abs(log_odds)))


def make_batch(
    generator: np.random.Generator,
    images: NDArray[np.uint8],
    anomalies: NDArray[np.uint8] | None = None,
    parts: ExposureParts = ALL_PARTS,
) -> dict[str, NDArray[np.float32]]:
    """Turn normal frames into a batch for training.

    Of every four frames two stay normal, the third gets a local outlier, something pasted in, and
    the fourth a global one, a fault of the whole picture: in many cases a camera that has rolled.

    Args:
        generator: source of chance.
        images: uint8 [N, S, S, 3], normal frames.
        anomalies: uint8 [K, S, S, 3], recorded anomalies, 1 or more; the more there are, the
            more they take the place of whole-picture faults, up to half of them.
        parts: without one kind of outlier, its frames get the other.

    Returns:
        ``image`` float32 [N, S, S, 3], whole grey levels; ``map`` [N, 32, 32] and ``frame`` [N],
        1 where anomalous; ``map_weight`` [N], 0 where nothing is known of the place; ``roll`` [N],
        in units of :data:`ROLL_UNIT` degrees, and ``roll_weight`` [N], 0 where it is not known.
    """
    count, unit = len(images), images.shape[1] / INPUT_SIZE
    batch = {
        "image": np.empty(images.shape, np.float32),
        "map": np.zeros((count, MAP_SIZE, MAP_SIZE), np.float32),
        "map_weight": np.ones(count, np.float32),
        "frame": np.zeros(count, np.float32),
        "roll": np.zeros(count, np.float32),
        "roll_weight": np.ones(count, np.float32),
    }
    for index in range(count):
        picture = images[index].astype(np.float32)
        kind = _KINDS[index % 4]
        if kind == "local" and not parts.local_outliers:
            kind = "global"
        elif kind == "global" and not parts.global_outliers:
            kind = "local"
        if kind == "global":
            picture, roll = _global_outlier(picture, generator, anomalies, parts)
            batch["frame"][index] = 1
            batch["map_weight"][index] = 0
            batch["roll"][index] = roll or 0
            batch["roll_weight"][index] = 0 if roll is None else _ROLL_WEIGHT
        else:
            picture = vary_normal(picture, generator)
        if kind == "local":
            picture, mask = add_local_outlier(picture, generator, parts.textures)
            cells = cv2.resize(mask, (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA)
            batch["map"][index] = cells > _MASK_SHARE / unit**0.5
            batch["frame"][index] = mask.sum() > _MIN_VISIBLE * unit**2
        # A camera gives whole grey levels between 0 and 255, whatever was done to them.
        batch["image"][index] = np.rint(np.clip(picture, 0, 255))
    batch["roll_weight"] *= parts.roll
    return batch


def _recorded_share(count: int) -> float:
    """Return the share of whole-picture faults that recorded anomalies replace.

    A handful of frames must not push the variety of the made-up faults aside; many may take half.
    """
    return 0.5 * count / (count + _FEW_ANOMALIES)


def _global_outlier(
    picture: NDArray[np.float32],
    generator: np.random.Generator,
    anomalies: NDArray[np.uint8] | None,
    parts: ExposureParts,
) -> tuple[NDArray[np.float32], float | None]:
    """Return a frame with a global outlier, and its roll where that is known."""
    if anomalies is not None and generator.random() < _recorded_share(len(anomalies)):
        recorded = anomalies[int(generator.integers(len(anomalies)))]
        return vary_normal(recorded.astype(np.float32), generator), None
    if generator.random() < _ROLLED_SHARE:
        picture, degrees = roll_camera(picture, generator)
        return picture, float(np.clip(degrees / ROLL_UNIT, -_MOST_ROLL, _MOST_ROLL))
    varied = vary_normal(picture, generator)
    return add_global_outlier(varied, generator, parts.textures, parts.faults), None
