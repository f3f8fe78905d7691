"""``python -m anomaly_detector notify``: tells people outside ROS of alarms and of a blind robot.

A process of its own beside the node: it listens to ``~/event``, ``~/state`` and ``/diagnostics``,
and asks for a picture when there is something to tell. What it tells waits on the disk until
somebody has taken it.
"""

from __future__ import annotations

import argparse
import base64
import math
import os
import platform
import re
import threading
import time
import uuid
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.monitoring.state import REASONS, DetectorState
from anomaly_detector.notify.delivery import (
    AUTHORIZATION_VARIABLE,
    URL_VARIABLE,
    CommandTarget,
    Courier,
    HttpTarget,
)
from anomaly_detector.notify.notices import Notice, Notices
from anomaly_detector.notify.queue import DiskQueue
from anomaly_detector.ros.tools.tool_node import signals_set, tool_node

NO_STATE = "no state"
"""Reason of a listener that hears nothing of the node."""

_PICTURE_S = 2.0
_LOOK_S = 0.1
_EVENT_S = 2.0
"""An alarm whose event has not come for this long is told from the state. The state of before the
event may come after it, and for this long tells of no end."""
_CAMERA_S = 5.0
"""A sick camera is told when it has been so for this long."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--post", nargs="?", const="", metavar="URL",
        help=f"post JSON there; without URL, to that in {URL_VARIABLE}. "
        f"{AUTHORIZATION_VARIABLE} is sent as header Authorization",
    )  # fmt: skip
    where.add_argument(
        "--command", metavar="COMMAND",
        help="run this with the JSON on its standard input, without a shell; exit code 0 means "
        "that it was taken",
    )  # fmt: skip
    add("--node", default="/anomaly_detector", help="the detector node (default %(default)s)")
    add(
        "--queue", type=Path, required=True, metavar="FOLDER",
        help="where notices wait until they are taken, also over a restart",
    )  # fmt: skip
    add(
        "--queue-megabytes", type=float, default=50.0, metavar="X",
        help="room for them; the oldest are removed (default %(default)g)",
    )  # fmt: skip
    add(
        "--cooldown", type=float, default=300.0, metavar="SECONDS",
        help="no second notice of one kind before this is over (default %(default)g)",
    )  # fmt: skip
    add(
        "--unknown-after", type=float, default=10.0, metavar="SECONDS",
        help="tell of an unknown state that lasts longer (default %(default)g)",
    )  # fmt: skip
    add(
        "--ignore", action="append", choices=(*REASONS, NO_STATE), metavar="REASON",
        help="an unknown state for this reason is in order (default: paused); may be repeated",
    )  # fmt: skip
    add("--review-url", default="", metavar="URL", help="of the review page, for the link")
    add("--no-picture", action="store_true", help="send no picture")
    add(
        "--timeout", type=float, default=10.0, metavar="SECONDS",
        help="for the server or the command; then it is tried again (default %(default)g)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Notify until Ctrl-C or SIGTERM; then the exit code is 0."""
    for name in ("queue_megabytes", "cooldown", "unknown_after", "timeout"):
        value = getattr(arguments, name)
        if not 0 <= value < float("inf") or (name == "timeout" and not value):
            raise AnomalyDetectorError(
                f"--{name.replace('_', '-')} is {value:g}: give a number "
                + ("above 0" if name == "timeout" else "of at least 0")
            )
    # What it leads to is added behind it.
    if not re.fullmatch(r"(https?://[^\s#]+)?", arguments.review_url):
        raise AnomalyDetectorError(
            f"--review-url is {arguments.review_url!r}: give that of the review page without its "
            "#, such as https://HOST:8765/"
        )
    target: HttpTarget | CommandTarget
    if arguments.command is None:
        url = arguments.post or os.environ.get(URL_VARIABLE, "")
        authorization = os.environ.get(AUTHORIZATION_VARIABLE, "")
        target = HttpTarget(url, authorization, arguments.timeout)
    else:
        target = CommandTarget(arguments.command, arguments.timeout)
    queue = DiskQueue(arguments.queue, arguments.queue_megabytes * 1e6)
    stop = threading.Event()
    with (
        signals_set(stop),
        tool_node(f"anomaly_notify_{os.getpid()}", "notifying") as node,
        ExitStack() as stack,
    ):
        notifier = _Notifier(node, arguments, queue)
        courier = Courier(queue, target, _log)
        stack.callback(courier.close, 2.0)
        stack.callback(notifier.close)
        _log(f"telling {target.name} of {notifier.detector}, {len(queue.waiting())} notices wait")
        while not stop.is_set():
            if notifier.spin():
                courier.wake()
    return 0


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class _Notifier:
    """Listens to one detector node, and puts what is to be told into a queue."""

    def __init__(self, node: Any, arguments: argparse.Namespace, queue: DiskQueue) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.exceptions import NameValidationException
        from rclpy.executors import SingleThreadedExecutor

        from anomaly_detector.ros.state.listener import StateListener

        self.detector = f"/{arguments.node.strip('/')}"
        self._node, self._queue, self._arguments = node, queue, arguments
        self._notices = Notices(arguments.cooldown)
        self._ignored = set(arguments.ignore or ["paused"])
        self._waiting: list[tuple[Notice, float]] = []
        self._event_at = -math.inf
        self._overlays: Any = None
        self._picture: bytes | None = None
        try:
            self._listener = StateListener(node, self.detector)
        except NameValidationException as error:
            raise AnomalyDetectorError(
                f"--node is {arguments.node!r}, which is no name of a node: {as_one_line(error)}"
            ) from error
        node.create_subscription(DiagnosticArray, f"{self.detector}/event", self._see_event, 100)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._see_diagnostics, 100)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)

    def close(self) -> None:
        """Queue what still waits for its picture."""
        for notice, _ in self._waiting:
            self._put(notice)
        self._executor.shutdown()

    def spin(self) -> bool:
        """Receive for a moment; return whether something has been queued."""
        self._executor.spin_once(timeout_sec=_LOOK_S)
        now = time.monotonic()
        self._see_state(self._listener.state(now), now)
        self._waiting += [(notice, now + _PICTURE_S) for notice in self._notices.due(now)]
        if not self._waiting:
            return False
        if not self._arguments.no_picture and self._picture is None:
            self._ask_for_picture()
            if now < self._waiting[0][1]:
                return False
        for notice, _ in self._waiting:
            self._put(notice)
        self._waiting.clear()
        if self._overlays is not None:
            self._node.destroy_subscription(self._overlays)
        self._overlays = self._picture = None
        return True

    def _ask_for_picture(self) -> None:
        """Subscribe for this one: the node draws an overlay for each frame that somebody wants."""
        from sensor_msgs.msg import CompressedImage

        if self._overlays is None:

            def see(message: Any) -> None:
                self._picture = bytes(message.data)

            topic = f"{self.detector}/overlay/compressed"
            self._overlays = self._node.create_subscription(CompressedImage, topic, see, 1)

    def _see_state(self, state: DetectorState, now: float) -> None:
        if state.word != "unknown" or state.reason in self._ignored:
            self._notices.end("unknown", now)
        else:
            details = {"reason": state.reason, "detail": state.detail}
            notice = Notice("unknown", f"{self.detector}: {state.text}", details)
            self._notices.begin(notice, now, after_s=self._arguments.unknown_after)
        record = self._listener.record
        # Silence is no end of an alarm: told again, it would be taken for another one.
        if record is None or state.reason == NO_STATE:
            return
        if not record.alarm and now - self._event_at > _EVENT_S:
            self._notices.end("alarm", now)  # the event of its end was lost
        if state.word != "alarm" or not record.alarm_number or record.is_quiet:
            return
        if not self._notices.is_on("alarm"):
            # It began before this process listened, or its event was lost.
            text = f"{self.detector}: alarm {record.alarm_number} is on"
            notice = Notice("alarm", text, {"number": record.alarm_number})
            self._notices.begin(notice, now, after_s=_EVENT_S)

    def _see_event(self, message: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus

        from anomaly_detector.ros.node.event_message import read_event

        try:
            event = read_event(message)
        except AnomalyDetectorError:
            return  # another kind of message on this topic is no event
        now = time.monotonic()
        if event.kind == "end":
            self._notices.end("alarm", now)
        # A repeat, or one at a snoozed place, is recorded and told to nobody.
        elif message.status[0].level == DiagnosticStatus.WARN:
            self._notices.end("alarm", now)  # raised anew
            self._event_at = now
            place = {name.removeprefix("pose_"): text for name, text in event.place.items()}
            details = {
                "number": event.number,
                "start_stamp": event.start_stamp,
                "score": event.peak_score,
                "normalized_score": event.peak_normalized_score,
                "place": place or None,
            }
            where = f" at {place['frame']} {place['x']} {place['y']}" if place.get("x") else ""
            text = f"{self.detector}: alarm {event.number}{where}"
            self._notices.begin(Notice("alarm", text, details), now)
            self._waiting += [(notice, now + _PICTURE_S) for notice in self._notices.due(now)]

    def _see_diagnostics(self, message: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus

        for status in message.status:
            if status.name.lstrip("/") != f"{self.detector[1:]}: camera":
                continue
            now = time.monotonic()
            if status.level == DiagnosticStatus.OK:
                self._notices.end("camera", now)
                continue
            details = {item.key: item.value for item in status.values}
            notice = Notice("camera", f"{self.detector}: camera: {status.message}", details)
            self._notices.begin(notice, now, after_s=_CAMERA_S)

    def _put(self, notice: Notice) -> None:
        picture = self._picture
        content = {
            "id": uuid.uuid4().hex,
            "kind": notice.kind,
            "text": notice.text,
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "host": platform.node(),
            "node": self.detector,
            notice.kind: dict(notice.details),
            "suppressed": notice.suppressed,
            "review": f"{self._arguments.review_url}#/events" if self._arguments.review_url else "",
            "picture_jpeg_base64": base64.b64encode(picture).decode() if picture else "",
        }
        try:
            self._queue.put(content)
        except AnomalyDetectorError as error:
            _log(f"lost: {notice.text}: {error}")
        else:
            _log(notice.text)
