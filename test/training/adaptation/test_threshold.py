"""The threshold of an adapted model."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_detector.alarms.calibration import calibrate_threshold, describe_calibration
from anomaly_detector.errors import AnomalyDetectorError
from training.adaptation.threshold import DEFAULT_RULE, RULES

NONE = np.zeros(0, np.float32)


def scores(mean: float, count: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, count).astype(np.float32)


def test_the_larger_of_todays_and_the_pasts_is_the_threshold() -> None:
    low, high = scores(0), scores(3, seed=1)
    rule = RULES["each"]
    assert rule(high, low, 0.01) == calibrate_threshold(high, 0.01)
    assert rule(low, high, 0.01) == calibrate_threshold(high, 0.01)
    assert rule(low, NONE, 0.01) == calibrate_threshold(low, 0.01)
    default = RULES[DEFAULT_RULE]
    assert default(low, NONE, 0.01)[0] < default(low, high, 0.01)[0] <= high.max() + 1


def test_other_rules() -> None:
    low, high = scores(0), scores(3, seed=1)
    both = np.concatenate([high, low])
    assert RULES["pool"](low, high, 0.01) == calibrate_threshold(both, 0.01)
    assert RULES["pool"](low, NONE, 0.01) == calibrate_threshold(low, 0.01)
    assert RULES["today"](low, high, 0.01) == calibrate_threshold(low, 0.01)
    rising = np.sort(low)
    assert RULES["last-quarter"](rising, NONE, 0.1) == calibrate_threshold(rising[300:], 0.1)


@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_tail_of_known_distributions(rate: float) -> None:
    generator = np.random.default_rng(2)
    uniform = generator.uniform(0, 1, 5000).astype(np.float32)
    assert RULES["extreme-value"](uniform, NONE, rate)[0] == pytest.approx(1 - rate, abs=0.004)
    exponential = generator.exponential(1, 5000).astype(np.float32)
    expected = pytest.approx(-np.log(rate), rel=0.12)
    threshold, calibration = RULES["extreme-value"](exponential, NONE, rate)
    assert threshold == expected
    assert (calibration.method, calibration.frames) == ("extreme-value", 5000)
    assert "for a false-alarm rate of" in describe_calibration(threshold, calibration)


def test_tail_of_hardly_any_scores_is_above_them() -> None:
    few = np.array([1, 1, 1], np.float32)
    assert RULES["extreme-value"](few, NONE, 0.01)[0] > 1


@pytest.mark.parametrize("rule", RULES)
def test_scores_that_are_no_numbers_give_no_threshold(rule: str) -> None:
    with pytest.raises(AnomalyDetectorError, match="cannot give a threshold"):
        RULES[rule](np.array([1, np.nan], np.float32), NONE, 0.01)
