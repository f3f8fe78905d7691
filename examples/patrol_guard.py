"""Stop a robot on alarm, look again, and drive on or call somebody.

    python examples/patrol_guard.py --ros-args -p detector:=/anomaly_detector

Topic ``~/stop`` (std_msgs/Bool), ten times a second: a lock of twist_mux, with a timeout there, so
that the robot stops without this node, too. Service ``escalate`` (std_srvs/Trigger) is called when
looking again does not help; ``~/resume`` (std_srvs/Trigger) is for the person who came.
docs/nav2.md has the ways of nav2.
"""

import time
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from anomaly_detector.ros.state.listener import StateListener


class Reaction:
    """Decides whether the robot may go: ``go``, ``look`` (stopped) or ``escalated`` (stopped).

    It begins with a look. An alarm stops the robot, and so does not knowing: no fresh state is not
    ok. A single anomalous frame does not. The robot goes on when all was ok for some time without a
    break. When that takes too long, it stays until somebody resumes it.
    """

    def __init__(self, resume_seconds: float, limit_seconds: float, now: float) -> None:
        self._resume_s, self._limit_s = resume_seconds, limit_seconds
        self._ok_since: float | None = None
        self.look(now)

    def look(self, now: float) -> None:
        """Begin to look, whatever was before."""
        self.step, self._since, self._ok_since = "look", now, None

    def update(self, state: str, now: float) -> str:
        """Take the state at a time, seconds, into account; return the step."""
        if self.step == "go" and state in ("alarm", "unknown"):
            self.look(now)
        if self.step == "look":
            if state != "ok":
                self._ok_since = None
            elif self._ok_since is None:
                self._ok_since = now
            if self._ok_since is not None and now - self._ok_since >= self._resume_s:
                self.step = "go"
            elif now - self._since >= self._limit_s:
                self.step = "escalated"
        return self.step


class PatrolGuard(Node):
    """Listens to one detector node."""

    def __init__(self) -> None:
        super().__init__("patrol_guard")
        detector = self.declare_parameter("detector", "/anomaly_detector").value
        resume_s = self.declare_parameter("resume_seconds", 3.0).value
        limit_s = self.declare_parameter("limit_seconds", 20.0).value
        self._reaction = Reaction(resume_s, limit_s, time.monotonic())
        self._listener = StateListener(self, detector)
        self._stop = self.create_publisher(Bool, "~/stop", 1)
        self._escalate = self.create_client(Trigger, "escalate")
        self._is_told = False
        self.create_service(Trigger, "~/resume", self._resume)
        self.create_timer(0.1, self._tick)
        self.get_logger().info(f"stopped, until {detector} has been ok for {resume_s:g} s")

    def _tick(self) -> None:
        before = self._reaction.step
        state = self._listener.state()
        step = self._reaction.update(state.word, time.monotonic())
        self._stop.publish(Bool(data=step != "go"))
        if step != before:
            self.get_logger().info(f"{before} -> {step}: {state.word} {state.reason}")
            self._is_told = False
        if step == "escalated" and not self._is_told and self._escalate.service_is_ready():
            self._escalate.call_async(Trigger.Request())
            self._is_told = True

    def _resume(self, _: Any, response: Any) -> Any:
        self._reaction.look(time.monotonic())
        response.success, response.message = True, "looking again"
        return response


def main() -> None:
    """Run the node until Ctrl-C or SIGTERM."""
    rclpy.init()
    node = PatrolGuard()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()


if __name__ == "__main__":
    main()
