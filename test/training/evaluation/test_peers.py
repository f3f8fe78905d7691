"""The comparison with other packages' models takes the right frames and counts them right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_images
from model_files import write_grey_difference_model

from benchmarks import peers
from benchmarks.common import resumable
from benchmarks.drives import FAULTS


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["peers", *map(str, options)])
    return resumable(peers.main)


def test_a_peer_without_its_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, "--out", out, "--models", "oe", "padim-64") == 1
    assert capsys.readouterr().err.startswith("error: padim-64: anomalib has an environment")
    assert run(monkeypatch, "--out", out, "--timing") == 1
    assert run(monkeypatch, "--out", out, "--table") == 1
    assert "has no rows yet" in capsys.readouterr().err
    assert not out.exists()


def test_a_model_that_is_there_is_measured_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Scores are squared differences from 128: 0 or, of each fourth frame that is tested, 2,500.
    for name, levels in (("run1", [128] * 40), ("run3", [128, 128, 128, 178] * 4)):
        frames = [np.full((60, 80, 3), level, np.uint8) for level in levels]
        write_images(tmp_path / "usi_track" / name, frames)
    out = tmp_path / "out"
    model = out / "rows/usi_track/run1/outlier-exposure_seed0/model.onnx"
    model.parent.mkdir(parents=True)
    write_grey_difference_model(model, threshold=1000)
    options = ("--shared", tmp_path, "--out", out, "--models", "oe", "--pairs", "mat")
    assert run(monkeypatch, *options, "--normal-frames", 12, "--test-frames", 2) == 0
    folder = out / "peers/usi_track/frames_64_12_2"
    shapes = {file.stem: np.load(file).shape for file in folder.iterdir()}
    assert shapes["normal"] == (12, 64, 64, 3)
    assert shapes["faults"] == (len(FAULTS), 2, 64, 64, 3)
    assert shapes["held_out"][0] == 8
    assert 0 < shapes["train"][0] <= 32
    row = json.loads((out / "peers/mat/oe.json").read_text())
    assert row["flagged"] == np.mean(np.load(folder / "normal.npy")[:, 0, 0, 0] == 178)
    assert 0 < row["flagged"] < 1
    assert row["faults"]["black"] == {"family": "stress", "roc_auc": 1.0}
    assert "train_cpu_s" not in row
    capsys.readouterr()
    assert run(monkeypatch, "--out", out, "--table") == 0
    shown = capsys.readouterr().out
    assert "| **`outlier-exposure`** | 64 | " in shown
    assert "usi_track: run1 to run3" in shown


def test_scores_at_the_threshold() -> None:
    normal = np.array([0.5, 0.9, 1.5, 3.0], np.float32)
    faults = np.full((len(FAULTS), 2), 2.0, np.float32)
    faults[0] = 0.0
    row = peers.detection(0.8, normal, faults)
    assert row["flagged"] == 0.75
    assert row["recall"] == pytest.approx(1 - 1 / len(FAULTS))
    areas = [fault["roc_auc"] for fault in row["faults"].values()]
    assert areas == [0.0] + [0.75] * (len(FAULTS) - 1)


def test_rows_of_the_tables() -> None:
    faults = {
        "a": {"family": "stress", "roc_auc": 1.0},
        "b": {"family": "stress", "roc_auc": 0.5},
        "c": {"family": "unseen", "roc_auc": 0.75},
    }
    row: dict[str, Any] = {"name": "stfpm-64", "flagged": 1.0, "recall": 0.5, "faults": faults}
    row |= {"train_cpu_s": 8.2, "epochs": 7, "most_epochs": 100}
    (cells,) = peers.detection_table([row])
    assert cells[:6] == ["STFPM", "64", "0.750", "0.500 (b)", "0.750", "0.750 (c)"]
    assert cells[6:] == ["100.0%", "0.500"]
    times = {"stfpm-64": {"ms": 3.0, "cpu_ms": 2.0, "mib": 100.0}}
    assert [*peers.cost_table([row, {"name": "padim-64"}], times)] == [
        ["STFPM", "64", "7 of 100", "8", "2.0", "100"],
        ["PaDiM", "64", "", "", "", ""],
    ]


def test_the_worker_times_a_model(tmp_path: Path) -> None:
    model = write_grey_difference_model(tmp_path / "grey.onnx", threshold=1000)
    command = [sys.executable, str(peers.WORKER), "--time", str(model)]
    subprocess.run([*command, "--count", "3", "--out", str(tmp_path / "time.json")], check=True)
    figures = json.loads((tmp_path / "time.json").read_text())
    assert set(figures) == {"ms", "cpu_ms", "mib"}
    assert all(value > 0 for value in figures.values())
