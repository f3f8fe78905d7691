"""Errors that a user can act on.

Every message is one line that names the thing, its value and the remedy, so that the command lines
and the node can print it as it is.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

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
    """Base class of every error that this package raises on purpose.

    Example:
        >>> try:
        ...     Detector("corridor", threshold=float("nan"))
        ... except AnomalyDetectorError as error:
        ...     print(error)
        threshold is nan: give a finite number

    Attributes:
        exit_code: of a command that ends with it.
    """

    exit_code = 1


class ImageError(AnomalyDetectorError):
    """One camera frame cannot be used: bad encoding, size, step or data. Drop it and go on.

    Example:
        >>> try:
        ...     Detector("corridor").detect(np.zeros((480, 640, 3), np.uint8))
        ... except ImageError as error:
        ...     print(error)
        array of shape (480, 640, 3) has no order: give order='bgr' or order='rgb'

    Attributes:
        reason: a key of :data:`IMAGE_ERROR_REASONS`.
    """

    def __init__(self, message: str, *, reason: ImageErrorReason) -> None:
        super().__init__(message)
        self.reason: ImageErrorReason = reason

    def __reduce__(self) -> tuple[object, ...]:
        """Make copies between processes keep the reason."""
        return partial(ImageError, reason=self.reason), (str(self),)


def as_one_line(error: object) -> str:
    """Return an error's text on one line, whatever another library made of it."""
    return " ".join(str(error).split())


def describe_error(error: Exception) -> str:
    """Return an unexpected error on one line, with its type."""
    return f"{type(error).__name__}: {as_one_line(error)}"


class SourceError(AnomalyDetectorError):
    """A recording (image folder, bag, video) is missing, empty or ambiguous.

    Example:
        >>> try:
        ...     Detector("corridor").stream("no_such_bag")
        ... except SourceError as error:
        ...     print(error)
        no_such_bag does not exist: give an image folder, a bag or a video
    """


class ModelError(AnomalyDetectorError):
    """A model file is missing, damaged, not a detector, or of another format version.

    Example:
        >>> try:
        ...     Detector("attic")
        ... except ModelError as error:
        ...     print(error)
        model 'attic' is neither a file nor a model in ...
    """


class OutputError(AnomalyDetectorError):
    """A file or folder cannot be written: no room, no permission, or a place that is taken."""


class Interrupted(AnomalyDetectorError):
    """Ctrl-C came before there was a result."""

    exit_code = 130
