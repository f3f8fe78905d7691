"""Scorer ``mlp``: a classifier on latents of normal and anomalous frames (thesis 5.2.2, 5.4.6)."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.data.frames import split_anomalies
from training.fitting.run import ScoringFunction, TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.fitting.settings import FitSettings
from training.networks.autoencoders import LATENT_SIZE, Autoencoder
from training.networks.backend import import_keras, seed_everything
from training.scorers.base import AUTOENCODER_OPTIONS, Scorer
from training.scorers.latents import encode_frames, explained_encoder

MLP_THRESHOLD = 0.5
"""Of the classifier's probability (thesis 5.17)."""


def build_mlp() -> Any:
    """Build the classifier on latents: 128 -> 256 relu -> 64 relu -> 1 sigmoid (thesis 5.1)."""
    keras = import_keras()
    return keras.Sequential(
        [
            keras.Input((LATENT_SIZE,), name="code"),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ],
        name="mlp",
    )


def mlp_scorer(autoencoder: Autoencoder, mlp: Any) -> ScoringFunction:
    """Score by the classifier's probability (thesis 5.2.2).

    The anomaly map, [N, h, w] of the encoder's last feature map, is the share of each cell in the
    classifier's logit: gradient times activation (HiResCAM, Draelos and Carin 2020), which is exact
    here because everything above the feature map is piecewise linear. The gradient is written out
    with the layers' own weights, since an ONNX graph has no automatic differentiation. Only
    evidence for an anomaly is shown: cells that speak against one are 0.

    Raises:
        AnomalyDetectorError: the encoder's latent layer is not linear.
    """
    ops = import_keras().ops
    features_and_latent, share_of_cells = explained_encoder(autoencoder)
    layer_1, layer_2, layer_3 = mlp.layers

    def score(image: Any) -> dict[str, Any]:
        features, latent = features_and_latent(ops.cast(image, "float32"), training=False)
        hidden_1 = layer_1(latent)
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
            "code": latent,
        }

    return score


def train(run: TrainingRun, base: TrainingResult) -> TrainingResult:
    """Train the classifier on top of a trained autoencoder.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    from training.fitting.fit import fit  # it imports Keras

    options, split = run.options, run.split
    autoencoder = base.autoencoder
    assert autoencoder is not None  # this scorer stands on one
    assert run.anomalies is not None  # it cannot be trained without
    anomaly_split = split_anomalies(run.anomalies.lengths, run.anomalies.gaps, options.held_out)
    parts = [encode_frames(autoencoder, frames) for frames in (run.frames, run.anomalies)]
    latents = np.concatenate(parts)
    normal = len(run.frames)
    labels = np.repeat(np.array([0, 1], np.float32), [normal, len(run.anomalies)])
    seed_everything(options.seed)
    mlp = build_mlp()
    train_indices = np.concatenate([split.train, anomaly_split.train + normal])
    validation = np.concatenate([split.validation, anomaly_split.validation + normal])
    # Codes reach thousands, on which Adam at 1e-4 wanders. The classifier learns on standardised
    # latents; afterwards its first layer takes the scale over, so that it is 128-256-64-1 on the
    # plain latents as in the thesis.
    mean = latents[train_indices].mean(axis=0)
    deviation = np.maximum(latents[train_indices].std(axis=0), 1e-6)
    result = fit(
        mlp,
        lambda indices: ((latents[indices] - mean) / deviation, labels[indices, np.newaxis]),
        train_indices,
        validation,
        FitSettings(
            epochs=options.mlp_epochs,
            batch_size=options.batch_size,
            learning_rate=1e-4,
            early_stopping_patience=options.patience(20),
            plateau_patience=10,
            time_limit=options.time_limit,
            seed=options.seed,
        ),
        loss="binary_crossentropy",
        label="training mlp",
        **run.fit_arguments("mlp"),
    )
    run.folder.trained(result)
    kernel, bias, *others = mlp.get_weights()
    kernel = kernel / deviation[:, np.newaxis]
    mlp.set_weights([kernel, bias - mean @ kernel, *others])
    probabilities = np.asarray(mlp(latents[validation], training=False))[:, 0]
    accuracy = float(np.mean((probabilities > MLP_THRESHOLD) == (labels[validation] > 0.5)))
    scorer = mlp_scorer(autoencoder, mlp)
    return TrainingResult.of("mlp", mlp, result, scorer, base=base, validation_accuracy=accuracy)


def _restore(autoencoder: Autoencoder, folder: RunFolder) -> ScoringFunction:
    mlp = build_mlp()
    folder.load_weights("mlp", mlp)
    return mlp_scorer(autoencoder, mlp)


SCORERS = (
    Scorer(
        "mlp",
        "classifier 128-256-64-1 on the autoencoder's latent (thesis 5.2.2)",
        "probability of an anomaly (0..1)",
        train,
        _restore,
        AUTOENCODER_OPTIONS | {"anomalies", "mlp_epochs"},
        needs_anomalies=True,
        threshold=MLP_THRESHOLD,
        maximum=1.0,
    ),
)
