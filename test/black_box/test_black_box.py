"""What the black box records: which frames, in which files, within which bounds."""

from __future__ import annotations

import array
import collections
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from black_box_frames import (
    FPS,
    Drive,
    both_formats,
    event_json,
    events_in,
    frame,
    jpeg,
    number_of,
    open_box,
    picture,
    wait_until,
)
from conftest import START_NS
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmState
from anomaly_detector.black_box import BlackBox, BlackBoxSettings, EncodedPicture, read_event
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.image import ColorOrder, Image
from anomaly_detector.recordings import open_source

OFF = AlarmState(False, False, None)
ON = AlarmState(True, False, None)


def pictures(event: Path) -> dict[str, NDArray[np.uint8]]:
    """Read an event's pictures by name, as training and offline scoring do."""
    return {item.name: item.pixels.array for item in open_source(event)}


@both_formats
def test_event_with_frames_before_during_and_after(format_name: str, tmp_path: Path) -> None:
    with open_box(tmp_path / "box", format_name) as box:
        drive = Drive(box)
        drive.normal(4.0)
        drive.feed([1.5] * 31 + [1.9] + [1.2] * 28)  # the peak is no frame of the 5 Hz grid
        drive.normal(3.0)
        wait_until(lambda: box.statistics.events_written == 1)
    (event,) = events_in(tmp_path / "box")
    assert list((tmp_path / "box").iterdir()) == [event]  # no workspace is left
    content = event_json(event)
    start, end = drive.fed[80][0], drive.fed[139][0]
    peak_ns = drive.fed[111][0]
    rows = content.pop("frames")
    peak = next(row for row in rows if row["stamp_ns"] == peak_ns)
    assert content.pop("began_utc")[:4] == event.name[6:10]
    assert content.pop("written_by").startswith("anomaly_detector ")
    assert content == {
        "kind": "anomaly_detector black box event",
        "version": 1,
        "event_kind": "alarm",
        "stamps": "header",
        "model": "corridor",
        "threshold": 1.0,
        "start_stamp_ns": start,
        "end_stamp_ns": end,
        "peak": {
            "stamp_ns": peak_ns,
            "score": 1.9,
            "normalized_score": 0.95,
            "frame": peak["name"],
        },
        "pose": None,
        "repeat_of": None,
        "alarms": 1,
        "alarm_frames": 60,
        "part": 1,
        "continues": False,
        "format": format_name,
        "topic": "/image/compressed" if format_name == "mcap" else None,
    }
    # Every fourth frame of 20 Hz, from 2 s before to 1 s after, and the peak.
    fed = dict(drive.fed)
    numbers = {stamp: number for number, (stamp, _) in enumerate(drive.fed)}
    assert [numbers[row["stamp_ns"]] for row in rows] == sorted([*range(40, 160, 4), 111])
    for row in rows:
        stamp = row["stamp_ns"]
        phase = "before" if stamp < start else "during" if stamp <= end else "after"
        assert row["phase"] == phase
        assert row["score"] == fed[stamp]
        assert row["normalized_score"] == fed[stamp] / 2
        assert row["is_anomaly"] == (fed[stamp] >= 1.0)
    # Each picture is the one of its row.
    seen = pictures(event)
    assert list(seen) == [row["name"] for row in rows]
    for row in rows:
        assert number_of(seen[row["name"]]) == numbers[row["stamp_ns"]] % 200
    statistics = box.statistics
    assert statistics.frames_recorded == len(rows)
    assert (statistics.frames_dropped, statistics.events_dropped) == (0, 0)
    assert statistics.bytes_on_disk == sum(f.stat().st_size for f in event.iterdir())
    assert not statistics.is_recording
    assert statistics.last_error == ""


def test_bag_is_read_by_rosbags_and_by_the_mcap_package(tmp_path: Path) -> None:
    from mcap.reader import make_reader
    from rosbags.highlevel import AnyReader

    data = jpeg()
    with open_box(tmp_path, "mcap") as box:
        drive = Drive(box)
        camera = EncodedPicture("bgr8; jpeg compressed bgr8", array.array("B", data))
        drive.normal(1.0, make=lambda _: camera)
        # The peak is written last, though its stamp lies before that of others.
        drive.feed([1.5] * 5 + [1.9] + [1.5] * 14, make=lambda _: camera)
    (event,) = events_in(tmp_path)
    rows = event_json(event)["frames"]
    assert len(rows) == 11  # 2 s at 5 Hz, and the peak
    with AnyReader([event]) as reader:
        assert {c.topic: c.msgtype for c in reader.connections} == {
            "/image/compressed": "sensor_msgs/msg/CompressedImage",
            "/image/compressed/score": "std_msgs/msg/Float32",
            "/image/compressed/normalized_score": "std_msgs/msg/Float32",
        }
        values: dict[str, list[tuple[int, Any]]] = collections.defaultdict(list)
        for connection, time_ns, raw in reader.messages():
            values[connection.topic].append((time_ns, reader.deserialize(raw, connection.msgtype)))
    images = values["/image/compressed"]
    assert [time_ns for time_ns, _ in images] == [row["stamp_ns"] for row in rows]
    for time_ns, message in images:
        stamp = message.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == time_ns
        assert message.header.frame_id == "camera"
        assert message.format == "bgr8; jpeg compressed bgr8"
        assert bytes(message.data) == data
    for name in ("score", "normalized_score"):
        got = [message.data for _, message in values[f"/image/compressed/{name}"]]
        np.testing.assert_allclose(got, [row[name] for row in rows], rtol=1e-6)
    with (event / "event.mcap").open("rb") as stream:
        independent = make_reader(stream, validate_crcs=True)
        summary = independent.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        assert summary.statistics.message_count == 3 * len(rows)
        messages = list(independent.iter_messages(topics=["/image/compressed"]))
    assert [message.log_time for _, _, message in messages] == [row["stamp_ns"] for row in rows]
    assert all(data in message.data for _, _, message in messages)
    assert {channel.message_encoding for _, channel, _ in messages} == {"cdr"}


@both_formats
def test_camera_bytes_are_recorded_as_they_came(format_name: str, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    _, encoded = cv2.imencode(".png", colours)
    png = bytes(encoded)
    with open_box(tmp_path, format_name) as box:
        Drive(box).anomaly(0.5, make=lambda _: EncodedPicture("png", png))
    (event,) = events_in(tmp_path)
    for image in pictures(event).values():
        np.testing.assert_array_equal(image, colours)
    if format_name == "jpeg":
        assert {file.read_bytes() for file in event.glob("*.png")} == {png}


@pytest.mark.parametrize("order", ["rgb", "bgr", "rgba", "bgra", "mono"])
def test_pixels_keep_their_colours_though_the_buffer_is_used_again(
    order: ColorOrder, tmp_path: Path
) -> None:
    red_bgr = np.zeros((16, 24, 3), np.uint8)
    red_bgr[:] = (20, 30, 200)
    converted = {
        "rgb": cv2.cvtColor(red_bgr, cv2.COLOR_BGR2RGB),
        "bgr": red_bgr,
        "rgba": cv2.cvtColor(red_bgr, cv2.COLOR_BGR2RGBA),
        "bgra": cv2.cvtColor(red_bgr, cv2.COLOR_BGR2BGRA),
        "mono": red_bgr[:, :, 2].copy(),
    }[order]
    # A view with padded rows, as of a camera message.
    buffer = np.full((16, 40, *converted.shape[2:]), 255, np.uint8)
    view = buffer[:, :24]
    with open_box(tmp_path) as box:
        for number in range(10):
            view[:] = converted
            box.add(frame(Image(view, order), 1.5, ON, START_NS + number * 10**9))
            buffer[:] = 0
    (event,) = events_in(tmp_path)
    expected = (200, 200, 200) if order == "mono" else (20, 30, 200)
    seen = list(pictures(event).values())
    assert len(seen) == 10
    for image in seen:
        assert image.shape == (16, 24, 3)
        np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), expected, atol=3)


def test_rate_is_that_of_the_settings_and_not_the_next_divisor(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for fps, rate in ((30, 7.0), (24, 5.0), (4, 5.0)):
        folder = tmp_path / str(fps)
        with open_box(folder, max_rate_hz=rate) as box:
            drive = Drive(box, fps=fps)
            for _ in range(10 * fps):
                drive.now_ns += int(generator.normal(0, 1e9 / fps / 20))
                drive.feed([1.5])
        (event,) = events_in(folder)
        expected = 10 * min(fps, rate)
        assert abs(len(event_json(event)["frames"]) - expected) <= 2


def test_alarm_that_comes_back_belongs_to_the_event_and_a_later_one_does_not(
    tmp_path: Path,
) -> None:
    with open_box(tmp_path) as box:
        drive = Drive(box)
        for seconds in (0.5, 0.8, 1.5):
            drive.normal(seconds)
            drive.anomaly(1.0)
        drive.normal(2.0)
        wait_until(lambda: box.statistics.events_written == 2)
    first, second = (event_json(event) for event in events_in(tmp_path))
    assert (first["alarms"], second["alarms"]) == (2, 1)
    assert first["alarm_frames"] == 2 * FPS
    phases = [row["phase"] for row in first["frames"]]
    changes = [b for a, b in zip(["", *phases], phases, strict=False) if a != b]
    assert changes == ["before", "during", "after", "during", "after"]
    # No frame is in both.
    assert second["frames"][0]["phase"] == "before"
    assert first["frames"][-1]["stamp_ns"] < second["frames"][0]["stamp_ns"]


def test_long_event_goes_on_in_parts_twice_as_long_at_half_the_rate(tmp_path: Path) -> None:
    with open_box(tmp_path, max_event_seconds=10.0) as box:
        drive = Drive(box, fps=10)
        drive.normal(3.0)
        drive.anomaly(100.0)
        drive.normal(2.0)
    parts = [event_json(event) for event in events_in(tmp_path)]
    assert [part["part"] for part in parts] == [1, 2, 3, 4]
    assert [part["continues"] for part in parts] == [True, True, True, False]
    lengths = [(part["end_stamp_ns"] - part["start_stamp_ns"]) / 1e9 for part in parts]
    np.testing.assert_allclose(lengths, [9.9, 19.9, 39.9, 29.9], atol=0.01)
    during = [[r for r in part["frames"] if r["phase"] == "during"] for part in parts]
    # 50 frames in each full part, one more where the peak is no frame of the grid.
    np.testing.assert_allclose([len(rows) for rows in during], [50, 50, 50, 19], atol=1)
    stamps = [row["stamp_ns"] for part in parts for row in part["frames"]]
    assert stamps == sorted(set(stamps))
    others = [{row["phase"] for row in part["frames"]} - {"during"} for part in parts]
    assert others == [{"before"}, set(), set(), {"after"}]
    assert sum(part["alarm_frames"] for part in parts) == 1000


def test_stamps_that_jump_back_close_the_event_and_empty_the_ring(tmp_path: Path) -> None:
    with open_box(tmp_path, seconds_before=60.0) as box:
        drive = Drive(box)
        drive.normal(1.0)
        drive.anomaly(1.0)
        drive.now_ns = again = START_NS - 10 * 10**9  # the bag is played again
        drive.normal(1.0)
        drive.now_ns = START_NS - 5 * 10**9
        drive.normal(1.0)
        drive.now_ns = last = START_NS - 20 * 10**9  # and again, without an event
        drive.normal(1.0)
        drive.anomaly(1.0)
    first, second = (event_json(event) for event in events_in(tmp_path))
    assert {row["phase"] for row in first["frames"]} == {"before", "during"}
    assert min(row["stamp_ns"] for row in first["frames"]) == START_NS
    stamps = [row["stamp_ns"] for row in second["frames"]]
    assert (min(stamps), max(stamps) < again) == (last, True)
    assert second["start_stamp_ns"] == last + FPS * drive.period_ns


@pytest.mark.parametrize("stamp", [None, 0, -1, 2**62], ids=["none", "zero", "negative", "far"])
@both_formats
def test_without_stamps_the_time_of_arrival_counts(
    format_name: str, stamp: int | None, tmp_path: Path
) -> None:
    arrival = 5_000_000_000
    with open_box(tmp_path, format_name) as box:
        for number in range(60):
            image = Image(picture(number), "rgb")
            state, score = (ON, 1.5) if 30 <= number < 40 else (OFF, 0.5)
            box.add(frame(image, score, state, stamp, arrival + number * 100_000_000))
            wait_until(lambda: box.statistics.frames_waiting < 8)
    (event,) = events_in(tmp_path)
    content = event_json(event)
    assert content["stamps"] == "arrival"
    assert content["start_stamp_ns"] == arrival + 3_000_000_000
    stamps = [row["stamp_ns"] for row in content["frames"]]
    assert stamps[0] == arrival + 1_000_000_000
    assert stamps[-1] == arrival + 4_800_000_000
    assert [number_of(image) for image in pictures(event).values()] == [
        (s - arrival) // 100_000_000 for s in stamps
    ]


def test_stamps_that_begin_after_frames_without_start_afresh(tmp_path: Path) -> None:
    with open_box(tmp_path) as box:
        for number in range(20):
            box.add(frame(Image(picture(0), "rgb"), 0.5, OFF, 0, number * 100_000_000))
        Drive(box).anomaly(1.0)
    (event,) = events_in(tmp_path)
    assert {row["phase"] for row in event_json(event)["frames"]} == {"during"}


def test_memory_of_the_frames_before_is_bounded(tmp_path: Path) -> None:
    camera = EncodedPicture("jpeg", jpeg(100_000))
    with open_box(tmp_path, seconds_before=60.0, max_rate_hz=30.0, memory_megabytes=1.0) as box:
        drive = Drive(box)
        drive.normal(20.0, make=lambda _: camera)
        drive.anomaly(0.5, make=lambda _: camera)
    (event,) = events_in(tmp_path)
    phases = collections.Counter(row["phase"] for row in event_json(event)["frames"])
    assert phases == {"before": 10, "during": 10}  # 10 x 100,000 bytes
    # Those were the newest.
    assert event_json(event)["frames"][0]["stamp_ns"] == drive.fed[390][0]


def test_frames_that_wait_are_bounded_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    large = Image(np.full((1500, 2000, 3), 128, np.uint8), "rgb")  # 9 MB
    with open_box(tmp_path, max_rate_hz=30.0, memory_megabytes=40.0) as box:
        most = 0
        for number in range(60):
            box.add(frame(large, 1.5, ON, START_NS + number * 40_000_000))
            most = max(most, box.statistics.frames_waiting)
        assert most <= 4
    (event,) = events_in(tmp_path)
    statistics = box.statistics
    assert statistics.frames_dropped > 0
    assert statistics.frames_recorded + statistics.frames_dropped in (60, 61)
    assert len(event_json(event)["frames"]) == statistics.frames_recorded


def test_unusable_frames_are_counted_and_never_raise(tmp_path: Path) -> None:
    with open_box(tmp_path) as box:
        unusable: list[Any] = [
            Image(np.zeros((4, 5, 7), np.uint8), "rgb"),
            Image(np.zeros((0, 0, 3), np.uint8), "bgr"),
            Image(None, "rgb"),  # type: ignore[arg-type]
            EncodedPicture("jpeg", None),
            EncodedPicture("jpeg", 7),
            None,
        ]
        for number, image in enumerate(unusable):
            box.add(frame(image, 1.5, ON, START_NS + number * 10**9))
        box.add(None)  # type: ignore[arg-type]
        drive = Drive(box, start_ns=START_NS + 20 * 10**9)
        drive.anomaly(1.0)
    content = event_json(events_in(tmp_path)[-1])
    assert len(content["frames"]) in (5, 6)
    assert box.statistics.frames_dropped >= len(unusable) + 1
    assert box.statistics.last_error.startswith("frame not recorded: ")
    assert box.statistics.events_dropped == 0


@both_formats
def test_scores_that_are_no_numbers(format_name: str, tmp_path: Path) -> None:
    with open_box(tmp_path, format_name) as box:
        drive = Drive(box)
        for score in (math.nan, 1.5, math.inf, 2.0):
            box.add(frame(Image(picture(1), "rgb"), score, ON, drive.now_ns))
            drive.now_ns += 10**9
    (event,) = events_in(tmp_path)
    scores = [item.score for item in read_event(event).frames]
    assert scores == [None, 1.5, None, 2.0]
    assert event_json(event)["peak"]["stamp_ns"] == START_NS + 2 * 10**9  # infinity is the most


@both_formats
def test_close_finishes_an_open_event(format_name: str, tmp_path: Path) -> None:
    box = open_box(tmp_path, format_name)
    drive = Drive(box)
    drive.normal(1.0)
    drive.anomaly(1.0)
    assert box.statistics.is_recording
    assert box.statistics.events_written == 0
    assert box.close()
    assert box.statistics.events_written == 1
    (event,) = events_in(tmp_path)
    assert event_json(event)["end_stamp_ns"] == drive.fed[-1][0]
    drive.anomaly(1.0)  # left aside
    assert box.close()
    assert events_in(tmp_path) == [event]


def test_event_is_written_when_the_camera_stops(tmp_path: Path) -> None:
    with open_box(tmp_path, seconds_after=0.0) as box:
        drive = Drive(box)
        drive.anomaly(1.0)
        wait_until(lambda: box.statistics.events_written == 1)
        drive.now_ns += 10 * 10**9
        drive.anomaly(1.0)  # the camera is back, the alarm still on
    first, second = (event_json(event) for event in events_in(tmp_path))
    assert first["alarm_frames"] == second["alarm_frames"] == FPS


def test_model_of_an_event_is_the_one_at_its_begin(tmp_path: Path) -> None:
    with open_box(tmp_path) as box:
        drive = Drive(box)
        drive.anomaly(1.0)
        drive.normal(3.0)
        wait_until(lambda: box.statistics.events_written == 1)
        box.model = "other"
        drive.anomaly(1.0)
    assert [event_json(event)["model"] for event in events_in(tmp_path)] == ["corridor", "other"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "bag"}, "format is 'bag', it must be mcap or jpeg"),
        ({"folder": 3}, "folder is 3, it must be a string"),
        ({"max_rate_hz": 0.0}, "max_rate_hz is 0.0, it must be a number from 0.1 to 60"),
        ({"seconds_before": -1}, "seconds_before is -1, it must be a number from 0 to 60"),
        ({"max_megabytes": math.nan}, "max_megabytes is nan"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnomalyDetectorError, match=message):
        BlackBoxSettings(**options)


def test_folder_is_needed() -> None:
    with pytest.raises(AnomalyDetectorError, match="name a folder for the black box"):
        BlackBox(BlackBoxSettings())
