"""Alarms that repeat an earlier one, and places that are snoozed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from conftest import START_NS
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmFilter, AlarmSettings
from anomaly_detector.alarms.incidents import (
    ALIKE,
    AlarmReport,
    IncidentSettings,
    IncidentWatch,
    describe_look,
    likeness,
)
from anomaly_detector.poses import Place, Pose

SECOND = 10**9
RED, BLUE = (200, 30, 30), (30, 60, 210)
ABOVE = 0.6
"""A normalised score: a quarter of the way from the median normal score above the threshold."""


def scene(
    color: Sequence[int], at: tuple[int, int] = (20, 24), size: int = 12, gain: float = 1.0
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a noisy corridor with something of a colour in it, and the map that points at it."""
    picture = np.full((64, 64, 3), (120, 115, 105), np.float32)
    picture[40:] = (90, 80, 70)
    x, y = at
    picture[y : y + size, x : x + size] = color
    picture += np.random.default_rng(size).normal(0, 4, picture.shape)
    anomaly_map = np.zeros((64, 64), np.float32)
    anomaly_map[y : y + size, x : x + size] = 5.0
    blurred = cv2.GaussianBlur(anomaly_map, (0, 0), 2.0)
    return np.clip(picture * gain, 0, 255).astype(np.uint8), np.asarray(blurred, np.float32)


def test_look_is_that_of_the_thing_and_not_of_light_place_and_size() -> None:
    look = describe_look(*scene(RED))
    assert look.shape == (216,)
    assert look.sum() == pytest.approx(1.0)
    assert likeness(look, look) == pytest.approx(1.0)
    for other in (scene(RED, (30, 18)), scene(RED, size=16), scene(RED, gain=0.7)):
        assert likeness(look, describe_look(*other)) >= ALIKE
    for other in (scene(BLUE), scene((220, 220, 220)), scene((10, 10, 10))):
        assert likeness(look, describe_look(*other)) < 0.5
    # A map that is the same everywhere, as that of a covered lens, points at the whole picture.
    for value in (0.0, 7.0):
        flat = describe_look(np.zeros((64, 64, 3), np.uint8), np.full((8, 8), value, np.float32))
        assert flat[0] == 1.0


@dataclass(frozen=True)
class Result:
    """What a model says of a frame."""

    score: float
    normalized_score: float
    is_anomaly: bool
    anomaly_map: NDArray[np.float32]


class Robot:
    """Drives past things; the alarm is the flag of the frame."""

    def __init__(self, **settings: float) -> None:
        self.watch = IncidentWatch(IncidentSettings(**settings))
        self.now_ns = START_NS
        self._filter = AlarmFilter(AlarmSettings(mode="off"))

    def see(
        self,
        color: Sequence[int] = RED,
        x: float | None = 0.0,
        normalized: float = ABOVE,
        frame_id: str = "map",
        **options: float,
    ) -> AlarmReport:
        """Show a thing in a frame with the alarm on, at a place; None for an unknown one."""
        image, anomaly_map = scene(color, **options)  # type: ignore[arg-type]
        place = Place(problem="no pose")
        if x is not None:
            place = Place(Pose(self.now_ns, frame_id, x, 0.0, 0.0, 0.0), 0.0)
        return self._update(Result(normalized, normalized, True, anomaly_map), image, place)

    def drive_on(self, seconds: float = 10.0) -> None:
        """See nothing for a while."""
        image, anomaly_map = scene(RED)
        result = Result(0.1, 0.1, False, anomaly_map)
        assert self._update(result, image, None) == AlarmReport()
        self.now_ns += round(seconds * SECOND)

    def _update(self, result: Result, image: NDArray[np.uint8], place: Place | None) -> AlarmReport:
        state = self._filter.update(result, stamp_ns=self.now_ns)
        report = self.watch.update(state, result, image, place, self.now_ns)
        self.now_ns += SECOND // 20
        return report


def test_same_look_at_the_same_place_is_a_repeat() -> None:
    robot = Robot()
    assert robot.see().repeat_of is None
    for number in range(2, 6):
        robot.drive_on()
        report = robot.see(x=0.4, gain=0.9)
        assert (report.number, report.repeat_of) == (number, 1)
        assert report.is_quiet
        assert robot.see(x=0.6).repeat_of == 1  # while it lasts
    assert (robot.watch.alarms, robot.watch.repeats) == (5, 4)


@pytest.mark.parametrize(
    "other",
    [
        {"x": 1.5},
        {"color": BLUE},
        {"frame_id": "odom"},
        {"x": None},
    ],
)
def test_other_place_or_look_is_raised(other: dict[str, object]) -> None:
    robot = Robot()
    robot.see()
    robot.drive_on()
    report = robot.see(**other)  # type: ignore[arg-type]
    assert (report.number, report.repeat_of, report.is_quiet) == (2, None, False)
    robot.drive_on()
    assert robot.see().repeat_of == 1  # the first is not forgotten


def test_repeat_that_grows_is_raised_anew_once() -> None:
    robot = Robot()
    robot.see(normalized=0.6)
    robot.drive_on()
    assert robot.see(normalized=0.6).repeat_of == 1
    assert robot.see(normalized=0.65).repeat_of == 1
    grown = robot.see(normalized=0.9)
    assert (grown.number, grown.repeat_of, grown.is_raised_anew) == (2, None, True)
    more = robot.see(normalized=0.95)
    assert (more.repeat_of, more.is_raised_anew) == (None, False)
    assert robot.watch.repeats == 0
    robot.drive_on()
    # From now on it is known as large.
    report = robot.see(normalized=0.93)
    assert (report.repeat_of, report.is_raised_anew) == (2, False)


def test_repeat_that_changes_is_raised_anew() -> None:
    robot = Robot()
    robot.see()
    robot.drive_on()
    assert robot.see(normalized=0.6).repeat_of == 1
    changed = robot.see(BLUE, normalized=0.61)
    assert (changed.repeat_of, changed.is_raised_anew) == (None, True)


def test_thing_that_looks_different_near_by_is_known_by_both_views() -> None:
    robot = Robot()
    robot.see(RED, normalized=0.6)
    robot.see(BLUE, x=0.5, normalized=0.61)
    for color in (RED, BLUE):
        robot.drive_on()
        assert robot.see(color).repeat_of == 1


def test_nothing_is_muted_for_ever() -> None:
    """A thing that is seen every hour is raised anew, counted from when it was raised."""
    robot = Robot(repeat_hours=3.5)
    found = []
    for _ in range(10):
        found.append(robot.see().repeat_of)
        robot.drive_on(3600.0)
    assert found == [None, 1, 1, 1, None, 5, 5, 5, None, 9]
    robot.now_ns = START_NS  # a bag that loops
    robot.drive_on()
    assert robot.see().repeat_of is None


def test_zero_hours_raise_every_alarm() -> None:
    robot = Robot(repeat_hours=0.0)
    for _ in range(3):
        assert robot.see().repeat_of is None
        robot.drive_on()


def test_snoozed_place_is_quiet_until_the_stated_time() -> None:
    robot = Robot(repeat_hours=0.0, snooze_minutes=10.0)
    assert robot.watch.snooze() is None
    robot.see(x=None)
    assert robot.watch.snooze() is None  # nobody knows where
    robot.drive_on()
    robot.see()
    snooze = robot.watch.snooze()
    assert snooze is not None
    seen_ns = robot.now_ns - SECOND // 20
    assert (snooze.since_ns, snooze.until_ns) == (seen_ns, seen_ns + 600 * SECOND)
    assert str(snooze) == "map 0.00 0.00 until 2023-11-14T22:23:30Z"
    robot.drive_on()
    # Whatever it looks like, and however large.
    report = robot.see(BLUE, normalized=0.95)
    assert (report.number, report.snoozed_until_ns) == (3, snooze.until_ns)
    assert report.is_quiet
    robot.drive_on()
    assert not robot.see(x=5.0).is_quiet
    robot.drive_on(600.0)
    assert not robot.see().is_quiet
    assert robot.watch.snoozes == []


def test_snooze_can_be_ended_and_ends_when_time_jumps_back() -> None:
    robot = Robot(repeat_hours=0.0)
    robot.see()
    for _ in range(2):
        robot.watch.snooze()
    assert robot.watch.end_snoozes() == 2
    robot.drive_on()
    assert not robot.see().is_quiet
    robot.watch.snooze()
    robot.now_ns -= 3600 * SECOND
    robot.drive_on()
    assert not robot.see().is_quiet
