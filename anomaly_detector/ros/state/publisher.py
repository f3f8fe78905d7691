"""Publishes ``~/state`` from a thread of its own, so that nothing the node does can delay it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray

from anomaly_detector.errors import describe_error
from anomaly_detector.monitoring.state import STATE_PERIOD_S
from anomaly_detector.ros.graph.distro import PublisherEventCallbacks
from anomaly_detector.ros.state.message import OFFERED_DEADLINE_S, STATE_TOPIC, state_qos


class StatePublisher:
    """Publishes what ``write`` returns, again and again until :meth:`close`.

    Not a timer of rclpy: one in the node's executor waits for a frame that is being scored, one in
    another executor costs more than it publishes.

    Args:
        node: an ``rclpy.node.Node``.
        write: makes the message of a moment, seconds of the monotonic clock; called from the
            thread. Where it fails, nothing is published: who listens takes that for unknown.

    Attributes:
        publisher: of the topic.
    """

    def __init__(self, node: Any, write: Callable[[float], Any]) -> None:
        self._node = node
        self._write = write
        self._is_ended = threading.Event()
        self.publisher = node.create_publisher(
            DiagnosticArray,
            STATE_TOPIC.name,
            state_qos(OFFERED_DEADLINE_S),
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
        )
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._thread.start()

    def unheard(self) -> list[Any]:
        """Return the publisher when it has subscribers to which nothing gets through."""
        publisher = self.publisher
        count = self._node.count_subscribers(publisher.topic_name)
        return [publisher] if count > publisher.get_subscription_count() else []

    def close(self) -> None:
        """Fall silent and take the topic out of the graph, with the message that it keeps."""
        self._is_ended.set()
        if self._thread.is_alive():
            self._thread.join()
            if self._node.context.ok():
                self._node.destroy_publisher(self.publisher)

    def _run(self) -> None:
        has_failed = False
        due = time.monotonic()
        while not self._is_ended.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            due = max(due + STATE_PERIOD_S, now)
            try:
                self.publisher.publish(self._write(now))
            except Exception as error:
                if not self._node.context.ok():
                    return  # a signal, or somebody, took the topics away
                if not has_failed:
                    has_failed = True
                    self._node.get_logger().error(f"~/state is silent: {describe_error(error)}")


class ClockWatch:
    """Tells for how long a node's simulated time has stood still; any other clock runs."""

    def __init__(self, node: Any) -> None:
        self._clock = node.get_clock()
        self._newest_ns = -1
        self._since = 0.0

    def stopped_s(self, now: float) -> float:
        """Return the time since it moved, by a monotonic clock; to be asked often."""
        time_ns = self._clock.now().nanoseconds if self._clock.ros_time_is_active else None
        if time_ns is None or time_ns != self._newest_ns:
            self._newest_ns, self._since = -1 if time_ns is None else time_ns, now
        return now - self._since
