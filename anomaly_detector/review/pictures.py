"""Pictures of recorded events: as recorded, small, and with the model's overlay."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.drawing.overlay import draw_overlay
from anomaly_detector.errors import SourceError
from anomaly_detector.images.compressed import decode_encoded_bytes
from anomaly_detector.images.image import Image, to_bgr
from anomaly_detector.images.preprocessing import WHOLE_FRAME, preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import deserialize, open_bag
from anomaly_detector.recordings.base import UnreadableFrame
from anomaly_detector.review.catalog import Entry

THUMBNAIL_WIDTH = 320
_CACHE_BYTES = 48_000_000
_QUALITY = 85

_AS_THEY_ARE = ((b"\xff\xd8", "image/jpeg"), (b"\x89PNG", "image/png"), (b"RIFF", "image/webp"))
_DEPTH_OF_PNG = 24
"""Place of the byte with the bits of a channel; browsers show 16 of them as 8."""


class Pictures:
    """Makes pictures on demand, and keeps the small ones in memory up to a limit.

    Args:
        detector: for overlays and for what it sees of a frame; None for neither.
    """

    def __init__(self, detector: Detector | None = None) -> None:
        self._detector = detector
        self._kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._scoring = threading.Lock()

    def frame(self, entry: Entry, number: int) -> tuple[bytes, str]:
        """Return a frame as it was recorded, and its type, where a browser shows it.

        Raises:
            IndexError: no such frame.
            SourceError: it is missing.
            ImageError: it is damaged.
        """
        data = frame_bytes(entry, number)
        for magic, kind in _AS_THEY_ARE:
            if data.startswith(magic) and not (magic == b"\x89PNG" and data[_DEPTH_OF_PNG] == 16):
                return data, kind
        return _jpeg(to_bgr(self._decoded(data, entry, number))), "image/jpeg"

    def thumbnail(self, entry: Entry, number: int) -> bytes:
        """Return a frame as a small JPEG; errors as of :meth:`frame`."""
        key = (entry.id, entry.seen[:3], number)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        array = to_bgr(self._decoded(frame_bytes(entry, number), entry, number, reduced=True))
        height = max(1, round(array.shape[0] * THUMBNAIL_WIDTH / array.shape[1]))
        data = _jpeg(cv2.resize(array, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA))
        with self._lock:
            self._kept[key] = data
            while sum(map(len, self._kept.values())) > _CACHE_BYTES:
                self._kept.popitem(last=False)
        return data

    def overlay(self, entry: Entry, number: int) -> bytes:
        """Return a frame with what the model says of it now, as JPEG; errors as of :meth:`frame`.

        Raises:
            SourceError: no model was given.
        """
        if self._detector is None:
            raise SourceError("no model was given: start the page with --model")
        image = self._decoded(frame_bytes(entry, number), entry, number)
        frame = entry.event.frames[number]
        with self._scoring:
            detection = self._detector.detect(image)
        return _jpeg(draw_overlay(image, detection, is_alarm=frame.phase == "during"))

    def preprocessed(self, entry: Entry, number: int) -> NDArray[np.uint8]:
        """Return a frame as a model sees it, uint8 [H, W, 3] RGB; errors as of :meth:`frame`."""
        image = self._decoded(frame_bytes(entry, number), entry, number, reduced=True)
        if self._detector is None:
            return preprocess(image)
        return np.asarray(self._detector.prepare(image).array, np.uint8)

    def _decoded(self, data: bytes, entry: Entry, number: int, *, reduced: bool = False) -> Image:
        view = WHOLE_FRAME if self._detector is None else self._detector.view
        # A region's edges may lie between the pixels of a reduced picture.
        reduced = reduced and view.region.is_whole_frame
        name = entry.picture(number)
        return decode_encoded_bytes(data, name, scaling=view.scaling, reduced=reduced)


def frame_bytes(entry: Entry, number: int) -> bytes:
    """Return a recorded picture's bytes.

    Raises:
        IndexError: no such frame.
        SourceError: it is missing, or a link.
    """
    event = entry.event
    if not 0 <= number < len(event.frames):
        raise IndexError(number)
    if event.format == "mcap":
        return _bag_bytes(event.path, entry.facts["topic"], int(event.frames[number].name))
    name = event.frames[number].name
    # What event.json says may come from anywhere.
    if Path(name).name != name or name in ("", ".", ".."):
        raise SourceError(f"{event.path}: frame {name!r} is no file of the event")
    path = event.path / name
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"{path} is missing or a link: copy the event again") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SourceError(f"{path} is no file: copy the event again")
        return file.read()


def _bag_bytes(path: Path, topic: str, place: int) -> bytes:
    linked = [item.name for item in path.iterdir() if item.is_symlink()]
    if linked:
        raise SourceError(f"{path / linked[0]} is a link: copy the event again")
    with open_bag(path) as bag:
        index = 0
        for item in bag.messages(topic):
            if isinstance(item, UnreadableFrame):
                index += item.frames
            elif index == place:
                return bytes(deserialize(item).data)
            else:
                index += 1
    raise SourceError(f"{path} has no frame {place}: copy the event again")


def _jpeg(array: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", array, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
