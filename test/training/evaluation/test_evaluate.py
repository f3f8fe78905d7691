"""Evaluation end to end with real ONNX files: recordings and truth in, three files out."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PERIOD_NS, START_NS, read_rows, write_bag, write_images
from model_files import GREY, write_grey_difference_model
from numpy.typing import NDArray

from anomaly_detector.drawing.page import Page, render_page
from anomaly_detector.drawing.timeline import heat_overlay, timeline_figure
from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.metadata import Calibration, ModelMetadata
from anomaly_detector.recordings import open_source
from training.cli.evaluate import add_arguments, format_evaluation, run, write_evaluation
from training.data.labels import read_labels
from training.data.opening import LabelledRecording
from training.evaluation.evaluate import evaluate
from training.reports.evaluation import evaluation_report

ROOT = Path(__file__).parents[3]
THRESHOLD = 100.0


def _frame(difference: int) -> NDArray[np.uint8]:
    """Return a frame that the grey-difference model scores with ``difference ** 2``."""
    return np.full((64, 64, 3), int(GREY) + difference, np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_grey_difference_model(tmp_path / "grey.onnx", threshold=THRESHOLD)


@pytest.fixture
def drive(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 60 frames with two events, and its labels with stamps."""
    differences = [2] * 20 + [5] * 4 + [15] * 6 + [2] * 10 + [4] * 5 + [3] * 14 + [12]
    labels = [0] * 20 + [9] * 10 + [0] * 10 + [1] * 5 + [0] * 15
    folder = write_images(tmp_path / "drive", [_frame(value) for value in differences])
    lines = ["frame,stamp_ns,label,hazard"]
    for index, label in enumerate(labels):
        name = {0: "normal", 1: "water", 9: "boxes"}[label]
        lines.append(f"frame_{index}.png,{START_NS + index * PERIOD_NS},{label},{name}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines) + "\n")
    return folder, table


def _run(*options: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(option) for option in options]))


def test_labelled_drive_by_hand(
    model: Path, drive: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labels = drive
    out = tmp_path / "out"
    assert _run("--model", model, "--data", folder, "--labels", labels, "--out", out) == 0
    printed = capsys.readouterr().out
    assert re.search(r"pooled +15 +0\.9\d\d \[", printed)
    assert "events: 1 of 2 detected, median delay 4 frames" in printed

    result = json.loads((out / "evaluation.json").read_text())
    assert sorted(file.name for file in out.iterdir()) == [
        "evaluation.json",
        "report.html",
        "scores.csv",
    ]
    model_point, thesis_point = result["operating_points"]
    assert model_point["threshold"] == THRESHOLD
    assert [model_point[key] for key in ("true_positives", "false_positives")] == [6, 1]
    assert model_point["recall"] == pytest.approx(6 / 15)
    assert model_point["precision"] == pytest.approx(6 / 7)
    assert thesis_point["threshold"] == 200
    assert thesis_point["false_positives"] == 0
    # Water (16) is below one normal frame (144); boxes are 25 four times and 225 six times.
    by_name = {item["name"]: item for item in result["ranking"]["classes"]}
    assert by_name["water"]["roc_auc"]["value"] == pytest.approx(44 / 45)
    assert by_name["boxes"]["roc_auc"]["value"] == pytest.approx((6 + 4 * 44 / 45) / 10)
    assert result["class_recall"] == {"water": 0.0, "boxes": 0.6}
    boxes, water = result["events"]
    assert (boxes["class"], boxes["delay_frames"], boxes["delay_s"]) == ("boxes", 4, 0.2)
    assert (water["class"], water["missed"]) == ("water", True)

    rows = read_rows(out / "scores.csv")
    assert len(rows) == 60
    assert list(rows[0]) == [
        "frame", "stamp", "score", "is_anomaly", "label", "class", "recording",
    ]  # fmt: skip
    assert rows[24] == {
        "frame": "frame_24.png",
        "stamp": "1700000001.323456789",
        "score": "225.0",
        "is_anomaly": "1",
        "label": "9",
        "class": "boxes",
        "recording": "0",
    }


def test_report_agrees_with_the_results_and_needs_nothing_else(
    model: Path, drive: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, labels = drive
    _run("--model", model, "--data", folder, "--labels", labels, "--out", tmp_path / "out")
    page = unescape((tmp_path / "out" / "report.html").read_text())
    addresses = re.findall(r'\s(?:src|href)="([^"]*)"', page)
    assert {address[:1] for address in addresses} == {"#", "d"}
    assert all(address.startswith(("data:", "#")) for address in addresses)
    # ROC, PR, histogram, one timeline, and two pictures per gallery frame.
    images = re.findall(r"<img\s[^>]*>", page)
    assert len(images) > 4 + 2 * 4
    assert all(re.search(r'\salt="[^"]', image) for image in images)
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    pooled = result["ranking"]["pooled"]["roc_auc"]
    low, high = pooled["interval_95"]
    figures = f"{pooled['value']:.3f} [{low:.3f}, {high:.3f}] *"
    title, *cells = "Model card", "grey_difference", "the thesis' fixed 200", "missed"
    for text in (figures, title, *cells, "frame_59.png"):
        assert re.search(rf">\s*{re.escape(text)}\s*<", page), text


def test_recordings_of_one_kind_each_get_class_names(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normal = write_images(tmp_path / "patrol", [_frame(value) for value in range(10)])
    box = write_images(tmp_path / "box", [_frame(20)] * 3)
    bag = write_bag(tmp_path / "bag", [_frame(30)] * 4)
    out = tmp_path / "out"
    options = ("--anomalous", box, f"wet floor={bag}", "--block", "1", "--out", out)
    topic = ("--topic", "/camera/image_raw")
    assert _run("--model", model, "--normal", normal, *options, *topic) == 0
    result = json.loads((out / "evaluation.json").read_text())
    assert [item["name"] for item in result["ranking"]["classes"]] == ["box", "wet floor"]
    assert result["ranking"]["macro"]["roc_auc"]["value"] == 1
    assert [event["delay_s"] for event in result["events"]] == [None, 0.0]
    last = read_rows(out / "scores.csv")[-1]
    assert (last["frame"], last["stamp"], last["label"]) == ("000003", "1700000000.273456789", "2")
    assert "wet floor" in capsys.readouterr().out


def test_bag_of_a_labelled_drive_gives_the_scores_of_its_folder(
    model: Path, tmp_path: Path
) -> None:
    frames = [_frame(value) for value in (1, 2, 30, 40)]
    folder = write_images(tmp_path / "drive", frames)
    bag = write_bag(tmp_path / "bag", frames)
    by_order = tmp_path / "order.csv"
    by_order.write_text("label,difficulty\n0,0\n0,0\n7,1\n7,1\n")
    by_name = tmp_path / "name.csv"
    by_name.write_text("frame,label\n" + "".join(f"{i:06d}.jpg,{7 * (i > 1)}\n" for i in range(4)))
    detector = Detector(model)
    tables = [
        evaluate(detector, [LabelledRecording(open_source(source), read_labels(labels))]).frames
        for source, labels in ((folder, by_order), (bag, by_order), (bag, by_name))
    ]
    for table in tables:
        assert table.scores.tolist() == [1, 4, 900, 1600]
        assert table.classes == ["normal", "normal", "human", "human"]
    assert tables[0].stamps_ns == [None] * 4
    assert tables[2].stamps_ns[1] == START_NS + PERIOD_NS


def test_unreadable_frames_do_not_shift_labels_given_by_order(model: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "drive", [_frame(value) for value in (1, 2, 3, 40)])
    (folder / "frame_1.png").write_bytes(b"cut off")
    labels = tmp_path / "labels.csv"
    labels.write_text("label\n0\n0\n0\n7\n")
    recording = LabelledRecording(open_source(folder), read_labels(labels))
    evaluation = evaluate(Detector(model), [recording])
    assert evaluation.frames.labels.tolist() == [0, 0, 7]
    assert [frame.name for frame in evaluation.recordings[0].unreadable] == ["frame_1.png"]
    assert "1 frames were unreadable" in format_evaluation(evaluation)
    assert "1 unreadable frames skipped" in evaluation_report(evaluation).subtitle


@pytest.mark.parametrize("kind", ["normal", "anomalous"])
def test_one_kind_only_still_gives_a_report(
    model: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "box", [_frame(12)] * 3)
    assert _run("--model", model, f"--{kind}", folder, "--out", tmp_path / "out") == 0
    assert re.search(r"pooled +\d  n/a +n/a", capsys.readouterr().out)
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result["ranking"]["pooled"]["roc_auc"]["value"] is None
    missing = "anomalous" if kind == "normal" else "normal"
    assert f"There is no {missing} frame" in (tmp_path / "out" / "report.html").read_text()


def test_thesis_threshold_is_for_reconstruction_errors_only(tmp_path: Path) -> None:
    text = ModelMetadata("m", "v5", "mlp", "probability", 0.5, Calibration("fixed")).to_json()
    model = write_grey_difference_model(tmp_path / "mlp.onnx", metadata=text)
    folder = write_images(tmp_path / "box", [_frame(12)] * 3)
    evaluation = evaluate(Detector(model), [LabelledRecording(open_source(folder))])
    assert [point.name for point in evaluation.operating_points] == ["model"]


def test_gallery_holds_the_worst_frame_of_each_stretch(model: Path, tmp_path: Path) -> None:
    scores = [3] * 30
    scores[7], scores[8], scores[25] = 20, 30, 10
    folder = write_images(tmp_path / "normal", [_frame(value) for value in scores])
    evaluation = evaluate(Detector(model), [LabelledRecording(open_source(folder))], gallery=3)
    assert [frame.name for frame in evaluation.false_alarms] == ["frame_8.png", "frame_25.png"]
    worst = evaluation.false_alarms[0]
    assert worst.image.shape == (64, 64, 3)
    assert worst.anomaly_map.mean() == pytest.approx(900)
    assert evaluation.misses == ()


def test_names_are_data_not_html(model: Path, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder = write_images(tmp_path / "box", [_frame(12)] * 3)
    (folder / "frame_0.png").rename(folder / "<img src=x onerror=alert(1)>.png")
    recordings = [
        LabelledRecording(open_source(folder), class_name=evil),
        LabelledRecording(open_source(folder)),
    ]
    html = render_page(evaluation_report(evaluate(Detector(model), recordings)))
    assert evil not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_wrong_options_are_said_before_scoring(
    model: Path, drive: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, _ = drive
    base: tuple[Any, ...] = ("--model", model, "--out", tmp_path / "out")
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((), "nothing to evaluate on"),
        (("--data", folder), r"1 --data and 0 --labels"),
        (("--normal", folder, "--bootstrap", "-1"), "--bootstrap is -1: give 0 or more"),
        (("--normal", folder, "--block", "0"), "--block is 0: give 1 or more"),
        (("--anomalous", f"normal={folder}"), "class name is 'normal'"),
        (("--anomalous", f"={folder}"), "class name is ''"),
        (("--normal", folder, "--topic", "/camera"), "none of the recordings is a bag"),
        (("--normal", folder, "--out", folder), "is there and not empty"),
    ]
    for options, message in cases:
        with pytest.raises(AnomalyDetectorError, match=message):
            _run(*base, *options)
    assert not (tmp_path / "out").exists()


def test_labels_of_another_recording_are_refused(
    model: Path, drive: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, labels = drive
    other = write_images(tmp_path / "other", [_frame(1)] * 61)
    detector = Detector(model)
    with pytest.raises(SourceError, match=r"no row for frame frame_60\.png"):
        evaluate(detector, [LabelledRecording(open_source(other), read_labels(labels))])
    clash = tmp_path / "clash.csv"
    clash.write_text("label,hazard\n" + "1,boxes\n" * 60)
    with pytest.raises(SourceError, match="number the classes alike"):
        evaluate(
            detector,
            [
                LabelledRecording(open_source(folder), read_labels(labels)),
                LabelledRecording(open_source(folder), read_labels(clash)),
            ],
        )


def test_output_is_whole_or_absent(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "box", [_frame(12)] * 3)
    evaluation = evaluate(Detector(model), [LabelledRecording(open_source(folder))])

    def fail(page: Page) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr("anomaly_detector.drawing.page.render_page", fail)
    with pytest.raises(OSError, match="no space left"):
        write_evaluation(evaluation, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box", "grey.onnx"]


def test_what_measures_knows_no_report() -> None:
    code = (
        "import sys, training.evaluation.evaluate, training.evaluation.stress; "
        "print(*(name for name in sys.modules if 'report' in name.lower() or name == 'jinja2'))"
    )
    command = [sys.executable, "-c", code]
    known = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in known.split() if name.startswith(("training", "jinja2"))] == []


@pytest.mark.parametrize("events", [0, 1, 3, 60])
@pytest.mark.parametrize("frames", [1, 10_000])
def test_timeline_of_any_length_draws(events: int, frames: int) -> None:
    stamps = np.arange(frames) / 20
    truth = [(float(i), i + 0.5, f"hazard {i % 9}") for i in range(events)]
    image = np.zeros((64, 64, 3), np.uint8)
    pictures = [(0.0, "12.0 s", image, np.zeros((8, 8)))] * (5 if frames == 1 else 0)
    figure = timeline_figure(stamps, stamps + 1, 2.0, truth, pictures)
    figure.canvas.draw()
    with pytest.raises(ValueError, match="give one per frame"):
        timeline_figure(stamps, np.zeros(frames + 1), 2.0)


def test_heat_overlay_is_bright_where_the_map_is_high() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    anomaly_map = np.zeros((8, 8))
    anomaly_map[2, 6] = 5
    overlay = heat_overlay(image, anomaly_map, 64)
    assert overlay.shape == (64, 64, 3)
    row, column = np.unravel_index(overlay.sum(axis=2).argmax(), (64, 64))
    assert 16 <= row < 24
    assert 48 <= column < 56
    # A flat map has no place to point at.
    flat = heat_overlay(image, np.ones((8, 8)), 64)
    assert np.unique(flat.reshape(-1, 3), axis=0).shape[0] == 1
