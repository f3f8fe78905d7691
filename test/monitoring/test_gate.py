"""Which frames are scored: the rate, the enable topic and turning."""

from __future__ import annotations

import math

import numpy as np
import pytest
from posed_bags import pose_message

from anomaly_detector.monitoring.gate import FrameGate, GateSettings
from anomaly_detector.poses import POSE_TYPES, Pose, PoseSettings, PoseTrack

SECOND = 10**9


@pytest.mark.parametrize("camera_hz", [4.0, 5.0, 7.0, 12.5, 30.0, 400.0])
@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_average_keeps_the_rate_and_even_cameras_stay_even(camera_hz: float, jitter: float) -> None:
    gate = FrameGate(GateSettings(max_rate_hz=5.0))
    random = np.random.default_rng(0)
    times = (np.arange(60 * camera_hz) + random.uniform(-jitter, jitter, int(60 * camera_hz))) / (
        camera_hz
    )
    taken = [time for time in 100.0 + times if gate.is_due(time)]
    expected = min(camera_hz, 5.0)
    assert len(taken) / 60 == pytest.approx(expected, rel=0.02)
    assert max(np.diff(taken)) < 1 / 5.0 + 1.5 / camera_hz


def test_gap_is_not_made_up_for() -> None:
    gate = FrameGate(GateSettings(max_rate_hz=5.0))
    assert gate.is_due(10.0)
    assert [gate.is_due(60.0 + index / 30) for index in range(5)] == [True] + [False] * 4


def test_another_rate_counts_at_once() -> None:
    gate = FrameGate(GateSettings(max_rate_hz=0.001))
    assert gate.is_due(10.0)
    assert not gate.is_due(10.3)
    gate.use(GateSettings(max_rate_hz=5.0))
    assert gate.is_due(10.3)


def test_no_limit_takes_all() -> None:
    gate = FrameGate(GateSettings())
    assert all(gate.is_due(1.0) for _ in range(100))


def turning(rate: float, hz: float = 20.0, seconds: float = 2.0) -> PoseTrack:
    """Return the poses of a robot that turns, radians a second, from the stamp 0 on."""
    track = PoseTrack(PoseSettings(topic="/odom"))
    for index in range(round(seconds * hz)):
        yaw = math.remainder(3.0 + rate * index / hz, math.tau)
        stamp_ns = SECOND + round(index / hz * SECOND)
        track.see(pose_message(Pose(stamp_ns, "odom", 0.0, 0.0, 0.0, yaw), POSE_TYPES[0]))
    return track


@pytest.mark.parametrize("rate", [-2.0, 0.0, 0.5, 6.0])
def test_turn_rate_is_that_of_the_newest_poses(rate: float) -> None:
    track = turning(rate)
    found = track.turn_rate(2 * SECOND)
    assert found == pytest.approx(rate, abs=1e-6)
    # Older than half a second before the frame, or a single one: nobody knows.
    assert track.turn_rate(4 * SECOND) is None
    assert track.turn_rate(SECOND) is None
    assert turning(rate, seconds=0.05).turn_rate(SECOND) is None


def test_pause_names_its_reason() -> None:
    gate = FrameGate(GateSettings(enable_topic="/go", max_turn_rate=0.5))
    assert gate.pause_reason(2 * SECOND, None) == ""
    assert gate.pause_reason(2 * SECOND, turning(0.4)) == ""
    assert gate.pause_reason(2 * SECOND, turning(-0.8)) == "turning at 0.8 rad/s"
    assert gate.pause_reason(4 * SECOND, turning(-0.8)) == ""
    gate.is_enabled = False
    assert gate.pause_reason(2 * SECOND, turning(-0.8)) == "/go is false"
