"""The example that stops a robot: its rule, and the real example beside a real node."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ros_harness import DEADLINE_S, ROOT, Process, RosClient, image_message, node_in, running
from std_msgs.msg import Bool

from anomaly_detector.ros.tools.tool_node import wait_until_found

srvs = pytest.importorskip("std_srvs.srv")
EXAMPLE = ROOT / "examples" / "patrol_guard.py"
GREY, BLACK = np.full((64, 64, 3), 128, np.uint8), np.zeros((64, 64, 3), np.uint8)


def example() -> Any:
    spec = importlib.util.spec_from_file_location("patrol_guard", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(*states: tuple[float, str]) -> str:
    """Return the initials of the steps that states at given seconds lead to."""
    reaction = example().Reaction(resume_seconds=2.0, limit_seconds=10.0, now=0.0)
    return "".join(reaction.update(state, now)[0] for now, state in states)


def test_robot_goes_on_after_ok_without_a_break_only() -> None:
    start = [(0.0, "unknown"), (1.0, "ok"), (3.0, "ok")]
    assert steps(*start) == "llg"
    assert steps(*start, (3.5, "anomaly"), (4.0, "ok")) == "llggg"
    for bad in ("alarm", "unknown"):
        after = [(4.0, bad), (5.0, "ok"), (6.0, "anomaly"), (6.5, "ok"), (8.0, "ok"), (8.5, "ok")]
        assert steps(*start, *after) == "llg" + "lllllg"
        assert steps(*start, (4.0, bad), (13.9, bad), (14.0, bad), (15.0, "ok"), (60.0, "ok")) == (
            "llg" + "ll" + "eee"
        )
    assert steps((0.0, "ok"), (10.0, "ok")) == "lg"
    assert steps((9.0, "ok"), (10.0, "ok")) == "le"


@contextmanager
def guarding(client: RosClient, limit_s: float) -> Iterator[Process]:
    """Run the example, and wait until it has found all that the client has made."""
    settings = {"detector": client.node_name, "resume_seconds": 0.3, "limit_seconds": limit_s}
    command = [sys.executable, str(EXAMPLE), "--ros-args", "-r", "__ns:=/guarded"]
    command += [part for k, v in settings.items() for part in ("-p", f"{k}:={v}")]
    with running(command) as guard:
        assert not wait_until_found(client.node, ["/guarded/patrol_guard"], DEADLINE_S)
        yield guard


def test_real_guard_stops_looks_again_and_calls(model: Path) -> None:
    stops: list[bool] = []
    calls: list[Any] = []

    def called(request: Any, response: Any) -> Any:
        calls.append(request)
        response.success = True
        return response

    with node_in("guarded", model=model, frozen_timeout=0.0, state_timeout=2.0) as client:
        client.node.create_subscription(
            Bool, "/guarded/patrol_guard/stop", lambda m: stops.append(m.data), 10
        )
        client.node.create_service(srvs.Trigger, "/guarded/escalate", called)
        resume = client.node.create_client(srvs.Trigger, "/guarded/patrol_guard/resume")
        with guarding(client, DEADLINE_S):
            film(client, GREY, lambda: stops[-1:] == [False], "the robot to go")
            assert stops[0]  # before it was known that all is well
            film(client, BLACK, lambda: stops[-1:] == [True], "a stop at the alarm")
            film(client, GREY, lambda: stops[-1:] == [False], "the robot to go on")
            # The camera is gone: nothing is known.
            client.spin_until(lambda: stops[-1], "a stop without a camera")
        assert not calls
        with guarding(client, 1.0) as guard:
            client.spin_until(lambda: calls, "a call for help")
            guard.wait_for_line("look -> escalated: unknown ")
            film(client, GREY, lambda: client.listener.state().word == "ok", "all ok")
            count = len(stops)
            film(client, GREY, lambda: len(stops) >= count + 10, "ten more words")
            assert all(stops[count:])
            looks: list[Any] = []

            def goes() -> bool:
                # More than once on a busy machine: the time to look is over soon.
                if len(looks) < guard.output.count("-> escalated"):
                    looks.append(resume.call_async(srvs.Trigger.Request()))
                return not stops[-1]

            film(client, GREY, goes, "the robot to go on")
            client.spin_until(lambda: len(calls) >= len(looks), "a call for each of them")
            assert len(calls) == len(looks)


def film(
    client: RosClient, picture: NDArray[np.uint8], done: Callable[[], bool], what: str
) -> None:
    """Send frames, each with a stamp of its own, until something is so."""
    next_time = 0.0

    def send() -> bool:
        nonlocal next_time
        if time.monotonic() >= next_time:
            client.publisher.publish(client.stamp(image_message(picture, "rgb8")))
            next_time = time.monotonic() + 0.1
        return done()

    client.spin_until(send, what)
