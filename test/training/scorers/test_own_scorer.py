"""A scorer from one file is trained, exported, evaluated and run by the node like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from colour_scorer import SCORER
from conftest import make_drive, options_for, preprocessed, write_images
from ros_harness import image_message, ros_client, running_node

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.message import decode_image
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.ros.node.detection_message import read_detection
from training.cli.main import main
from training.scorers import registry
from training.train import train

pytestmark = pytest.mark.usefixtures("colour")


@pytest.fixture(scope="module")
def detector(colour: str, normal_drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    out = tmp_path_factory.mktemp("own") / "own.onnx"
    train(options_for(normal_drive, out, scorer=colour))
    return Detector(out)


def test_model_says_what_the_scorer_says(detector: Detector) -> None:
    metadata = detector.metadata
    assert (metadata.scorer, metadata.architecture) == ("colour", "mean-colour")
    assert metadata.score_units == "grey levels (0..255)"
    assert metadata.score_maximum == 255.0
    assert detector.map_scale == MapScale(metadata.threshold, 255.0)
    assert metadata.calibration.method == "split-conformal"
    assert metadata.provenance["recipe"]["scorer"] == "colour"
    assert "epochs" not in metadata.provenance["recipe"]


def test_score_by_hand(detector: Detector) -> None:
    images = preprocessed(make_drive(3, seed=5))
    difference = images - np.array(detector.metadata.metrics["mean_colour"])
    scores, _, maps = detector.score_batch(images)
    np.testing.assert_allclose(scores, np.abs(difference.mean(axis=(1, 2))).max(-1), rtol=1e-4)
    np.testing.assert_allclose(maps, np.abs(difference).max(-1), rtol=1e-4, atol=1e-3)


def test_it_is_trained_and_exported_again_on_the_command_line(
    detector: Detector, normal_drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "m.onnx", tmp_path / "again.onnx"
    command = ["train", "--data", str(normal_drive), "--scorer", "colour", "--out", str(out)]
    command += ["--cache", str(tmp_path / "cache")]
    assert main([*command, "--epochs", "3"]) == 1
    assert "scorer colour does not use --epochs (for reconstruction" in capsys.readouterr().err
    assert not out.exists()
    assert main(command) == 0
    weights = str(out.with_suffix(".training"))
    assert main(["export", "--weights", weights, "--out", str(again)]) == 0
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    for mine, other in zip(
        detector.score_batch(image), Detector(again).score_batch(image), strict=True
    ):
        np.testing.assert_array_equal(mine, other)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "realnvp-oe,colour}" in capsys.readouterr().out


def test_it_is_evaluated_and_stressed(
    detector: Detector, normal_drive: Path, tmp_path: Path
) -> None:
    frames = make_drive(20, seed=3)
    frames[10:15] = [np.full_like(frame, 255) for frame in frames[10:15]]
    drive = write_images(tmp_path / "drive", frames)
    labels = tmp_path / "labels.csv"
    rows = [f"frame_{i}.png,{i},{int(10 <= i < 15)},{'white' * (10 <= i < 15)}" for i in range(20)]
    labels.write_text("\n".join(["frame,stamp_ns,label,hazard", *rows]) + "\n")
    command = ["evaluate", "--model", str(detector.path), "--data", str(drive)]
    command += ["--labels", str(labels), "--out", str(tmp_path / "evaluation")]
    assert main(command) == 0
    command = ["stress", "--model", str(detector.path), "--normal", str(normal_drive)]
    command += ["--faults", "black", "plain_blur", "--out", str(tmp_path / "stress")]
    assert main(command) == 0
    evaluation = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert evaluation["ranking"]["pooled"]["roc_auc"]["value"] == 1.0
    stress = json.loads((tmp_path / "stress" / "stress.json").read_text())
    assert len(stress["faults"]) == 2


def test_it_is_compared(normal_drive: Path, tmp_path: Path) -> None:
    command = ["compare", "--data", str(normal_drive), "--test", str(normal_drive)]
    command += ["--faults", "reference", "--scorers", "colour", "--cache", str(tmp_path / "cache")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (row["architecture"], row["scorer"], row["parameters"]) == ("mean-colour", "colour", 12)
    assert row["validation_loss"] > 0
    assert 0.5 < row["roc_auc"] <= 1.0


def test_it_runs_in_the_node(detector: Detector) -> None:
    with running_node(model=detector.path), ros_client() as client:
        message = client.stamp(image_message(make_drive(1, seed=6)[0], "rgb8"))
        record = read_detection(client.ask(message))
    expected = detector.detect(decode_image(message))
    assert (record.score, record.model) == (expected.score, "own")
    assert record.threshold == detector.threshold


def test_a_name_is_taken_once_and_an_unknown_one_is_told() -> None:
    with pytest.raises(AnomalyDetectorError, match="scorer colour is there already"):
        registry.register(SCORER)
    with pytest.raises(AnomalyDetectorError, match="scorer 'magic' is not known: choose one of"):
        registry.find_scorer("magic")
