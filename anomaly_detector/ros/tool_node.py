"""What command-line tools that talk ROS 2 share: a node of their own, and an ordinary end.

rclpy is imported when the node is made: the command lines can be built without ROS.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line

__all__ = ["domain_id", "signals_set", "tool_node"]


def domain_id() -> int:
    """Give a ROS_DOMAIN_ID that nobody else is likely to use."""
    return 1 + os.getpid() % 100


@contextmanager
def signals_set(event: threading.Event) -> Iterator[None]:
    """Have SIGINT and SIGTERM set an event.

    An ordinary end lets Fast DDS remove its shared memory, which a killed process leaves behind.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda *_: event.set()) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def tool_node(name: str, doing: str, domain_id: int | None = None) -> Iterator[Any]:
    """Make an ``rclpy`` node with a context of its own.

    Args:
        name: of the node.
        doing: what it is for, first word of the message when ROS 2 is missing.
        domain_id: None for that of the environment.

    Raises:
        AnomalyDetectorError: ROS 2, or a message package that the block imports, is missing, or
            ROS 2 does not start.
    """
    try:
        import rclpy
        from rclpy.context import Context

        context = Context()
        try:
            rclpy.init(args=[], context=context, domain_id=domain_id)
        except RuntimeError as error:  # rclpy's RCLError: no middleware, a bad ROS_DOMAIN_ID, ...
            raise AnomalyDetectorError(f"ROS 2 does not start: {as_one_line(error)}") from error
        try:
            node = rclpy.create_node(name, context=context, use_global_arguments=False)
            try:
                yield node
            finally:
                node.destroy_node()
        finally:
            if context.ok():
                context.shutdown()
    except ImportError as error:
        raise AnomalyDetectorError(
            f"{doing} needs ROS 2 ({error}): source its setup.bash, or "
            "pip install 'anomaly_detector[ros]'"
        ) from error
