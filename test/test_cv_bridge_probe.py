"""The probe of cv_bridge, against third-party modules of that name that work, fail and crash.

No cv_bridge can be installed from PyPI, so each test puts a small module of that name on the path.
It stands for a foreign program; the probe, its child process and the converter are the real ones.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs the ROS messages")

from anomaly_detector.image import decode_image
from anomaly_detector.ros.cv_bridge_probe import cv_bridge_converter, probe_cv_bridge

CLASS = "class CvBridge:\n    def imgmsg_to_cv2(self, message, encoding):\n"

WORKS = f"""
import cv2
import numpy as np
{CLASS}        mosaic = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
        return cv2.cvtColor(mosaic, cv2.COLOR_BayerBG2BGR)
"""

BROKEN = {
    "abort": (CLASS + "        import os; os.abort()\n", "kills its process (SIGABRT)"),
    "segfault": (
        CLASS + "        import ctypes; ctypes.string_at(0)\n",
        "kills its process (SIGSEGV)",
    ),
    "import error": (
        "raise ImportError('numpy.core.multiarray\\nfailed to import')",
        "fails (failed to import)",
    ),
    "array api": (
        "raise AttributeError('_ARRAY_API not found')",
        "was compiled for numpy 1 (_ARRAY_API not found)",
    ),
    "wrong colours": (WORKS.replace("BayerBG2BGR", "BayerRG2BGR"), "gives wrong colours"),
    "wrong shape": (CLASS + "        return [[0]]\n", "gives wrong colours"),
    "no class": ("", "fails (ImportError: cannot import name 'CvBridge'"),
    "exit": ("import sys; sys.exit(3)", "fails (exit code 3)"),
}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    probe_cv_bridge.cache_clear()
    yield
    probe_cv_bridge.cache_clear()
    sys.modules.pop("cv_bridge", None)


def install(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cv_bridge").mkdir()
    (folder / "cv_bridge" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.skipif(
    importlib.util.find_spec("cv_bridge") is not None, reason="this host has a cv_bridge"
)
def test_missing_is_said_without_alarm() -> None:
    status = probe_cv_bridge()
    assert not status.usable
    assert status.is_missing
    assert status.reason == "cv_bridge is not installed; OpenCV converts"
    assert cv_bridge_converter() is None


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_is_found_out_and_never_imported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, reason = BROKEN[name]
    install(tmp_path, source, monkeypatch)
    status = probe_cv_bridge()
    assert not status.usable
    assert not status.is_missing
    assert reason in status.reason
    remedy = "pip install 'numpy<2'" if np.__version__ >= "2" else "with apt"
    assert remedy in status.reason
    assert status.reason.isprintable()
    assert cv_bridge_converter() is None
    assert "cv_bridge" not in sys.modules


def test_a_working_one_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, WORKS, monkeypatch)
    assert probe_cv_bridge().usable
    mosaic = np.zeros((6, 8), np.uint8)
    mosaic[1::2, 1::2] = 200  # blue
    message = SimpleNamespace(
        height=6, width=8, encoding="bayer_rggb8", is_bigendian=0, step=8, data=mosaic.tobytes()
    )
    decoded = decode_image(message, convert=cv_bridge_converter())
    np.testing.assert_array_equal(decoded.array[2:-2, 2:-2], np.full((2, 4, 3), (200, 0, 0)))


def test_it_is_probed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"open({str(tmp_path / 'log')!r}, 'a').write('x')\n{WORKS}"
    install(tmp_path, source, monkeypatch)
    assert probe_cv_bridge() is probe_cv_bridge()
    assert (tmp_path / "log").read_text() == "x"


def test_importing_the_probe_imports_neither_ros_nor_cv_bridge() -> None:
    check = (
        "import sys, anomaly_detector.ros.cv_bridge_probe; "
        "print([name for name in ('rclpy', 'sensor_msgs', 'cv_bridge') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
