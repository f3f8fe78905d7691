"""The node's subscription to the robot's pose, whose type it finds in the graph."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.poses import POSE_TYPES, PoseSettings, PoseTrack

_LOOK_S = 0.5
"""How often the publishers are looked at: a localisation may start, or start anew, at any time."""

_KEEP_S = 10.0
"""Frames are not older than this when they are scored."""


class PoseInput:
    """Subscribes to the topic of the settings as soon as it has a publisher of poses.

    Attributes:
        track: the poses so far, or why there is none.

    Raises:
        AnomalyDetectorError: the topic has no name that can be.
    """

    def __init__(self, node: Any, settings: PoseSettings) -> None:
        self.track = PoseTrack(settings, _KEEP_S)
        self._node = node
        try:
            self._topic = node.resolve_topic_name(settings.topic)
        except RuntimeError as error:
            reason = as_one_line(error).partition(", at ")[0]  # of rcl's source
            raise AnomalyDetectorError(f"pose_topic is {settings.topic!r}: {reason}") from error
        self._subscription: Any = None
        self._kind: tuple[str, bool] | None = None
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_LOOK_S, self._look, clock=clock)
        self._look()

    def close(self) -> None:
        """End the subscription."""
        self._node.destroy_timer(self._timer)
        self._unsubscribe()

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def _look(self) -> None:
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        types = {info.topic_type for info in publishers}
        wanted = [kind for kind in POSE_TYPES if kind in types]
        if not wanted:
            if types:
                self.track.refuse(
                    f"{self._topic} has {', '.join(sorted(types))}: give pose_topic a topic of "
                    f"{', '.join(POSE_TYPES)}"
                )
            return
        # AMCL sends a pose only when the robot has moved, and keeps the last one for who asks.
        is_kept = all(
            info.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
            for info in publishers
            if info.topic_type == wanted[0]
        )
        if self._kind != (wanted[0], is_kept):
            self._kind = wanted[0], is_kept
            self._subscribe(wanted[0], is_kept)

    def _subscribe(self, kind: str, is_kept: bool) -> None:
        self._unsubscribe()
        package, _, name = kind.split("/")
        try:
            message_type = getattr(import_module(f"{package}.msg"), name)
        except ImportError:
            self.track.refuse(f"{kind} on {self._topic} needs the package {package}: install it")
            return
        qos = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        if is_kept:
            qos.reliability = QoSReliabilityPolicy.RELIABLE
            qos.durability = QoSDurabilityPolicy.TRANSIENT_LOCAL
        self._subscription = self._node.create_subscription(
            message_type, self._topic, self.track.see, qos
        )
        self._node.get_logger().info(f"poses: {kind} on {self._subscription.topic_name}")
