"""Scoring functions: from the uint8 image to ``score`` and ``anomaly_map``.

Each maker joins trained networks into the function that is exported. Everything after the shrink is
inside it: the cast, the network and the score. The functions use ``keras.ops`` alone, so they run
on every Keras backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from training.architectures import CODE_SIZE, Autoencoder
from training.backend import import_keras

__all__ = ["SCORE_UNITS", "Scorer", "build_mlp", "mlp_scorer", "reconstruction_scorer"]

Scorer: TypeAlias = Callable[[Any], dict[str, Any]]
"""From uint8 [N, 64, 64, 3] to ``score`` float32 [N] and ``anomaly_map`` float32 [N, H, W]."""

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


def reconstruction_scorer(autoencoder: Autoencoder) -> Scorer:
    """Score by the mean squared reconstruction error (thesis 5.13).

    The anomaly map is the error of each pixel, mean over the channels: [N, 64, 64].
    """
    ops = import_keras().ops

    def score(image: Any) -> dict[str, Any]:
        pixels = ops.cast(image, "float32")
        error = ops.square(pixels - autoencoder.model(pixels, training=False))
        anomaly_map = ops.mean(error, axis=-1)
        return {"score": ops.mean(anomaly_map, axis=(1, 2)), "anomaly_map": anomaly_map}

    return score


def mlp_scorer(autoencoder: Autoencoder, mlp: Any) -> Scorer:
    """Score by the classifier's probability (thesis 5.2.2).

    The anomaly map, [N, h, w] of the encoder's last feature map, is the share of each cell in the
    classifier's logit: gradient times activation (HiResCAM, Draelos and Carin 2020), which is exact
    here because everything above the feature map is piecewise linear. The gradient is written out
    with the layers' own weights, since an ONNX graph has no automatic differentiation. Only
    evidence for an anomaly is shown: cells that speak against one are 0.
    """
    keras = import_keras()
    ops = keras.ops
    encoder = autoencoder.encoder
    code_layer = encoder.layers[-1]
    # What the Flatten in front of the code layer gets, and the code itself.
    features_and_code = keras.Model(
        encoder.inputs[0], [encoder.layers[-2].input, encoder.outputs[0]]
    )
    layer_1, layer_2, layer_3 = mlp.layers

    def score(image: Any) -> dict[str, Any]:
        features, code = features_and_code(ops.cast(image, "float32"), training=False)
        hidden_1 = layer_1(code)
        hidden_2 = layer_2(hidden_1)
        logit = ops.matmul(hidden_2, layer_3.kernel) + layer_3.bias
        # Written out: ONNX Runtime approximates Sigmoid, to 1e-8, which small probabilities feel.
        probability = 1.0 / (1.0 + ops.exp(-logit))
        gradient = ops.transpose(layer_3.kernel) * ops.cast(hidden_2 > 0, "float32")
        gradient = ops.matmul(gradient, ops.transpose(layer_2.kernel))
        gradient = gradient * ops.cast(hidden_1 > 0, "float32")
        gradient = ops.matmul(gradient, ops.transpose(layer_1.kernel))
        gradient = ops.matmul(gradient, ops.transpose(code_layer.kernel))
        gradient = ops.reshape(gradient, (-1, *features.shape[1:]))
        anomaly_map = ops.relu(ops.sum(gradient * features, axis=-1))
        return {"score": probability[:, 0], "anomaly_map": anomaly_map}

    return score
