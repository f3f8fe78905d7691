"""How each scorer is trained on top of an autoencoder, and how it is rebuilt from saved weights.

A new scorer needs an entry here and one in :data:`training.options.SCORERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly_detector.map_scale import MapScale
from anomaly_detector.metadata import ModelMetadata
from anomaly_detector.normalization import normalization_scale
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

__all__ = ["SCORER_TABLE", "ScorerEntry", "with_scorer_facts"]


@dataclass(frozen=True)
class ScorerEntry:
    """The two ways to a scoring function.

    Attributes:
        train: from the job and the trained autoencoder with its reconstruction scorer, or None
            when the scorer needs no autoencoder.
        restore: from an autoencoder that has its weights, or None, and the folder with the others.
        needs_autoencoder: the scorer stands on an autoencoder.
        maximum: the largest possible score; None where it has no upper end.
        map_scale: which values of its maps are shown as heat, from the threshold and the scale of
            the normalised score. Without one heat is relative to the frame's highest cell: maps of
            gradient times activation show directions and have no unit.
    """

    train: Callable[[Job, Any], Trained]
    restore: Callable[[Any, RunFolder], Scorer]
    needs_autoencoder: bool = True
    maximum: float | None = None
    map_scale: Callable[[float, float], MapScale] = lambda threshold, scale: MapScale(0.0, None)


def with_scorer_facts(metadata: ModelMetadata) -> ModelMetadata:
    """Return metadata that say what the robot needs to know of the scorer."""
    entry = SCORER_TABLE[metadata.scorer]
    metadata = replace(metadata, score_maximum=entry.maximum)
    scale = float(normalization_scale(metadata))
    return replace(metadata, map_scale=entry.map_scale(metadata.threshold, scale))


def _error_map_scale(statistic: str, threshold: float, scale: float) -> MapScale:
    """Return the scale of maps of the error at each pixel.

    Single pixels at edges and lights have high errors in normal frames too, so they are averaged
    over 5x5 pixels. The score is the error's mean or 99th percentile over the frame: heat starts
    at twice the threshold of a mean or at the threshold of a percentile, and is full at four times
    that.
    """
    if threshold <= 0:
        return MapScale(0.0, None)
    low = threshold if statistic == "q99" else 2.0 * threshold
    return MapScale(low, 4.0 * low, window=5, follows_threshold=True)


def _odds_map_scale(threshold: float, scale: float) -> MapScale:
    """Return the scale of maps of log(1 + odds).

    A frame is flagged when its cells alone have log-odds at the threshold: heat starts at half the
    map value that these have, and is full where the cells alone would give a normalised score of
    0.75. But a cell that is rather anomalous than not shows heat whatever the threshold, and one
    of 19 to 1 shows all of it: much of the score may come from the frame as a whole, and then no
    cell alone reaches a high threshold.
    """
    low, high = np.logaddexp(0.0, [threshold, threshold + scale])
    return MapScale(min(0.5 * float(low), math.log(2.0)), min(float(high), math.log(20.0)))


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
            partial(_train_reconstruction, statistic),
            partial(_restore_reconstruction, statistic),
            map_scale=partial(_error_map_scale, statistic),
        )
        for name, statistic in RECONSTRUCTION_SCORERS.items()
    },
    "mlp": ScorerEntry(_train_mlp, _restore_mlp, maximum=1.0),
    "realnvp": ScorerEntry(_train_realnvp, _restore_realnvp),
    "realnvp-oe": ScorerEntry(_train_realnvp, _restore_realnvp),
    "outlier-exposure": ScorerEntry(
        _train_exposure, _restore_exposure, needs_autoencoder=False, map_scale=_odds_map_scale
    ),
}
