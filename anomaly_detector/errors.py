"""Errors that a user can act on.

Every message is one line that names the thing, its value and the remedy, so that the command lines
and the node can print it as it is.
"""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "IMAGE_ERROR_REASONS",
    "AnomalyDetectorError",
    "ImageError",
    "ImageErrorReason",
    "ModelError",
    "SourceError",
]

ImageErrorReason = Literal["encoding", "size", "step", "data", "decode", "depth", "roi"]

IMAGE_ERROR_REASONS: tuple[ImageErrorReason, ...] = get_args(ImageErrorReason)
"""Every value of :attr:`ImageError.reason`, for counters of dropped frames."""


class AnomalyDetectorError(Exception):
    """Base class of every error that this package raises on purpose."""


class ImageError(AnomalyDetectorError):
    """One camera frame cannot be used: bad encoding, size, step or data. Drop it and go on.

    Attributes:
        reason: a short word for counters: ``encoding`` (unknown or empty), ``size`` (zero or
            giant), ``step`` (shorter than a row), ``data`` (missing, too short or too long),
            ``decode`` (a damaged or unknown compressed picture, or a failed conversion), ``depth``
            (needs a scaling, or no pixel has a value), ``roi`` (outside the frame).
    """

    def __init__(self, message: str, *, reason: ImageErrorReason) -> None:
        super().__init__(message)
        self.reason: ImageErrorReason = reason

    def __reduce__(self) -> tuple[object, ...]:
        """Make copies between processes keep the reason."""
        return (_image_error, (str(self), self.reason))


def _image_error(message: str, reason: ImageErrorReason) -> ImageError:
    return ImageError(message, reason=reason)


class SourceError(AnomalyDetectorError):
    """A recording (image folder, bag, video) is missing, empty or ambiguous."""


class ModelError(AnomalyDetectorError):
    """A model file is missing, damaged, not a detector, or of another format version."""
