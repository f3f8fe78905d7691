"""The autoencoders of the thesis and of the paper, layer by layer.

Each one is a short table of layers, an encoder from the image to a 128-vector (the *latent*) and a
decoder back. In those of the thesis, pixels enter and leave as 0..255 (thesis 5.4) and
``leaky_relu`` has slope 0.2, the default of both spellings in its listings. All kernels start
glorot-uniform, which its listings name or leave to Keras' default.

Where the table departs from its source:

* ``v2`` and ``v3``: the thesis puts an Embedding behind the encoder, which looks its rows up by the
  integer part of the latent. That stops the gradient, so the encoder never trained.
  :class:`training.networks.layers.LatentTable` takes its place: 128 latent values, each scaling its
  own row of the same 128x128 table. It is the first layer of the decoder, so that the latent stays
  a 128-vector. The listings name the regulariser of that table as ``'L1L2'``, with which Keras
  means both factors 0: as written it regularises nothing. So it is here;
  :class:`NetworkSettings` has the factors.
* ``paper``: the number F of its widths [3, F, 2F, 4F, 8F] is 128, as in the thesis' v2, which says
  to be its translation layer by layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.preprocessing import INPUT_SIZE
from training.networks.backend import import_keras

LATENT_TABLE_OPTIONS = frozenset({"embedding_l1", "embedding_l2"})
"""Options of training that only architectures with a latent table use."""

LATENT_SIZE = 128
"""Length of the latent vector (thesis 5.2, paper section IV)."""

INITIALIZERS = ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_normal")
"""Names of Keras initialisers to choose from; the thesis tried the first and ``he_normal``."""

_KERNEL = 3
_PAPER_WIDTH = 128


@dataclass(frozen=True)
class Conv:
    """3x3 convolution; padding ``same`` or ``valid``, or a number of pixels on every side.

    For even sizes and stride 2, Keras' ``same`` pads on the right and below only; PyTorch's
    padding of 1 is symmetric.
    """

    filters: int
    stride: int = 2
    padding: str | int = "same"
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


Layer: TypeAlias = Conv | ConvT | Dense | tuple[str, Any]
"""With a kernel, or another one by name and parameter: see :meth:`_Builder.apply`."""

_TABLE = ("table", None)
_STANDARDIZED = ("standardized", None)
_MAX_POOL = ("max-pool", 2)
_UPSAMPLE = ("upsample", "nearest")
_BILINEAR = ("upsample", "bilinear")


@dataclass(frozen=True)
class Architecture:
    """One autoencoder.

    Attributes:
        source: where it is described.
        encoder: layers from the image to the latent.
        decoder: layers from the latent to the image.
        reported_loss: what the thesis says its training reached.
        clipnorm: limit of each gradient's norm in training; None for no limit.
        global_clipnorm: limit of the norm of all gradients together; None for no limit.
        slope: of ``leaky_relu`` below zero.
        standardized: the reconstruction is compared with the standardised image.
    """

    source: str
    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    reported_loss: str = "-"
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    slope: float = 0.2
    standardized: bool = False

    @property
    def unused_options(self) -> frozenset[str]:
        """Options of training that do nothing here."""
        has_table = any(layer == _TABLE for layer in self.decoder)
        return frozenset() if has_table else LATENT_TABLE_OPTIONS


def _thesis_2(source: str, reported_loss: str, l2: float) -> Architecture:
    """Return version 2, or with ``l2`` on three of its layers version 3."""
    return Architecture(
        source=source,
        encoder=(
            Conv(128, padding="valid"),
            Conv(256, padding="valid"),
            Conv(512, padding="valid"),
            Conv(1024, padding="valid", l2=l2),
            Dense(LATENT_SIZE, l2=l2),
        ),
        decoder=(
            _TABLE,
            ("reshape", (4, 4, 1024)),
            Conv(512, stride=1),
            ConvT(256, l2=l2),
            ConvT(128),
            ConvT(64),
            ConvT(3, activation=None),
        ),
        reported_loss=reported_loss,
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    "v1": Architecture(
        source="thesis 5.4",
        encoder=(
            *(Conv(128, stride=1), _MAX_POOL),
            *(Conv(256, stride=1), _MAX_POOL),
            *(Conv(512, stride=1), _MAX_POOL),
            *(Conv(1024, stride=1), _MAX_POOL),
            Dense(LATENT_SIZE),
        ),
        decoder=(
            Dense(8 * 8 * 256, activation="leaky_relu"),
            ("reshape", (8, 8, 256)),
            *(ConvT(512, stride=1), _UPSAMPLE),
            *(ConvT(256, stride=1), _UPSAMPLE),
            *(ConvT(128, stride=1), _UPSAMPLE),
            ConvT(3, stride=1, activation=None),
        ),
        reported_loss="17 (300 epochs)",
    ),
    "v2": _thesis_2("thesis 5.5", "50 (15 epochs)", l2=0.0),
    "v3": _thesis_2("thesis 5.6", "45 (115 epochs)", l2=0.01),
    "v4": Architecture(
        source="thesis 5.9",
        encoder=(
            Conv(64, padding="valid", l2=0.01),
            Conv(128, padding="valid", l2=0.01),
            Conv(256, padding="valid", l2=0.01),
            Dense(LATENT_SIZE, l2=0.01),
        ),
        decoder=(
            Dense(4 * 4 * 256, l2=0.01),
            ("reshape", (4, 4, 256)),
            ConvT(128, l2=0.01),
            ConvT(64, l2=0.01),
            ConvT(32, l2=0.01),
            ConvT(3, activation=None, l2=0.01),
        ),
        reported_loss="35",
        clipnorm=1.0,
    ),
    "v5": Architecture(
        source="thesis 5.10",
        encoder=(Conv(32), Conv(64), Conv(128), Dense(LATENT_SIZE)),
        decoder=(
            Dense(8 * 8 * 128),
            ("reshape", (8, 8, 128)),
            ConvT(64),
            ConvT(32),
            ConvT(3, activation=None),
        ),
        reported_loss="22",
        clipnorm=1.0,
    ),
    "paper": Architecture(
        source="arXiv 2209.09786, IV",
        encoder=(
            _STANDARDIZED,
            *(Conv(factor * _PAPER_WIDTH, padding=1) for factor in (1, 2, 4, 8)),
            Dense(LATENT_SIZE),
        ),
        decoder=(
            Dense(4 * 4 * 8 * _PAPER_WIDTH, activation="leaky_relu"),
            ("reshape", (4, 4, 8 * _PAPER_WIDTH)),
            *(_BILINEAR, Conv(4 * _PAPER_WIDTH, stride=1)),
            *(_BILINEAR, Conv(2 * _PAPER_WIDTH, stride=1)),
            *(_BILINEAR, Conv(_PAPER_WIDTH, stride=1)),
            *(_BILINEAR, Conv(3, stride=1, activation=None)),
        ),
        global_clipnorm=10.0,
        slope=0.01,
        standardized=True,
    ),
}


@dataclass(frozen=True)
class NetworkSettings:
    """What is added to an architecture against overfitting (thesis 4.5).

    Attributes:
        dropout: share of the values that are dropped after every hidden layer, in training.
        l1: factor of the kernels' absolute values in the loss.
        l2: factor of their squares, on top of the architecture's own.
        embedding_l1: the same for the latent table of v2 and v3.
        embedding_l2: likewise.
        initializer: of all kernels and of the latent table, one of :data:`INITIALIZERS`; None for
            the architecture's own.
    """

    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    embedding_l1: float = 0.0
    embedding_l2: float = 0.0
    initializer: str | None = None


@dataclass(frozen=True)
class Autoencoder:
    """Keras models that share their layers.

    Attributes:
        encoder: float32 [N, 64, 64, 3] in 0..255 to latent float32 [N, 128].
        decoder: latent float32 [N, 128] to image float32 [N, 64, 64, 3], in ``target``'s units.
        model: encoder and decoder in one.
        target: from the encoder's input to what the decoder is to give for it: the image itself,
            0..255, or its standardised form.
    """

    architecture: str
    encoder: Any
    decoder: Any
    model: Any
    target: Callable[[Any], Any]


def build_autoencoder(name: str, settings: NetworkSettings = NetworkSettings()) -> Autoencoder:
    """Build an untrained autoencoder.

    Raises:
        AnomalyDetectorError: unknown architecture.
    """
    if name not in ARCHITECTURES:
        raise AnomalyDetectorError(
            f"architecture {name!r} is not known: choose one of {', '.join(ARCHITECTURES)}"
        )
    keras = import_keras()
    from training.networks.layers import Standardize

    architecture = ARCHITECTURES[name]
    builder = _Builder(architecture.slope, settings)
    image = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="image")
    latent_input = keras.Input((LATENT_SIZE,), name="code")
    encoder = keras.Model(image, builder.stack(architecture.encoder, image), name="encoder")
    decoder = keras.Model(
        latent_input, builder.stack(architecture.decoder, latent_input), name="decoder"
    )
    model = keras.Model(image, decoder(encoder(image)), name="autoencoder")
    target = Standardize() if architecture.standardized else lambda pixels: pixels
    return Autoencoder(name, encoder, decoder, model, target)


@dataclass(frozen=True)
class _Builder:
    """Turns the table's layers into Keras layers."""

    slope: float
    settings: NetworkSettings

    def stack(self, layers: tuple[Layer, ...], tensor: Any) -> Any:
        dropout = self.settings.dropout
        for layer in layers:
            tensor = self.apply(layer, tensor)
            # Neither the latent nor the image is hidden, and a reshape hides nothing new.
            if dropout and not isinstance(layer, tuple) and layer is not layers[-1]:
                tensor = import_keras().layers.Dropout(dropout)(tensor)
        return tensor

    def apply(self, layer: Layer, tensor: Any) -> Any:
        keras = import_keras()
        from training.networks.layers import LatentTable, Standardize

        initializer = self.settings.initializer or "glorot_uniform"
        if isinstance(layer, tuple):
            name, parameter = layer
            if name == "table":
                embedding = self.settings.embedding_l1, self.settings.embedding_l2
                return LatentTable(initializer, _regularizer(*embedding))(tensor)
            make = {
                "reshape": keras.layers.Reshape,
                "max-pool": partial(keras.layers.MaxPooling2D, padding="same"),
                "upsample": partial(keras.layers.UpSampling2D, 2, None),
                "standardized": lambda _: Standardize(),
            }[name]
            return make(parameter)(tensor)
        leaky_relu = partial(keras.activations.leaky_relu, negative_slope=self.slope)
        options = {
            "activation": leaky_relu if layer.activation == "leaky_relu" else layer.activation,
            "kernel_initializer": initializer,
            "kernel_regularizer": _regularizer(self.settings.l1, layer.l2 + self.settings.l2),
        }
        if isinstance(layer, Dense):
            if len(tensor.shape) > 2:
                tensor = keras.layers.Flatten()(tensor)
            return keras.layers.Dense(layer.units, **options)(tensor)
        if isinstance(layer, Conv):
            padding = layer.padding
            if isinstance(padding, int):
                tensor = keras.layers.ZeroPadding2D(padding)(tensor)
                padding = "valid"
            return keras.layers.Conv2D(
                layer.filters, _KERNEL, strides=layer.stride, padding=padding, **options
            )(tensor)
        return keras.layers.Conv2DTranspose(
            layer.filters, _KERNEL, strides=layer.stride, padding="same", **options
        )(tensor)


def _regularizer(l1: float, l2: float) -> Any:
    return import_keras().regularizers.L1L2(l1, l2) if l1 or l2 else None


def count_macs(model: Any) -> int:
    """Count the multiply-accumulate operations of a Keras model for one frame.

    Counted are convolutions, fully connected layers and the latent table. A transposed convolution
    counts every input value with every weight, the cropped border included. Biases, activations,
    pooling, upsampling and standardisation are left out.
    """
    keras = import_keras()
    from training.networks.layers import LatentTable

    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += count_macs(layer)
        elif isinstance(layer, keras.layers.Conv2DTranspose):
            total += _positions(layer.input.shape) * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Conv2D):
            total += _positions(layer.output.shape) * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
        elif isinstance(layer, LatentTable):
            total += math.prod(layer.table.shape)
    return total


def _positions(shape: tuple[int | None, ...]) -> int:
    return int(shape[1] or 0) * int(shape[2] or 0)
