"""Scoring with threads and batches: the same bytes as frame by frame, in order, memory bounded."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
from conftest import make_drive, write_bag, write_images
from model_files import write_grey_difference_model
from numpy.typing import NDArray
from videos import write_video

from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.session import BatchScores
from anomaly_detector.recordings import Frame, expand_sources, open_source
from anomaly_detector.scoring.stream import score_recording
from anomaly_detector.scoring.tables import write_scores

FRAMES = make_drive(37)


def make_source(kind: str, folder: Path) -> Path:
    if kind == "folder":
        path = write_images(folder / "drive", FRAMES)
        (path / "frame_20.png").write_bytes(b"broken")
        return path
    if kind == "large":  # large enough for decoding at reduced scale
        path = folder / "drive"
        path.mkdir()
        for index, frame in enumerate(FRAMES):
            cv2.imwrite(str(path / f"{index}.jpg"), cv2.resize(frame, (512, 512)))
        return path
    if kind == "video":
        return write_video(folder / "drive.avi", FRAMES)
    return write_bag(folder / "drive", FRAMES, compressed=kind == "compressed", storage="mcap")


@pytest.mark.parametrize("kind", ["folder", "large", "bag", "compressed", "video"])
def test_workers_change_no_byte(kind: str, tmp_path: Path, trained_model: Path) -> None:
    path = make_source(kind, tmp_path)
    detector = Detector(trained_model)
    one_by_one = list(detector.stream(path, fps=20.0))
    tables = []
    for workers in (1, 2, 5):
        source = open_source(path)
        output = tmp_path / f"{workers}.csv"
        summary = write_scores(detector, source, output, fps=20.0, workers=workers, progress=False)
        assert summary.scored == len(one_by_one)
        assert [item.name for item in source.unreadable] == (
            ["frame_20.png"] if kind == "folder" else []
        )
        tables.append(output.read_bytes())
    assert len(set(tables)) == 1
    source = open_source(path)
    results = list(score_recording(detector, source, fps=20.0, workers=2, batch_size=1))
    for result, (frame, detection) in zip(results, one_by_one, strict=True):
        assert (result.name, result.stamp_ns) == (frame.name, frame.stamp_ns)
        assert result.score == detection.score
        assert result.normalized_score == detection.normalized_score
        assert result.is_anomaly == detection.is_anomaly


class NotedBatches(Detector):
    """A detector that remembers the sizes of its batches."""

    sizes: ClassVar[list[int]] = []

    def score_batch(self, images: NDArray[np.uint8]) -> BatchScores:
        """Score and note."""
        self.sizes.append(len(images))
        return super().score_batch(images)


@pytest.mark.parametrize(("batch_size", "runs"), [(1, 37), (5, 8), (64, 1)])
def test_all_batches_have_the_size_asked_for(
    model: Path, tmp_path: Path, batch_size: int, runs: int
) -> None:
    """Frames alone are the node's; a batch that is filled up gives each frame the same shape."""
    folder = write_images(tmp_path / "drive", FRAMES)
    expected = [result.score for _, result in Detector(model).stream(folder)]
    detector = NotedBatches(model)
    detector.sizes.clear()
    results = score_recording(detector, open_source(folder), workers=2, batch_size=batch_size)
    assert [result.score for result in results] == pytest.approx(expected, rel=1e-6)
    assert detector.sizes == [batch_size] * runs


@pytest.mark.parametrize("kind", ["large", "bag", "video"])
def test_frames_come_in_order_and_are_not_read_far_ahead(kind: str, tmp_path: Path) -> None:
    path = make_source(kind, tmp_path)
    begun: list[str] = []
    lock = threading.Lock()

    def note(frame: Frame) -> str:
        with lock:
            begun.append(frame.name)
        return frame.name

    expected = [f"{n}.jpg" if kind == "large" else f"{n:06d}" for n in range(len(FRAMES))]
    names = open_source(path).mapped(note, workers=2)
    assert next(names) == expected[0]
    assert len(begun) <= 8
    assert [*islice(names, 3)] == expected[1:4]
    assert len(begun) <= 11
    assert [*names] == expected[4:]


def test_frames_are_decoded_in_several_threads_at_a_time(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=20)

    def meet(frame: Frame) -> str:
        meeting.wait()
        return frame.name

    bag = write_bag(tmp_path / "bag", FRAMES[:10], compressed=True)
    assert len(list(open_source(bag).mapped(meet, workers=2))) == 10


def test_a_failing_model_is_an_error_from_any_thread(tmp_path: Path) -> None:
    class Failing(Detector):
        def score_batch(self, images: NDArray[np.uint8]) -> BatchScores:
            raise AnomalyDetectorError("the model fails")

    model = Failing(write_grey_difference_model(tmp_path / "grey.onnx"))
    source = open_source(write_images(tmp_path / "drive", FRAMES))
    with pytest.raises(AnomalyDetectorError, match="the model fails"):
        list(score_recording(model, source, workers=2))


def test_patterns_are_expanded_in_order_and_once(tmp_path: Path) -> None:
    for name in ("run_10", "run_2", "other"):
        write_images(tmp_path / name, FRAMES[:1])
    (tmp_path / "run_notes.txt").write_text("")
    pattern = str(tmp_path / "run_*")
    expected = [str(tmp_path / name) for name in ("run_10", "run_2", "other")]
    texts = [expected[0], pattern, str(tmp_path / "*"), "not/there", "set#test:normal"]
    assert expand_sources(texts) == [*expected, "not/there", "set#test:normal"]
    odd = write_images(tmp_path / "odd[1]", FRAMES[:1])
    assert expand_sources([str(odd)]) == [str(odd)]
    (tmp_path / "loop").symlink_to("loop")
    assert expand_sources([str(tmp_path / "loop")]) == [str(tmp_path / "loop")]
    with pytest.raises(SourceError, match="matches no folder, bag or video"):
        expand_sources([str(tmp_path / "nothing_*")])
