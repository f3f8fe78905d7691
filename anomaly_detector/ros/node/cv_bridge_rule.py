"""Whether ROS' own ``cv_bridge`` converts images here: a rule on versions, and its import.

apt's ``cv_bridge`` is compiled against apt's numpy. One that was built for numpy 1 fails at import
under a numpy 2 that pip installed, or kills the process at the first conversion
(https://github.com/ros-perception/vision_opencv/issues/535): it must not even be imported there.
The other way round is safe, what was built for numpy 2 runs with numpy 1.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import distributions
from typing import Any

import numpy as np

from anomaly_detector.errors import as_one_line
from anomaly_detector.images.message import Converter

_APT_PACKAGES = "/usr/lib/python3/dist-packages"


def fits_numpy(numpy_version: str, apt_numpy_version: str | None) -> bool:
    """Return whether apt's ``cv_bridge`` may be imported beside this process' numpy.

    Where apt has no numpy, nobody knows what it was built for.
    """
    built_for = 1 if apt_numpy_version is None else _major(apt_numpy_version)
    return _major(numpy_version) < 2 or built_for >= 2


def _major(version: str) -> int:
    return int(version.split(".")[0])


def load_cv_bridge() -> tuple[Converter | None, str]:
    """Import ``cv_bridge`` where it fits.

    Returns:
        Its conversion for :func:`anomaly_detector.images.message.decode_image`, None where OpenCV
        is to convert; and why it is left aside though it is installed, empty otherwise.
    """
    if importlib.util.find_spec("cv_bridge") is None:
        return None, ""
    apt = next((d.version for d in distributions(name="numpy", path=[_APT_PACKAGES])), None)
    if not fits_numpy(np.__version__, apt):
        return None, (
            f"cv_bridge is built for numpy {apt or 1}, here is {np.__version__}: OpenCV converts "
            "instead; pip install 'numpy<2' to use cv_bridge"
        )
    try:
        bridge: Any = importlib.import_module("cv_bridge").CvBridge()
        # The compiled part, which cv_bridge itself imports with the first image.
        importlib.import_module("cv_bridge.boost.cv_bridge_boost")
    except Exception as error:  # whatever is wrong with it, the node has OpenCV
        return None, f"cv_bridge fails ({as_one_line(error)}): OpenCV converts instead"
    convert: Converter = bridge.imgmsg_to_cv2
    return convert, ""
