"""The autoencoders of the thesis, layer by layer.

Each one is a short table of layers, an encoder from the image to a 128-vector (the *code*) and a
decoder back. Pixels enter and leave as 0..255 (thesis 5.4); ``leaky_relu`` has slope 0.2, the
default of both spellings in the thesis' listings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.preprocessing import INPUT_SIZE
from training.backend import import_keras

__all__ = ["ARCHITECTURES", "CODE_SIZE", "Architecture", "Autoencoder", "build_autoencoder"]

CODE_SIZE = 128
"""Length of the code vector (thesis 5.2, paper section IV)."""


@dataclass(frozen=True)
class Conv:
    """3x3 convolution."""

    filters: int
    stride: int = 2
    padding: str = "same"
    activation: str | None = "leaky_relu"
    l2: float = 0.0


@dataclass(frozen=True)
class ConvT:
    """3x3 transposed convolution; pads ``same``."""

    filters: int
    stride: int = 2
    activation: str | None = "leaky_relu"
    l2: float = 0.0


@dataclass(frozen=True)
class Dense:
    """Fully connected layer, on the flattened input."""

    units: int
    activation: str | None = None
    l2: float = 0.0


@dataclass(frozen=True)
class Reshape:
    """To an image of height, width and channels."""

    shape: tuple[int, int, int]


@dataclass(frozen=True)
class MaxPool:
    """2x2 max pooling."""


@dataclass(frozen=True)
class Upsample:
    """Factor 2."""

    interpolation: str = "nearest"


Layer: TypeAlias = Conv | ConvT | Dense | Reshape | MaxPool | Upsample


@dataclass(frozen=True)
class Architecture:
    """One autoencoder.

    Attributes:
        source: where it is described.
        encoder: layers from the image to the code.
        decoder: layers from the code to the image.
        clipnorm: limit of the gradient norm in training; None for no limit.
    """

    source: str
    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    clipnorm: float | None = None


ARCHITECTURES: Mapping[str, Architecture] = {
    "v5": Architecture(
        source="thesis 5.10",
        encoder=(Conv(32), Conv(64), Conv(128), Dense(CODE_SIZE)),
        decoder=(
            Dense(8 * 8 * 128),
            Reshape((8, 8, 128)),
            ConvT(64),
            ConvT(32),
            ConvT(3, activation=None),
        ),
        clipnorm=1.0,
    ),
}


@dataclass(frozen=True)
class Autoencoder:
    """Keras models that share their layers.

    Attributes:
        encoder: float32 [N, 64, 64, 3] in 0..255 to code float32 [N, 128].
        decoder: code float32 [N, 128] to image float32 [N, 64, 64, 3] in 0..255.
        model: encoder and decoder in one.
    """

    architecture: str
    encoder: Any
    decoder: Any
    model: Any


def build_autoencoder(name: str) -> Autoencoder:
    """Build an untrained autoencoder.

    Raises:
        AnomalyDetectorError: unknown architecture.
    """
    if name not in ARCHITECTURES:
        raise AnomalyDetectorError(
            f"architecture {name!r} is not known: choose one of {', '.join(ARCHITECTURES)}"
        )
    keras = import_keras()
    architecture = ARCHITECTURES[name]
    size = INPUT_SIZE
    image = keras.Input((size, size, 3), name="image")
    code_input = keras.Input((CODE_SIZE,), name="code")
    encoder = keras.Model(image, _stack(architecture.encoder, image), name="encoder")
    decoder = keras.Model(code_input, _stack(architecture.decoder, code_input), name="decoder")
    model = keras.Model(image, decoder(encoder(image)), name="autoencoder")
    return Autoencoder(name, encoder, decoder, model)


def _stack(layers: tuple[Layer, ...], tensor: Any) -> Any:
    for layer in layers:
        tensor = _apply(layer, tensor)
    return tensor


def _apply(layer: Layer, tensor: Any) -> Any:
    keras = import_keras()
    if isinstance(layer, Reshape):
        return keras.layers.Reshape(layer.shape)(tensor)
    if isinstance(layer, MaxPool):
        return keras.layers.MaxPooling2D(2, padding="same")(tensor)
    if isinstance(layer, Upsample):
        return keras.layers.UpSampling2D(2, interpolation=layer.interpolation)(tensor)
    options = {
        "activation": layer.activation,
        "kernel_initializer": "glorot_uniform",
        "kernel_regularizer": keras.regularizers.L2(layer.l2) if layer.l2 else None,
    }
    if isinstance(layer, Dense):
        if len(tensor.shape) > 2:
            tensor = keras.layers.Flatten()(tensor)
        return keras.layers.Dense(layer.units, **options)(tensor)
    if isinstance(layer, Conv):
        return keras.layers.Conv2D(
            layer.filters, 3, strides=layer.stride, padding=layer.padding, **options
        )(tensor)
    return keras.layers.Conv2DTranspose(
        layer.filters, 3, strides=layer.stride, padding="same", **options
    )(tensor)
