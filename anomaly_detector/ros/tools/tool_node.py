"""What command-line tools that talk ROS 2 share: a node of their own, and an ordinary end.

rclpy is imported when the node is made: the command lines can be built without ROS.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.ros.graph.node_name import node_name

_MAX_DOMAIN = 232

_OWN_DOMAINS = 100
"""Higher ones have ports that Linux hands out to anybody."""

ASK_AGAIN_S = 0.5
"""Time for the answer to a question that may be asked again."""


@cache
def domain_id() -> int:
    """Return a ROS_DOMAIN_ID that nobody else is likely to use; always the same in a process."""
    domain, claim = claim_domain(1 + os.getpid() % _OWN_DOMAINS)
    if claim is not None:
        atexit.register(claim.close)
    return domain


def claim_domain(preferred: int) -> tuple[int, socket.socket | None]:
    """Find a ROS_DOMAIN_ID, from the preferred one on, that no process has claimed in this way.

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
    """Raise on a ROS_DOMAIN_ID that has no ports: Fast DDS ends the process over it.

    None stands for that of the environment, where one that is no number is left to ``rclpy``.
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
    """Make an ``rclpy`` node with a context of its own, for the time of the block.

    ``doing`` is the first word of the message when ROS 2 is missing.

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
    """Have a node's callbacks called in a thread, for the time of the block."""
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


def wait_until_found(
    node: Any, names: Iterable[str], timeout_s: float, goes_on: Callable[[], bool] = lambda: True
) -> list[str]:
    """Wait until other nodes have found all that this node has made so far.

    What has found its counterpart may not have been found by it yet. Until then a best-effort
    subscription misses what is published, and a service drops its answer to a new client for good
    (github.com/ros2/rmw_fastrtps/issues/842). No event says when that is over, but DDS announces
    writers, and readers, reliably and in the order in which they were made. So a client is made
    last of all: once it has an answer, its writer of requests and its reader of answers have been
    found, and so has all that was made before them. Asking for no parameter changes nothing, so it
    is asked again until one answer arrives. Somebody has to spin the other nodes.

    Returns:
        The full names of those that gave no answer.
    """
    import rclpy
    from rcl_interfaces.srv import GetParameters
    from rclpy.executors import SingleThreadedExecutor

    # A node that nobody else spins, of the same participant.
    own = rclpy.create_node(
        f"{node.get_name()}_asking",
        context=node.context,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )
    executor = SingleThreadedExecutor(context=node.context)
    try:
        executor.add_node(own)
        clients = {
            name: own.create_client(GetParameters, f"{name}/get_parameters") for name in names
        }
        asked = dict.fromkeys(clients, -math.inf)
        deadline = time.monotonic() + timeout_s
        while clients and goes_on() and (now := time.monotonic()) < deadline:
            for name, client in clients.items():
                if now - asked[name] >= ASK_AGAIN_S and client.service_is_ready():
                    asked[name] = now
                    answer = client.call_async(GetParameters.Request())
                    answer.add_done_callback(lambda _, name=name: clients.pop(name, None))
            executor.spin_once(timeout_sec=0.02)
        return list(clients)
    finally:
        executor.shutdown()
        own.destroy_node()


def wait_for_match(
    node: Any, publisher: Any, timeout_s: float, goes_on: Callable[[], bool] = lambda: True
) -> None:
    """Wait until the subscriptions that a publisher has found have found it, too.

    A node without parameter services, such as that of ``ros2 topic echo``, cannot be asked and is
    not waited for. The arguments are those of :func:`wait_until_found`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = node.get_subscriptions_info_by_topic(publisher.topic_name)
        # A subscription is found before the name of its node is known.
        names = {node_name(info) for info in found}
        if "" not in names or not goes_on() or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    # A node makes these services before its own subscriptions: they have been found, too.
    services = {service for service, _ in node.get_service_names_and_types()}
    names = {name for name in names if f"{name}/get_parameters" in services}
    wait_until_found(node, names, timeout_s, goes_on)
