"""Frames like a camera's, for benchmarks: as large and as compressible, of any encoding."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.encodings import ENCODINGS

BENCHMARK_ENCODINGS = tuple(
    name for name, encoding in ENCODINGS.items() if encoding.kind != "measured"
)
"""Every encoding whose pictures need no range of values."""


@dataclass
class CameraFrame:
    """The fields of ``sensor_msgs/Image``, without ROS.

    Attributes:
        height: pixels.
        width: pixels.
        encoding: one of :data:`BENCHMARK_ENCODINGS`.
        step: bytes of a row.
        data: as rclpy gives it.
        is_bigendian: of 16-bit values.
    """

    height: int
    width: int
    encoding: str
    step: int
    data: array[int]
    is_bigendian: int = 0


@dataclass
class CompressedFrame:
    """The fields of ``sensor_msgs/CompressedImage``, without ROS.

    Attributes:
        format: as image_transport names it.
        data: as rclpy gives it.
    """

    format: str
    data: array[int]


def parse_size(text: str) -> tuple[int, int]:
    """Read a size such as ``640x480``.

    Returns:
        Width and height, pixels.

    Raises:
        AnomalyDetectorError: it is none.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise AnomalyDetectorError(
            f"size {text!r} is no size: give WIDTHxHEIGHT in pixels, such as 640x480"
        )
    return int(width), int(height)


def camera_picture(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """Make a smooth picture with noise, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 216, (12, 16, 3), dtype=np.uint8)
    smooth = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    noise = random.integers(0, 12, smooth.shape, dtype=np.uint8)
    return np.asarray(cv2.add(smooth, noise), np.uint8)


def camera_frame(
    seed: int, width: int, height: int, transport: str = "raw", encoding: str = "rgb8"
) -> CameraFrame | CompressedFrame:
    """Make one frame.

    Args:
        seed: of the noise.
        width: pixels.
        height: pixels.
        transport: ``raw`` or ``compressed`` (JPEG of OpenCV's own quality).
        encoding: of a raw frame, one of :data:`BENCHMARK_ENCODINGS`. All take the same bytes: what
            they cost does not depend on what they show.

    Raises:
        AnomalyDetectorError: another encoding, or a size that it cannot have.
    """
    picture = camera_picture(seed, width, height)
    if transport == "compressed":
        data = array("B", cv2.imencode(".jpg", picture)[1].tobytes())
        return CompressedFrame("rgb8; jpeg compressed bgr8", data)
    if encoding not in BENCHMARK_ENCODINGS:
        raise AnomalyDetectorError(
            f"encoding {encoding!r} cannot be benchmarked: give one of "
            f"{', '.join(BENCHMARK_ENCODINGS)}"
        )
    layout = ENCODINGS[encoding]
    step = width * layout.pixel_bytes
    if layout.kind in ("bayer", "yuv422", "yuv420") and (width % 2 or height % 2):
        raise AnomalyDetectorError(f"{encoding} cannot have size {width}x{height}: give even sides")
    rows = height * layout.rows_per_2 // 2
    data = array("B", np.resize(picture.reshape(-1), step * rows).tobytes())
    return CameraFrame(height, width, encoding, step, data)
