"""Warnings in the node's log: silence, lost images, a frozen picture, other QoS, jumps of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.utilities import get_rmw_implementation_identifier

from anomaly_detector.monitoring.health import HealthLimits, is_frozen
from anomaly_detector.monitoring.statistics import StatisticsReport
from anomaly_detector.ros.graph.image_loss import explain_loss
from anomaly_detector.ros.graph.silence import (
    explain_incompatible_qos,
    explain_silence,
    explain_unheard,
    type_name,
)

NO_IMAGE_WARNING_PERIOD_S = 5.0

LOSS_CHECK_S = 10.0
"""From the first image on; diagnostics report later losses."""


class ImageWatcher:
    """Watches what comes on one subscription to the camera, which is set before the first check.

    ``since`` is the start of the watch by the steady clock. The middleware sets ``has_other_qos``
    when a publisher's QoS does not fit; its name is in the graph later.
    """

    def __init__(self, node: Any) -> None:
        self.images: Any = None
        self.since = time.monotonic()
        self.is_silent = False
        self.has_other_qos = False
        self._node = node
        self._warned_at = 0.0
        self._is_frozen = False
        self._checks_loss = True
        self._first_image_at: float | None = None

    def check(
        self,
        report: StatisticsReport,
        limits: HealthLimits,
        image_bytes: int,
        now: float,
        awake_s: float,
    ) -> None:
        """Log what is wrong, or well again, by a report of the time ``now`` of the steady clock.

        The node has not stood still for ``awake_s``: silence before that was its own.
        """
        self._check_silence(report, limits, now, awake_s)
        self._check_loss(report, limits, image_bytes, now)
        self._check_frozen(report, limits)
        if self.has_other_qos and (text := explain_incompatible_qos(self._node, self.images)):
            self.has_other_qos = False
            self._warn(text)

    def end_silence(self, gap_s: float | None) -> None:
        """Log that images come again, after a gap in seconds where there was one before."""
        self.is_silent = False
        after = "" if gap_s is None else f" after {gap_s:.1f} s"
        self._node.get_logger().info(f"images on {self.images.topic_name} again{after}")

    def _check_silence(
        self, report: StatisticsReport, limits: HealthLimits, now: float, awake_s: float
    ) -> None:
        silent_s = now - self.since if report.age_s is None else report.age_s
        if min(silent_s, awake_s) <= limits.stale_timeout or (
            self.is_silent and now - self._warned_at < NO_IMAGE_WARNING_PERIOD_S
        ):
            return
        self.is_silent, self._warned_at = True, now
        self._warn(
            f"no image ({type_name(self.images.msg_type)}) on {self.images.topic_name} for "
            f"{silent_s:.1f} s: {explain_silence(self._node, self.images)}"
        )

    def _check_loss(
        self, report: StatisticsReport, limits: HealthLimits, image_bytes: int, now: float
    ) -> None:
        """Warn once when images get lost on their way from the start."""
        if not self._checks_loss or not report.recent_received:
            return
        if self._first_image_at is None:
            self._first_image_at = now
        loss = explain_loss(
            report,
            limits.expected_rate,
            self.images.topic_name,
            image_bytes,
            get_rmw_implementation_identifier(),
        )
        if loss is not None:
            self._warn(loss)
        self._checks_loss = loss is None and now - self._first_image_at < LOSS_CHECK_S

    def _check_frozen(self, report: StatisticsReport, limits: HealthLimits) -> None:
        """Warn once when the camera repeats itself, which no score of a single frame shows."""
        was_frozen, self._is_frozen = self._is_frozen, is_frozen(report.unchanged_s, limits)
        if self._is_frozen and not was_frozen:
            self._warn(
                f"every image on {self.images.topic_name} for {report.unchanged_s:.1f} s shows "
                "the same picture: restart the camera driver if it hangs (frozen_timeout: 0 where "
                "a simulated camera may stand still)"
            )
        elif was_frozen and not self._is_frozen:
            self._node.get_logger().info(f"the picture on {self.images.topic_name} changes again")

    def _warn(self, text: str) -> None:
        self._node.get_logger().warning(text)


class ResultWatcher:
    """Warns once of each reason why a result does not reach a subscriber."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._logged: set[str] = set()

    def check(self, unheard: Iterable[Any]) -> None:
        """Look at publishers that have subscribers to which nothing gets through."""
        for publisher in unheard:
            # Empty while the two ends are still finding each other.
            reason = explain_unheard(self._node, publisher)
            if reason and reason not in self._logged:
                self._logged.add(reason)
                self._node.get_logger().warning(reason)


class ClockWatcher:
    """Logs when the node's time jumps back or another clock counts; then calls ``start_afresh``."""

    def __init__(self, node: Any, start_afresh: Callable[[], None]) -> None:
        def on_jump_back(_: Any) -> None:
            node.get_logger().warning("time jumped back: the alarm filter starts afresh")
            start_afresh()

        def on_other_clock(_: Any) -> None:
            node.get_logger().info(
                "use_sim_time was set: another clock counts, the alarm filter starts afresh"
            )
            start_afresh()

        a_nanosecond = Duration(nanoseconds=-1)
        back = JumpThreshold(min_forward=None, min_backward=a_nanosecond, on_clock_change=False)
        other = JumpThreshold(min_forward=None, min_backward=None, on_clock_change=True)
        watch = node.get_clock().create_jump_callback
        # Kept: a callback lives as long as its handle.
        self._handles = [
            watch(back, post_callback=on_jump_back),
            watch(other, post_callback=on_other_clock),
        ]
