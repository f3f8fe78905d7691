"""The node's process: start, spinning, and the end that Ctrl-C or SIGTERM asks for."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from anomaly_detector.errors import AnomalyDetectorError, as_one_line, describe_error
from anomaly_detector.ros.node.given_parameters import explain_unused
from anomaly_detector.ros.node.node import NODE_NAME, DetectorNode
from anomaly_detector.ros.tools.tool_node import check_domain_id
from anomaly_detector.signals import EndRequest


def run(args: Sequence[str] | None, end: EndRequest) -> int:
    """Run the node until a signal asks for the end; return the exit code of the process."""
    node: DetectorNode | None = None
    # From here on there is something to clean up. A signal interrupts none of it: rclpy's own
    # handlers take the context away from what is being made or published.
    end.hold()
    try:
        _init_ros(args)
        node = DetectorNode()
        log_warnings(node.get_logger())
        end.hold(node.end)
        if end.is_made:
            node.end()
        _warn_of_unused(sys.argv[1:] if args is None else args, node)
        node.start()
        _spare_garbage_collection()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spin(executor, node)
    except ExternalShutdownException:
        pass
    except AnomalyDetectorError as error:
        logger = get_logger(NODE_NAME) if node is None else node.get_logger()
        logger.fatal(str(error))
        return 1
    finally:
        end.hold()
        if node is not None:
            node.release()
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()
    return 0


def _init_ros(args: Sequence[str] | None) -> None:
    check_domain_id()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rclpy's RCLError, which has no public name
        raise AnomalyDetectorError(
            f"the ROS arguments cannot be used: {as_one_line(error)}"
        ) from error


def log_warnings(logger: Any) -> None:
    """Log Python's warnings in one line, such as rclpy's of an answer that nobody receives."""

    def log(message: Warning | str, *_: Any, **__: Any) -> None:
        logger.warning(as_one_line(message))

    warnings.showwarning = log


def _warn_of_unused(arguments: Sequence[str], node: DetectorNode) -> None:
    """Warn of parameters on a command line that have no effect."""
    declared = list(node.get_parameters_by_prefix(""))
    topics = {}
    for topic in ("image", "image/compressed"):
        before = node.resolve_topic_name(topic, only_expand=True)
        topics[topic] = topics[before] = node.resolve_topic_name(topic)
    for line in explain_unused(arguments, node.get_fully_qualified_name(), declared, topics):
        node.get_logger().warning(line)


def _spare_garbage_collection() -> None:
    """Keep the garbage collector off what start-up has made, which lives as long as the process.

    A full collection looked at 46,000 objects for 13 to 53 ms, once in the first 3,000 frames: more
    than a frame's period at 30 Hz. Without them it takes less than 1 ms.
    """
    gc.collect()
    gc.freeze()


def spin(executor: Any, node: DetectorNode) -> None:
    """Spin until the node ends; it logs an error in a callback, which costs no more.

    Raises:
        ExternalShutdownException: the context was shut down.
    """
    while not node.is_ending:
        try:
            executor.spin_once()
        except ExternalShutdownException:
            raise
        except Exception as error:
            if not node.context.ok():
                raise ExternalShutdownException from error
            node.get_logger().error(f"internal error, going on: {describe_error(error)}")
