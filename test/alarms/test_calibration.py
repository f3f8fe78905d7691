"""Thresholds, their intervals, and the normalised score in graph and numpy."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from model_files import write_grey_difference_model
from numpy.typing import NDArray
from onnx import helper

from anomaly_detector.alarms.calibration import (
    calibrate_threshold,
    calibration_shortfall,
    describe_calibration,
    effective_frames,
    false_alarm_interval,
    frames_needed,
    rate_interval,
)
from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.metadata import METADATA_KEY, Calibration, ModelMetadata
from anomaly_detector.model.normalization import (
    NORMALIZED_OUTPUT,
    SCALE_CONSTANT,
    THRESHOLD_CONSTANT,
    add_normalized_score,
    float32_threshold,
    normalization_scale,
    normalize_for,
    normalize_scores,
    replace_normalization,
)

QUARTILES = {"0.25": 15.0, "0.5": 20.0, "0.75": 26.0}


def metadata(
    threshold: float,
    quantiles: Mapping[str, float] | None = None,
    score_maximum: float | None = None,
) -> ModelMetadata:
    return ModelMetadata(
        name="m",
        architecture="v5",
        scorer="never heard of",
        score_maximum=score_maximum,
        score_units="units",
        threshold=threshold,
        calibration=Calibration("fixed", quantiles=quantiles or {}),
    )


def correlated_scores(
    generator: np.random.Generator, count: int, correlation: float
) -> NDArray[np.float32]:
    """Make standard normal scores of a first-order autoregressive process, float32 [count]."""
    steps = generator.normal(size=count) * math.sqrt(1 - correlation**2)
    value, scores = float(generator.normal()), np.empty(count, np.float32)
    for index, step in enumerate(steps):
        value = correlation * value + float(step)
        scores[index] = value
    return scores


def share_above(threshold: float) -> float:
    """Return the share of standard normal scores at or above a threshold."""
    return 0.5 * math.erfc(threshold / math.sqrt(2))


def normalizing_session(threshold: np.float32, scale: np.float32) -> onnxruntime.InferenceSession:
    """Make a graph whose score is its input, with the normalised score that models get."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        pass (float[N] raw) => (float[N] score) { score = Identity (raw) }""")
    add_normalized_score(model, threshold, scale)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_calibrated_threshold_keeps_the_false_alarm_rate() -> None:
    """Split conformal: over many calibration samples, at most the wanted share is anomalous."""
    generator = np.random.default_rng(0)
    for rate in (0.01, 0.1):
        shares = []
        for _ in range(400):
            scores = generator.gamma(3, 10, 150).astype(np.float32)
            threshold, calibration = calibrate_threshold(scores, rate)
            assert calibration.frames == 150
            shares.append(np.mean(generator.gamma(3, 10, 2000) >= threshold))
        assert rate * 0.3 <= np.mean(shares) <= rate * 1.1


def test_chosen_score_is_the_conformal_one() -> None:
    scores = np.random.default_rng(0).permutation(99).astype(np.float32)
    threshold, calibration = calibrate_threshold(scores, 0.1)
    assert calibration.effective_frames == 97
    # ceil(99 / 97 * (97 + 1) * 0.9) = 91st smallest
    assert threshold == np.nextafter(np.float32(90), np.float32(np.inf))
    assert calibration.quantiles["0.5"] == 49.0


def test_the_rank_is_that_of_the_effective_frames() -> None:
    """Each of 250 scores twenty times in a row: as good as some 250 frames, not 5,000."""
    generator = np.random.default_rng(3)
    scores = np.repeat(generator.permutation(250), 20).astype(np.float32)
    threshold, calibration = calibrate_threshold(scores, 0.01)
    frames = calibration.effective_frames
    assert frames is not None
    assert 150 < frames < 300
    rank = math.ceil(5000 * (frames + 1) * 0.99 / frames)
    assert threshold == np.nextafter(np.sort(scores)[rank - 1], np.float32(np.inf))
    # The frames as they are counted would take the 4,951st, two places lower.
    assert threshold > np.sort(scores)[math.ceil(5001 * 0.99) - 1] + 1


def test_false_alarm_rate_is_kept_on_average_by_correlated_frames() -> None:
    """The rank of all frames gives 1.8 %."""
    generator = np.random.default_rng(2)
    shares = []
    for _ in range(200):
        threshold, _ = calibrate_threshold(correlated_scores(generator, 1000, 0.95), 0.01)
        shares.append(share_above(threshold))
    assert 0.003 < np.mean(shares) < 0.01


def test_too_few_effective_frames_are_told() -> None:
    """1,200 frames of 12 places: the largest score, and no word of a rate that is kept."""
    scores = np.repeat(np.random.default_rng(0).permutation(12), 100).astype(np.float32)
    threshold, calibration = calibrate_threshold(scores, 0.01)
    assert threshold == np.nextafter(np.float32(11), np.float32(np.inf))
    frames = calibration.effective_frames
    assert frames is not None
    assert frames < 30
    shortfall = calibration_shortfall(calibration)
    assert shortfall is not None
    assert shortfall.startswith(
        f"{frames} independent frames are too few for a false-alarm rate of 0.01, which takes 99: "
    )
    assert "is the highest normal score, too few frames for" in describe_calibration(
        threshold, calibration
    )
    assert calibration_shortfall(Calibration("fixed")) is None
    assert frames_needed(0.01) == 99
    assert frames_needed(0.1) == 9
    assert frames_needed(0.03) == 33


def test_calibration_of_few_frames_takes_the_largest_score() -> None:
    threshold, calibration = calibrate_threshold(np.array([3.0, 1.0, 2.0], np.float32), 0.01)
    assert 3.0 < threshold < 3.001
    assert calibration.quantiles["0.5"] == 2.0
    assert calibration.false_alarm_interval is not None
    assert calibration.false_alarm_interval[1] > 0.5  # and the interval admits it


@pytest.mark.parametrize(
    ("scores", "rate", "reason"),
    [
        *(([1.0, 2.0], rate, "false alarm rate") for rate in (0.0, 1.0, -0.1, math.nan)),
        *((scores, 0.01, "cannot give a threshold") for scores in ([], [1.0, math.nan])),
    ],
)
def test_calibration_refuses_wrong_numbers(scores: list[float], rate: float, reason: str) -> None:
    with pytest.raises(AnomalyDetectorError, match=reason):
        calibrate_threshold(np.array(scores, np.float32), rate)


@pytest.mark.parametrize(("frames", "rate"), [(99, 0.01), (500, 0.05), (20000, 0.01), (3, 0.01)])
def test_interval_is_the_beta_distributions(frames: int, rate: float) -> None:
    """Compared with draws: the interval's ends leave 2.5 % on each side."""
    low, high = false_alarm_interval(frames, rate)
    above = max(1.0, (frames + 1) * rate)
    draws = np.random.default_rng(0).beta(above, frames + 1 - above, 200_000)
    assert np.mean(draws < low) == pytest.approx(0.025, abs=0.002)
    assert np.mean(draws > high) == pytest.approx(0.025, abs=0.002)


@pytest.mark.parametrize(("frames", "hits"), [(100, 0), (100, 3), (40, 40), (1, 0), (20, 0.01)])
def test_interval_of_a_measured_rate(frames: int, hits: float) -> None:
    """Compared with draws of the rates that are as likely as what was seen makes them."""
    low, high = rate_interval(hits / frames, frames)
    draws = np.random.default_rng(0).beta(hits + 1, frames - hits + 1, 200_000)
    assert low <= hits / frames <= high
    if hits < 1:  # nothing is below what was seen
        assert low == hits / frames
    else:
        assert np.mean(draws < low) == pytest.approx(0.025, abs=0.002)
    if hits == frames:
        assert high == 1.0
    else:
        assert np.mean(draws > high) == pytest.approx(0.025, abs=0.002)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_interval_holds_the_true_rate_of_correlated_frames(correlation: float) -> None:
    generator = np.random.default_rng(1)
    held = held_as_if_independent = 0
    for _ in range(100):
        scores = correlated_scores(generator, 1000, correlation)
        threshold, calibration = calibrate_threshold(scores, 0.01)
        assert calibration.false_alarm_interval is not None
        low, high = calibration.false_alarm_interval
        held += low <= share_above(threshold) <= high
        low, high = false_alarm_interval(1000, 0.01)
        held_as_if_independent += low <= share_above(threshold) <= high
    assert held >= 84  # 91 to 97 in the long run
    # What the effective number of frames is for.
    assert (held_as_if_independent < 80) == (correlation > 0)


def test_effective_frames_of_extreme_drives() -> None:
    generator = np.random.default_rng(0)
    independent = generator.normal(size=2000).astype(np.float32)
    assert effective_frames(independent) > 1400
    # Every frame ten times: a tenth of it.
    assert 100 < effective_frames(np.repeat(independent[:200], 10)) < 250
    assert effective_frames(np.full(500, 3.0, np.float32)) == 1
    assert effective_frames(np.array([3.0], np.float32)) == 1


def test_description_tells_rate_interval_and_frames() -> None:
    calibration = Calibration("split-conformal", 0.01, 240, {}, 180, (0.001, 0.044))
    text = describe_calibration(3.25, calibration)
    assert text == (
        "threshold 3.25 for a false-alarm rate of 0.01 (95 % interval 0.001 to 0.044, from 240 "
        "frames worth 180 independent ones)"
    )
    assert describe_calibration(200.0, Calibration("fixed")) == "threshold 200 (fixed)"


SCALES = [
    (np.float32(200.0), np.float32(150.0)),  # mean squared error
    (np.float32(0.5), np.float32(1 / 6)),  # probability
    (np.float32(-187.3), np.float32(12.7)),  # negative log-likelihood
    (np.float32(0.0), np.float32(1e-30)),
    (np.float32(3e38), np.float32(1e38)),
    (np.float32(1e-3), np.float32(1e5)),  # float32 steps much finer than the scale's
]


@pytest.mark.parametrize(("threshold", "scale"), SCALES)
def test_normalised_score_is_exact_monotone_and_the_same_in_graph_and_numpy(
    threshold: np.float32, scale: np.float32
) -> None:
    generator = np.random.default_rng(0)
    highest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        near = threshold + scale * generator.normal(0, 1, 20_000).astype(np.float32)
        far = threshold + scale * generator.standard_cauchy(2000).astype(np.float32) * 100
    # Neighbours, where rounding could turn the order round.
    base = near[:2000]
    steps = [base]
    for _ in range(8):
        steps.append(np.nextafter(steps[-1], np.float32(np.inf)))
    below, above = (np.nextafter(threshold, np.float32(end)) for end in (-np.inf, np.inf))
    ends = np.array([threshold, below, above, -highest, highest, 0.0], np.float32)
    scores = np.sort(np.clip(np.concatenate([near, far, *steps, ends]), -highest, highest))

    (got,) = normalizing_session(threshold, scale).run([NORMALIZED_OUTPUT], {"raw": scores})
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, normalize_scores(scores, threshold, scale))
    assert (np.diff(got) >= 0).all()
    assert got.min() >= 0.0
    assert got.max() <= 1.0
    assert (got[scores == threshold] == 0.5).all()
    np.testing.assert_array_equal(got >= 0.5, scores >= threshold)
    # Not a step: it tells frames apart over the whole range.
    assert np.unique(got).size > 15_000


def test_median_normal_frame_is_a_quarter_and_its_mirror_three_quarters() -> None:
    model = metadata(50.0, QUARTILES)
    scores = np.array([20.0, 50.0, 80.0], np.float32)
    normalized = normalize_scores(scores, float32_threshold(50.0), normalization_scale(model))
    assert normalized.tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("model", "scale"),
    [
        (metadata(50.0, QUARTILES), 30.0),
        (metadata(10.0, QUARTILES), 10.0),  # set by hand below the median
        (metadata(20.0, QUARTILES), 5.5),  # set at the median: half the interquartile range
        (metadata(-5.0, {"0.5": -7.0}), 2.0),
        (metadata(0.5, {"0.5": 0.01}, 1.0), 0.5 / 3),  # probability 1 gets 0.875
        (metadata(0.04, {"0.5": 0.01}, 1.0), 0.03),
        (metadata(200.0), 200.0),
        (metadata(0.0), 1.0),
        (metadata(7.0, {"0.25": 7.0, "0.5": 7.0, "0.75": 7.0}), 7e-6),  # all scores equal
        (metadata(0.0, {"0.5": 0.0}), 1e-30),
    ],
)
def test_scale(model: ModelMetadata, scale: float) -> None:
    assert normalization_scale(model) == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("threshold", [0.1, 0.7, 0.3, 200.0, -1.1, 1e-50, 1e300])
def test_float32_threshold_flags_the_same_scores(threshold: float) -> None:
    rounded = float32_threshold(threshold)
    below = np.nextafter(rounded, np.float32(-np.inf))
    assert float(rounded) >= threshold > float(below)


def test_detector_gives_the_normalised_score_of_the_graph(tmp_path: Path) -> None:
    text = metadata(1000.0, {"0.5": 400.0}).to_json()
    detector = Detector(write_grey_difference_model(tmp_path / "m.onnx", metadata=text))
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    images[3:] //= 8
    result = detector.score_batch(images)
    assert (
        result.normalized_score.tolist() == normalize_for(detector.metadata, result.score).tolist()
    )
    assert detector.detect(images[0], "rgb").normalized_score == result.normalized_score[0]
    assert (result.normalized_score >= 0.5).tolist() == (result.score >= 1000.0).tolist()


def test_edited_metadata_are_refused(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "m.onnx", threshold=1000.0)
    model = onnx.load(path)
    helper.set_model_props(model, {METADATA_KEY: metadata(2000.0).to_json()})
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"m\.onnx: its normalized_score differs by 0\.\d+"):
        Detector(path)


def test_replacing_changes_the_constants_alone(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "m.onnx", threshold=1000.0)
    model = onnx.load(path)
    before = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    replace_normalization(model, np.float32(5), np.float32(2), "m.onnx")
    after = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {THRESHOLD_CONSTANT, SCALE_CONSTANT}
    assert (after[THRESHOLD_CONSTANT], after[SCALE_CONSTANT]) == (5, 2)
    del model.graph.initializer[:]
    with pytest.raises(ModelError, match="has 0 constants 'calibration_threshold'"):
        replace_normalization(model, np.float32(5), np.float32(2), "m.onnx")


def test_missing_onnx_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(AnomalyDetectorError, match="pip install onnx"):
        add_normalized_score(object(), np.float32(1), np.float32(1))


def _documented(text: str, heading: str) -> list[str]:
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = section[section.index("| `") :].split("\n\n")[0]
    return [row.split("`")[1] for row in table.splitlines()]


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Metadata", [field.name for field in dataclasses.fields(ModelMetadata)]),
        ("Calibration", [field.name for field in dataclasses.fields(Calibration)]),
        ("Map scale", [field.name for field in dataclasses.fields(MapScale)]),
        ("Outputs", ["score", NORMALIZED_OUTPUT, "anomaly_map"]),
        ("Constants", [THRESHOLD_CONSTANT, SCALE_CONSTANT]),
    ],
)
def test_model_format_document_is_complete(heading: str, names: list[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "model-format.md").read_text()
    assert _documented(text, heading) == names


def test_calibration_survives_json() -> None:
    _, calibration = calibrate_threshold(np.arange(50, dtype=np.float32), 0.05)
    model = dataclasses.replace(metadata(48.0), calibration=calibration)
    assert ModelMetadata.from_json(model.to_json(), "m.onnx") == model
