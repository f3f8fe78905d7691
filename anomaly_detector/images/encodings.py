"""The encodings of ``sensor_msgs/Image``: their layouts, and their conversion to 8-bit pixels.

The names and layouts are those of ``sensor_msgs/image_encodings.hpp``. YUV is BT.601 with the
limited range that cameras send (Y from 16 to 235), as OpenCV and cv_bridge convert it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, ImageError
from anomaly_detector.images.image import ColorOrder, Image

_Kind = Literal["direct", "deep", "measured", "bayer", "yuv422", "yuv420", "yuv444"]

_NAME_LENGTH = 40


@dataclass(frozen=True)
class ImageScaling:
    """Which values become black and white, for pictures of more than 8 bits.

    Values outside are clipped. Needed for depth (16UC1 in millimetres, 32FC1 in metres), where
    only the user knows the range that matters; optional for mono16 and other 16-bit encodings,
    for cameras that put 10 or 12 bits into them.

    Attributes:
        minimum: the value that becomes 0, in the unit of the message.
        maximum: the value that becomes 255.

    Raises:
        AnomalyDetectorError: not finite, or the minimum is not below the maximum.
    """

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        values = (self.minimum, self.maximum)
        if not all(math.isfinite(value) and abs(value) < 1e30 for value in values) or (
            self.minimum >= self.maximum
        ):
            raise AnomalyDetectorError(
                f"image scaling from {self.minimum} to {self.maximum} is no range: give the value "
                "that becomes black and a larger one that becomes white"
            )

    def __str__(self) -> str:
        """Return both values as on a command line."""
        return f"{self.minimum:g} {self.maximum:g}"


@dataclass(frozen=True)
class Encoding:
    """How the rows of an encoding are laid out.

    Attributes:
        kind: which conversion it takes; ``direct`` for none.
        pixel_bytes: bytes of one pixel in the first plane.
        order: of the converted pixels.
        code: OpenCV's colour conversion, where one is needed.
        dtype: of one channel.
        rows_per_2: rows of the whole message for every two rows of the picture.
    """

    kind: _Kind
    pixel_bytes: int
    order: ColorOrder
    code: int | None = None
    dtype: Literal["u1", "u2", "f4"] = "u1"
    rows_per_2: int = 2


# OpenCV names a pattern after the second row's second and third pixel: its BG is ROS' rggb.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2BGR,
    "bggr": cv2.COLOR_BayerRG2BGR,
    "gbrg": cv2.COLOR_BayerGR2BGR,
    "grbg": cv2.COLOR_BayerGB2BGR,
}

ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding("direct", 3, "rgb"),
    "bgr8": Encoding("direct", 3, "bgr"),
    "rgba8": Encoding("direct", 4, "rgba"),
    "bgra8": Encoding("direct", 4, "bgra"),
    "mono8": Encoding("direct", 1, "mono"),
    "8UC1": Encoding("direct", 1, "mono"),
    # cv_bridge and most drivers that say 8UC3 or 8UC4 mean OpenCV's own order.
    "8UC3": Encoding("direct", 3, "bgr"),
    "8UC4": Encoding("direct", 4, "bgra"),
    "mono16": Encoding("deep", 2, "mono", dtype="u2"),
    "rgb16": Encoding("deep", 6, "rgb", dtype="u2"),
    "bgr16": Encoding("deep", 6, "bgr", dtype="u2"),
    "rgba16": Encoding("deep", 8, "rgba", dtype="u2"),
    "bgra16": Encoding("deep", 8, "bgra", dtype="u2"),
    **{f"bayer_{name}8": Encoding("bayer", 1, "bgr", code) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": Encoding("bayer", 2, "bgr", code, "u2") for name, code in _BAYER.items()},
    "uyvy": Encoding("yuv422", 2, "bgr", cv2.COLOR_YUV2BGR_UYVY),
    "yuv422": Encoding("yuv422", 2, "bgr", cv2.COLOR_YUV2BGR_UYVY),
    "yuyv": Encoding("yuv422", 2, "bgr", cv2.COLOR_YUV2BGR_YUY2),
    "yuv422_yuy2": Encoding("yuv422", 2, "bgr", cv2.COLOR_YUV2BGR_YUY2),
    "nv12": Encoding("yuv420", 1, "bgr", cv2.COLOR_YUV2BGR_NV12, rows_per_2=3),
    "nv21": Encoding("yuv420", 1, "bgr", cv2.COLOR_YUV2BGR_NV21, rows_per_2=3),
    "nv24": Encoding("yuv444", 1, "bgr", rows_per_2=6),
    "16UC1": Encoding("measured", 2, "mono", dtype="u2"),
    "32FC1": Encoding("measured", 4, "mono", dtype="f4"),
}
"""Every encoding that this package reads."""

# BT.601, limited range: rows B, G, R; columns Y, U, V and the constant.
_LIMITED_BT601 = np.array(
    [
        [1.164383, 2.017232, 0.0, -1.164383 * 16 - 2.017232 * 128],
        [1.164383, -0.391762, -0.812968, -1.164383 * 16 + (0.391762 + 0.812968) * 128],
        [1.164383, 0.0, 1.596027, -1.164383 * 16 - 1.596027 * 128],
    ]
)


def convert_rows(
    name: str,
    rows: NDArray[np.uint8],
    height: int,
    width: int,
    *,
    is_bigendian: bool = False,
    scaling: ImageScaling | None = None,
) -> Image:
    """Convert the rows of a message in an encoding of :data:`ENCODINGS` to 8-bit pixels.

    ``rows`` is uint8 [all rows of all planes, step], with padding at the end of each row. Without
    a ``scaling``, which floats need, 16 bits are taken in their whole range.

    Raises:
        ImageError: a size that the encoding does not allow, no finite value, or OpenCV refuses
            the conversion.
    """
    encoding = ENCODINGS[name]
    halved = {"yuv422": (1, 2), "yuv420": (2, 2), "bayer": (2, 2)}.get(encoding.kind, (1, 1))
    if height % halved[0] or width % halved[1]:
        raise ImageError(
            f"{name} image has size {width}x{height}, which {name} cannot have: "
            "set an even size in the camera driver",
            reason="size",
        )
    try:
        return _convert(encoding, rows, height, width, is_bigendian, scaling)
    except cv2.error as error:
        raise ImageError(
            f"{width}x{height} {name} image cannot be converted: {shorten(str(error), 200)}",
            reason="decode",
        ) from error


def _convert(
    encoding: Encoding,
    rows: NDArray[np.uint8],
    height: int,
    width: int,
    is_bigendian: bool,
    scaling: ImageScaling | None,
) -> Image:
    used = rows[:, : width * encoding.pixel_bytes]
    code = encoding.code
    if encoding.dtype != "u1":
        # Padded or odd steps may leave rows unaligned, so that they are copied first.
        values = np.ascontiguousarray(used).view((">" if is_bigendian else "<") + encoding.dtype)
        channels = encoding.pixel_bytes // values.dtype.itemsize
        shape = (height, width) if channels == 1 else (height, width, channels)
        pixels = scale_to_8_bits(values.reshape(shape), encoding.order, scaling)
        if code is None:
            return pixels
        return Image(np.asarray(cv2.cvtColor(pixels.array, code), np.uint8), encoding.order)
    if encoding.kind == "yuv444":
        planes = np.empty((height, width, 3), np.uint8)
        planes[..., 0] = used[:height]
        # Each row of U and V pairs is as long as two rows of Y.
        step = rows.shape[1]
        pairs = rows[height:].reshape(height, 2 * step)[:, : 2 * width]
        planes[..., 1:] = pairs.reshape(height, width, 2)
        return Image(np.asarray(cv2.transform(planes, _LIMITED_BT601), np.uint8), encoding.order)
    if encoding.kind == "yuv422":
        used = np.ascontiguousarray(used).reshape(height, width, 2)
    if code is not None:
        used = np.asarray(cv2.cvtColor(np.ascontiguousarray(used), code), np.uint8)
    return Image(used, encoding.order)


def scale_to_8_bits(values: NDArray[Any], order: ColorOrder, scaling: ImageScaling | None) -> Image:
    """Scale 16-bit or float values to 8 bits; values that are not finite become 0.

    ``values`` is uint16 or float32 of any byte order, [H, W] or [H, W, C]. Without a ``scaling``,
    which floats need, the range is 0 to 65535.

    Raises:
        ImageError: no value is finite.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "u":
        return Image(_scaled(values, scaling or ImageScaling(0, 65535)), order)
    assert scaling is not None
    is_finite = np.isfinite(values)
    invalid = int(is_finite.size - np.count_nonzero(is_finite))
    if invalid == is_finite.size:
        raise ImageError(
            f"depth image has no finite value in {invalid} pixels: is the sensor covered?",
            reason="depth",
        )
    if invalid:
        values = np.where(is_finite, values, np.float32(scaling.minimum))
    return Image(_scaled(values, scaling), order, invalid=invalid)


def _scaled(values: NDArray[Any], scaling: ImageScaling) -> NDArray[np.uint8]:
    low, high = scaling.minimum, scaling.maximum
    if values.dtype.kind == "u" and not (
        float(low).is_integer() and float(high).is_integer() and low >= 0 and high <= 65535
    ):
        values = values.astype(np.float32)
    alpha = 255.0 / (high - low)
    if values.dtype == np.uint16 and (low, high) == (0, 65535):
        return np.asarray(cv2.convertScaleAbs(values, alpha=alpha), np.uint8)
    bounds = np.array([low, high]).astype(values.dtype)
    # Clipped before it is scaled, so that huge values do not overflow.
    above = np.subtract(np.clip(values, bounds[0], bounds[1]), bounds[0])
    return np.asarray(cv2.convertScaleAbs(above, alpha=alpha), np.uint8)


def shorten(text: object, length: int = _NAME_LENGTH) -> str:
    """Return a foreign text on one line of ASCII, cut to a sane length."""
    text = " ".join(str(text)[: 4 * length].split())
    safe = text.encode("ascii", "backslashreplace").decode()
    return safe if len(safe) <= length else safe[: length - 3] + "..."
