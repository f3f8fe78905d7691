"""Camera messages to pixels, without ROS.

The functions take the fields of ``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage`` through
small protocols, so that live rclpy messages and messages read from a bag by ``rosbags`` take the
same path. Common encodings become views of the message's buffer: no pixel is copied before the
frame is resized, and the colour order is fixed on the small result
(:func:`anomaly_detector.images.preprocessing.preprocess`).

Whatever a message holds, the only exception is :class:`ImageError`, whose ``reason`` is a short
word for counters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import ImageError
from anomaly_detector.images.compressed import byte_buffer, decode_encoded_bytes
from anomaly_detector.images.encodings import (
    ENCODINGS,
    Encoding,
    ImageScaling,
    convert_rows,
    scale_to_8_bits,
    shorten,
)
from anomaly_detector.images.image import ColorOrder, Image, check_size

Converter = Callable[[Any, str], Any]
"""Converts a message to uint8 [H, W, 3] in ``bgr8`` (or [H, W] in ``mono8``), as named by its
second argument; ``cv_bridge``'s ``imgmsg_to_cv2`` is one."""

_REMEDY = (
    "give --image-scaling MIN MAX (a model keeps that of train and calibrate), or choose the "
    "colour camera"
)

_DEPTH_FORMATS = ("16UC1", "32FC1")


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


class HasPixels(Protocol):
    """A frame of a recording: :class:`anomaly_detector.recordings.Frame`."""

    @property
    def pixels(self) -> Image:
        """The picture."""


FrameLike: TypeAlias = Image | NDArray[Any] | HasPixels | ImageLike | CompressedImageLike
"""Whatever holds a camera's picture."""

_ORDERS: dict[int, tuple[ColorOrder, ...]] = {1: ("mono",), 3: ("bgr", "rgb"), 4: ("bgra", "rgba")}
"""Number of channels to their possible orders."""


def as_image(
    frame: FrameLike,
    order: ColorOrder | None = None,
    *,
    scaling: ImageScaling | None = None,
    reduced: bool = False,
    convert: Converter | None = None,
    remedy: str = _REMEDY,
) -> Image:
    """Return the picture of whatever holds one.

    Args:
        frame: an image; a frame of a recording; a ``sensor_msgs/Image`` or ``CompressedImage``; or
            an array [H, W] or [H, W, C], uint8, or uint16 or float with a ``scaling``.
        order: the meaning of an array's channels, needed for those with colours.
        scaling: range of values for more than 8 bits; needed for depth and infrared (16UC1,
            32FC1, float arrays), optional for mono16, rgb16 and other 16-bit pictures.
        reduced: see :func:`~anomaly_detector.images.compressed.decode_encoded_bytes`.
        convert: converts Bayer, YUV 4:2:2 and, without a ``scaling``, 16-bit encodings in place
            of this package's own OpenCV calls; these take over where it fails. None for these
            alone. Sizes are checked before.
        remedy: what to do about depth without a scaling, for the error.

    Raises:
        ImageError: no picture, one that is damaged, or an array whose order is not known.
    """
    source: Any = getattr(frame, "pixels", frame)
    if isinstance(source, np.ndarray):
        return _array_image(source, order, scaling)
    if isinstance(source, Image):
        return source
    if hasattr(source, "encoding"):
        return decode_image(source, scaling=scaling, convert=convert, remedy=remedy)
    if hasattr(source, "format") and hasattr(source, "data"):
        return decode_compressed(source, scaling=scaling, reduced=reduced, remedy=remedy)
    raise ImageError(
        f"frame is of type {type(frame).__name__}: give a numpy array, an Image or a message of "
        "sensor_msgs",
        reason="encoding",
    )


def _array_image(
    array: NDArray[Any], order: ColorOrder | None, scaling: ImageScaling | None
) -> Image:
    channels = array.shape[2] if array.ndim == 3 else int(array.ndim == 2)
    orders = _ORDERS.get(channels)
    if orders is None:
        raise ImageError(
            f"array has shape {array.shape}: give [height, width] or [height, width, 3 or 4]",
            reason="size",
        )
    order = orders[0] if order is None and len(orders) == 1 else order
    if order not in orders:
        what = "no order" if order is None else f"order {order!r}"
        known = " or ".join(f"order={name!r}" for name in orders)
        raise ImageError(
            f"array of shape {array.shape} has {what}: give {known}", reason="encoding"
        )
    height, width = array.shape[:2]
    check_size(width, height, "array")
    array = array.reshape(height, width) if channels == 1 else array
    if array.dtype == np.uint8:
        return Image(array, order)
    if array.dtype == np.uint16 or (array.dtype.kind == "f" and scaling is not None):
        values = array if array.dtype == np.uint16 else array.astype(np.float32)
        return scale_to_8_bits(values, order, scaling)
    raise ImageError(
        f"array has type {array.dtype}: give uint8 from 0 to 255, or uint16; float needs a model "
        "with an image scaling",
        reason="encoding",
    )


def decode_image(
    message: ImageLike,
    *,
    scaling: ImageScaling | None = None,
    convert: Converter | None = None,
    remedy: str = _REMEDY,
) -> Image:
    """Return the pixels of a raw ``sensor_msgs/Image``; arguments as for :func:`as_image`.

    Returns:
        A view of the message's data for rgb8, bgr8, rgba8, bgra8, mono8, 8UC1, 8UC3 and 8UC4; a
        converted copy for all others.

    Raises:
        ImageError: zero or giant size, step smaller than a row, data shorter or longer than the
            header says, an encoding that is no colour or grey image, depth without a scaling or
            without a finite value, or a failed conversion.
    """
    name = str(message.encoding)
    height, width = _integer(message, "height"), _integer(message, "width")
    check_size(width, height, "image")
    encoding = ENCODINGS.get(name)
    if encoding is None:
        raise ImageError(
            f"image encoding {shorten(name)!a} is not supported: "
            f"have the camera driver send one of {', '.join(ENCODINGS)}",
            reason="encoding",
        )
    if encoding.kind == "measured" and scaling is None:
        raise ImageError(
            f"image encoding {name} is depth or infrared, whose range is not known: {remedy}",
            reason="depth",
        )
    step = _integer(message, "step")
    row_bytes = width * encoding.pixel_bytes
    if step < row_bytes:
        raise ImageError(
            f"image step is {step} bytes but a row of {width} {name} pixels has {row_bytes}: "
            "the message is damaged",
            reason="step",
        )
    buffer = byte_buffer(message.data, "image")
    rows, height = _row_count(encoding, name, height, step, buffer.size)
    if encoding.kind == "direct":
        channels = encoding.pixel_bytes
        view = np.ndarray((height, width, channels), np.uint8, buffer, 0, (step, channels, 1))
        return Image(view[..., 0] if channels == 1 else view, encoding.order)
    if convert is not None and _is_convertible(encoding, scaling):
        converted = _converted(convert, message, encoding, height, width)
        if converted is not None:
            return converted
    return convert_rows(
        name,
        buffer.reshape(rows, step),
        height,
        width,
        is_bigendian=bool(message.is_bigendian),
        scaling=scaling,
    )


def _integer(message: ImageLike, field: str) -> int:
    value = getattr(message, field)
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageError(
            f"image {field} is {shorten(value)}, not a number: the message is damaged",
            reason="step" if field == "step" else "size",
        ) from error


def _row_count(encoding: Encoding, name: str, height: int, step: int, size: int) -> tuple[int, int]:
    """Return the rows of all planes, and the picture's height."""
    rows = height * encoding.rows_per_2 // 2
    if size == rows * step:
        return rows, height
    if encoding.kind == "yuv420" and size == height * step and height % 3 == 0:
        # OpenCV's way, which some drivers copied: the height counts the rows of both planes.
        return height, height * 2 // 3
    raise ImageError(
        f"image data has {size} bytes but step {step} x {rows} rows of {name} "
        f"is {rows * step}: the message is damaged or was cut short",
        reason="data",
    )


def _is_convertible(encoding: Encoding, scaling: ImageScaling | None) -> bool:
    kinds = ("bayer", "yuv422", "deep")
    return encoding.kind in kinds and (scaling is None or encoding.dtype == "u1")


def _converted(
    convert: Converter, message: ImageLike, encoding: Encoding, height: int, width: int
) -> Image | None:
    is_grey = encoding.order == "mono"
    target, shape = ("mono8", (height, width)) if is_grey else ("bgr8", (height, width, 3))
    try:
        array = np.asarray(convert(message, target))
    except Exception:  # the cv_bridge of Humble knows fewer encodings than we do
        return None
    if array.shape != shape or array.dtype != np.uint8:
        return None
    return Image(np.ascontiguousarray(array), "mono" if is_grey else "bgr")


def decode_compressed(
    message: CompressedImageLike,
    *,
    scaling: ImageScaling | None = None,
    reduced: bool = False,
    remedy: str = _REMEDY,
) -> Image:
    """Return the pixels of a ``sensor_msgs/CompressedImage``; arguments as for :func:`as_image`.

    Raises:
        ImageError: empty, cut short, damaged or unknown data, a giant size, or depth without a
            scaling.
    """
    kind = str(message.format)
    short = ascii(shorten(kind))
    if "compressedDepth" in kind:
        raise ImageError(
            f"compressed image has format {short}: depth is not a camera picture, "
            "subscribe to the colour camera",
            reason="depth",
        )
    if kind.startswith(_DEPTH_FORMATS) and scaling is None:
        raise ImageError(
            f"compressed image has format {short}, depth or infrared whose range is not known: "
            f"{remedy}",
            reason="depth",
        )
    name = f"compressed image (format {short})"
    return decode_encoded_bytes(message.data, name, scaling=scaling, reduced=reduced)
