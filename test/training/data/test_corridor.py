"""The synthetic corridor: deterministic, and its truth matches its pixels."""

import itertools
import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import read_rows
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from training.data.corridor import (
    HAZARD_LABELS,
    CorridorDrive,
    CorridorFrame,
    render_frames,
    write_drive,
)
from training.data.corridor.drive import SMALLEST_SHARE

WIDTH, HEIGHT = 160, 120
ALL = tuple(HAZARD_LABELS)


def make_drive(
    frames: int, seed: int = 0, drive: int = 0, hazards: tuple[str, ...] = ()
) -> CorridorDrive:
    return CorridorDrive(frames, seed, drive=drive, hazards=hazards, width=WIDTH, height=HEIGHT)


def difference(a: CorridorFrame, b: CorridorFrame) -> NDArray[np.int16]:
    change = np.abs(a.image.astype(np.int16) - b.image.astype(np.int16))
    return np.asarray(change.max(axis=2))


def test_labels_follow_hazards_and_robots() -> None:
    assert sorted(HAZARD_LABELS.values()) == list(range(1, 20))
    assert HAZARD_LABELS["water"] == 1
    assert HAZARD_LABELS["hanging_cable"] == 5
    assert HAZARD_LABELS["clutter"] == 19


def test_frame_has_the_promised_shape() -> None:
    frame = make_drive(3)[0]
    assert frame.image.shape == (HEIGHT, WIDTH, 3)
    assert frame.image.dtype == np.uint8
    assert frame.mask.shape == (HEIGHT, WIDTH)
    assert frame.mask.dtype == np.bool_
    assert (frame.label, frame.hazard) == (0, "normal")
    assert math.isnan(frame.distance_m)
    assert not frame.mask.any()


def test_empty_corridor_is_neither_dark_nor_flat() -> None:
    for seed in range(3):
        image = make_drive(1, seed)[0].image
        assert 60 < image.mean() < 200
        assert image.std() > 20
        assert (image >= 235).mean() < 0.15


def test_stamps_follow_the_frame_rate() -> None:
    drive = CorridorDrive(5, width=WIDTH, height=HEIGHT, fps=10.0)
    stamps = [frame.stamp_ns for frame in drive]
    assert np.diff(stamps).tolist() == [100_000_000] * 4


def test_same_arguments_give_same_pixels_in_any_order() -> None:
    hazards = ("human", "water")
    forward = [frame.image for frame in make_drive(12, 1, 2, hazards)]
    again = make_drive(12, 1, 2, hazards)
    for index in (11, 3, 7, 0):
        np.testing.assert_array_equal(again[index].image, forward[index])
    copy = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(copy[5].image, forward[5])


def test_seeds_are_different_corridors() -> None:
    frames = [make_drive(1, seed)[0] for seed in (0, 1, 2)]
    assert np.median(difference(frames[0], frames[1])) > 10
    assert np.median(difference(frames[1], frames[2])) > 10


def test_drives_share_the_corridor_but_not_the_frames() -> None:
    first, second = make_drive(1, 0, 0)[0], make_drive(1, 0, 1)[0]
    other = make_drive(1, 1, 0)[0]
    assert difference(first, second).max() > 0

    def colours(frame: CorridorFrame) -> NDArray[np.float32]:
        small = cv2.resize(frame.image, (8, 6), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32)

    same = np.abs(colours(first) - colours(second)).mean()
    different = np.abs(colours(first) - colours(other)).mean()
    assert same < 0.7 * different


def test_consecutive_frames_are_alike() -> None:
    drive = make_drive(3)
    assert np.median(difference(drive[1], drive[2])) < 20


def test_sequence_protocol() -> None:
    drive = make_drive(5)
    assert len(drive) == 5
    assert len(list(drive)) == 5
    np.testing.assert_array_equal(drive[-1].image, drive[4].image)
    assert [f.stamp_ns for f in drive[1:3]] == [drive[1].stamp_ns, drive[2].stamp_ns]
    with pytest.raises(IndexError):
        drive[5]


@pytest.mark.parametrize("hazard", ALL)
def test_truth_matches_the_pixels(hazard: str) -> None:
    for drive_number in (0, 1):
        hazardous = make_drive(60, 1, drive_number, (hazard,))
        normal = make_drive(60, 1, drive_number)
        (event,) = hazardous.events
        seen = 0
        for index in (event.start, (event.start + event.stop) // 2, event.stop - 1):
            frame, empty = hazardous[index], normal[index]
            assert (frame.label != 0) == bool(frame.mask.any())
            if frame.label == 0:
                np.testing.assert_array_equal(frame.image, empty.image)
                continue
            seen += 1
            assert frame.hazard == hazard
            assert frame.label == HAZARD_LABELS[hazard]
            assert frame.mask.mean() >= SMALLEST_SHARE
            change = difference(frame, empty)
            assert change[frame.mask].mean() > 5
            if hazard == "defects":
                assert frame.distance_m == 0.0
                continue
            assert 0.3 < frame.distance_m < 9.0
            assert frame.mask.mean() < 0.6
            # Outside there are soft shadows and glare at most; leave room for the shadows.
            near = np.asarray(
                cv2.dilate(frame.mask.astype(np.uint8), np.ones((25, 25), np.uint8))
            ).astype(bool)
            assert (change[~near] > 12).mean() < 0.02
        assert seen > 0


def test_every_class_appears_in_a_short_drive() -> None:
    drive = make_drive(110, 2, 0, ALL)
    frames = list(drive)
    assert {f.hazard for f in frames} == {"normal", *ALL}
    hazardous = np.mean([f.label != 0 for f in frames])
    assert 0.2 < hazardous < 0.6


@pytest.mark.parametrize("frames", [1, 2, 37, 500, 10_000])
def test_events_are_in_order_and_leave_normal_frames(frames: int) -> None:
    events = make_drive(frames, 0, 0, ALL).events
    assert events
    assert all(e.start < e.stop <= frames for e in events)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(events))
    assert sum(e.stop - e.start for e in events) <= max(1, 0.6 * frames)
    if frames >= 2 * len(ALL):
        assert {e.hazard for e in events} == set(ALL)


def test_parallel_rendering_gives_the_same_frames_in_order() -> None:
    drive = make_drive(66, 0, 3, ("boxes",))
    parallel = list(render_frames(drive, workers=2))
    assert len(parallel) == len(drive)
    for index in range(0, len(drive), 5):
        np.testing.assert_array_equal(parallel[index].image, drive[index].image)
        np.testing.assert_array_equal(parallel[index].mask, drive[index].mask)


def test_written_drive_is_consistent(tmp_path: Path) -> None:
    out = tmp_path / "drive"
    drive = make_drive(24, 0, 1, ("cones", "tape"))
    write_drive(drive, out, workers=1, progress=False)
    rows = read_rows(out / "labels.csv")
    assert list(rows[0]) == [
        "frame",
        "stamp_ns",
        "label",
        "hazard",
        "distance_m",
        "visible_fraction",
    ]
    images = sorted(p.name for p in out.glob("*.jpg"))
    assert [row["frame"] for row in rows] == images == [f"{i:06d}.jpg" for i in range(24)]
    labelled = [row for row in rows if row["label"] != "0"]
    masks = sorted(p.stem for p in (out / "masks").iterdir())
    assert labelled
    assert masks == [Path(row["frame"]).stem for row in labelled]
    for row in labelled:
        assert HAZARD_LABELS[row["hazard"]] == int(row["label"])
        mask = cv2.imread(str(out / "masks" / f"{Path(row['frame']).stem}.png"), -1)
        assert mask is not None
        assert set(np.unique(mask)) == {0, 255}
        assert (mask > 0).mean() == pytest.approx(float(row["visible_fraction"]), abs=1e-4)
        assert float(row["distance_m"]) > 0.0
    for row in rows:
        if row["label"] == "0":
            assert (row["hazard"], row["distance_m"]) == ("normal", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["drive"]
    with pytest.raises(AnomalyDetectorError, match="not empty"):
        write_drive(drive, out, workers=1, progress=False)


def test_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CorridorDrive, index: int) -> CorridorFrame:
        raise RuntimeError("no frame")

    monkeypatch.setattr(CorridorDrive, "frame", fail)
    with pytest.raises(RuntimeError, match="no frame"):
        write_drive(make_drive(2), tmp_path / "drive", workers=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_user_errors_name_the_value() -> None:
    with pytest.raises(AnomalyDetectorError, match=r"'lava'.*water.*clutter"):
        CorridorDrive(10, hazards=["lava"])
    with pytest.raises(AnomalyDetectorError, match="frames is 0"):
        CorridorDrive(0)
    with pytest.raises(AnomalyDetectorError, match="8x8"):
        CorridorDrive(10, width=8, height=8)
    with pytest.raises(AnomalyDetectorError, match="fps"):
        CorridorDrive(10, fps=0.0)
    with pytest.raises(AnomalyDetectorError, match="seed is -1"):
        CorridorDrive(10, -1)
    with pytest.raises(AnomalyDetectorError, match="workers is 0"):
        list(render_frames(make_drive(2), workers=0))


def test_unknown_image_format(tmp_path: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match="'bmp'"):
        write_drive(make_drive(1), tmp_path / "drive", image_format="bmp", progress=False)
