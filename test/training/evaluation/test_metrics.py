"""Figures of merit against values computed by hand and by scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from training.evaluation import bootstrap
from training.evaluation.bootstrap import frame_blocks
from training.evaluation.metrics import (
    area_under_roc,
    curves,
    detection_delays,
    find_events,
    json_safe,
    operating_point,
    ranking_table,
    recall_by_class,
)

NAMES = {0: "normal", 1: "water", 2: "cable", 3: "human"}


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _random_case(frames: int = 400) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(5)
    labels = np.repeat(generator.integers(0, 4, frames // 20), 20).astype(np.int64)
    # Rounded, so that many scores tie, within and across the classes.
    scores = generator.normal(size=frames) + 0.4 * labels
    return np.asarray(np.round(scores, 1), np.float64), labels


def test_areas_by_hand() -> None:
    # Of the 2 x 2 pairs, 3 are in order. Precision at the two hits: 1/1 and 2/3.
    table = ranking_table(np.array([1.0, 3.0, 2.0, 4.0]), _ints(0, 0, 1, 1), NAMES, bootstrap=0)
    assert table.pooled.roc_auc.value == pytest.approx(3 / 4)
    assert table.pooled.pr_auc.value == pytest.approx((1 + 2 / 3) / 2)
    assert table.classes[0].name == "water"
    assert math.isnan(table.pooled.roc_auc.low)


def test_ties_count_half() -> None:
    table = ranking_table(np.ones(4), _ints(0, 0, 1, 1), NAMES, bootstrap=10, block=1)
    assert table.pooled.roc_auc.value == 0.5
    assert table.pooled.pr_auc.value == 0.5
    assert (table.pooled.roc_auc.low, table.pooled.roc_auc.high) == (0.5, 0.5)


def test_pooled_classes_and_macro_against_scikit_learn() -> None:
    scores, labels = _random_case()
    table = ranking_table(scores, labels, NAMES, bootstrap=0)
    assert table.pooled.roc_auc.value == roc_auc_score(labels > 0, scores)
    assert area_under_roc(scores, labels > 0) == table.pooled.roc_auc.value
    areas = []
    for label, ranking in zip((1, 2, 3), table.classes, strict=True):
        chosen = (labels == 0) | (labels == label)
        areas.append(average_precision_score(labels[chosen] == label, scores[chosen]))
        assert ranking.pr_auc.value == areas[-1]
        assert ranking.frames == np.sum(labels == label)
    assert table.macro.pr_auc.value == pytest.approx(np.mean(areas))


def test_bootstrap_resamples_have_the_areas_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every resample, drawn as weights, is checked against the library's weighted areas."""
    scores, labels = _random_case(100)
    drawn: list[NDArray[np.float64]] = []
    draw = bootstrap._draw_blocks

    def spy(*arguments: object) -> NDArray[np.float64]:
        drawn.append(draw(*arguments))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr(bootstrap, "_draw_blocks", spy)
    blocks, _ = frame_blocks(labels, np.zeros(100, np.int64), 7)
    samples = bootstrap.resampled_areas(scores, labels, blocks, 25, seed=3)
    weights = np.concatenate(drawn)[:, blocks]
    present = [label for label in (1, 2, 3) if (labels == label).any()]
    groups = [labels > 0] + [labels == label for label in present]
    for row in range(25):
        for column, group in enumerate(groups):
            chosen = (labels == 0) | group
            arguments = (group[chosen], scores[chosen])
            kept = weights[row][chosen]
            expected = (
                roc_auc_score(*arguments, sample_weight=kept),
                average_precision_score(*arguments, sample_weight=kept),
            )
            assert samples[row, column] == pytest.approx(expected, abs=1e-12)


def test_resampled_means_draw_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, blocks = np.repeat([0.0, 1.0], [10, 30]), np.repeat(_ints(0, 1), [10, 30])
    means = bootstrap.resampled_means(values, blocks, 400, seed=0)
    assert sorted(set(means.tolist())) == [0.0, 0.75, 1.0]
    assert np.mean(means == 0.75) == pytest.approx(0.5, abs=0.1)
    monkeypatch.setattr(bootstrap, "_CHUNK_CELLS", 10)
    assert len(bootstrap.resampled_means(values, blocks, 23, seed=0)) == 23


def test_interval_covers_the_true_area() -> None:
    # Two unit normals one standard deviation apart: the true area is Phi(1 / sqrt(2)).
    truth = 0.5 * (1 + math.erf(0.5))
    labels = np.repeat(_ints(0, 1), 150)
    covered = 0
    for seed in range(100):
        scores = np.random.default_rng(seed).normal(size=300) + labels
        area = ranking_table(scores, labels, NAMES, bootstrap=200, block=1, seed=seed).pooled
        covered += area.roc_auc.low < truth < area.roc_auc.high
    # Of 100 intervals at 95 %, fewer than 88 cover once in 500 times.
    assert covered >= 88


def test_intervals_are_reproducible() -> None:
    labels = np.repeat(_ints(0, 1, 0, 2), 1250)
    scores = np.random.default_rng(0).normal(size=5000) + (labels > 0)
    table = ranking_table(scores, labels, NAMES, bootstrap=1000)
    for ranking in (table.pooled, table.macro, *table.classes):
        assert ranking.roc_auc.low < ranking.roc_auc.value < ranking.roc_auc.high
        assert ranking.pr_auc.low < ranking.pr_auc.value < ranking.pr_auc.high
        assert not ranking.narrow
    assert ranking_table(scores, labels, NAMES, bootstrap=1000) == table
    assert ranking_table(scores, labels, NAMES, bootstrap=1000, seed=1) != table


def test_blocks_widen_the_interval_of_correlated_frames() -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat(np.tile(_ints(0, 1), 20), 40)
    scores = np.repeat(generator.normal(size=80), 20) + labels
    widths = []
    for block in (1, 20):
        area = ranking_table(scores, labels, NAMES, bootstrap=500, block=block).pooled.roc_auc
        widths.append(area.high - area.low)
    assert widths[1] > 2 * widths[0]


def test_frame_blocks_keep_to_recordings_and_labels() -> None:
    labels = np.repeat(_ints(0, 1, 0), [50, 12, 30])
    recordings = np.repeat(_ints(0, 1), [70, 22])
    blocks, finer = frame_blocks(labels, recordings, 20)
    assert np.all(np.diff(blocks) >= 0)
    assert blocks.tolist() == sorted(blocks.tolist())
    assert set(np.diff(blocks)) <= {0, 1}
    for block in range(blocks.max() + 1):
        own = blocks == block
        assert 1 <= own.sum() <= 20
        assert np.unique(labels[own]).size == np.unique(recordings[own]).size == 1
    # One event of 12 frames is one block of 20: it is cut finer, and that is said.
    assert finer == {1}
    assert np.unique(blocks[labels == 1]).size >= 5
    assert frame_blocks(labels, recordings, 1)[0].tolist() == list(range(92))
    with pytest.raises(ValueError, match="block is 0"):
        frame_blocks(labels, recordings, 0)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 2]])
def test_one_kind_of_frame_only_is_not_available(labels: list[int]) -> None:
    scores, truth = np.array([1.0, 2.0, 3.0]), np.array(labels, np.int64)
    table = ranking_table(scores, truth, NAMES, bootstrap=20)
    assert math.isnan(table.pooled.roc_auc.value)
    assert math.isnan(table.macro.pr_auc.value)
    assert str(table.pooled.roc_auc) == "n/a"
    assert curves(scores, truth > 0) is None
    assert json.loads(json.dumps(table.to_dict(), allow_nan=False))["pooled"]["roc_auc"] == {
        "value": None,
        "interval_95": [None, None],
    }


def test_class_of_one_frame_has_no_interval() -> None:
    labels = _ints(*[0] * 20, 1, *[2] * 20)
    scores = np.arange(41.0)
    table = ranking_table(scores, labels, NAMES, bootstrap=20, block=2)
    water, cable = table.classes
    assert water.roc_auc.value == 1
    assert math.isnan(water.roc_auc.low)
    assert cable.roc_auc.low == 1
    assert str(table.macro.roc_auc) == "1.000 [n/a]"


def test_operating_point_by_hand() -> None:
    scores = np.array([1.0, 5.0, 5.0, 9.0, 2.0])
    point = operating_point(scores, np.array([False, False, True, True, True]), 5.0)
    assert (point.true_positives, point.false_positives) == (2, 1)
    assert (point.true_negatives, point.false_negatives) == (1, 1)
    assert point.accuracy == 3 / 5
    assert point.precision == point.recall == point.f1 == 2 / 3
    assert point.false_alarm_rate == 1 / 2


def test_operating_point_without_a_denominator() -> None:
    point = operating_point(np.array([1.0, 2.0]), np.array([False, False]), 5.0)
    assert point.accuracy == 1
    assert point.false_alarm_rate == 0
    assert all(math.isnan(value) for value in (point.precision, point.recall, point.f1))
    assert point.to_dict()["recall"] is None


def test_recall_by_class() -> None:
    recalls = recall_by_class(np.array([9.0, 1.0, 9.0, 9.0]), _ints(0, 1, 1, 2), 5.0)
    assert recalls == {1: 0.5, 2: 1.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores, labels = np.array([1.0, bad]), _ints(0, 1)
    with pytest.raises(ValueError, match="NaN or infinite"):
        ranking_table(scores, labels, NAMES)
    with pytest.raises(ValueError, match="NaN or infinite"):
        operating_point(scores, labels > 0, 1.0)
    with pytest.raises(ValueError, match="one per frame"):
        curves(scores, np.array([True]))


def test_events_are_runs_of_one_label_in_one_recording() -> None:
    labels = _ints(1, 1, 2, 0, 2, 2, 2)
    events = find_events(labels, NAMES, _ints(0, 0, 0, 0, 0, 1, 1))
    assert [(e.name, e.recording, e.start, e.stop) for e in events] == [
        ("water", 0, 0, 2),
        ("cable", 0, 2, 3),
        ("cable", 0, 4, 5),
        ("cable", 1, 5, 7),
    ]
    assert find_events(_ints(), NAMES) == []


def test_detection_delay_in_frames_and_seconds() -> None:
    events = find_events(_ints(0, 1, 1, 1, 0, 2, 2), NAMES)
    flagged = np.array([True, False, False, True, False, False, False])
    stamps = [1_700_000_000_000_000_000 + 50_000_000 * frame for frame in range(7)]
    found, missed = detection_delays(events, flagged, stamps)
    assert (found.delay_frames, found.delay_s, found.flagged_frames) == (2, 0.1, 1)
    assert missed.missed
    assert missed.to_dict()["delay_s"] is None
    assert detection_delays(events, flagged)[0].delay_s is None
    assert detection_delays(events, flagged, [None] * 7)[0].delay_s is None
    # The recorder's clock was set at the third frame.
    stepped = [stamp if index < 2 else stamp + 10**18 for index, stamp in enumerate(stamps)]
    (after_step, _) = detection_delays(events, flagged, stepped)
    assert after_step.delay_s is not None
    assert after_step.delay_s < 60


def test_json_safe_reaches_into_lists_and_objects() -> None:
    assert json_safe({"a": [1.0, math.nan], "b": {"c": -math.inf}}) == {
        "a": [1.0, None],
        "b": {"c": None},
    }
