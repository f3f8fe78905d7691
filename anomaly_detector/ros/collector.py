"""Collects what a detector node publishes, for demos, benchmarks and tests."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile

from anomaly_detector.ros.detection_message import read_detection

__all__ = ["CollectedDetection", "DetectionCollector"]


@dataclass(frozen=True)
class CollectedDetection:
    """One ``~/detection`` message.

    Attributes:
        stamp_ns: stamp of the image, nanoseconds.
        frame_id: of the image.
        score: anomaly score, exactly the node's float32.
        normalized_score: the score in [0, 1], 0.5 at the threshold.
        threshold: the threshold it was compared with.
        is_anomaly: ``score >= threshold``.
        alarm: the decision over time.
        model: name of the model.
        inference_ms: time in the network, milliseconds.
        received_monotonic: ``time.monotonic()`` on arrival, seconds.
    """

    stamp_ns: int
    frame_id: str
    score: float
    normalized_score: float
    threshold: float
    is_anomaly: bool
    alarm: bool
    model: str
    inference_ms: float
    received_monotonic: float


class DetectionCollector:
    """Receives ``<node>/detection`` in a thread, with an rclpy context of its own.

    Use it as a context manager; it receives from entry to exit.

    Args:
        node_name: the detector node with its namespace, for example ``/anomaly_detector``.
        depth: messages that the middleware keeps while the thread is busy.
    """

    def __init__(self, node_name: str = "/anomaly_detector", *, depth: int = 100) -> None:
        self.topic = f"{node_name.rstrip('/')}/detection"
        self._depth = depth
        self._records: list[CollectedDetection] = []
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()

    def __enter__(self) -> DetectionCollector:
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node(
            f"detection_collector_{os.getpid()}", context=self._context, use_global_arguments=False
        )
        self._subscription = self._node.create_subscription(
            DiagnosticArray, self.topic, self._on_detection, QoSProfile(depth=self._depth)
        )
        self._thread = threading.Thread(target=self._spin, name="detection-collector", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._node.destroy_node()
        if self._context.ok():
            self._context.shutdown()

    def detections(self) -> list[CollectedDetection]:
        """Give what has been received so far, in order of arrival."""
        with self._changed:
            return list(self._records)

    def wait_for(self, count: int, timeout: float) -> bool:
        """Wait until ``count`` detections have been received.

        Args:
            count: including those received before the call.
            timeout: seconds.

        Returns:
            Whether they came in time.

        Raises:
            AnomalyDetectorError: the topic carries something other than detections.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or len(self._records) >= count, timeout)
            if self._error is not None:
                raise self._error
            return len(self._records) >= count

    def wait_for_node(self, timeout: float) -> bool:
        """Wait until the node's publisher is discovered; give whether it was, in ``timeout`` s."""
        deadline = time.monotonic() + timeout
        while not self._node.count_publishers(self.topic):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def _on_detection(self, message: Any) -> None:
        received = time.monotonic()
        record = read_detection(message)
        with self._changed:
            self._records.append(CollectedDetection(**vars(record), received_monotonic=received))
            self._changed.notify_all()

    def _spin(self) -> None:
        executor = SingleThreadedExecutor(context=self._context)
        try:
            executor.add_node(self._node)
            while not self._stop.is_set():
                executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            pass
        except Exception as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            executor.shutdown()
