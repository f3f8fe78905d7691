"""A scorer that is not the package's own: how far a frame's mean colour is from that of the drive.

It shows what a scorer needs, and that one file is all it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from anomaly_detector.map_scale import MapScale
from training.backend import import_keras
from training.job import Job, Trained
from training.run_folder import RunFolder
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
    network = build()
    mean = job.frames.take(job.split.train).mean(axis=(0, 1, 2), dtype=np.float64)
    network.set_weights([np.eye(3), -mean])
    return Trained(
        None,
        colour_scorer(network),
        networks={"colour": network},
        metrics={"mean_colour": mean.tolist()},
        histories={},
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
