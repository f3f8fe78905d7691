"""Trains the discriminative detector on a normal drive and outliers made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.frames import BlockSplit, FrameSet
from training.fitting.autoencoder import mean_output
from training.fitting.backend import seed_everything
from training.fitting.fit import FitResult, FitSettings, fit
from training.fitting.job import Job
from training.scorers.outlier_exposure.network import build_exposure_network, loss_model, make_batch
from training.scorers.outlier_exposure.outliers import (
    PICTURE_FAULTS,
    TEXTURES,
    PictureFault,
    Texture,
)

EXPOSURE_BATCH = 48
"""Frames a step; every fourth gets something pasted in, every fourth a whole-picture fault."""

WEIGHT_DECAY = 1.0
"""Times the learning rate, a step: over the whole training the kernels would shrink to a sixth.

It is meant to keep the network from knowing the drive's few places by heart.
"""

_VALIDATION_FRAMES = 384
_MOST_ANOMALIES = 2000


@dataclass(frozen=True)
class ExposureParts:
    """What the training consists of; parts are left out to see what they are good for.

    Attributes:
        place: the network knows where in the picture every cell is.
        turn: it learns to tell by how much the camera has rolled.
        pasted: outliers with things pasted in.
        whole: outliers with a fault of the whole picture.
        textures: what shapes are filled with, see the module ``outliers``.
        faults: of the whole picture, and how often each is drawn; likewise.
        weight_decay: times the learning rate, a step.
    """

    place: bool = True
    turn: bool = True
    pasted: bool = True
    whole: bool = True
    textures: Sequence[Texture] = TEXTURES
    faults: Sequence[tuple[PictureFault, float]] = PICTURE_FAULTS
    weight_decay: float = WEIGHT_DECAY


def fit_exposure(job: Job, parts: ExposureParts = ExposureParts()) -> tuple[Any, FitResult]:
    """Build and fit the network of a job.

    Returns:
        The network of :func:`training.exposure.build_exposure_network`, and how it went.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    options, split = job.options, job.split
    seed_everything(options.seed)
    network = build_exposure_network(place=parts.place)
    generator = np.random.default_rng(options.seed)
    anomalies = None if job.anomalies is None else _sample(job.anomalies, generator)
    # An epoch is a number of steps, not a pass: the outliers are new in every step anyway. Every
    # training frame equally often.
    count = options.exposure_steps * EXPOSURE_BATCH
    train = np.resize(generator.permutation(split.train), count)
    validation = validation_frames(split)
    held_out = np.zeros(len(job.frames), bool)
    held_out[split.validation] = True

    def made(own: np.random.Generator, images: Any) -> dict[str, Any]:
        batch = make_batch(
            own,
            images,
            anomalies,
            pasted=parts.pasted,
            whole=parts.whole,
            textures=parts.textures,
            faults=parts.faults,
        )
        batch["turn_weight"] *= parts.turn
        return batch

    def take(indices: NDArray[np.int64]) -> tuple[Any, NDArray[np.float32]]:
        batch: Any = job.frames.take(indices)
        if held_out[indices[0]]:
            # The same outliers in every epoch, so that validation losses can be compared.
            own = np.random.default_rng((options.seed, *indices[:4].tolist()))
            batch = made(own, batch)
        return batch, np.zeros(len(indices), np.float32)

    def draw(own: np.random.Generator, images: Any) -> dict[str, NDArray[np.float32]]:
        return made(own, images[own.permutation(len(images))])

    result = fit(
        loss_model(network),
        take,
        train,
        validation,
        FitSettings(
            epochs=options.exposure_epochs,
            batch_size=EXPOSURE_BATCH,
            learning_rate=2e-3,
            clipnorm=1.0,
            weight_decay=parts.weight_decay,
            early_stopping_patience=0,
            plateau_patience=0,
            cosine=True,
            # The loss on unseen places rises while the ranking still improves: the network grows
            # more certain, of its mistakes too. Calibration takes care of the scale.
            keep_best=False,
            time_limit=options.time_limit,
            seed=options.seed,
        ),
        loss=mean_output,
        label="training exposure",
        progress=options.progress,
        draw=draw,
        tensorboard=None if options.tensorboard is None else options.tensorboard / "exposure",
        cluster=job.cluster,
        **job.folder.checkpoint("exposure"),
    )
    return network, result


def validation_frames(split: BlockSplit) -> NDArray[np.int64]:
    """Return frame numbers for validation, of all recordings and blocks alike."""
    places = np.arange(_VALIDATION_FRAMES) * len(split.validation) // _VALIDATION_FRAMES
    return split.validation[places]


def _sample(frames: FrameSet, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return some frames, uint8 [N, 64, 64, 3], so many that they are varied and fit in memory."""
    count = min(len(frames), _MOST_ANOMALIES)
    return frames.take(np.sort(generator.choice(len(frames), count, replace=False)))
