"""Where the robot was, through the real node: poses over DDS into all that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from black_box_frames import event_json
from conftest import START_NS
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from numpy.typing import NDArray
from posed_bags import POSE_TOPIC, pose_message, write_posed_bag
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from ros_harness import RosClient, image_message, node_in, noise
from std_msgs.msg import Bool, String

from anomaly_detector.black_box import find_events, read_event
from anomaly_detector.cli.main import main
from anomaly_detector.poses import PLACE_COLUMNS, POSE_TYPES, Pose
from anomaly_detector.recordings import open_source
from anomaly_detector.ros.node.event_message import read_event as read_event_message
from anomaly_detector.ros.node.status_message import status_values

GREY = np.full((64, 64, 3), 128, np.uint8)
BLACK = np.zeros((64, 64, 3), np.uint8)


class Types(dict[str, Any]):
    """Message classes of rclpy by their names in the graph."""

    def __missing__(self, name: str) -> Any:
        package, _, kind = name.split("/")
        return getattr(import_module(f"{package}.msg"), kind)


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[RosClient]:
    # Nothing is said of the place while a camera counts as stopped.
    settings = {"pose_max_age": 60.0, "diagnostics_period": 0.1, "stale_timeout": 60.0}
    with node_in("posed", model=model, **settings) as client:
        yield client


def publisher_of(client: RosClient, kind: str, topic: str, *, is_kept: bool = True) -> Any:
    durability = QoSDurabilityPolicy.TRANSIENT_LOCAL if is_kept else QoSDurabilityPolicy.VOLATILE
    return client.node.create_publisher(
        Types()[kind], topic, QoSProfile(depth=1, durability=durability)
    )


def now_ns(client: RosClient) -> int:
    stamp = client.stamp(image_message(GREY, "rgb8")).header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def frame_with_place(client: RosClient, start: str) -> str:
    """Send frames until diagnostics say of one a place that starts so; return that."""

    def place(status: Any) -> str:
        return status_values(status)["Pose"]

    message = client.stamp(image_message(GREY, "rgb8"))
    return place(client.publish_until_status(message, lambda s: place(s).startswith(start), start))


@pytest.mark.parametrize(
    ("kind", "is_kept"), [*((kind, False) for kind in POSE_TYPES), (POSE_TYPES[1], True)]
)
def test_type_and_qos_are_found_in_the_graph(client: RosClient, kind: str, is_kept: bool) -> None:
    pytest.importorskip(f"{kind.split('/')[0]}.msg")
    topic = f"/posed/{kind.rpartition('/')[2]}_{is_kept}"
    # The topic is named first: the localisation starts when it will.
    (result,) = client.set_parameters(pose_topic=topic)
    assert result.successful
    assert frame_with_place(client, "no pose on") == f"no pose on {topic} yet"
    publisher = publisher_of(client, kind, topic, is_kept=is_kept)
    message = pose_message(Pose(now_ns(client), "map", 1.5, -2.0, 0.0, 0.5), kind, Types())
    publisher.publish(message)
    if not is_kept:  # AMCL's last pose comes to who asks later; others' is gone
        client.spin_until(publisher.get_subscription_count, "a subscription")
        client.wait_until_found()
        publisher.publish(message)
    assert frame_with_place(client, "map").startswith("map 1.50 -2.00, yaw 0.50, ")
    client.set_parameters(pose_topic="")
    client.node.destroy_publisher(publisher)


def test_event_and_black_box_have_the_place_or_say_why_not(
    client: RosClient, tmp_path: Path
) -> None:
    topic, kind = "/posed/amcl_pose", "geometry_msgs/msg/PoseWithCovarianceStamped"
    publisher = publisher_of(client, kind, topic)
    at_ns = now_ns(client)
    publisher.publish(pose_message(Pose(at_ns, "map", 3.25, 4.0, 0.0, -1.0), kind, Types()))
    settings = {
        "black_box_folder": str(tmp_path),
        "black_box_seconds_after": 0.0,
        "black_box_sample_rate": 0.0,
    }
    client.set_parameters(pose_topic=topic, **settings)
    frame_with_place(client, "map")
    found = alarm(client)
    assert [event.kind for event in found] == ["start", "end"]
    for event in found:
        place = dict(event.place)
        age_s = float(place.pop("pose_age"))
        assert list(place.values()) == ["map", "3.25", "4", "0", "-1", ""]
        assert age_s == pytest.approx(float(event.peak_stamp) - at_ns / 1e9, abs=1e-6)
    for line in ("anomaly 1 started: normalized", "anomaly 1 ended after"):
        log = client.wait_for_log(line)
        assert log.msg.endswith(" at map 3.25 4")
        assert log.level == (30 if "started" in line else 20)
    # Poses of another frame are said and not taken.
    client.set_parameters(pose_frame="odom")
    problem = f"poses on {topic} are in frame 'map', not in 'odom'"
    frame_with_place(client, problem)
    client.wait_for_diagnostics(lambda s, _: f"place unknown: {problem}" in s.message, "a warning")
    for event in alarm(client):
        assert list(event.place) == list(PLACE_COLUMNS)
        assert [value for value in event.place.values() if value] == [problem]
    # Without a topic, nothing is said.
    client.set_parameters(pose_topic="", pose_frame="")
    assert [dict(event.place) for event in alarm(client)] == [{}, {}]
    client.wait_for_diagnostics(lambda _, v: v.get("Black box events") == "3", "three events")
    known, other, none = (read_event(path) for path in find_events(tmp_path))
    assert known.place is not None
    assert known.place.pose is not None
    assert (known.place.pose.x, known.place.pose.stamp_ns) == (3.25, at_ns)
    assert other.place is not None
    assert other.place.problem == problem
    assert none.place is None
    client.set_parameters(black_box_folder="")
    client.node.destroy_publisher(publisher)


def alarm(client: RosClient) -> list[Any]:
    """Raise and clear an alarm; return the node's two messages of it."""
    client.events.clear()
    client.ask_picture(BLACK)
    client.spin_until(lambda: bool(client.events), "the start")
    start = client.events[0]
    number = read_event_message(start).number
    client.spin_until(lambda: client.states[-1].alarm_number == number, "its state")
    assert client.states[-1].is_quiet == (start.status[0].level == DiagnosticStatus.OK)
    for _ in range(10):
        client.ask_picture(GREY)
    client.spin_until(lambda: len(client.events) == 2, "start and end")
    return [read_event_message(message) for message in client.events]


def test_topic_of_another_type_and_bad_names_are_said(client: RosClient) -> None:
    publisher = client.node.create_publisher(String, "/posed/words", 1)
    client.set_parameters(pose_topic="/posed/words")
    place = frame_with_place(client, "/posed/words has")
    assert place.startswith("/posed/words has std_msgs/msg/String: give pose_topic a topic of ")
    (result,) = client.set_parameters(pose_topic="no topic!")
    assert not result.successful
    assert result.reason == (
        "pose_topic is 'no topic!': failed to resolve name: topic name must not contain characters "
        "other than alphanumerics, '_', '~', '{', or '}'"
    )
    assert client.get_parameter("pose_topic") == "/posed/words"
    client.set_parameters(pose_topic="")
    client.node.destroy_publisher(publisher)


def test_detection_pauses_when_it_is_told_to_and_while_the_robot_turns(client: RosClient) -> None:
    topic, kind = "/posed/turning", POSE_TYPES[0]
    enable = client.node.create_publisher(
        Bool, "/posed/enable", QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    )
    enable.publish(Bool(data=False))
    client.events.clear()
    assert client.ask_picture(BLACK).alarm
    client.set_parameters(enable_topic="/posed/enable")
    # The alarm that was on ends with its last frame, and frames are counted and left alone.
    frame = client.stamp(image_message(BLACK, "rgb8"))
    record = client.wait_for_state("unknown", "paused", frame)
    assert (record.state.detail, record.alarm) == ("/posed/enable is false", None)
    client.spin_until(lambda: len(client.events) == 2, "start and end")
    before = client.publish_until_status(
        frame, lambda s: s.message.startswith("paused: /posed/enable is false"), "a pause"
    )
    skipped = int(status_values(before)["Frames skipped"])
    frame = client.stamp(frame)
    client.detections.clear()
    after = client.publish_until_status(
        frame, lambda s: int(status_values(s)["Frames skipped"]) > skipped, "it is counted"
    )
    assert status_values(after)["Frames scored"] == status_values(before)["Frames scored"]
    assert client.answers_to(frame) == []
    enable.publish(Bool(data=True))
    client.wait_for_state("ok", frame=client.stamp(image_message(GREY, "rgb8")))

    client.set_parameters(enable_topic="", pose_topic=topic, max_turn_rate=0.5)
    publisher = publisher_of(client, kind, topic)
    start_ns = now_ns(client)
    for yaw, text in ((0.0, "yaw 0.00"), (0.4, "yaw 0.40")):
        at_ns = start_ns + round(yaw / 2 * 10**9)  # two radians a second
        publisher.publish(pose_message(Pose(at_ns, "map", 1.0, 1.0, 0.0, yaw), kind, Types()))
        if not yaw:
            assert text in frame_with_place(client, "map")
    turning = stamped(GREY, start_ns + 250_000_000)
    record = client.wait_for_state("unknown", "paused", turning)
    assert record.state.detail == "turning at 2 rad/s"
    # Half a second later nobody knows, and the detection goes on.
    client.wait_for_state("ok", frame=stamped(GREY, start_ns + 900_000_000))
    client.set_parameters(pose_topic="")
    client.wait_for_log("max_turn_rate has no effect: it needs pose_topic")
    client.set_parameters(max_turn_rate=0.0)
    for made in (enable, publisher):
        client.node.destroy_publisher(made)


def test_frames_beyond_the_rate_are_skipped_and_not_lost(client: RosClient) -> None:
    client.set_parameters(max_rate_hz=0.001)
    score = f"{client.ask_picture(noise(1)).score:.6g}"
    # Not those of a moment ago, which may still be on their way.
    before = status_values(client.wait_for_diagnostics(lambda _, v: v["Score"] == score, "it"))
    frame = client.stamp(image_message(GREY, "rgb8"))

    def grown(status: Any, key: str) -> int:
        return int(status_values(status)[key]) - int(before[key])

    def has_received(count: int) -> Callable[[Any], bool]:
        return lambda status: grown(status, "Frames received") >= count

    # The next one when the node has counted the one before: the middleware drops what waits.
    for count in range(1, 5):
        status = client.publish_until_status(frame, has_received(count), "it is counted", 4.0)
    assert grown(status, "Frames skipped") == grown(status, "Frames received")
    assert grown(status, "Frames dropped") == 0
    assert client.answers_to(frame) == []
    # The newest is older than state_timeout, and not too old for this rate.
    client.wait_for_state("ok", frame=frame)
    client.set_parameters(max_rate_hz=0.0)
    client.ask_picture(GREY)


def test_repeats_are_quiet_and_a_place_can_be_snoozed(client: RosClient, tmp_path: Path) -> None:
    std_srvs = pytest.importorskip("std_srvs.srv")
    topic, kind = "/posed/odometry", POSE_TYPES[0]
    publisher = publisher_of(client, kind, topic)
    forget(client)

    def drive_to(x: float) -> None:
        pose = Pose(now_ns(client), "map", x, 0.0, 0.0, 0.0)
        publisher.publish(pose_message(pose, kind, Types()))
        frame_with_place(client, f"map {x:.2f}")

    settings = {"black_box_folder": str(tmp_path), "black_box_seconds_after": 0.0}
    client.set_parameters(pose_topic=topic, pose_max_age=60.0, **settings)
    drive_to(20.0)
    assert_alarms(client, 1, repeat_of="", level=DiagnosticStatus.WARN)
    drive_to(20.5)
    assert_alarms(client, 2, repeat_of="1", level=DiagnosticStatus.OK)
    drive_to(30.0)
    assert_alarms(client, 3, repeat_of="", level=DiagnosticStatus.WARN)
    answer = client.call(std_srvs.Trigger, "snooze", std_srvs.Trigger.Request())
    assert answer.success
    assert answer.message.startswith("snoozed: map 30.00 0.00 until 2023-11-14T23:")
    client.set_parameters(repeat_hours=0.0)
    (_, end) = assert_alarms(client, 4, repeat_of="", level=DiagnosticStatus.OK)
    assert float(end.snoozed_until) - float(end.start_stamp) == pytest.approx(3600, abs=60)
    client.wait_for_diagnostics(lambda _, v: v["Snoozed"] in answer.message, "the snooze")
    answer = client.call(std_srvs.Trigger, "end_snooze", std_srvs.Trigger.Request())
    assert (answer.success, answer.message) == (True, "1 snoozes ended")
    assert_alarms(client, 5, repeat_of="", level=DiagnosticStatus.WARN)
    # All of it is recorded; a repeat names the event that it repeats.
    client.wait_for_diagnostics(lambda _, v: v.get("Black box events") == "5", "five events")
    events = [read_event(path) for path in find_events(tmp_path)]
    assert [event.repeat_of for event in events] == ["", events[0].path.name, "", "", ""]
    client.set_parameters(black_box_folder="", pose_topic="", repeat_hours=8.0)
    client.node.destroy_publisher(publisher)


def assert_alarms(client: RosClient, number: int, repeat_of: str, level: bytes) -> list[Any]:
    """Raise an alarm; return what the node says of its start and end."""
    messages = alarm(client)
    start = client.events[0].status[0]
    assert start.level == level
    assert [(m.number, m.repeat_of) for m in messages] == [(number, repeat_of)] * 2
    return messages


def test_score_gives_the_events_that_the_node_records(
    client: RosClient, model: Path, tmp_path: Path
) -> None:
    """The same frames through the live node and, as a bag, through ``score --events-dir``."""
    forget(client)
    pictures = [GREY] * 12 + [BLACK] * 3 + [GREY] * 45 + [BLACK] * 3 + [GREY] * 12
    pose = Pose(START_NS, "map", 50.0, 6.0, 0.0, 0.5)
    period_ns = 100_000_000
    bag = write_posed_bag(tmp_path / "bag", pictures, [pose], period_ns=period_ns)
    topic, kind = "/posed/of_the_bag", POSE_TYPES[0]
    publisher = publisher_of(client, kind, topic)
    publisher.publish(pose_message(pose, kind, Types()))
    client.set_parameters(pose_topic=topic)
    live, offline = tmp_path / "live", tmp_path / "offline"
    client.publish_until_status(
        stamped(GREY, START_NS - 1), lambda s: "map 50.00" in status_values(s)["Pose"], "the pose"
    )
    results = client.set_parameters(black_box_folder=str(live), black_box_sample_rate=1.0)
    results += client.set_parameters(black_box_seconds_after=3.0)
    assert all(result.successful for result in results)
    for index, picture in enumerate(pictures):
        client.ask(stamped(picture, START_NS + index * period_ns), once=True)
    client.set_parameters(black_box_folder="", pose_topic="")
    options = ["--pose-topic", POSE_TOPIC, "--pose-max-age", "60", "--batch-size", "1"]
    command = ["score", "--model", str(model), "--input", str(bag), *options]
    command += ["--output", str(tmp_path / "scores.csv"), "--events-dir", str(offline)]
    assert main(command) == 0
    recorded, scored = ([*map(read_event, find_events(folder))] for folder in (live, offline))
    assert len(recorded) == len(scored) == 2
    assert scored[1].repeat_of == scored[0].path.name
    assert recorded[1].repeat_of == recorded[0].path.name
    for one, other in zip(recorded, scored, strict=True):
        assert one.frames == other.frames
        assert one.place == other.place
        first, second = (event_json(event.path) for event in (one, other))
        for name in ("began_utc", "repeat_of"):
            assert bool(first.pop(name)) == bool(second.pop(name))
        assert first == second
        # The pictures, too, to the last bit.
        for shown, again in zip(open_source(one.path), open_source(other.path), strict=True):
            assert shown.name == again.name
            np.testing.assert_array_equal(shown.pixels.array, again.pixels.array)
    # A recording begins when it was recorded, not when it is scored.
    assert scored[0].path.name.startswith("event_20231114T2213")
    client.node.destroy_publisher(publisher)


def forget(client: RosClient) -> None:
    """Have the node begin anew, without the alarms of other tests."""
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    ):
        assert client.change_state(transition)
    client.detections.clear()


def stamped(picture: NDArray[np.uint8], stamp_ns: int) -> Any:
    message = image_message(picture, "rgb8")
    message.header.frame_id = "camera"
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return message
