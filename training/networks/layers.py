"""Keras layers of our own; all of them run on every Keras backend.

Import :mod:`training.fitting.backend` and call ``import_keras`` before this module: its own import
of Keras is not a quiet one.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from training.fitting.augmentation import compiled_augment
from training.fitting.backend import import_tensorflow

_LEAST_DEVIATION = 1.0


class CodeTable(keras.layers.Layer):
    """Spreads a code over a square table: each value scales its own row.

    What the Embedding of the thesis' versions 2 and 3 (5.5, 5.6) was meant to do, made trainable:
    the same 128x128 table, started the same way, and the same output that the decoder reshapes.
    An Embedding looks rows up by the integer part of the code, which stops the gradient in front
    of it; here the rows are scaled, which is linear in the code and in the table.

    Args:
        embeddings_initializer: of the table.
        embeddings_regularizer: of the table.
    """

    def __init__(
        self,
        embeddings_initializer: Any = "glorot_uniform",
        embeddings_regularizer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._initializer = keras.initializers.get(embeddings_initializer)
        self._regularizer = keras.regularizers.get(embeddings_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the table."""
        size = input_shape[-1]
        self.table = self.add_weight(
            name="table",
            shape=(size, size),
            initializer=self._initializer,
            regularizer=self._regularizer,
        )

    def call(self, code: Any) -> Any:
        """From float32 [N, 128] to [N, 128, 128]."""
        return ops.expand_dims(code, -1) * self.table

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape for a batch."""
        return (*input_shape, input_shape[-1])


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

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape for a batch."""
        return input_shape


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer with TensorFlow's fused kernel in training, for channels last.

    Keras writes the formula out, which on a CPU takes a dozen passes over the feature maps: half of
    the training time of a small network. Weights and results are the same, but for the moving
    variance, which the kernel takes with Bessel's correction.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """From float32 [N, H, W, channels] to the same."""
        if not training or keras.backend.backend() != "tensorflow":
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


class Place(keras.layers.Layer):
    """Tells a feature map of half the picture's size where in the picture every cell is.

    Adds what a 3x3 convolution of stride 2 makes of two further channels that hold row and column,
    -1 to 1 (Liu et al. 2018, CoordConv). Since they are the same for every frame, so is what is
    added: in the exported graph it is a constant.

    Args:
        size: height and width of the picture.
    """

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        axis = np.linspace(-1, 1, size, dtype=np.float32)
        self._place = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)[np.newaxis]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the convolution's weights."""
        self.kernel = self.add_weight(
            name="kernel", shape=(3, 3, 2, input_shape[-1]), initializer="glorot_uniform"
        )

    def call(self, features: Any) -> Any:
        """From float32 [N, H, W, channels] to the same."""
        return features + ops.conv(self._place, self.kernel, strides=2, padding="same")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape for a batch."""
        return input_shape


class Augment(keras.layers.Layer):
    """Casts frames to float32 and, in training alone, augments them if there are draws.

    Args:
        fill_mode: what lies outside the frame.
    """

    def __init__(self, fill_mode: str, **options: Any) -> None:
        super().__init__(**options)
        self._augment = compiled_augment(fill_mode)

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """From ``image`` uint8 [N, 64, 64, 3] and :data:`training.fitting.augmentation.Draws`."""
        image = ops.cast(inputs["image"], "float32")
        draws = {name: value for name, value in inputs.items() if name != "image"}
        if not training or not draws:
            return image
        return self._augment(image, draws)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Return shape and type of the result."""
        return keras.KerasTensor(inputs["image"].shape, "float32")
