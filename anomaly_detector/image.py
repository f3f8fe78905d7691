"""Camera messages to pixels, without ROS.

The functions take the fields of ``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage`` through
small protocols, so that live rclpy messages and messages read from a bag by ``rosbags`` take the
same path. Common encodings become views of the message's buffer: no pixel is copied before the
frame has been shrunk, and the colour order is fixed on the small result
(:func:`anomaly_detector.preprocessing.shrink`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import ImageError

__all__ = [
    "MAX_PIXELS",
    "ColorOrder",
    "CompressedImageLike",
    "ImageLike",
    "Pixels",
    "decode_compressed",
    "decode_encoded_bytes",
    "decode_image",
    "to_rgb",
]

ColorOrder = Literal["rgb", "bgr", "rgba", "bgra", "mono"]

MAX_PIXELS = 64_000_000
"""Larger frames are refused: no robot camera sends them, a damaged header does."""

_DIRECT_ENCODINGS: dict[str, tuple[ColorOrder, int]] = {
    "rgb8": ("rgb", 3),
    "bgr8": ("bgr", 3),
    "rgba8": ("rgba", 4),
    "bgra8": ("bgra", 4),
    "mono8": ("mono", 1),
    "8UC1": ("mono", 1),
    # cv_bridge and most drivers that say 8UC3 mean OpenCV's own order.
    "8UC3": ("bgr", 3),
}

# Bytes per pixel of the first plane, for encodings that rosbags-image converts.
_CONVERTED_ENCODINGS: dict[str, int] = {
    "mono16": 2,
    "rgb16": 6,
    "bgr16": 6,
    "rgba16": 8,
    "bgra16": 8,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
    "bayer_rggb16": 2,
    "bayer_bggr16": 2,
    "bayer_gbrg16": 2,
    "bayer_grbg16": 2,
    "uyvy": 2,
    "yuv422": 2,
    "yuyv": 2,
    "yuv422_yuy2": 2,
}

_TO_RGB = {
    "bgr": cv2.COLOR_BGR2RGB,
    "rgba": cv2.COLOR_RGBA2RGB,
    "bgra": cv2.COLOR_BGRA2RGB,
    "mono": cv2.COLOR_GRAY2RGB,
}


class ImageLike(Protocol):
    """The fields of ``sensor_msgs/Image`` that are used here."""

    height: int
    width: int
    encoding: str
    is_bigendian: Any
    step: int
    data: Any


class CompressedImageLike(Protocol):
    """The fields of ``sensor_msgs/CompressedImage`` that are used here."""

    format: str
    data: Any


@dataclass(frozen=True)
class Pixels:
    """A decoded frame of any size.

    Attributes:
        array: uint8, [H, W, C], or [H, W] for ``mono``. May be a view of a message's buffer with
            padded rows; do not write to it.
        order: the meaning of the channels.
    """

    array: NDArray[np.uint8]
    order: ColorOrder


def decode_image(message: ImageLike) -> Pixels:
    """Give the pixels of a raw ``sensor_msgs/Image``.

    Args:
        message: an rclpy or rosbags message, or anything with the same fields.

    Returns:
        A view of the message's data for rgb8, bgr8, rgba8, bgra8, mono8, 8UC1 and 8UC3; a
        converted copy for 16-bit, Bayer and YUV 4:2:2 encodings.

    Raises:
        ImageError: zero or giant size, step smaller than a row, data shorter or longer than the
            header says, or an encoding that is no colour or grey image.
    """
    encoding, height, width = str(message.encoding), int(message.height), int(message.width)
    if height <= 0 or width <= 0:
        raise ImageError(f"image has size {width}x{height}: the camera driver sends empty frames")
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"image has size {width}x{height}, more than {MAX_PIXELS} pixels: its header is damaged"
        )
    direct = _DIRECT_ENCODINGS.get(encoding)
    if direct is not None:
        pixel_bytes = direct[1]
    elif encoding in _CONVERTED_ENCODINGS:
        pixel_bytes = _CONVERTED_ENCODINGS[encoding]
    else:
        supported = ", ".join([*_DIRECT_ENCODINGS, *_CONVERTED_ENCODINGS])
        raise ImageError(
            f"image encoding {encoding!r} is not supported: "
            f"have the camera driver send one of {supported}"
        )
    step = int(message.step)
    row_bytes = width * pixel_bytes
    if step < row_bytes:
        raise ImageError(
            f"image step is {step} bytes but a row of {width} {encoding} pixels has {row_bytes}: "
            "the message is damaged"
        )
    buffer = np.frombuffer(message.data, dtype=np.uint8)
    if buffer.size != step * height:
        raise ImageError(
            f"image data has {buffer.size} bytes but step {step} x height {height} "
            f"is {step * height}: the message is damaged or was cut short"
        )
    if direct is None:
        rows = buffer.reshape(height, step)[:, :row_bytes]
        return _convert(encoding, height, width, bool(message.is_bigendian), rows)
    order, channels = direct
    if channels == 1:
        return Pixels(np.ndarray((height, width), np.uint8, buffer, 0, (step, 1)), order)
    view = np.ndarray((height, width, channels), np.uint8, buffer, 0, (step, channels, 1))
    return Pixels(view, order)


def _convert(
    encoding: str, height: int, width: int, is_bigendian: bool, rows: NDArray[np.uint8]
) -> Pixels:
    # Imported here: most robots send rgb8, bgr8 or JPEG and never need it.
    from rosbags.image import ImageError as RosbagsImageError
    from rosbags.image import image_to_cvimage

    message = SimpleNamespace(
        encoding=encoding,
        height=height,
        width=width,
        is_bigendian=is_bigendian,
        data=np.ascontiguousarray(rows),
    )
    target = "mono8" if encoding == "mono16" else "bgr8"
    try:
        array = image_to_cvimage(cast(Any, message), target)
    except (RosbagsImageError, cv2.error, ValueError) as error:
        raise ImageError(
            f"{width}x{height} {encoding} image cannot be converted to {target}: {error}"
        ) from error
    return Pixels(
        np.ascontiguousarray(array, dtype=np.uint8), "mono" if target == "mono8" else "bgr"
    )


def decode_compressed(message: CompressedImageLike) -> Pixels:
    """Give the pixels of a ``sensor_msgs/CompressedImage`` (JPEG, PNG and what OpenCV reads).

    Raises:
        ImageError: empty, truncated or unknown data, or a compressed depth image.
    """
    if "compressedDepth" in message.format:
        raise ImageError(
            f"compressed image has format {message.format!r}: depth is not a camera picture, "
            "subscribe to the colour camera"
        )
    return decode_encoded_bytes(message.data, f"compressed image (format {message.format!r})")


def decode_encoded_bytes(data: Any, name: str) -> Pixels:
    """Decode the bytes of an image file.

    Args:
        data: bytes, bytearray, array or uint8 array with a whole JPEG, PNG, ... file.
        name: what to call it in an error.

    Returns:
        BGR pixels, uint8 [H, W, 3].

    Raises:
        ImageError: OpenCV cannot decode it.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    if buffer.size == 0:
        raise ImageError(f"{name} is empty: no picture in it")
    try:
        # IGNORE_ORIENTATION: a robot's camera frame is used as it was recorded.
        array = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{name} cannot be decoded: {str(error).strip()}") from error
    if array is None:
        raise ImageError(
            f"{name} with {buffer.size} bytes cannot be decoded: not a whole JPEG or PNG picture"
        )
    return Pixels(np.asarray(array, dtype=np.uint8), "bgr")


def to_rgb(pixels: Pixels) -> NDArray[np.uint8]:
    """Give a frame as uint8 RGB [H, W, 3], contiguous; its size is kept."""
    if pixels.order == "rgb":
        return np.ascontiguousarray(pixels.array)
    return np.asarray(cv2.cvtColor(pixels.array, _TO_RGB[pixels.order]), dtype=np.uint8)
