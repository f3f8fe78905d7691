"""Commands that talk ROS 2: a bad ROS_DOMAIN_ID is one line, and no end inside the middleware."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import rclpy
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from ros_harness import (
    DEADLINE_S,
    image_message,
    noise,
    ros_client,
    running,
    running_node,
    write_image_bag,
)
from sensor_msgs.msg import Image

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.tools.tool_node import (
    check_domain_id,
    claim_domain,
    domain_id,
    tool_node,
    wait_for_match,
    wait_until_found,
)

PYTHON = [sys.executable, "-m"]
CAMERA = [*PYTHON, "anomaly_detector.ros.benchmarking.camera", "--size", "64x48", "--frames", "2"]
NODE = [*PYTHON, "anomaly_detector.ros.detector_node"]
REFUSED = "ROS_DOMAIN_ID is 300: give a number from 0 to 232"


@pytest.mark.parametrize("verb", ["watch", "play"])
def test_verbs_refuse_a_domain_out_of_range(verb: str, tmp_path: Path) -> None:
    arguments = {"watch": [], "play": [str(tmp_path / "bag")]}[verb]
    write_image_bag(tmp_path / "bag", [noise(1)])
    environment = {**os.environ, "ROS_DOMAIN_ID": "300"}
    with running([*PYTHON, "anomaly_detector", verb, *arguments], environment) as process:
        assert process.wait() == 1
    assert [line for line in process.lines if line] == [f"error: {REFUSED}"]


def test_benchmark_camera_and_node_refuse_a_domain_out_of_range(tmp_path: Path) -> None:
    out = tmp_path / "stamps.json"
    environment = {**os.environ, "ROS_DOMAIN_ID": "300"}
    for command in ([*CAMERA, "--out", str(out)], NODE):
        with running(command, environment) as process:
            assert process.wait() == 1
        assert process.lines[-1].endswith(REFUSED)
    assert not out.exists()


def test_camera_that_is_ended_leaves_no_shared_memory_behind(tmp_path: Path) -> None:
    out = tmp_path / "stamps.json"
    with ExitStack() as stack:
        node = stack.enter_context(tool_node("observer", "testing"))
        others = set(Path("/dev/shm").iterdir())
        camera = stack.enter_context(running([*CAMERA, "--out", str(out)]))
        deadline = time.monotonic() + DEADLINE_S
        while not node.count_publishers("/image"):
            assert time.monotonic() < deadline, camera.output
            time.sleep(0.01)
        segments = camera.wait_for_shared_memory(others)
        camera.send_signal(signal.SIGTERM)
        assert camera.wait() == 128 + signal.SIGTERM
        assert "Traceback" not in camera.output
    assert not [path for path in segments if path.exists()]
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("233", "ROS_DOMAIN_ID is 233: give"),
        ("-1", "ROS_DOMAIN_ID is -1: give"),
        ("0x1000", "ROS_DOMAIN_ID is 4096: give"),
        ("abc", "ROS_DOMAIN_ID is not an integral number"),  # says rclpy
    ],
)
def test_bad_domain_of_the_environment_is_refused(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", text)
    with pytest.raises(AnomalyDetectorError, match=message), tool_node("nobody", "testing"):
        pass


@pytest.mark.parametrize("text", ["", "0", "232"])
def test_good_domains_pass(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", text)
    check_domain_id()
    monkeypatch.delenv("ROS_DOMAIN_ID")
    check_domain_id()


def test_two_claims_are_never_of_one_domain() -> None:
    first, claim = claim_domain(7)
    second, other = claim_domain(first)
    assert claim is not None
    assert other is not None
    with other:
        assert second != first
        claim.close()
        third, again = claim_domain(first)
    assert again is not None
    with again:
        assert third == first


def test_process_keeps_its_domain() -> None:
    assert domain_id() == domain_id()
    other, claim = claim_domain(domain_id())
    assert claim is not None
    with claim:
        assert other != domain_id()


def test_first_frame_of_a_matched_camera_is_never_missed(model: Path) -> None:
    """Best effort, sent once. Without the wait, the node misses some of them."""
    best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    with running_node(model=model) as node, ros_client(image_topic="/unused") as client:
        node.wait_for_line("active, waiting for")
        client.wait_until_found()
        for _ in range(20):
            with tool_node("camera", "testing") as camera:
                publisher = camera.create_publisher(Image, "/image", best_effort)
                client.spin_until(publisher.get_subscription_count, "the node's subscription")
                wait_for_match(camera, publisher, DEADLINE_S)
                message = client.stamp(image_message(noise(1), "rgb8"))
                publisher.publish(message)
                assert client.is_answered(message, within_s=DEADLINE_S - 1)


def test_node_that_does_not_answer_is_named(model: Path) -> None:
    with running_node(model=model, autostart="false") as node, ros_client() as client:
        names = [client.node_name, "/nobody"]
        client.wait_until_found()
        node.send_signal(signal.SIGSTOP)
        try:
            assert wait_until_found(client.node, names, 1.0) == names
            assert wait_until_found(client.node, names, DEADLINE_S, lambda: False) == names
        finally:
            node.send_signal(signal.SIGCONT)
        assert wait_until_found(client.node, names[:1], DEADLINE_S) == []


def test_subscriber_that_cannot_be_asked_is_not_waited_for() -> None:
    with tool_node("camera", "testing") as camera, tool_node("owner", "testing") as owner:
        # As the nodes of 'ros2 topic echo' are.
        echo = rclpy.create_node("echo", context=owner.context, start_parameter_services=False)
        echo.create_subscription(Image, "/image", lambda _: None, 1)
        publisher = camera.create_publisher(Image, "/image", 1)
        deadline = time.monotonic() + DEADLINE_S
        # The subscription is found before the name of its node.
        while [i.node_name for i in camera.get_subscriptions_info_by_topic("/image")] != ["echo"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        wait_for_match(camera, publisher, DEADLINE_S, lambda: pytest.fail("it waits"))
        echo.destroy_node()
