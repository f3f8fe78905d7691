"""Keras layers of our own; all of them run on every Keras backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.networks.augmentation import compiled_augment
from training.networks.backend import import_tensorflow
from training.networks.quiet_keras import keras

ops = keras.ops

_LEAST_DEVIATION = 1.0


class LatentTable(keras.layers.Layer):
    """Spreads a latent over a square table: each value scales its own row.

    What the Embedding of the thesis' versions 2 and 3 (5.5, 5.6) was meant to do, made trainable:
    the same 128x128 table, started the same way, and the same output that the decoder reshapes.
    An Embedding looks rows up by the integer part of the latent, which stops the gradient in front
    of it; here the rows are scaled, which is linear in the latent and in the table.
    """

    def __init__(self, initializer: str, regularizer: Any) -> None:
        super().__init__()
        self._initializer = initializer
        self._regularizer = regularizer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the table."""
        shape = (input_shape[-1], input_shape[-1])
        self.table = self.add_weight(
            shape=shape, initializer=self._initializer, regularizer=self._regularizer, name="table"
        )

    def call(self, latent: Any) -> Any:
        """From float32 [N, 128] to [N, 128, 128]."""
        return ops.expand_dims(latent, -1) * self.table


class Standardize(keras.layers.Layer):
    """Per-image standardisation: each channel minus its mean, over its deviation (paper, IV).

    A deviation below one grey level counts as one: it is the rounding of eight bits, and dividing
    a uniform frame by it would make rounding errors look like texture.
    """

    def call(self, image: Any) -> Any:
        """From float32 [N, H, W, 3] in 0..255 to mean 0 and deviation 1 of each channel."""
        centred = image - ops.mean(image, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(centred), axis=(1, 2), keepdims=True)
        return centred / ops.maximum(ops.sqrt(variance), _LEAST_DEVIATION)


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer with TensorFlow's fused kernel in training, for channels last.

    Keras writes the formula out, which on a CPU takes a dozen passes over the feature maps: half of
    the training time of a small network. Weights and results are the same, but for the moving
    variance, which the kernel takes with Bessel's correction.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """From float32 [N, H, W, channels] to the same."""
        # Keras' own takes the moving moments where the layer is frozen.
        if not (training and self.trainable and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        tensorflow = import_tensorflow()
        # Empty moments: the kernel computes the batch's own.
        empty = tensorflow.zeros((0,), inputs.dtype)
        result, mean, variance, *_ = tensorflow.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, mean=empty, variance=empty,
            epsilon=self.epsilon, is_training=True,
        )  # fmt: skip
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return result


class CoordConv(keras.layers.Layer):
    """Tells a feature map of half the picture's size where in the picture every cell is.

    Adds what a 3x3 convolution of stride 2 makes of two further channels that hold row and column,
    -1 to 1 (Liu et al. 2018, CoordConv). Since they are the same for every frame, so is what is
    added: in the exported graph it is a constant.

    Args:
        size: height and width of the picture.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        axis = np.linspace(-1, 1, size, dtype=np.float32)
        self._coordinates = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)[np.newaxis]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the convolution's weights."""
        self.kernel = self.add_weight(
            name="kernel", shape=(3, 3, 2, input_shape[-1]), initializer="glorot_uniform"
        )

    def call(self, features: Any) -> Any:
        """From float32 [N, H, W, channels] to the same."""
        return features + ops.conv(self._coordinates, self.kernel, strides=2, padding="same")


# Weights files name layers after their classes: these are the names in every file so far.
CoordConv.__name__, LatentTable.__name__ = "Place", "CodeTable"


class Augment(keras.layers.Layer):
    """Casts frames to float32 and, in training alone, augments them if there are samples.

    Args:
        fill_mode: what lies outside the frame.
    """

    def __init__(self, fill_mode: str) -> None:
        super().__init__()
        self._augment = compiled_augment(fill_mode)

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """From ``image`` uint8 [N, 64, 64, 3] and ``Samples`` of ``augmentation``."""
        image = ops.cast(inputs["image"], "float32")
        samples = {name: value for name, value in inputs.items() if name != "image"}
        if not training or not samples:
            return image
        return self._augment(image, samples)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Return shape and type of the result."""
        return keras.KerasTensor(inputs["image"].shape, "float32")
