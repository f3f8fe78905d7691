"""What a consumer of ``~/state`` knows of a node, by the rule that no fresh state is not ok."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.monitoring.state import DetectorState
from anomaly_detector.ros.graph.distro import SubscriptionEventCallbacks
from anomaly_detector.ros.state.message import StateRecord, read_state, state_qos

FRESH_S = 0.5
"""A state is fresh for this long after it came."""


class StateListener:
    """Subscribes to the ``~/state`` of one node.

    The middleware keeps the newest message for late subscribers, also that of a process that
    hangs. So the first one says nothing until another has come.

    Args:
        node: an ``rclpy.node.Node`` that is spun.
        detector: full name of the detector node.
        on_state: called with each message.
        on_missed: called when the middleware says that a deadline was missed; that is once in each
            :data:`FRESH_S` of silence, after the first message.

    Attributes:
        record: the newest message; None before the first.
    """

    def __init__(
        self,
        node: Any,
        detector: str,
        on_state: Callable[[StateRecord], None] = lambda _: None,
        on_missed: Callable[[], None] = lambda: None,
    ) -> None:
        self.record: StateRecord | None = None
        self._on_state = on_state
        self._came_at: float | None = None
        self._is_sure = self._is_overdue = False
        self._on_missed = on_missed
        self.subscription = node.create_subscription(
            DiagnosticArray,
            f"{detector}/state",
            self._see,
            state_qos(FRESH_S),
            event_callbacks=SubscriptionEventCallbacks(
                deadline=self._miss, use_default_callbacks=False
            ),
        )

    def state(self, now: float | None = None) -> DetectorState:
        """Return the state at a time of the monotonic clock, None for now."""
        now = time.monotonic() if now is None else now
        if self.record is None or self._came_at is None:
            return DetectorState("unknown", "no state", "none has come")
        silent_s = now - self._came_at
        if silent_s > FRESH_S or self._is_overdue:
            return DetectorState("unknown", "no state", f"for {silent_s:.1f} s")
        if not self._is_sure:
            return DetectorState("unknown", "no state", "an old one at most")
        return self.record.state

    def _miss(self, _: Any) -> None:
        self._is_overdue = True
        self._on_missed()

    def _see(self, message: Any) -> None:
        try:
            record = read_state(message)
        except AnomalyDetectorError:
            return  # another kind of message is no state
        now = time.monotonic()
        self._is_sure = self._came_at is not None and now - self._came_at <= FRESH_S
        self._is_overdue = False
        self.record, self._came_at = record, now
        self._on_state(record)
