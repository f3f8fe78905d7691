"""A subscription to a topic that a parameter names, whose type and QoS are found in the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from anomaly_detector.errors import AnomalyDetectorError, as_one_line

_LOOK_S = 0.5
"""How often the publishers are looked at: one may start, or start anew, at any time."""


class FoundTopic:
    """Subscribes as soon as the topic has a publisher of one of some types.

    Args:
        node: an ``rclpy.node.Node``.
        parameter: name of the parameter, for messages.
        topic: its value.
        types: full names of types of messages, the first that is found wins.
        on_message: called with each message.
        refuse: called with the reason when the topic has other types, or theirs is not installed.

    Raises:
        AnomalyDetectorError: the topic has no name that can be.
    """

    def __init__(
        self,
        node: Any,
        parameter: str,
        topic: str,
        types: Sequence[str],
        on_message: Callable[[Any], None],
        refuse: Callable[[str], None],
    ) -> None:
        self._node = node
        self._parameter = parameter
        try:
            self._topic = node.resolve_topic_name(topic)
        except RuntimeError as error:
            reason = as_one_line(error).partition(", at ")[0]  # of rcl's source
            raise AnomalyDetectorError(f"{parameter} is {topic!r}: {reason}") from error
        self._types = types
        self._on_message = on_message
        self._refuse = refuse
        self._subscription: Any = None
        self._kind: tuple[str, bool, bool] | None = None
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
        wanted = [kind for kind in self._types if kind in types]
        if not wanted:
            if types:
                self._refuse(
                    f"{self._topic} has {', '.join(sorted(types))}: give {self._parameter} a topic "
                    f"of {', '.join(self._types)}"
                )
            return
        profiles = [info.qos_profile for info in publishers if info.topic_type == wanted[0]]
        # A latched topic, such as AMCL's, keeps the last message for who asks.
        is_kept = all(qos.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for qos in profiles)
        is_reliable = all(qos.reliability == QoSReliabilityPolicy.RELIABLE for qos in profiles)
        if self._kind != (wanted[0], is_kept, is_reliable):
            self._kind = wanted[0], is_kept, is_reliable
            self._subscribe(*self._kind)

    def _subscribe(self, kind: str, is_kept: bool, is_reliable: bool) -> None:
        self._unsubscribe()
        package, _, name = kind.split("/")
        try:
            message_type = getattr(import_module(f"{package}.msg"), name)
        except ImportError:
            self._refuse(f"{kind} on {self._topic} needs the package {package}: install it")
            return
        qos = QoSProfile(depth=10)
        if is_kept:
            qos.durability = QoSDurabilityPolicy.TRANSIENT_LOCAL
        if not is_reliable:
            qos.reliability = QoSReliabilityPolicy.BEST_EFFORT
        self._subscription = self._node.create_subscription(
            message_type, self._topic, self._on_message, qos
        )
        self._node.get_logger().info(
            f"{self._parameter}: {kind} on {self._subscription.topic_name}"
        )
