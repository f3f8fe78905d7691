"""Colours, overlays, maps and the black box, through the real node."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from disks import leave_free, small_disk
from lifecycle_msgs.msg import Transition
from numpy.typing import NDArray
from ros_harness import (
    RosClient,
    image_message,
    jpeg_message,
    node_in,
    noise,
    ros_client,
    running_node,
)
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool

from anomaly_detector.black_box import Verdict, find_events, read_event, write_verdict
from anomaly_detector.black_box.reviewed import read_reviewed
from anomaly_detector.images.message import decode_image
from anomaly_detector.review.catalog import Catalog
from anomaly_detector.ros.node.detection_message import read_detection
from anomaly_detector.ros.node.status_message import status_values

GREY, BLACK = np.full((64, 64, 3), 128, np.uint8), np.zeros((64, 64, 3), np.uint8)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def client(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RosClient]:
    # Nothing else is said of a camera that counts as stopped.
    with node_in("see", model=model, diagnostics_period=0.2, stale_timeout=60.0) as client:
        yield client


class Pictures:
    """Receives one picture topic of the node, and stops when the block ends."""

    def __init__(self, client: RosClient, topic: str, kind: Any = Image) -> None:
        self.received: list[Any] = []
        self._client = client
        name = f"{client.node_name}/{topic}"
        self._subscription = client.node.create_subscription(kind, name, self.received.append, 10)

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.node.destroy_subscription(self._subscription)

    def of(self, message: Any) -> Any:
        """Send a frame until its picture comes, and return that."""

        def found() -> list[Any]:
            return [p for p in self.received if p.header.stamp == message.header.stamp]

        self._client.publish_until(message, lambda: bool(found()), "a picture")
        assert found()[0].header == message.header
        return found()[0]


def test_colours_are_those_that_the_camera_saw(client: RosClient) -> None:
    """A red, green and blue frame, in the encodings whose messages are easy to make by hand.

    All the others are proven in-process, in test_encodings.py, through the same function.
    """
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[:, :30], picture[:, 30:60], picture[:, 60:] = RED, GREEN, BLUE
    bgr = picture[..., ::-1]
    frames = {
        "rgb8": picture,
        "bgr8": np.ascontiguousarray(bgr),
        "rgba8": cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA),
        "bgra8": cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA),
        "8UC3": np.ascontiguousarray(bgr),
    }
    client.set_parameters(threshold=1e9)  # no heat over the colours
    with Pictures(client, "overlay") as overlays:
        for encoding, array in frames.items():
            message = client.stamp(image_message(np.asarray(array, np.uint8), encoding, padding=5))
            overlay = rows_of(overlays.of(message))
            # The overlay is BGR; its picture is enlarged.
            height, width = overlay.shape[0] // 3, overlay.shape[1]
            for column, color in ((1, RED), (3, GREEN), (5, BLUE)):
                seen = overlay[height, width * column // 6]
                assert int(np.argmax(seen)) == 2 - int(np.argmax(color)), encoding
    client.set_parameters(threshold=float("nan"))


def rows_of(message: Any) -> NDArray[np.uint8]:
    decoded = decode_image(message)
    assert decoded.order == "bgr"
    return decoded.array


def test_map_is_that_of_the_frame(client: RosClient) -> None:
    picture = noise(5, 64, 64)
    with Pictures(client, "anomaly_map") as maps:
        message = maps.of(client.stamp(image_message(picture, "rgb8")))
    assert (message.encoding, message.height, message.width, message.step) == ("32FC1", 64, 64, 256)
    values = np.frombuffer(message.data, np.float32).reshape(64, 64)
    expected = np.mean((picture.astype(np.float32) - 128) ** 2, axis=2)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_regions_are_detections_where_vision_msgs_is_installed(client: RosClient) -> None:
    if find_spec("vision_msgs") is None:
        client.wait_for_log("no ~/regions: the package vision_msgs is not installed")
        assert not client.node.count_publishers(f"{client.node_name}/regions")
        return
    array = import_module("vision_msgs.msg").Detection2DArray
    picture = np.full((240, 320, 3), 128, np.uint8)
    picture[60:120, 200:280] = 255
    client.set_parameters(threshold=50.0)
    with Pictures(client, "regions", array) as regions:
        message = regions.of(client.stamp(image_message(picture, "rgb8")))
        (found,) = message.detections
        assert found.header == message.header
        assert (found.bbox.size_x, found.bbox.size_y) == pytest.approx((80, 60), abs=25)
        center = found.bbox.center.position
        assert (center.x, center.y) == pytest.approx((240, 90), abs=5)
        (result,) = found.results
        assert result.hypothesis.class_id == "anomaly"
        assert 0.5 < result.hypothesis.score <= 1.0
        assert regions.of(client.stamp(image_message(GREY, "rgb8"))).detections == []
    client.set_parameters(threshold=float("nan"))


def test_alarms_are_reset_and_seconds_saved_on_demand(client: RosClient, tmp_path: Path) -> None:
    srvs = pytest.importorskip("std_srvs.srv")

    def call(name: str) -> tuple[bool, str]:
        answer = client.call(srvs.Trigger, name, srvs.Trigger.Request())
        return answer.success, answer.message

    def send(picture: NDArray[np.uint8], count: int) -> list[bool]:
        return [client.ask_picture(picture).alarm for _ in range(count)]

    off = "nothing saved: the black box is off, set black_box_folder"
    assert call("save_event") == (False, off)
    client.set_parameters(black_box_folder=str(tmp_path), black_box_seconds_after=0.0)
    assert call("save_event") == (False, "nothing saved: no frame was taken since the last event")
    call("reset_alarm")  # of other tests
    assert call("reset_alarm") == (True, "no alarm is on; its filter starts afresh")
    send(GREY, 10)
    # One anomalous frame short of an alarm: forgotten.
    client.set_parameters(alarm_immediate_level=1.0)
    assert not any(send(BLACK, 5))
    call("reset_alarm")
    assert send(BLACK, 6) == [False] * 5 + [True]
    assert call("save_event") == (True, "nothing to do: the event of an alarm is being recorded")
    client.events.clear()
    with Pictures(client, "alarm", Bool) as alarms:
        client.wait_until_found()
        assert call("reset_alarm") == (True, "alarm cleared")
        client.spin_until(lambda: alarms.received, "the alarm's end")
        assert [message.data for message in alarms.received] == [False]

    def has_ended() -> bool:  # the event's start may be read as late as that
        return any(status_values(event.status[0])["event"] == "end" for event in client.events)

    client.spin_until(has_ended, "the event's end")
    assert not any(send(GREY, 10))  # a third of a second by their stamps: two are recorded
    assert call("save_event") == (True, f"saving the last 5 s as an event in {tmp_path}")
    client.wait_for_diagnostics(lambda _, v: v.get("Black box events") == "2", "two events")
    alarm, saved = map(read_event, find_events(tmp_path))
    assert (alarm.kind, saved.kind) == ("alarm", "saved")
    assert {frame.phase for frame in saved.frames} == {"saved"}
    assert saved.frames
    # People judge it as any other, and training hears of it.
    catalog = Catalog([tmp_path])
    catalog.look()
    (entry,) = (entry for entry in catalog.entries.values() if entry.event.kind == "saved")
    assert entry.as_json()["kind"] == "saved"
    write_verdict(saved.path, Verdict("anomaly"))
    reviewed = read_reviewed(tmp_path)
    assert reviewed is not None
    (chosen,) = reviewed.anomalies
    assert list(chosen.frames) == list(saved.frames)
    client.set_parameters(
        black_box_folder="", black_box_seconds_after=3.0, alarm_immediate_level=0.75
    )


def test_overlay_is_resized_and_comes_as_jpeg_too(client: RosClient) -> None:
    (result,) = client.set_parameters(overlay_max_side=320)
    assert result.successful
    big = client.stamp(image_message(noise(6, 300, 400), "rgb8"))
    with Pictures(client, "overlay") as raw:
        overlay = raw.of(big)
    assert (overlay.encoding, overlay.width) == ("bgr8", 320)
    again = client.stamp(image_message(noise(6, 300, 400), "rgb8"))
    with Pictures(client, "overlay/compressed", CompressedImage) as compressed:
        message = compressed.of(again)
    assert "jpeg" in message.format
    decoded = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape[1] == 320
    client.set_parameters(overlay_max_side=960)


def test_score_does_not_depend_on_who_watches(model: Path) -> None:
    """A JPEG is decoded at a part of its size for the score, at full size for the overlay."""
    with node_in("jpeg", model=model, image_transport="compressed") as client:
        picture = noise(7, 512, 768)
        unseen = read_detection(client.ask(client.stamp(jpeg_message(picture)))).score
        with Pictures(client, "overlay") as overlays:
            message = client.stamp(jpeg_message(picture))
            assert overlays.of(message).width == 768
            (answer, *_) = client.answers_to(message) or [client.ask(message)]
        assert read_detection(answer).score == unseen


@pytest.mark.parametrize("some_are_missing", [False, True])
def test_black_box_records_an_alarm(
    client: RosClient, tmp_path: Path, some_are_missing: bool
) -> None:
    folder = tmp_path / "box"
    results = client.set_parameters(
        black_box_folder=str(folder),
        black_box_format="jpeg",
        black_box_seconds_after=0.0,
        black_box_max_rate_hz=60.0,
        black_box_sample_rate=0.0,
    )
    assert all(result.successful for result in results), results
    for index, picture in enumerate([GREY] * 5 + [BLACK] * 6 + [GREY] * 12):
        message = image_message(picture, "rgb8")
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        if some_are_missing and index % 3 == 1:  # a second of nanoseconds: no time
            message.header.stamp.nanosec += 10**9
        client.ask(message)
    client.wait_for_diagnostics(lambda _, v: v.get("Black box events") == "1", "a recorded event")
    (event,) = find_events(folder)
    recorded = read_event(event)
    assert len(recorded.anomalous_frames) >= 1
    event_file = json.loads((event / "event.json").read_text())
    assert event_file["model"] == "grey_difference"
    assert event_file["stamps"] == "header"
    assert abs(event_file["start_stamp_ns"] - time.time_ns()) < 300e9
    (result,) = client.set_parameters(black_box_folder="")
    assert result.successful


@pytest.mark.parametrize(
    ("fault", "reason"), [("file", "Not a directory"), ("full disk", "No space left on device")]
)
def test_black_box_that_cannot_write_warns_and_the_node_goes_on(
    fault: str, reason: str, client: RosClient, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        place = tmp_path / "place"
        if fault == "full disk":
            stack.enter_context(small_disk(place, "1m"))
            leave_free(place, 0)
        client.set_parameters(black_box_folder=str(place / "box"), black_box_seconds_after=0.0)
        if fault == "file":  # only now: the parameter would be refused
            client.spin_until(place.exists, "the box to make its folder")
            place.rename(tmp_path / "moved")  # at once: the box may be writing
            place.write_text("not a folder", encoding="utf-8")
        for picture in [BLACK] * 3 + [GREY] * 12:
            client.ask_picture(picture)
        status = client.wait_for_diagnostics(
            # It may have been moved while the box was still making its folder: another error.
            lambda s, v: "black box" in s.message and reason in v["Black box error"],
            "a warning",
        )
        assert status_values(status)["Black box error"] == (
            f"black box folder {place / 'box'} cannot be written ({reason}): "
            "make room or choose another folder"
        )
        client.ask_picture(GREY)
        client.set_parameters(black_box_folder="")


@pytest.mark.parametrize("end", ["signal", "deactivate"])
def test_alarm_that_is_on_at_the_end_is_recorded(model: Path, tmp_path: Path, end: str) -> None:
    folder = tmp_path / "box"
    with (
        running_node(model=model, black_box_folder=folder, black_box_sample_rate=0.0) as node,
        ros_client() as client,
    ):
        client.ask_picture(BLACK)
        if end == "signal":
            node.send_signal(signal.SIGINT)
            assert node.wait() == 0
        else:
            assert client.change_state(Transition.TRANSITION_DEACTIVATE)
        (event,) = find_events(folder)
        assert len(read_event(event).anomalous_frames) == 1
