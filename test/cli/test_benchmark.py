"""``python -m anomaly_detector benchmark``: true rows, no ROS unless asked for, errors in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from programs import run_python

from anomaly_detector.benchmarking.camera import BENCHMARK_ENCODINGS, camera_frame
from anomaly_detector.cli import main as cli
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.message import as_image

ROWS = {"convert", "resize", "infer", "decide", "node work"}
ROWS |= {"floor: read the bytes", "floor: bare network"}


def benchmark(model: Path, *options: str) -> int:
    quick = ["--frames", "30", "--seconds", "0.3"]
    return cli.main(["benchmark", "--model", str(model), *quick, *options])


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_each_step_has_its_row(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], transport: str
) -> None:
    file = tmp_path / "cost.json"
    assert benchmark(model, "--transport", transport, "--json", str(file)) == 0
    report = json.loads(file.read_text())
    cost, frame = report["in_process"], report["frame"]
    assert (frame["width"], frame["height"], frame["transport"]) == (640, 480, transport)
    rows = cost["rows"]
    assert set(rows) == ROWS
    for name, row in rows.items():
        assert 0 < row["p50"] <= row["p95"] <= row["p99"], name
    assert rows["node work"]["p50"] > rows["convert"]["p50"]
    # This network is so small that resizing alone takes several times as long.
    assert cost["ratio"] > 1
    assert cost["cpu_percent"] > 0
    assert cost["resident_mb"] > 10
    printed = capsys.readouterr().out
    for name in ROWS:
        assert name in printed


def test_without_ros_nothing_of_ros_and_training_is_imported(model: Path) -> None:
    code = (
        "import sys; from anomaly_detector.cli.main import main; "
        f"assert main(['benchmark', '--model', {str(model)!r}, '--frames', '5', "
        "'--seconds', '0.1']) == 0; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    imported = set(result.stdout.splitlines()[-1].split())
    assert "onnxruntime" in imported
    assert not imported & {"rclpy", "sensor_msgs", "tensorflow", "keras", "matplotlib", "training"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "640"], "640x480"),
        (["--size", "0x480"], "640x480"),
        (["--frames", "0"], "--frames"),
        (["--hz", "-1"], "--hz"),
        (["--hz", "nan"], "--hz"),
        (["--sustained"], "--ros"),
        (["--encoding", "nv12", "--size", "641x480"], "even"),
    ],
)
def test_wrong_option_is_told_in_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    file = tmp_path / "cost.json"
    assert benchmark(model, "--json", str(file), *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not file.exists()


def test_without_ros_installed_the_node_is_an_error_in_one_line(model: Path) -> None:
    code = (
        "import sys; sys.modules['rclpy'] = None; from anomaly_detector.cli.main import main; "
        f"sys.exit(main(['benchmark', '--model', {str(model)!r}, '--frames', '5', "
        "'--seconds', '0.1', '--ros']))"
    )
    result = run_python(code)
    assert result.returncode == 1
    assert result.stderr.startswith("error: a live benchmark needs ROS 2")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", BENCHMARK_ENCODINGS)
def test_frame_of_every_encoding_can_be_read(encoding: str) -> None:
    frame = camera_frame(0, 64, 48, encoding=encoding)
    assert as_image(frame).array.shape[:2] == (48, 64)


def test_compressed_frame_shows_the_picture_of_its_seed() -> None:
    first, again, other = (camera_frame(seed, 320, 240, "compressed") for seed in (1, 1, 2))
    assert first.data == again.data != other.data
    assert as_image(first).array.shape == (240, 320, 3)
    assert not np.array_equal(as_image(first).array, as_image(other).array)


def test_depth_has_no_benchmark() -> None:
    with pytest.raises(AnomalyDetectorError, match="32FC1"):
        camera_frame(0, 64, 48, encoding="32FC1")


def test_with_ros_a_node_is_measured_by_its_camera(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    options = ["--ros", "--size", "64x48", "--seconds", "3"]
    assert benchmark(model, *options, "--json", str(file)) == 0
    node = json.loads(file.read_text())["node"]
    assert 0 < node["cost"]["publish"]["p50"] < node["cost"]["whole"]["p99"]
    assert min(node["start_up"].values()) > 0
    live = node["live"]
    assert live["sent"] == live["answered"] + live["lost"] == 90
    assert live["answered"] > 0
    assert 0 < live["latency_p50_ms"] <= live["latency_p99_ms"]
    assert live["resident_mb"] > 10
