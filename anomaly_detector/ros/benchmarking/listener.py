"""The listener of a live benchmark: when each answer of a node arrives in another process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.benchmarking.camera import START_S
from anomaly_detector.ros.tools.tool_node import spinning, tool_node

LISTENER_NAME = "live_listener"


class LiveListener:
    """Receives ``~/score`` and ``~/detection`` in this process, with the time of each arrival.

    ``arrivals`` has stamp and arrival of each detection, ``score_arrivals`` those of the scores,
    by the wall clock; ``diagnostics`` the newest values on /diagnostics.
    """

    def __init__(self) -> None:
        self.arrivals: list[tuple[int, int]] = []
        self.score_arrivals: list[int] = []
        self.diagnostics: dict[str, str] = {}

    def __enter__(self) -> LiveListener:
        with ExitStack() as made:
            self.node = made.enter_context(tool_node(LISTENER_NAME, "a live benchmark"))
            self._subscribe()
            made.enter_context(spinning(self.node))
            self._made = made.pop_all()
        return self

    def _subscribe(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from std_msgs.msg import Float32

        subscribe = self.node.create_subscription
        subscribe(DiagnosticArray, "/anomaly_detector/detection", self._on_detection, 1000)
        subscribe(Float32, "/anomaly_detector/score", self._on_score, 1000)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def answers(self) -> list[tuple[int, int]]:
        """Return the stamp of each answered frame and the time at which its score arrived.

        A score carries no stamp, but both topics are reliable and keep their order, so that the
        n-th score is that of the n-th detection. Should one of them be missing all the same, the
        detection's own arrival, a little later, stands for the score's.
        """
        if len(self.score_arrivals) != len(self.arrivals):
            return list(self.arrivals)
        stamps = (stamp for stamp, _ in self.arrivals)
        return list(zip(stamps, self.score_arrivals, strict=True))

    def _on_detection(self, message: Any) -> None:
        stamp = message.header.stamp
        self.arrivals.append((stamp.sec * 10**9 + stamp.nanosec, time.time_ns()))

    def _on_score(self, _: Any) -> None:
        self.score_arrivals.append(time.time_ns())

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if not status.name.endswith(": detector"):
                continue
            self.diagnostics = {item.key: item.value for item in status.values}

    def wait_for_node(self, node: subprocess.Popen[bytes]) -> None:
        """Wait until the node is active."""
        deadline = time.monotonic() + START_S
        while self.diagnostics.get("State") != "active":
            if node.poll() is not None or time.monotonic() > deadline:
                raise AnomalyDetectorError("the detector node did not become active: see above")
            time.sleep(0.05)

    def settle(self, last_stamp: int) -> None:
        """Wait for the last answers and for diagnostics that count them all."""

        def wait(condition: Callable[[], object], timeout_s: float) -> None:
            deadline = time.monotonic() + timeout_s
            while not condition() and time.monotonic() < deadline:
                time.sleep(0.05)

        wait(lambda: self.arrivals and self.arrivals[-1][0] == last_stamp, 3.0)
        self.diagnostics = {}
        wait(lambda: self.diagnostics, START_S)
