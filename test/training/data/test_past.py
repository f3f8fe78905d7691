"""The sample of what a model has seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.recordings.cache import CachedFrames
from anomaly_detector.review.likeness import normal_frames
from training.data.frames import BlockSplit, FrameSet, split_blocks
from training.data.past import MOST_FRAMES, MOST_HELD_OUT, Past
from training.fitting.run_folder import RunFolder


def drive(name: str, count: int, seed: int = 0) -> CachedFrames:
    """Return a drive whose places look alike where they are near; 5 of them are dark."""
    generator = np.random.default_rng((seed, count))
    images = generator.integers(0, 12, (count, 64, 64, 3), np.uint8)
    images += np.linspace(60, 230, count).astype(np.uint8)[:, None, None, None]
    images[count // 2 : count // 2 + 5] //= 8
    names = [str(number) for number in range(count)]
    return CachedFrames(Path(name), images, names, [None] * count, [])


def numbers(frames: FrameSet, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    known = {image.tobytes(): n for n, image in enumerate(frames.load(np.arange(len(frames))))}
    return np.array([known[image.tobytes()] for image in images])


def test_sample_of_a_training() -> None:
    frames = FrameSet([drive("long", 900), drive("short", 60)])
    split = split_blocks(frames.lengths, [10, 3])
    past = Past.of(frames, split, FrameSet([drive("alarm", 130)]))
    assert len(past) == MOST_FRAMES
    found = numbers(frames, past.images)
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(past.drives, found >= 900)
    # The frames between blocks are in neither.
    assert set(found[past.held_out]) <= set(split.calibration)
    assert set(found[~past.held_out]) <= set(split.train)
    assert past.held_out.sum() == MOST_HELD_OUT
    # The short drive has fewer than half of either.
    assert set(split.calibration[split.calibration >= 900]) <= set(found)
    assert [(item.name, item.frames) for item in past.recordings] == [("long", 900), ("short", 60)]
    assert len(past.anomalies) == 100


def test_the_review_page_reads_its_frames(tmp_path: Path) -> None:
    past = Past.of(FrameSet([drive("0", 60)]), split_blocks([60], [3]), None)
    past.write(RunFolder.beside(tmp_path / "model.onnx").path / "past.npz")
    np.testing.assert_array_equal(normal_frames(tmp_path / "model.onnx"), past.images)


def test_frames_that_cover_the_route_are_chosen() -> None:
    frames = FrameSet([drive("monday", 1500)])
    every = np.arange(1500)
    past = Past.of(frames, BlockSplit(every, every[:0], every[:0], [0]), None)
    found = numbers(frames, past.images)
    assert set(range(750, 755)) & set(found)  # they are as alike as neighbours are
    assert np.diff(found).max() <= 20
    assert past.anomalies.shape == (0, 64, 64, 3)


def test_of_frames_that_are_all_alike_none_is_taken_twice() -> None:
    still = CachedFrames(Path("still"), np.zeros((500, 64, 64, 3), np.uint8), [], [], [])
    every = np.arange(500)
    past = Past.of(FrameSet([still]), BlockSplit(every, every[:0], every[:0], [0]), None)
    assert len(past) == MOST_FRAMES


def test_after_a_week_it_is_of_all_days_and_no_larger(tmp_path: Path) -> None:
    monday = FrameSet([drive("0", 700)])
    past = Past.of(monday, split_blocks([700], [10]), None)
    held_out = past.calibration
    for day in range(1, 7):
        today = drive(str(day), 300 if day < 6 else 20, seed=day)
        recording = Past.of(
            FrameSet([today]),
            BlockSplit(np.arange(len(today)), np.arange(0), np.arange(0), [0]),
            FrameSet([drive("alarm", 30, seed=day)]),
        )
        past = past.grown(recording)
    assert len(past) == MOST_FRAMES
    counts = np.bincount(past.drives[~past.held_out])
    # The last was short: all of it is kept, and the others share the rest.
    assert counts[6] == 20
    assert counts[:6].max() - counts[:6].min() <= 1
    np.testing.assert_array_equal(past.calibration, held_out)
    assert [item.name for item in past.recordings] == [str(day) for day in range(7)]
    assert len(past.anomalies) == 100
    path = tmp_path / "past.npz"
    for written in (past, replace(past, anomalies=past.anomalies[:0])):
        written.write(path)
        assert path.stat().st_size < 6e6
        again = Past.read(path)
        assert again.recordings == written.recordings
        for name in ("images", "drives", "held_out", "anomalies"):
            np.testing.assert_array_equal(getattr(again, name), getattr(written, name))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "past.npz"
    with pytest.raises(AnomalyDetectorError, match=r"past\.npz is not there.*: train"):
        Past.read(path)
    path.write_bytes(content)
    with pytest.raises(AnomalyDetectorError, match=r"past\.npz is damaged"):
        Past.read(path)
