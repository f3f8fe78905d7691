"""Thresholds from the scores of normal frames (split conformal prediction).

With n exchangeable normal scores, the share of new normal frames above the k-th smallest follows a
Beta(n + 1 - k, k) distribution (Vovk 2012, "Conditional validity of inductive conformal
predictors"). Its mean is what the small-sample correction fixes; its spread is how far one
calibration may be off.

Consecutive frames of a drive are not exchangeable: neighbours show the same place. The threshold
stays right on average over long calibration drives, but n frames tell less than n independent ones.
So the interval is computed for an effective number of frames, n divided by the integrated
autocorrelation time of "the score is among the highest tenth". Simulated first-order
autoregressive scores (500 drives each, wanted rate 1 %) gave these shares of drives whose 95 %
interval held the true rate:

===========  ======  ===========  ================  ===============
correlation  frames  independent  effective frames  block bootstrap
===========  ======  ===========  ================  ===============
0            1200    0.97         0.97              0.95
0.8          1200    0.77         0.95              0.86
0.95          240    0.49         0.86              0.72
0.95         1200    0.45         0.94              0.77
0.95         6000    0.45         0.96              0.85
===========  ======  ===========  ================  ===============

The block bootstrap falls short because a resample never exceeds the highest score seen, so it is
not offered. No interval covers another season, camera or lighting: recalibrate for these.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.metadata import Calibration

__all__ = [
    "INTERVAL_LEVEL",
    "QUANTILES",
    "calibrate_threshold",
    "describe_calibration",
    "effective_frames",
    "false_alarm_interval",
    "score_quantiles",
]

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
"""Probabilities whose score quantiles a model file carries."""

INTERVAL_LEVEL = 0.95
"""Probability that the interval of the false-alarm rate holds the true one."""

_TAIL = 0.1
"""Share of the frames whose clustering in time gives the effective number of frames."""


def calibrate_threshold(
    scores: NDArray[np.float32], false_alarm_rate: float
) -> tuple[float, Calibration]:
    """Give the threshold that a wanted share of new normal frames reaches.

    Split conformal prediction: with n exchangeable normal scores, a new one lies above the
    ceil((n + 1)(1 - rate))-th smallest with a probability of at most ``rate``. With fewer than
    1 / rate - 1 frames no threshold can promise that; the largest score is taken, and the
    interval says what that means.

    Args:
        scores: float32 [n], of normal frames that the model was not trained on, in the order in
            which they were recorded.
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
    chosen = ordered[_rank(len(ordered), false_alarm_rate) - 1]
    threshold = float(np.nextafter(chosen, np.float32(np.inf)))
    independent = effective_frames(scores, false_alarm_rate)
    calibration = Calibration(
        method="split-conformal",
        false_alarm_rate=false_alarm_rate,
        frames=len(ordered),
        quantiles=score_quantiles(ordered),
        effective_frames=independent,
        false_alarm_interval=false_alarm_interval(independent, false_alarm_rate),
    )
    return threshold, calibration


def score_quantiles(scores: NDArray[np.float32]) -> dict[str, float]:
    """Give the quantiles of :data:`QUANTILES`, probability as text to score."""
    return {str(q): float(np.quantile(scores.astype(np.float64), q)) for q in QUANTILES}


def effective_frames(scores: NDArray[np.float32], false_alarm_rate: float = 0.01) -> int:
    """Give the number of independent frames that tell as much about the tail as these frames.

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
    """Give the 95 % interval of the true false-alarm rate at a calibrated threshold.

    Args:
        frames: number of independent calibration frames.
        false_alarm_rate: the rate that was wanted.

    Returns:
        Lower and upper end, shares of normal frames.
    """
    rank = _rank(frames, false_alarm_rate)
    outside = (1.0 - INTERVAL_LEVEL) / 2
    low, high = (
        _beta_quantile(frames + 1 - rank, rank, probability)
        for probability in (outside, 1.0 - outside)
    )
    return low, high


def describe_calibration(threshold: float, calibration: Calibration) -> str:
    """Say in one line what a threshold promises."""
    if calibration.false_alarm_rate is None or calibration.false_alarm_interval is None:
        return f"threshold {threshold:.6g} ({calibration.method})"
    low, high = calibration.false_alarm_interval
    return (
        f"threshold {threshold:.6g} for a false-alarm rate of {calibration.false_alarm_rate:.3g} "
        f"(95 % interval {low:.2g} to {high:.2g}, from {calibration.frames} frames worth "
        f"{calibration.effective_frames} independent ones)"
    )


def _rank(frames: int, false_alarm_rate: float) -> int:
    # 1e-9: (n + 1)(1 - rate) is meant to be exact for rates such as 0.1.
    return min(frames, max(1, math.ceil((frames + 1) * (1.0 - false_alarm_rate) - 1e-9)))


def _beta_quantile(a: int, b: int, probability: float) -> float:
    """Give the quantile of a Beta(a, b) distribution of integer parameters, by bisection.

    P(Beta(a, b) <= x) is the probability of ``a`` or more successes in ``a + b - 1`` trials.
    """
    trials = a + b - 1
    successes = np.arange(a)
    log_binomials = np.array(
        [
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            for k in range(a)
        ]
    )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        logs = log_binomials + successes * math.log(middle)
        logs += (trials - successes) * math.log1p(-middle)
        if 1.0 - float(np.exp(logs).sum()) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2
