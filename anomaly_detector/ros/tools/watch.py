"""``python -m anomaly_detector watch``: a running node in a terminal, for example over SSH.

Reads ``~/state``, ``~/detection`` and ``/diagnostics``; sends nothing. Where it cannot draw (no
terminal, or no package ``rich``), it prints a line a second.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.ros.tools.tool_node import signals_set, tool_node
from anomaly_detector.ros.tools.watch_view import WatchState, render_watch, watch_line

_REDRAW_S = 0.25
_LINE_S = 1.0
_LOOK_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--node", default="/anomaly_detector", help="the detector node (default %(default)s)"
    )
    parser.add_argument(
        "--window", type=float, default=60.0, metavar="SECONDS",
        help="time that the graph covers (default %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--plain", action="store_true", help="print a line a second, also to a terminal"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the node until q, Ctrl-C or SIGTERM; then the exit code is 0."""
    if not (math.isfinite(arguments.window) and arguments.window > 0):
        raise AnomalyDetectorError(f"--window is {arguments.window:g}: give a number above 0")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An ASCII terminal is no reason to end, whatever a message holds.
        sys.stdout.reconfigure(errors="replace")
    state = WatchState(window_s=arguments.window)
    stop = threading.Event()
    with (
        signals_set(stop),
        tool_node(f"anomaly_watch_{os.getpid()}", "watching") as node,
        _receiving(node, state, arguments.node) as receive,
    ):
        if arguments.plain or not _can_draw():
            _print_lines(state, receive, stop)
        else:
            _draw(state, receive, stop, arguments.node)
    return 0


@contextmanager
def _receiving(node: Any, state: WatchState, watched: str) -> Iterator[Callable[[float], None]]:
    """Fill the state from topics and graph; yields a function that receives for some seconds."""
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.exceptions import NameValidationException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile

    from anomaly_detector.ros.node.detection_message import read_detection
    from anomaly_detector.ros.state.listener import StateListener

    full_name = f"/{watched.strip('/')}"
    exact = {f"{name}: detector" for name in (full_name, full_name[1:])}
    bare = f"{full_name.split('/')[-1]}: detector"
    exact_seen = False

    def on_detection(message: Any) -> None:
        state.add_detection(read_detection(message), time.monotonic())

    def on_diagnostics(message: Any) -> None:
        nonlocal exact_seen
        for status in message.status:
            # Without its namespace the name may be that of another robot's node.
            exact_seen = exact_seen or status.name in exact
            if status.name in exact or (status.name == bare and not exact_seen):
                values = {item.key: item.value for item in status.values}
                state.add_diagnostics(status.message, values, time.monotonic())

    try:
        node.create_subscription(
            DiagnosticArray, f"{full_name}/detection", on_detection, QoSProfile(depth=100)
        )
    except NameValidationException as error:
        raise AnomalyDetectorError(
            f"--node is {watched!r}, which is no name of a node: {as_one_line(error)}"
        ) from error
    listener = StateListener(node, full_name)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, QoSProfile(depth=100))
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    # Other nodes take a moment to be found: until then nothing is said of them.
    next_look_s = time.monotonic() + _LOOK_S

    def receive(seconds: float) -> None:
        nonlocal next_look_s
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left)
        if listener.record is not None:
            state.node_state = listener.state()
        if end >= next_look_s:
            next_look_s = end + _LOOK_S
            state.is_there, state.others = _look(node, full_name)

    try:
        yield receive
    finally:
        executor.shutdown()


def _look(node: Any, full_name: str) -> tuple[bool, list[str]]:
    """Return whether a node runs, and which other nodes are detectors."""
    pairs = node.get_node_names_and_namespaces()
    running = {f"{namespace.rstrip('/')}/{name}" for name, namespace in pairs}
    topics = {topic for topic, _ in node.get_topic_names_and_types()}
    detectors = {name for name in running if f"{name}/normalized_score" in topics}
    return full_name in running, sorted(detectors - {full_name})


def _can_draw() -> bool:
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        import rich.live  # noqa: F401
    except ImportError:
        print(
            "the full view needs the package rich: pip install rich, or apt install python3-rich",
            file=sys.stderr,
        )
        return False
    return True


def _print_lines(
    state: WatchState, receive: Callable[[float], None], stop: threading.Event
) -> None:
    while not stop.is_set():
        receive(_LINE_S)
        if not stop.is_set():
            clock = time.strftime("%H:%M:%S")
            print(f"{clock} {watch_line(state, time.monotonic())}", flush=True)


def _draw(
    state: WatchState, receive: Callable[[float], None], stop: threading.Event, node: str
) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    unicode = "utf" in console.encoding.lower()

    def view() -> Any:
        return render_watch(state, time.monotonic(), console.width, node, unicode=unicode)

    with (
        _keys() as pressed,
        Live(
            view(), console=console, screen=True, auto_refresh=False, vertical_overflow="crop"
        ) as live,
    ):
        while not stop.is_set() and "q" not in pressed().lower():
            receive(_REDRAW_S)
            live.update(view(), refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Read keys as they are pressed; yields a function that returns those since its last call."""
    if not sys.stdin.isatty():
        yield lambda: ""
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()

    def pressed() -> str:
        if not select.select([descriptor], [], [], 0)[0]:
            return ""
        return os.read(descriptor, 64).decode(errors="replace")

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
