"""Visual anomaly detection for robots: the robot side.

Example:
    >>> import anomaly_detector as ad
    >>> detector = ad.Detector("corridor")
    >>> alarms = ad.AlarmFilter()
    >>> for frame, result in detector.stream("drive_bag"):
    ...     if alarms.update(result, stamp_ns=frame.time_ns).started:
    ...         picture = ad.draw_overlay(frame, result, is_alarm=True)

The names of :data:`__all__` are imported when they are first used: ``import anomaly_detector``
loads no OpenCV and no ONNX Runtime. ``docs/python.md`` shows what they do.

Nothing outside :mod:`anomaly_detector.ros` imports rclpy or ROS messages, and nothing here imports
TensorFlow: the same code scores frames on the robot, in the command line and during training.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomaly_detector.alarms.alarm_filter import AlarmFilter, AlarmSettings
    from anomaly_detector.drawing.overlay import draw_overlay
    from anomaly_detector.errors import AnomalyDetectorError, ImageError, ModelError, SourceError
    from anomaly_detector.images.image import Image
    from anomaly_detector.model.detector import Detection, Detector
    from anomaly_detector.model.file import read_metadata
    from anomaly_detector.model.regions import AnomalyRegion, anomaly_regions
else:  # a type checker would take every name for one that is there

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value


__all__ = [
    "AlarmFilter",
    "AlarmSettings",
    "AnomalyDetectorError",
    "AnomalyRegion",
    "Detection",
    "Detector",
    "Image",
    "ImageError",
    "ModelError",
    "SourceError",
    "__version__",
    "anomaly_regions",
    "draw_overlay",
    "read_metadata",
]

__version__ = "0.1.0"

_HOMES = {
    "AlarmFilter": "anomaly_detector.alarms.alarm_filter",
    "AlarmSettings": "anomaly_detector.alarms.alarm_filter",
    "AnomalyDetectorError": "anomaly_detector.errors",
    "AnomalyRegion": "anomaly_detector.model.regions",
    "Detection": "anomaly_detector.model.detector",
    "Detector": "anomaly_detector.model.detector",
    "Image": "anomaly_detector.images.image",
    "ImageError": "anomaly_detector.errors",
    "ModelError": "anomaly_detector.errors",
    "SourceError": "anomaly_detector.errors",
    "anomaly_regions": "anomaly_detector.model.regions",
    "draw_overlay": "anomaly_detector.drawing.overlay",
    "read_metadata": "anomaly_detector.model.file",
}
"""Public name to the module that has it."""

# ONNX Runtime reads this when it is imported. Since 1.29 it else writes a device id and a database
# of events, and looks up an outside host. Whatever imports it here has imported this package first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# OpenCV reads this when it is imported: a file that asks for a giant picture costs nothing. It is
# anomaly_detector.images.image.MAX_PIXELS.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "40000000")


def __dir__() -> list[str]:
    """Return all names, those not yet imported included."""
    return sorted({*globals(), *__all__})
