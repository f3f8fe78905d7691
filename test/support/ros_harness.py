"""Real processes, real messages and real DDS for the tests of the ROS side.

Nothing here sleeps for a fixed time: everything waits for an event, with a deadline.
"""

from __future__ import annotations

import fcntl
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool, Float32

from anomaly_detector.ros.node.detection_message import DetectionRecord, read_detection
from anomaly_detector.ros.node.status_message import status_values
from anomaly_detector.ros.state.listener import StateListener
from anomaly_detector.ros.state.message import StateRecord
from anomaly_detector.ros.tools.player import PlayResult, play
from anomaly_detector.ros.tools.tool_node import domain_id, wait_until_found
from anomaly_detector.stamps import stamp_to_ns
from training.data import bags

ROOT = Path(__file__).resolve().parents[2]

DEADLINE_S = 60.0
"""Far more than anything takes, even on a busy machine."""

# A domain of its own for each pytest process, so that neither a robot nor another run is heard.
# Everything made here, and every process started, finds it in the environment.
DOMAIN_ID = domain_id()
os.environ["ROS_DOMAIN_ID"] = str(DOMAIN_ID)


_client_numbers = itertools.count()


class Process:
    """A process whose output is read while it runs."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    @property
    def output(self) -> str:
        """Everything printed so far."""
        with self._changed:
            return "\n".join(self.lines)

    def wait_for_line(self, text: str) -> str:
        """Wait for a line with ``text`` in it and return it."""
        found: list[str] = []

        def has_line() -> bool:
            found[:] = [line for line in self.lines if text in line]
            return bool(found) or not self._reader.is_alive()

        with self._changed:
            self._changed.wait_for(has_line, DEADLINE_S)
        assert found, f"no line with {text!r} in:\n{self.output}"
        return found[0]

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code = self._process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def shared_memory(self) -> set[Path]:
        """Return the segments of Fast DDS in use: its own, and those of the nodes it has found."""
        maps = Path(f"/proc/{self.pid}/maps").read_text()
        names = re.findall(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}\b", maps)
        return {Path(name) for name in names}

    def wait_for_shared_memory(self, others: set[Path]) -> set[Path]:
        """Wait for segments that are not among ``others``, and return them.

        While the process maps memory, one reading of its maps can miss some.
        """
        deadline = time.monotonic() + DEADLINE_S
        while not (segments := self.shared_memory() - others):
            assert time.monotonic() < deadline, f"no shared memory of its own:\n{self.output}"
            time.sleep(0.01)
        return segments

    def kill(self) -> None:
        """End the process as the kernel does, and remove the shared memory that it leaves."""
        segments = self.shared_memory()
        self._process.kill()
        self._process.wait()
        for segment in segments:
            with suppress(FileNotFoundError, BlockingIOError), open(f"{segment}_el") as lock:
                # Whoever made it holds the lock for as long as it lives.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                segment.unlink()
                Path(lock.name).unlink()

    def close(self) -> None:
        """End the process if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join(DEADLINE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def running(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Process]:
    """Run a process, and end it at the end of the block."""
    process = Process(command, environment)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def running_node(*ros_arguments: str, **parameters: object) -> Iterator[Process]:
    """Run a detector node in a process of its own; its arguments may be wrong.

    Tests send the same picture again and again: that is a frozen camera only where it is asked for.
    """
    given = {"frozen_timeout": 0.0, **parameters}
    settings = [part for name, value in given.items() for part in ("-p", f"{name}:={value}")]
    module = "anomaly_detector.ros.detector_node"
    arguments = ["--ros-args", *settings, *ros_arguments]
    with running([sys.executable, "-m", module, *arguments]) as process:
        yield process


class RosClient:
    """What stands in for the robot: sends images to a node and keeps what comes back."""

    def __init__(
        self,
        node_name: str = "/anomaly_detector",
        image_topic: str = "/image",
        message_type: Any = Image,
    ) -> None:
        self.node_name = node_name
        self.image_topic = image_topic
        self.detections: list[Any] = []
        self.events: list[Any] = []
        self.diagnostics: list[Any] = []
        self.scores: list[float] = []
        self.anomalies: list[bool] = []
        self.logs: list[Any] = []
        self.states: list[StateRecord] = []
        self.missed_states = 0
        self._clients: dict[str, Any] = {}
        self._heard_by: set[bytes] = set()
        number = next(_client_numbers)
        self._stamp_ns = 1_700_000_000_000_000_123 + 1000 * number  # no other client's
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node(f"test_client_{number}", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.publisher = self.node.create_publisher(message_type, image_topic, 10)
        subscribe = self.node.create_subscription
        subscribe(DiagnosticArray, f"{node_name}/detection", self.detections.append, 100)
        subscribe(Float32, f"{node_name}/score", lambda m: self.scores.append(m.data), 100)
        subscribe(Bool, f"{node_name}/anomaly", lambda m: self.anomalies.append(m.data), 100)
        subscribe(DiagnosticArray, f"{node_name}/event", self.events.append, 100)
        self.listener = StateListener(self.node, node_name, self.states.append, self._miss_state)
        rosout = QoSProfile(depth=1000, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        subscribe(Log, "/rosout", self.logs.append, rosout)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message: Any) -> None:
        wanted = f"{self.node_name.lstrip('/')}: detector"
        self.diagnostics += [status for status in message.status if status.name == wanted]

    def _miss_state(self) -> None:
        self.missed_states += 1

    def close(self) -> None:
        """Destroy the node and its context."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.shutdown()

    def stamp(self, message: Any) -> Any:
        """Give the message a frame_id and a stamp that no other message has; return it."""
        self._stamp_ns += 33_333_333
        message.header.frame_id = "camera_optical_frame"
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self._stamp_ns, 10**9)
        return message

    def spin_until(self, condition: Callable[[], object], what: str) -> None:
        """Receive until the condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (
                f"not in {DEADLINE_S} s: {what}; {self.listener.state()}, log {self.log_lines()}"
            )
            self._executor.spin_once(timeout_sec=0.05)

    def publish_until(
        self, message: Any, condition: Callable[[], bool], what: str, period_s: float = 0.2
    ) -> None:
        """Publish a message again and again, until the condition holds.

        Best-effort subscribers may miss it: before discovery is complete, or on a busy machine.
        """
        next_time = 0.0

        def publish_and_check() -> bool:
            nonlocal next_time
            if condition():
                return True
            if time.monotonic() >= next_time:
                self.publisher.publish(message)
                next_time = time.monotonic() + period_s
            return False

        self.spin_until(publish_and_check, what)

    def wait_until_found(self) -> None:
        """Wait until the detector node has found all that this client has made so far."""
        missing = wait_until_found(self.node, [self.node_name], DEADLINE_S)
        assert not missing, f"{self.node_name} gave no answer in {DEADLINE_S} s"

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service of the detector node and return its response."""
        if name not in self._clients:
            client = self.node.create_client(service_type, f"{self.node_name}/{name}")
            self.spin_until(client.service_is_ready, f"service {name}")
            # Not before: a service's answer to a client that it has not found yet is lost.
            self.wait_until_found()
            self._clients[name] = client
        future = self._clients[name].call_async(request)
        self.spin_until(future.done, f"an answer of {name}")
        return future.result()

    def change_state(self, transition: int) -> bool:
        """Ask for a transition of ``lifecycle_msgs/Transition``; return whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "change_state", request).success)

    def state(self) -> str:
        """Return the label of the node's lifecycle state."""
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def set_parameters(self, **values: Any) -> list[Any]:
        """Set parameters as ``ros2 param set`` does; return the results."""
        parameters = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParameters.Request(parameters=parameters)
        return list(self.call(SetParameters, "set_parameters", request).results)

    def get_parameter(self, name: str) -> Any:
        """Return the value of a parameter of the detector node."""
        request = GetParameters.Request(names=[name])
        (value,) = self.call(GetParameters, "get_parameters", request).values
        return parameter_value_to_python(value)

    def wait_for_diagnostics(
        self, condition: Callable[[Any, dict[str, str]], bool], what: str
    ) -> Any:
        """Wait for a diagnostic status of the node that meets the condition; return it."""

        def meets(status: Any) -> bool:
            return condition(status, status_values(status))

        self.diagnostics.clear()
        self.spin_until(lambda: any(map(meets, self.diagnostics)), f"diagnostics: {what}")
        return next(filter(meets, self.diagnostics))

    def publish_until_status(
        self, message: Any, condition: Callable[[Any], bool], what: str, period_s: float = 0.2
    ) -> Any:
        """Publish a message until a diagnostic status meets the condition; return that."""
        self.diagnostics.clear()
        self.publish_until(message, lambda: any(map(condition, self.diagnostics)), what, period_s)
        return next(filter(condition, self.diagnostics))

    def wait_for_state(self, word: str, reason: str = "", frame: Any = None) -> StateRecord:
        """Wait until ``~/state`` says a word, and a reason where it is unknown; return it.

        The frame is published meanwhile.
        """

        def said() -> bool:
            state = self.listener.state()
            return (state.word, state.reason) == (word, reason)

        if frame is None:
            self.spin_until(said, f"state {word} {reason}")
        else:
            self.publish_until(frame, said, f"state {word} {reason}")
        assert self.listener.record is not None
        return self.listener.record

    def wait_for_silence(self) -> None:
        """Wait until the middleware says that a state is overdue."""
        missed = self.missed_states

        def is_silent() -> bool:
            return self.missed_states > missed and self.listener.state().reason == "no state"

        self.spin_until(is_silent, "a missed deadline")

    def wait_for_log(self, text: str) -> Any:
        """Wait for a log message with ``text`` in it, and return it."""

        def found() -> list[Any]:
            return [log for log in self.logs if text in log.msg]

        self.spin_until(lambda: bool(found()), f"{text!r} on /rosout")
        return found()[0]

    def log_lines(self) -> list[str]:
        """Return the texts of the log messages so far."""
        return [log.msg for log in self.logs]

    def answers_to(self, message: Any) -> list[Any]:
        """Return the detections that carry the message's stamp."""
        stamp = message.header.stamp
        return [d for d in self.detections if d.header.stamp == stamp]

    def is_answered(self, message: Any, *, within_s: float) -> bool:
        """Wait for a detection of a message that was sent; return whether one came."""
        until = time.monotonic() + within_s
        self.spin_until(
            lambda: bool(self.answers_to(message)) or time.monotonic() > until, "a detection"
        )
        return bool(self.answers_to(message))

    def wait_until_heard(self) -> None:
        """Wait until the node and the publisher of images have found each other."""
        topic = self.publisher.topic_name
        self.spin_until(self.publisher.get_subscription_count, f"a subscription to {topic}")
        found = self.node.get_subscriptions_info_by_topic(topic)
        heard_by = {bytes(info.endpoint_gid) for info in found}
        if heard_by != self._heard_by:
            self.wait_until_found()
            self._heard_by = heard_by

    def ask(self, message: Any, *, once: bool = False) -> Any:
        """Send a stamped image and return the detection of it.

        Not more than once as a rule, since what is sent twice counts twice; again after a while,
        unless forbidden, since a node that was killed may still look as if it were there.
        """
        assert not self.answers_to(message), "it has its stamp from another one"
        self.wait_until_heard()
        what = f"a detection with stamp {stamp_to_ns(message.header.stamp)}"
        period_s = math.inf if once else 4.0
        self.publish_until(message, lambda: bool(self.answers_to(message)), what, period_s)
        return self.answers_to(message)[0]

    def ask_picture(self, picture: NDArray[np.uint8]) -> DetectionRecord:
        """Send RGB pixels with a stamp of their own; return what the node says of them."""
        return read_detection(self.ask(self.stamp(image_message(picture, "rgb8"))))


@contextmanager
def ros_client(
    node_name: str = "/anomaly_detector",
    image_topic: str = "/image",
    message_type: Any = Image,
) -> Iterator[RosClient]:
    """Make a :class:`RosClient` for the time of the block."""
    client = RosClient(node_name, image_topic, message_type)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def ros_context() -> Iterator[Any]:
    """Make a context of rclpy in this process, in the domain of the tests."""
    context = Context()
    rclpy.init(args=[], context=context)
    try:
        yield context
    finally:
        context.try_shutdown()


@contextmanager
def node_in(namespace: str, *ros_arguments: str, **parameters: object) -> Iterator[RosClient]:
    """Run a detector node in a namespace; yield a client of it."""
    compressed = parameters.get("image_transport") == "compressed"
    topic, kind = ("image/compressed", CompressedImage) if compressed else ("image", Image)
    with (
        running_node("-r", f"__ns:=/{namespace}", *ros_arguments, **parameters),
        ros_client(f"/{namespace}/anomaly_detector", f"/{namespace}/{topic}", kind) as client,
    ):
        yield client


def noise(seed: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Return a picture with a score of its own, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    low, high = sorted(random.integers(0, 256, 2))
    return random.integers(low, high + 1, (height, width, 3), dtype=np.uint8)


def image_message(array: NDArray[np.uint8], encoding: str, padding: int = 0) -> Any:
    """Make an Image of uint8 [H, W] or [H, W, C] with ``padding`` bytes after each row."""
    height, width = array.shape[:2]
    rows = array.reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=padded.shape[1],
        data=padded.tobytes(),
    )


def jpeg_message(array: NDArray[np.uint8]) -> Any:
    """Make a JPEG CompressedImage of BGR pixels."""
    written, data = cv2.imencode(".jpg", array)
    assert written
    return CompressedImage(format="rgb8; jpeg compressed bgr8", data=data.tobytes())


@contextmanager
def playing(bag: Path, **options: Any) -> Iterator[list[PlayResult]]:
    """Play a bag in a thread until the block ends; then the list holds the result."""
    stop = threading.Event()
    results: list[PlayResult] = []
    thread = threading.Thread(target=lambda: results.append(play(bag, stop=stop, **options)))
    thread.start()
    try:
        yield results
    finally:
        stop.set()
        thread.join()
    assert results, "it did not end well"


def write_image_bag(
    path: Path, pictures: Sequence[NDArray[np.uint8]], *, hz: float = 50.0, storage: str = "mcap"
) -> list[int]:
    """Write rgb8 pictures to a rosbag2; return their stamps in nanoseconds."""
    stamps = [1_600_000_000 * 10**9 + round(i * 1e9 / hz) for i in range(len(pictures))]
    bags.write_image_bag(path, map(bags.StampedImage, stamps, pictures), storage=storage)
    return stamps
