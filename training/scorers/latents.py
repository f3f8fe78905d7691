"""What scorers of the latent share: the latents of frames, and their anomaly maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from training.data.frames import FrameSet
from training.networks.autoencoders import Autoencoder
from training.networks.backend import import_keras

_BATCH = 256


def encode_frames(autoencoder: Autoencoder, frames: FrameSet) -> NDArray[np.float32]:
    """Return the latents of all frames, float32 [N, 128]."""
    return _encode(autoencoder, frames.load, len(frames))


def encode_images(autoencoder: Autoencoder, images: NDArray[Any]) -> NDArray[np.float32]:
    """Return the latents of images [N, 64, 64, 3] in 0..255, float32 [N, 128]."""
    return _encode(autoencoder, images.__getitem__, len(images))


def _encode(
    autoencoder: Autoencoder, load: Callable[[NDArray[np.int64]], NDArray[Any]], count: int
) -> NDArray[np.float32]:
    latents = [
        np.asarray(autoencoder.encoder(load(batch).astype(np.float32), training=False))
        for batch in np.array_split(np.arange(count), -(-count // _BATCH))
    ]
    return np.concatenate(latents)


def explained_encoder(autoencoder: Autoencoder) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Return what a map of gradient times activation needs of an encoder.

    The map is the share of each cell of its last feature map.

    Returns:
        A Keras model from the image to the last feature map [N, h, w, channels] and the latent; and
        the function that makes the map [N, h, w] of the gradient with respect to the latent and the
        features.

    Raises:
        AnomalyDetectorError: something else than linear Dense layers comes after Flatten.
    """
    keras = import_keras()
    ops = keras.ops
    encoder = autoencoder.encoder
    flatten = max(
        (i for i, layer in enumerate(encoder.layers) if isinstance(layer, keras.layers.Flatten)),
        default=len(encoder.layers) - 1,
    )
    above = encoder.layers[flatten + 1 :]
    linear = keras.activations.linear
    if not above or not all(
        isinstance(layer, keras.layers.Dense) and layer.activation is linear for layer in above
    ):
        raise AnomalyDetectorError(
            f"architecture {autoencoder.architecture!r} has no anomaly map for scores of its "
            "latent, which is not made by linear Dense layers after a Flatten: choose another one"
        )
    features_and_latent = keras.Model(
        encoder.inputs[0], [encoder.layers[flatten].input, encoder.outputs[0]]
    )

    def share_of_cells(gradient: Any, features: Any) -> Any:
        for layer in reversed(above):
            gradient = ops.matmul(gradient, ops.transpose(layer.kernel))
        gradient = ops.reshape(gradient, (-1, *features.shape[1:]))
        return ops.relu(ops.sum(gradient * features, axis=-1))

    return features_and_latent, share_of_cells
