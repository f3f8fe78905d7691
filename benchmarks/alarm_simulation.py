"""Simulate correlated normal scores, for the two tables in docs/threshold-and-alarms.md.

    python -m benchmarks.alarm_simulation

Scores are a first-order autoregressive Gaussian process, so that the true false-alarm rate of any
threshold is known.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import norm

from anomaly_detector.alarms.alarm_filter import AlarmFilter, AlarmSettings
from anomaly_detector.alarms.calibration import calibrate_threshold, false_alarm_interval
from anomaly_detector.model.normalization import normalize_scores
from anomaly_detector.scoring.stream import ScoredFrame
from benchmarks.common import print_table

RATE = 0.01
MINUTES = 30
DRIVES = 400
CALIBRATIONS = (
    *((0, 120), (0, 1200), (0.8, 1200)),
    *((0.95, 240), (0.95, 1200), (0.95, 6000), (0.99, 6000)),
)
"""Correlation of neighbours, and number of frames."""
CAMERAS = (
    *((30, 0.0), (30, 0.1), (30, 0.5), (30, 1.0)),
    *((20, 0.1), (20, 0.5), (20, 1.0)),
)
"""Frame rate, and seconds over which scores are correlated."""
SETTINGS = {
    "single frames": AlarmSettings(mode="off"),
    "3 of 5": AlarmSettings(raise_frames=3, raise_window_frames=5, immediate_level=1.0),
    "6 of 10 (default)": AlarmSettings(immediate_level=1.0),
    "10 of 15": AlarmSettings(raise_frames=10, raise_window_frames=15, immediate_level=1.0),
}


def scores(generator: np.random.Generator, count: int, correlation: float) -> NDArray[np.float32]:
    """Return float32 [count], standard normal, with this correlation of neighbours."""
    noise = generator.standard_normal(count + 1000) * math.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise)[1000:], np.float32)


def calibration_row(generator: np.random.Generator, count: int, correlation: float) -> list[str]:
    """Return the cells of the first table for simulated drives.

    The median effective number of frames, the mean of the true false-alarm rate, and the shares of
    drives whose true rate lies in the interval, is no higher than its upper end, and lies in the
    interval of as many independent frames.
    """
    independent = false_alarm_interval(count, RATE)
    frames, rates, inside, below, as_if_independent = [], [], [], [], []
    for _ in range(DRIVES):
        threshold, calibration = calibrate_threshold(scores(generator, count, correlation), RATE)
        assert calibration.false_alarm_interval is not None
        low, high = calibration.false_alarm_interval
        rate = float(norm.sf(threshold))
        assert calibration.effective_frames is not None
        frames.append(calibration.effective_frames)
        rates.append(rate)
        inside.append(low <= rate <= high)
        below.append(rate <= high)
        as_if_independent.append(independent[0] <= rate <= independent[1])
    shares = (f"{np.mean(held):.0%}" for held in (inside, below, as_if_independent))
    return [f"{np.median(frames):.0f}", f"{np.mean(rates):.2%}", *shares]


_NO_PICTURE = np.empty((0, 0, 3), np.uint8)


def alarms_per_minute(values: NDArray[np.float32], fps: float, settings: AlarmSettings) -> float:
    """Return the alarms that a filter raises on normal scores, a minute."""
    threshold = float(norm.isf(RATE))
    normalized = normalize_scores(values, np.float32(threshold), np.float32(threshold))
    alarms = AlarmFilter(settings)
    raised = 0
    for index, (score, level) in enumerate(zip(values.tolist(), normalized.tolist(), strict=True)):
        stamp = round(index * 1e9 / fps)
        frame = ScoredFrame("", stamp, stamp, score, level, score >= threshold, _NO_PICTURE)
        raised += alarms.update(frame, stamp_ns=stamp).started
    return raised / MINUTES


def alarm_row(generator: np.random.Generator, fps: int, seconds: float) -> list[str]:
    """Return the cells of the second table for one camera."""
    correlation = math.exp(-1 / (seconds * fps)) if seconds else 0.0
    values = scores(generator, 60 * MINUTES * fps, correlation)
    return [f"{alarms_per_minute(values, fps, setting):.2f}" for setting in SETTINGS.values()]


def main() -> None:
    """Print both tables."""
    generator = np.random.default_rng(0)
    print_table(
        (
            *("Correlation of neighbours", "Frames", "Effective", "False-alarm rate"),
            *("In the interval", "Not above it", "In the interval of independent frames"),
        ),
        (
            (f"{correlation:g}", str(count), *calibration_row(generator, count, correlation))
            for correlation, count in CALIBRATIONS
        ),
    )
    print()
    print_table(
        ("Frame rate", "Correlated over", *SETTINGS),
        (
            (f"{fps} Hz", f"{s:g} s" if s else "independent", *alarm_row(generator, fps, s))
            for fps, s in CAMERAS
        ),
    )


if __name__ == "__main__":
    main()
