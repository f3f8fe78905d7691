"""A new model against the one that it replaces, where training is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_drive, write_images
from model_files import write_grey_difference_model

from training.cli.main import main
from training.evaluation.faults import FAULT_SETS


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
