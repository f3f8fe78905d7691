"""The node as a robot sees it: a process of its own, real messages, real DDS."""

from __future__ import annotations

import re
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.logging import LoggingSeverity, get_logger
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from ros_harness import (
    Process,
    RosClient,
    image_message,
    jpeg_message,
    node_in,
    noise,
    ros_client,
    running_node,
)
from sensor_msgs.msg import CompressedImage, Image

from anomaly_detector.images.message import decode_compressed, decode_image
from anomaly_detector.model.detector import Detector
from anomaly_detector.ros.graph.silence import explain_silence
from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.node.process import log_warnings
from anomaly_detector.stamps import stamp_to_ns


@pytest.fixture(scope="module")
def raw_client(model: Path) -> Iterator[RosClient]:
    """A client whose node takes raw images; shared, because a node takes a second to start."""
    with node_in("raw", model=model) as client:
        yield client


@pytest.fixture(scope="module")
def compressed_client(model: Path) -> Iterator[RosClient]:
    with node_in("compressed", model=model, image_transport="compressed") as client:
        yield client


def rgb8() -> Any:
    return image_message(noise(1, 96, 128), "rgb8")


def bgr8() -> Any:
    return image_message(noise(2, 240, 320), "bgr8")


def mono8_padded() -> Any:
    return image_message(noise(3)[:, :, 0], "mono8", padding=13)


@pytest.mark.parametrize("make", [rgb8, bgr8, mono8_padded])
def test_score_of_live_image_equals_offline_score(
    raw_client: RosClient, model: Path, make: Callable[[], Any]
) -> None:
    message = raw_client.stamp(make())
    offline = Detector(model).detect(decode_image(message))
    check_answer(raw_client, message, offline.score, offline.is_anomaly)


def test_score_of_live_jpeg_equals_offline_score(compressed_client: RosClient, model: Path) -> None:
    message = compressed_client.stamp(jpeg_message(noise(4, 96, 128)))
    offline = Detector(model).detect(decode_compressed(message))
    check_answer(compressed_client, message, offline.score, offline.is_anomaly)


def check_answer(client: RosClient, message: Any, score: float, is_anomaly: bool) -> None:
    answer = client.ask(message)
    assert answer.header == message.header
    record = read_detection(answer)
    assert record.stamp_ns == stamp_to_ns(message.header.stamp)
    assert record.score == score
    assert record.threshold == 1000.0
    assert record.is_anomaly is is_anomaly
    assert record.model == "grey_difference"
    client.spin_until(lambda: score in client.scores, f"score {score} on ~/score")
    client.spin_until(lambda: is_anomaly in client.anomalies, f"{is_anomaly} on ~/anomaly")


def test_detection_is_warning_at_threshold_and_ok_below(raw_client: RosClient) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    black = np.zeros((64, 64, 3), np.uint8)
    for picture, level, words in (
        (grey, DiagnosticStatus.OK, "score 0 is below the threshold 1000"),
        (black, DiagnosticStatus.WARN, "score 16384 is at or above the threshold 1000"),
    ):
        answer = raw_client.ask(raw_client.stamp(image_message(picture, "rgb8")))
        (status,) = answer.status
        assert status.level == level
        assert status.name == "anomaly_detector: anomaly"
        assert status.message == words
        assert status.hardware_id == "camera_optical_frame"
        keys = [item.key for item in status.values]
        assert keys == [
            "score", "normalized_score", "threshold", "is_anomaly", "alarm", "model",
            "inference_ms", "scene",
        ]  # fmt: skip


def test_each_frame_is_answered_once(raw_client: RosClient) -> None:
    raw_client.ask(raw_client.stamp(rgb8()))  # from here on, both sides know each other
    messages = [raw_client.stamp(image_message(noise(seed), "rgb8")) for seed in range(10)]
    for message in messages:
        raw_client.ask(message, once=True)
    counts = [len(raw_client.answers_to(message)) for message in messages]
    assert counts == [1] * len(messages)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "32FC7"}, "encoding '32FC7' is not supported"),
        ({"step": 100}, "step is 100 bytes but a row of 64 rgb8 pixels has 192"),
        ({"data": bytes(1000)}, "image data has 1000 bytes"),
        ({"width": 0, "height": 0}, "image has size 0x0"),
    ],
)
def test_bad_image_is_logged_and_not_answered(
    raw_client: RosClient, changes: dict[str, Any], reason: str
) -> None:
    message = image_message(noise(5), "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    check_refused(raw_client, message, reason, rgb8())


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "is empty"), (b"\xff\xd8\xff\xe0 no picture", "cannot be decoded")],
)
def test_bad_compressed_image_is_logged_and_not_answered(
    compressed_client: RosClient, data: bytes, reason: str
) -> None:
    message = CompressedImage(format="jpeg", data=data)
    check_refused(compressed_client, message, reason, jpeg_message(noise(4)))


def check_refused(client: RosClient, bad: Any, reason: str, good: Any) -> None:
    client.stamp(bad)
    client.logs.clear()
    client.publish_until(bad, lambda: reason in "".join(client.log_lines()), f"{reason!r}")
    log = client.wait_for_log(reason)
    assert log.level == LoggingSeverity.ERROR
    assert log.name.endswith("anomaly_detector")
    assert re.match(r"frame dropped \(\d+ of \d+\): ", log.msg)
    # The topic is reliable and in order: an answer to the bad frame would be here before this one.
    client.ask(client.stamp(good))
    assert client.answers_to(bad) == []


def test_two_nodes_in_two_namespaces(model: Path) -> None:
    with (
        node_in("front", model=model) as front,
        running_node("-r", "__ns:=/rear", "-r", "image:=/rear_camera/image_raw", model=model),
        ros_client("/rear/anomaly_detector", "/rear_camera/image_raw") as rear,
    ):
        front_message = front.stamp(image_message(noise(6), "rgb8"))
        rear_message = rear.stamp(image_message(noise(7), "rgb8"))
        front_score = read_detection(front.ask(front_message)).score
        rear_score = read_detection(rear.ask(rear_message)).score
        offline = Detector(model)
        assert front_score == offline.detect(decode_image(front_message)).score
        assert rear_score == offline.detect(decode_image(rear_message)).score
        for client, score in ((front, front_score), (rear, rear_score)):
            client.spin_until(lambda c=client: bool(c.scores), "~/score")  # type: ignore[misc]
            assert set(client.scores) == {score}


def test_threshold_parameter_overrides_the_models(model: Path) -> None:
    with running_node(model=model, threshold=1e9) as node, ros_client() as client:
        node.wait_for_line("threshold 1e+09")
        record = client.ask_picture(np.zeros((64, 64, 3), np.uint8))
        assert record.threshold == 1e9
        assert not record.is_anomaly


def test_warning_of_a_library_is_one_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log_warnings(get_logger("eye"))
        warnings.warn("failed to send\nresponse", RuntimeWarning, stacklevel=1)
    assert re.fullmatch(r"\[WARN\] .*\[eye\]: failed to send response\n", capfd.readouterr().err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 3])
def test_signal_ends_the_node_quietly_while_images_arrive(
    model: Path, number: signal.Signals, times: int
) -> None:
    with running_node(model=model, stale_timeout=60.0) as node, ros_client() as client:
        message = client.stamp(image_message(noise(8, 240, 320), "rgb8"))
        client.ask(message)
        for _ in range(times):
            node.send_signal(number)
        while node.is_running:
            client.publisher.publish(message)
        assert node.wait() == 0
        # A busy machine adds warnings, such as a camera that shows the same picture for long.
        assert [line for line in node.lines if not re.match(r"\[(INFO|WARN)\]", line)] == []
        assert "configured: model" in node.output
        assert "active, waiting for" in node.output


def test_silence_is_explained(model: Path) -> None:
    """Three nodes at once, because each takes seconds to complain."""
    reliable = "qos_overrides./incompatible/image.subscription.reliability:=reliable"
    with (
        running_node("-r", "__ns:=/alone", model=model) as alone,
        running_node("-r", "__ns:=/wrong_type", model=model) as wrong_type,
        running_node("-r", "__ns:=/incompatible", "-p", reliable, model=model) as incompatible,
        ros_client(image_topic="/some_camera/image_raw") as client,
    ):
        client.node.create_publisher(CompressedImage, "/wrong_type/image", 1)
        best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        client.node.create_publisher(Image, "/incompatible/image", best_effort)
        kind = "1 publisher of sensor_msgs/msg/CompressedImage"
        qos = "1 publisher of incompatible QoS"
        check_silence(alone, "/alone/image", "/some_camera/image_raw", "it has no publisher")
        check_silence(wrong_type, "/wrong_type/image", kind, "set image_transport")
        check_silence(incompatible, "/incompatible/image", qos, "qos_overrides")


@pytest.mark.parametrize(
    ("wanted", "there", "transport"),
    [
        (Image, CompressedImage, "compressed"),
        (CompressedImage, Image, "raw"),
    ],
)
def test_silence_names_the_other_transport(wanted: type, there: type, transport: str) -> None:
    topics = {Image: "/two_ways/image", CompressedImage: "/two_ways/image/compressed"}
    remedy = f"but {topics[there]} has: set image_transport to {transport}"
    with ros_client() as client:
        node = client.node
        subscription = node.create_subscription(wanted, topics[wanted], lambda _: None, 1)
        node.create_publisher(there, topics[there], 1)
        client.spin_until(lambda: remedy in explain_silence(node, subscription), "the remedy")


def check_silence(node: Process, topic: str, *words: str) -> None:
    # The first warnings may come before the graph is known.
    line = node.wait_for_line(words[0])
    assert "[WARN]" in line
    assert f"no image (sensor_msgs/msg/Image) on {topic} for " in line
    for text in words:
        assert text in line


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        ("threshold", "5", "'threshold' must be a double (with a decimal point: 1000.0)"),
        ("use_sim_time", "7", "'use_sim_time'"),
    ],
)
def test_bad_parameter_ends_the_node_with_one_line(
    # The other bad values are in test_parameters.py, without a process for each.
    model: Path,
    parameter: str,
    value: str,
    reason: str,
) -> None:
    with running_node(**{"model": model, parameter: value}) as node:
        assert node.wait() == 1
        (line,) = node.lines
        assert line.startswith("[FATAL]")
        assert reason in line


def test_wrong_ros_arguments_end_the_node_without_traceback() -> None:
    with running_node("--params-file", "/no/such/file.yaml") as node:
        assert node.wait() == 1
        assert "Traceback" not in node.output
        assert "/no/such/file.yaml" in node.lines[-1]
