"""The tutorial's own commands, from start to end, on short synthetic drives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import read_rows, skip_without_keras
from ros_harness import ROOT

from anomaly_detector.black_box.events import find_events, read_event
from anomaly_detector.model.file import read_metadata

PAGE = (ROOT / "docs" / "tutorial.md").read_text()

SUBSTITUTIONS = {
    # Short drives of small pictures.
    "--frames 1200": "--frames 150 --width 160 --height 120 --workers 1",
    "--frames 600": "--frames 60 --width 160 --height 120 --workers 1",
    # A training that learns next to nothing, in a second.
    "training train ": "training train --exposure-epochs 1 --exposure-steps 2 ",
    "detector adapt ": "detector adapt --steps 2 ",
    # Few faults, and no resampling.
    "--out stress": "--out stress --faults blur_2 object_10 --bootstrap 0",
    # So that such a model raises an alarm for certain.
    "-p image_transport:=compressed": "-p image_transport:=compressed -p threshold:=-1000.0",
}


@pytest.mark.timeout(900)
def test_commands_run_from_start_to_end(tmp_path: Path) -> None:
    skip_without_keras()
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    script = "set -eux\n" + "".join(blocks)
    for old, new in SUBSTITUTIONS.items():
        assert old in script, f"the page no longer has {old!r}"
        script = script.replace(old, new)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=840,
    )
    assert result.returncode == 0, result.stdout

    assert "60 of 60 answered" in result.stdout
    for page in ("stress/report.html", "replayed/report.html", "comparison/report.html"):
        assert (tmp_path / page).stat().st_size > 10_000
    models = [read_metadata(tmp_path / f"corridor_7{letter}.onnx") for letter in ("", "b")]
    assert models[0].calibration.frames == 60
    events = [read_event(path) for path in find_events(tmp_path / "black_box")]
    assert sum(len(event.anomalous_frames) for event in events) > 0
    # The second model learned from them.
    assert "black_box" in str(models[1].provenance)
    assert "black_box" not in str(models[0].provenance)
    assert len(read_rows(tmp_path / "patrol.csv")) == 60
