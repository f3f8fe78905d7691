"""The discriminative detector: a small network trained by outlier exposure on made-up outliers.

It looks at a frame once and answers twice: a map of log-odds that a cell shows something foreign,
and log-odds that the frame as a whole is not a normal one. Reconstruction knows neither: a smooth
or dark frame reconstructs too well, and a small object hardly moves the mean error (thesis 5.4.4).
"""

from __future__ import annotations

from typing import Any

from anomaly_detector.images.mask import Mask
from anomaly_detector.images.preprocessing import INPUT_SIZE
from training.networks.efficientnet import efficientnet_lite0
from training.networks.layers import BatchNormalization, CoordConv
from training.networks.quiet_keras import keras
from training.scorers.outlier_exposure.batches import (
    ANOMALOUS_CELL,
    DROPOUT,
    MAP_LOSS,
    MAP_SIZE,
)

layers, ops = keras.layers, keras.ops


def build_exposure_network(
    size: int = INPUT_SIZE, *, coord_conv: bool = True, pretrained: bool = False
) -> Any:
    """Build the network: float32 [N, size, size, 3] in 0..255 to a dict of log-odds.

    ``map`` is [N, 32, 32] and ``frame`` [N, 1], log-odds; ``roll`` [N, 8, 8] is each cell's guess
    of how far the camera has rolled, in units of
    :data:`~training.scorers.outlier_exposure.batches.ROLL_UNIT` degrees. Its mean is one of the
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
    whole = layers.Dropout(DROPOUT)(layers.Flatten()(sixteenth))
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
    """Return the Keras inputs for a batch's arrays, of frames of a size."""
    shapes = {"image": (size, size, 3), "map": (MAP_SIZE, MAP_SIZE)}
    names = ("image", "map", "map_weight", "frame", "roll", "roll_weight")
    return {name: keras.Input(shapes.get(name, ()), name=name) for name in names}


def loss_model(network: Any, mask: Mask | None = None) -> Any:
    """Return the model to train: from a batch's arrays to each frame's loss.

    Map and frame are trained by binary cross-entropy. Anomalous cells weigh five times as much,
    since they are few. The angle is trained by its squared error.

    Args:
        network: to be trained.
        mask: cells under it are trained to nothing.

    Returns:
        A model with output float32 [N]. It shares its weights with the network.
    """
    inputs = batch_inputs(network.input_shape[1])
    answers = network(inputs["image"])
    cells = _cross_entropy(inputs["map"], answers["map"]) * (1 + ANOMALOUS_CELL * inputs["map"])
    if mask is not None:
        cells = cells * (~mask.cells(MAP_SIZE, MAP_SIZE)).astype("float32")
    map_loss = MAP_LOSS * ops.mean(cells, axis=(1, 2)) * inputs["map_weight"]
    frame_loss = _cross_entropy(inputs["frame"], answers["frame"][:, 0])
    roll_error = ops.square(answers["roll"] - ops.reshape(inputs["roll"], (-1, 1, 1)))
    roll_loss = ops.mean(roll_error, axis=(1, 2)) * inputs["roll_weight"]
    return keras.Model(inputs, map_loss + frame_loss + roll_loss, name="exposure_loss")


def _cross_entropy(target: Any, log_odds: Any) -> Any:
    # log(1 + exp(-|x|)) keeps its accuracy where the sigmoid has lost it.
    return ops.relu(log_odds) - log_odds * target + ops.log1p(ops.exp(-ops.abs(log_odds)))
