"""Keras layers of our own; all of them use ``keras.ops`` alone and run on every Keras backend.

Import :mod:`training.backend` and call ``import_keras`` before this module: its own import of Keras
is not a quiet one.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from training.augmentation import compiled_augment

__all__ = ["Augment", "CodeTable", "Standardize"]

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
        """Give the shape for a batch."""
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
        """Give the shape for a batch."""
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
        """From ``image`` uint8 [N, 64, 64, 3] and :data:`training.augmentation.Draws`."""
        image = ops.cast(inputs["image"], "float32")
        draws = {name: value for name, value in inputs.items() if name != "image"}
        if not training or not draws:
            return image
        return self._augment(image, draws)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Give shape and type of the result."""
        return keras.KerasTensor(inputs["image"].shape, "float32")
