"""The cache of preprocessed frames: the same bytes however it is built, and never half of it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, OutputError, SourceError
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.recordings import Frame, ImageFolderSource, open_source
from anomaly_detector.recordings import cache as frame_cache
from anomaly_detector.recordings.cache import CachedFrames, cache_frames


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A folder of 40 frames of 120x160 pixels."""
    folder = tmp_path / "drive"
    folder.mkdir()
    generator = np.random.default_rng(5)
    for index in range(40):
        write_frame(folder / f"{index}.png", generator.integers(0, 256, (120, 160, 3), np.uint8))
    return folder


def write_frame(path: Path, picture: NDArray[np.uint8]) -> None:
    assert cv2.imwrite(str(path), picture)


def cached(folder: Path, cache: Path, workers: int | None = None) -> CachedFrames:
    return cache_frames(open_source(folder), cache, workers=workers, progress=False)


def fail_to_preprocess(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(frame: Frame, size: int) -> None:
        raise error

    monkeypatch.setattr(frame_cache, "preprocessed_frame", fail)


def test_frames_are_preprocessed_in_natural_order(drive: Path, tmp_path: Path) -> None:
    frames = cached(drive, tmp_path / "cache")
    assert frames.names == [f"{index}.png" for index in range(40)]
    assert frames.stamps_ns == [None] * 40
    assert frames.images.shape == (40, 64, 64, 3)
    assert isinstance(frames.images, np.memmap)
    for index in (2, 10):
        picture = np.asarray(cv2.imread(str(drive / f"{index}.png")), np.uint8)
        np.testing.assert_array_equal(frames.images[index], preprocess(Image(picture, "bgr")))
    with pytest.raises(ValueError, match="read-only"):
        frames.images[0] = 0


def test_a_second_call_reads_no_frame(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached(drive, tmp_path / "cache")
    fail_to_preprocess(monkeypatch, AssertionError("a frame was read again"))
    second = cached(drive, tmp_path / "cache")
    np.testing.assert_array_equal(first.images, second.images)
    assert second.names == first.names
    # The same folder by another path is the same recording.
    cached(drive.parent / "." / "drive" / ".." / "drive", tmp_path / "cache")


@pytest.mark.parametrize("workers", [2, 7])
def test_parallel_is_equal_to_serial(workers: int, drive: Path, tmp_path: Path) -> None:
    (drive / "7.png").write_bytes(b"damaged")
    serial = cached(drive, tmp_path / "serial", 1)
    parallel = cached(drive, tmp_path / "parallel", workers)
    np.testing.assert_array_equal(serial.images, parallel.images)
    assert list(parallel.names) == list(serial.names)
    assert list(parallel.unreadable) == list(serial.unreadable)
    (one,), (other,) = ((tmp_path / n).glob("*/*.json") for n in ("serial", "parallel"))
    assert one.read_bytes() == other.read_bytes()


def test_an_error_in_a_worker_comes_through(drive: Path) -> None:
    def fail(frame: Frame) -> None:
        raise RuntimeError(frame.name)

    with pytest.raises(RuntimeError, match=r"^0\.png$"):
        list(ImageFolderSource(drive).mapped(fail, workers=3))


GREY = np.full((80, 80, 3), 9, np.uint8)

CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda folder: write_frame(folder / "3.png", GREY),
    "time": lambda folder: os.utime(folder / "3.png", ns=(1, 1)),
    "one less": lambda folder: (folder / "3.png").unlink(),
    "one more": lambda folder: write_frame(folder / "99.png", GREY),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_recording_is_read_again(change: str, drive: Path, tmp_path: Path) -> None:
    cached(drive, tmp_path / "cache")
    CHANGES[change](drive)
    again = cached(drive, tmp_path / "cache")
    assert len(again) == len(list(drive.iterdir()))
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_large_jpeg_is_decoded_at_reduced_scale_as_in_scoring(workers: int, tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    folder.mkdir()
    generator = np.random.default_rng(6)
    for index in range(3):
        coarse = generator.integers(0, 256, (12, 16, 3), np.uint8)
        picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        write_frame(folder / f"{index}.jpg", np.asarray(picture, np.uint8))
    frames = cached(folder, tmp_path / "cache", workers)
    source = open_source(folder)
    # Whoever wants the picture itself gets all of it.
    assert [frame.pixels.array.shape for frame in source] == [(480, 640, 3)] * 3
    reduced = list(source.mapped(lambda frame: frame.pixels, reduced=True))
    assert [pixels.array.shape for pixels in reduced] == [(240, 320, 3)] * 3
    np.testing.assert_array_equal(frames.images, [preprocess(pixels) for pixels in reduced])


@pytest.mark.parametrize("method", ["RESIZE_METHOD", "DECODE_METHOD"])
def test_another_method_makes_another_entry(
    method: str, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(drive, tmp_path / "cache")
    monkeypatch.setattr(frame_cache, method, "other/2")
    cached(drive, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_unreadable_frames_are_left_out_counted_and_named(drive: Path, tmp_path: Path) -> None:
    (drive / "5.png").write_bytes((drive / "5.png").read_bytes()[:40])
    (drive / "6.png").write_bytes(b"")
    (drive / "notes.txt").write_text("no picture")
    for _ in range(2):  # built, then from the cache
        frames = cached(drive, tmp_path / "cache")
        assert len(frames) == 38
        assert "5.png" not in frames.names
        assert [item.name for item in frames.unreadable] == ["5.png", "6.png"]
        assert "6.png is empty" in frames.unreadable[1].reason


@pytest.mark.parametrize("workers", [1, 2])
def test_without_a_readable_frame_nothing_is_left_behind(workers: int, tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"no readable frame \(all 1 unreadable; 1\.jpg"):
        cached(folder, tmp_path / "cache", workers)
    assert not (tmp_path / "cache").exists()


def test_an_interrupted_build_leaves_nothing_behind(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_to_preprocess(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            cached(drive, tmp_path / "cache", 2)
    assert not (tmp_path / "cache").exists()
    assert len(cached(drive, tmp_path / "cache")) == 40


@pytest.mark.parametrize("damage", ["truncate", "remove", "index", "index_keys"])
def test_a_damaged_entry_is_named_with_the_remedy(damage: str, drive: Path, tmp_path: Path) -> None:
    cached(drive, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    if damage == "truncate":
        os.truncate(entry / "frames.u8", 1000)
    elif damage == "remove":
        (entry / "frames.u8").unlink()
    else:
        (entry / "index.json").write_text("{" if damage == "index" else "[]")
    with pytest.raises(SourceError, match="is damaged: remove this folder and run again") as caught:
        cached(drive, tmp_path / "cache")
    assert str(entry) in str(caught.value)


def test_the_slower_of_two_builds_takes_the_entry_of_the_faster(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessed = frame_cache.preprocessed_frame
    others: list[CachedFrames] = []

    def overtaken(frame: Frame, size: int) -> Frame:
        if frame.name == "39.png":
            monkeypatch.setattr(frame_cache, "preprocessed_frame", preprocessed)
            others.append(cached(drive, tmp_path / "cache"))
        return preprocessed(frame, size)

    monkeypatch.setattr(frame_cache, "preprocessed_frame", overtaken)
    frames = cached(drive, tmp_path / "cache")
    np.testing.assert_array_equal(frames.images, others[0].images)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def build_all(folder: Path, start: Barrier) -> None:
    start.wait()
    for index in range(60):
        frames = cached(folder / str(index), folder / "cache", workers=1)
        assert frames.images[0, 0, 0].tolist() == [index] * 3


def test_processes_that_finish_an_entry_at_once_all_have_it(tmp_path: Path) -> None:
    """Six processes that build the same 60 entries in the same order, as training workers do."""
    for index in range(60):
        (tmp_path / str(index)).mkdir()
        write_frame(tmp_path / str(index) / "0.png", np.full((8, 8, 3), index, np.uint8))
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(6, timeout=120)
    processes = [context.Process(target=build_all, args=(tmp_path, start)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6
    assert len(list((tmp_path / "cache").iterdir())) == 60


def test_a_folder_that_cannot_be_written_is_named(drive: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(AnomalyDetectorError, match="cache"):
        cached(drive, tmp_path / "cache")


def test_a_full_disk_is_one_line(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_preprocess(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(AnomalyDetectorError, match=r"No space left on device\): make room"):
        cached(drive, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_default_folder_follows_xdg(
    drive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_frames(open_source(drive), progress=False)
    assert len(list((tmp_path / "anomaly_detector" / "frames").iterdir())) == 1


def test_a_user_without_a_home_is_told_what_to_set(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    with pytest.raises(OutputError, match=r"user 2147483641 has no home\): set XDG_CACHE_HOME"):
        cache_frames(open_source(drive), progress=False)
