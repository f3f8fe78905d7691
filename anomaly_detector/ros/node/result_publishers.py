"""The topics that carry a frame's result, made while configured and silent unless active."""

from __future__ import annotations

from array import array as python_array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool, Float32

from anomaly_detector.camera_health.watch import CameraState
from anomaly_detector.model.detector import Detection
from anomaly_detector.model.regions import anomaly_regions
from anomaly_detector.ros.graph.camera_message import write_camera_health
from anomaly_detector.ros.graph.distro import PublisherEventCallbacks
from anomaly_detector.ros.graph.regions_message import Detection2DArray, write_regions
from anomaly_detector.ros.node.detection_message import write_detection
from anomaly_detector.ros.node.event_message import event_text


@dataclass(frozen=True)
class Topic:
    """One topic of the node: its name as the node resolves it, and what it carries.

    A message type of None is not installed here; ``optional_type`` says its name. The newest
    message of a latched one also comes to whoever subscribes later.
    """

    name: str
    message_type: Any
    description: str
    optional_type: str = ""
    is_latched: bool = False

    @property
    def type_name(self) -> str:
        """Its type, also where the package of that is missing."""
        if self.message_type is None:
            return self.optional_type
        return f"{self.message_type.__module__.split('.')[0]}/{self.message_type.__name__}"


TOPICS = (
    Topic("~/score", Float32, "anomaly score, in the model's units"),
    Topic(
        "~/normalized_score",
        Float32,
        "the score in [0, 1], 0.5 at the threshold, alike for every model",
    ),
    Topic("~/anomaly", Bool, "this frame's score is at or above the threshold"),
    Topic(
        "~/alarm",
        Bool,
        "the alarm filter: raised by several anomalous frames or a very high score, cleared "
        "with hysteresis",
    ),
    Topic(
        "~/detection",
        DiagnosticArray,
        "header of the image; one status, level OK or WARN, with score, normalized_score, "
        "threshold, is_anomaly, alarm, model, inference_ms, scene",
    ),
    Topic(
        "~/event",
        DiagnosticArray,
        "start and end of an alarm: header of the frame; one status with event, number, "
        "start_stamp, end_stamp, frames, peak_stamp, peak_score, peak_normalized_score; with "
        "pose_topic the place of the peak: pose_frame, pose_x, pose_y, pose_z, pose_yaw, pose_age, "
        "pose_problem; repeat_of, snoozed_until",
    ),
    Topic(
        "~/regions",
        Detection2DArray,
        "header of the image: one detection per connected hot region of a flagged frame, the "
        "hottest first, with a box in pixels of the camera's frame, a score in [0, 1] and class id "
        "anomaly; where vision_msgs is installed",
        "vision_msgs/Detection2DArray",
    ),
    Topic(
        "~/anomaly_map",
        Image,
        "32FC1, header of the image: where the evidence lies, in the model's units",
    ),
    Topic(
        "~/overlay",
        Image,
        "bgr8, header of the image: heat map over the camera picture, score and state drawn in",
    ),
    Topic("~/overlay/compressed", CompressedImage, "the same as JPEG"),
    Topic(
        "~/camera_health",
        DiagnosticArray,
        "latched, whenever the cause changes: header of the frame; one status, level OK or WARN, "
        "with Cause, Since, Strength, Reference",
        is_latched=True,
    ),
    Topic(
        "~/camera_health/picture/compressed",
        CompressedImage,
        "latched, the frame with which a cause was said, as JPEG",
        is_latched=True,
    ),
)
"""What the node publishes for its frames, in the order in which it is documented."""

INSTALLED_TOPICS = tuple(topic for topic in TOPICS if topic.message_type is not None)
"""Those whose message type is there."""

_LATCHED_TOPICS = frozenset(topic.name for topic in TOPICS if topic.is_latched)

_LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)

_JPEG_QUALITY = 85


class ResultPublishers:
    """The publishers of :data:`TOPICS`.

    Args:
        node: an ``rclpy.lifecycle.LifecycleNode``; the publishers are silent unless it is active.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publishers = {
            topic.name: node.create_lifecycle_publisher(
                topic.message_type,
                topic.name,
                _LATCHED if topic.is_latched else QoSProfile(depth=10),
                # rclpy's own two watch for subscribers of another QoS or type, and are asked at
                # every wake-up of the executor: a third of what it costs. unheard() tells as much.
                event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
            )
            for topic in INSTALLED_TOPICS
        }
        for topic in TOPICS:
            if topic not in INSTALLED_TOPICS:
                package = topic.type_name.split("/")[0]
                node.get_logger().info(
                    f"no {topic.name}: the package {package} is not installed (apt install "
                    f"ros-$ROS_DISTRO-{package.replace('_', '-')})",
                    once=True,
                )

    def destroy(self) -> None:
        """Take the topics out of the graph."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def unheard(self) -> list[Any]:
        """Return the publishers that have subscribers to which nothing gets through."""
        return [
            publisher
            for publisher in self._publishers.values()
            if self._node.count_subscribers(publisher.topic_name)
            > publisher.get_subscription_count()
        ]

    def publish_detection(
        self,
        header: Any,
        detection: Detection,
        alarm: bool,
        node_name: str,
        model: str,
        scene: str,
    ) -> None:
        """Publish the numbers of one frame, with the header of its image."""
        self._publish("~/score", lambda: Float32(data=detection.score))
        self._publish("~/normalized_score", lambda: Float32(data=detection.normalized_score))
        self._publish("~/anomaly", lambda: Bool(data=detection.is_anomaly))
        self._publish("~/alarm", lambda: Bool(data=alarm))
        self._publish(
            "~/detection",
            lambda: write_detection(header, detection, alarm, node_name, model, scene),
        )

    def publish_alarm(self, alarm: bool) -> None:
        """Publish that the alarm is on or off, without a frame."""
        self._publish("~/alarm", lambda: Bool(data=alarm))

    def publish_event(self, message: Any) -> None:
        """Publish a message of :mod:`anomaly_detector.ros.node.event_message`, and log it."""
        self._publish("~/event", lambda: message)
        log = self._node.get_logger()
        if message.status[0].level == DiagnosticStatus.WARN:
            log.warning(event_text(message))
        else:
            log.info(event_text(message))

    def publish_pictures(
        self, header: Any, detection: Detection, overlay: Callable[[], Any]
    ) -> None:
        """Publish regions, map and overlay, each made only where somebody subscribes."""
        self._publish("~/regions", lambda: write_regions(header, anomaly_regions(detection)))
        anomaly_map = detection.anomaly_map
        self._publish("~/anomaly_map", lambda: image_message(header, anomaly_map, "32FC1"))
        raw = self._has_subscribers("~/overlay")
        compressed = self._has_subscribers("~/overlay/compressed")
        if not raw and not compressed:
            return
        picture = overlay()
        if raw:
            self._publish("~/overlay", lambda: image_message(header, picture, "bgr8"))
        if compressed:
            self._publish("~/overlay/compressed", lambda: _jpeg_message(header, picture))

    def publish_camera(
        self,
        header: Any,
        state: CameraState,
        node_name: str,
        has_reference: bool,
        picture: Callable[[], Any],
    ) -> None:
        """Publish that the camera is well or what ails it, with the frame that it was said of."""
        self._publish(
            "~/camera_health",
            lambda: write_camera_health(header, state, node_name, has_reference),
        )
        if state.cause:
            self._publish(
                "~/camera_health/picture/compressed", lambda: _jpeg_message(header, picture())
            )

    def _has_subscribers(self, name: str) -> bool:
        return bool(self._publishers[name].get_subscription_count())

    def _publish(self, name: str, make: Callable[[], Any]) -> None:
        # Nobody can tell the difference, but for the latched topics. Making the messages costs more
        # than scoring a frame does on a small model.
        publisher = self._publishers.get(name)
        if publisher is not None and (
            name in _LATCHED_TOPICS or publisher.get_subscription_count()
        ):
            publisher.publish(make())


def image_message(header: Any, array: NDArray[Any], encoding: str) -> Any:
    """Make a ``sensor_msgs/Image`` of an array [H, W] or [H, W, C]."""
    array = np.ascontiguousarray(array)
    message = Image(header=header, height=array.shape[0], width=array.shape[1], encoding=encoding)
    message.step = array.strides[0]
    message.data = _to_array(array)
    return message


def _jpeg_message(header: Any, picture: NDArray[np.uint8]) -> Any:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    message = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
    message.data = _to_array(data)
    return message


def _to_array(array: NDArray[Any]) -> Any:
    """Return the bytes of a contiguous array as rclpy takes them as they are.

    It would look at ``bytes`` item by item.
    """
    data = python_array("B")
    data.frombytes(array.data.cast("B"))
    return data
