"""Scorers ``mlp``: a classifier on latents of normal and anomalous frames (thesis 5.2.2, 5.4.6).

``mlp`` learns from a normal drive and outliers made of it, on the frozen encoder; in
``mlp-finetuned`` the encoder learns too. ``mlp-thesis`` learns from recorded anomalies alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.frames import split_anomalies
from training.fitting.run import ScoringFunction, TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.fitting.settings import FitSettings
from training.networks.autoencoders import LATENT_SIZE, Autoencoder
from training.networks.backend import import_keras, seed_everything
from training.scorers.base import AUTOENCODER_OPTIONS, Scorer
from training.scorers.latents import encode_frames, explained_encoder
from training.scorers.outlier_exposure.batches import ExposureParts

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


def train(run: TrainingRun, base: TrainingResult, *, fine_tuned: bool = False) -> TrainingResult:
    """Train the classifier on normal frames and outliers made of them.

    Args:
        run: the run.
        base: the trained autoencoder; it stays as it is.
        fine_tuned: a copy of its encoder learns too, and is used instead. Its decoder has learned
            from other latents.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    # Not at the top: they import Keras.
    from training.scorers.autoencoder import build
    from training.scorers.outlier_exposure.network import batch_inputs
    from training.scorers.outlier_exposure.training import fit_to_outliers

    keras = import_keras()
    assert base.autoencoder is not None  # this scorer stands on one
    seed_everything(run.options.seed)
    autoencoder = build(run.options)
    autoencoder.model.set_weights(base.autoencoder.model.get_weights())
    autoencoder.encoder.trainable = fine_tuned
    mlp = build_mlp()
    inputs = batch_inputs()
    if fine_tuned:
        latent, fold = normalized_encoder(autoencoder.encoder, inputs["image"])
    else:
        latent = autoencoder.encoder(inputs["image"], training=False)
    normalization = keras.layers.BatchNormalization(center=False, scale=False)
    probability = mlp(normalization(latent))
    loss = keras.losses.binary_crossentropy(inputs["frame"][:, None], probability)
    model = keras.Model(inputs, loss, name="mlp_loss")
    result = fit_to_outliers(run, "mlp", model, ExposureParts(weight_decay=0.0))
    run.folder.trained(result)
    if fine_tuned:
        fold()
    mean, variance = normalization.get_weights()
    _absorb_scale(mlp, mean, np.sqrt(variance + normalization.epsilon))
    scorer = mlp_scorer(autoencoder, mlp)
    networks = {**base.networks, "autoencoder": autoencoder.model}
    base = replace(base, autoencoder=autoencoder, networks=networks)
    return TrainingResult.of("mlp", mlp, result, scorer, base=base)


def normalized_encoder(encoder: Any, image: Any) -> tuple[Any, Callable[[], None]]:
    """Put a batch normalisation behind each convolution of an encoder while it is trained.

    Pixels of 0..255 and features in the hundreds move by far more than biases can.

    Returns:
        The latent of an image, and the function that folds the normalisations into the
        convolutions: the encoder has its own layers alone again, for the same latents.
    """
    from training.networks.layers import BatchNormalization

    keras = import_keras()
    convolutions = []
    for layer in encoder.layers[1:]:
        if not isinstance(layer, keras.layers.Conv2D):
            image = layer(image)
            continue
        activation, normalization = layer.activation, BatchNormalization(momentum=0.97)
        layer.activation = keras.activations.linear
        image = keras.layers.Activation(activation)(normalization(layer(image)))
        convolutions.append((layer, activation, normalization))

    def fold() -> None:
        for layer, activation, normalization in convolutions:
            gamma, beta, mean, variance = normalization.get_weights()
            scale = gamma / np.sqrt(variance + normalization.epsilon)
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * scale, (bias - mean) * scale + beta])
            layer.activation = activation

    return image, fold


def train_thesis(run: TrainingRun, base: TrainingResult) -> TrainingResult:
    """Train the classifier on latents of normal frames and recorded anomalies, as in the thesis.

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
    mean, deviation = _scale(latents[train_indices])
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
    _absorb_scale(mlp, mean, deviation)
    probabilities = np.asarray(mlp(latents[validation], training=False))[:, 0]
    accuracy = float(np.mean((probabilities > MLP_THRESHOLD) == (labels[validation] > 0.5)))
    scorer = mlp_scorer(autoencoder, mlp)
    return TrainingResult.of("mlp", mlp, result, scorer, base=base, validation_accuracy=accuracy)


def _scale(latents: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and deviation of latents.

    They reach thousands, on which Adam wanders. The classifier learns on standardised latents.
    """
    return latents.mean(axis=0), np.maximum(latents.std(axis=0), 1e-6)


def _absorb_scale(mlp: Any, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> None:
    """Let the first layer take the scale over: 128-256-64-1 on plain latents as in the thesis."""
    kernel, bias, *others = mlp.get_weights()
    kernel = kernel / deviation[:, np.newaxis]
    mlp.set_weights([kernel, bias - mean @ kernel, *others])


def _restore(autoencoder: Autoencoder, folder: RunFolder) -> ScoringFunction:
    mlp = build_mlp()
    folder.load_weights("mlp", mlp)
    return mlp_scorer(autoencoder, mlp)


_MLP = Scorer(
    "mlp",
    "classifier 128-256-64-1 on the autoencoder's latent, trained on outliers made of the drive",
    "probability of an anomaly (0..1)",
    train,
    _restore,
    AUTOENCODER_OPTIONS | {"anomalies", "exposure_epochs", "exposure_steps"},
    maximum=1.0,
    normal_of_anomalies=True,
)
SCORERS = (
    _MLP,
    replace(
        _MLP,
        name="mlp-finetuned",
        description="the same, with the encoder fine-tuned to tell them apart",
        train=partial(train, fine_tuned=True),
    ),
    replace(
        _MLP,
        name="mlp-thesis",
        description="the classifier as in the thesis (5.2.2): trained on recorded anomalies alone",
        train=train_thesis,
        options=AUTOENCODER_OPTIONS | {"anomalies", "mlp_epochs"},
        needs_anomalies=True,
        threshold=MLP_THRESHOLD,
        normal_of_anomalies=False,
    ),
)
