"""Recalibration of a model file through the command line, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import make_drive, write_bag, write_images
from model_files import grey_difference_score, write_grey_difference_model
from numpy.typing import NDArray
from programs import run_python

from anomaly_detector.alarms.calibration import calibrate_threshold
from anomaly_detector.alarms.recalibration import recalibrate
from anomaly_detector.cli.main import main
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from training.data.frames import split_blocks

FRAMES = make_drive(60)


def flat_frames(values: list[float]) -> list[NDArray[np.uint8]]:
    """Return frames whose scores are ``(value - 128) ** 2``."""
    return [np.full((64, 64, 3), value, np.uint8) for value in values]


def run_calibrate(model: Path, output: Path, *options: str | Path) -> int:
    """Run the command; ``options`` begin with the recordings."""
    common = ["calibrate", "--model", str(model), "--out", str(output), "--data"]
    return main([*common, *map(str, options)])


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("calibrate") / "drive", FRAMES)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_grey_difference_model(tmp_path / "old.onnx", threshold=7.0)


def test_new_file_has_the_conformal_threshold_of_the_drive(
    tmp_path: Path, model: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    output = tmp_path / "new.onnx"
    assert run_calibrate(model, output, drive, "--false-alarm-rate", "0.1") == 0
    assert model.read_bytes() == before
    scores = np.array(
        [grey_difference_score(preprocess(Image(frame, "rgb"))) for frame in FRAMES], np.float32
    )
    expected, calibration = calibrate_threshold(scores, 0.1)
    metadata = read_metadata(output)
    assert metadata.name == "new"
    assert metadata.threshold == pytest.approx(expected, rel=1e-5)
    assert metadata.calibration.frames == 60
    assert metadata.calibration.effective_frames == calibration.effective_frames
    assert metadata.calibration.false_alarm_interval == pytest.approx(
        calibration.false_alarm_interval
    )
    assert metadata.calibration.quantiles["0.5"] == pytest.approx(np.median(scores), rel=1e-5)
    (entry,) = metadata.provenance["recalibrated"]
    assert entry["data"] == ["drive"]
    assert entry["frames"] == {"recorded": 60, "unreadable": 0, "calibration": 60}
    assert (entry["previous_name"], entry["previous_threshold"]) == ("grey_difference", 7.0)
    captured = capsys.readouterr()
    assert "for a false-alarm rate of 0.1 (95 % interval" in captured.out
    assert "was 7" in captured.out
    assert str(tmp_path) not in metadata.to_json()


def test_scores_stay_and_normalised_scores_move(tmp_path: Path, model: Path, drive: Path) -> None:
    recalibrate(model, [str(drive)], tmp_path / "new.onnx", progress=False)
    old, new = Detector(model), Detector(tmp_path / "new.onnx")
    images = np.stack([preprocess(Image(frame, "rgb")) for frame in FRAMES])
    result = new.score_batch(images)
    np.testing.assert_array_equal(result.score, old.score_batch(images).score)
    # No frame of the drive is flagged at 1 %, and its median frame is at a quarter.
    assert result.normalized_score.max() < 0.5
    assert np.median(result.normalized_score) == pytest.approx(0.25, abs=0.01)
    assert old.score_batch(images).normalized_score.min() > 0.5


def test_false_alarm_rate_holds_on_new_blocks_of_the_same_drive(tmp_path: Path) -> None:
    """Calibrated on some blocks of a drive, the wanted share is flagged in the others."""
    generator = np.random.default_rng(0)
    values = np.clip(128 + generator.gamma(4, 6, 600), 0, 255).round().tolist()
    split = split_blocks([600], [0], held_out=0.5)
    folder = write_images(
        tmp_path / "held_out", flat_frames([values[i] for i in split.calibration])
    )
    model = write_grey_difference_model(tmp_path / "m.onnx", threshold=7.0)
    output = tmp_path / "new.onnx"
    metadata = recalibrate(model, [str(folder)], output, false_alarm_rate=0.1, progress=False)
    assert metadata.calibration.false_alarm_interval is not None
    low, high = metadata.calibration.false_alarm_interval
    others = np.stack(flat_frames([values[i] for i in split.train]))
    flagged = np.mean(Detector(output).score_batch(others).normalized_score >= 0.5)
    # Grey levels are whole numbers: ties make the rate smaller, never larger.
    assert low / 2 <= flagged <= high


def test_recordings_are_joined_and_history_is_kept(tmp_path: Path, drive: Path) -> None:
    model = write_grey_difference_model(tmp_path / "old.onnx", threshold=7.0)
    bag = write_bag(tmp_path / "bag", FRAMES[:20])
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    assert run_calibrate(model, first, drive, bag) == 0
    assert run_calibrate(first, second, drive) == 0
    metadata = read_metadata(second)
    history = metadata.provenance["recalibrated"]
    assert [entry["data"] for entry in history] == [["drive", "bag"], ["drive"]]
    assert history[0]["frames"]["recorded"] == 80
    assert history[1]["previous_threshold"] == read_metadata(first).threshold


def test_excluded_frames_do_not_count(tmp_path: Path, model: Path) -> None:
    values: list[float] = [130] * 30
    values[10:13] = [250, 251, 252]
    folder = write_images(tmp_path / "flat", flat_frames(values))
    output = tmp_path / "new.onnx"
    assert run_calibrate(model, output, folder, "--exclude", "10-11", "12") == 0
    metadata = read_metadata(output)
    assert 4.0 < metadata.threshold < 4.001
    assert metadata.calibration.frames == 27
    assert metadata.provenance["recalibrated"][0]["exclude"] == [[10, 11], [12, 12]]


def test_the_model_itself_is_replaced_by_force_only(
    tmp_path: Path, model: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "." / "old.onnx"
    assert run_calibrate(model, output, drive) == 1
    assert "is the model itself" in capsys.readouterr().err
    assert read_metadata(model).threshold == 7.0
    assert run_calibrate(model, output, drive, "--force") == 0
    assert read_metadata(model).threshold > 7.0


def test_too_few_frames_are_warned_of(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "flat", flat_frames([130, 131, 132]))
    (folder / "frame_9.png").write_bytes(b"broken")
    assert run_calibrate(model, tmp_path / "new.onnx", folder) == 0
    errors = capsys.readouterr().err
    assert "independent frames are too few for a false-alarm rate of 0.01, which takes 99" in errors
    assert "frame_9.png skipped: " in errors


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"--output": "new.pb"}, "does not end with .onnx"),
        ({"--data": "missing"}, "does not exist"),
        ({"--model": "missing.onnx"}, "is not a file"),
        ({"--false-alarm-rate": "2"}, "false alarm rate is 2"),
        ({"--exclude": "50-60"}, "--exclude 50-60: {drive} has the frames 0 to 59"),
        ({"--exclude": "0-59"}, "leaves no frame"),
        ({"--topic": "/camera"}, "is not a bag"),
    ],
)
def test_errors_are_one_line_and_leave_no_output(
    tmp_path: Path,
    model: Path,
    drive: Path,
    changes: dict[str, str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"--model": str(model), "--data": str(drive), "--output": str(tmp_path / "new.onnx")}
    for name, value in changes.items():
        options[name] = str(tmp_path / value) if name in options else value
    assert main(["calibrate", *[word for pair in options.items() for word in pair]]) == 1
    (message,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert reason.format(drive=drive) in message
    assert [file.name for file in tmp_path.iterdir()] == ["old.onnx"]


@pytest.mark.parametrize("text", ["", "9-5", "a-b", "-1-5", "5-", "1-2-3"])
def test_wrong_stretch_is_a_wrong_command_line(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["calibrate", "--model", "m", "--data", "d", "--output", "o", f"--exclude={text}"])
    assert end.value.code == 2
    assert "give first and last" in capsys.readouterr().err


def test_model_without_the_constants_is_refused(
    tmp_path: Path, model: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = onnx.load(model)
    for item in proto.graph.initializer:
        if item.name == "calibration_scale":
            item.name = "renamed"
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name == "calibration_scale":
                node.input[index] = "renamed"
    onnx.save(proto, model)
    assert run_calibrate(model, tmp_path / "n.onnx", drive) == 1
    assert "has 0 constants 'calibration_scale' instead of one" in capsys.readouterr().err


def test_neither_tensorflow_nor_ros_is_imported(tmp_path: Path, model: Path, drive: Path) -> None:
    program = (
        "import sys\n"
        "from anomaly_detector.cli.main import main\n"
        f"code = main(['calibrate', '--model', {str(model)!r}, '--data', {str(drive)!r},"
        f" '--output', {str(tmp_path / 'new.onnx')!r}])\n"
        "wrong = {'tensorflow', 'keras', 'rclpy', 'training'} & set(sys.modules)\n"
        "sys.exit(f'imported {wrong}' if wrong else code)\n"
    )
    result = run_python(program)
    assert result.returncode == 0, result.stderr


def test_scoring_needs_no_onnx_package_and_calibration_names_it(
    tmp_path: Path, model: Path, drive: Path
) -> None:
    program = (
        "import sys\n"
        "sys.modules['onnx'] = None\n"
        "from anomaly_detector.cli.main import main\n"
        f"common = ['--model', {str(model)!r}, '--output']\n"
        f"assert main(['score', '--input', {str(drive)!r}, *common, "
        f"{str(tmp_path / 'scores.csv')!r}]) == 0\n"
        f"sys.exit(main(['calibrate', '--data', {str(drive)!r}, *common, "
        f"{str(tmp_path / 'new.onnx')!r}]))\n"
    )
    result = run_python(program)
    assert result.returncode == 1, result.stderr
    assert "pip install onnx" in result.stderr
    assert (tmp_path / "scores.csv").exists()
    assert not (tmp_path / "new.onnx").exists()
