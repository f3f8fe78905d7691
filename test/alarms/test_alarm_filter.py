"""The alarm filter: raising, clearing, events, and its command-line options."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_detector.alarms.alarm_filter import (
    ALARM_OPTIONS,
    AlarmEvent,
    AlarmFilter,
    AlarmSettings,
    AlarmState,
    add_alarm_arguments,
    alarm_settings,
)
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.scoring.stream import ScoredFrame
from anomaly_detector.scoring.tables import EVENT_COLUMNS

NORMAL, NEAR, ANOMALOUS, EXTREME = 0.25, 0.47, 0.6, 0.9
"""Normalised scores: below the clear level, between the levels, anomalous, at once."""

MS = 1_000_000

NO_IMAGE = np.empty((0, 0, 3), np.uint8)


def filtered(
    settings: AlarmSettings, scores: Iterable[float], stamps_ms: Sequence[int] | None = None
) -> tuple[list[AlarmState], list[AlarmEvent]]:
    """Run a filter over normalised scores; the frames' names are their numbers."""
    alarm_filter = AlarmFilter(settings)
    states = [
        alarm_filter.update(
            ScoredFrame("", None, None, score * 100, score, score >= 0.5, NO_IMAGE),
            stamp_ns=None if stamps_ms is None else stamps_ms[index] * MS,
            name=str(index),
        )
        for index, score in enumerate(scores)
    ]
    events = [state.ended for state in states if state.ended is not None]
    last = alarm_filter.finish()
    return states, events + ([last] if last else [])


def alarms(
    settings: AlarmSettings, scores: Iterable[float], stamps_ms: Sequence[int] | None = None
) -> str:
    """Return one character a frame: ``#`` alarm, ``.`` none."""
    states, _ = filtered(settings, scores, stamps_ms)
    return "".join("#" if state.is_alarm else "." for state in states)


def scores_of(text: str) -> list[float]:
    """Return normalised scores: ``.`` normal, ``~`` near the threshold, ``a`` anomalous, ``X``."""
    return [{".": NORMAL, "~": NEAR, "a": ANOMALOUS, "X": EXTREME}[letter] for letter in text]


FRAMES = AlarmSettings(raise_frames=3, raise_window_frames=5, clear_frames=2)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ("aa.......", "........."),
        ("aaa......", "..##....."),  # cleared by the second frame below
        ("a.a.a....", "....##..."),
        ("a..a..a..", "........."),  # never three in five
        ("aa...a...", "........."),
        ("...X.....", "...##...."),  # at once
        ("aaa~~~~..", "..######."),  # near the threshold: neither raises nor clears
        ("aaa.~.~..", "..######."),
        ("aaa..a.aa", "..##....#"),  # the window starts empty after clearing
        ("~~~~~~~~~", "........."),
    ],
)
def test_k_of_n_with_hysteresis(scores: str, expected: str) -> None:
    assert alarms(FRAMES, scores_of(scores)) == expected


def test_immediate_level_of_one_is_never() -> None:
    settings = dataclasses.replace(FRAMES, immediate_level=1.0)
    assert alarms(settings, [1.0, NORMAL, NORMAL]) == "..."
    assert alarms(settings, [1.0, 1.0, 1.0]) == "..#"


def test_levels_are_inclusive_above_and_exclusive_below() -> None:
    settings = AlarmSettings(immediate_level=0.75, clear_level=0.45, clear_frames=1)
    assert alarms(settings, [0.7499, 0.75, 0.45, 0.4499]) == ".##."


def test_off_is_the_flag_of_the_single_frame() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = generator.random(200).tolist()
        states, events = filtered(AlarmSettings(mode="off"), scores)
        assert [state.is_alarm for state in states] == [score >= 0.5 for score in scores]
        assert sum(event.frames for event in events) == sum(score >= 0.5 for score in scores)


def random_settings(generator: np.random.Generator, mode: str) -> AlarmSettings:
    window = int(generator.integers(1, 9))
    window_s = float(generator.uniform(0.02, 0.5))
    return AlarmSettings(
        mode=mode,
        raise_frames=int(generator.integers(1, window + 1)),
        raise_window_frames=window,
        clear_frames=int(generator.integers(1, 6)),
        raise_seconds=float(generator.uniform(0, window_s)),
        raise_window_seconds=window_s,
        clear_seconds=float(generator.uniform(0, 0.5)),
        immediate_level=float(generator.uniform(0.5, 1.0)),
        clear_level=float(generator.uniform(0.0, 0.5)),
    )


@pytest.mark.parametrize("mode", ["off", "frames", "seconds"])
def test_events_partition_the_alarm_frames(mode: str) -> None:
    """Over random scores, settings and stamps that now and then jump back."""
    generator = np.random.default_rng(1)
    for _ in range(60):
        scores = np.clip(0.45 + np.cumsum(generator.normal(0, 0.1, 150)) * 0.3, 0, 1).tolist()
        steps = generator.integers(0, 120, 150)
        steps[generator.random(150) < 0.02] = -1000
        stamps = (10_000 + np.cumsum(steps)).tolist()
        states, events = filtered(random_settings(generator, mode), scores, stamps)
        covered: list[int] = []
        for event in events:
            frames = list(range(int(event.start_frame), int(event.end_frame) + 1))
            covered += frames
            assert len(frames) == event.frames
            peak = max(frames, key=lambda index: scores[index])
            assert int(event.peak_frame) == peak
            assert event.peak_normalized_score == scores[peak]
            assert event.peak_score == scores[peak] * 100
            for name, stamp_ns in (
                (event.start_frame, event.start_stamp_ns),
                (event.end_frame, event.end_stamp_ns),
                (event.peak_frame, event.peak_stamp_ns),
            ):
                assert stamp_ns == stamps[int(name)] * MS
        assert covered == [index for index, state in enumerate(states) if state.is_alarm]
        starts = [str(index) for index, state in enumerate(states) if state.started]
        # A jump back may end one alarm and raise the next in one frame: it is one start more.
        assert set(starts) <= {event.start_frame for event in events}
        assert all(scores[int(event.start_frame)] >= 0.5 for event in events)


def test_higher_scores_never_raise_later() -> None:
    generator = np.random.default_rng(2)
    for _ in range(60):
        settings = random_settings(generator, "frames")
        scores = generator.random(60)
        first = alarms(settings, scores.tolist()).find("#")
        higher = alarms(settings, np.minimum(scores + 0.1, 1.0).tolist()).find("#")
        assert first == -1 or 0 <= higher <= first


SECONDS = AlarmSettings(
    mode="seconds", raise_seconds=0.1, raise_window_seconds=0.3, clear_seconds=0.1
)


@pytest.mark.parametrize(
    ("scores", "stamps_ms", "expected"),
    [
        ("aaaa", [0, 50, 100, 150], "..##"),  # 0.1 s of anomalous frames
        ("aaaa", [0, 20, 40, 60], "...."),  # the same frames, faster
        ("a.a.a", [0, 50, 100, 150, 200], "....#"),
        ("a.a....a.a", list(range(0, 500, 50)), ".........."),  # too far apart for the window
        ("aa", [0, 5000], ".."),  # one frame after a gap proves nothing
        ("aa", [0, 100], ".#"),
        ("X", [0], "#"),
        ("X....", [0, 50, 100, 150, 200], "###.."),  # below since 50, cleared at 150
        ("X.~...", [0, 50, 100, 150, 200, 250], "#####."),
        ("aaa", [7, 7, 7], "..."),  # equal stamps: no time passes
    ],
)
def test_seconds(scores: str, stamps_ms: list[int], expected: str) -> None:
    assert alarms(SECONDS, scores_of(scores), stamps_ms) == expected


def test_both_units_agree_at_a_steady_rate() -> None:
    """Four frames in a row last three periods: the last frame has not lasted yet."""
    generator = np.random.default_rng(3)
    frames = AlarmSettings(raise_frames=4, raise_window_frames=4, clear_frames=3)
    seconds = AlarmSettings(
        mode="seconds", raise_seconds=0.15, raise_window_seconds=0.15, clear_seconds=0.1
    )
    scores = np.repeat(generator.random(200), 3).tolist()
    stamps = [index * 50 for index in range(600)]
    assert alarms(seconds, scores, stamps) == alarms(frames, scores)


def test_seconds_need_stamps() -> None:
    frame = ScoredFrame("a.png", None, None, 1.0, 0.6, True, NO_IMAGE)
    with pytest.raises(AnomalyDetectorError, match=r"frame a\.png has no time stamp.*--fps"):
        AlarmFilter(SECONDS).update(frame, name="a.png")


@pytest.mark.parametrize("settings", [FRAMES, SECONDS])
def test_a_jump_back_in_time_starts_afresh(settings: AlarmSettings) -> None:
    stamps = [1000, 1050, 1100, 100, 150, 200, 250]
    states, events = filtered(settings, scores_of("aaaaa.."), stamps)
    assert [state.is_alarm for state in states] == [False, False, True] + [False] * 4
    assert states[3].ended == events[0]
    assert (events[0].start_frame, events[0].end_frame, len(events)) == ("2", "2", 1)


def test_jump_back_into_an_extreme_frame_is_a_new_event() -> None:
    states, events = filtered(FRAMES, scores_of("XX"), [1000, 0])
    assert [state.is_alarm for state in states] == [True, True]
    assert [event.start_frame for event in events] == ["0", "1"]
    assert states[1].started
    assert states[1].ended == events[0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"mode": "sometimes"}, "mode is 'sometimes', it must be off or frames or seconds"),
        ({"raise_frames": 0}, "raise_frames is 0, it must be an integer from 1 to 10000"),
        ({"raise_frames": 2.0}, "raise_frames is 2.0"),
        ({"raise_frames": 11}, "raise_frames is 11, more than raise_window_frames, which is 10"),
        ({"raise_seconds": 0.5}, "raise_seconds is 0.5, more than raise_window_seconds"),
        ({"raise_window_seconds": 0.0}, "raise_window_seconds is 0.0"),
        ({"clear_seconds": float("nan")}, "clear_seconds is nan, it must be a number from 0"),
        ({"immediate_level": 0.4}, "immediate_level is 0.4, it must be a number from 0.5 to 1"),
        ({"clear_level": 0.6}, "clear_level is 0.6"),
        ({"clear_frames": True}, "clear_frames is True"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(AnomalyDetectorError) as error:
        AlarmSettings(**values)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_command_line_has_every_setting() -> None:
    parser = argparse.ArgumentParser()
    add_alarm_arguments(parser)
    assert alarm_settings(parser.parse_args([])) == AlarmSettings()
    changed = AlarmSettings("seconds", 2, 3, 4, 0.1, 0.2, 0.3, 0.8, 0.4)
    values = [getattr(changed, option.name) for option in ALARM_OPTIONS]
    assert len(values) == 9
    words = []
    for option, value in zip(ALARM_OPTIONS, values, strict=True):
        name = "decision" if option.name == "mode" else option.name.replace("_", "-")
        words += [f"--{name}", str(value)]
    assert alarm_settings(parser.parse_args(words)) == changed
    help_text = "".join(parser.format_help().split())  # argparse breaks lines at hyphens
    for option in ALARM_OPTIONS:
        assert "".join(option.description.replace("_", "-").split()) in help_text


def test_document_lists_the_event_columns() -> None:
    text = (Path(__file__).parents[2] / "docs" / "threshold-and-alarms.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(EVENT_COLUMNS)


def test_single_false_alarms_are_filtered_at_the_default_settings() -> None:
    """At 30 frames a second with 1 % of the frames anomalous: at most one alarm a minute."""
    generator = np.random.default_rng(4)
    minutes, frames = 10, 18_000
    for correlation in (0.0, 0.7, 0.9):
        steps = generator.normal(size=frames) * np.sqrt(1 - correlation**2)
        values = np.empty(frames)
        value = 0.0
        for index, step in enumerate(steps):
            value = correlation * value + step
            values[index] = value
        u = values / np.quantile(values, 0.99) - 1
        normalized = np.where(u >= 0, 1 - 0.5 / (1 + np.abs(u)), 0.5 / (1 + np.abs(u))).tolist()
        _, single = filtered(AlarmSettings(mode="off"), normalized)
        _, events = filtered(AlarmSettings(), normalized)
        assert len(single) > 5 * minutes
        assert len(events) <= minutes
