"""Scoring graphs: from the uint8 image to ``score`` and ``anomaly_map``, as Keras models.

Each function joins trained networks into the graph that is exported. Everything after the shrink is
inside it: the cast, the network and the score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomaly_detector.preprocessing import INPUT_SIZE
from training.architectures import CODE_SIZE, Autoencoder
from training.backend import import_keras

__all__ = ["SCORE_UNITS", "build_mlp", "mlp_scorer", "reconstruction_scorer"]

SCORE_UNITS: Mapping[str, str] = {
    "reconstruction": "squared grey levels (0..255), mean over pixels and channels",
    "mlp": "probability of an anomaly (0..1)",
}


def build_mlp() -> Any:
    """Build the classifier on codes: 128 -> 256 relu -> 64 relu -> 1 sigmoid (thesis 5.1)."""
    keras = import_keras()
    return keras.Sequential(
        [
            keras.Input((CODE_SIZE,), name="code"),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ],
        name="mlp",
    )


def reconstruction_scorer(autoencoder: Autoencoder) -> Any:
    """Score by the mean squared reconstruction error (thesis 5.13).

    The anomaly map is the error of each pixel, mean over the channels: [N, 64, 64].
    """
    keras = import_keras()
    image, pixels = _image_input()
    error = keras.ops.square(pixels - autoencoder.model(pixels))
    anomaly_map = keras.ops.mean(error, axis=-1)
    score = keras.ops.mean(anomaly_map, axis=(1, 2))
    return keras.Model(image, {"score": score, "anomaly_map": anomaly_map})


def mlp_scorer(autoencoder: Autoencoder, mlp: Any) -> Any:
    """Score by the classifier's probability (thesis 5.2.2).

    The anomaly map, [N, h, w] of the encoder's last feature map, is the share of each cell in the
    classifier's logit: gradient times activation (HiResCAM, Draelos and Carin 2020), which is exact
    here because everything above the feature map is piecewise linear. The gradient is written out
    with the layers' own weights, since an ONNX graph has no automatic differentiation.
    """
    keras = import_keras()
    ops = keras.ops
    image, pixels = _image_input()
    features, code = _features_and_code(autoencoder, pixels)
    hidden_1 = mlp.layers[0](code)
    hidden_2 = mlp.layers[1](hidden_1)
    probability = mlp.layers[2](hidden_2)
    gradient = ops.transpose(mlp.layers[2].kernel) * ops.cast(hidden_2 > 0, "float32")
    gradient = ops.matmul(gradient, ops.transpose(mlp.layers[1].kernel))
    gradient = gradient * ops.cast(hidden_1 > 0, "float32")
    gradient = ops.matmul(gradient, ops.transpose(mlp.layers[0].kernel))
    anomaly_map = _code_gradient_map(autoencoder, features, gradient)
    return keras.Model(image, {"score": probability[:, 0], "anomaly_map": anomaly_map})


def _image_input() -> tuple[Any, Any]:
    keras = import_keras()
    image = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), dtype="uint8", name="image")
    return image, keras.ops.cast(image, "float32")


def _features_and_code(autoencoder: Autoencoder, pixels: Any) -> tuple[Any, Any]:
    """Give the last feature map [N, h, w, c] and the code [N, 128]."""
    keras = import_keras()
    encoder = autoencoder.encoder
    feature_tensor = encoder.layers[-2].input  # what the Flatten before the code layer gets
    features, code = keras.Model(encoder.inputs, [feature_tensor, encoder.outputs[0]])(pixels)
    return features, code


def _code_gradient_map(autoencoder: Autoencoder, features: Any, code_gradient: Any) -> Any:
    """Carry a gradient from the code to the feature map, multiply and sum over the channels."""
    ops = import_keras().ops
    kernel = autoencoder.encoder.layers[-1].kernel
    gradient = ops.matmul(code_gradient, ops.transpose(kernel))
    gradient = ops.reshape(gradient, (-1, *features.shape[1:]))
    # Only evidence for an anomaly is shown: cells that speak against one are 0.
    return ops.relu(ops.sum(gradient * features, axis=-1))
