"""Camera frames: messages, files and arrays to an :class:`Image`, and to the model's input.

:func:`as_image` takes whatever holds a picture, :func:`preprocess` makes the model's input of it.
A :class:`View` says which region and which range of values a model sees.
"""

from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import Image, RegionOfInterest
from anomaly_detector.images.message import as_image
from anomaly_detector.images.preprocessing import View, preprocess

__all__ = ["Image", "ImageScaling", "RegionOfInterest", "View", "as_image", "preprocess"]
