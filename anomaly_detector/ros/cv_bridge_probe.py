"""Whether ROS' own ``cv_bridge`` can be used, found out where its crash does no harm.

The ``cv_bridge`` that apt installs is compiled against numpy 1. Under a numpy 2 that pip installed
it fails at import (``_ARRAY_API not found``) or, worse, kills the process at the first conversion
(https://github.com/ros-perception/vision_opencv/issues/535). So a child process imports it,
converts a small Bayer picture and compares the colours; only when that went well is it imported
here.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from anomaly_detector.encodings import shorten
from anomaly_detector.image import Converter

__all__ = ["CvBridgeStatus", "cv_bridge_converter", "probe_cv_bridge"]

_TIMEOUT_S = 30.0

_PASSED = "cv_bridge converts right"
_MISSING = "cv_bridge is missing"
_WRONG = "wrong colours"

# A red picture, as a camera with an rggb pattern sends it. The edges are left out: a demosaic has
# to invent what lies beyond them.
_PROBE = f"""
import contextlib
with contextlib.suppress(Exception):  # no core file of a crash that is expected
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import importlib.util
if importlib.util.find_spec("cv_bridge") is None:
    print({_MISSING!r})
    raise SystemExit
from cv_bridge import CvBridge
import numpy as np
from sensor_msgs.msg import Image
mosaic = np.zeros((8, 10), np.uint8)
mosaic[::2, ::2] = 200
message = Image(height=8, width=10, encoding="bayer_rggb8", step=10, data=mosaic.tobytes())
picture = np.asarray(CvBridge().imgmsg_to_cv2(message, "bgr8"))
right = picture.shape == (8, 10, 3) and picture.dtype == np.uint8
right = right and (np.abs(picture[2:-2, 2:-2].astype(int) - (0, 0, 200)) <= 2).all()
print({_PASSED!r} if right else {_WRONG!r}, flush=True)
"""


@dataclass(frozen=True)
class CvBridgeStatus:
    """What the probe found.

    Attributes:
        usable: whether ``cv_bridge`` is there and converts right.
        reason: one line for the log: that it is used, or why not and what to do.
        is_missing: whether it is just not installed, which is no fault.
    """

    usable: bool
    reason: str
    is_missing: bool = False


@functools.cache
def probe_cv_bridge() -> CvBridgeStatus:
    """Find out, once for this process, whether ``cv_bridge`` can be used.

    It takes as long as a Python that imports ``cv_bridge`` takes to start, about half a second on
    a robot: call it only when a camera sends an encoding that needs a conversion.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env=_environment(os.environ),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _unusable(f"did not convert a picture within {_TIMEOUT_S:g} s")
    except OSError as error:
        return _unusable(f"cannot be tried out in a process of its own ({shorten(error, 120)})")
    said = done.stdout.split("\n")
    if done.returncode == 0 and _PASSED in said:
        return CvBridgeStatus(True, "cv_bridge converts Bayer, YUV and 16-bit encodings")
    if done.returncode == 0 and _MISSING in said:
        return CvBridgeStatus(False, "cv_bridge is not installed; OpenCV converts", True)
    if _WRONG in said:
        return _unusable("gives wrong colours")
    last = shorten((done.stderr.strip().split("\n") or [""])[-1], 160)
    if "_ARRAY_API" in done.stderr:
        return _unusable("was compiled for numpy 1 (_ARRAY_API not found)")
    if done.returncode < 0:
        return _unusable(f"kills its process ({_signal_name(-done.returncode)})")
    return _unusable(f"fails ({last or f'exit code {done.returncode}'})")


def cv_bridge_converter() -> Converter | None:
    """Give ``cv_bridge``'s conversion for :func:`anomaly_detector.image.decode_image`.

    Returns:
        The converter, or None when :func:`probe_cv_bridge` found it unusable or it is missing.
    """
    if not probe_cv_bridge().usable:
        return None
    bridge: Any = importlib.import_module("cv_bridge").CvBridge()
    convert: Converter = bridge.imgmsg_to_cv2
    return convert


def _unusable(what: str) -> CvBridgeStatus:
    if int(np.__version__.split(".")[0]) >= 2:
        remedy = f"numpy is {np.__version__}: pip install 'numpy<2' to use it"
    else:
        remedy = "install it again with apt to use it"
    return CvBridgeStatus(False, f"cv_bridge {what}, OpenCV converts instead; {remedy}")


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the child the module path of this process, which may not all come from PYTHONPATH."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**environment, "PYTHONPATH": path}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
