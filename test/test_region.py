"""A model trained on a region of the frame looks at that region everywhere."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_drive, write_images

from anomaly_detector.cli import main as robot
from anomaly_detector.detector import Detector
from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.frame_cache import cache_frames
from anomaly_detector.metadata import ModelMetadata
from anomaly_detector.pixels import Pixels, RegionOfInterest, parse_region
from anomaly_detector.preprocessing import View, shrink
from anomaly_detector.recordings import open_source
from training.train import TrainOptions, train

REGION = RegionOfInterest(20, 10, 80, 0)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("drive") / "drive", make_drive(40))


@pytest.fixture(scope="module")
def model(drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    options = TrainOptions(
        [str(drive)],
        folder / "region.onnx",
        scorer="reconstruction",
        epochs=1,
        region="20,10,80,0",
        cache=folder / "cache",
        progress=False,
    )
    train(options)
    return options.out


def test_training_looks_at_the_region_and_the_model_remembers_it(model: Path) -> None:
    metadata = Detector(model).metadata
    assert metadata.view.region == REGION
    assert metadata.provenance["recipe"]["region"] == "20,10,80,0"


def test_cache_holds_the_region(drive: Path, tmp_path: Path) -> None:
    source = open_source(drive)
    whole = np.asarray(cache_frames(source, tmp_path, progress=False).images)
    source.view = View(REGION)
    part = np.asarray(cache_frames(source, tmp_path, progress=False).images)
    assert not np.array_equal(whole, part)
    frame = next(iter(open_source(drive))).pixels
    np.testing.assert_array_equal(part[0], shrink(Pixels(frame.array[10:, 20:100], frame.order)))


def test_offline_scores_are_those_of_the_region(model: Path, drive: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    assert (
        robot(["score", "--model", str(model), "--input", str(drive), "--output", str(scores)]) == 0
    )
    with scores.open() as file:
        first = next(csv.DictReader(file))
    frame = next(iter(open_source(drive))).pixels
    expected = Detector(model).detect(Pixels(frame.array[10:, 20:100], frame.order)).score
    assert np.float32(first["score"]) == np.float32(expected)


def test_recalibration_keeps_the_region(model: Path, drive: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.onnx"
    command = ["calibrate", "--model", str(model), "--data", str(drive), "--output", str(out)]
    assert robot(command) == 0
    assert Detector(out).metadata.view.region == REGION


def test_frames_that_the_region_does_not_fit_into_are_unreadable(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_images(tmp_path / "small", [frame[:40, :50] for frame in make_drive(3)])
    command = ["score", "--model", str(model), "--input", str(small), "--output"]
    assert robot([*command, str(tmp_path / "scores.csv")]) == 1
    assert "region of interest" in capsys.readouterr().err
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "-1,0,0,0"])
def test_region_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AnomalyDetectorError, match="region"):
        parse_region(text)


@pytest.mark.parametrize("value", [[1, 2, 3], "0,0,0,0", [0, 0, -5, 0], [0, 0, "5", 0]])
def test_region_in_a_model_file_is_checked(model: Path, value: object) -> None:
    raw = json.loads(Detector(model).metadata.to_json()) | {"region_of_interest": value}
    with pytest.raises(ModelError, match="region_of_interest"):
        ModelMetadata.from_json(json.dumps(raw), "m.onnx")
