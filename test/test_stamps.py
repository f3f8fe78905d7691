"""Stamps: which count, what stands in for missing ones, and their text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from anomaly_detector.stamps import (
    FrameClock,
    SteadyTime,
    format_stamp,
    parse_stamp,
    stamp_text,
    stamp_to_ns,
)

S = 1_000_000_000


@pytest.mark.parametrize(
    ("sec", "nanosec", "expected"),
    [
        (1, 5, S + 5),
        (0, 1, 1),
        (2**31 - 1, S - 1, 2**31 * S - 1),
        (0, 0, None),
        (-1, 500_000_000, None),
        (-(2**31), 0, None),
        (10, S, None),
        (10, 2**32 - 1, None),
    ],
)
def test_stamp_counts_or_is_missing(sec: int, nanosec: int, expected: int | None) -> None:
    assert stamp_to_ns(SimpleNamespace(sec=sec, nanosec=nanosec)) == expected


@pytest.mark.parametrize("stamp", [0, 5, -5, -S // 2, -S, -3 * S // 2, 1_700_000_000_123_456_789])
def test_text_of_a_stamp_reads_back(stamp: int) -> None:
    assert parse_stamp(format_stamp(stamp)) == stamp
    assert float(format_stamp(stamp)) == pytest.approx(stamp / S)


def test_text_of_half_a_second_before_1970() -> None:
    assert format_stamp(-S // 2) == "-0.500000000"
    assert stamp_text(None) == ""


def test_missing_stamp_is_the_newest_one_and_the_time_since() -> None:
    clock = FrameClock()
    arrivals = [100 * S, 101 * S, 102 * S, 103 * S]
    assert not clock.has_stamp
    stamps = [5 * S, None, None, 8 * S]
    times = [clock.time_ns(stamp, at) for stamp, at in zip(stamps, arrivals, strict=True)]
    assert times == [5 * S, 6 * S, 7 * S, 8 * S]
    assert clock.has_stamp


def test_late_frame_without_a_stamp_does_not_turn_time_back() -> None:
    clock = FrameClock()
    times = [
        clock.time_ns(stamp, at)
        for stamp, at in ((5 * S, 100 * S), (None, 104 * S), (7 * S, 104 * S), (10 * S, 105 * S))
    ]
    assert times == [5 * S, 9 * S, 9 * S, 10 * S]
    assert clock.time_ns(2 * S, 106 * S) == 2 * S  # a bag that begins again


def test_without_any_stamp_the_arrival_counts() -> None:
    clock = FrameClock()
    assert [clock.time_ns(None, at) for at in (100, 120, 90)] == [100, 120, 90]
    assert not clock.has_stamp


def test_steps_of_a_clock_are_no_time() -> None:
    steady = SteadyTime()
    assert steady.seconds is None
    now = 1_700_000_000 * S
    times = [0, S, now, now + S, now + 60 * S, S, 2 * S]
    assert [steady.add(time) for time in times] == [0.0, 1.0, 1.0, 2.0, 61.0, 61.0, 62.0]
    # Stamps of a camera that are out of order stay so.
    jitter = SteadyTime()
    assert [jitter.add(time) for time in (0, 2 * S, 3 * S // 2, 3 * S)] == [0.0, 2.0, 1.5, 3.0]
