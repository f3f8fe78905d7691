"""The scene as a whole: what is named another scene, what is not, and what is a blank picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.alarms.calibration import score_quantiles
from anomaly_detector.model.metadata import Calibration, ModelMetadata
from anomaly_detector.monitoring.scene import SceneState, SceneWatch, scene_stretches

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
QUANTILES = score_quantiles(np.linspace(0, 1, 1001, dtype=np.float32))  # 0.95 and 0.99
GENERATOR = np.random.default_rng(0)
PLACES = GENERATOR.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
BLACK = np.zeros((64, 64, 3), np.uint8)
OUT = 30.0


def metadata(threshold: float = 1.0, quantiles: dict[str, float] = QUANTILES) -> ModelMetadata:
    calibration = Calibration("split-conformal", quantiles=quantiles)
    return ModelMetadata("model", "unet", "outlier-exposure", "units", threshold, calibration)


def moving() -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures of a robot that moves."""
    return itertools.cycle(PLACES)


def standing(place: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Yield those of a robot that stands, with the noise of the camera."""
    generator = np.random.default_rng(0)
    while True:
        noise = generator.normal(0, 1, PLACES[0].shape)
        yield np.clip(PLACES[place] + noise, 0, 255).astype(np.uint8)


def normal(seconds: int, seed: int = 1) -> list[float]:
    return list(np.random.default_rng(seed).uniform(0, 1, seconds))


def feed(
    watch: SceneWatch,
    scores: Sequence[float],
    pictures: Iterable[NDArray[np.uint8]] | None = None,
    start_s: float = 0,
    period_s: float = 1.0,
) -> list[SceneState]:
    """Give a watch one frame a period; return the states."""
    return [
        watch.update(START + round((start_s + index * period_s) * SECOND), score, picture)
        for index, (score, picture) in enumerate(
            zip(scores, moving() if pictures is None else pictures, strict=False)
        )
    ]


def words(states: Sequence[SceneState]) -> list[str]:
    return [word for word, _ in itertools.groupby(state.word for state in states)]


def test_another_scene_from_the_first_frame_on_is_named_within_the_first_minute() -> None:
    states = feed(SceneWatch(metadata()), [OUT] * 60)
    assert words(states) == ["unknown", "differs"]
    assert states[30].word == "differs"
    state = states[-1]
    assert state.since_ns == START
    assert (state.median, state.flagged) == (OUT, 1.0)
    assert state.quantile == pytest.approx(0.95)
    assert state.warning is not None
    assert "since 1700000000.000000000 (58 s): median score 30, where 95 %" in state.warning
    assert "less than 0.95; 100% flagged" in state.warning
    assert "python -m anomaly_detector adapt" in state.warning
    assert "\n" not in state.warning


def test_change_on_the_way_is_named_once_and_so_is_the_return() -> None:
    watch = SceneWatch(metadata())
    states = feed(watch, [*normal(120), *[OUT] * 120, *normal(120)])
    assert words(states) == ["unknown", "as trained", "differs", "as trained"]
    (since,) = {state.since_ns for state in states if state.word == "differs"}
    assert since == START + 120 * SECOND
    assert [state.warning for state in states[:60] + states[-30:]] == [None] * 90


def test_between_two_levels_nothing_changes() -> None:
    """A third of the seconds is out of range: half are needed to say so, a quarter to go on."""
    third = [0.97 if index % 3 == 0 else 0.5 for index in range(180)]
    assert words(feed(SceneWatch(metadata()), third)) == ["unknown", "as trained"]
    states = feed(SceneWatch(metadata()), [*[0.97] * 60, *third])
    assert words(states) == ["unknown", "differs"]


def test_normal_drive_is_never_named() -> None:
    states = feed(SceneWatch(metadata()), normal(3600), period_s=0.5)
    assert words(states) == ["unknown", "as trained"]
    assert not any(state.note for state in states)


def test_shifted_level_is_named_without_a_flagged_frame() -> None:
    scores = (0.96 + 0.03 * GENERATOR.uniform(size=60)).tolist()
    state = feed(SceneWatch(metadata()), scores)[-1]
    assert (state.word, state.flagged) == ("differs", 0.0)


@pytest.mark.parametrize("seconds", [20, 40, 50])
def test_one_event_is_no_other_scene_on_the_move_either(seconds: int) -> None:
    flickering = [OUT if index % 10 else 0.5 for index in range(seconds)]
    states = feed(SceneWatch(metadata()), [*normal(90), *flickering, *normal(90, 2)])
    assert words(states) == ["unknown", "as trained"]


def test_robot_that_stands_before_a_box_sees_one_place() -> None:
    watch = SceneWatch(metadata())
    feed(watch, normal(60))
    states = feed(watch, [OUT] * 600, standing(), start_s=60)
    assert words(states) == ["as trained"]
    # As soon as it goes on and all else looks like that, it is another scene.
    assert feed(watch, [OUT] * 70, start_s=660)[-1].word == "differs"


def test_robot_that_stands_has_seen_nothing_else_since_the_start() -> None:
    states = feed(SceneWatch(metadata()), [OUT] * 60, standing())
    assert words(states) == ["unknown", "differs"]


def test_flagged_frames_at_many_places_are_another_scene_at_one_place_they_are_not() -> None:
    spread = [OUT if index % 12 < 4 else 0.5 for index in range(120)]
    assert feed(SceneWatch(metadata()), spread)[-1].word == "differs"
    at_once = [*[0.5] * 40, *[OUT] * 20, *[0.5] * 60]
    assert words(feed(SceneWatch(metadata()), at_once)) == ["unknown", "as trained"]


def test_low_threshold_makes_no_other_scene_of_frames_in_range() -> None:
    """A threshold that flags a third of the normal frames is the user's choice."""
    states = feed(SceneWatch(metadata(threshold=0.67)), normal(600))
    assert words(states) == ["unknown", "as trained"]


def test_nothing_is_said_without_quantiles_or_stamps() -> None:
    states = feed(SceneWatch(metadata(quantiles={})), [OUT] * 120)
    assert words(states) == ["unknown"]
    assert states[-1].quantile is None
    watch = SceneWatch(metadata())
    assert {watch.update(None, OUT, PLACES[0]).word for _ in range(100)} == {"unknown"}


@pytest.mark.parametrize("period_s", [2.0, 1 / 30])
def test_any_rate(period_s: float) -> None:
    frames = round(62 / min(1.0, period_s))
    states = feed(SceneWatch(metadata()), [OUT] * frames, period_s=period_s)
    assert words(states) == ["unknown", "differs"]


def test_bag_that_loops_and_a_clock_that_jumps_are_no_news() -> None:
    watch = SceneWatch(metadata())
    states = [
        state for start_s in (0, 0, -5000, 9000) for state in feed(watch, [OUT] * 40, None, start_s)
    ]
    assert words(states) == ["unknown", "differs"]
    assert states[115].since_ns == START - 5000 * SECOND
    watch = SceneWatch(metadata())
    states = [state for _ in range(5) for state in feed(watch, normal(40))]
    assert words(states) == ["unknown", "as trained"]


def test_clock_that_stands_fills_no_memory() -> None:
    watch = SceneWatch(metadata())
    for _ in range(2000):
        watch.update(START, OUT, PLACES[0])
    assert len(watch._scores) < 1000
    assert watch.state.word == "unknown"


def test_covered_lens_is_named_as_one_after_ten_seconds() -> None:
    watch = SceneWatch(metadata())
    assert words(feed(watch, [OUT] * 30, itertools.repeat(BLACK))) == ["unknown", "blank picture"]
    watch = SceneWatch(metadata())
    feed(watch, normal(60))
    states = feed(watch, [OUT] * 120, itertools.repeat(BLACK), start_s=60)
    assert [state.word for state in states].index("blank picture") == 10
    assert states[-1].since_ns == START + 60 * SECOND
    assert "is the lens covered" in states[-1].note
    assert states[-1].warning is not None
    assert "adapt" not in states[-1].warning
    # It was no other scene, and a robot that stands sees that the lens is free.
    states = feed(watch, normal(3), standing(59 % len(PLACES)), start_s=180)
    assert words(states) == ["blank picture", "unknown"]
    states = feed(watch, normal(60), start_s=183)
    assert words(states) == ["unknown", "as trained"]


def test_smeared_lens_is_named_by_the_sharpness_before() -> None:
    smeared = [cv2.GaussianBlur(place, (0, 0), 1.5).astype(np.uint8) for place in PLACES]
    watch = SceneWatch(metadata())
    feed(watch, normal(60))
    state = feed(watch, [OUT] * 30, itertools.cycle(smeared), start_s=60)[-1]
    assert state.word == "blank picture"
    assert state.edges > 20  # only few beside those before


def test_darkness_that_the_model_knows_is_no_covered_lens() -> None:
    states = feed(SceneWatch(metadata()), normal(120), itertools.repeat(BLACK))
    assert {state.note for state in states} == {""}


def test_stretches_of_a_recording() -> None:
    seen = ["unknown", "differs", "differs", "as trained", "blank picture"]
    frames = [(word, float(index), 10.0 * index) for index, word in enumerate(seen)]
    differs, blank = scene_stretches(frames)
    assert (differs.start_s, differs.end_s, list(differs.scores)) == (1.0, 2.0, [10.0, 20.0])
    assert differs.text.startswith(
        "scene differs from training, said from 1.0 s to 2.0 s, median score 15: "
    )
    assert "adapt" in differs.text
    assert blank.text == (
        "hardly any edges: is the lens covered?, said from 4.0 s to 4.0 s, median score 40"
    )
    assert scene_stretches(frames[:1]) == []
