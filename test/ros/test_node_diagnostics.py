"""What the node says on /diagnostics, and about images that do not come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from ros_harness import (
    RosClient,
    image_message,
    node_in,
    noise,
    ros_client,
    running_node,
)
from sensor_msgs.msg import Image
from std_msgs.msg import Float32

from anomaly_detector.ros.node.status_message import status_values

BLACK = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[RosClient]:
    settings = {"stale_timeout": 1.0, "diagnostics_period": 0.2, "max_failures": 3}
    with node_in("well", model=model, **settings) as client:
        yield client


def good(client: RosClient) -> Any:
    return client.stamp(image_message(noise(1), "rgb8"))


def test_stale_camera_is_reported_and_its_return_too(client: RosClient) -> None:
    status = client.wait_for_diagnostics(lambda s, _: s.level == DiagnosticStatus.STALE, "stale")
    assert "no frame" in status.message
    client.logs.clear()
    client.ask(good(client))
    client.wait_for_log("images on /well/image again")
    status = client.wait_for_diagnostics(lambda _, v: v["Frames scored"] != "0", "a scored frame")
    assert status.name == "well/anomaly_detector: detector"
    assert status.hardware_id == "camera_optical_frame"
    values = status_values(status)
    assert values["State"] == "active"
    assert values["Model"] == "grey_difference"
    assert values["Execution provider"] == "CPUExecutionProvider"
    assert float(values["Processing time p50 (ms)"]) > 0
    assert float(values["Age of last frame (s)"]) >= 0
    assert values["Anomaly state"] in ("normal", "anomaly", "alarm")
    assert float(values["Score"]) > 0
    client.wait_for_state("ok", frame=image_message(noise(1), "rgb8"))
    client.wait_for_state("unknown", "no frames")
    client.wait_for_diagnostics(lambda s, _: s.level == DiagnosticStatus.STALE, "stale again")


def test_repeated_failures_are_an_error_and_end_with_a_good_frame(client: RosClient) -> None:
    bad = good(client)
    bad.encoding = "32FC7"
    status = client.publish_until_status(bad, lambda s: s.level == DiagnosticStatus.ERROR, "ERROR")
    assert "frames failed" in status.message
    values = status_values(status)
    assert "32FC7" in values["Last error"]
    assert int(values["Frames failed (encoding)"]) >= 3
    assert "32FC7" in client.wait_for_state("unknown", "frames failed", bad).state.detail
    client.ask(good(client))
    client.wait_for_diagnostics(lambda s, _: s.level != DiagnosticStatus.ERROR, "no ERROR")


def test_every_frame_sent_is_received_or_counted_as_dropped(client: RosClient) -> None:
    """A burst is more than the node can follow: the newest frame wins, the others are counted."""
    score = f"{client.ask_picture(noise(2)).score:.6g}"
    before = status_values(client.wait_for_diagnostics(lambda _, v: v["Score"] == score, "it"))
    big = image_message(noise(3, 480, 640), "rgb8")
    for _ in range(60):
        client.publisher.publish(client.stamp(big))
    sent = 60
    while True:
        # What the burst leaves no room for is counted when a later one gets through.
        last = good(client)
        client.publisher.publish(last)
        sent += 1
        if client.is_answered(last, within_s=2.0):
            break
        assert sent < 70

    def counted(values: dict[str, str]) -> int:
        keys = ("Frames received", "Frames dropped")
        return sum(int(values[key]) - int(before[key]) for key in keys)

    status = client.wait_for_diagnostics(lambda _, v: counted(v) >= sent, "all are counted")
    assert counted(status_values(status)) == sent
    assert int(status_values(status)["Frames dropped"]) > int(before["Frames dropped"])


def test_low_rate_is_a_warning(client: RosClient) -> None:
    (result,) = client.set_parameters(expected_rate=500.0)
    assert result.successful
    status = client.publish_until_status(
        good(client), lambda s: "expected 500" in s.message, "a warning"
    )
    assert status.level == DiagnosticStatus.WARN
    client.set_parameters(expected_rate=0.0)


def test_camera_that_repeats_its_picture_is_reported_and_its_recovery_too(
    client: RosClient,
) -> None:
    """Other stamps, the same pixels: each frame is a normal one, and no score shows it."""
    client.ask(client.stamp(image_message(noise(4), "rgb8")))
    (result,) = client.set_parameters(frozen_timeout=0.5)
    assert result.successful
    client.logs.clear()
    hung = image_message(noise(5), "rgb8")

    def unchanged_s(status: Any) -> float:
        client.stamp(hung)
        return float(status_values(status)["Picture unchanged for (s)"])

    status = client.publish_until_status(
        hung, lambda s: unchanged_s(s) > 0.5 and "the same picture for" in s.message, "a warning"
    )
    assert status.level == DiagnosticStatus.WARN
    assert int(status_values(status)["Frames repeated"]) >= 2
    client.wait_for_state("unknown", "frozen camera", hung)
    client.wait_for_log("every image on /well/image for")
    client.ask(good(client))
    client.wait_for_log("the picture on /well/image changes again")
    client.wait_for_diagnostics(lambda s, _: "the same picture" not in s.message, "no warning")
    client.set_parameters(frozen_timeout=0.0)
    # As long again, and nothing is said.
    client.logs.clear()
    long_s = 1.5 * unchanged_s(status)
    client.publish_until_status(hung, lambda s: unchanged_s(s) > long_s, "it does not change")
    assert not [s for s in client.diagnostics if "the same picture" in s.message]
    assert not [line for line in client.log_lines() if "shows the same picture" in line]


def test_subscribers_that_cannot_be_served_are_named(client: RosClient) -> None:
    client.logs.clear()
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    silent = SubscriptionEventCallbacks(use_default_callbacks=False)
    subscriptions = [
        client.node.create_subscription(
            Float32, f"/well/anomaly_detector/{topic}", lambda _: None, qos, event_callbacks=silent
        )
        for topic, qos in (("score", latched), ("alarm", QoSProfile(depth=1)))
    ]
    try:
        log = client.wait_for_log("subscribers of /well/anomaly_detector/score receive nothing")
        assert client.node.get_name() in log.msg
        assert "transient local" in log.msg
        log = client.wait_for_log("subscribers of /well/anomaly_detector/alarm receive nothing")
        assert "of std_msgs/msg/Float32, not std_msgs/msg/Bool" in log.msg
        # Those that fit are served, and not named.
        client.ask(good(client))
        assert not [line for line in client.log_lines() if "detector/detection receive" in line]
    finally:
        for subscription in subscriptions:
            client.node.destroy_subscription(subscription)


def test_incompatible_qos_names_both_sides(model: Path) -> None:
    override = "qos_overrides./picky/image.subscription.reliability:=reliable"
    with (
        running_node("-r", "__ns:=/picky", "-p", override, model=model),
        ros_client("/picky/anomaly_detector", "/unused") as client,
    ):
        client.spin_until(lambda: client.node.count_subscribers("/picky/image") > 0, "the node")
        best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        # Without rclpy's own callbacks, which warn in a way that it has itself deprecated.
        quiet = PublisherEventCallbacks(use_default_callbacks=False)
        client.node.create_publisher(Image, "/picky/image", best_effort, event_callbacks=quiet)
        log = client.wait_for_log("incompatible QoS on /picky/image")
        assert f"publisher /{client.node.get_name()}" in log.msg
        assert "subscription /picky/anomaly_detector" in log.msg
        assert "eliab" in log.msg
        assert "qos_overrides./picky/image.subscription" in log.msg


def test_camera_that_starts_anew_is_heard_again(client: RosClient) -> None:
    client.ask(good(client))
    with ros_client("/well/anomaly_detector", "/well/image") as second:
        second.ask(good(second))
    client.ask(good(client))


def test_killed_node_starts_anew(model: Path) -> None:
    with ros_client("/again/anomaly_detector", "/again/image") as client:
        for _ in range(2):
            with running_node("-r", "__ns:=/again", model=model) as node:
                client.ask(good(client))
                client.wait_for_state("alarm", frame=image_message(BLACK, "rgb8"))
                node.kill()
                assert node.wait() == -9
            client.wait_for_silence()
