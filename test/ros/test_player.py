"""The player: recorded bytes over real DDS, at the recorded pace."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from rclpy.serialization import deserialize_message
from ros_harness import (
    DEADLINE_S,
    image_message,
    noise,
    playing,
    ros_client,
    running,
    running_node,
    write_image_bag,
)
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image as ImageMessage

from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detector
from anomaly_detector.ros.node.detection_message import DetectionRecord, read_detection
from anomaly_detector.ros.tools.played_frames import read_frames
from anomaly_detector.ros.tools.player import play
from anomaly_detector.ros.tools.tool_node import spinning, tool_node
from anomaly_detector.stamps import stamp_to_ns
from training.data.bags import StampedImage
from training.data.bags import write_image_bag as write_bag

PICTURES = [noise(seed) for seed in range(30)]
TOPIC = "/camera/image_raw"
STORE = get_typestore(Stores.LATEST)

RUN = [
    sys.executable,
    "-c",
    """
import argparse, sys
from anomaly_detector.ros.tools import player
parser = argparse.ArgumentParser()
player.add_arguments(parser)
sys.exit(player.run(parser.parse_args()))
""",
]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    write_image_bag(tmp_path / "bag", PICTURES)
    return tmp_path / "bag"


def raw_message() -> Any:
    header = STORE.types["std_msgs/msg/Header"](
        STORE.types["builtin_interfaces/msg/Time"](1, 0), ""
    )
    pixels = noise(1).reshape(-1)
    return STORE.types["sensor_msgs/msg/Image"](header, 48, 64, "rgb8", 0, 64 * 3, pixels)


def write_messages(path: Path, messages: Sequence[tuple[str, Any]]) -> None:
    """Write messages to a bag, each on its topic; those of one topic may differ in type."""
    with Writer(path, version=9) as writer:
        for kind in dict.fromkeys((topic, message.__msgtype__) for topic, message in messages):
            connection = writer.add_connection(*kind, typestore=STORE)
            for index, (topic, message) in enumerate(messages):
                if (topic, message.__msgtype__) == kind:
                    data = STORE.serialize_cdr(message, message.__msgtype__)
                    writer.write(connection, index, data)


class Subscriber:
    """Takes the serialized images of a topic."""

    def __init__(self, node: Any, topic: str) -> None:
        self.received: list[bytes] = []
        self._changed = threading.Condition()
        node.create_subscription(ImageMessage, topic, self._on_image, 100, raw=True)

    def _on_image(self, data: bytes) -> None:
        with self._changed:
            self.received.append(data)
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait for this many images, those before the call included."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, DEADLINE_S)


@contextmanager
def subscriber(topic: str) -> Iterator[Subscriber]:
    with tool_node("test_subscriber", "testing") as node:
        subscriber = Subscriber(node, topic)
        with spinning(node):
            yield subscriber


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_recorded_bytes_are_published_unchanged(tmp_path: Path, storage: str) -> None:
    path = tmp_path / "bag"
    write_image_bag(path, PICTURES[:10], storage=storage)
    with AnyReader([path]) as reader:
        recorded = [bytes(data) for _, _, data in reader.messages()]
    with subscriber(TOPIC) as listener:
        result = play(path)
        listener.wait_for(10)
        assert listener.received == recorded
    assert result.sent == 10
    assert result.topic == TOPIC


def test_every_played_frame_is_answered_by_the_node(model: Path, tmp_path: Path) -> None:
    # Reliable, and no more frames than the player's history holds: none may be missing, however
    # busy the machine is.
    pictures = PICTURES[:10]
    stamps = write_image_bag(tmp_path / "bag", pictures)
    qos = f"qos_overrides.{TOPIC}.subscription"
    with (
        running_node(
            *("-r", f"image:={TOPIC}"),
            *("-p", f"{qos}.reliability:=reliable", "-p", f"{qos}.depth:=100"),
            model=model,
        ),
        ros_client(image_topic=TOPIC) as client,
    ):
        # Until the client hears the node. Answers to these frames come before the others.
        client.ask(client.stamp(image_message(noise(99), "rgb8")))
        client.node.destroy_publisher(client.publisher)
        with running([*RUN, str(tmp_path / "bag"), "--hz", "30"]) as player:
            assert player.wait() == 0, player.output

        def played() -> list[DetectionRecord]:
            answers = map(read_detection, client.detections)
            return [answer for answer in answers if answer.stamp_ns in stamps]

        client.spin_until(lambda: len(played()) >= len(stamps), "the last answer")
        detections = played()
    offline = Detector(model)
    assert [d.stamp_ns for d in detections] == stamps
    assert [d.score for d in detections] == [
        offline.detect(Image(picture, "rgb")).score for picture in pictures
    ]
    assert {d.frame_id for d in detections} == {"camera_optical_frame"}
    assert f"published 10 frames on {TOPIC}" in player.output


def test_pace_is_the_recorded_one(bag: Path) -> None:
    """Thirty frames at 50 Hz last 0.58 s; the clock bounds it from below on any machine."""
    result = play(bag, wait_for_subscribers_s=0)
    assert result.sent == 30
    assert result.duration_s >= 0.58


@pytest.mark.parametrize(("options", "least_s"), [({"rate": 0.5}, 1.16), ({"hz": 40.0}, 0.725)])
def test_pace_can_be_changed(bag: Path, options: dict[str, float], least_s: float) -> None:
    result = play(bag, wait_for_subscribers_s=0, rate=options.get("rate", 1), hz=options.get("hz"))
    assert result.duration_s >= least_s


def test_one_of_several_topics_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    write_messages(path, [("/front", raw_message())] * 3 + [("/rear", raw_message())] * 3)
    with pytest.raises(SourceError, match="several image topics"):
        play(path)
    with subscriber("/elsewhere") as listener:
        result = play(path, topic="/rear", output_topic="/elsewhere", reliable=True)
        listener.wait_for(3)
    assert result.topic == "/elsewhere"


def test_loop_goes_on_until_stopped(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    write_image_bag(path, PICTURES[:5])
    options = {"loop": True, "hz": 10.0, "wait_for_subscribers_s": DEADLINE_S}
    with subscriber(TOPIC) as listener, playing(path, **options) as results:
        listener.wait_for(12)
        assert listener.received[0] == listener.received[5] == listener.received[10]
    assert results[0].sent >= 12


def test_a_bag_without_times_starts_again_each_second(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", [StampedImage(10**18, PICTURES[0])] * 2)
    frames = read_frames(tmp_path / "bag", TOPIC, "sensor_msgs/msg/Image", True, [])
    assert [frame.time_s for frame in islice(frames, 5)] == [0.0, 0.0, 1.0, 1.0, 2.0]


def test_nobody_subscribes(bag: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match=r"nobody subscribed to /camera/image_raw in"):
        play(bag, wait_for_subscribers_s=0.1)


def test_listener_that_is_missing_is_named(bag: Path) -> None:
    error = "/other did not subscribe to /camera/image_raw in 0.5 s"
    with subscriber(TOPIC), pytest.raises(AnomalyDetectorError, match=error):
        play(bag, wait_for_subscribers_s=0.5, wait_for_listeners=[("/other", TOPIC)])


def test_bad_topic_of_a_listener_is_refused(bag: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match=r"topic 'a b' cannot be used: .*invalid"):
        play(bag, wait_for_listeners=[("/other", "a b")])


@pytest.mark.parametrize("clock_hz", [None, 100.0])
def test_nothing_is_played_before_the_last_listener_is_there(
    bag: Path, clock_hz: float | None
) -> None:
    """The second one makes its subscription once it has heard, or not heard, the clock."""
    played: list[float] = []
    options: dict[str, Any] = {"clock_hz": clock_hz, "wait_for_subscribers_s": DEADLINE_S}
    options["on_frame"] = lambda _: played.append(time.monotonic())
    with subscriber(TOPIC) as first, ros_client(image_topic="/unused") as client:
        listeners = [("test_subscriber", TOPIC), (client.node.get_name(), "/results")]
        times: list[int] = []
        client.node.create_subscription(
            Clock, "/clock", lambda m: times.append(stamp_to_ns(m.clock) or 0), 1000
        )
        with playing(bag, wait_for_listeners=listeners, **options):
            if clock_hz is None:
                client.spin_until(lambda: client.node.count_publishers(TOPIC) > 0, "the player")
            else:
                client.spin_until(lambda: len(times) >= 5, "the clock")
                assert len(set(times)) == 1
            listening_since = time.monotonic()
            client.node.create_subscription(ImageMessage, "/results", lambda _: None, 10)
            first.wait_for(len(PICTURES))
    assert played[0] > listening_since
    assert len(first.received) == len(PICTURES)


# rclpy's report of the mismatch calls a logger function that rclpy deprecates.
@pytest.mark.filterwarnings("ignore:Deprecated in favor of:DeprecationWarning")
def test_best_effort_publisher_is_refused_by_reliable_subscriber(bag: Path) -> None:
    with (
        subscriber(TOPIC),
        pytest.raises(AnomalyDetectorError, match="nobody subscribed"),
    ):
        play(bag, wait_for_subscribers_s=0.5, reliable=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_player_quietly(bag: Path, number: signal.Signals) -> None:
    with (
        ros_client(image_topic="/unused") as client,
        running([*RUN, str(bag), "--loop"]) as player,
    ):
        arrived: list[Any] = []
        client.node.create_subscription(ImageMessage, TOPIC, arrived.append, 1)
        client.spin_until(lambda: bool(arrived), "a frame of the player")
        player.send_signal(number)
        assert player.wait() == 0
        (line,) = player.lines
        assert line.startswith("stopped after")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rate": 0.0}, "rate is 0: give a number above 0"),
        ({"hz": -1.0}, "hz is -1"),
        ({"hz": float("nan")}, "hz is nan"),
        ({"clock_hz": 0.0}, "clock is 0"),
        ({"output_topic": "/no good"}, "topic '/no good' cannot be used"),
        ({"topic": "/other"}, "has no image topic '/other', it has /camera/image_raw"),
    ],
)
def test_bad_option_is_refused(bag: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(AnomalyDetectorError, match=reason):
        play(bag, **options)


def test_a_folder_without_a_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match=f"{tmp_path} holds no bag: only a bag"):
        play(tmp_path)


def test_ros1_bag_is_published_as_ros2_serializes_it(tmp_path: Path) -> None:
    typestore = get_typestore(Stores.ROS1_NOETIC)
    types = typestore.types
    path = tmp_path / "old.bag"
    header = types["std_msgs/msg/Header"](
        seq=0, stamp=types["builtin_interfaces/msg/Time"](sec=0, nanosec=0), frame_id=""
    )
    image = types["sensor_msgs/msg/Image"](
        header=header,
        height=64,
        width=48,
        encoding="rgb8",
        is_bigendian=0,
        step=48 * 3,
        data=noise(1).reshape(-1),
    )
    with Ros1Writer(path) as writer:
        connection = writer.add_connection(TOPIC, image.__msgtype__, typestore=typestore)
        writer.write(connection, 0, typestore.serialize_ros1(image, image.__msgtype__))
    with subscriber(TOPIC) as listener:
        assert play(path).sent == 1
        listener.wait_for(1)
    message = deserialize_message(listener.received[0], ImageMessage)
    assert (message.height, message.width, message.encoding) == (64, 48, "rgb8")
    assert bytes(message.data) == noise(1).tobytes()


def test_of_a_topic_with_two_types_the_more_frequent_is_published(tmp_path: Path) -> None:
    raw = raw_message()
    packed = STORE.types["sensor_msgs/msg/CompressedImage"](raw.header, "jpeg", raw.data)
    write_messages(tmp_path / "bag", [(TOPIC, packed)] * 2 + [(TOPIC, raw)] * 3)
    with subscriber(TOPIC) as listener:
        result = play(tmp_path / "bag")
        listener.wait_for(3)
        assert listener.received == [bytes(STORE.serialize_cdr(raw, raw.__msgtype__))] * 3
    assert result.sent == 3
    (item,) = result.unreadable
    assert (item.name, item.frames) == (TOPIC, 2)
    assert "of type sensor_msgs/msg/CompressedImage" in item.reason


def test_what_is_whole_of_a_damaged_bag_is_published(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    write_image_bag(path, PICTURES, storage="sqlite3")
    (database,) = path.glob("*.db3")
    contents = bytearray(database.read_bytes())
    middle = len(contents) // 2
    contents[middle : middle + 20_000] = bytes(20_000)
    database.write_bytes(contents)
    result = play(path, wait_for_subscribers_s=0, hz=1000.0)
    missing = sum(item.frames for item in result.unreadable)
    assert 0 < missing < len(PICTURES)
    assert result.sent == len(PICTURES) - missing


def test_frames_wait_in_line_for_a_reliable_node_that_stands_still(
    model: Path, tmp_path: Path
) -> None:
    """As a replay plays, more than shared memory holds; who is stopped acknowledges nothing."""
    count = 40
    write_image_bag(tmp_path / "bag", [noise(seed, 120, 160) for seed in range(count)])
    qos = f"qos_overrides.{TOPIC}.subscription"
    arguments = ["-r", f"image:={TOPIC}", "-p", f"{qos}.reliability:=reliable"]
    with (
        running_node(*arguments, "-p", f"{qos}.depth:=100", model=model) as node,
        ros_client() as client,
    ):
        client.wait_for_state("unknown", "no frames")
        client.wait_until_found()
        frames = iter(range(count))

        def stop_and_go(_: Any) -> None:
            index = next(frames)
            if index == 1:
                node.send_signal(signal.SIGSTOP)
            elif index == count - 10:
                node.send_signal(signal.SIGCONT)

        play(tmp_path / "bag", hz=100.0, queue=count, on_frame=stop_and_go)
        client.spin_until(lambda: len(client.detections) == count, "an answer to each")
