"""The node's subscription to the topic that pauses detection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anomaly_detector.ros.graph.found_topic import FoundTopic


class EnableInput(FoundTopic):
    """Gives ``enable`` the value of each ``std_msgs/Bool``; logs a topic of another type once.

    Raises:
        AnomalyDetectorError: the topic has no name that can be.
    """

    def __init__(self, node: Any, topic: str, enable: Callable[[bool], None]) -> None:
        refused: set[str] = set()

        def refuse(reason: str) -> None:
            if reason not in refused:
                refused.add(reason)
                node.get_logger().warning(reason)

        super().__init__(
            node,
            "enable_topic",
            topic,
            ("std_msgs/msg/Bool",),
            lambda message: enable(bool(message.data)),
            refuse,
        )
