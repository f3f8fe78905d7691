"""A scorer that is not the package's own: how far a frame's mean colour is from that of the drive.

It shows what a scorer needs, and that one file is all it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from anomaly_detector.model.map_scale import MapScale
from training.export.provenance import fit_summary
from training.fitting.backend import import_keras
from training.fitting.job import Job, Trained
from training.fitting.run_folder import RunFolder
from training.scorers.base import Scorer, ScoringFunction


def build() -> Any:
    """Build the network: from pixels [N, 64, 64, 3] to their differences from a colour."""
    keras = import_keras()
    return keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.Dense(3, name="difference")], name="colour"
    )


def colour_scorer(network: Any) -> ScoringFunction:
    ops = import_keras().ops

    def score(image: Any) -> dict[str, Any]:
        difference = network(ops.cast(image, "float32"), training=False)
        return {
            "score": ops.max(ops.abs(ops.mean(difference, axis=(1, 2))), axis=-1),
            "anomaly_map": ops.max(ops.abs(difference), axis=-1),
        }

    return score


def train(job: Job, base: None) -> Trained:
    from training.fitting.fit import FitResult  # it imports Keras

    network = build()
    colours, held_out = (
        job.frames.take(part).mean(axis=(1, 2)) for part in (job.split.train, job.split.validation)
    )
    mean = colours.mean(axis=0)
    network.set_weights([np.eye(3), -mean])
    losses = [float(np.square(part - mean).mean()) for part in (colours, held_out)]
    history = {"loss": losses[:1], "val_loss": losses[1:]}
    result = FitResult(history, best_epoch=1, best_loss=losses[1], trained=True)
    job.folder.trained(result)
    return Trained(
        None,
        colour_scorer(network),
        networks={"colour": network},
        metrics={"validation_loss": result.best_loss, "mean_colour": mean.tolist()},
        histories={"colour": result.history},
        provenance={"colour": fit_summary(result)},
    )


def restore(autoencoder: None, folder: RunFolder) -> ScoringFunction:
    network = build()
    folder.load_weights("colour", network)
    return colour_scorer(network)


SCORER = Scorer(
    "colour",
    "how far the mean colour is from that of the drive",
    "grey levels (0..255)",
    train,
    restore,
    options=frozenset(),
    architecture="mean-colour",
    chooses_epoch=False,
    maximum=255.0,
    map_scale=lambda threshold, scale: MapScale(threshold, 255.0),
)
