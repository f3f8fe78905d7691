"""What ails the camera, as the node says it: log, diagnostics, latched topics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from drives import Picture, drive_past_wall
from model_files import write_grey_difference_model
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from ros_harness import RosClient, image_message, node_in
from sensor_msgs.msg import CompressedImage

from anomaly_detector.camera_health.reference import CameraReference
from anomaly_detector.model.file import read_metadata
from anomaly_detector.ros.node.status_message import status_values

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
OWN = "/sick/anomaly_detector"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RosClient]:
    """A node whose model has seen a drive."""
    path = tmp_path_factory.mktemp("sick") / "grey.onnx"
    write_grey_difference_model(path)
    reference = CameraReference.of([np.stack(drive_past_wall(200))])
    metadata = replace(read_metadata(path), camera_reference=reference)
    write_grey_difference_model(path, metadata=metadata.to_json())
    with node_in("sick", model=path, diagnostics_period=0.2) as client:
        client.wait_for_log("active, waiting for")
        yield client


def send(client: RosClient, pictures: Sequence[Picture], start_s: float) -> None:
    """Send pictures, five a second by their stamps."""
    for index, picture in enumerate(pictures):
        message = image_message(picture, "rgb8")
        nanoseconds = round((start_s + index / 5) * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(nanoseconds, 10**9)
        message.header.frame_id = "camera_optical_frame"
        client.ask(message)


def fogged(picture: Picture) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 2.5), np.uint8)


def latched(client: RosClient, kind: Any, topic: str) -> Any:
    """Return the newest message of a latched topic, which was published before."""
    found: list[Any] = []
    subscription = client.node.create_subscription(kind, f"{OWN}/{topic}", found.append, LATCHED)
    client.spin_until(lambda: found, topic)
    client.node.destroy_subscription(subscription)
    return found[-1]


def wait_for_cause(client: RosClient, cause: str) -> Any:
    """Wait until ``/diagnostics`` names a cause; return the status."""
    found: list[Any] = []

    def see(message: Any) -> None:
        for status in message.status:
            is_own = status.name == "sick/anomaly_detector: camera"
            if is_own and status_values(status)["Cause"] == cause:
                found.append(status)

    subscription = client.node.create_subscription(DiagnosticArray, "/diagnostics", see, 10)
    client.spin_until(lambda: found, f"a camera that is {cause or 'well'}")
    client.node.destroy_subscription(subscription)
    return found[-1]


def test_a_cause_is_said_with_onset_strength_and_picture_and_so_is_its_end(
    client: RosClient,
) -> None:
    send(client, drive_past_wall(30, seed=1), 1000.0)
    (status,) = latched(client, DiagnosticArray, "camera_health").status
    assert (status.name, status.level) == ("anomaly_detector: camera", DiagnosticStatus.OK)
    assert status_values(status) == {
        "Cause": "", "Since": "", "Strength": "", "Reference": "of the model"
    }  # fmt: skip
    assert wait_for_cause(client, "").level == DiagnosticStatus.OK
    assert not [line for line in client.log_lines() if line.startswith("camera:")]

    fog = [fogged(picture) for picture in drive_past_wall(70, seed=2)]
    send(client, fog, 2000.0)
    health = latched(client, DiagnosticArray, "camera_health")
    assert health.header.frame_id == "camera_optical_frame"
    assert 2000 <= health.header.stamp.sec < 2014
    (status,) = health.status
    values = status_values(status)
    assert (status.level, values["Cause"]) == (DiagnosticStatus.WARN, "blurred")
    assert 2000 <= float(values["Since"]) <= health.header.stamp.sec + 1
    assert 0.3 < float(values["Strength"]) <= 1.0
    assert status.message.startswith(f"blurred since {values['Since']}, strength ")
    assert "clean the lens" in status.message
    assert wait_for_cause(client, "blurred").level == DiagnosticStatus.WARN
    client.wait_for_log("camera: blurred since 20")
    picture = latched(client, CompressedImage, "camera_health/picture/compressed")
    assert picture.header.stamp == health.header.stamp
    seen = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    shown = fog[round((picture.header.stamp.sec + picture.header.stamp.nanosec / 1e9 - 2000) * 5)]
    assert seen is not None
    small = cv2.resize(seen, (64, 64), interpolation=cv2.INTER_AREA)[..., ::-1]
    assert np.abs(small.astype(int) - shown).mean() < 6

    send(client, drive_past_wall(70, seed=3), 3000.0)
    wait_for_cause(client, "")
    client.wait_for_log("camera: no longer blurred")
    assert len([line for line in client.log_lines() if line.startswith("camera: blurred")]) == 1


def test_a_frozen_camera_is_one_too_and_the_state_says_it_as_before(client: RosClient) -> None:
    client.set_parameters(frozen_timeout=0.5)
    hung = image_message(drive_past_wall(1)[0], "rgb8")
    client.wait_for_state("unknown", "frozen camera", client.stamp(hung))
    status = wait_for_cause(client, "frozen")
    assert status_values(status)["Strength"] == "1.00"
    client.set_parameters(frozen_timeout=0.0)
    client.ask_picture(drive_past_wall(2)[1])
    wait_for_cause(client, "")


def test_without_a_reference_the_node_says_so_once_and_sees_what_needs_none(model: Path) -> None:
    with node_in("plain", model=model, diagnostics_period=0.2) as client:
        client.wait_for_log("has no camera reference")
        client.wait_for_log("active, waiting for")
        send(client, [np.zeros((64, 64, 3), np.uint8)] * 20, 1000.0)
        client.wait_for_log("camera: dark since 1000.")
        assert len([line for line in client.log_lines() if "camera reference" in line]) == 1
