"""What of a camera's frame is not looked at: the robot's own bumper, a burnt-in clock, a screen.

A mask belongs to the model. A person paints it, or gives polygons, in the camera's frame; it is
brought to the model's input by the one preprocessing, so that it covers every pixel of the input
that has something of a covered camera pixel in it, and one more on each side.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, ImageError
from anomaly_detector.images.compressed import decode_encoded_bytes
from anomaly_detector.images.image import Image, crop, to_rgb
from anomaly_detector.images.preprocessing import View, preprocess

LEAST_SEEN = 0.1
"""Share of the model's input that a mask has to leave."""


@dataclass(frozen=True)
class MaskSource:
    """A mask as a person gives it, in the camera's frame.

    Attributes:
        file: picture of the frame's shape: white is ignored, black is looked at.
        polygons: corners ``X,Y,X,Y,...`` of further parts to ignore, pixels of the frame.
    """

    file: Path | None = None
    polygons: Sequence[str] = ()

    def __bool__(self) -> bool:
        return self.file is not None or len(self.polygons) > 0

    def ignored(self, width: int, height: int, view: View) -> NDArray[np.bool_]:
        """Return the pixels of a model's input that are not looked at, bool [S, S].

        Args:
            width: of the camera's frame, pixels.
            height: of the same.
            view: what the model sees of it.

        Raises:
            AnomalyDetectorError: a file or polygon that is none, or a mask of nothing or of nearly
                all that the model sees.
        """
        picture = np.zeros((height, width), np.uint8)
        if self.file is not None:
            picture |= _read(self.file, width, height)
        for text in self.polygons:
            cv2.fillPoly(picture, [_corners(text, width, height)], 255)
        try:
            seen = crop(Image(picture, "mono"), view.region)
        except ImageError as error:
            raise AnomalyDetectorError(str(error)) from error
        covered = (preprocess(seen, view.size)[:, :, 0] > 0).astype(np.uint8)
        # What resizing rounds away, and the ringing of JPEG, reaches a little farther.
        ignored = cv2.dilate(covered, np.ones((3, 3), np.uint8)) > 0
        name = f"mask {self.file}" if self.file is not None else "mask of polygons"
        if not ignored.any():
            raise AnomalyDetectorError(
                f"{name} covers nothing of what the model looks at: paint white what is to be "
                "ignored, on black, or leave it out"
            )
        if (left := 1 - ignored.mean()) < LEAST_SEEN:
            raise AnomalyDetectorError(
                f"{name} leaves {left:.0%} of what the model looks at, at least {LEAST_SEEN:.0%} "
                "are needed: white is ignored, black is looked at"
            )
        return ignored


NO_MASK = MaskSource()


def _read(file: Path, width: int, height: int) -> NDArray[np.uint8]:
    """Return a painted mask in the size of the camera's frame, uint8 [H, W], 0 or 255."""
    try:
        picture = to_rgb(decode_encoded_bytes(file.read_bytes(), f"mask {file}"))
    except OSError as error:
        raise AnomalyDetectorError(
            f"mask {file} cannot be read ({error.strerror or error}): give a PNG file"
        ) from error
    except ImageError as error:
        raise AnomalyDetectorError(f"{error}; give a PNG file") from error
    rows, columns = picture.shape[:2]
    # Sizes are whole numbers: one side of the right shape may be a pixel off.
    if abs(columns * height - rows * width) >= max(width, height):
        raise AnomalyDetectorError(
            f"mask {file} has {columns}x{rows} pixels, the camera's frame {width}x{height}: give "
            "one of the whole frame, of its size or of the same shape"
        )
    others = picture[(picture != 0) & (picture != 255)]
    if len(others) or (picture != picture[:, :, :1]).any():
        value = f"grey values such as {others[0]}" if len(others) else "colours"
        raise AnomalyDetectorError(
            f"mask {file} has {value}: paint white (255) what is to be ignored and black (0) all "
            "else, without soft edges, and save it as PNG"
        )
    one = np.ascontiguousarray(picture[:, :, 0])
    return np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _corners(text: str, width: int, height: int) -> NDArray[np.int32]:
    """Return the corners of a polygon, int32 [N, 2]."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) < 6 or len(numbers) % 2:
        raise AnomalyDetectorError(
            f"mask polygon {text!r} is not X,Y,X,Y,X,Y,...: give the pixels of three corners or "
            "more, such as 0,400,640,400,640,480,0,480"
        )
    corners = np.array(numbers, np.int64).reshape(-1, 2)
    if corners.min() < 0 or (corners > (width, height)).any():
        raise AnomalyDetectorError(
            f"mask polygon {text!r} is not inside the camera's frame of {width}x{height} pixels: "
            "give corners inside it"
        )
    return corners.astype(np.int32)


@dataclass(frozen=True)
class Mask:
    """What of its input a model does not look at.

    The network sees there what lies around it, continued: each pixel is a mean of those along the
    edge, weighted by one over the square of their distance (Shepard 1968, "A two-dimensional
    interpolation function for irregularly-spaced data"), in whole grey levels. So nothing under the
    mask can matter, and there is no edge that a network would take for a thing.

    Attributes:
        ignored: bool [S, S].
    """

    ignored: NDArray[np.bool_]

    @functools.cached_property
    def edge(self) -> NDArray[np.bool_]:
        """The pixels beside it that it is filled from, bool [S, S]."""
        grown = cv2.dilate(self.ignored.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        return np.asarray(grown & ~self.ignored)

    @functools.cached_property
    def weights(self) -> NDArray[np.float32]:
        """Of each pixel of the edge in each that is ignored, float32 [K, B]; both row by row."""
        inside, edge = (np.argwhere(part).astype(np.float32) for part in (self.ignored, self.edge))
        squares = (np.square(inside[:, i, np.newaxis] - edge[:, i]) for i in (0, 1))
        weights = 1 / sum(squares)
        return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)

    def filled(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return frames, [N, S, S, 3] of any type, as the network sees them."""
        result: NDArray[Any] = images.copy()
        result[:, self.ignored] = np.rint(self.weights @ images[:, self.edge].astype(np.float32))
        return result

    def cells(self, rows: int, columns: int) -> NDArray[np.bool_]:
        """Return the cells of a map that show nothing: those that the mask covers by half."""
        share = self.ignored.astype(np.float32)
        covered = cv2.resize(share, (columns, rows), interpolation=cv2.INTER_AREA)
        return np.asarray(covered >= 0.5)

    def to_text(self) -> str:
        """Return it as the metadata hold it: a PNG in base64, white where it is ignored."""
        data = cv2.imencode(".png", np.where(self.ignored, np.uint8(255), np.uint8(0)))[1]
        return base64.b64encode(data.tobytes()).decode()

    @classmethod
    def from_text(cls, text: str, size: int) -> Mask:
        """Read :meth:`to_text`, for a model's input of some height and width.

        Raises:
            AnomalyDetectorError: it is none, or one of nothing or of all.
        """
        try:
            data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
            picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        except (binascii.Error, ValueError, cv2.error):
            picture = None
        if picture is None or picture.shape != (size, size):
            raise AnomalyDetectorError(f"'mask' is no grey PNG of {size}x{size} pixels in base64")
        ignored = np.asarray(picture > 0)
        if ignored.all() or not ignored.any():
            raise AnomalyDetectorError("'mask' covers all or nothing")
        return cls(ignored)
