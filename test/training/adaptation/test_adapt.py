"""Adapting a model to a drive of today: what it writes, what it refuses, and Ctrl-C."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
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

import training.adaptation.adapt as adapting
from anomaly_detector.black_box import Verdict, write_verdict
from anomaly_detector.cli.main import main
from anomaly_detector.errors import ModelError
from anomaly_detector.images.image import Image
from anomaly_detector.images.mask import Mask
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.editing import write_with_metadata
from anomaly_detector.model.file import read_metadata
from training.adaptation.changes import LIMITS
from training.adaptation.decoder import gradients
from training.adaptation.decoder_file import Decoder
from training.cli.main import main as training_main
from training.fitting.checkpoint import Checkpoint
from training.fitting.run_folder import RunFolder
from training.scorers.outlier_exposure.batches import make_batch
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
    given |= {"steps": 4, "cache": folder / "cache", **options}
    return ["adapt", *(text for k, v in given.items() for text in (f"--{k}", str(v)))]


def command_with_events(folder: Path, out: str) -> list[str]:
    return [*command(folder, out), "--events", str(folder / "alarm"), str(folder / "box")]


@pytest.fixture(scope="module")
def tuesday(folder: Path) -> Path:
    """Monday's model adapted to Tuesday, with a Ctrl-C after half of the last fine-tuning."""
    out = folder / "tuesday.onnx"
    arguments = command_with_events(folder, out.name)
    last = out.with_suffix(".training") / "all.checkpoint.npz"
    write = Checkpoint.write

    def interrupted(checkpoint: Checkpoint, path: Path) -> None:
        write(checkpoint, path)
        if path == last:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "_CHECKPOINT_STEPS", 2)
        patch.setattr(Checkpoint, "write", interrupted)
        assert main(arguments) == 130
        assert not out.exists()
        assert len(Checkpoint.read(last).values["losses"]) == 2
        patch.setattr(Checkpoint, "write", write)
        assert main([*arguments, "--resume"]) == 0
    return out


def test_an_adaptation_that_was_interrupted_goes_on(folder: Path, tuesday: Path) -> None:
    rows = read_rows(tuesday.with_suffix(".history.csv"))
    epochs = Counter(row["network"] for row in rows)
    assert epochs == {"without part 1": 2, "without part 2": 2, "all": 4}
    names = {path.name for path in tuesday.with_suffix(".training").iterdir()}
    assert names == {"metadata.json", "past.npz"}


def test_in_one_go_is_the_same_and_half_of_the_frames_are_of_the_past(
    folder: Path, tuesday: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    fine_tune = adapting._fine_tune

    def watched(adaptation: Any, frames: Any, rows: Any, *rest: Any) -> Any:
        made.append((frames.frames, rows))
        return fine_tune(adaptation, frames, rows, *rest)

    monkeypatch.setattr(adapting, "_fine_tune", watched)
    straight = folder / "straight.onnx"
    assert main(command_with_events(folder, straight.name)) == 0
    assert read_metadata(straight).threshold == read_metadata(tuesday).threshold
    for frames, rows in made:
        per_batch = (frames < 0).reshape(-1, 48).sum(axis=1)
        assert per_batch.tolist() == [24] * 4
        assert (frames[rows] < 0).sum() == 4 * 24
    # Cross-fitting: no network sees the part of today that it is to score.
    first, second = (set(frames[rows].tolist()) - {-1} for frames, rows in made[:2])
    drive = set(range(40))
    assert first
    assert second
    assert not first & second
    # In the drive these are halves, not frames by turns.
    assert max(second & drive) < 20 <= min(first & drive)
    assert len(made[2][1]) == len(made[2][0])


def test_the_model_says_what_it_was_adapted_to(folder: Path, tuesday: Path) -> None:
    old, new = read_metadata(folder / "monday.onnx"), read_metadata(tuesday)
    (entry,) = new.provenance["adapted"]
    assert (entry["data"], entry["events"], entry["steps"]) == (["tuesday"], ["alarm", "box"], 4)
    frames = {"recorded": 40, "adapted": 40, "anomalies": 3, "normal of events": 10}
    assert entry["frames"] == frames
    assert entry["scores"] == {"today": 50, "past": 16}
    assert (entry["previous_name"], entry["previous_threshold"]) == ("monday", old.threshold)
    assert entry["thresholds"]["pool"] == new.threshold != old.threshold
    assert entry["covers"] == "same days"
    assert (entry["left_out"], entry["accepted_changes"]) == ({}, [])
    assert new.calibration.frames in (50, 66)
    assert new.calibration.method == "split-conformal"
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


def test_the_model_is_compared_with_the_one_that_it_replaces(folder: Path, tuesday: Path) -> None:
    found = json.loads(tuesday.with_suffix(".comparison.json").read_text())
    assert [found["old"]["file"], found["new"]["file"]] == ["monday.onnx", "tuesday.onnx"]
    assert found["passed"] is True
    assert found["events"] == {"normal": 1}
    # What was held out when the old model was trained; not today's drive, which the new one knows.
    assert found["drives"] == ["held-out frames of monday"]
    past = RunFolder.beside(folder / "monday.onnx").past().calibration
    for side, model in (("old", folder / "monday.onnx"), ("new", tuesday)):
        detector, rate = Detector(model), found[side]["rate"]
        flagged = detector.score_batch(past).score >= detector.threshold
        assert (rate["frames"], rate["flagged"]) == (16, int(flagged.sum()))
    learnt = "tuesday.onnx has learnt all of today's drive: none of it is compared."
    trained = "tuesday.onnx was trained on events of box"
    assert found["notes"][0] == learnt
    assert any(note.startswith(trained) for note in found["notes"])
    assert "held-out frames of monday" in tuesday.with_suffix(".comparison.html").read_text()


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
        ({"seed": "-1"}, "--seed is -1"),
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


def test_a_mask_stays_and_what_changes_under_it_is_no_change(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    covered = np.zeros((64, 64), bool)
    covered[24:] = True
    mask = Mask(covered)
    monday, out = tmp_path / "masked.onnx", tmp_path / "tuesday.onnx"
    metadata = read_metadata(folder / "monday.onnx").with_mask(mask)
    write_with_metadata(folder / "monday.onnx", metadata, monday)
    shutil.copytree(folder / "monday.training", monday.with_suffix(".training"))
    frames = dimmed(make_drive(40, seed=3))
    for frame in frames:  # a large screen
        frame[45:] = cv2.GaussianBlur(255 - frame[45:], (0, 0), 5)
    drive = write_images(tmp_path / "screen", frames)
    assert main(command(folder, str(out), data=str(drive), steps="2")) == 1
    assert "differs from the drives before" in capsys.readouterr().err
    arguments = command(folder, str(out), model=str(monday), data=str(drive), steps="4")
    assert main(arguments) == 0
    assert read_metadata(out).mask == metadata.mask
    decoder = Decoder(out)
    images = preprocessed(frames[:6])
    detector = Detector(out)
    expected = detector.score_batch(images).score
    np.testing.assert_allclose(decoder.scores(decoder.weights, images), expected, rtol=1e-3)
    images[:, covered] = 0
    np.testing.assert_array_equal(detector.score_batch(images).score, expected)
    batch = make_batch(np.random.default_rng(1), images, mask=mask)
    features = decoder.features(batch.pop("image").astype(np.uint8))
    other = batch | {"map": np.where(mask.cells(32, 32), np.float32(1), batch["map"])}
    losses = [gradients(decoder.weights, features, t, kept=decoder.kept) for t in (batch, other)]
    assert losses[0][0] == losses[1][0]
    assert losses[0][0] < gradients(decoder.weights, features, batch)[0]


def targets_for(images: NDArray[np.uint8], seed: int = 1) -> tuple[NDArray[np.uint8], Any]:
    batch = make_batch(np.random.default_rng(seed), images)
    return batch.pop("image").astype(np.uint8), batch


def test_loss_and_gradients_are_those_of_the_network(folder: Path) -> None:
    from training.scorers.outlier_exposure.network import build_exposure_network, loss_model

    monday = folder / "monday.onnx"
    images, targets = targets_for(preprocessed(make_drive(8)))
    assert targets["roll"].any()
    decoder = Decoder(monday)
    features = decoder.features(images)
    loss, _ = gradients(decoder.weights, features, targets)
    network = build_exposure_network()
    RunFolder.beside(monday).load_weights("exposure", network)
    losses = loss_model(network)({"image": images.astype(np.float32), **targets})
    assert loss == pytest.approx(float(np.mean(losses)), rel=1e-4)

    # Against differences, in double precision.
    generator = np.random.default_rng(0)
    wide = {name: array.astype(np.float64) for name, array in decoder.weights.items()}
    features = [item[:4].astype(np.float64) for item in features]
    targets = {name: array[:4].astype(np.float64) for name, array in targets.items()}
    assert targets["roll"].any()
    keep = (generator.random((4, len(wide["whole kernel"]))) > 0.3) / 0.7
    _, found = gradients(wide, features, targets, keep)
    assert found.keys() == wide.keys()
    for name, array in wide.items():
        step = generator.standard_normal(array.shape) * 1e-7
        both = (
            gradients({**wide, name: array + s}, features, targets, keep)[0] for s in (step, -step)
        )
        expected = (next(both) - next(both)) / 2
        assert (found[name] * step).sum() == pytest.approx(expected, rel=1e-3, abs=1e-12), name


def test_of_another_place_todays_scores_alone_give_the_threshold(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    height, width = make_drive(1)[0].shape[:2]
    tiles = generator.integers(0, 256, (40, 6, 6, 3), np.uint8)
    elsewhere = [np.asarray(cv2.resize(tile, (width, height)), np.uint8) for tile in tiles]
    drive, out = write_images(tmp_path / "elsewhere", elsewhere), tmp_path / "there.onnx"
    arguments = command(folder, str(out), data=str(drive), steps="2")
    assert main([*arguments, "--accept-change", *LIMITS]) == 0
    (entry,) = read_metadata(out).provenance["adapted"]
    assert "place" in {item["name"] for item in entry["accepted_changes"]}
    assert entry["scores"] == {"today": 40, "past": 0}
    assert read_metadata(out).threshold == entry["thresholds"]["today"]
    # Its weights are in the model file alone.
    capsys.readouterr()
    again = tmp_path / "again.onnx"
    weights = str(out.with_suffix(".training"))
    assert training_main(["export", "--weights", weights, "--out", str(again)]) == 1
    assert "is of an adapted model" in capsys.readouterr().err
    assert not again.exists()


def test_neither_keras_nor_matplotlib_is_needed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "robot.onnx"
    code = (
        "import sys\n"
        "for name in ('keras', 'tensorflow', 'jax', 'torch', 'matplotlib', 'tf2onnx', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "from anomaly_detector.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = command(folder, str(out), steps="2")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"{out}: adapted to tuesday" in done.stdout
    assert Detector(out).metadata.name == "robot"


def test_another_network_is_refused(folder: Path, trained_model: Path) -> None:
    with pytest.raises(ModelError, match="does not end in a decoder that can adapt"):
        Decoder(trained_model)
