"""Scorer ``outlier-exposure``, the default: trained on a normal drive and outliers made from it.

``outlier-exposure-pretrained`` is the same on a pretrained encoder.
``outliers`` makes the outliers, ``network`` looks at frames, ``training`` fits it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from anomaly_detector.model.map_scale import MapScale
from training.fitting.run import ScoringFunction, TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.networks.backend import import_keras
from training.scorers.base import Scorer
from training.scorers.outlier_exposure.batches import ALL_PARTS, HIGHEST_CELLS, ExposureParts

_PRETRAINED = "unet-efficientnet-lite0"
"""Architecture with the pretrained encoder."""


def exposure_scorer(network: Any) -> ScoringFunction:
    """Score by the discriminative network: the frame's log-odds joined with those of its cells.

    Either of the two is enough to raise the score: log(exp(frame) + exp(cells)), where *cells* is
    the mean of the four highest log-odds of the map (one hot cell may be noise). The anomaly map
    [N, 32, 32] is log(1 + odds) of each cell, which is 0 where nothing is found and does not
    saturate where much is.
    """
    ops = import_keras().ops

    def score(image: Any) -> dict[str, Any]:
        answers = network(ops.cast(image, "float32"), training=False)
        cells = ops.reshape(answers["map"], (-1, answers["map"].shape[1] * answers["map"].shape[2]))
        highest = ops.mean(ops.top_k(cells, HIGHEST_CELLS)[0], axis=-1)
        return {
            "score": _log_sum(ops, answers["frame"][:, 0], highest),
            "anomaly_map": _log_sum(ops, answers["map"], ops.zeros_like(answers["map"])),
        }

    return score


def _log_sum(ops: Any, first: Any, second: Any) -> Any:
    """Return log(exp(first) + exp(second)), in operators that ONNX has."""
    return ops.maximum(first, second) + ops.log(1.0 + ops.exp(-ops.abs(first - second)))


def _map_scale(threshold: float, scale: float) -> MapScale:
    """Return the scale of maps of log(1 + odds).

    A frame is flagged when its cells alone have log-odds at the threshold: heat starts at half the
    map value that these have, and is full where the cells alone would give a normalised score of
    0.75. But a cell that is rather anomalous than not shows heat whatever the threshold, and one
    of 19 to 1 shows all of it: much of the score may come from the frame as a whole, and then no
    cell alone reaches a high threshold.
    """
    low, high = np.logaddexp(0.0, [threshold, threshold + scale])
    return MapScale(min(0.5 * float(low), math.log(2.0)), min(float(high), math.log(20.0)))


def train_exposure(
    run: TrainingRun, base: None = None, parts: ExposureParts = ALL_PARTS
) -> TrainingResult:
    """Train the scorer of a run, perhaps without some of its parts.

    Args:
        run: the run.
        base: there is no autoencoder.
        parts: what the training consists of.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    # Not at the top: it imports Keras.
    from training.scorers.outlier_exposure.training import fit_exposure

    pretrained = run.options.architecture == _PRETRAINED
    network, result = fit_exposure(run, parts, pretrained=pretrained)
    run.folder.trained(result)
    return TrainingResult.of("exposure", network, result, exposure_scorer(network))


def _restore(autoencoder: None, folder: RunFolder) -> ScoringFunction:
    from training.scorers.outlier_exposure.network import build_exposure_network

    metadata = folder.metadata()
    pretrained = metadata.architecture == _PRETRAINED
    network = build_exposure_network(metadata.input_size, pretrained=pretrained)
    folder.load_weights("exposure", network)
    return exposure_scorer(network)


_DEFAULT = Scorer(
    "outlier-exposure",
    "a small network that separates normal frames from outliers made of them",
    "log-odds that the frame is not a normal one",
    train_exposure,
    _restore,
    frozenset({"anomalies", "exposure_epochs", "exposure_steps"}),
    architecture="unet",
    chooses_epoch=False,
    map_scale=_map_scale,
    adapts=True,
)

SCORERS = (
    _DEFAULT,
    replace(
        _DEFAULT,
        name="outlier-exposure-pretrained",
        description="the same on a frozen EfficientNet-Lite0 with ImageNet weights, for other days",
        architecture=_PRETRAINED,
        input_size=128,
    ),
)
