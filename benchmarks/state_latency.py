"""Time until ``~/state`` tells that camera, node, participant or clock is gone.

    python -m benchmarks.state_latency
    python -m benchmarks.state_latency --rounds 20 --json state.json

A real node in a process of its own gets frames (and the clock) until its state is known. Then one
thing stops, and the time to the first ``unknown``, or to the missed deadline, counts:

- camera: no more frames.
- node: its process is killed (SIGKILL), and with it its DDS participant.
- hung: its process is stopped (SIGSTOP): the participant is there and mute.
- clock: with use_sim_time, /clock stands still while the camera goes on.

Exit code 1 when one takes a second or longer.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomaly_detector.benchmarking.camera import camera_frame
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.benchmarking.camera import publish_now, ros_message
from anomaly_detector.ros.benchmarking.live import NODE_COMMAND
from anomaly_detector.ros.tools.tool_node import domain_id, tool_node
from benchmarks.common import judge, options, print_table, run

BAR_S = 1.0
_START_S = 60.0
_FRAME_S = 1 / 30
_DEATHS = ("camera", "node", "hung", "clock")


class Robot:
    """A node in a process, and what sends frames and time to it and listens to its state."""

    def __init__(self, node: Any, model: Path, sim_time: bool) -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rosgraph_msgs.msg import Clock

        from anomaly_detector.ros.state.listener import StateListener

        self.has_camera = self.has_clock = True
        self._message = ros_message(camera_frame(0, 160, 120))
        self._images = node.create_publisher(type(self._message), "/image", 1)
        self._clock_type = Clock
        self._clock = node.create_publisher(Clock, "/clock", 1) if sim_time else None
        self._listener = StateListener(node, "/anomaly_detector")
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._next = time.monotonic()
        parameters = [f"model:={model}", f"use_sim_time:={str(sim_time).lower()}"]
        # The one frame that is sent again and again is no hung camera here.
        parameters += ["frozen_timeout:=0.0"]
        arguments = [part for parameter in parameters for part in ("-p", parameter)]
        self.process = subprocess.Popen([*NODE_COMMAND, *arguments, "--log-level", "error"])

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._executor.shutdown()

    def wait_until(self, is_known: bool) -> float:
        """Go on until the state is known, or unknown; return the seconds that it took."""
        start = time.monotonic()
        while (self._listener.state().word != "unknown") != is_known:
            now = time.monotonic()
            if now - start > _START_S:
                raise AnomalyDetectorError(f"the state is still {self._listener.state().text}")
            if now >= self._next:
                self._next = now + _FRAME_S
                self._send()
            self._executor.spin_once(timeout_sec=max(0.0, min(self._next - now, 0.01)))
        return time.monotonic() - start

    def _send(self) -> None:
        if self.has_camera:
            publish_now(self._images, self._message)
        if self._clock is not None and self.has_clock:
            message = self._clock_type()
            message.clock.sec, message.clock.nanosec = divmod(time.time_ns(), 10**9)
            self._clock.publish(message)


def latency(model: Path, death: str) -> float:
    """Start a node, let one thing die, and return the seconds until that is known."""
    with (
        tool_node("state_latency", "this benchmark") as node,
        Robot(node, model, sim_time=death == "clock") as robot,
    ):
        robot.wait_until(True)
        deaths: dict[str, Callable[[], None]] = {
            "camera": lambda: setattr(robot, "has_camera", False),
            "clock": lambda: setattr(robot, "has_clock", False),
            "node": robot.process.kill,
            "hung": lambda: robot.process.send_signal(signal.SIGSTOP),
        }
        deaths[death]()
        return robot.wait_until(False)


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure each death some times."""
    os.environ["ROS_DOMAIN_ID"] = str(domain_id())
    figures: dict[str, list[float]] = {}

    def rows() -> Any:
        for death in _DEATHS:
            times = sorted(latency(arguments.model, death) for _ in range(arguments.rounds))
            figures[death] = times
            yield death, f"{times[len(times) // 2]:.2f} s", f"{times[-1]:.2f} s"

    print_table(("gone", "median", "longest"), rows())
    worst = max(map(max, figures.values()))
    return {"seconds": figures}, judge({f"all within {BAR_S:g} s: {worst:.2f} s": worst < BAR_S})


def main() -> int:
    """Run the command line and return the exit code."""
    parser = options(__doc__, "--model")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (%(default)s)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
