"""Codes out of an exported model: the file, its truth, its errors, and the picture of the space."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from black_box_frames import wait_until
from conftest import PERIOD_NS, START_NS, add_box, make_drive, write_bag, write_images
from disks import leave_free, small_disk
from model_files import write_grey_difference_model
from review_server import make_box

from anomaly_detector.errors import ModelError, OutputError
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.latents import LatentEncoder, find_encoder
from anomaly_detector.model.metadata import METADATA_KEY
from anomaly_detector.recordings import open_source
from anomaly_detector.review.catalog import Catalog
from anomaly_detector.review.likeness import Likeness
from anomaly_detector.review.pictures import Pictures
from training.cli.evaluate import write_evaluation
from training.cli.main import main
from training.data.latents import FrameTable, write_latents
from training.data.opening import LabelledRecording
from training.evaluation.evaluate import evaluate
from training.reports.latent_space import latent_space_figure


def encode(model: Path, out: Path, *options: str | Path) -> int:
    cache = out.parent / "cache"
    arguments = ["encode", "--model", model, "--out", out, "--cache", cache, *options]
    return main([str(argument) for argument in arguments])


def load(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


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
def latents_file(
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


def test_latents_are_those_of_the_model(
    trained_model: Path, latents_file: Path, box_drive: tuple[Path, Path]
) -> None:
    file = load(latents_file)
    assert file["codes"].shape == (131, 128)
    assert file["codes"].dtype == np.float32
    frame = box_drive[0] / "frame_5.png"
    row = file["names"].tolist().index("frame_5.png", 120)
    image = preprocess(Image(np.asarray(cv2.imread(str(frame)), np.uint8), "bgr"))
    own = LatentEncoder(trained_model).encode(image[np.newaxis])[0]
    np.testing.assert_allclose(file["codes"][row], own, rtol=1e-4, atol=1e-3)
    # The decoder, fed with the latent, gives what the score is computed from.
    model = onnx.load(trained_model)
    maker = next(n for n in model.graph.node if "code" in n.output)
    assert {n.op_type for n in model.graph.node if "code" in n.input} <= {"MatMul", "Gemm"}
    assert maker.op_type in ("MatMul", "Gemm", "Add")
    made_by = json.loads(str(file["model"]))
    assert (made_by["architecture"], made_by["name"]) == ("v5", "tiny")


def test_frames_keep_their_truth(latents_file: Path) -> None:
    """Labels by order stay right where a frame is unreadable."""
    file = load(latents_file)
    assert file["recordings"].tolist() == [0] * 120 + [1] * 11
    assert file["names"][file["labels"] > 0].tolist() == [f"frame_{i}.png" for i in range(4, 8)]
    assert set(file["classes"]) == {"normal", "boxes"}
    assert "frame_2.png" not in file["names"][120:]
    assert not file["has_stamp"].any()


def test_bag_without_labels(trained_model: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_drive(5))
    out = tmp_path / "bag.npz"
    options = ("--data", bag, "--topic", "/camera/image_raw")
    assert encode(trained_model, out, *options) == 0
    file = load(out)
    assert file["stamps_ns"].tolist() == [START_NS + i * PERIOD_NS for i in range(5)]
    assert file["has_stamp"].all()
    assert file["labels"].tolist() == [-1] * 5
    assert file["classes"].tolist() == [""] * 5


def test_model_without_a_latent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_grey_difference_model(tmp_path / "grey.onnx")
    assert find_encoder(model) is None
    assert encode(model, tmp_path / "c.npz", "--data", tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: model {model} has no tensor 'code' in its graph")
    assert error.count("\n") == 1


def test_latent_that_is_no_vector_is_refused(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = "code" if name == "squared" else name
    onnx.save(model, path)
    for encoder in (find_encoder, LatentEncoder):
        with pytest.raises(ModelError, match=r"'code' of 1 frames has shape \(1, 64, 64, 3\)"):
            encoder(path)


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


def test_file_is_whole_or_absent(latents_file: Path, trained_model: Path, tmp_path: Path) -> None:
    latents = load(latents_file)["codes"]
    model = LatentEncoder(trained_model)
    out = tmp_path / "c.npz"
    zeros = np.zeros(131, np.int64)
    frames = FrameTable(zeros, ["frame"] * 131, [None] * 131, zeros, [""] * 131)
    write_latents(out, frames, model, latents)
    np.testing.assert_array_equal(load(out)["codes"], latents)
    with small_disk(tmp_path / "disk", "1m") as disk:
        leave_free(disk, 40_000)  # of the 67,072 bytes
        with pytest.raises(OutputError, match=rf"c\.npz cannot .* make room in {disk} or"):
            write_latents(disk / "c.npz", frames, model, latents)
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_encode_sees_what_the_model_sees(trained_model: Path, tmp_path: Path) -> None:
    """12-bit pictures, cut to the region and scaled by hand, have the same codes."""
    viewing = tmp_path / "viewing.onnx"
    model = onnx.load(trained_model)
    metadata = dataclasses.replace(
        Detector(trained_model).metadata,
        region_of_interest=(8, 4, 40, 24),
        image_scaling=(100.0, 4000.0),
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.save(model, viewing)
    deep = np.random.default_rng(0).integers(0, 4096, (5, 48, 64), np.uint16)
    scaled = np.clip((deep - 100.0) * 255 / 3900, 0, 255)
    for folder, frames in (("deep", deep), ("by_hand", np.rint(scaled[:, 4:28, 8:48]))):
        (tmp_path / folder).mkdir()
        for number, frame in enumerate(frames):
            content = frame if folder == "deep" else frame.astype(np.uint8)
            assert cv2.imwrite(str(tmp_path / folder / f"{number}.png"), content)
    latents = {}
    for path, folder in ((viewing, "deep"), (trained_model, "deep"), (trained_model, "by_hand")):
        out = tmp_path / f"{path.stem}_{folder}.npz"
        assert encode(path, out, "--data", tmp_path / folder) == 0
        latents[out.stem] = load(out)["codes"]
    scale = np.abs(latents["tiny_by_hand"]).max()
    np.testing.assert_allclose(
        latents["viewing_deep"], latents["tiny_by_hand"], atol=0.01 * scale, rtol=0
    )
    assert np.abs(latents["viewing_deep"] - latents["tiny_deep"]).max() > 0.05 * scale


def test_report_shows_the_latent_space(
    trained_model: Path, box_drive: tuple[Path, Path], normal_drive: Path, tmp_path: Path
) -> None:
    recordings = [
        LabelledRecording(open_source(normal_drive)),
        LabelledRecording(open_source(box_drive[0]), class_name="boxes"),
    ]
    evaluation = evaluate(Detector(trained_model), recordings, bootstrap=0, gallery=0)
    assert evaluation.latents is not None
    assert evaluation.latents.shape == (131, 128)
    write_evaluation(evaluation, tmp_path / "with")
    assert 'id="latent-space"' in (tmp_path / "with" / "report.html").read_text()
    grey = Detector(write_grey_difference_model(tmp_path / "grey.onnx"))
    without = evaluate(grey, recordings[:1], bootstrap=0, gallery=0)
    assert without.latents is None
    write_evaluation(without, tmp_path / "without")
    assert 'id="latent-space"' not in (tmp_path / "without" / "report.html").read_text()
    flat = dataclasses.replace(evaluation, latents=np.ones_like(evaluation.latents))
    write_evaluation(flat, tmp_path / "flat")
    assert 'id="latent-space"' not in (tmp_path / "flat" / "report.html").read_text()


def test_figure_draws_every_class_where_it_lies() -> None:
    """Three groups along two of 128 axes: apart there, so apart in the picture."""
    generator = np.random.default_rng(0)
    latents = generator.normal(size=(4000, 128)).astype(np.float32)
    labels = np.repeat([0, 5, -1], [3000, 600, 400])
    latents[labels == 5, 3] += 100
    latents[labels == -1, 70] += 100
    classes = [{0: "normal", 5: "hanging cable", -1: ""}[label] for label in labels.tolist()]
    figure = latent_space_figure(latents, labels, classes)
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


def test_events_are_alike_by_the_latents_of_their_peaks(
    tmp_path: Path, trained_model: Path
) -> None:
    paths = make_box(tmp_path / "box", 4)
    catalog = Catalog([tmp_path / "box"])
    catalog.look()
    pictures = Pictures(Detector(trained_model))
    likeness = Likeness(catalog, pictures, trained_model)
    assert likeness.by == f"latents of {trained_model.name}"
    wait_until(lambda: likeness.groups(0.95)[1] == 0)
    groups, _ = likeness.groups(0.95)
    names = {entry.id: entry.event.path for entry in catalog.entries.values()}
    # The latents of a drive point in one direction: only what they have not in common tells.
    assert {paths[0], paths[3]} in [{names[key] for key in group} for group in groups]
    assert len(groups) > 1
