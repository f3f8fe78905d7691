"""Recordings as streams of frames: folders, bags and videos, whole and damaged."""

from __future__ import annotations

import os
import re
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import PERIOD_NS, START_NS, make_drive, write_bag, write_images
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from videos import write_video

from anomaly_detector.errors import SourceError
from anomaly_detector.images.image import to_rgb
from anomaly_detector.recordings import natural_key, open_source
from training.data.bags import IMAGE_TOPIC, write_image_bag

FRAMES = make_drive(12)


def test_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    source = open_source(write_images(tmp_path / "drive", FRAMES))
    shutil.copy(tmp_path / "drive" / "frame_0.png", tmp_path / "drive" / "._frame_0.png")
    frames = list(source)
    assert len(source) == 12
    assert [frame.name for frame in frames] == [f"frame_{index}.png" for index in range(12)]
    assert frames[0].stamp_ns is None
    for frame, expected in zip(frames, FRAMES, strict=True):
        np.testing.assert_array_equal(to_rgb(frame.pixels), expected)


def test_natural_key_mixes_numbers_and_words() -> None:
    names = ["b.jpg", "10.jpg", "a10b2.jpg", "a2.jpg", "9.jpg", "a10b1.jpg"]
    expected = ["9.jpg", "10.jpg", "a2.jpg", "a10b1.jpg", "a10b2.jpg", "b.jpg"]
    assert sorted(names, key=natural_key) == expected


@pytest.mark.parametrize(
    "expected",
    [
        ["①001.jpg", "①002.jpg", "①010.jpg"],
        ["10²3.jpg", "10²20.jpg"],
        ["\u0662.jpg", "\u0661\u0660.jpg"],
        ["1700000000.25.jpg", "1700000000.5.jpg", "1700000001.125.jpg"],
        ["frame1.2.jpg", "frame1.10.jpg"],
        [os.fsdecode(b"a\xe92.jpg"), os.fsdecode(b"a\xe910.jpg")],
    ],
    ids=["circled", "superscript", "arabic-indic", "stamps", "sections", "no UTF-8"],
)
def test_natural_key_counts_by_decimals_only(expected: list[str]) -> None:
    assert sorted(set(expected), key=natural_key) == expected


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("compressed", [False, True])
def test_bag_gives_frames_and_stamps(tmp_path: Path, storage: str, compressed: bool) -> None:
    bag = write_bag(tmp_path / "bag", FRAMES, storage=storage, compressed=compressed)
    source = open_source(bag)
    frames = list(source)
    assert len(source) == len(frames) == 12
    assert [frame.stamp_ns for frame in frames] == [START_NS + i * PERIOD_NS for i in range(12)]
    tolerance = 40 if compressed else 0
    for frame, expected in zip(frames, FRAMES, strict=True):
        difference = np.abs(to_rgb(frame.pixels).astype(int) - expected)
        assert difference.max() <= tolerance


def test_bag_with_two_cameras_asks_for_the_topic(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    store = get_typestore(Stores.LATEST)
    image = store.types["sensor_msgs/msg/Image"]
    header = store.types["std_msgs/msg/Header"]
    stamp = store.types["builtin_interfaces/msg/Time"]
    with Writer(bag, version=8) as writer:
        for topic, count in (("/left", 2), ("/right", 3), ("/unused", 0)):
            connection = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store)
            for index in range(count):
                pixels = np.zeros(12, np.uint8)
                message = image(header(stamp(index, 0), ""), 2, 2, "rgb8", 0, 6, pixels)
                data = store.serialize_cdr(message, "sensor_msgs/msg/Image")
                writer.write(connection, index, data)
    with pytest.raises(SourceError, match=r"choose one with --topic: .*/left.*/right"):
        open_source(bag)
    assert len(list(open_source(bag, "/right"))) == 3
    with pytest.raises(SourceError, match="has no image topic '/front', it has /left"):
        open_source(bag, "/front")
    with pytest.raises(SourceError, match="no message on /unused"):
        open_source(bag, "/unused")


def test_empty_bag_is_refused(tmp_path: Path) -> None:
    write_image_bag(tmp_path / "bag", [])
    with pytest.raises(SourceError, match=f"no image message \\({IMAGE_TOPIC}"):
        open_source(tmp_path / "bag")


def test_frames_of_a_bag_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    store = get_typestore(Stores.LATEST)
    name = "sensor_msgs/msg/CompressedImage"
    good = cv2.imencode(".jpg", FRAMES[0])[1].reshape(-1)
    with Writer(tmp_path / "bag", version=8) as writer:
        connection = writer.add_connection("/camera", name, typestore=store)
        for index, data in enumerate([good, good[:20], good]):
            stamp = store.types["builtin_interfaces/msg/Time"](index, 0)
            header = store.types["std_msgs/msg/Header"](stamp, "")
            message = store.types[name](header, "jpeg", data)
            writer.write(connection, index, store.serialize_cdr(message, name))
    source = open_source(tmp_path / "bag")
    assert [frame.name for frame in source] == ["000000", "000002"]
    assert [item.name for item in source.unreadable] == ["000001"]
    assert "cannot be decoded" in source.unreadable[0].reason


def test_wrong_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_source(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no image"):
        open_source(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(SourceError, match="is no bag"):
        open_source(tmp_path / "notes.txt")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match="cannot be opened as a video"):
        open_source(tmp_path / "broken.mp4")
    with pytest.raises(SourceError, match="leave the topic out"):
        open_source(write_images(tmp_path / "drive", FRAMES[:1]), "/camera")


def test_video_gives_frames_and_times(tmp_path: Path) -> None:
    frames = list(open_source(write_video(tmp_path / "drive.avi", FRAMES)))
    assert len(frames) == 12
    assert frames[0].stamp_ns == 0
    assert frames[10].stamp_ns == pytest.approx(500_000_000, rel=0.02)
    difference = to_rgb(frames[5].pixels).astype(int) - FRAMES[5]
    assert np.abs(difference).mean() < 5


def test_frame_count_of_a_video_is_a_guess(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.mkv", FRAMES, "mp4v")
    data = bytearray(path.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3  # Matroska's duration
    (duration,) = struct.unpack_from(">d", data, place)
    struct.pack_into(">d", data, place, 40 * duration)
    path.write_bytes(data)
    source = open_source(path)
    assert len(source) > 400
    assert len(list(source)) == 12
    assert source.unreadable == []


def test_damaged_frame_of_a_video_is_named_and_not_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.avi", FRAMES)
    data = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(b"00dc", data)][:12]
    data[starts[5] + 8 : starts[6]] = bytes(starts[6] - starts[5] - 8)
    path.write_bytes(data)
    source = open_source(path)
    frames = list(source)
    assert len(frames) == 11
    assert frames[-1].name == "000011"
    difference = to_rgb(frames[-1].pixels).astype(int) - FRAMES[-1]
    assert np.abs(difference).mean() < 5
    # The decoder's threads may tell it some frames early.
    (item,) = source.unreadable
    assert "000002" <= item.name <= "000005"
    assert item.reason == "the video is damaged here"


def test_video_that_is_cut_off_says_how_much_is_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.avi", FRAMES)
    data = path.read_bytes()
    starts = [match.start() for match in re.finditer(b"00dc", data)][:12]
    path.write_bytes(data[: starts[7]])
    source = open_source(path)
    read = len(list(source))
    assert read in (6, 7)  # the decoder may want more behind the last one
    (item,) = source.unreadable
    assert (item.name, item.frames) == (f"{read:06d}", 12 - read)
    assert item.reason == "the video is cut off before it"


def test_rotation_tags_are_ignored_in_videos_and_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.mp4", FRAMES, "mp4v")
    upright = [to_rgb(frame.pixels) for frame in open_source(path)]
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = turned
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_ORIENTATION_META) in (90, 270)
    for frame, expected in zip(open_source(path), upright, strict=True):
        np.testing.assert_array_equal(to_rgb(frame.pixels), expected)

    folder = tmp_path / "pictures"
    folder.mkdir()
    _, jpeg = cv2.imencode(".jpg", FRAMES[0])
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    tag = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (folder / "turned.jpg").write_bytes(jpeg[:2].tobytes() + tag + jpeg[2:].tobytes())
    turned_by_opencv = cv2.imread(str(folder / "turned.jpg"))
    assert turned_by_opencv is not None
    assert turned_by_opencv.shape == (120, 90, 3)
    (frame,) = open_source(folder)
    assert frame.pixels.array.shape == (90, 120, 3)
