"""Patterns as training data."""

from __future__ import annotations

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
