"""A scorer that is not the package's own: how far a frame's mean colour is from that of the drive.

It shows what a scorer needs, and that one file is all it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from anomaly_detector.model.map_scale import MapScale
from training.fitting.run import ScoringFunction, TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.fitting.settings import FitResult
from training.networks.backend import import_keras
from training.scorers.base import Scorer


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


def train(run: TrainingRun, base: None) -> TrainingResult:
    network = build()
    colours, held_out = (
        run.frames.load(part).mean(axis=(1, 2)) for part in (run.split.train, run.split.validation)
    )
    mean = colours.mean(axis=0)
    network.set_weights([np.eye(3), -mean])
    losses = [float(np.square(part - mean).mean()) for part in (colours, held_out)]
    history = {"loss": losses[:1], "val_loss": losses[1:]}
    result = FitResult(history, best_epoch=1, best_loss=losses[1], trained=True)
    run.folder.trained(result)
    scorer = colour_scorer(network)
    return TrainingResult.of("colour", network, result, scorer, mean_colour=mean.tolist())


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
