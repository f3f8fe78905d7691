"""Trains Real-NVP on the codes of normal frames, with outlier exposure if there are anomalies."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from training.codes import encode_frames
from training.job import Job, Trained
from training.provenance import fit_summary
from training.realnvp import RealNVPSettings, fit_realnvp
from training.scorers import realnvp_scorer

__all__ = ["train_realnvp"]


def train_realnvp(job: Job, base: Trained) -> Trained:
    """Train the flow on top of a trained autoencoder (paper, section IV).

    For ``realnvp-oe`` all anomalies of the job are outliers for exposure.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    options, split = job.options, job.split
    autoencoder = base.autoencoder
    assert autoencoder is not None  # this scorer stands on one
    codes = encode_frames(autoencoder, job.frames)
    outliers = None if job.anomalies is None else encode_frames(autoencoder, job.anomalies)
    settings = RealNVPSettings(
        epochs=options.realnvp_epochs,
        early_stopping_patience=options.patience(100) or None,
        time_limit=options.time_limit,
        seed=options.seed,
    )
    flow, result = fit_realnvp(
        codes[split.train],
        codes[split.validation],
        outliers=outliers,
        settings=settings,
        label=f"training {options.scorer}",
        progress=options.progress,
        tensorboard=None if options.tensorboard is None else options.tensorboard / "realnvp",
    )
    job.folder.trained(result)
    metrics = base.base_metrics()
    if outliers is not None:
        nll = np.asarray(flow.nll(outliers), np.float64)
        metrics["outlier_nll"] = float(np.median(nll))
    return Trained(
        autoencoder,
        realnvp_scorer(autoencoder, flow),
        networks=base.networks | {"realnvp": flow},
        metrics=metrics | {"validation_loss": result.best_loss},
        histories=base.histories | {"realnvp": result.history},
        provenance=base.provenance
        | {"realnvp": fit_summary(result) | {"settings": asdict(settings)}},
    )
