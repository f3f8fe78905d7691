"""The threshold of an adapted model, from scores of frames that were held out.

Those of today are cross-fitted: each is from a network that was fine-tuned without the stretch of
the drive around it. Those of the past are the final network's, of frames that no network was
trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.calibration import EXTREME_VALUE, calibrate_threshold
from anomaly_detector.model.metadata import Calibration

Scores: TypeAlias = NDArray[np.float32]

_TAIL = 0.1
"""Share of the scores that an extreme-value distribution is fitted to."""


def _highest(parts: list[Scores], rate: float) -> tuple[float, Calibration]:
    found = [calibrate_threshold(part, rate) for part in parts if len(part)]
    return max(found, key=lambda item: item[0])


def each(today: Scores, past: Scores, rate: float) -> tuple[float, Calibration]:
    """Return the larger of today's threshold and that of the past."""
    return _highest([today, past], rate)


def pool(today: Scores, past: Scores, rate: float) -> tuple[float, Calibration]:
    """Return the larger of today's threshold and that of past and today in one.

    Where their levels differ, the one in one is the highest score: all high scores are neighbours
    then, and worth few independent ones.
    """
    return _highest([today, np.concatenate([past, today])], rate)


def today_alone(today: Scores, past: Scores, rate: float) -> tuple[float, Calibration]:
    """Return today's threshold."""
    return _highest([today], rate)


def last_quarter(today: Scores, past: Scores, rate: float) -> tuple[float, Calibration]:
    """Return the larger of the threshold of today's last quarter and that of the past."""
    return _highest([today[len(today) * 3 // 4 :], past], rate)


def extreme_value(today: Scores, past: Scores, rate: float) -> tuple[float, Calibration]:
    """Return the larger of what tails fitted to today's highest scores and to the past's give.

    The tail is a generalised Pareto distribution, by probability-weighted moments (Hosking and
    Wallis 1987): between and above few scores it is smoother than the scores themselves.
    """
    calibration = each(today, past, rate)[1]
    calibration = replace(calibration, method=EXTREME_VALUE, false_alarm_interval=None)
    return max(_pareto_quantile(part, rate) for part in (today, past) if len(part)), calibration


def _pareto_quantile(scores: Scores, rate: float) -> float:
    start = float(np.quantile(scores, 1 - max(_TAIL, rate)))
    above = np.sort(scores[scores > start].astype(np.float64)) - start
    if len(above) < 2:
        return float(np.nextafter(scores.max(), np.float32(np.inf)))
    weights = 1 - (np.arange(1, len(above) + 1) - 0.35) / len(above)
    first, second = above.mean(), (weights * above).mean()
    shape, scale = 2 - first / (first - 2 * second), 2 * first * second / (first - 2 * second)
    odds = len(above) / len(scores) / rate
    distance = np.log(odds) if abs(shape) < 1e-6 else (odds**shape - 1) / shape
    return float(start + scale * distance)


RULES: Mapping[str, Callable[[Scores, Scores, float], tuple[float, Calibration]]] = {
    "each": each,
    "pool": pool,
    "today": today_alone,
    "last-quarter": last_quarter,
    EXTREME_VALUE: extreme_value,
}
"""Ways of choosing: from today's and the past's scores in order of time, and the wanted rate."""

DEFAULT_RULE = "pool"
"""Of those that keep to the false-alarm bars of docs/detection-quality.md on ``carpet_loop`` and
``expo_track``, the one with the highest recall there."""
