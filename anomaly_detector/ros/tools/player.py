"""Plays the camera images of a recording over DDS, for machines without ``ros2 bag play``.

The recorded bytes are published as they are, so the node receives what the robot's camera sent.
rclpy is imported when playing starts: the command line can be built without ROS.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anomaly_detector.cli.arguments import add_shared
from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.recordings import UnreadableFrame, is_bag, open_bag, warn_unreadable
from anomaly_detector.ros.graph.dds import large_image_environment
from anomaly_detector.ros.graph.node_name import node_name
from anomaly_detector.ros.tools.bag_clock import BagClock
from anomaly_detector.ros.tools.played_frames import (
    MAX_GAP_S,
    PlayedFrame,
    read_ahead,
    read_frames,
)
from anomaly_detector.ros.tools.tool_node import signals_set, tool_node, wait_for_match

_SETTLE_S = 0.5
"""Time between the last subscription that was waited for and the first frame.

For best-effort subscriptions of nodes that cannot be asked whether they have found the publisher,
and in which the bag's time runs up to the first frame.
"""

_POLL_S = 0.02
"""Time between two looks for subscriptions."""

_ACKNOWLEDGE_S = 5.0
"""Longest wait for subscribers to find the publisher, and to have received the last frames."""

_LINGER_S = 0.5
"""Time for the last frame to reach best-effort subscriptions, before the publisher goes away."""

_TOLERATED_LATE_S = 0.005
"""A frame that is later than this delays those after it.

Making up for lost time would send frames in a burst, which no camera does, and of which a
subscriber that keeps the newest frame only loses all but one.
"""


@dataclass(frozen=True)
class PlayResult:
    """What was played, on which topic, and what of the bag was left out."""

    topic: str
    sent: int
    duration_s: float
    unreadable: Sequence[UnreadableFrame]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap, .db3 or .bag file")
    add_shared(parser, "--topic")
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
    """Play as the command line says; Ctrl-C and SIGTERM end it quietly, with exit code 0."""
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
    queue: int = 10,
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
        hz: constant frame rate in place of the recorded times.
        loop: start again at the end, until ``stop`` is set.
        clock_hz: publish the time of the bag on ``/clock`` at this rate, from before the first
            frame on, and with each frame; it jumps back when the bag starts again.
        reliable: offer reliable QoS, which serves best-effort subscriptions too.
        queue: so many frames are kept for a reliable subscription that stands still.
        wait_for_subscribers_s: time for the first subscription to appear, seconds; 0 plays at once.
        wait_for_listeners: nodes, and the topics to which they are to have subscribed in that time,
            full names. A listener of another node's topic is ready when it has subscribed because
            it found that topic, as ``ros2 bag record`` does: then these two know each other, which
            one that only waits for the topic may not yet.
        progress: show a bar on stderr when it is a terminal.
        stop: ends it early when set.
        on_frame: called with each frame just before it is published.
        node: an ``rclpy`` node to publish as; None makes one.

    Raises:
        AnomalyDetectorError: nothing to play, a bad rate or topic name, a subscription that did not
            come in time, or no rclpy.
    """
    for name, value in (("rate", rate), ("hz", hz), ("clock", clock_hz)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise AnomalyDetectorError(f"{name} is {value:g}: give a number above 0")
    stop = threading.Event() if stop is None else stop
    bag = Path(bag)
    if bag.is_dir() and not is_bag(bag):
        raise AnomalyDetectorError(f"{bag} holds no bag: only a bag can be played")
    with open_bag(bag) as reader:
        topic, types = reader.image_topic(topic)
    # A topic has one type when it is played.
    (message_type, count), *other_types = types.most_common()
    unreadable: list[UnreadableFrame] = []
    output_topic = topic if output_topic is None else output_topic
    with (
        _publishers(message_type, output_topic, reliable, queue, clock_hz, node) as (
            node,
            publisher,
            clock,
        ),
        closing(read_ahead(read_frames(bag, topic, message_type, loop, unreadable))) as frames,
        tqdm(
            total=None if loop else count, unit=" frames", disable=None if progress else True
        ) as bar,
    ):
        settle_s = _SETTLE_S if wait_for_subscribers_s > 0 else 0.0
        sent, first_sent, start = 0, 0.0, 0.0
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
                        partial(clock.publish, before_ns),
                    )
                first_sent = start = time.monotonic() + settle_s
            if frame.skipped and hz is None:
                tqdm.write(f"frame {sent}: {frame.skipped}", file=sys.stderr)
            if clock.wait(start + time_s, frame.recorded_ns, stop):
                break
            late = time.monotonic() - (start + time_s)
            if late > _TOLERATED_LATE_S:
                start += late
            if on_frame is not None:
                on_frame(frame)
            publisher.publish(frame.cdr)
            sent += 1
            bar.update()
        duration = time.monotonic() - first_sent if sent else 0.0
        if sent:
            time.sleep(_LINGER_S)
    for other_type, left_out in filter(itemgetter(1), other_types):
        reason = f"of type {other_type}, played are those of type {message_type}"
        unreadable.append(UnreadableFrame(topic, reason, left_out))
    return PlayResult(output_topic, sent, duration, unreadable)


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
        return f"/{name.lstrip('/')}" in map(node_name, found)

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
            wait_for_match(node, publisher, _ACKNOWLEDGE_S, lambda: not stop.is_set())
            return
        if time.monotonic() >= deadline:
            raise AnomalyDetectorError("; ".join(missing))
        meanwhile()
        if stop.wait(_POLL_S):
            return


def _bad_topic(topic: str, error: Exception) -> AnomalyDetectorError:
    return AnomalyDetectorError(f"topic {topic!r} cannot be used: {as_one_line(error)}")


@contextmanager
def _publishers(
    message_type: str, topic: str, reliable: bool, queue: int, clock_hz: float | None, node: Any
) -> Iterator[tuple[Any, Any, BagClock]]:
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
        qos = QoSProfile(depth=queue, reliability=reliability)
        with ExitStack() as made:

            def make(kind: Any, topic: str, qos: Any) -> Any:
                publisher = node.create_publisher(kind, topic, qos)
                # Destroyed with its node: a thread that spins a given node would fail now.
                made.callback(publisher.wait_for_all_acked, Duration(seconds=_ACKNOWLEDGE_S))
                return publisher

            try:
                publisher = make(kind, topic, qos)
            except NameValidationException as error:
                raise _bad_topic(topic, error) from error
            if clock_hz is None:
                yield node, publisher, BagClock()
                return
            from rosgraph_msgs.msg import Clock

            clock = make(Clock, "/clock", 10)

            def publish_time(time_ns: int) -> None:
                message = Clock()
                message.clock.sec, message.clock.nanosec = divmod(time_ns, 1_000_000_000)
                clock.publish(message)

            yield node, publisher, BagClock(publish_time, 1.0 / clock_hz)
