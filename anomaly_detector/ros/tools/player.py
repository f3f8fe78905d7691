"""Plays the camera images of a recording over DDS, for machines without ``ros2 bag play``.

The recorded bytes are published as they are, so the node receives what the robot's camera sent.
rclpy is imported when playing starts: the command line can be built without ROS.
"""

from __future__ import annotations

import argparse
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError, SourceError, as_one_line
from anomaly_detector.recordings import (
    UnreadableFrame,
    count_frames,
    open_bag,
    to_cdr,
    warn_unreadable,
)
from anomaly_detector.ros.graph.dds import large_image_environment
from anomaly_detector.ros.tools.tool_node import signals_set, tool_node, wait_for_match

LOOKAHEAD_FRAMES = 16
"""Frames read ahead, so that a slow disk does not disturb the pace."""

SETTLE_S = 0.5
"""Time between the last subscription that was waited for and the first frame.

For best-effort subscriptions of nodes that cannot be asked whether they have found the publisher,
and in which the bag's time runs up to the first frame.
"""

POLL_S = 0.02
"""Time between two looks for subscriptions."""

ACKNOWLEDGE_S = 5.0
"""Longest wait for subscribers to find the publisher, and to have received the last frames."""

LINGER_S = 0.5
"""Time for the last frame to reach best-effort subscriptions, before the publisher goes away."""

MAX_GAP_S = 5.0
"""Longest time between two frames that is played: longer ones are mostly steps of a clock that was
set, such as from 1970 to now."""

TOLERATED_LATE_S = 0.005
"""A frame that is later than this delays those after it.

Making up for lost time would send frames in a burst, which no camera does, and of which a
subscriber that keeps the newest frame only loses all but one.
"""


@dataclass(frozen=True)
class PlayResult:
    """What was played.

    Attributes:
        topic: the topic it was published on.
        sent: number of frames published.
        duration_s: time from the first frame to the last, seconds.
        max_late_s: how late the latest frame was sent, seconds.
        unreadable: what of the bag was left out, and why.
    """

    topic: str
    sent: int
    duration_s: float
    max_late_s: float
    unreadable: Sequence[UnreadableFrame] = field(default_factory=tuple)


@dataclass(frozen=True)
class PlayedFrame:
    """One recorded message.

    Attributes:
        time_s: seconds since the first one, in which no gap is longer than :data:`MAX_GAP_S`; goes
            on when the bag starts again.
        recorded_ns: time at which it was recorded, nanoseconds.
        cdr: its bytes.
        skipped: the gap before it, where that is longer or goes back; empty otherwise.
    """

    time_s: float
    recorded_ns: int
    cdr: bytes
    skipped: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the player's arguments to a parser; :func:`run` takes what it parses."""
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap, .db3 or .bag file")
    parser.add_argument("--topic", help="image topic in the bag; needed when it has more than one")
    parser.add_argument("--output-topic", help="topic to publish on (default: as recorded)")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="speed, as a factor (default: %(default)s)"
    )
    parser.add_argument(
        "--hz",
        type=float,
        help="constant frame rate, in place of the recorded times, in which a gap is played as "
        f"{MAX_GAP_S:g} s at most",
    )
    parser.add_argument("--loop", action="store_true", help="start again at the end")
    parser.add_argument(
        "--clock",
        type=float,
        metavar="HZ",
        help="publish the bag's time on /clock this often, for nodes with use_sim_time",
    )
    parser.add_argument(
        "--reliability",
        choices=("reliable", "best_effort"),
        default="reliable",
        help="QoS offered; reliable serves both kinds of subscribers (default: %(default)s)",
    )
    parser.add_argument(
        "--wait-for-subscribers",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="give up when nobody subscribes within this time; 0 plays at once "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--wait-for-listener",
        nargs=2,
        action="append",
        default=[],
        metavar=("NODE", "TOPIC"),
        help="within the same time, wait for this node to subscribe to this topic, too, such as "
        "/rosbag2_recorder to the results; may be given again",
    )


def run(args: argparse.Namespace) -> int:
    """Play as the command line says; Ctrl-C and SIGTERM end it quietly.

    Args:
        args: from a parser that :func:`add_arguments` filled.

    Returns:
        Exit code 0.

    Raises:
        AnomalyDetectorError: as :func:`play`.
    """
    stop = threading.Event()
    with signals_set(stop):
        result = play(
            args.bag,
            topic=args.topic,
            output_topic=args.output_topic,
            rate=args.rate,
            hz=args.hz,
            loop=args.loop,
            clock_hz=args.clock,
            reliable=args.reliability == "reliable",
            wait_for_subscribers_s=args.wait_for_subscribers,
            wait_for_listeners=[(node, topic) for node, topic in args.wait_for_listener],
            progress=True,
            stop=stop,
        )
    warn_unreadable(args.bag, result.unreadable)
    print(
        f"{'stopped after' if stop.is_set() else 'published'} {result.sent} frames on "
        f"{result.topic} in {result.duration_s:.1f} s",
        file=sys.stderr,
    )
    return 0


def play(
    bag: str | Path,
    *,
    topic: str | None = None,
    output_topic: str | None = None,
    rate: float = 1.0,
    hz: float | None = None,
    loop: bool = False,
    clock_hz: float | None = None,
    reliable: bool = True,
    wait_for_subscribers_s: float = 10.0,
    wait_for_listeners: Sequence[tuple[str, str]] = (),
    progress: bool = False,
    stop: threading.Event | None = None,
    on_frame: Callable[[PlayedFrame], None] | None = None,
    node: Any = None,
) -> PlayResult:
    """Publish the images of a bag, at the pace at which they were recorded.

    Loads the Fast DDS profile for large images into this process, unless the user has set one or a
    participant exists already (see :mod:`anomaly_detector.ros.graph.dds`).

    Args:
        bag: a rosbag2, or a ROS 1 bag.
        topic: the image topic in the bag; None when it has just one.
        output_topic: where to publish; None for the same name.
        rate: 2.0 plays twice as fast; ignored with ``hz``.
        hz: constant frame rate in place of the recorded times; None for these.
        loop: start again at the end, until ``stop`` is set.
        clock_hz: publish the time of the bag on ``/clock`` at this rate, and with each frame; None
            publishes none. It starts before the first frame, and jumps back when the bag starts
            again.
        reliable: offer reliable QoS, which serves best-effort subscriptions too.
        wait_for_subscribers_s: time for the first subscription to appear, seconds; 0 plays at once.
        wait_for_listeners: nodes, and the topics to which they are to have subscribed in that time,
            full names, beside the first subscription. A listener of another node's topic is ready
            when it has subscribed because it found that topic, as ``ros2 bag record`` does: then
            these two know each other, which one that only waits for the topic may not yet.
        progress: show a bar on stderr when it is a terminal.
        stop: ends it early when set.
        on_frame: called with each frame just before it is published.
        node: an ``rclpy`` node to publish as; None makes one.

    Raises:
        SourceError: no bag, no such image topic in it, or no whole message on that.
        AnomalyDetectorError: a bad rate or topic name, a subscription that did not come in time, or
            no rclpy.
    """
    for name, value in (("rate", rate), ("hz", hz), ("clock", clock_hz)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise AnomalyDetectorError(f"{name} is {value:g}: give a number above 0")
    stop = threading.Event() if stop is None else stop
    bag = Path(bag)
    with open_bag(bag) as reader:
        topic, _ = reader.image_topic(topic)
        types = reader.image_types()[topic]
    # A topic has one type when it is played.
    (message_type, count), *other_types = types.most_common()
    unreadable: list[UnreadableFrame] = []
    output_topic = topic if output_topic is None else output_topic
    with (
        _publishers(message_type, output_topic, reliable, clock_hz, node) as (
            node,
            publisher,
            clock,
        ),
        closing(_read_ahead(_read(bag, topic, message_type, loop, unreadable))) as frames,
        tqdm(
            total=None if loop else count, unit=" frames", disable=None if progress else True
        ) as bar,
    ):
        settle_s = SETTLE_S if wait_for_subscribers_s > 0 else 0.0
        sent, max_late, first_sent, start = 0, 0.0, 0.0, 0.0
        for frame in frames:
            time_s = frame.time_s / rate if hz is None else sent / hz
            if not sent:
                if wait_for_subscribers_s > 0:
                    # A recorder in simulated time subscribes to nothing before it has the time.
                    before_ns = max(0, frame.recorded_ns - round(settle_s * 1e9))
                    _wait_for_subscriptions(
                        publisher,
                        node,
                        wait_for_listeners,
                        wait_for_subscribers_s,
                        stop,
                        partial(clock.tell, before_ns),
                    )
                first_sent = start = time.monotonic() + settle_s
            if frame.skipped and hz is None:
                tqdm.write(f"frame {sent}: {frame.skipped}", file=sys.stderr)
            if clock.wait(start + time_s, frame.recorded_ns, stop):
                break
            late = time.monotonic() - (start + time_s)
            max_late = max(max_late, late)
            if late > TOLERATED_LATE_S:
                start += late
            if on_frame is not None:
                on_frame(frame)
            publisher.publish(frame.cdr)
            sent += 1
            bar.update()
        duration = time.monotonic() - first_sent if sent else 0.0
        if sent:
            time.sleep(LINGER_S)
    for other_type, left_out in filter(itemgetter(1), other_types):
        reason = f"of type {other_type}, played are those of type {message_type}"
        unreadable.append(UnreadableFrame(topic, reason, left_out))
    return PlayResult(output_topic, sent, duration, max_late, unreadable)


class _Clock:
    """Waits for the time of each frame, and tells the time of the bag meanwhile.

    Between two frames the time runs evenly, however fast the bag is played, and never passes that
    of the next frame. It jumps when the bag starts again, and where the recorder's clock was set.

    Args:
        tell: takes a time, nanoseconds; None where nobody wants to know.
        period_s: time between two tellings.
    """

    def __init__(self, tell: Callable[[int], None] | None, period_s: float) -> None:
        self._tell = tell
        self._period_s = period_s
        self._last_ns: int | None = None

    def tell(self, time_ns: int) -> None:
        """Publish a time, nanoseconds, while it stands still."""
        if self._tell is not None:
            self._tell(time_ns)

    def wait(self, due: float, frame_ns: int, stop: threading.Event) -> bool:
        """Wait until a frame is due.

        Args:
            due: ``time.monotonic()`` of the frame, seconds.
            frame_ns: the bag's time of it, nanoseconds.
            stop: ends the wait.

        Returns:
            Whether ``stop`` is set.
        """
        begin = time.monotonic()
        while self._tell is not None and (left := due - time.monotonic()) > 0:
            self._tell(self._time_at(frame_ns, due - begin, left))
            if stop.wait(min(left, self._period_s)):
                return True
        if stop.wait(max(0.0, due - time.monotonic())):
            return True
        if self._tell is not None:
            self._tell(frame_ns)
        self._last_ns = frame_ns
        return False

    def _time_at(self, frame_ns: int, whole_s: float, left_s: float) -> int:
        """Return the bag's time when ``left_s`` of the ``whole_s`` before a frame are left."""
        last_ns = self._last_ns
        if last_ns is not None and 0 <= frame_ns - last_ns <= MAX_GAP_S * 1e9:
            return frame_ns - round((frame_ns - last_ns) * min(1.0, left_s / whole_s))
        if last_ns is not None and left_s > whole_s / 2:
            # Time jumps in the middle between the two frames, far from both.
            return last_ns + round((whole_s - left_s) * 1e9)
        return max(0, frame_ns - round(left_s * 1e9))


def _wait_for_subscriptions(
    publisher: Any,
    node: Any,
    listeners: Sequence[tuple[str, str]],
    timeout_s: float,
    stop: threading.Event,
    meanwhile: Callable[[], None],
) -> None:
    from rclpy.exceptions import NameValidationException

    def listens(name: str, topic: str) -> bool:
        try:
            found = node.get_subscriptions_info_by_topic(topic)
        except (NameValidationException, ValueError) as error:  # expanding it gives the latter
            raise _bad_topic(topic, error) from error
        names = [f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in found]
        return f"/{name.lstrip('/')}" in names

    deadline = time.monotonic() + timeout_s
    while True:
        missing = [
            f"{name} did not subscribe to {topic} in {timeout_s:g} s: start it, with the same "
            "ROS_DOMAIN_ID"
            for name, topic in listeners
            if not listens(name, topic)
        ]
        if not publisher.get_subscription_count():
            missing.insert(
                0,
                f"nobody subscribed to {publisher.topic_name} in {timeout_s:g} s: start the node "
                "first, with the same topic and ROS_DOMAIN_ID",
            )
        if not missing:
            wait_for_match(node, publisher, ACKNOWLEDGE_S, lambda: not stop.is_set())
            return
        if time.monotonic() >= deadline:
            raise AnomalyDetectorError("; ".join(missing))
        meanwhile()
        if stop.wait(POLL_S):
            return


def _bad_topic(topic: str, error: Exception) -> AnomalyDetectorError:
    return AnomalyDetectorError(f"topic {topic!r} cannot be used: {as_one_line(error)}")


@contextmanager
def _publishers(
    message_type: str, topic: str, reliable: bool, clock_hz: float | None, node: Any
) -> Iterator[tuple[Any, Any, _Clock]]:
    """Yield the node, with a publisher of images, and of time where that is asked for."""
    # Fast DDS reads it when the first participant is made.
    os.environ.update(large_image_environment(os.environ))
    with tool_node("anomaly_player", "playing") if node is None else nullcontext(node) as node:
        from rclpy.duration import Duration
        from rclpy.exceptions import NameValidationException
        from rclpy.qos import QoSProfile, QoSReliabilityPolicy
        from sensor_msgs.msg import CompressedImage, Image

        policy = QoSReliabilityPolicy
        reliability = policy.RELIABLE if reliable else policy.BEST_EFFORT
        kind = CompressedImage if message_type.endswith("CompressedImage") else Image
        qos = QoSProfile(depth=10, reliability=reliability)
        with ExitStack() as made:

            def make(kind: Any, topic: str, qos: Any) -> Any:
                publisher = node.create_publisher(kind, topic, qos)
                # Destroyed with its node: a thread that spins a given node would fail now.
                made.callback(publisher.wait_for_all_acked, Duration(seconds=ACKNOWLEDGE_S))
                return publisher

            try:
                publisher = make(kind, topic, qos)
            except NameValidationException as error:
                raise _bad_topic(topic, error) from error
            if clock_hz is None:
                yield node, publisher, _Clock(None, 0.0)
                return
            from rosgraph_msgs.msg import Clock

            clock = make(Clock, "/clock", 10)

            def tell(time_ns: int) -> None:
                message = Clock()
                message.clock.sec, message.clock.nanosec = divmod(time_ns, 1_000_000_000)
                clock.publish(message)

            yield node, publisher, _Clock(tell, 1.0 / clock_hz)


def _read_ahead(read_frames: Iterator[PlayedFrame]) -> Generator[PlayedFrame, None, None]:
    """Yield what :func:`_read` does, read in a thread."""
    frames: queue.Queue[PlayedFrame | Exception | None] = queue.Queue(LOOKAHEAD_FRAMES)
    unwanted = threading.Event()

    def put(item: PlayedFrame | Exception | None) -> None:
        while not unwanted.is_set():
            try:
                frames.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for frame in read_frames:
                put(frame)
                if unwanted.is_set():
                    return
            put(None)
        except Exception as error:
            put(error)

    thread = threading.Thread(target=read, name="bag-reader", daemon=True)
    thread.start()
    try:
        while (item := frames.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        unwanted.set()
        thread.join()


def _read(
    bag: Path, topic: str, message_type: str, loop: bool, unreadable: list[UnreadableFrame]
) -> Iterator[PlayedFrame]:
    """Yield the messages of a topic; what cannot be read goes into the list."""
    with open_bag(bag) as reader:
        start_s = 0.0
        while True:
            last_ns, time_s, period_s, count = 0, 0.0, 0.0, 0
            unreadable.clear()
            for item in reader.messages(topic, (message_type,)):
                if isinstance(item, UnreadableFrame):
                    unreadable.append(item)
                    continue
                try:
                    cdr = to_cdr(item)
                except Exception as error:  # whatever a damaged payload runs into
                    name = f"{count + count_frames(unreadable):06d}"
                    unreadable.append(UnreadableFrame(name, as_one_line(error)))
                    continue
                recorded_ns = item.time_ns
                gap_s, skipped = (recorded_ns - last_ns) / 1e9 if count else 0.0, ""
                if 0 <= gap_s <= MAX_GAP_S:
                    period_s = gap_s
                else:
                    skipped = f"the recorder's clock steps by {gap_s:+.4g} s"
                    gap_s = MAX_GAP_S if gap_s > 0 else period_s
                    skipped += f", played as {gap_s:.4g} s"
                time_s += gap_s
                # No message holds a time after 2038, and rollovers make such ones.
                last_ns = recorded_ns if recorded_ns < 2**31 * 10**9 else last_ns + 1
                count += 1
                yield PlayedFrame(start_s + time_s, last_ns, cdr, skipped)
            if not count:
                reason = f": {unreadable[0]}" if unreadable else ""
                raise SourceError(f"bag {bag} has no whole message on {topic}{reason}")
            if not loop:
                return
            # The gap between the end and the start is a mean one.
            start_s += time_s + (time_s / (count - 1) if count > 1 else 1.0)
