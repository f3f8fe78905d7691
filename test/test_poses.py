"""Poses: which one belongs to a frame, and what is said where none does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from black_box_frames import Drive, both_formats, event_json, events_in, open_box
from conftest import PERIOD_NS, START_NS, read_rows
from model_files import write_grey_difference_model
from posed_bags import POSE_TOPIC, along_x, pose_message, write_posed_bag

from anomaly_detector.black_box import read_event
from anomaly_detector.cli.main import main
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.poses import (
    PLACE_COLUMNS,
    POSE_TYPES,
    Place,
    Pose,
    PoseSettings,
    PoseTrack,
    read_pose,
)
from anomaly_detector.recordings import read_poses

SECOND = 10**9
KIND = POSE_TYPES[0]


def track_of(poses: Sequence[Pose], keep_s: float = math.inf, **settings: object) -> PoseTrack:
    track = PoseTrack(PoseSettings(topic="/pose", **settings), keep_s)  # type: ignore[arg-type]
    for pose in poses:
        track.see(pose_message(pose, KIND))
    return track


@pytest.mark.parametrize("kind", POSE_TYPES)
def test_pose_is_read_from_every_type(kind: str) -> None:
    pose = Pose(START_NS, "map", 1.5, -2.0, 0.25, -2.5)
    read = read_pose(pose_message(pose, kind))
    assert replace(read, yaw=0.0) == replace(pose, yaw=0.0)
    assert read.yaw == pytest.approx(-2.5)


def test_nearest_pose_counts_before_or_after_the_frame() -> None:
    first, second = along_x(2, period_ns=SECOND)
    track = track_of([first, second])
    for offset, pose, age_s in (
        (0.4, first, 0.4), (0.6, second, -0.4), (-0.9, first, -0.9), (2.0, second, 1.0)
    ):  # fmt: skip
        place = track.at(START_NS + round(offset * SECOND))
        assert place.pose is not None
        assert place.pose.x == pose.x
        assert place.age_s == pytest.approx(age_s)
        assert place.problem == ""


def test_late_poses_are_put_in_order() -> None:
    poses = along_x(5, period_ns=SECOND)
    place = track_of([poses[0], poses[3], poses[1], poses[4], poses[2]]).at(START_NS + SECOND)
    assert place.pose is not None
    assert place.pose.x == poses[1].x


def test_pose_that_is_too_old_or_in_another_frame_is_said_and_not_given() -> None:
    poses = along_x(2, period_ns=SECOND)
    assert PoseTrack(PoseSettings("/pose")).at(1) == Place(problem="no pose on /pose yet")
    assert track_of(poses).at(START_NS + 4 * SECOND) == Place(
        problem="nearest pose is 3.0 s older than the frame"
    )
    assert track_of(poses).at(START_NS - 2 * SECOND) == Place(
        problem="nearest pose is 2.0 s newer than the frame"
    )
    other = "poses on /pose are in frame 'odom', not in 'map'"
    assert track_of(along_x(2, frame_id="odom"), frame="map").at(START_NS) == Place(problem=other)
    # The first pose's frame counts where none is asked for; what came of it stays known.
    mixed = track_of([*poses, replace(poses[1], frame_id="odom", stamp_ns=START_NS + 4 * SECOND)])
    assert mixed.at(START_NS).pose is not None
    assert mixed.at(START_NS + 4 * SECOND) == Place(
        problem=f"nearest pose is 3.0 s older than the frame; {other}"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"x": math.nan}, "pose is nan, -1, 0.25 with a quaternion of length 1: look at what"),
        ({"stamp_ns": 0}, "poses have no stamp: set it in the localisation"),
    ],
)
def test_pose_that_is_none_is_said(change: dict[str, float], problem: str) -> None:
    pose = replace(along_x(1)[0], **change)  # type: ignore[arg-type]
    place = track_of([pose]).at(START_NS)
    assert place.pose is None
    assert problem in place.problem


def test_quaternion_of_zeros_is_no_orientation() -> None:
    message = pose_message(along_x(1)[0], KIND)
    for w, length in ((0.0, "0"), (math.nan, "nan")):
        message.pose.orientation.z, message.pose.orientation.w = 0.0, w
        with pytest.raises(AnomalyDetectorError, match=f"quaternion of length {length}"):
            read_pose(message)


def test_old_poses_are_forgotten_and_time_may_jump_back() -> None:
    track = track_of(along_x(1000, period_ns=SECOND // 10), keep_s=10.0)
    assert 100 <= len(track._poses) <= 201
    again = replace(along_x(1)[0], x=7.0, stamp_ns=START_NS - 100 * SECOND)
    track.see(pose_message(again, KIND))
    place = track.at(again.stamp_ns)
    assert place.pose is not None
    assert place.pose.x == 7.0
    assert track.at(START_NS).pose is None


# --- in the black box -----------------------------------------------------------------------------


@both_formats
def test_event_has_the_place_of_each_frame_and_of_its_peak(
    format_name: str, tmp_path: Path
) -> None:
    def placed(stamp_ns: int) -> Place:
        index = (stamp_ns - START_NS) // 50_000_000
        if index < 10:
            return Place(problem="no pose on /pose yet")
        return Place(Pose(stamp_ns - 5_000_000, "map", index / 20, 1.0, 0.0, 0.5), 0.005)

    with open_box(tmp_path, format_name) as box:
        drive = Drive(box, place=placed)
        drive.normal(1.0)
        drive.feed([1.5] * 5 + [1.9] + [1.5] * 4)
    (path,) = events_in(tmp_path)
    content = event_json(path)
    at_peak = {"frame_id": "map", "x": 1.25, "y": 1.0, "z": 0.0, "yaw": 0.5, "age_s": 0.005}
    assert content["pose"] == at_peak
    assert content["frames"][0]["pose"] == {"problem": "no pose on /pose yet"}
    event = read_event(path)
    assert event.place is not None
    assert event.place == placed(content["peak"]["stamp_ns"])
    assert [frame.place for frame in event.frames] == [
        placed(frame.stamp_ns) for frame in event.frames
    ]
    if format_name == "mcap":
        # The bag has them, too, so that an event is placed as any bag is.
        track = read_poses(path, PoseSettings("/image/compressed/pose"))
        assert track is not None
        place = track.at(content["peak"]["stamp_ns"])
        assert place.pose is not None
        assert place.pose.stamp_ns == content["peak"]["stamp_ns"] - 5_000_000
        assert place.pose.x == 1.25
        assert place.pose.yaw == pytest.approx(0.5)


def test_event_without_poses_has_none(tmp_path: Path) -> None:
    with open_box(tmp_path, "mcap") as box:
        Drive(box).anomaly(0.5)
    (path,) = events_in(tmp_path)
    content = event_json(path)
    assert content["pose"] is None
    assert {row["pose"] for row in content["frames"]} == {None}
    assert read_event(path).place is None
    with pytest.raises(AnomalyDetectorError, match="no message on /image/compressed/pose"):
        read_poses(path, PoseSettings("/image/compressed/pose"))


# --- in the tables of score -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def grey_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grey_difference_model(tmp_path_factory.mktemp("m") / "grey.onnx", threshold=100.0)


FRAMES = [np.full((48, 64, 3), 128 if index < 4 else index, np.uint8) for index in range(8)]


@pytest.mark.parametrize("kind", POSE_TYPES)
def test_tables_have_the_poses_of_the_bags_own_topic(
    grey_model: Path, tmp_path: Path, kind: str
) -> None:
    bag = write_posed_bag(tmp_path / "bag", FRAMES, along_x(7), kind)
    arguments = ["score", "--model", str(grey_model), "--input", str(bag), "--output"]
    options = ["--pose-topic", POSE_TOPIC, "--pose-max-age", "0.01"]
    events = tmp_path / "events.csv"
    plain, placed = tmp_path / "plain.csv", tmp_path / "placed.csv"
    assert main([*arguments, str(plain)]) == 0
    assert main([*arguments, str(placed), "--events", str(events), *options]) == 0
    rows = read_rows(placed)
    # Without poses the table is what it was, byte for byte; with them only columns are added.
    assert [list(row.values())[:6] for row in rows] == [
        list(row.values()) for row in read_rows(plain)
    ]
    assert tuple(rows[0])[6:] == PLACE_COLUMNS
    assert list(rows[3].values())[6:] == ["map", "1.5", "-1", "0.25", "0.3", "0", ""]
    problem = f"nearest pose is {PERIOD_NS / 1e9:.1f} s older than the frame"
    assert list(rows[7].values())[6:] == ["", "", "", "", "", "", problem]
    (event,) = read_rows(events)
    assert event["peak_frame"] == "000004"
    assert [event[name] for name in PLACE_COLUMNS] == list(rows[4].values())[6:]


def test_fleet_has_them_too_and_goes_on_where_it_stopped(
    grey_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_posed_bag(tmp_path / "bag", FRAMES, along_x(8))
    arguments = ["score", "--model", str(grey_model), "--input", str(bag)]
    arguments += ["--output-dir", str(tmp_path / "out")]
    for options, kept in (([], 0), ([], 1), (["--pose-topic", POSE_TOPIC], 0)):
        assert main([*arguments, *options]) == 0
        assert f"{kept} recordings kept" in capsys.readouterr().out
    assert read_rows(tmp_path / "out" / "bag.scores.csv")[2]["pose_x"] == "1"


@pytest.mark.parametrize(
    ("topic", "problem"),
    [
        ("/odom", "has no message on /odom: it has poses on /pose"),
        ("/camera/image_raw", "has sensor_msgs/msg/Image on /camera/image_raw: it has poses on"),
    ],
)
def test_topic_without_poses_is_an_error_and_nothing_is_written(
    grey_model: Path,
    tmp_path: Path,
    topic: str,
    problem: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bag = write_posed_bag(tmp_path / "bag", FRAMES, along_x(2))
    output = tmp_path / "scores.csv"
    command = ["score", "--model", str(grey_model), "--input", str(bag), "--output", str(output)]
    assert main([*command, "--pose-topic", topic]) == 1
    assert problem in capsys.readouterr().err
    assert not output.exists()
