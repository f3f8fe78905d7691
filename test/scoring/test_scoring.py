"""Offline scoring through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import (
    PERIOD_NS,
    START_NS,
    make_drive,
    read_rows,
    write_bag,
    write_images,
    write_stamped_bag,
)
from model_files import grey_difference_score, write_grey_difference_model

from anomaly_detector.cli.main import main
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.scoring.tables import format_score
from anomaly_detector.stamps import format_stamp

FRAMES = make_drive(8)
ROOT = Path(__file__).parents[2]


def score(model: Path, source: Path, output: Path, *options: str) -> list[dict[str, str]]:
    """Score a recording and return the rows of the table."""
    arguments = ["--model", str(model), "--input", str(source), "--output", str(output)]
    assert main(["score", *arguments, *options]) == 0
    return read_rows(output)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    scores = [grey_difference_score(preprocess(Image(frame, "rgb"))) for frame in FRAMES]
    return write_grey_difference_model(tmp_path / "grey.onnx", threshold=float(np.median(scores)))


def test_bag_is_scored_with_its_stamps(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "bag", FRAMES, storage="mcap")
    rows = score(model, bag, tmp_path / "scores.csv")
    assert list(rows[0]) == ["frame", "stamp", "score", "is_anomaly", "normalized_score", "alarm"]
    assert [row["frame"] for row in rows] == [f"{index:06d}" for index in range(8)]
    assert rows[1]["stamp"] == format_stamp(START_NS + PERIOD_NS) == "1700000000.173456789"
    expected = [grey_difference_score(preprocess(Image(frame, "rgb"))) for frame in FRAMES]
    np.testing.assert_allclose([float(row["score"]) for row in rows], expected, rtol=1e-5)
    flags = [row["is_anomaly"] for row in rows]
    assert flags.count("1") == 4
    assert [str(int(float(row["normalized_score"]) >= 0.5)) for row in rows] == flags
    assert "8 frames scored, 4 anomalous" in capsys.readouterr().out


def test_names_of_any_bytes_are_escaped(tmp_path: Path, model: Path) -> None:
    folders = [os.fsdecode(os.fsencode(tmp_path) + b"/dr\xefve"), str(tmp_path / "größe")]
    _, picture = cv2.imencode(".png", FRAMES[0])
    for folder in folders:
        os.mkdir(folder)
        for name in (b"10\xe9.png", "²1.png".encode(), "①2.png".encode()):
            Path(folder, os.fsdecode(name)).write_bytes(picture.tobytes())
        Path(folder, os.fsdecode(b"bad\xff.png")).write_bytes(b"no picture")
    run = [sys.executable, "-m", "anomaly_detector", "score", "--model", str(model)]
    run += ["--input", *folders]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    one = [*run[:-1], "--output", str(tmp_path / "one.csv")]
    many = [*run, "--output-dir", str(tmp_path / "many")]
    for command in (one, many):
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert result.stderr.isascii()
        assert result.stdout.isascii()
    names = [row["frame"] for row in read_rows(tmp_path / "one.csv")]
    assert names == ["10\\xe9.png", "²1.png", "①2.png"]
    summary = (tmp_path / "many" / "summary.csv").read_text(encoding="utf-8")
    report = (tmp_path / "many" / "report.html").read_text(encoding="utf-8")
    for text in (summary, report):
        assert "dr\\udcefve" in text
        assert "größe" in text
    assert "dr%EFve" in report


@pytest.mark.parametrize("missing", [(0, 0), (-1, 500_000_000), (1_700_000_000, 1_000_000_000)])
@pytest.mark.parametrize("mode", ["frames", "seconds"])
def test_missing_stamps_are_counted_and_cost_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: tuple[int, int], mode: str
) -> None:
    frames = [np.full((48, 64, 3), 128 if index < 10 else 0, np.uint8) for index in range(30)]
    model = write_grey_difference_model(tmp_path / "grey.onnx", threshold=100.0)
    good = [(1_500_000_000, index * 20_000_000) for index in range(30)]
    # The camera's clock is not that of the recorder.
    recorded = [START_NS + index * 20_000_000 for index in range(30)]
    some = [missing if index % 3 == 2 else stamp for index, stamp in enumerate(good)]
    tables = {}
    for name, stamps in (("good", good), ("some", some), ("all", [missing] * 30)):
        bag = write_stamped_bag(tmp_path / name, frames, stamps, recorded)
        events = tmp_path / f"{name}_events.csv"
        options = ["--events", str(events), "--decision", mode, "--immediate-level", "1.0"]
        tables[name] = score(model, bag, tmp_path / f"{name}.csv", *options)
        (event,) = read_rows(events)
        warning = capsys.readouterr().err
        if name == "good":
            assert "time stamp" not in warning
            start = event["start_frame"]
        else:
            assert f"{stamps.count(missing)} frames have no time stamp" in warning
        assert (event["start_frame"], event["end_frame"]) == (start, "000029")
        end_ns = 29 * 20_000_000 + (START_NS if name == "all" else 1_500_000_000 * 10**9)
        assert event["end_stamp"] == format_stamp(end_ns)
        assert [row["stamp"] for row in tables[name]] == [
            "" if stamp == missing else format_stamp(stamp[0] * 10**9 + stamp[1])
            for stamp in stamps
        ]
    for name in ("some", "all"):
        for column in ("score", "alarm"):
            assert [r[column] for r in tables[name]] == [r[column] for r in tables["good"]]


def test_threshold_can_be_overridden(tmp_path: Path, model: Path) -> None:
    folder = write_images(tmp_path / "folder", FRAMES)
    rows = score(model, folder, tmp_path / "scores.csv", "--threshold", "0")
    assert {row["is_anomaly"] for row in rows} == {"1"}


VALUES = [128, 139, 128, 140, 145, 142, 128, 128, 128, 139]
"""Grey levels with scores of ``(value - 128) ** 2``: all but 128 are above 100."""

FLAT = [np.full((64, 64, 3), value, np.uint8) for value in VALUES]

SHORT = ["--raise-frames", "2", "--raise-window-frames", "3", "--clear-frames", "2"]


@pytest.fixture
def fixed_model(tmp_path: Path) -> Path:
    return write_grey_difference_model(tmp_path / "fixed.onnx", threshold=100.0)


@pytest.fixture
def flat_folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "flat", FLAT)


def test_events_are_written(
    tmp_path: Path, fixed_model: Path, flat_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = tmp_path / "events.csv"
    options = ["--events", str(events), "--fps", "10", "--immediate-level", "1", *SHORT]
    rows = score(fixed_model, flat_folder, tmp_path / "scores.csv", *options)
    assert "".join(row["is_anomaly"] for row in rows) == "0101110001"
    assert "".join(row["alarm"] for row in rows) == "0001111000"
    assert [row["stamp"] for row in rows[:2]] == ["0.000000000", "0.100000000"]
    assert read_rows(events) == [
        {
            "start_frame": "frame_3.png",
            "start_stamp": "0.300000000",
            "end_frame": "frame_6.png",
            "end_stamp": "0.600000000",
            "frames": "4",
            "peak_frame": "frame_4.png",
            "peak_stamp": "0.400000000",
            "peak_score": "289.0",
            # The scale of a model without quantiles is its threshold: u is 1.89.
            "peak_normalized_score": format_score(1 - 0.5 / 2.89),
        }
    ]
    assert "1 alarms" in capsys.readouterr().out


def test_decision_off_is_the_frames_flag_and_an_open_alarm_is_an_event(
    tmp_path: Path, fixed_model: Path, flat_folder: Path
) -> None:
    events = tmp_path / "events.csv"
    options = ["--events", str(events), "--decision", "off"]
    rows = score(fixed_model, flat_folder, tmp_path / "scores.csv", *options)
    assert [row["alarm"] for row in rows] == [row["is_anomaly"] for row in rows]
    ends = [(row["start_frame"], row["end_frame"], row["frames"]) for row in read_rows(events)]
    assert ends == [
        ("frame_1.png", "frame_1.png", "1"),
        ("frame_3.png", "frame_5.png", "3"),
        ("frame_9.png", "frame_9.png", "1"),
    ]
    assert read_rows(events)[0]["start_stamp"] == ""


def test_bag_and_folder_with_a_rate_give_the_same(tmp_path: Path, fixed_model: Path) -> None:
    sources = write_bag(tmp_path / "bag", FLAT * 4), write_images(tmp_path / "folder", FLAT * 4)
    options = ["--decision", "seconds", "--raise-seconds", "0.1", "--clear-seconds", "0.05"]
    columns = []
    for source, rate in zip(sources, ([], ["--fps", "20"]), strict=True):
        rows = score(fixed_model, source, tmp_path / "scores.csv", *options, *rate)
        columns.append([(row["score"], row["alarm"]) for row in rows])
    assert columns[0] == columns[1]
    alarms = "".join(alarm for _, alarm in columns[0])
    assert "01" in alarms
    assert "10" in alarms


def test_regions_are_boxes_in_the_cameras_frame(
    tmp_path: Path, fixed_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [np.full((240, 320, 3), 128, np.uint8) for _ in range(3)]
    frames[1][60:120, 200:280] = 250
    frames[1][150:210, 20:80] = 215
    regions, events = tmp_path / "regions.csv", tmp_path / "events"
    options = ["--regions", str(regions), "--events-dir", str(events)]
    bag = write_bag(tmp_path / "bag", frames)
    rows = score(fixed_model, bag, tmp_path / "scores.csv", *options)
    assert [row["is_anomaly"] for row in rows] == ["0", "1", "0"]
    found = read_rows(regions)
    assert list(found[0]) == ["frame", "stamp", "x", "y", "width", "height", "score"]
    assert {(row["frame"], row["stamp"]) for row in found} == {("000001", rows[1]["stamp"])}
    assert found[0]["score"] == rows[1]["normalized_score"]
    for row, thing in zip(found, ((200, 60, 80, 60), (20, 150, 60, 60)), strict=True):
        box = [int(row[name]) for name in ("x", "y", "width", "height")]
        # Two smoothed cells of 5x3.75 pixels on each side.
        assert np.abs(np.subtract(box, thing)).max() <= 20
    again = tmp_path / "again.csv"
    score(fixed_model, bag, again, "--batch-size", "1", "--workers", "1", "--regions", str(regions))
    assert read_rows(regions) == found
    arguments = ["--model", str(fixed_model), "--input", str(bag), "--regions", str(regions)]
    regions.unlink()
    assert main(["score", *arguments, "--output-dir", str(tmp_path / "many")]) == 1
    assert "goes with --output, not with --output-dir" in capsys.readouterr().err
    assert not regions.exists()


def test_a_model_whose_maps_have_no_unit_has_no_regions(
    tmp_path: Path, flat_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_grey_difference_model(tmp_path / "zero.onnx", threshold=0.0)
    output, regions = tmp_path / "scores.csv", tmp_path / "regions.csv"
    arguments = ["--model", str(model), "--input", str(flat_folder), "--output", str(output)]
    assert main(["score", *arguments, "--regions", str(regions)]) == 1
    assert "has no regions: the maps of scorer reconstruction have no unit" in (
        capsys.readouterr().err
    )
    assert not output.exists()
    assert not regions.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--decision", "seconds"], "frame_0.png has no time stamp"),
        (["--fps", "0"], "frame rate is 0.0"),
        (["--fps", "1e-300"], "frame rate is 1e-300"),
        (["--workers", "0"], "workers is 0"),
        (["--batch-size", "-1"], "batch size is -1"),
        (["--batch-size", "100000"], "batch size is 100000: give 1 to 1024"),
        (["--raise-frames", "20"], "raise_frames is 20, more than raise_window_frames"),
        (["--clear-level", "nan"], "clear_level is nan"),
        (["--events", "{output}"], "is given for scores and events"),
        (["--regions", "{output}"], "is given for scores and regions"),
        (
            ["--events-dir", "{output.parent}/new", "--regions", "{output.parent}/new/a.csv"],
            "alone",
        ),
    ],
)
def test_wrong_options_leave_no_output(
    tmp_path: Path,
    model: Path,
    flat_folder: Path,
    options: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "scores.csv"
    arguments = ["--model", str(model), "--input", str(flat_folder), "--output", str(output)]
    options = [option.format(output=output) for option in options]
    before = sorted(tmp_path.iterdir())
    assert main(["score", *arguments, *options]) == 1
    assert reason in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--output", "--events"])
@pytest.mark.parametrize("taken", ["frame_1.png", "bag.db3", "metadata.yaml", "model"])
def test_what_is_read_is_not_replaced(
    tmp_path: Path, model: Path, option: str, taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if taken == "frame_1.png":
        drive = write_images(tmp_path / "drive", FRAMES[:2])
    else:
        drive = write_bag(tmp_path / "bag", FRAMES[:2])
    file = model if taken == "model" else drive / taken
    before = file.read_bytes()
    outputs = {"--output": str(tmp_path / "scores.csv"), option: str(file)}
    words = [word for item in outputs.items() for word in item]
    assert main(["score", "--model", str(model), "--input", str(drive), *words]) == 1
    assert f"{file} is what is read" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert not (tmp_path / "scores.csv").exists()


def test_unreadable_frames_are_named(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "folder", FRAMES)
    (folder / "frame_3.png").write_bytes(b"broken")
    assert len(score(model, folder, tmp_path / "scores.csv")) == 7
    captured = capsys.readouterr()
    assert "frame_3.png skipped: " in captured.err
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
    assert capsys.readouterr().err.count("error: ") == 1
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
