"""Codes out of an exported model: the file, its truth, its errors, and the picture of the space."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from conftest import PERIOD_NS, START_NS, add_box, make_drive, write_bag, write_images
from model_files import write_grey_difference_model

from anomaly_detector.detector import Detector
from anomaly_detector.errors import ModelError, SourceError
from anomaly_detector.image import Pixels
from anomaly_detector.preprocessing import shrink
from anomaly_detector.recordings import open_source
from training.cli import main
from training.code_space import code_space_figure
from training.codes import CodeModel, has_code, load_codes, training_codes, write_codes
from training.evaluate import LabelledRecording, evaluate, write_evaluation


def encode(model: Path, out: Path, *options: str | Path) -> int:
    cache = out.parent / "cache"
    arguments = ["encode", "--model", model, "--out", out, "--cache", cache, *options]
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def box_drive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve frames, four of them with a box, one unreadable, and their labels by order."""
    frames = make_drive(12, seed=7)
    frames[4:8] = [add_box(frame) for frame in frames[4:8]]
    folder = tmp_path_factory.mktemp("codes")
    drive = write_images(folder / "boxes", frames)
    (drive / "frame_2.png").write_bytes(b"cut off")
    labels = folder / "labels.csv"
    labels.write_text("label\n" + "".join(f"{9 * (4 <= i < 8)}\n" for i in range(12)))
    return drive, labels


@pytest.fixture(scope="module")
def codes_file(
    trained_model: Path,
    normal_drive: Path,
    box_drive: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("encoded")
    out = folder / "codes.npz"
    truth = folder / "normal.csv"
    truth.write_text("label\n" + "0\n" * 120)
    drive, labels = box_drive
    assert encode(trained_model, out, "--data", normal_drive, drive, "--labels", truth, labels) == 0
    return out


def test_codes_are_those_of_the_model(
    trained_model: Path, codes_file: Path, box_drive: tuple[Path, Path]
) -> None:
    codes = load_codes(codes_file)
    assert codes.codes.shape == (131, 128)
    assert codes.codes.dtype == np.float32
    frame = box_drive[0] / "frame_5.png"
    row = codes.frames.names.index("frame_5.png", 120)
    image = shrink(Pixels(np.asarray(cv2.imread(str(frame)), np.uint8), "bgr"))
    own = CodeModel(trained_model).encode(image[np.newaxis])[0]
    np.testing.assert_allclose(codes.codes[row], own, rtol=1e-4, atol=1e-3)
    # The decoder, fed with the code, gives what the score is computed from.
    model = onnx.load(trained_model)
    maker = next(n for n in model.graph.node if "code" in n.output)
    assert {n.op_type for n in model.graph.node if "code" in n.input} <= {"MatMul", "Gemm"}
    assert maker.op_type in ("MatMul", "Gemm", "Add")
    assert codes.model["architecture"] == "v5"
    assert codes.model["name"] == "tiny"


def test_frames_keep_their_truth(codes_file: Path) -> None:
    """Labels by order stay right where a frame is unreadable."""
    frames = load_codes(codes_file).frames
    assert frames.recordings.tolist() == [0] * 120 + [1] * 11
    boxes = [name for name, label in zip(frames.names, frames.labels, strict=True) if label]
    assert boxes == ["frame_4.png", "frame_5.png", "frame_6.png", "frame_7.png"]
    assert set(frames.classes) == {"normal", "boxes"}
    assert "frame_2.png" not in frames.names[120:]
    assert frames.stamps_ns == [None] * 131


def test_bag_without_labels(trained_model: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_drive(5))
    out = tmp_path / "bag.npz"
    options = ("--data", bag, "--topic", "/camera/image_raw")
    assert encode(trained_model, out, *options) == 0
    codes = load_codes(out)
    assert codes.frames.stamps_ns == [START_NS + i * PERIOD_NS for i in range(5)]
    assert codes.frames.labels.tolist() == [-1] * 5
    assert codes.frames.classes == [""] * 5


def test_training_codes(
    trained_model: Path, codes_file: Path, anomalous_drive: Path, tmp_path: Path
) -> None:
    alone = training_codes(codes_file, model=CodeModel(trained_model))
    assert alone.normal.shape == (127, 128)
    assert alone.normal_lengths == [120, 7]
    assert alone.anomalous_lengths == [4]
    others = tmp_path / "others.npz"
    assert encode(trained_model, others, "--data", anomalous_drive) == 0
    both = training_codes(codes_file, others)
    assert both.anomalous.shape == (44, 128)
    assert both.anomalous_lengths == [4, 40]
    np.testing.assert_array_equal(both.anomalous[4:], load_codes(others).codes)
    np.testing.assert_array_equal(both.normal, alone.normal)
    # Unlabelled frames are what the file is given as.
    assert training_codes(others).normal_lengths == [40]


def test_codes_of_another_model_are_refused(
    trained_model: Path, codes_file: Path, normal_drive: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.onnx"
    model = onnx.load(trained_model)
    model.doc_string = "the same with another checksum"
    onnx.save(model, other)
    out = tmp_path / "other.npz"
    assert encode(other, out, "--data", normal_drive) == 0
    with pytest.raises(SourceError, match=r"other\.npz were made by another model \(tiny\)"):
        training_codes(codes_file, out)
    with pytest.raises(SourceError, match=r"than model .*other\.onnx: encode the frames again"):
        training_codes(codes_file, model=CodeModel(other))


def test_model_without_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_grey_difference_model(tmp_path / "grey.onnx")
    assert not has_code(model)
    assert encode(model, tmp_path / "c.npz", "--data", tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: model {model} has no tensor 'code' in its graph")
    assert error.count("\n") == 1


def test_code_that_is_no_vector_is_refused(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = "code" if name == "squared" else name
    onnx.save(model, path)
    assert has_code(path)
    with pytest.raises(ModelError, match=r"tensor 'code' of 1 frames has shape \(1, 64, 64, 3\)"):
        CodeModel(path)


def test_wrong_options_are_told_before_reading(
    trained_model: Path,
    normal_drive: Path,
    box_drive: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drive, labels = box_drive
    clash = tmp_path / "clash.csv"
    clash.write_text("label,class\n" + "9,cones\n" * 12)
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("--data", drive, normal_drive, "--labels", labels), "2 --data and 1 --labels"),
        (("--data", normal_drive, "--labels", labels), "labels 12 frames by order only"),
        (("--data", drive, "--topic", "/camera"), "none of the recordings is a bag"),
        (("--data", tmp_path / "no"), "does not exist"),
        (("--data", drive, drive, "--labels", labels, clash), "number the classes alike"),
    ]
    for options, reason in cases:
        assert encode(trained_model, tmp_path / "out" / "c.npz", *options) == 1
        assert reason in capsys.readouterr().err
    assert encode(trained_model, tmp_path / "out" / "c.npy", "--data", drive) == 1
    assert "does not end with .npz" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.np*"))


def test_file_is_whole_or_absent(codes_file: Path, trained_model: Path, tmp_path: Path) -> None:
    codes = load_codes(codes_file)
    model = CodeModel(trained_model)
    out = tmp_path / "c.npz"
    with pytest.raises(ValueError, match="130 codes for 131 frames"):
        write_codes(out, codes.frames, model, [codes.codes[:100], codes.codes[101:]])
    assert not list(tmp_path.iterdir())
    write_codes(out, codes.frames, model, [codes.codes[:100], codes.codes[100:]])
    assert out.read_bytes() != b""
    again = load_codes(out)
    np.testing.assert_array_equal(again.codes, codes.codes)
    assert again.frames.names == codes.frames.names
    assert again.model == codes.model


def test_damaged_files_are_told(codes_file: Path, tmp_path: Path) -> None:
    with np.load(codes_file) as file:
        good = dict(file)

    def written(**changes: Any) -> Path:
        path = tmp_path / "c.npz"
        np.savez(path, **{k: v for k, v in (good | changes).items() if v is not None})
        return path

    broken = good["codes"].copy()
    broken[7] = np.inf
    cases: list[tuple[dict[str, Any], str]] = [
        ({"labels": None}, "has no array .*labels"),
        ({"labels": good["labels"][1:]}, r"array labels is int64 \(130,\) where 131 int64"),
        ({"codes": good["codes"].astype(np.float64)}, "array codes is float64"),
        ({"names": np.arange(131)}, "array names is int64"),
        ({"codes": broken}, "codes that are not finite"),
        ({"recordings": good["recordings"] + 1}, "recordings that are not numbered in order"),
        ({"labels": good["labels"] - 5}, "has the label -5"),
        ({"model": np.array(json.dumps({}))}, "does not say which model made it"),
        ({"model": np.array("[]")}, "no whole codes file"),
        ({name: good[name][:0] for name in good if name != "model"}, "has no frame"),
        ({"classes": np.array([None] * 131)}, "no whole codes file"),
    ]
    for changes, reason in cases:
        with pytest.raises(SourceError, match=reason) as error:
            load_codes(written(**changes))
        assert "python -m training encode" in str(error.value)
    whole = codes_file.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "cut.npz").write_bytes(content)
        with pytest.raises(SourceError, match="no whole codes file"):
            load_codes(tmp_path / "cut.npz")
    with pytest.raises(SourceError, match="is not a file"):
        load_codes(tmp_path / "missing.npz")
    with zipfile.ZipFile(codes_file) as archive:
        assert archive.testzip() is None


def test_all_hazards_are_no_normal_codes(codes_file: Path, tmp_path: Path) -> None:
    with np.load(codes_file) as file:
        good = dict(file)
    np.savez(tmp_path / "c.npz", **(good | {"labels": np.full(131, 3)}))
    with pytest.raises(SourceError, match="all 131 frames are labelled with hazards"):
        training_codes(tmp_path / "c.npz")


def test_report_shows_the_code_space(
    trained_model: Path, box_drive: tuple[Path, Path], normal_drive: Path, tmp_path: Path
) -> None:
    recordings = [
        LabelledRecording(open_source(normal_drive)),
        LabelledRecording(open_source(box_drive[0]), class_name="boxes"),
    ]
    evaluation = evaluate(Detector(trained_model), recordings, bootstrap=0, gallery=0)
    assert evaluation.codes is not None
    assert evaluation.codes.shape == (131, 128)
    write_evaluation(evaluation, tmp_path / "with")
    assert 'id="code-space"' in (tmp_path / "with" / "report.html").read_text()
    grey = Detector(write_grey_difference_model(tmp_path / "grey.onnx"))
    without = evaluate(grey, recordings[:1], bootstrap=0, gallery=0)
    assert without.codes is None
    write_evaluation(without, tmp_path / "without")
    assert 'id="code-space"' not in (tmp_path / "without" / "report.html").read_text()
    flat = dataclasses.replace(evaluation, codes=np.ones_like(evaluation.codes))
    write_evaluation(flat, tmp_path / "flat")
    assert 'id="code-space"' not in (tmp_path / "flat" / "report.html").read_text()


def test_figure_draws_every_class_where_it_lies() -> None:
    """Three groups along two of 128 axes: apart there, so apart in the picture."""
    generator = np.random.default_rng(0)
    codes = generator.normal(size=(4000, 128)).astype(np.float32)
    labels = np.repeat([0, 5, -1], [3000, 600, 400])
    codes[labels == 5, 3] += 100
    codes[labels == -1, 70] += 100
    classes = [{0: "normal", 5: "hanging cable", -1: ""}[label] for label in labels.tolist()]
    figure = code_space_figure(codes, labels, classes)
    assert figure is not None
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["normal (3000)", "not labelled (400)", "hanging cable (600)"]
    points = [np.asarray(group.get_offsets()) for group in figure.axes[0].collections]
    assert [len(group) for group in points] == [1500, 400, 600]
    centres = [group.mean(axis=0) for group in points]
    for index in range(3):
        spread = points[index].std(axis=0).max()
        others = [c for i, c in enumerate(centres) if i != index]
        assert min(np.linalg.norm(centres[index] - other) for other in others) > 10 * spread
