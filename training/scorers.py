"""Scoring functions: from the uint8 image to ``score`` and ``anomaly_map``.

Each maker joins trained networks into the function that is exported. Everything after the shrink is
inside it: the cast, the network and the score. The functions use ``keras.ops`` alone, so they run
on every Keras backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from anomaly_detector.errors import AnomalyDetectorError
from training.architectures import ARCHITECTURES, CODE_SIZE, Autoencoder
from training.backend import import_keras

if TYPE_CHECKING:
    from training.realnvp import RealNVP

__all__ = [
    "RECONSTRUCTION_SCORERS",
    "SCORE_UNITS",
    "Scorer",
    "build_mlp",
    "exposure_scorer",
    "mlp_scorer",
    "realnvp_scorer",
    "reconstruction_scorer",
    "score_units",
]

Scorer: TypeAlias = Callable[[Any], dict[str, Any]]
"""From uint8 [N, 64, 64, 3] to ``score`` float32 [N], ``anomaly_map`` float32 [N, H, W] and,
for networks with an encoder, ``code`` float32 [N, 128], which export keeps as a named tensor.
"""

SCORE_UNITS: Mapping[str, str] = {
    "reconstruction": "squared grey levels (0..255), mean over pixels and channels",
    "reconstruction-mae": "grey levels (0..255), mean over pixels and channels",
    "reconstruction-q99": "squared grey levels (0..255), 99th percentile of the pixels",
    "mlp": "probability of an anomaly (0..1)",
    "realnvp": "negative log-likelihood of the code, nats",
    "realnvp-oe": "negative log-likelihood of the code, nats",
    "outlier-exposure": "log-odds that the frame is not a normal one",
}

RECONSTRUCTION_SCORERS: Mapping[str, str] = {
    "reconstruction": "mse",
    "reconstruction-mae": "mae",
    "reconstruction-q99": "q99",
}
"""Name of a scorer to the statistic of :func:`reconstruction_scorer`."""

_QUANTILE = 0.99

_HIGHEST_CELLS = 4
"""Cells of the discriminative map that decide: a thing of 4x4 pixels fills as many."""


def score_units(scorer: str, architecture: str) -> str:
    """Give the unit of a score in words, for a scorer on an architecture."""
    units = SCORE_UNITS[scorer]
    if scorer in RECONSTRUCTION_SCORERS and ARCHITECTURES[architecture].standardized:
        # The networks that see the standardised image reconstruct that one.
        units = units.replace("grey levels (0..255)", "standard deviations of the image's channels")
    return units


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


def reconstruction_scorer(autoencoder: Autoencoder, statistic: str = "mse") -> Scorer:
    """Score by the reconstruction error.

    The anomaly map is the error of each pixel, mean over the channels: [N, 64, 64]. Errors are in
    the units of ``autoencoder.target``.

    Args:
        autoencoder: trained.
        statistic: how the map becomes the score. ``mse`` is the mean of squared errors
            (thesis 5.13); ``mae`` that of absolute errors, in which a few very wrong pixels count
            less; ``q99`` the 99th percentile of the pixels' squared errors (between two pixels,
            linear), to which a hazard that covers more than a hundredth of the frame contributes
            as much as a large one, where the mean hardly notices it (thesis 5.4).

    Raises:
        AnomalyDetectorError: unknown statistic.
    """
    if statistic not in RECONSTRUCTION_SCORERS.values():
        raise AnomalyDetectorError(
            f"statistic {statistic!r} of the reconstruction error is not known: "
            f"choose one of {', '.join(RECONSTRUCTION_SCORERS.values())}"
        )
    ops = import_keras().ops

    def score(image: Any) -> dict[str, Any]:
        pixels = ops.cast(image, "float32")
        code = autoencoder.encoder(pixels, training=False)
        error = autoencoder.target(pixels) - autoencoder.decoder(code, training=False)
        error = ops.abs(error) if statistic == "mae" else ops.square(error)
        anomaly_map = ops.mean(error, axis=-1)
        if statistic == "q99":
            value = _quantile(ops, anomaly_map, _QUANTILE)
        else:
            value = ops.mean(anomaly_map, axis=(1, 2))
        return {"score": value, "anomaly_map": anomaly_map, "code": code}

    return score


def _quantile(ops: Any, values: Any, probability: float) -> Any:
    """Give the quantile of each frame's map [N, H, W], as ``numpy.quantile`` does.

    Made of TopK, since ONNX has no quantile.
    """
    count = values.shape[1] * values.shape[2]
    position = (1.0 - probability) * (count - 1)
    above = int(position)
    weight = position - above
    largest, _ = ops.top_k(ops.reshape(values, (-1, count)), above + 2)
    return (1.0 - weight) * largest[:, above] + weight * largest[:, above + 1]


def mlp_scorer(autoencoder: Autoencoder, mlp: Any) -> Scorer:
    """Score by the classifier's probability (thesis 5.2.2).

    The anomaly map, [N, h, w] of the encoder's last feature map, is the share of each cell in the
    classifier's logit: gradient times activation (HiResCAM, Draelos and Carin 2020), which is exact
    here because everything above the feature map is piecewise linear. The gradient is written out
    with the layers' own weights, since an ONNX graph has no automatic differentiation. Only
    evidence for an anomaly is shown: cells that speak against one are 0.

    Raises:
        AnomalyDetectorError: the encoder's code layer is not linear.
    """
    ops = import_keras().ops
    features_and_code, share_of_cells = _explained_encoder(autoencoder)
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
        return {
            "score": probability[:, 0],
            "anomaly_map": share_of_cells(gradient, features),
            "code": code,
        }

    return score


def realnvp_scorer(autoencoder: Autoencoder, flow: RealNVP) -> Scorer:
    """Score by the negative log-likelihood of the code (paper, section IV).

    The anomaly map is made as that of :func:`mlp_scorer`, from the gradient of the negative
    log-likelihood: where the last feature map would have to change for the frame to become more
    likely. It shows directions and not exact shares, because the likelihood is not piecewise
    linear in the code.

    Raises:
        AnomalyDetectorError: the encoder's code layer is not linear.
    """
    ops = import_keras().ops
    features_and_code, share_of_cells = _explained_encoder(autoencoder)

    def score(image: Any) -> dict[str, Any]:
        features, code = features_and_code(ops.cast(image, "float32"), training=False)
        nll, gradient = flow.nll_and_gradient(code)
        return {"score": nll, "anomaly_map": share_of_cells(gradient, features), "code": code}

    return score


def _explained_encoder(autoencoder: Autoencoder) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Give what a map of gradient times activation needs of an encoder.

    Returns:
        A Keras model from the image to the last feature map [N, h, w, channels] and the code; and
        the function that makes the map [N, h, w] of the gradient with respect to the code and the
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
            f"architecture {autoencoder.architecture!r} has no anomaly map for scores of its code: "
            "its code is not made by linear Dense layers after a Flatten: choose another one"
        )
    features_and_code = keras.Model(
        encoder.inputs[0], [encoder.layers[flatten].input, encoder.outputs[0]]
    )

    def share_of_cells(gradient: Any, features: Any) -> Any:
        for layer in reversed(above):
            gradient = ops.matmul(gradient, ops.transpose(layer.kernel))
        gradient = ops.reshape(gradient, (-1, *features.shape[1:]))
        return ops.relu(ops.sum(gradient * features, axis=-1))

    return features_and_code, share_of_cells


def exposure_scorer(network: Any) -> Scorer:
    """Score by the discriminative network: the frame's log-odds joined with those of its cells.

    Either of the two is enough to raise the score: log(exp(frame) + exp(cells)), where *cells* is
    the mean of the four highest log-odds of the map (one hot cell may be noise). The anomaly map
    [N, 32, 32] is log(1 + odds) of each cell, which is 0 where nothing is found and does not
    saturate where much is.
    """
    ops = import_keras().ops

    def score(image: Any) -> dict[str, Any]:
        answers = network(ops.cast(image, "float32"), training=False)
        cells = ops.reshape(answers["map"], (-1, answers["map"].shape[1] * answers["map"].shape[2]))
        highest = ops.mean(ops.top_k(cells, _HIGHEST_CELLS)[0], axis=-1)
        return {
            "score": _log_sum(ops, answers["frame"][:, 0], highest),
            "anomaly_map": _log_sum(ops, answers["map"], ops.zeros_like(answers["map"])),
        }

    return score


def _log_sum(ops: Any, first: Any, second: Any) -> Any:
    """Give log(exp(first) + exp(second)), in operators that ONNX has."""
    return ops.maximum(first, second) + ops.log(1.0 + ops.exp(-ops.abs(first - second)))
