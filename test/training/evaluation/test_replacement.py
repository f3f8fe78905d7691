"""A new model against the one that it replaces, where training is installed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from black_box_frames import Drive, events_in, open_box
from conftest import make_drive, preprocessed, write_images
from model_files import write_grey_difference_model
from numpy.typing import NDArray

from anomaly_detector.black_box import Verdict, write_verdict
from anomaly_detector.images.image import Image, RegionOfInterest
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.fingerprint import fingerprints
from training.cli.main import main
from training.config.options import TrainOptions
from training.data.past import Past
from training.evaluation.faults import FAULT_SETS
from training.evaluation.replacement import compare_to_old, held_out_drives, held_out_past
from training.train import prepare


def test_injected_faults_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drives = [write_images(tmp_path / name, make_drive(8, seed=n)) for n, name in enumerate("ab")]
    for name, threshold in (("old", 3300.0), ("new", 2650.0)):
        write_grey_difference_model(tmp_path / f"{name}.onnx", threshold=threshold)
    models = ["--old", str(tmp_path / "old.onnx"), "--new", str(tmp_path / "new.onnx")]
    command = ["compare-models", *models, "--normal", *map(str, drives), "--out"]
    out = tmp_path / "out"
    code = main([*command, str(out), "--stress", "reference"])
    printed = capsys.readouterr().out
    content = json.loads((out / "comparison.json").read_text())
    stress = content["stress"]
    assert [item["fault"] for item in stress["faults"]] == [f.name for f in FAULT_SETS["reference"]]
    assert all(item["old"] <= item["new"] for item in stress["faults"])
    for side in ("old", "new"):
        low, high = stress[side]["interval_95"]
        assert 0 < low < stress[side]["value"] < high < 1
        assert f"{stress[side]['value']:.3f} [{low:.3f}, {high:.3f}]" in printed
    assert stress["old"]["value"] < stress["new"]["value"]
    # The exit code is that of the rest.
    assert code == (0 if content["passed"] else 1)
    page = (out / "report.html").read_text()
    assert "<h2>Injected faults</h2>" in page
    # As the robot side says it, without the faults.
    assert main([*command, str(tmp_path / "plain")]) == code
    plain = json.loads((tmp_path / "plain" / "comparison.json").read_text())
    assert plain == {name: value for name, value in content.items() if name != "stress"}
    assert main(["compare-models", *models, "--events", "x", "--out", "no", "--stress"]) == 1
    assert "error: --stress puts faults on normal frames" in capsys.readouterr().err
    assert not Path("no").exists()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive, an old model of another view, and events: a door, red, and a chequerboard.

    The board has the drive's mean colour, so that a model of mean colours cannot see it.
    """
    folder = tmp_path_factory.mktemp("replaced")
    frames = make_drive(80)
    write_images(folder / "drive", frames)
    red = np.full((90, 120, 3), (255, 0, 0), np.uint8)
    board = np.zeros((90, 120, 3), np.uint8)
    board[np.indices((90, 120)).sum(axis=0) // 6 % 2 == 0] = 2 * np.mean(frames, axis=(0, 1, 2))
    for number, picture in enumerate((frames[40], red, board)):
        with open_box(folder / "box", max_rate_hz=20.0) as box:
            drive = Drive(box, start_ns=(number + 1) * 10**15)
            drive.anomaly(0.6, make=lambda _, picture=picture: Image(picture, "rgb"))
    verdicts = ("normal", "anomaly", "anomaly")
    for event, verdict in zip(events_in(folder / "box"), verdicts, strict=True):
        write_verdict(event, Verdict(verdict))
    old = write_grey_difference_model(folder / "old.onnx")
    half = read_metadata(old).with_view(View(RegionOfInterest(0, 0, 60, 0), size=32))
    write_grey_difference_model(old, metadata=half.to_json(), input_size=32)
    # Half of the drive is flagged.
    threshold = float(np.median(scores_of(old, folder / "drive")))
    half = replace(half, threshold=threshold)
    write_grey_difference_model(old, metadata=half.to_json(), input_size=32)
    return folder


def scores_of(model: Path, drive: Path) -> NDArray[np.float64]:
    return np.array([detection.score for _, detection in Detector(model).stream(drive)])


def train_options(place: Path, **given: Any) -> list[str]:
    options = {"data": place / "drive", "events": place / "box", "cache": place / "cache"}
    options |= {"replaces": place / "old.onnx", "out": place / "new.onnx", **given}
    options = {name: value for name, value in options.items() if value is not None}
    return ["train", *(text for k, v in options.items() for text in (f"--{k}", str(v)))]


def test_training_compares_with_the_model_that_it_replaces(
    place: Path, colour: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train_options(place, scorer=colour)) == 1
    printed = capsys.readouterr()
    last = printed.out.splitlines()[-2]
    assert last.startswith("failed: new.onnx may not replace old.onnx, it loses 1 true event")
    assert "new.onnx was trained on events of box" in printed.err
    found = json.loads((place / "new.comparison.json").read_text())
    # The model is kept.
    assert read_metadata(place / "new.onnx").scorer == colour
    events = [(item["kind"], item["by"]) for item in found["findings"] if item["kind"] != "drive"]
    assert events[1:] == [("anomaly", "both"), ("anomaly", "old")]
    assert found["drives"] == ["held-out frames of drive"]
    assert any("gave the new model its threshold" in note for note in found["notes"])
    assert "True events lost: 1" in (place / "new.comparison.html").read_text()
    # Each model scores the frames that this split holds out, through its own view.
    options = TrainOptions(
        [str(place / "drive")], place / "again.onnx", scorer=colour, events=[str(place / "box")],
        cache=place / "cache", progress=False,
    )  # fmt: skip
    run = prepare(options)
    held_out = run.split.calibration[run.split.calibration < 80]
    for side in ("old", "new"):
        metadata, rate = read_metadata(place / f"{side}.onnx"), found[side]["rate"]
        scores = scores_of(place / f"{side}.onnx", place / "drive")[held_out]
        flagged = int(np.sum(scores >= metadata.threshold))
        assert (rate["frames"], rate["flagged"]) == (16, flagged)
    assert 0 < found["old"]["rate"]["flagged"] < 16
    # A model that knows the drive.
    drives, notes = held_out_drives(run, read_metadata(place / "new.onnx"))
    assert drives == []
    assert notes == ["Of drive no frame is compared: the old model was trained on it."]


def test_without_normal_frames_the_events_decide(place: Path, tmp_path: Path) -> None:
    new = Path(shutil.copy(place / "old.onnx", tmp_path / "new.onnx"))
    comparison, page = compare_to_old(place / "old.onnx", new, [str(place / "box")], [], ["a"])
    assert page == tmp_path / "new.comparison.html"
    assert page.is_file()
    assert (comparison.failures, comparison.new.rate) == ([], None)
    assert comparison.notes[0] == "a"
    assert "so no false-alarm rate is compared" in comparison.notes[1]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"events": None}, "compares on judged events: give --events FOLDER"),
        ({"replaces": "gone.onnx"}, "gone.onnx"),
        ({"replaces": "x"}, "model 'x' is neither a file"),
        ({"out": "old.onnx"}, "is the model that it replaces: name another file"),
    ],
)
def test_a_model_that_cannot_be_replaced_is_refused_before_training(
    place: Path, given: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in place.iterdir())
    old = (place / "old.onnx").read_bytes()
    changed = {k: place / v if k == "out" else v for k, v in given.items()}
    assert main(train_options(place, **{"out": place / "refused.onnx", **changed})) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert reason in error
    assert sorted(path.name for path in place.iterdir()) == before
    assert (place / "old.onnx").read_bytes() == old


def test_what_was_held_out_before_is_compared_after_adapting(tmp_path: Path) -> None:
    images = preprocessed(make_drive(20))
    is_held_out = np.arange(20) % 4 == 3
    drives, seen = np.zeros(20, np.int64), fingerprints([("monday", images)])
    model = tmp_path / "monday.onnx"
    model.with_suffix(".training").mkdir()
    past = Past(images, drives, is_held_out, seen, images[:0])
    past.write(model.with_suffix(".training") / "past.npz")
    (case,) = held_out_past(model)
    assert (case.name, case.is_held_out) == ("held-out frames of monday", True)
    np.testing.assert_array_equal([frame.pixels.array for frame in case.old], images[is_held_out])
    nothing = replace(past, held_out=np.zeros(20, bool))
    nothing.write(model.with_suffix(".training") / "past.npz")
    assert held_out_past(model) == []
