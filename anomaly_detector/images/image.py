"""Decoded frames: their channel order, their limits, and a region of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, ImageError

ColorOrder = Literal["rgb", "bgr", "rgba", "bgra", "mono"]

MAX_PIXELS = 40_000_000
"""Larger frames are refused: 8K video has 33 million; what has more is damaged or an attack."""

MAX_SIDE = 65_535
"""Longer sides are refused; JPEG cannot say more either."""

_TO_RGB = {
    "bgr": cv2.COLOR_BGR2RGB,
    "rgba": cv2.COLOR_RGBA2RGB,
    "bgra": cv2.COLOR_BGRA2RGB,
    "mono": cv2.COLOR_GRAY2RGB,
}
_TO_BGR = {
    "rgb": cv2.COLOR_RGB2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
    "bgra": cv2.COLOR_BGRA2BGR,
    "mono": cv2.COLOR_GRAY2BGR,
}


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of a frame that is looked at, in pixels of the camera's frame.

    Attributes:
        x: first column.
        y: first row.
        width: number of columns; 0 for all up to the right edge.
        height: number of rows; 0 for all down to the lower edge.

    Raises:
        AnomalyDetectorError: a negative value.
    """

    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0

    def __post_init__(self) -> None:
        for name in ("x", "y", "width", "height"):
            if getattr(self, name) < 0:
                raise AnomalyDetectorError(
                    f"region of interest has {name} {getattr(self, name)}: "
                    "give 0 or more; width and height 0 reach to the frame's edge"
                )

    @property
    def is_whole_frame(self) -> bool:
        """Return whether nothing is cut off, whatever the frame's size."""
        return self == RegionOfInterest()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    def __str__(self) -> str:
        """Return the text that :func:`parse_region` reads."""
        return f"{self.x},{self.y},{self.width},{self.height}"


@dataclass(frozen=True)
class Image:
    """A decoded frame of any size.

    Example:
        >>> image = Image(np.zeros((480, 640, 3), np.uint8), "bgr")
        >>> Detector("corridor").detect(image).is_anomaly
        True

    Attributes:
        array: uint8, [H, W, C], or [H, W] for ``mono``. May be a view of a message's buffer with
            padded rows; do not write to it.
        order: the meaning of the channels.
        scale: how many times smaller than the camera's frame it is on each side: 1, or 2, 4 or 8
            for a JPEG that was decoded at reduced scale.
        invalid: number of pixels that held no value (NaN or infinite) and are 0 now.
        region: the part of the camera's frame that it is.
        area: width and height of that part in pixels of the camera's frame, where the array has
            been resized; None where it follows from array and scale.
    """

    array: NDArray[np.uint8]
    order: ColorOrder
    scale: int = 1
    invalid: int = 0
    region: RegionOfInterest = RegionOfInterest()
    area: tuple[int, int] | None = None

    @property
    def extent(self) -> RegionOfInterest:
        """The part of the camera's frame that it is, with its size in pixels in any case."""
        height, width = self.array.shape[:2]
        area = self.area or (width * self.scale, height * self.scale)
        return RegionOfInterest(self.region.x, self.region.y, *area)


def parse_region(text: str) -> RegionOfInterest:
    """Read a region from ``X,Y,WIDTH,HEIGHT``.

    Raises:
        AnomalyDetectorError: not four integers, or a negative one.
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise AnomalyDetectorError(
            f"region {text!r} is not X,Y,WIDTH,HEIGHT: give four integers, such as 0,120,640,360"
        ) from None
    return RegionOfInterest(x, y, width, height)


def crop(pixels: Image, roi: RegionOfInterest) -> Image:
    """Cut a region out of a frame, as a view: no pixel is copied.

    An image that is this region already stays as it is.

    Raises:
        ImageError: the region does not lie inside the frame, the pixels are another region, or the
            frame was decoded at reduced scale, where the region's edges may lie between pixels.
    """
    if roi.is_whole_frame or roi == pixels.region:
        return pixels
    if not pixels.region.is_whole_frame:
        raise ImageError(
            f"region of interest {roi} cannot be cut from pixels that are the region "
            f"{pixels.region} already: give the whole frame",
            reason="roi",
        )
    height, width = pixels.array.shape[:2]
    if pixels.scale != 1:
        raise ImageError(
            f"region of interest {roi} cannot be cut from a JPEG decoded at 1/{pixels.scale}"
            " of its size: decode it at full size",
            reason="roi",
        )
    right = roi.x + roi.width if roi.width else width
    bottom = roi.y + roi.height if roi.height else height
    if roi.x >= width or roi.y >= height or right > width or bottom > height:
        raise ImageError(
            f"region of interest {roi} is not inside the frame of {width}x{height}: "
            "give one that fits the camera",
            reason="roi",
        )
    return replace(pixels, array=pixels.array[roi.y : bottom, roi.x : right], region=roi)


def check_size(width: int, height: int, name: str) -> None:
    """Refuse sizes that no camera has, before anything is allocated.

    Raises:
        ImageError: zero, negative or giant.
    """
    if height <= 0 or width <= 0:
        raise ImageError(
            f"{name} has size {width}x{height}: the camera driver sends empty frames",
            reason="size",
        )
    if width > MAX_SIDE or height > MAX_SIDE or height * width > MAX_PIXELS:
        raise ImageError(
            f"{name} has size {width:.4g}x{height:.4g}, more than {MAX_PIXELS} pixels or "
            f"{MAX_SIDE} on a side: its header is damaged",
            reason="size",
        )


def to_rgb(pixels: Image) -> NDArray[np.uint8]:
    """Return a frame as uint8 RGB [H, W, 3], contiguous; its size is kept."""
    if pixels.order == "rgb":
        return np.ascontiguousarray(pixels.array)
    return np.asarray(cv2.cvtColor(pixels.array, _TO_RGB[pixels.order]), dtype=np.uint8)


def to_bgr(pixels: Image) -> NDArray[np.uint8]:
    """Return the pixels as uint8 [H, W, 3] in BGR, OpenCV's order; the same array if they are."""
    if pixels.order == "bgr":
        return pixels.array
    return np.asarray(cv2.cvtColor(pixels.array, _TO_BGR[pixels.order]), np.uint8)
