"""Errors that a user can act on.

Every message is one line that names the thing, its value and the remedy, so that the command lines
and the node can print it as it is.
"""

__all__ = ["AnomalyDetectorError", "ImageError", "ModelError", "SourceError"]


class AnomalyDetectorError(Exception):
    """Base class of every error that this package raises on purpose."""


class ImageError(AnomalyDetectorError):
    """One camera frame cannot be used: bad encoding, size, step or data. Drop it and go on."""


class SourceError(AnomalyDetectorError):
    """A recording (image folder, bag, video) is missing, empty or ambiguous."""


class ModelError(AnomalyDetectorError):
    """A model file is missing, damaged, not a detector, or of another format version."""
