"""Records a detector node's topics into a rosbag2, as ``ros2 bag record --use-sim-time`` would."""

from __future__ import annotations

import shutil
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Log
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.graph.silence import type_name
from anomaly_detector.ros.node.detection_message import DetectionRecord, read_detection
from anomaly_detector.ros.node.event_message import EventRecord, read_event
from anomaly_detector.ros.node.result_publishers import TOPICS, Topic
from anomaly_detector.ros.node.status_message import status_values
from anomaly_detector.ros.state.message import STATE_TOPIC, read_state
from anomaly_detector.ros.tools.played_frames import PlayedFrame
from anomaly_detector.ros.tools.tool_node import spinning
from anomaly_detector.stamps import stamp_to_ns

_LEFT_OUT = frozenset(
    {
        *("~/anomaly_map", "~/overlay", "~/regions"),
        *("~/camera_health", "~/camera_health/picture/compressed"),
    }
)
"""The compressed overlay shows the same at a hundredth of the pictures' size, and /diagnostics
what ails the camera."""

FRAME_TOPICS = tuple(topic for topic in TOPICS if topic.name not in _LEFT_OUT)
"""What is recorded of the node's own topics."""

_DEPTH = 1000
_QUIET_REPORTS = 4


class ResultRecorder:
    """Subscribes to a detector node's topics and writes what comes, from the first frame on.

    Log times are those of the bag that is played, at the time of arrival. ``image``, topic and
    message type of the camera, asks for pictures, too.

    Attributes:
        detections: the node's answers, in the order of their arrival.
        events: starts and ends of its alarms.
        latencies_ms: from publishing a frame to the arrival of its answer, in another process.
        states: how often ``~/state`` said each state and reason, from the first frame to the last
            answer.
        counts: messages that came, by the topic's name in :data:`FRAME_TOPICS`.
    """

    def __init__(
        self, node: Any, bag: Any, node_name: str, image: tuple[str, str] | None, rate: float
    ) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.detections: list[DetectionRecord] = []
        self.events: list[EventRecord] = []
        self.latencies_ms: list[float] = []
        self.states: Counter[tuple[str, str]] = Counter()
        self._newest_states: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[str] = Counter()
        self._bag = bag
        self._store = get_typestore(Stores.LATEST)
        self._name = node_name
        self._rate = rate
        self._has_pictures = image is not None
        self._changed = threading.Condition()
        self._status: dict[str, str] = {}
        self._sent_at: dict[int | None, float] = {}
        self._anchor: tuple[int, float] | None = None
        self._latest_ns = 0
        self._error: Exception | None = None
        self._quiet = 0
        self._image = None if image is None else self._connect(image[0], image[1])
        for topic in FRAME_TOPICS:
            if image is not None or topic.name != "~/overlay/compressed":
                self._subscribe(node, topic)
        self._subscribe(node, STATE_TOPIC)
        self._state_changer = node.create_client(ChangeState, f"{node_name}/change_state")
        rosout = QoSProfile(depth=_DEPTH, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self._subscribe(node, Topic("/rosout", Log, "the log"), rosout)
        # Last: a node that has found this subscription has found those before it, too, and the
        # client's, without which its answer would be lost.
        self._subscribe(node, Topic("/diagnostics", DiagnosticArray, "the node's health"))

    def _connect(self, name: str, message_type: str) -> Any:
        return self._bag.add_connection(name, message_type, typestore=self._store)

    def _subscribe(self, node: Any, topic: Topic, qos: QoSProfile | None = None) -> None:
        name = topic.name.replace("~", self._name, 1)
        connection = self._connect(name, type_name(topic.message_type))

        record = partial(self._record, topic.name, connection)
        node.create_subscription(topic.message_type, name, record, qos or _DEPTH, raw=True)

    def _record(self, topic: str, connection: Any, data: bytes) -> None:
        arrived = time.monotonic()
        with self._changed:
            if topic.startswith("~") and topic != STATE_TOPIC.name:
                self._quiet = 0
            self.counts[topic] += 1
            try:
                if topic == "/diagnostics":
                    self._see(deserialize_message(data, DiagnosticArray))
                elif topic == "~/detection":
                    self._answered(deserialize_message(data, DiagnosticArray), arrived)
                elif topic == STATE_TOPIC.name and self._anchor is not None:
                    state = read_state(deserialize_message(data, DiagnosticArray)).state
                    self._newest_states[state.word, state.reason] += 1
                elif topic == "~/event":
                    self.events.append(read_event(deserialize_message(data, DiagnosticArray)))
                if self._anchor is not None:
                    self._bag.write(connection, self._time(arrived), data)
            except Exception as error:  # raised by whoever waits; the thread goes on receiving
                self._error = self._error or error
            self._changed.notify_all()

    def _time(self, arrived: float) -> int:
        """Return the bag's time of a moment of ``time.monotonic()``, nanoseconds."""
        assert self._anchor is not None
        bag_ns, published = self._anchor
        time_ns = bag_ns + round((arrived - published) * self._rate * 1e9)
        # What came before a frame that was played late is not to be sorted behind what came after.
        self._latest_ns = max(self._latest_ns, time_ns)
        return self._latest_ns

    def _see(self, message: Any) -> None:
        for status in message.status:
            if status.name == f"{self._name.lstrip('/')}: detector":
                self._status = status_values(status)
                self._quiet += 1

    def _answered(self, message: Any, arrived: float) -> None:
        answer = read_detection(message)
        self.detections.append(answer)
        # What is said once the drive is over does not count.
        self.states += self._newest_states
        self._newest_states.clear()
        sent = self._sent_at.get(answer.stamp_ns)
        if sent is not None:
            self.latencies_ms.append((arrived - sent) * 1e3)

    def on_frame(self, frame: PlayedFrame) -> None:
        """Record a frame that is about to be published."""
        with self._changed:
            self._quiet = 0
            published = time.monotonic()
            if self._anchor is None or frame.recorded_ns < self._anchor[0]:
                self._latest_ns = frame.recorded_ns  # the bag's own clock steps back
            self._anchor = (frame.recorded_ns, published)
            self._sent_at[_header_stamp(frame.cdr)] = published
            if self._image is not None:
                self._bag.write(self._image, frame.recorded_ns, frame.cdr)

    def wait_until_active(self, goes_on: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the node is active and has found all of these subscriptions.

        Raises:
            AnomalyDetectorError: it cannot become active, or does not in time.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._status.get("State") != "active" and goes_on():
                if error := self._status.get("Last error"):
                    raise AnomalyDetectorError(f"the detector node {error}")
                if time.monotonic() > deadline:
                    raise AnomalyDetectorError(
                        f"the detector node did not come up in {timeout_s:g} s: its own message "
                        "is above"
                    )
                self._changed.wait(0.2)

    def wait_for_answers(
        self, expected: int, goes_on: Callable[[], bool], patience_s: float
    ) -> None:
        """Wait for the node's results of all frames, for as long as some come.

        A node that reports its health again and again, and nothing else, has no more to say: it
        does both in one thread.

        Raises:
            AnomalyDetectorError: what came could not be read.
            OSError: it could not be written.
        """
        topics = [topic.name for topic in FRAME_TOPICS if topic.name != "~/event"]
        if not self._has_pictures:
            topics.remove("~/overlay/compressed")
        deadline = time.monotonic() + patience_s
        with self._changed:
            while (
                any(self.counts[topic] < expected for topic in topics)
                and self._quiet < _QUIET_REPORTS
                and goes_on()
                and time.monotonic() < deadline
            ):
                self._changed.wait(0.2)
                if self._quiet == 0:
                    deadline = time.monotonic() + patience_s
            if isinstance(self._error, OSError):
                raise self._error  # of the disk: reported with the folder
            if self._error is not None:
                raise AnomalyDetectorError(
                    f"results cannot be recorded: {self._error}"
                ) from self._error

    def deactivate(self, timeout_s: float) -> None:
        """Deactivate the node, which ends an alarm that is still on, and wait for its word."""
        if not self._state_changer.wait_for_service(timeout_s):
            return
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        done = threading.Event()
        self._state_changer.call_async(request).add_done_callback(lambda _: done.set())
        done.wait(timeout_s)

        def complete() -> bool:
            kinds = Counter(event.kind for event in self.events)
            return kinds["start"] == kinds["end"]

        with self._changed:
            self._changed.wait_for(complete, timeout_s)


def _header_stamp(cdr: bytes) -> int | None:
    """Return the stamp of a serialized message that begins with a header, nanoseconds."""
    # Four bytes of encapsulation, of which the second gives the byte order; then the stamp.
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return stamp_to_ns(Time(sec=seconds, nanosec=nanoseconds))


@contextmanager
def recording(
    node: Any,
    path: Path,
    node_name: str,
    image: tuple[str, str] | None,
    rate: float,
    storage: str = "mcap",
) -> Iterator[ResultRecorder]:
    """Record into a new rosbag2 for the time of the block, in a thread that spins the node.

    The arguments are those of :class:`ResultRecorder`.
    """
    from rosbags.convert import convert
    from rosbags.rosbag2 import StoragePlugin, Writer

    written = path if storage == "mcap" else path.with_name("recorded")
    # Version 8 is the oldest that the writer knows, so the most robots read it.
    with Writer(written, version=8, storage_plugin=StoragePlugin.MCAP) as bag:
        recorder = ResultRecorder(node, bag, node_name, image, rate)
        with spinning(node):
            yield recorder
    if written != path:
        # Not written at once: SQLite takes what comes from the thread that opened it, only.
        convert([written], path, storage, 8, None, "file", None, None, (), (), (), ())
        shutil.rmtree(written)
