"""Scorers ``realnvp`` and ``realnvp-oe``: how unlikely the code is, given those of normal frames.

With outlier exposure (``-oe``) the flow is trained on codes of anomalies too.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from training.export.provenance import fit_summary
from training.fitting.backend import import_keras
from training.fitting.job import Job, Trained
from training.fitting.run_folder import RunFolder
from training.networks.autoencoders import CODE_SIZE, Autoencoder
from training.scorers.attribution import explained_encoder
from training.scorers.base import AUTOENCODER_OPTIONS, Scorer, ScoringFunction

if TYPE_CHECKING:
    from training.networks.realnvp import RealNVP

_UNIT = "negative log-likelihood of the code, nats"
_OPTIONS = AUTOENCODER_OPTIONS | {"realnvp_epochs"}


def realnvp_scorer(autoencoder: Autoencoder, flow: RealNVP) -> ScoringFunction:
    """Score by the negative log-likelihood of the code (paper, section IV).

    The anomaly map is made as that of :func:`mlp_scorer`, from the gradient of the negative
    log-likelihood: where the last feature map would have to change for the frame to become more
    likely. It shows directions and not exact shares, because the likelihood is not piecewise
    linear in the code.

    Raises:
        AnomalyDetectorError: the encoder's code layer is not linear.
    """
    ops = import_keras().ops
    features_and_code, share_of_cells = explained_encoder(autoencoder)

    def score(image: Any) -> dict[str, Any]:
        features, code = features_and_code(ops.cast(image, "float32"), training=False)
        nll, gradient = flow.nll_and_gradient(code)
        return {"score": nll, "anomaly_map": share_of_cells(gradient, features), "code": code}

    return score


def train(job: Job, base: Trained) -> Trained:
    """Train the flow on top of a trained autoencoder (paper, section IV).

    For ``realnvp-oe`` all anomalies of the job are outliers for exposure.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    import_keras()  # quietly, before the module below does
    from training.data.latents import encode_frames
    from training.networks.realnvp import RealNVPSettings, fit_realnvp

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


def _restore(autoencoder: Autoencoder, folder: RunFolder) -> ScoringFunction:
    import_keras()
    from training.networks.realnvp import RealNVP

    flow = RealNVP(CODE_SIZE)
    folder.load_weights("realnvp", flow)
    return realnvp_scorer(autoencoder, flow)


SCORERS = (
    Scorer(
        "realnvp",
        "negative log-likelihood of the code under a Real-NVP (paper, section IV)",
        _UNIT,
        train,
        _restore,
        _OPTIONS,
    ),
    Scorer(
        "realnvp-oe",
        "the same, trained with outlier exposure",
        _UNIT,
        train,
        _restore,
        _OPTIONS | {"anomalies"},
        needs_anomalies=True,
    ),
)
