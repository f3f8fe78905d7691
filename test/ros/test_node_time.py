"""Stamps and clocks: simulated time, bags that loop, stamps of zero and from the future."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_harness import RosClient, image_message, node_in, ros_client, running_node
from rosgraph_msgs.msg import Clock

from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.node.event_message import read_event
from anomaly_detector.ros.node.status_message import status_values

BLACK = np.zeros((64, 64, 3), np.uint8)  # score 16384
GREY = np.full((64, 64, 3), 128, np.uint8)  # score 0
START_S = 1_000


def message_at(picture: Any, sec: int, nanosec: int = 0) -> Any:
    message = image_message(picture, "rgb8")
    message.header.frame_id = "camera"
    message.header.stamp.sec = sec
    message.header.stamp.nanosec = nanosec
    return message


class SimulatedRobot:
    """A client that also publishes /clock."""

    def __init__(self, client: RosClient) -> None:
        self.client = client
        self.clock = client.node.create_publisher(Clock, "/clock", 10)
        client.spin_until(self.clock.get_subscription_count, "the node")
        client.wait_until_found()

    def set_time(self, sec: int) -> None:
        """Publish a time on /clock, seconds."""
        message = Clock()
        message.clock.sec = sec
        self.clock.publish(message)


@pytest.fixture(scope="module")
def robot(model: Path) -> Iterator[SimulatedRobot]:
    with (
        running_node(
            model=model, use_sim_time="true", diagnostics_period=0.2, alarm_immediate_level=1.0
        ),
        ros_client() as client,
    ):
        yield SimulatedRobot(client)


def test_without_clock_frames_are_scored_and_the_silence_is_reported(robot: SimulatedRobot) -> None:
    answer = robot.client.ask(message_at(GREY, START_S))
    assert read_detection(answer).score == 0.0
    robot.client.publish_until_status(
        message_at(GREY, START_S, 1), lambda s: "/clock" in s.message, "a warning about /clock"
    )
    robot.client.wait_for_state("unknown", "clock stopped")


def test_clock_that_stops_makes_the_state_unknown(robot: SimulatedRobot) -> None:
    client = robot.client
    clock = iter(range(START_S, START_S + 10_000))
    frame = message_at(GREY, START_S)
    began_ns = time.time_ns()

    def runs() -> bool:
        robot.set_time(next(clock))
        return client.listener.state().word == "ok"

    client.publish_until(frame, runs, "ok while the clock runs")
    running = client.states[-1]
    # The camera goes on, and the stamps of the states do not stop with the clock.
    stopped = client.wait_for_state("unknown", "clock stopped", frame)
    assert stopped.alarm is False
    assert running.stamp_ns is not None
    assert stopped.stamp_ns is not None
    assert began_ns < running.stamp_ns < stopped.stamp_ns


def test_clock_that_jumps_back_resets_the_alarm_filter(robot: SimulatedRobot) -> None:
    client = robot.client
    robot.set_time(START_S + 10)
    assert alarm_after_frames(client, START_S + 10)
    client.events.clear()
    client.logs.clear()

    def has_ended() -> bool:
        robot.set_time(START_S)  # again: what comes on /clock may be missed
        return "end" in kinds(client)

    client.spin_until(has_ended, "the end of the alarm")
    client.wait_for_log("time jumped back")
    # One anomalous frame proves nothing again: what was counted before is forgotten.
    assert not read_detection(client.ask(message_at(BLACK, START_S, 2))).alarm


def kinds(client: RosClient) -> list[str]:
    return [read_event(event).kind for event in client.events]


def alarm_after_frames(client: RosClient, sec: int) -> bool:
    """Send six anomalous frames, which raise the alarm; return whether it is on."""
    for index in range(6):
        answer = client.ask(message_at(BLACK, sec, 1_000_000 * (index + 1)))
    return read_detection(answer).alarm


def test_stamps_that_jump_back_reset_the_alarm_filter(robot: SimulatedRobot) -> None:
    client = robot.client
    assert alarm_after_frames(client, START_S + 100)
    client.events.clear()
    assert not read_detection(client.ask(message_at(BLACK, START_S + 50))).alarm
    client.spin_until(lambda: "end" in kinds(client), "the end of the alarm")


def test_event_carries_start_end_and_peak(robot: SimulatedRobot) -> None:
    client = robot.client
    for index in range(10):  # no alarm is on
        client.ask(message_at(GREY, START_S + 199, 1_000_000 * (index + 1)))
    client.events.clear()
    assert alarm_after_frames(client, START_S + 200)
    client.spin_until(lambda: len(client.events) == 1, "the start")
    start = read_event(client.events[0])
    assert start.kind == "start"
    assert start.start_stamp == f"{START_S + 200}.006000000"
    assert client.events[0].header.stamp.sec == START_S + 200
    for index in range(10):
        client.ask(message_at(GREY, START_S + 201, 1_000_000 * (index + 1)))
    client.spin_until(lambda: len(client.events) == 2, "the end")
    end = read_event(client.events[1])
    assert (end.kind, end.number) == ("end", start.number)
    assert end.start_stamp == start.start_stamp
    assert end.end_stamp == f"{START_S + 201}.009000000"
    assert end.frames == 10
    assert end.peak_score == 16384.0
    assert end.peak_stamp == start.start_stamp


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[RosClient]:
    """A client of a node that lives in real time, with alarms in seconds.

    Hints are not said of a camera that counts as stopped.
    """
    settings = {"diagnostics_period": 0.2, "alarm_mode": "seconds", "stale_timeout": 60.0}
    with node_in("real", model=model, **settings) as client:
        yield client


def test_zero_stamp_is_scored_and_reported(client: RosClient) -> None:
    answer = client.ask(message_at(GREY, 0))
    assert answer.header.stamp.sec == 0
    client.wait_for_diagnostics(
        lambda s, v: int(v["Frames without stamp"]) > 0 and "no time stamp" in s.message, "a hint"
    )


def test_stamp_from_the_future_is_scored_and_reported(client: RosClient) -> None:
    client.ask(message_at(GREY, int(time.time()) + 3600))
    client.wait_for_diagnostics(
        lambda s, v: int(v["Frames from the future"]) > 0 and "ahead of" in s.message, "a hint"
    )


def test_recent_stamps_tell_the_queueing_delay(client: RosClient) -> None:
    now = time.time_ns()
    client.ask(message_at(GREY, now // 10**9, now % 10**9))
    status = client.wait_for_diagnostics(
        lambda _, v: v["Queueing delay p50 (ms)"] != "unknown", "a delay"
    )
    assert 0 <= float(status_values(status)["Queueing delay p50 (ms)"]) < 60_000


@pytest.mark.parametrize(("sec", "nanosec"), [(-5, 0), (10, 1_000_000_000), (10, 4_294_967_295)])
def test_stamp_that_is_no_time_is_scored_and_reported(
    client: RosClient, sec: int, nanosec: int
) -> None:
    status = client.wait_for_diagnostics(lambda s, v: True, "the count before")
    before = int(status_values(status)["Frames without stamp"])
    answer = client.ask(message_at(GREY, sec, nanosec))
    assert (answer.header.stamp.sec, answer.header.stamp.nanosec) == (sec, nanosec)
    client.wait_for_diagnostics(
        lambda s, v: int(v["Frames without stamp"]) > before and "no time stamp" in s.message,
        "a hint",
    )
