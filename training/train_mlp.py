"""Trains the classifier on codes of normal and anomalous frames (thesis 5.4.6)."""

from __future__ import annotations

import numpy as np

from training.backend import seed_everything
from training.codes import encode_frames
from training.datasets import split_anomalies
from training.fit import FitSettings, fit
from training.job import Job, Trained
from training.options import MLP_THRESHOLD
from training.provenance import fit_summary
from training.scorers import build_mlp, mlp_scorer

__all__ = ["train_mlp"]


def train_mlp(job: Job, base: Trained) -> Trained:
    """Train the classifier on top of a trained autoencoder.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    options, split = job.options, job.split
    autoencoder = base.autoencoder
    assert autoencoder is not None  # this scorer stands on one
    assert job.anomalies is not None  # it cannot be trained without
    anomaly_split = split_anomalies(job.anomalies.lengths, job.anomalies.gaps, options.held_out)
    parts = [encode_frames(autoencoder, frames) for frames in (job.frames, job.anomalies)]
    codes = np.concatenate(parts)
    normal = len(job.frames)
    labels = np.repeat(np.array([0, 1], np.float32), [normal, len(job.anomalies)])
    seed_everything(options.seed)
    mlp = build_mlp()
    train_indices = np.concatenate([split.train, anomaly_split.train + normal])
    validation = np.concatenate([split.validation, anomaly_split.validation + normal])
    # Codes reach thousands, on which Adam at 1e-4 wanders. The classifier learns on standardised
    # codes; afterwards its first layer takes the scale over, so that it is 128-256-64-1 on the
    # plain codes as in the thesis.
    mean = codes[train_indices].mean(axis=0)
    deviation = np.maximum(codes[train_indices].std(axis=0), 1e-6)
    result = fit(
        mlp,
        lambda indices: ((codes[indices] - mean) / deviation, labels[indices, np.newaxis]),
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
        progress=options.progress,
        tensorboard=None if options.tensorboard is None else options.tensorboard / "mlp",
        cluster=job.cluster,
        **job.folder.checkpoint("mlp"),
    )
    job.folder.trained(result)
    kernel, bias, *others = mlp.get_weights()
    kernel = kernel / deviation[:, np.newaxis]
    mlp.set_weights([kernel, bias - mean @ kernel, *others])
    probabilities = np.asarray(mlp(codes[validation], training=False))[:, 0]
    accuracy = float(np.mean((probabilities > MLP_THRESHOLD) == (labels[validation] > 0.5)))
    metrics = base.base_metrics()
    return Trained(
        autoencoder,
        mlp_scorer(autoencoder, mlp),
        networks=base.networks | {"mlp": mlp},
        metrics=metrics | {"validation_loss": result.best_loss, "validation_accuracy": accuracy},
        histories=base.histories | {"mlp": result.history},
        provenance=base.provenance | {"mlp": fit_summary(result)},
    )
