"""Recordings that a model was trained on are known again, and every measuring verb says so."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from conftest import make_drive, options_for, preprocessed, write_bag, write_images
from model_files import write_grey_difference_model
from numpy.typing import NDArray

from anomaly_detector.cli.main import main as robot
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.fingerprint import (
    TrainedRecording,
    find_trained,
    fingerprints,
    known_again,
)
from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import cache_frames
from training.cli.main import main as training
from training.train import train

DRIVE = make_drive(90)
WARNING = "warning: the model was trained on "


def names(
    frames: list[NDArray[np.uint8]], known: list[NDArray[np.uint8]], **more: list[NDArray[np.uint8]]
) -> list[str]:
    """Names of the training recordings that frames are known as."""
    recordings = {"known": known, **more}
    trained = fingerprints([(name, preprocessed(part)) for name, part in recordings.items()])
    return [item.trained_as for item in known_again("new", preprocessed(frames), trained)]


def test_copies_parts_and_extensions_are_known_again() -> None:
    other = make_drive(90, seed=1)
    assert names(DRIVE, DRIVE) == ["known"]
    assert names(DRIVE[30:60], DRIVE) == ["known"]
    assert names(DRIVE[::3], DRIVE) == ["known"]
    assert names([*other, *DRIVE], DRIVE, other=other) == ["known", "other"]
    assert names(DRIVE[:5], DRIVE[:5]) == ["known"]
    # One last bit of a few pixels is another decoder's, not another drive.
    bits = np.random.default_rng(0).random((90, 64, 64, 3)) < 0.002
    trained = fingerprints([("known", preprocessed(DRIVE))])
    assert len(list(known_again("new", preprocessed(DRIVE) ^ bits.astype(np.uint8), trained))) == 1


def test_another_drive_through_the_same_place_is_not_known() -> None:
    other = make_drive(90, seed=1)
    assert names(other, DRIVE) == []
    assert names([*other, *DRIVE[:2]], DRIVE) == []
    # That both cameras once saw nothing tells nothing.
    black = [np.zeros_like(DRIVE[0])] * 30
    assert names([*black, *other], [*black, *DRIVE]) == []


def test_many_recordings_stay_small_in_the_metadata() -> None:
    images = preprocessed(DRIVE)
    found = fingerprints([(f"run_{number}", images) for number in range(1000)])
    assert sum(len(item.hashes) for item in found) < 250_000
    assert next(known_again("new", images, found[-1:])).trained_as == "run_999"


def test_training_keeps_fingerprints_in_the_model(
    colour: str, normal_drive: Path, tmp_path: Path
) -> None:
    options = options_for(normal_drive, tmp_path / "model.onnx", scorer=colour)
    train(options)
    (kept,) = Detector(options.out).metadata.training_recordings
    assert (kept.name, kept.frames) == (normal_drive.name, 120)
    assert list(known_again("again", preprocessed(make_drive(120)), [kept]))
    assert not list(known_again("other", preprocessed(make_drive(120, seed=1)), [kept]))


def with_fingerprint(path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    """Write a model that says that it was trained on frames."""
    known = fingerprints([("normal_drive", preprocessed(frames))])
    metadata = read_metadata(write_grey_difference_model(path))
    text = dataclasses.replace(metadata, training_recordings=known).to_json()
    return write_grey_difference_model(path, metadata=text)


@pytest.mark.parametrize("region", [(0, 0, 0, 0), (33, 20, 500, 400)])
def test_large_jpeg_is_seen_as_in_training(
    region: tuple[int, int, int, int], tmp_path: Path
) -> None:
    """Decoded at reduced scale where training does, and cut to the model's region."""
    frames = [np.asarray(cv2.resize(frame, (640, 480)), np.uint8) for frame in DRIVE[:20]]
    bag = write_bag(tmp_path / "drive", frames, compressed=True)
    metadata = dataclasses.replace(
        read_metadata(write_grey_difference_model(tmp_path / "m.onnx")), region_of_interest=region
    )
    source = open_source(bag)
    source.view = metadata.view
    images = cache_frames(source, tmp_path / "cache", progress=False).images
    trained = dataclasses.replace(metadata, training_recordings=fingerprints([("a", images)]))
    assert find_trained([open_source(bag)], trained) == (TrainedRecording("drive", "a"),)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a copy of its drive with another name, another drive, and an older model."""
    folder = tmp_path_factory.mktemp("fingerprint")
    with_fingerprint(folder / "model.onnx", DRIVE)
    write_grey_difference_model(folder / "older.onnx")
    write_bag(folder / "normal_drive", DRIVE)
    shutil.move(folder / "normal_drive", folder / "copied")
    write_images(folder / "other", make_drive(90, seed=1))
    return folder


class Measured(NamedTuple):
    """What is measured on what, and whether the model was trained on it."""

    model: Path
    drive: Path
    known: bool


@pytest.fixture(params=["model copied", "model other", "older copied"])
def measured(request: pytest.FixtureRequest, files: Path) -> Measured:
    model, drive = request.param.split()
    return Measured(files / f"{model}.onnx", files / drive, request.param == "model copied")


def check_output(printed: str, known: bool) -> None:
    first = printed.splitlines()[0]
    assert first.startswith(f"{WARNING}copied (trained as normal_drive): ") == known
    assert printed.count(WARNING) == known


def check_report(out: Path, name: str, known: bool) -> None:
    told = json.loads((out / name).read_text())["trained_on"]
    expected = [{"recording": "copied", "trained_as": "normal_drive"}] if known else []
    assert told == expected
    page = (out / "report.html").read_text()
    assert page.count(WARNING) == known
    if known:
        # At the top: before the first section.
        assert page.index(WARNING) < page.index("<nav")


def test_stress(measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["stress", "--model", measured.model, "--normal", measured.drive, "--out", tmp_path]
    command += ["--faults", "flat_box_10", "--bootstrap", "0"]
    assert training([str(item) for item in command]) == 0
    check_output(capsys.readouterr().out, measured.known)
    check_report(tmp_path, "stress.json", measured.known)


def test_evaluate(
    measured: Measured, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", measured.model, "--normal", measured.drive]
    command += ["--anomalous", f"boxes={files / 'other'}", "--bootstrap", "0", "--out", tmp_path]
    assert training([str(item) for item in command]) == 0
    check_output(capsys.readouterr().out, measured.known)
    check_report(tmp_path, "evaluation.json", measured.known)


def test_calibrate(measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new.onnx"
    command = ["calibrate", "--model", measured.model, "--data", measured.drive, "--output", out]
    assert robot([str(item) for item in command]) == 0
    printed = capsys.readouterr().out
    check_output(printed, measured.known)
    assert ("a threshold from trained frames is too low" in printed) == measured.known
    metadata = read_metadata(out)
    entry = metadata.provenance["recalibrated"][-1]
    assert entry["trained_on"] == (["normal_drive"] if measured.known else [])
    # What the model was trained on stays known.
    before = read_metadata(measured.model).training_recordings
    assert metadata.training_recordings == before


@pytest.mark.parametrize(("test", "known"), [("copied", True), ("other", False)])
def test_compare(
    test: str,
    known: bool,
    files: Path,
    colour: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drive = tmp_path / "normal_drive"
    write_images(drive, DRIVE)
    command = ["compare", "--data", drive, "--test", files / test, "--faults", "reference"]
    command += ["--scorers", colour]
    command += ["--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    assert training([str(item) for item in command]) == 0
    check_output(capsys.readouterr().out, known)
    (row,) = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert row["trained_on"] == (["normal_drive"] if known else [])
    assert (tmp_path / "out" / "comparison.md").read_text().startswith(WARNING) == known
