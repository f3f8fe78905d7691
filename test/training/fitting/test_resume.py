"""Trainings that were killed go on to the same result; saved weights become the same detector."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_drive, options_for, write_images
from programs import run_python

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.preprocessing import INPUT_SIZE
from anomaly_detector.model.detector import Detector
from training.cli.main import main
from training.fitting.checkpoint import Checkpoint
from training.fitting.run_folder import RunFolder
from training.fitting.settings import FitResult
from training.scorers.options import flag
from training.train import train

EPOCHS = 12

OPTIONS: dict[str, Any] = {
    "scorer": "reconstruction",
    "epochs": EPOCHS,
    "batch_size": 16,
    "augmentation": "paper",
    "dropout": 0.1,
    "plateau_patience": 2,
    "early_stopping_patience": 0,
    "learning_rate": 0.003,
}


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("resume") / "drive", make_drive(40))


@pytest.fixture(scope="module")
def unbroken(drive: Path) -> Path:
    """A model trained in one go."""
    out = drive.parent / "unbroken.onnx"
    train(options_for(drive, out, **OPTIONS))
    return out


def epochs_done(checkpoint: Path) -> int:
    return int(Checkpoint.read(checkpoint).values["epochs"]) if checkpoint.is_file() else 0


_KILLED = """
import os, signal, sys
import numpy as np
from training.cli.main import main

write, written = np.savez, []

def killed(path, **arrays):
    write(path, **arrays)
    written.append(path)
    if len(written) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

np.savez = killed
main(sys.argv[1:])
"""
"""A training that is killed while it writes its fourth checkpoint."""


def test_killed_training_goes_on_to_the_same_result(drive: Path, unbroken: Path) -> None:
    out = drive.parent / "killed.onnx"
    checkpoint = drive.parent / "killed.training" / "autoencoder.checkpoint.npz"
    command = ["train", "--data", str(drive), "--out", str(out)]
    command += ["--cache", str(drive.parent / "cache")]
    for name, value in OPTIONS.items():
        command += [flag(name), str(value)]
    assert run_python(_KILLED, *command).returncode == -signal.SIGKILL
    assert epochs_done(checkpoint) == 3
    assert not out.exists()

    metadata = train(options_for(drive, out, resume=True, **OPTIONS))
    expected = Detector(unbroken).metadata
    assert metadata.metrics == expected.metrics
    assert metadata.threshold == expected.threshold
    history, expected_history = (
        path.with_suffix(".history.csv").read_text() for path in (out, unbroken)
    )
    assert history == expected_history
    images = np.random.default_rng(0).integers(0, 256, (4, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    scores, _, maps = Detector(out).score_batch(images)
    expected_scores, _, expected_maps = Detector(unbroken).score_batch(images)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)
    np.testing.assert_allclose(maps, expected_maps, rtol=1e-6)
    # The learning rate fell on the way, so that the state of that callback counted.
    assert len(expected_history.splitlines()) == 1 + 2 * EPOCHS
    # But for the half of a checkpoint, hidden, which nothing reads.
    assert sorted(path.name for path in checkpoint.parent.glob("[!.]*")) == [
        "autoencoder.weights.h5",
        "metadata.json",
    ]


def test_export_of_saved_weights_gives_the_same_detector(
    unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unbroken.with_suffix(".training")
    again = unbroken.parent / "again.onnx"
    assert main(["export", "--weights", str(folder), "--out", str(again)]) == 0
    assert "split-conformal" in capsys.readouterr().out
    images = np.random.default_rng(1).integers(0, 256, (3, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    first, second = Detector(unbroken), Detector(again)
    np.testing.assert_array_equal(first.score_batch(images)[0], second.score_batch(images)[0])
    assert second.metadata == replace(first.metadata, name="again")


def test_export_of_a_lone_weights_file_calibrates_on_data(drive: Path, unbroken: Path) -> None:
    weights = unbroken.with_suffix(".training") / "autoencoder.weights.h5"
    out = unbroken.parent / "lone.onnx"
    arguments = ["--weights", str(weights), "--architecture", "v5", "--out", str(out)]
    arguments += ["--data", str(drive), "--cache", str(drive.parent / "cache")]
    code = main(["export", *arguments, "--false-alarm-rate", "0.1"])
    assert code == 0
    metadata = Detector(out).metadata
    assert metadata.calibration.frames == 40
    assert metadata.calibration.false_alarm_rate == 0.1
    assert metadata.provenance == {"weights": "autoencoder.weights.h5"}


@pytest.mark.parametrize(
    ("weights", "arguments", "reason"),
    [
        ("autoencoder.weights.h5", [], "give --architecture"),
        ("autoencoder.weights.h5", ["--architecture", "v5"], "--data RECORDING to calibrate"),
        (
            "autoencoder.weights.h5",
            ["--architecture", "v4", "--threshold", "1"],
            "do not fit the network autoencoder",
        ),
        ("no.weights.h5", ["--architecture", "v5", "--threshold", "1"], "do not exist"),
        ("", ["--architecture", "v4"], "holds weights of v5, not of v4"),
        ("..", [], "has no metadata.json"),
    ],
)
def test_wrong_exports_are_refused(
    unbroken: Path,
    weights: str,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = unbroken.parent / "refused.onnx"
    path = unbroken.with_suffix(".training") / weights
    assert main(["export", "--weights", str(path), "--out", str(out), *arguments]) == 1
    assert reason in capsys.readouterr().err
    assert not out.exists()


def test_resuming_with_other_options_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path / "m.training").start({"batch_size": 32, "seed": 0})
    RunFolder(tmp_path / "m.training", resume=True).start({"batch_size": 32, "seed": 0})
    with pytest.raises(AnomalyDetectorError, match="made with batch_size 32, now it is 16"):
        RunFolder(tmp_path / "m.training", resume=True).start({"batch_size": 16, "seed": 0})
    for content in (b"[]", b"\xff"):
        (tmp_path / "m.training" / "run.json").write_bytes(content)
        with pytest.raises(AnomalyDetectorError, match=r"run\.json is damaged"):
            RunFolder(tmp_path / "m.training", resume=True).start({"batch_size": 32, "seed": 0})
    (tmp_path / "m.training" / "metadata.json").write_bytes(b"\xff")
    with pytest.raises(AnomalyDetectorError, match=r"metadata\.json"):
        RunFolder(tmp_path / "m.training").metadata()


def test_checkpoints_on_top_of_a_network_that_was_trained_on_are_void(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "m.training", resume=True)
    assert folder.checkpoint("autoencoder")["resume"]
    folder.trained(FitResult(trained=False))
    assert folder.checkpoint("mlp")["resume"]
    folder.trained(FitResult(trained=True))
    assert not folder.checkpoint("mlp")["resume"]


def test_training_afresh_removes_old_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "m.training"
    Checkpoint({"model": [np.zeros(3)]}, {"epochs": 4}).write(folder / "a.checkpoint.npz")
    assert epochs_done(folder / "a.checkpoint.npz") == 4
    (folder / "past.npz").write_bytes(b"of the model that is there")
    RunFolder(folder).start({"seed": 1})
    # It goes when there is a new model: until then the old one can adapt.
    assert {path.name for path in folder.iterdir()} == {"run.json", "past.npz"}
    assert json.loads((folder / "run.json").read_text()) == {"seed": 1}


def test_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.checkpoint.npz"
    Checkpoint({"model": [np.zeros(300)]}, {}).write(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(AnomalyDetectorError, match="is damaged"):
        Checkpoint.read(path)
