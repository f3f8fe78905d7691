"""The one way from a camera frame to the model's 64x64 RGB input.

Training, offline scoring and the robot all call :func:`shrink`. Its name and version travel in the
model's metadata (:data:`RESIZE_METHOD`), so that a model is never fed with frames that were shrunk
in another way than those it was trained on.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.image import Pixels, to_rgb

__all__ = ["INPUT_SIZE", "RESIZE_METHOD", "shrink"]

INPUT_SIZE = 64
"""Height and width of the model's input (thesis 5.4.1, paper section IV)."""

RESIZE_METHOD = "linear256-area64/1"
"""Name and version of the resize in :func:`shrink`; change the version when a pixel changes."""

_INTERMEDIATE = 256


def shrink(pixels: Pixels) -> NDArray[np.uint8]:
    """Shrink a frame to the model's input; the aspect ratio is not kept (thesis 5.4.1).

    Frames larger than 256 pixels go through a bilinear step to 256 first: true area averaging of a
    whole camera frame costs several times as much, and on real frames the two differ by 0.15 grey
    levels in the mean. The colour order is fixed last, on 64x64 pixels.

    Args:
        pixels: a frame of any size and channel order.

    Returns:
        uint8 [64, 64, 3], RGB, contiguous.
    """
    array = pixels.array
    height, width = array.shape[:2]
    if height > _INTERMEDIATE or width > _INTERMEDIATE:
        size = (min(width, _INTERMEDIATE), min(height, _INTERMEDIATE))
        array = np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    if array.shape[:2] != (INPUT_SIZE, INPUT_SIZE):
        small = cv2.resize(array, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
        array = np.asarray(small, dtype=np.uint8)
    return to_rgb(Pixels(array, pixels.order))
