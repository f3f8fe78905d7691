"""The rule by which cv_bridge is used. No cv_bridge of ROS 2 is on PyPI: it is not run here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_detector.ros.node.cv_bridge_rule import fits_numpy, load_cv_bridge


@pytest.mark.parametrize(
    ("numpy", "apt", "fits"),
    [
        ("1.21.5", "1.21.5", True),  # Humble as apt installs it
        ("1.26.4", "1.21.5", True),  # Humble, a numpy 1 of pip
        ("2.2.6", "1.21.5", False),  # Humble, a numpy 2 of pip
        ("2.4.6", "1.26.4", False),  # Jazzy and Kilted, a numpy 2 of pip
        ("2.3.5", "2.3.5", True),  # an Ubuntu whose numpy is 2
        ("1.26.4", "2.3.5", True),  # what is built for 2 runs with 1
        ("10.0.0rc1", "1.26.4", False),
        ("2.4.6", None, False),  # no apt: nobody knows what it was built for
        ("1.26.4", None, True),
    ],
)
def test_rule_on_versions(numpy: str, apt: str | None, fits: bool) -> None:
    assert fits_numpy(numpy, apt) is fits


@pytest.mark.skipif(
    importlib.util.find_spec("cv_bridge") is not None, reason="this host has a cv_bridge"
)
def test_without_cv_bridge_opencv_converts_and_nothing_is_said() -> None:
    assert load_cv_bridge() == (None, "")


def test_a_package_that_cannot_be_used_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder of that name is found, but cannot be imported as cv_bridge."""
    (tmp_path / "cv_bridge").mkdir()
    (tmp_path / "cv_bridge" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        convert, reason = load_cv_bridge()
    finally:
        sys.modules.pop("cv_bridge", None)
    assert convert is None
    assert reason.startswith("cv_bridge ")
    assert "OpenCV converts instead" in reason
    assert reason.isprintable()


def test_rule_needs_neither_ros_nor_cv_bridge() -> None:
    check = (
        "import sys, anomaly_detector.ros.node.cv_bridge_rule; "
        "print([name for name in ('rclpy', 'sensor_msgs', 'cv_bridge') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
