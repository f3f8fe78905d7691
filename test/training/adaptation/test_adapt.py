"""Adapting a model to a drive of today: what it writes, what it refuses, and Ctrl-C."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from black_box_frames import Drive, events_in, open_box
from conftest import (
    add_box,
    make_drive,
    options_for,
    preprocessed,
    read_rows,
    skip_without_keras,
    write_images,
)
from numpy.typing import NDArray

from anomaly_detector.black_box import Verdict, write_verdict
from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.editing import write_with_metadata
from anomaly_detector.model.file import read_metadata
from training.cli.main import main
from training.fitting.checkpoint import Checkpoint
from training.fitting.run import FineTuning
from training.fitting.run_folder import RunFolder
from training.train import train


def dimmed(frames: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [(frame * 0.8).astype(np.uint8) for frame in frames]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Monday's drive and a model trained on it, Tuesday's, and an alarm of Tuesday's."""
    skip_without_keras()
    folder = tmp_path_factory.mktemp("days")
    monday = write_images(folder / "monday", make_drive(80))
    write_images(folder / "tuesday", dimmed(make_drive(40, seed=3)))
    blurred = [
        np.asarray(cv2.GaussianBlur(frame, (0, 0), 3), np.uint8) for frame in make_drive(40, seed=3)
    ]
    write_images(folder / "blurred", blurred)
    write_images(folder / "alarm", [add_box(frame) for frame in make_drive(3, seed=4)])
    doors = dimmed(make_drive(20, seed=6))
    with open_box(folder / "box", max_rate_hz=20.0) as box:
        Drive(box).anomaly(1.0, make=lambda number: Image(doors[number], "rgb"))
    write_verdict(events_in(folder / "box")[0], Verdict("normal"))
    options: dict[str, Any] = {"scorer": "outlier-exposure"}
    options |= {"exposure_epochs": 1, "exposure_steps": 6}
    train(options_for(monday, folder / "monday.onnx", **options))
    return folder


def command(folder: Path, out: str, **options: str) -> list[str]:
    given: dict[str, Any] = {
        "model": folder / "monday.onnx",
        "data": folder / "tuesday",
        "out": folder / out,
    }
    given |= {"steps": 8, "cache": folder / "cache", **options}
    return ["adapt", *(text for k, v in given.items() for text in (f"--{k}", str(v)))]


@pytest.fixture(scope="module")
def tuesday(folder: Path) -> Path:
    """Monday's model adapted to Tuesday, with a Ctrl-C after half of the last fine-tuning."""
    out = folder / "tuesday.onnx"
    arguments = command(folder, out.name, events=str(folder / "alarm"))
    arguments.insert(arguments.index("--events") + 1, str(folder / "box"))
    last = out.with_suffix(".training") / "all.checkpoint.npz"
    write = Checkpoint.write

    def interrupted(checkpoint: Checkpoint, path: Path) -> None:
        write(checkpoint, path)
        if path == last:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.scorers.outlier_exposure.training._ADAPTATION_EPOCH", 4)
        patch.setattr(Checkpoint, "write", interrupted)
        assert main(arguments) == 1
        assert not out.exists()
        assert Checkpoint.read(last).values["epochs"] == 1
        patch.setattr(Checkpoint, "write", write)
        assert main([*arguments, "--resume"]) == 0
    return out


def test_an_adaptation_that_was_interrupted_goes_on(tuesday: Path) -> None:
    rows = read_rows(tuesday.with_suffix(".history.csv"))
    assert sorted({(row["network"], row["epoch"]) for row in rows}) == [
        ("exposure", "1"), ("exposure", "2"), ("without part 1", "1"), ("without part 2", "1"),
    ]  # fmt: skip
    names = {path.name for path in tuesday.with_suffix(".training").iterdir()}
    assert names == {"exposure.weights.h5", "metadata.json", "past.npz"}


def test_the_model_says_what_it_was_adapted_to(folder: Path, tuesday: Path) -> None:
    old, new = read_metadata(folder / "monday.onnx"), read_metadata(tuesday)
    (entry,) = new.provenance["adapted"]
    assert (entry["data"], entry["events"], entry["steps"]) == (["tuesday"], ["alarm", "box"], 8)
    frames = {"recorded": 40, "adapted": 40, "anomalies": 3, "normal of events": 10}
    assert entry["frames"] == frames
    assert entry["scores"] == {"today": 50, "past": 16}
    assert (entry["previous_name"], entry["previous_threshold"]) == ("monday", old.threshold)
    assert entry["thresholds"]["extreme-value"] == new.threshold != old.threshold
    assert entry["covers"] == "same days"
    assert (entry["left_out"], entry["accepted_changes"]) == ({}, [])
    assert new.calibration.frames in (16, 50)
    assert [item.name for item in new.training_recordings] == ["monday", "tuesday", "box"]
    assert new.training_recordings[:1] == old.training_recordings
    assert new.provenance["created"] == old.provenance["created"]
    assert read_metadata(folder / "monday.onnx") == old
    page = tuesday.with_suffix(".changes.html").read_text(encoding="utf-8")
    assert "may be learnt" in page


def test_the_sample_grows_and_held_out_frames_stay_so(folder: Path, tuesday: Path) -> None:
    old, new = (RunFolder.beside(model).past() for model in (folder / "monday.onnx", tuesday))
    assert [item.name for item in new.recordings] == ["monday", "tuesday", "box"]
    assert np.bincount(new.drives).tolist() == [len(old), 40, 10]
    np.testing.assert_array_equal(new.calibration, old.calibration)
    np.testing.assert_array_equal(
        new.anomalies, preprocessed([add_box(f) for f in make_drive(3, 4)])
    )


def test_today_looks_more_normal_than_before(folder: Path, tuesday: Path) -> None:
    images = preprocessed(dimmed(make_drive(40, seed=5)))
    before, after = Detector(folder / "monday.onnx"), Detector(tuesday)
    assert after.score_batch(images).score.mean() < before.score_batch(images).score.mean()
    assert np.mean(after.score_batch(images).score >= after.threshold) < 0.1


def test_wrong_models_are_refused(
    folder: Path, tmp_path: Path, trained_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monday = folder / "monday.onnx"
    alone, other, old, moved = (tmp_path / f"{n}.onnx" for n in ("alone", "other", "old", "moved"))
    shutil.copy(monday, alone)
    metadata = read_metadata(monday)
    for copy, changed in (
        (other, replace(metadata, training_recordings=())),
        (old, metadata),
        (moved, replace(metadata, region_of_interest=(0, 10, 0, 0))),
    ):
        write_with_metadata(monday, changed, copy)
        shutil.copytree(monday.with_suffix(".training"), copy.with_suffix(".training"))
    (old.with_suffix(".training") / "past.npz").unlink()
    for model, reason in (
        (alone, "has no folder"),
        (other, "is of another training"),
        (old, "past.npz is not there"),
        (moved, "train again with this view"),
        (trained_model, "cannot adapt: train one with --scorer outlier-exposure"),
    ):
        assert main(command(folder, "refused.onnx", model=str(model))) == 1
        error = capsys.readouterr().err
        assert reason in error
        assert (error.count("\n"), error[:7]) == (1, "error: ")
    assert not list(folder.glob("refused*"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"out": "monday.onnx"}, "is the model itself"),
        ({"out": "refused.h5"}, "does not end with .onnx"),
        ({"steps": "0"}, "--steps is 0"),
        ({"false-alarm-rate": "1"}, "false alarm rate is 1"),
        ({"data": "no"}, "no does not exist"),
        ({"data": "alarm"}, "alarm has 3 frames, too few to adapt to"),
        ({"events": "no"}, "no does not exist"),
    ],
)
def test_wrong_options_are_refused(
    folder: Path, options: dict[str, str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "monday.onnx").read_bytes()
    places = {k: str(folder / v) for k, v in options.items() if k in ("out", "data", "events")}
    assert main(command(folder, **{"out": "refused.onnx"} | options | places)) == 1
    assert reason in capsys.readouterr().err.splitlines()[-1]
    assert not list(folder.glob("refused*"))
    assert (folder / "monday.onnx").read_bytes() == before


def test_a_blurred_drive_is_refused_and_the_page_shows_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folder, "refused.onnx", data=str(folder / "blurred"))) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "differs from the drives before: sharpness" in error
    page = folder / "refused.changes.html"
    assert [path.name for path in folder.glob("refused*")] == [page.name]
    text = page.read_text(encoding="utf-8")
    page.unlink()
    assert "Refused." in text
    assert "--accept-change blur" in text


def test_half_of_a_batch_is_of_the_past_and_what_is_frozen_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skip_without_keras()
    from training.scorers.outlier_exposure import network as networks
    from training.scorers.outlier_exposure import training

    batches: list[tuple[NDArray[np.uint8], Any]] = []
    make_batch = networks.make_batch

    def watched(generator: Any, images: NDArray[np.uint8], anomalies: Any) -> Any:
        batches.append((images[:, 0, 0, 0], anomalies))
        return make_batch(generator, images, anomalies)

    monkeypatch.setattr(training, "make_batch", watched)
    network = networks.build_exposure_network()
    frozen = network.layers[3]
    assert frozen.weights
    frozen.trainable = False
    start = network.get_weights()
    fine_tune = training.fine_tuner(network)
    past, today, held_out, red = (np.full((9, 64, 64, 3), v, np.uint8) for v in (50, 90, 70, 9))
    tuning = FineTuning(past, today, held_out, red, 2, 0, "test", {"progress": False})
    weights = []
    for _ in range(2):
        fine_tune(tuning)
        weights.append(network.get_weights())
    grey = [sorted(values.tolist()) for values, _ in batches]
    assert grey.count([50] * 24 + [90] * 24) >= 4
    assert all(values in ([50] * 24 + [90] * 24, [70] * 9) for values in grey)
    assert all(anomalies is red for _, anomalies in batches)
    # Each time from the same start to the same end.
    for once, again in zip(*weights, strict=True):
        np.testing.assert_allclose(once, again, rtol=1e-4, atol=1e-5)
    changed = [not np.array_equal(a, b) for a, b in zip(start, weights[0], strict=True)]
    own = {id(variable) for variable in frozen.weights}
    assert changed == [id(variable) not in own for variable in network.weights]
