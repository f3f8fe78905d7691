"""What command-line tools that talk ROS 2 share: a node of their own, and an ordinary end.

rclpy is imported when the node is made: the command lines can be built without ROS.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line

__all__ = [
    "check_domain_id",
    "claim_domain",
    "domain_id",
    "signals_set",
    "spinning",
    "tool_node",
]

_MAX_DOMAIN = 232

_OWN_DOMAINS = 100
"""Higher ones have ports that Linux hands out to anybody."""


@cache
def domain_id() -> int:
    """Give a ROS_DOMAIN_ID that nobody else is likely to use; always the same in a process."""
    domain, claim = claim_domain(1 + os.getpid() % _OWN_DOMAINS)
    if claim is not None:
        atexit.register(claim.close)
    return domain


def claim_domain(preferred: int) -> tuple[int, socket.socket | None]:
    """Find a ROS_DOMAIN_ID that no process has claimed in this way.

    Args:
        preferred: where to begin, from 1 to 100.

    Returns:
        The domain, and what holds it until it is closed or the process ends; None where that
        cannot be had, and the preferred one is given.
    """
    for offset in range(_OWN_DOMAINS):
        domain = 1 + (preferred - 1 + offset) % _OWN_DOMAINS
        claim = socket.socket(socket.AF_UNIX)
        try:
            # Linux' abstract names leave no file behind, and none that another user owns.
            claim.bind(f"\0anomaly_detector/ros_domain_{domain}")
        except OSError:
            claim.close()
        else:
            return domain, claim
    return preferred, None


def check_domain_id(domain: int | None = None) -> None:
    """Refuse a ROS_DOMAIN_ID that has no ports: Fast DDS ends the process over it.

    Args:
        domain: None for that of the environment. One that is no number is left to ``rclpy``.

    Raises:
        AnomalyDetectorError: it is not from 0 to 232.
    """
    if domain is None:
        try:
            domain = int(os.environ.get("ROS_DOMAIN_ID", ""), 0)
        except ValueError:
            return
    if not 0 <= domain <= _MAX_DOMAIN:
        raise AnomalyDetectorError(
            f"ROS_DOMAIN_ID is {domain}: give a number from 0 to {_MAX_DOMAIN}"
        )


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
            ROS 2 does not start, or the domain is out of range.
    """
    check_domain_id(domain_id)
    try:
        import rclpy
        from rclpy.context import Context

        context = Context()
        try:
            rclpy.init(args=[], context=context, domain_id=domain_id)
        except RuntimeError as error:  # rclpy's RCLError: no middleware, ...
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


@contextmanager
def spinning(node: Any) -> Iterator[None]:
    """Have a node's callbacks called in a thread, for the time of the block.

    Args:
        node: an ``rclpy`` node that nobody spins.
    """
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    stop = threading.Event()

    def spin() -> None:
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        try:
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            pass
        finally:
            executor.remove_node(node)
            executor.shutdown()

    thread = threading.Thread(target=spin, name=node.get_name(), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
