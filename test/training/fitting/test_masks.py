"""Training with a mask: what is written, what is learnt, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import add_box, make_drive, options_for, preprocessed, skip_without_keras

from anomaly_detector.cli.main import main as robot_main
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.mask import Mask
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from training.cli.main import main
from training.networks.autoencoders import build_autoencoder
from training.networks.backend import seed_everything
from training.scorers.autoencoder import error_model
from training.train import prepare

BUMPER = "0,75,119,75,119,89,0,89"
"""Of frames of 120x90 pixels."""


def command(drive: Path, out: Path, scorer: str, *options: str) -> list[str]:
    common = ["train", "--data", str(drive), "--out", str(out), "--scorer", scorer]
    return [*common, "--cache", str(out.parent / "cache"), *options]


@pytest.fixture(scope="module")
def bumper(tmp_path_factory: pytest.TempPathFactory, normal_drive: Path, colour: str) -> Path:
    """A model with a mask over the bumper, and the mask."""
    folder = tmp_path_factory.mktemp("bumper")
    painted = np.zeros((180, 240), np.uint8)
    painted[150:] = 255
    cv2.imwrite(str(folder / "bumper.png"), painted)
    options = ("--mask", str(folder / "bumper.png"), "--seed", "3")
    assert main(command(normal_drive, folder / "model.onnx", colour, *options)) == 0
    return folder / "model.onnx"


def test_the_model_has_the_mask(bumper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata, detector = read_metadata(bumper), Detector(bumper)
    assert metadata.input_mask is not None
    covered = metadata.input_mask.ignored
    assert covered[53:].all()
    assert not covered[:51].any()
    frame = make_drive(6)[5]
    same, other = frame.copy(), frame.copy()
    same[75:] = 255 - frame[75:]
    other[50:60] = 255 - frame[50:60]
    scores = [detector.detect(each, order="rgb").score for each in (frame, same, other)]
    assert scores[0] == scores[1]
    assert scores[2] > scores[0]
    options = metadata.provenance["options"]
    assert options["mask"] == "bumper.png"
    assert str(bumper.parent) not in metadata.to_json()
    assert robot_main(["info", str(bumper)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["mask"] == f"{covered.mean():.1%} of what the model sees"


def test_export_makes_the_same_model_again(
    bumper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again.onnx"
    arguments = ["export", "--weights", str(bumper.with_suffix(".training")), "--out", str(out)]
    assert main(arguments) == 0
    images = preprocessed([add_box(frame) for frame in make_drive(3)])
    expected, got = (Detector(file).score_batch(images) for file in (bumper, out))
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_array_equal(one, other)
    out.unlink()
    capsys.readouterr()
    assert main([*arguments, "--region", "0,0,60,60"]) == 1
    assert "has a mask for region 0,0,0,0" in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mask", "nowhere.png"), "mask nowhere.png cannot be read"),
        (("--mask-polygon", "0,0,5"), "is not X,Y,X,Y,X,Y"),
        (("--mask-polygon", "0,0,120,0,120,90,0,90"), "leaves 0% of what the model looks at"),
        (("--mask-polygon", BUMPER, "--region", "0,0,120,60"), "covers nothing of what the model"),
    ],
)
def test_a_wrong_mask_is_refused_before_the_work(
    normal_drive: Path,
    tmp_path: Path,
    colour: str,
    options: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(normal_drive, tmp_path / "model.onnx", colour, *options)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_error_under_a_mask_is_not_trained() -> None:
    skip_without_keras()
    seed_everything(1)
    covered = np.zeros((64, 64), bool)
    covered[50:] = True
    images = preprocessed(make_drive(4))
    mask = Mask(covered)
    autoencoder = build_autoencoder("v5")
    inputs: dict[str, Any] = {"image": mask.filled(images)}
    model = error_model(autoencoder, None, mask)
    pixels = inputs["image"].astype(np.float32)
    squared = (pixels - np.asarray(autoencoder.model(pixels))) ** 2
    squared[:, covered] = 0
    expected = squared.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(np.asarray(model(inputs)), expected, rtol=1e-4)


def test_another_mask_is_another_training(
    bumper: Path,
    normal_drive: Path,
    colour: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = options_for(normal_drive, tmp_path / "m.onnx", scorer=colour, mask_polygon=[BUMPER])
    prepare(options)
    painted = np.zeros((90, 120), np.uint8)
    painted[80:] = 255
    for number in (0, 1):
        painted[:10] = 255 * number
        cv2.imwrite(str(tmp_path / "mask.png"), painted)
        options = replace(options, mask=tmp_path / "mask.png", mask_polygon=(), resume=number > 0)
        if not number:
            prepare(options)
            continue
        # The same file with something else in it.
        with pytest.raises(AnomalyDetectorError, match="were made with mask's checksum"):
            prepare(options)
