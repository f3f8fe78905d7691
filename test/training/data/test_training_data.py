"""Patterns as training data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_drive, write_images

from anomaly_detector.errors import SourceError
from training.config.options import TrainOptions
from training.train import prepare


def test_training_data_may_be_patterns(tmp_path: Path) -> None:
    for name, count in (("run_10", 12), ("run_2", 30), ("other", 25)):
        write_images(tmp_path / name, make_drive(count))
    data = [str(tmp_path / "run_*"), str(tmp_path / "o*"), str(tmp_path / "run_2")]
    options = TrainOptions(
        data, tmp_path / "model.onnx", scorer="reconstruction", cache=tmp_path / "cache",
        progress=False,
    )  # fmt: skip
    job = prepare(options)
    assert job.frames.lengths == [30, 12, 25]
    assert [Path(source).name for source in job.options.data] == ["run_2", "run_10", "other"]


def test_a_pattern_without_match_is_an_error(tmp_path: Path) -> None:
    options = TrainOptions([str(tmp_path / "run_*")], tmp_path / "model.onnx", progress=False)
    with pytest.raises(SourceError, match="matches no folder, bag or video"):
        prepare(options)
    assert list(tmp_path.iterdir()) == []


def test_excluded_frames_are_used_for_nothing(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_images(tmp_path / name, make_drive(60))
    options = TrainOptions(
        [str(tmp_path / "first"), str(tmp_path / "second")],
        tmp_path / "model.onnx",
        cache=tmp_path / "cache",
        exclude=["first:3", "second:10-29"],
        progress=False,
    )
    run = prepare(options)
    plain = prepare(replace(options, exclude=[]))
    unused = [3, *range(70, 90)]
    for name in ("train", "validation", "calibration"):
        used, before = (getattr(item.split, name).tolist() for item in (run, plain))
        assert used == [number for number in before if number not in unused]
    assert len(run.frames) == len(plain.frames) == 120
    # Recordings of one name are told apart by their folders.
    for name in ("first", "second"):
        write_images(tmp_path / name / "bag", make_drive(60))
    both = [str(tmp_path / name / "bag") for name in ("first", "second")]
    alike = replace(options, data=both, exclude=["first/bag:3", "second/bag:10-29"])
    assert prepare(alike).frames.unused.tolist() == unused
    with pytest.raises(SourceError, match="bag:3 is of several recordings of first/bag, second/b"):
        prepare(replace(alike, exclude=["bag:3"]))
    # The same when the first drive is held out.
    assert run.frames.without({0}).unused.tolist() == list(range(10, 30))


@pytest.mark.parametrize(
    ("stretch", "error"),
    [
        ("9-3", "--exclude 9-3 is no stretch of frames"),
        ("x", "--exclude x is no stretch of frames"),
        ("3", "--exclude 3 is of several recordings of one, two: give NAME:3"),
        ("three:3", "--exclude three:3 is of no recording of one, two: give NAME:3"),
        ("two:50-60", "--exclude two:50-60 is not in two, which has 60 readable frames"),
    ],
)
def test_a_stretch_that_is_not_there_is_an_error(stretch: str, error: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_images(tmp_path / name, make_drive(60))
    data = [str(tmp_path / name) for name in ("one", "two")]
    model = tmp_path / "model.onnx"
    with pytest.raises(SourceError, match=error):
        prepare(TrainOptions(data, model, cache=tmp_path / "cache", exclude=[stretch]))
    assert not model.with_suffix(".training").exists()
    every = ["one:0-59", "two:0-59"]
    with pytest.raises(SourceError, match="--exclude leaves too few frames"):
        prepare(TrainOptions(data, model, cache=tmp_path / "cache", exclude=every))
