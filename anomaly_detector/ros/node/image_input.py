"""The node's subscription to its camera, for as long as it is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.exceptions import ParameterException
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.ros.graph.distro import (
    SubscriptionEventCallbacks,
    image_callback,
    publisher_identity,
)
from anomaly_detector.ros.graph.silence import type_name
from anomaly_detector.ros.node.watchers import ImageWatcher


class ImageInput:
    """Subscribes to ``image`` or ``image/compressed``; gives ``process`` each message.

    ``process`` gets its publisher and number, too, and returns the seconds since the one before.

    Raises:
        AnomalyDetectorError: a bad ``qos_overrides`` parameter.
    """

    def __init__(
        self,
        node: Any,
        transport: str,
        process: Callable[[Any, bytes, int | None], float | None],
    ) -> None:
        self._node = node
        self._process = process
        self._is_open = True
        self.watcher = ImageWatcher(node)
        compressed = transport == "compressed"
        topic = "image/compressed" if compressed else "image"
        try:
            self._images = self.watcher.images = node.create_subscription(
                CompressedImage if compressed else Image,
                topic,
                image_callback(self._on_image),
                # Best effort matches every camera; depth 1 makes the newest frame win when the
                # robot is too slow for all of them.
                QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_other_qos),
            )
        # RuntimeError: what rclpy raises for a policy name that it does not know.
        except (InvalidQosOverridesError, ParameterException, RuntimeError) as error:
            raise AnomalyDetectorError(
                f"cannot subscribe to {node.resolve_topic_name(topic)}, see its qos_overrides "
                f"parameters: {as_one_line(error)}"
            ) from error

    @property
    def description(self) -> str:
        """Type and topic of the images."""
        return f"{type_name(self._images.msg_type)} on {self._images.topic_name}"

    def close(self) -> None:
        """End the subscription; what the executor has taken from it already is left out."""
        self._is_open = False
        self._node.destroy_subscription(self._images)

    def _on_other_qos(self, _: Any) -> None:
        self.watcher.has_other_qos = True

    def _on_image(self, message: Any, info: Any) -> None:
        if not self._is_open:
            return
        publisher, number = publisher_identity(
            info, lambda: self._node.count_publishers(self._images.topic_name)
        )
        gap_s = self._process(message, publisher, number)
        if self.watcher.is_silent:
            self.watcher.end_silence(gap_s)
