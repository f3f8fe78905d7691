"""The one way from a camera frame to the model's 64x64 RGB input.

Training, offline scoring and the robot all call :func:`preprocess`. Its name and version travel in
the model's metadata (:data:`RESIZE_METHOD`), so that a model is never fed with frames that were
resized in another way than those it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import Image, RegionOfInterest, to_rgb

INPUT_SIZE = 64
"""Height and width of a model's input (thesis 5.4.1, paper section IV), if it says no other."""

INPUT_SIZES = range(16, 513)
"""Those that a model may say."""

RESIZE_METHOD = "stepped-area64/1"
"""Name and version of the resize in :func:`preprocess`, to any size; change the version when a
pixel changes."""

COMPATIBLE_RESIZE_METHODS = frozenset(
    {
        RESIZE_METHOD,
        # Bilinear to 256x256, then area averaging: on real frames both stay within 0.3 grey
        # levels (mean) of true area averaging, and neither is nearer to it for all sizes.
        "linear256-area64/1",
    }
)
"""Methods of older models whose pixels are close enough to those of :func:`preprocess`."""

# Up to here INTER_AREA itself takes no longer than the steps that stand in for it.
_AREA_PIXELS = 57_600

# The largest frames that each intermediate size can be had for in the time that a frame may take.
_COARSE_PIXELS = 100_000
_FINE_PIXELS = 420_000
_MEDIUM_PIXELS = 1_500_000

# Row counts that are left by taking every n-th row, at which neighbouring rows still lie
# close enough together for the bilinear step to 128 rows to use nearly all of them.
_THINNED_ROWS = (192, 280)
_THINNED_WIDTH = 640

_Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """What a model sees of a camera's frame; part of the model, kept in its metadata.

    Attributes:
        region: the part of the frame.
        scaling: the values that become black and white, for pictures of more than 8 bits; None
            where the encoding says it.
        size: height and width that the region is resized to.
    """

    region: RegionOfInterest = field(default_factory=RegionOfInterest)
    scaling: ImageScaling | None = None
    size: int = INPUT_SIZE

    def over(self, own: View) -> View:
        """Return a model's own view with what is stated here in its place; its size stays."""
        return View(
            own.region if self.region.is_whole_frame else self.region,
            own.scaling if self.scaling is None else self.scaling,
            own.size,
        )


WHOLE_FRAME = View()
"""All of a frame, scaled as its encoding says."""


def preprocess(image: Image, size: int = INPUT_SIZE) -> NDArray[np.uint8]:
    """Resize a frame to a model's input, RGB; the aspect ratio is not kept (thesis 5.4.1).

    True area averaging of a whole camera frame (``cv2.INTER_AREA``) costs up to thirty times the
    network's own time, because OpenCV is quick at it only for whole factors. So larger frames go
    through a bilinear step to a multiple of ``size`` that depends on the frame's size, and are
    averaged from there. ``python -m benchmarks.resize`` prints time and difference to true area
    averaging for each size. The colour order is fixed last, on the fewest pixels.

    Args:
        image: a frame of any size and channel order.
        size: height and width of the input.

    Returns:
        uint8 [size, size, 3], RGB, contiguous.
    """
    array = image.array
    height, width = array.shape[:2]
    if (height, width) == (size, size):
        small = array
    elif height * width <= _AREA_PIXELS or (size != INPUT_SIZE and min(height, width) < 2 * size):
        small = _area(array, size, size)
    elif size != INPUT_SIZE:
        steps = (2, 2) if height * width <= _COARSE_PIXELS else (4, 3)
        small = _area(_linear(array, steps[0] * size, steps[1] * size), size, size)
    elif width >= _THINNED_WIDTH and (stride := _row_stride(height)):
        # Rows that are further apart tell more about an output pixel than pairs of neighbours,
        # and half of the rows that the bilinear step touches buy three columns for two.
        rows = array[stride // 2 :: stride]
        small = _area(_area(_linear(rows, 384, 128), 192, 64), INPUT_SIZE, INPUT_SIZE)
    elif height * width <= _FINE_PIXELS:
        small = _halve_twice(_linear(array, 256, 256))
    elif height * width <= _MEDIUM_PIXELS:
        small = _area(_linear(array, 256, 192), INPUT_SIZE, INPUT_SIZE)
    else:
        small = _area(_linear(array, 192, 192), INPUT_SIZE, INPUT_SIZE)
    return to_rgb(Image(small, image.order))


def preprocessed(image: Image, size: int = INPUT_SIZE) -> Image:
    """Return :func:`preprocess` of a frame, or of a part of it, which knows where it lies."""
    return Image(preprocess(image, size), "rgb", region=image.region, area=image.extent.size)


def _row_stride(height: int) -> int:
    """Return the odd stride that thins the rows without moving the picture; 0 when there is none.

    The stride has to divide the height and be odd, so that the rows taken are the middles of equal
    bands: a picture that is moved by half a row differs more than one that is sampled coarsely.
    """
    least, most = _THINNED_ROWS
    for stride in range(3, height // least + 1, 2):
        if height % stride == 0 and height // stride <= most:
            return stride
    return 0


def _halve_twice(array: _Picture) -> _Picture:
    """Average 4x4 pixels in two steps, each of which OpenCV has vector code for.

    Each step rounds halves up, by an eighth of a grey level in the mean; the second one is done
    on the negative, so that the two cancel.
    """
    negative = _area(array, array.shape[1] // 2, array.shape[0] // 2)
    cv2.bitwise_not(negative, negative)
    small = _area(negative, array.shape[1] // 4, array.shape[0] // 4)
    cv2.bitwise_not(small, small)
    return small


def _linear(array: _Picture, width: int, height: int) -> _Picture:
    if array.shape[:2] == (height, width):
        return array
    return np.asarray(
        cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
    )


def _area(array: _Picture, width: int, height: int) -> _Picture:
    return np.asarray(
        cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8
    )
