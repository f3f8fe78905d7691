"""How each scorer is trained on top of an autoencoder, and how it is rebuilt from saved weights.

A new scorer needs an entry here and one in :data:`training.options.SCORERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from training.architectures import CODE_SIZE, Autoencoder
from training.backend import import_keras
from training.job import Job, Trained
from training.scorers import (
    RECONSTRUCTION_SCORERS,
    Scorer,
    build_mlp,
    exposure_scorer,
    mlp_scorer,
    realnvp_scorer,
    reconstruction_scorer,
)

if TYPE_CHECKING:
    from training.run_folder import RunFolder

__all__ = ["SCORER_TABLE", "ScorerEntry"]


@dataclass(frozen=True)
class ScorerEntry:
    """The two ways to a scoring function.

    Attributes:
        train: from the job and the trained autoencoder with its reconstruction scorer, or None
            when the scorer needs no autoencoder.
        restore: from an autoencoder that has its weights, or None, and the folder with the others.
        needs_autoencoder: the scorer stands on an autoencoder.
    """

    train: Callable[[Job, Any], Trained]
    restore: Callable[[Any, RunFolder], Scorer]
    needs_autoencoder: bool = True


def _train_reconstruction(statistic: str, job: Job, base: Trained) -> Trained:
    # The autoencoder is all there is to train; it may have been trained for another scorer.
    autoencoder = base.autoencoder
    assert autoencoder is not None  # this scorer stands on one
    return replace(base, scorer=reconstruction_scorer(autoencoder, statistic))


def _restore_reconstruction(statistic: str, autoencoder: Autoencoder, folder: RunFolder) -> Scorer:
    return reconstruction_scorer(autoencoder, statistic)


def _train_mlp(job: Job, base: Trained) -> Trained:
    # Not at the top: it imports Keras.
    from training.train_mlp import train_mlp

    return train_mlp(job, base)


def _restore_mlp(autoencoder: Autoencoder, folder: RunFolder) -> Scorer:
    mlp = build_mlp()
    folder.load_weights("mlp", mlp)
    return mlp_scorer(autoencoder, mlp)


def _train_realnvp(job: Job, base: Trained) -> Trained:
    from training.train_realnvp import train_realnvp

    return train_realnvp(job, base)


def _restore_realnvp(autoencoder: Autoencoder, folder: RunFolder) -> Scorer:
    import_keras()  # quietly, before the module below does
    from training.realnvp import RealNVP

    flow = RealNVP(CODE_SIZE)
    folder.load_weights("realnvp", flow)
    return realnvp_scorer(autoencoder, flow)


def _train_exposure(job: Job, base: None) -> Trained:
    from training.train_exposure import train_exposure

    return train_exposure(job)


def _restore_exposure(autoencoder: None, folder: RunFolder) -> Scorer:
    from training.exposure import build_exposure_network

    network = build_exposure_network()
    folder.load_weights("exposure", network)
    return exposure_scorer(network)


SCORER_TABLE: Mapping[str, ScorerEntry] = {
    **{
        name: ScorerEntry(
            partial(_train_reconstruction, statistic), partial(_restore_reconstruction, statistic)
        )
        for name, statistic in RECONSTRUCTION_SCORERS.items()
    },
    "mlp": ScorerEntry(_train_mlp, _restore_mlp),
    "realnvp": ScorerEntry(_train_realnvp, _restore_realnvp),
    "realnvp-oe": ScorerEntry(_train_realnvp, _restore_realnvp),
    "outlier-exposure": ScorerEntry(_train_exposure, _restore_exposure, needs_autoencoder=False),
}
