"""The example that stops a robot: its rule, and the real example beside a real node."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ros_harness import ROOT, RosClient, image_message, node_in, running
from std_msgs.msg import Bool

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


def test_real_guard_stops_looks_again_and_calls(model: Path) -> None:
    options = {"resume_seconds": 0.3, "limit_seconds": 5.0}
    settings = [part for k, v in options.items() for part in ("-p", f"{k}:={v}")]
    command = [sys.executable, str(EXAMPLE), "--ros-args", "-r", "__ns:=/guarded", *settings]
    detector = ["-p", "detector:=/guarded/anomaly_detector"]
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
        with running([*command, *detector]) as guard:
            client.spin_until(lambda: stops, "the guard")
            resume = client.node.create_client(srvs.Trigger, "/guarded/patrol_guard/resume")
            client.spin_until(resume.service_is_ready, "the service")
            # The guard may take long to find the detector, and to be heard.
            film(client, GREY, lambda: client.listener.state().word == "ok", "all ok")
            film(client, GREY, resume.call_async(srvs.Trigger.Request()).done, "a look")
            film(client, GREY, lambda: stops[-1:] == [False], "the robot to go")
            assert stops[0]  # before it was known that all is well
            calls.clear()
            film(client, BLACK, lambda: stops[-1:] == [True], "a stop at the alarm")
            film(client, GREY, lambda: stops[-1:] == [False], "the robot to go on")
            assert not calls
            # The camera is gone: nothing is known.
            client.spin_until(lambda: stops[-1], "a stop without a camera")
            client.spin_until(lambda: calls, "a call for help")
            guard.wait_for_line("look -> escalated: unknown ")
            film(client, GREY, lambda: client.listener.state().word == "ok", "all ok")
            count = len(stops)
            film(client, GREY, lambda: len(stops) >= count + 10, "ten more words")
            assert all(stops[count:])
            future = resume.call_async(srvs.Trigger.Request())
            film(client, GREY, lambda: future.done() and not stops[-1], "the robot to go on")
            assert len(calls) == 1


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
