"""Offline scoring through the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import PERIOD_NS, START_NS, make_drive, write_bag, write_images
from model_files import grey_difference_score, write_grey_difference_model

from anomaly_detector.cli import main
from anomaly_detector.image import Pixels
from anomaly_detector.preprocessing import shrink
from anomaly_detector.scoring import format_score, format_stamp

FRAMES = make_drive(8)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    scores = [grey_difference_score(shrink(Pixels(frame, "rgb"))) for frame in FRAMES]
    return write_grey_difference_model(tmp_path / "grey.onnx", threshold=float(np.median(scores)))


def test_bag_is_scored_with_its_stamps(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "bag", FRAMES, storage="mcap")
    output = tmp_path / "scores.csv"
    code = main(["score", "--model", str(model), "--input", str(bag), "--output", str(output)])
    assert code == 0
    rows = read_rows(output)
    assert list(rows[0]) == ["frame", "stamp", "score", "is_anomaly"]
    assert [row["frame"] for row in rows] == [f"{index:06d}" for index in range(8)]
    assert rows[1]["stamp"] == format_stamp(START_NS + PERIOD_NS) == "1700000000.173456789"
    expected = [grey_difference_score(shrink(Pixels(frame, "rgb"))) for frame in FRAMES]
    np.testing.assert_allclose([float(row["score"]) for row in rows], expected, rtol=1e-5)
    flags = [row["is_anomaly"] for row in rows]
    assert flags.count("1") == 4
    assert "8 frames scored, 4 anomalous" in capsys.readouterr().out


def test_folder_and_bag_give_the_same_scores(tmp_path: Path, model: Path) -> None:
    bag = write_bag(tmp_path / "bag", FRAMES)
    folder = write_images(tmp_path / "folder", FRAMES)
    columns = []
    for source in (bag, folder):
        output = tmp_path / f"{source.name}.csv"
        arguments = ["--model", str(model), "--input", str(source), "--output", str(output)]
        assert main(["score", *arguments]) == 0
        columns.append([row["score"] for row in read_rows(output)])
    assert columns[0] == columns[1]
    assert read_rows(tmp_path / "folder.csv")[0]["stamp"] == ""


def test_threshold_can_be_overridden(tmp_path: Path, model: Path) -> None:
    folder = write_images(tmp_path / "folder", FRAMES)
    output = tmp_path / "scores.csv"
    arguments = ["--model", str(model), "--input", str(folder), "--output", str(output)]
    assert main(["score", *arguments, "--threshold", "0"]) == 0
    assert {row["is_anomaly"] for row in read_rows(output)} == {"1"}


def test_unreadable_frames_are_named(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "folder", FRAMES)
    (folder / "frame_3.png").write_bytes(b"broken")
    output = tmp_path / "scores.csv"
    assert (
        main(["score", "--model", str(model), "--input", str(folder), "--output", str(output)]) == 0
    )
    assert len(read_rows(output)) == 7
    captured = capsys.readouterr()
    assert "warning: frame_3.png skipped" in captured.err
    assert "1 unreadable" in captured.out


@pytest.mark.parametrize("wrong", ["model", "input", "empty"])
def test_errors_are_one_line_and_leave_no_output(
    tmp_path: Path, model: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "folder", FRAMES[:2])
    if wrong == "model":
        model.write_bytes(model.read_bytes()[:100])
    elif wrong == "input":
        folder = tmp_path / "missing"
    else:
        for file in folder.iterdir():
            file.write_bytes(b"broken")
    output = tmp_path / "scores.csv"
    output.write_text("old")
    code = main(["score", "--model", str(model), "--input", str(folder), "--output", str(output)])
    assert code == 1
    message = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(message) == 1
    assert output.read_text() == "old"
    assert not list(tmp_path.glob(".scores*"))


def test_info_prints_the_metadata(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model)]) == 0
    assert '"scorer": "reconstruction"' in capsys.readouterr().out


def test_help_names_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "score a recording" in capsys.readouterr().out


@pytest.mark.parametrize("value", [0.0, 1e-8, 61.123455, 3.4e38])
def test_score_text_reads_back_exactly(value: float) -> None:
    assert np.float32(format_score(float(np.float32(value)))) == np.float32(value)
