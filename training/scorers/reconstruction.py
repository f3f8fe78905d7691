"""Scorers by the reconstruction error, of three statistics (thesis 5.4)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.map_scale import MapScale
from training.fitting.run import ScoringFunction, TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.networks.autoencoders import Autoencoder
from training.networks.backend import import_keras
from training.scorers.base import Scorer

_GREY_LEVELS = "grey levels (0..255)"
_STATISTICS = ("mse", "mae", "q99")
_QUANTILE = 0.99


def reconstruction_scorer(autoencoder: Autoencoder, statistic: str = "mse") -> ScoringFunction:
    """Score by the reconstruction error.

    The anomaly map is the error of each pixel, mean over the channels: [N, 64, 64]. Errors are in
    the units of ``autoencoder.target``.

    Args:
        autoencoder: trained.
        statistic: how the map becomes the score. ``mse`` is the mean of squared errors
            (thesis 5.13); ``mae`` that of absolute errors, in which a few very wrong pixels count
            less; ``q99`` the 99th percentile of the pixels' squared errors (between two pixels,
            linear), to which a hazard that covers more than a hundredth of the frame contributes
            as much as a large one, where the mean hardly notices it (thesis 5.4).

    Raises:
        AnomalyDetectorError: unknown statistic.
    """
    if statistic not in _STATISTICS:
        raise AnomalyDetectorError(
            f"statistic {statistic!r} of the reconstruction error is not known: "
            f"choose one of {', '.join(_STATISTICS)}"
        )
    ops = import_keras().ops

    def score(image: Any) -> dict[str, Any]:
        pixels = ops.cast(image, "float32")
        latent = autoencoder.encoder(pixels, training=False)
        error = autoencoder.target(pixels) - autoencoder.decoder(latent, training=False)
        error = ops.abs(error) if statistic == "mae" else ops.square(error)
        anomaly_map = ops.mean(error, axis=-1)
        if statistic == "q99":
            value = _quantile(ops, anomaly_map, _QUANTILE)
        else:
            value = ops.mean(anomaly_map, axis=(1, 2))
        return {"score": value, "anomaly_map": anomaly_map, "code": latent}

    return score


def _quantile(ops: Any, values: Any, probability: float) -> Any:
    """Return the quantile of each frame's map [N, H, W], as ``numpy.quantile`` does.

    Made of TopK, since ONNX has no quantile.
    """
    count = values.shape[1] * values.shape[2]
    position = (1.0 - probability) * (count - 1)
    above = int(position)
    weight = position - above
    largest, _ = ops.top_k(ops.reshape(values, (-1, count)), above + 2)
    return (1.0 - weight) * largest[:, above] + weight * largest[:, above + 1]


def map_scale(statistic: str, threshold: float, scale: float) -> MapScale:
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


def _train(statistic: str, run: TrainingRun, base: TrainingResult) -> TrainingResult:
    # The autoencoder is all there is to train; it may have been trained for another scorer.
    autoencoder = base.autoencoder
    assert autoencoder is not None  # this scorer stands on one
    return replace(base, scorer=reconstruction_scorer(autoencoder, statistic))


def _restore(statistic: str, autoencoder: Autoencoder, folder: RunFolder) -> ScoringFunction:
    return reconstruction_scorer(autoencoder, statistic)


def _scorer(name: str, description: str, statistic: str, unit: str) -> Scorer:
    # The networks that see the standardised image reconstruct that one.
    standardized = unit.replace(_GREY_LEVELS, "standard deviations of the image's channels")
    return Scorer(
        name,
        description,
        unit,
        partial(_train, statistic),
        partial(_restore, statistic),
        standardized_unit=standardized,
        map_scale=partial(map_scale, statistic),
    )


SCORERS = (
    _scorer(
        "reconstruction",
        "mean squared reconstruction error of an autoencoder (thesis 5.13)",
        "mse",
        f"squared {_GREY_LEVELS}, mean over pixels and channels",
    ),
    _scorer(
        "reconstruction-mae",
        "mean absolute reconstruction error",
        "mae",
        f"{_GREY_LEVELS}, mean over pixels and channels",
    ),
    _scorer(
        "reconstruction-q99",
        "99th percentile of the pixels' squared errors",
        "q99",
        f"squared {_GREY_LEVELS}, 99th percentile of the pixels",
    ),
)
