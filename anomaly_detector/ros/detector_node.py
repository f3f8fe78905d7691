"""The detector node: images in, scores out.

Subscribes to ``image`` (or ``image/compressed``), publishes ``~/score``, ``~/anomaly``,
``~/alarm`` and ``~/detection``. It only translates messages: decoding, scoring and deciding is the
core's work.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import (
    QoSCompatibility,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool, Float32

from anomaly_detector.decision import DecisionFilter
from anomaly_detector.detector import Detector
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.image import decode_compressed, decode_image
from anomaly_detector.resources import resolve_model
from anomaly_detector.ros.detection_message import stamp_to_ns, write_detection
from anomaly_detector.ros.parameters import declare_parameters

__all__ = ["NODE_NAME", "DetectorNode", "main"]

NODE_NAME = "anomaly_detector"

BAD_FRAME_LOG_PERIOD_S = 2.0
NO_IMAGE_WARNING_PERIOD_S = 5.0


class DetectorNode(Node):
    """Scores each image it receives.

    Construction declares the parameters; :meth:`configure` loads the model and opens the topics.

    Args:
        **node_options: keyword arguments of ``rclpy.node.Node``: ``context``, ``namespace``,
            ``parameter_overrides``, ...

    Raises:
        AnomalyDetectorError: a parameter has a bad value.
    """

    def __init__(self, **node_options: Any) -> None:
        try:
            super().__init__(NODE_NAME, **node_options)
        except ParameterException as error:  # use_sim_time is rclpy's own parameter
            raise AnomalyDetectorError(" ".join(str(error).split())) from error
        self._settings = declare_parameters(self)
        self._received = 0
        self._dropped = 0
        self._received_at_last_check = 0

    def configure(self) -> None:
        """Load the model, then open the topics: no image arrives before it can be scored.

        Raises:
            AnomalyDetectorError: the model cannot be found or used, or a QoS override is bad.
        """
        settings = self._settings
        self._detector = detector = Detector(
            resolve_model(settings.model),
            providers=settings.providers,
            intra_op_threads=settings.intra_op_threads,
            threshold=settings.threshold,
        )
        self._model_name = detector.metadata.name
        self._decisions = DecisionFilter(settings.decision)
        results = QoSProfile(depth=10)
        self._score_publisher = self.create_publisher(Float32, "~/score", results)
        self._anomaly_publisher = self.create_publisher(Bool, "~/anomaly", results)
        self._alarm_publisher = self.create_publisher(Bool, "~/alarm", results)
        self._detection_publisher = self.create_publisher(DiagnosticArray, "~/detection", results)
        if settings.image_transport == "compressed":
            self._subscribe(CompressedImage, "image/compressed", decode_compressed)
        else:
            self._subscribe(Image, "image", decode_image)
        # A steady clock, not the node's: with use_sim_time and no /clock the hint matters most.
        self._image_check = self.create_timer(
            NO_IMAGE_WARNING_PERIOD_S,
            self._check_images,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self.get_logger().info(
            f"model {self._model_name} ({detector.path}) on {detector.providers[0]}, threshold "
            f"{detector.threshold:.6g}; waiting for {self._image_type} on "
            f"{self._subscription.topic_name}"
        )

    def _subscribe(self, message_type: Any, topic: str, decode: Any) -> None:
        self._decode = decode
        self._image_type = _type_name(message_type)
        # Best effort matches every camera; depth 1 makes the newest frame win when the robot is
        # too slow for all of them.
        qos = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        try:
            self._subscription = self.create_subscription(
                message_type,
                topic,
                self._on_image,
                qos,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        # RuntimeError: what rclpy raises for a policy name that it does not know.
        except (InvalidQosOverridesError, ParameterException, RuntimeError) as error:
            raise AnomalyDetectorError(
                f"cannot subscribe to {self.resolve_topic_name(topic)}, see its qos_overrides "
                f"parameters: {' '.join(str(error).split())}"
            ) from error

    def _on_image(self, message: Any) -> None:
        self._received += 1
        try:
            detection = self._detector.detect(self._decode(message))
        except AnomalyDetectorError as error:
            self._dropped += 1
            self.get_logger().error(
                f"frame dropped ({self._dropped} of {self._received}): {error}",
                throttle_duration_sec=BAD_FRAME_LOG_PERIOD_S,
            )
            return
        decision = self._decisions.update(
            detection.score,
            detection.normalized_score,
            detection.is_anomaly,
            stamp_ns=stamp_to_ns(message.header.stamp),
        )
        self._score_publisher.publish(Float32(data=detection.score))
        self._anomaly_publisher.publish(Bool(data=detection.is_anomaly))
        self._alarm_publisher.publish(Bool(data=decision.is_alarm))
        self._detection_publisher.publish(
            write_detection(
                message.header, detection, decision.is_alarm, self.get_name(), self._model_name
            )
        )

    def _check_images(self) -> None:
        """Warn when no image came since the last check, with the likeliest reason."""
        silent = self._received == self._received_at_last_check
        self._received_at_last_check = self._received
        if silent:
            topic = self._subscription.topic_name
            self.get_logger().warning(
                f"no image ({self._image_type}) on {topic} for {NO_IMAGE_WARNING_PERIOD_S:g} s: "
                f"{self._explain_silence(topic)}"
            )

    def _explain_silence(self, topic: str) -> str:
        publishers = self.get_publishers_info_by_topic(topic)
        if not publishers:
            others = sorted(
                name
                for name, types in self.get_topic_names_and_types()
                if self._image_type in types and name != topic
            )
            known = f"; there is {', '.join(others)}" if others else ""
            return f"it has no publisher; start the camera or remap image to its topic{known}"
        count = f"it has {len(publishers)} publisher{'s' if len(publishers) > 1 else ''}"
        wanted = [info for info in publishers if info.topic_type == self._image_type]
        if not wanted:
            types = ", ".join(sorted({info.topic_type for info in publishers}))
            return f"{count} of {types}; set image_transport or remap image to a camera's topic"
        reasons = []
        for info in wanted:
            compatibility, reason = qos_check_compatible(
                info.qos_profile, self._subscription.qos_profile
            )
            if compatibility == QoSCompatibility.ERROR:
                reasons.append(reason.strip(" ;"))
        if len(reasons) == len(wanted):
            return (
                f"{count} of incompatible QoS ({'; '.join(sorted(set(reasons)))}); change it "
                f"with the parameters qos_overrides.{topic}.subscription.*"
            )
        return (
            f"{count} but nothing arrives; is the camera running? Images over 0.5 MB are lost "
            "unless its process loads config/fastdds_large_images.xml"
        )


def _type_name(message_type: Any) -> str:
    package = message_type.__module__.split(".")[0]
    return f"{package}/msg/{message_type.__name__}"


def _init_ros(args: Sequence[str] | None) -> None:
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # rclpy's RCLError, which has no public name
        raise AnomalyDetectorError(
            f"the ROS arguments cannot be used: {' '.join(str(error).split())}"
        ) from error


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM: the entry point of its process.

    Afterwards these signals are ignored.

    Args:
        args: command line with ROS arguments; None for ``sys.argv``.

    Returns:
        Exit code: 0 after a signal, 1 when the node cannot start.
    """
    # A context that shuts down is how rclpy's own handlers, installed on top of these, tell of a
    # signal. A KeyboardInterrupt too would hit the clean-up when Ctrl-C arrives twice, from the
    # terminal and from launch.
    _handle_signals_with(lambda *_: None)
    node: DetectorNode | None = None
    started = False
    try:
        _init_ros(args)
        started = True
        # Before the model is loaded: rclpy complains when a signal precedes the executor.
        executor = SingleThreadedExecutor()
        node = DetectorNode()
        node.configure()
        executor.add_node(node)
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception as error:
        if started and not rclpy.ok():
            return 0  # a signal took the context away from what was being made or published
        if not isinstance(error, AnomalyDetectorError):
            raise
        logger = get_logger(NODE_NAME) if node is None else node.get_logger()
        logger.fatal(str(error))
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()
        # Nor may a late one kill the interpreter while it ends.
        _handle_signals_with(signal.SIG_IGN)
    return 0


def _handle_signals_with(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
