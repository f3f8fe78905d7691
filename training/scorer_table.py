"""How each scorer is trained on top of an autoencoder, and how it is rebuilt from saved weights.

A new scorer needs an entry here and one in :data:`training.options.SCORERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from training.architectures import Autoencoder
from training.job import Job, Trained
from training.scorers import (
    RECONSTRUCTION_SCORERS,
    Scorer,
    build_mlp,
    mlp_scorer,
    reconstruction_scorer,
)

if TYPE_CHECKING:
    from training.run_folder import RunFolder

__all__ = ["SCORER_TABLE", "ScorerEntry"]


@dataclass(frozen=True)
class ScorerEntry:
    """The two ways to a scoring function.

    Attributes:
        train: from the job and the trained autoencoder with its reconstruction scorer.
        restore: from an autoencoder that has its weights and the folder with the others.
    """

    train: Callable[[Job, Trained], Trained]
    restore: Callable[[Autoencoder, RunFolder], Scorer]


def _keep(job: Job, base: Trained) -> Trained:
    return base


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


SCORER_TABLE: Mapping[str, ScorerEntry] = {
    **{
        name: ScorerEntry(_keep, partial(_restore_reconstruction, statistic))
        for name, statistic in RECONSTRUCTION_SCORERS.items()
    },
    "mlp": ScorerEntry(_train_mlp, _restore_mlp),
}
