"""Trains the discriminative detector on a normal drive and outliers made from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.frames import BlockSplit, FrameSet
from training.fitting.fit import fit
from training.fitting.run import TrainingRun
from training.fitting.settings import FitResult, FitSettings
from training.networks.backend import seed_everything
from training.networks.efficientnet import load_imagenet
from training.scorers.autoencoder import mean_output
from training.scorers.outlier_exposure.batches import (
    ALL_PARTS,
    EXPOSURE_BATCH,
    ExposureParts,
    make_batch,
)
from training.scorers.outlier_exposure.network import build_exposure_network, loss_model

_SETTINGS = FitSettings(
    batch_size=EXPOSURE_BATCH,
    clipnorm=1.0,
    early_stopping_patience=0,
    plateau_patience=0,
    cosine=True,
    # The loss on unseen places rises while the ranking still improves: the network grows more
    # certain, of its mistakes too. Calibration takes care of the scale.
    keep_best=False,
)

_EPOCHS = 18
_PRETRAINED_EPOCHS = 10
"""Its features come ready-made."""

_VALIDATION_FRAMES = 384
_MOST_ANOMALIES = 2000


def fit_exposure(
    run: TrainingRun, parts: ExposureParts = ALL_PARTS, *, pretrained: bool = False
) -> tuple[Any, FitResult]:
    """Build and fit the network of a run.

    Args:
        run: the run.
        parts: what the training consists of.
        pretrained: on the encoder with ImageNet weights.

    Returns:
        The network of ``build_exposure_network``, and how it went.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    seed_everything(run.options.seed)
    network = build_exposure_network(
        run.frames.size, coord_conv=parts.coord_conv, pretrained=pretrained
    )
    if pretrained:
        load_imagenet(network.get_layer("efficientnet_lite0"))
    epochs = _PRETRAINED_EPOCHS if pretrained else _EPOCHS
    return network, fit_to_outliers(
        run, "exposure", loss_model(network, run.frames.mask), parts, epochs
    )


def fit_to_outliers(
    run: TrainingRun,
    name: str,
    model: Any,
    parts: ExposureParts = ALL_PARTS,
    epochs: int = _EPOCHS,
) -> FitResult:
    """Fit a model to the normal frames of a run and to outliers made of them.

    Args:
        run: the run.
        name: of the network.
        model: from :func:`make_batch`'s arrays to each frame's loss.
        parts: what the training consists of.
        epochs: if the run's options state none.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    options, split, mask = run.options, run.split, run.frames.mask
    generator = np.random.default_rng(options.seed)
    anomalies = None if run.anomalies is None else _some_frames(run.anomalies, generator)
    # An epoch is a number of steps, not a pass: the outliers are new in every step anyway. Every
    # training frame equally often; of a long drive each epoch sees others.
    count = max(options.exposure_steps * EXPOSURE_BATCH, len(split.train))
    train = np.resize(generator.permutation(split.train), count)
    validation = validation_frames(split)
    held_out = np.zeros(len(run.frames), bool)
    held_out[split.validation] = True

    def load(indices: NDArray[np.int64]) -> tuple[Any, NDArray[np.float32]]:
        batch: Any = run.frames.load(indices)
        if held_out[indices[0]]:
            batch = make_batch(_repeatable(options.seed, indices), batch, anomalies, parts, mask)
        return batch, np.zeros(len(indices), np.float32)

    def sample(own: np.random.Generator, images: Any) -> dict[str, NDArray[np.float32]]:
        return make_batch(own, images[own.permutation(len(images))], anomalies, parts, mask)

    return fit(
        model,
        load,
        train,
        validation,
        replace(
            _SETTINGS,
            epochs=options.exposure_epochs or epochs,
            steps=options.exposure_steps,
            learning_rate=2e-3,
            weight_decay=parts.weight_decay,
            time_limit=options.time_limit,
            seed=options.seed,
        ),
        loss=mean_output,
        label=f"training {name}",
        sample=sample,
        **run.fit_arguments(name),
    )


def made_frames(run: TrainingRun, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return varied normal frames and outliers, about ``count`` together, made of a run's frames.

    They are float32 [N, H, W, 3].
    """
    generator = np.random.default_rng(run.options.seed)
    train = np.resize(generator.permutation(run.split.train), count)
    batch = make_batch(generator, run.frames.load(train), mask=run.frames.mask)
    is_outlier = batch["frame"] > 0
    return batch["image"][~is_outlier], batch["image"][is_outlier]


def _repeatable(seed: int, numbers: NDArray[np.int64]) -> np.random.Generator:
    """Return a batch's source of chance that makes the same outliers in every epoch.

    So validation losses can be compared.
    """
    return np.random.default_rng((seed, *numbers[:4].tolist()))


def validation_frames(split: BlockSplit) -> NDArray[np.int64]:
    """Return frame numbers for validation, of all recordings and blocks alike."""
    places = np.arange(_VALIDATION_FRAMES) * len(split.validation) // _VALIDATION_FRAMES
    return split.validation[places]


def _some_frames(frames: FrameSet, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return some frames, uint8 [N, H, W, 3], so many that they are varied and fit in memory."""
    count = min(len(frames), _MOST_ANOMALIES)
    return frames.load(np.sort(generator.choice(len(frames), count, replace=False)))
