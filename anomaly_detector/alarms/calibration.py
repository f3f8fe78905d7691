"""Thresholds from the scores of normal frames (split conformal prediction).

With n exchangeable normal scores, the share of new normal frames above the k-th smallest follows a
Beta(n + 1 - k, k) distribution (Vovk 2012, "Conditional validity of inductive conformal
predictors"). Its mean is what the small-sample correction fixes; its spread is how far one
calibration may be off.

Consecutive frames of a drive are not exchangeable: neighbours show the same place, and n frames
tell less than n independent ones. So both the rank of the threshold and the interval are those of
an effective number of frames, n divided by the integrated autocorrelation time of "the score is
among the highest tenth". ``python -m benchmarks.alarm_simulation`` measures how well that holds;
its table is in docs/threshold-and-alarms.md.

The block bootstrap falls short because a resample never exceeds the highest score seen, so it is
not offered. No interval covers another season, camera or lighting: recalibrate for these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.metadata import Calibration

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
"""Probabilities whose score quantiles a model file carries."""

EXTREME_VALUE = "extreme-value"
"""Method of a threshold that is extrapolated from the highest scores; nothing is promised of it."""

INTERVAL_LEVEL = 0.95
"""Probability that the interval of the false-alarm rate holds the true one."""

_TAIL = 0.1
"""Share of the frames whose clustering in time gives the effective number of frames."""


def calibrate_threshold(
    scores: NDArray[np.float32], false_alarm_rate: float
) -> tuple[float, Calibration]:
    """Return the threshold that a wanted share of new normal frames reaches.

    Split conformal prediction: with m independent normal scores, a new one lies above their
    quantile (1 + 1/m)(1 - rate) with a probability of at most ``rate``. Here m is the effective
    number of the n frames, and the quantile the same part of the n scores. With fewer than
    :func:`frames_needed` no threshold can promise the rate: the largest score is taken, and the
    interval says what that means.

    Args:
        scores: float32 [n], of normal frames that the model was not trained on, in the order in
            which they were recorded.
        false_alarm_rate: wanted share, between 0 and 1.

    Returns:
        The threshold (a frame is anomalous when ``score >= threshold``; it is the next float32
        above the chosen score, so that the chosen frame itself is not) and where it comes from.

    Raises:
        AnomalyDetectorError: no scores, scores that are not finite, or a rate outside (0, 1).
    """
    check_false_alarm_rate(false_alarm_rate)
    if scores.size == 0 or not np.isfinite(scores).all():
        raise AnomalyDetectorError(
            f"{scores.size} scores with {np.count_nonzero(~np.isfinite(scores))} not finite cannot "
            "give a threshold: calibrate on normal frames"
        )
    ordered = np.sort(scores.astype(np.float32))
    independent = effective_frames(scores, false_alarm_rate)
    below = (independent + 1 - _tail_count(independent, false_alarm_rate)) / independent
    # 1e-9: the product is meant to be exact for rates such as 0.1.
    chosen = ordered[math.ceil(len(ordered) * below - 1e-9) - 1]
    threshold = float(np.nextafter(chosen, np.float32(np.inf)))
    calibration = Calibration(
        method="split-conformal",
        false_alarm_rate=false_alarm_rate,
        frames=len(ordered),
        quantiles=score_quantiles(ordered),
        effective_frames=independent,
        false_alarm_interval=false_alarm_interval(independent, false_alarm_rate),
    )
    return threshold, calibration


def check_false_alarm_rate(rate: float) -> None:
    """Refuse a share of frames that no threshold can flag.

    Raises:
        AnomalyDetectorError: it is outside (0, 1).
    """
    if not 0.0 < rate < 1.0:
        raise AnomalyDetectorError(f"false alarm rate is {rate}: give a share such as 0.01")


def score_quantiles(scores: NDArray[np.float32]) -> dict[str, float]:
    """Return the quantiles of :data:`QUANTILES`, probability as text to score."""
    return {str(q): float(np.quantile(scores.astype(np.float64), q)) for q in QUANTILES}


def effective_frames(scores: NDArray[np.float32], false_alarm_rate: float = 0.01) -> int:
    """Return the number of independent frames that tell as much about the tail as these frames.

    That is n divided by the integrated autocorrelation time, with the sum over lags cut by the
    initial positive sequence of Geyer (1992, "Practical Markov chain Monte Carlo").

    Args:
        scores: float32 [n], in the order of recording. Borders between blocks or recordings are
            taken for neighbours, which matters little while blocks are long.
        false_alarm_rate: for a rate above one tenth the tail is that share of the frames.

    Returns:
        From 1 to n.
    """
    count = len(scores)
    limit = np.quantile(scores.astype(np.float64), 1.0 - max(_TAIL, false_alarm_rate))
    tail = (scores > limit).astype(np.float64)
    tail -= tail.mean()
    # Zero-padded to twice the length: the transform's correlation is circular.
    spectrum = np.fft.rfft(tail, 2 * count)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum), 2 * count)[:count]
    if covariance[0] <= 0.0:  # all scores are equal: as good as one frame
        return 1
    correlation = covariance / covariance[0]
    pairs = correlation[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0.0)
    kept = pairs[: ends[0]] if ends.size else pairs
    time = max(1.0, 2.0 * float(kept.sum()) - 1.0)
    return max(1, int(count / time))


def false_alarm_interval(frames: int, false_alarm_rate: float) -> tuple[float, float]:
    """Return the 95 % interval of the true false-alarm rate at a calibrated threshold.

    It follows from the number of independent calibration frames and the rate that was wanted.
    """
    tail = _tail_count(frames, false_alarm_rate)
    outside = (1.0 - INTERVAL_LEVEL) / 2
    low, high = _beta_quantiles(tail, frames + 1 - tail, (outside, 1.0 - outside))
    return low, high


def rate_interval(rate: float, frames: int) -> tuple[float, float]:
    """Return the 95 % interval of a share measured on so many independent frames.

    It is that of the posterior of a uniform prior, widened to hold the share itself.
    """
    hits = rate * frames
    outside = (1.0 - INTERVAL_LEVEL) / 2
    low, high = _beta_quantiles(hits + 1, frames - hits + 1, (outside, 1.0 - outside))
    return (min(low, rate) if hits > 0 else 0.0), (max(high, rate) if hits < frames else 1.0)


def frames_needed(false_alarm_rate: float) -> int:
    """Return the number of independent frames below which no threshold can promise a rate."""
    return math.ceil(1.0 / false_alarm_rate - 1e-9) - 1


def calibration_shortfall(calibration: Calibration) -> str | None:
    """Say what a calibration lacks to promise its rate; None when it does."""
    rate, frames = calibration.false_alarm_rate, calibration.effective_frames
    if rate is None or frames is None or frames >= frames_needed(rate):
        return None
    is_extrapolated = calibration.method == EXTREME_VALUE
    what = "is extrapolated from the highest scores" if is_extrapolated else "is the highest score"
    return (
        f"{frames} independent frames are too few for a false-alarm rate of {rate:g}, which takes "
        f"{frames_needed(rate)}: the threshold {what}; record a longer drive"
    )


def describe_calibration(threshold: float, calibration: Calibration) -> str:
    """Say in one line what a threshold promises."""
    if calibration.false_alarm_rate is None:
        return f"threshold {threshold:.6g} ({calibration.method})"
    wanted = f"for a false-alarm rate of {calibration.false_alarm_rate:.3g}"
    source = (
        f"from {calibration.frames} frames worth {calibration.effective_frames} independent ones"
    )
    if calibration.false_alarm_interval is None:
        return f"threshold {threshold:.6g} {wanted} ({calibration.method}, {source})"
    low, high = calibration.false_alarm_interval
    if calibration_shortfall(calibration):
        wanted = f"is the highest normal score, too few frames {wanted}"
    return f"threshold {threshold:.6g} {wanted} (95 % interval {low:.2g} to {high:.2g}, {source})"


def _tail_count(frames: int, false_alarm_rate: float) -> float:
    """Return how many of the ``frames + 1`` intervals that scores make lie above the threshold.

    It need not be a whole number; 1 where only the largest score will do.
    """
    return min(frames, max(1.0, (frames + 1) * false_alarm_rate))


def _beta_quantiles(a: float, b: float, probabilities: Sequence[float]) -> list[float]:
    """Return quantiles of a Beta(a, b) distribution, a and b of 1 or more, by integration."""
    # Cubes lie close where the distribution of a small rate does.
    x = np.linspace(0.0, 1.0, 100_001)[1:-1] ** 3
    logs = (a - 1.0) * np.log(x) + (b - 1.0) * np.log1p(-x)
    density = np.exp(logs - logs.max())
    cumulated = np.cumsum((density[1:] + density[:-1]) * np.diff(x))
    return [float(np.interp(p, cumulated / cumulated[-1], x[1:])) for p in probabilities]
