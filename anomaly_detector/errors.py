"""Errors that a user can act on.

Every message is one line that names the thing, its value and the remedy, so that the command lines
and the node can print it as it is.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "IMAGE_ERROR_REASONS",
    "AnomalyDetectorError",
    "ImageError",
    "ImageErrorReason",
    "ModelError",
    "OutputError",
    "SourceError",
    "as_one_line",
    "describe_error",
]

ImageErrorReason = Literal["encoding", "size", "step", "data", "decode", "depth", "roi"]

IMAGE_ERROR_REASONS: dict[ImageErrorReason, str] = {
    "encoding": "unknown or empty",
    "size": "zero, giant, or odd where the encoding cannot have it",
    "step": "shorter than a row",
    "data": "missing, too short or too long",
    "decode": "a damaged or unknown compressed picture, or a failed conversion",
    "depth": "depth without a scaling, or without a finite value",
    "roi": "the region of interest is not inside the frame",
}
"""Every value of :attr:`ImageError.reason`, with what is wrong: for counters of dropped frames."""


class AnomalyDetectorError(Exception):
    """Base class of every error that this package raises on purpose."""


class ImageError(AnomalyDetectorError):
    """One camera frame cannot be used: bad encoding, size, step or data. Drop it and go on.

    Attributes:
        reason: a key of :data:`IMAGE_ERROR_REASONS`.
    """

    def __init__(self, message: str, *, reason: ImageErrorReason) -> None:
        super().__init__(message)
        self.reason: ImageErrorReason = reason

    def __reduce__(self) -> tuple[object, ...]:
        """Make copies between processes keep the reason."""
        return (_image_error, (str(self), self.reason))


def _image_error(message: str, reason: ImageErrorReason) -> ImageError:
    return ImageError(message, reason=reason)


def as_one_line(error: object) -> str:
    """Give an error's text on one line, whatever another library made of it."""
    return " ".join(str(error).split())


def describe_error(error: Exception) -> str:
    """Give an unexpected error on one line, with its type."""
    return f"{type(error).__name__}: {as_one_line(error)}"


class SourceError(AnomalyDetectorError):
    """A recording (image folder, bag, video) is missing, empty or ambiguous."""


class ModelError(AnomalyDetectorError):
    """A model file is missing, damaged, not a detector, or of another format version."""


class OutputError(AnomalyDetectorError):
    """A file or folder cannot be written: no room, no permission, or a place that is taken."""
