"""Thresholds from the scores of normal frames (split conformal prediction)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.metadata import Calibration

__all__ = ["QUANTILES", "calibrate_threshold", "score_quantiles"]

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
"""Probabilities whose score quantiles a model file carries."""


def calibrate_threshold(
    scores: NDArray[np.float32], false_alarm_rate: float
) -> tuple[float, Calibration]:
    """Give the threshold that a wanted share of new normal frames reaches.

    Split conformal prediction: with n exchangeable normal scores, a new one lies above the
    ceil((n + 1)(1 - rate))-th smallest with a probability of at most ``rate``. With fewer than
    1 / rate - 1 frames no threshold can promise that; the largest score is taken.

    Args:
        scores: float32 [n], of normal frames that the model was not trained on.
        false_alarm_rate: wanted share, between 0 and 1.

    Returns:
        The threshold (a frame is flagged when ``score >= threshold``; it is the next float32
        above the chosen score, so that the chosen frame itself is not flagged) and where it
        comes from.

    Raises:
        AnomalyDetectorError: no scores, scores that are not finite, or a rate outside (0, 1).
    """
    if not 0.0 < false_alarm_rate < 1.0:
        raise AnomalyDetectorError(
            f"false alarm rate is {false_alarm_rate}: give a share between 0 and 1, such as 0.01"
        )
    if scores.size == 0 or not np.isfinite(scores).all():
        raise AnomalyDetectorError(
            f"{scores.size} scores with {np.count_nonzero(~np.isfinite(scores))} not finite cannot "
            "give a threshold: calibrate on normal frames"
        )
    ordered = np.sort(scores.astype(np.float32))
    rank = math.ceil((len(ordered) + 1) * (1.0 - false_alarm_rate))
    chosen = ordered[min(rank, len(ordered)) - 1]
    threshold = float(np.nextafter(chosen, np.float32(np.inf)))
    calibration = Calibration(
        method="split-conformal",
        false_alarm_rate=false_alarm_rate,
        frames=len(ordered),
        quantiles=score_quantiles(ordered),
    )
    return threshold, calibration


def score_quantiles(scores: NDArray[np.float32]) -> dict[str, float]:
    """Give the quantiles of :data:`QUANTILES`, probability as text to score."""
    return {str(q): float(np.quantile(scores.astype(np.float64), q)) for q in QUANTILES}
