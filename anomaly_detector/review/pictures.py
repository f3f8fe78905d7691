"""Pictures of recorded events: as recorded, small, and with the model's overlay."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext
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
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.recordings import deserialize, open_bag
from anomaly_detector.recordings.base import UnreadableFrame
from anomaly_detector.review.catalog import Entry

THUMBNAIL_WIDTH = 320
_SMALL_BYTES = 48_000_000
_AHEAD_BYTES = 32_000_000
_QUALITY = 85

_AS_THEY_ARE = ((b"\xff\xd8", "image/jpeg"), (b"\x89PNG", "image/png"), (b"RIFF", "image/webp"))
_DEPTH_OF_PNG = 24
"""Place of the byte with the bits of a channel; browsers show 16 of them as 8."""


Key = tuple[str, tuple[int, ...], int]
"""An event's id, the state of its ``event.json``, and the number of a frame or of a message."""


class _Kept:
    """Pictures in memory; those that were used the longest ago go first.

    Args:
        limit: bytes of all together.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._pictures: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> bytes | None:
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def put(self, key: Key, data: bytes) -> None:
        with self._lock:
            self._bytes += len(data) - len(self._pictures.pop(key, b""))
            self._pictures[key] = data
            while self._bytes > self._limit:
                self._bytes -= len(self._pictures.popitem(last=False)[1])


class Pictures:
    """Makes pictures on demand; keeps the small ones and those of films in memory, up to limits.

    Args:
        detector: for overlays and for what it sees of a frame; None for neither.
    """

    def __init__(self, detector: Detector | None = None) -> None:
        self._detector = detector
        self._small, self._ahead = _Kept(_SMALL_BYTES), _Kept(_AHEAD_BYTES)
        self._reading = threading.Lock()
        self._scoring = threading.Lock()

    def frame(self, entry: Entry, number: int) -> tuple[bytes, str]:
        """Return a frame as it was recorded, and its type, where a browser shows it.

        Raises:
            IndexError: no such frame.
            SourceError: it is missing.
            ImageError: it is damaged.
        """
        data = self._recorded(entry, number, ahead=True)
        for magic, kind in _AS_THEY_ARE:
            if data.startswith(magic) and not (magic == b"\x89PNG" and data[_DEPTH_OF_PNG] == 16):
                return data, kind
        return _jpeg(to_bgr(self._decoded(data, entry, number))), "image/jpeg"

    def thumbnail(self, entry: Entry, number: int) -> bytes:
        """Return a frame as a small JPEG; errors as of :meth:`frame`."""
        key = _key(entry, number)
        if (kept := self._small.get(key)) is not None:
            return kept
        array = to_bgr(self._decoded(self._recorded(entry, number), entry, number, reduced=True))
        height = max(1, round(array.shape[0] * THUMBNAIL_WIDTH / array.shape[1]))
        data = _jpeg(cv2.resize(array, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA))
        self._small.put(key, data)
        return data

    def overlay(self, entry: Entry, number: int) -> bytes:
        """Return a frame with what the model says of it now, as JPEG; errors as of :meth:`frame`.

        Raises:
            SourceError: no model was given.
        """
        image, detection = self.detect(entry, number, ahead=True)
        frame = entry.event.frames[number]
        return _jpeg(draw_overlay(image, detection, is_alarm=frame.phase == "during"))

    def detect(self, entry: Entry, number: int, *, ahead: bool = False) -> tuple[Image, Detection]:
        """Return a frame with what the model says of it now; errors as of :meth:`overlay`.

        Args:
            entry: the event.
            number: of the frame.
            ahead: a film will ask for the frames after this one.
        """
        if self._detector is None:
            raise SourceError("no model was given: start the page with --model")
        image = self._decoded(self._recorded(entry, number, ahead=ahead), entry, number)
        with self._scoring:
            return image, self._detector.detect(image)

    def preprocessed(self, entry: Entry, number: int) -> NDArray[np.uint8]:
        """Return a frame as a model sees it, uint8 [H, W, 3] RGB; errors as of :meth:`frame`."""
        image = self._decoded(self._recorded(entry, number), entry, number, reduced=True)
        if self._detector is None:
            return preprocess(image)
        return np.asarray(self._detector.prepare(image).array, np.uint8)

    def _recorded(self, entry: Entry, number: int, *, ahead: bool = False) -> bytes:
        """Return a recorded picture's bytes.

        Args:
            entry: the event.
            number: of the frame.
            ahead: a film will ask for the frames after this one: keep them, since a bag is read
                from its start.

        Raises:
            IndexError: no such frame.
            SourceError: it is missing, or a link.
        """
        event = entry.event
        if not 0 <= number < len(event.frames):
            raise IndexError(number)
        name = event.frames[number].name
        if event.format != "mcap":
            return _file_bytes(event.path, name)
        place, found, taken = int(name) if name.isdecimal() else -1, None, 0
        # The requests for one film come together: the first one reads, the others find it kept.
        with self._reading if ahead else nullcontext():
            if (kept := self._ahead.get(_key(entry, place))) is not None:
                return kept
            for index, data in _bag_pictures(event.path, entry.facts["topic"], place):
                found = data if index == place else found
                taken += len(data)
                if not ahead or taken > _AHEAD_BYTES:
                    break
                self._ahead.put(_key(entry, index), data)
        if found is None:
            raise SourceError(f"{event.path} has no readable frame {name}: copy the event again")
        return found

    def _decoded(self, data: bytes, entry: Entry, number: int, *, reduced: bool = False) -> Image:
        view = WHOLE_FRAME if self._detector is None else self._detector.view
        # A region's edges may lie between the pixels of a reduced picture.
        reduced = reduced and view.region.is_whole_frame
        name = entry.picture(number)
        return decode_encoded_bytes(data, name, scaling=view.scaling, reduced=reduced)


def _key(entry: Entry, number: int) -> Key:
    return entry.id, entry.seen[:3], number


def _file_bytes(folder: Path, name: str) -> bytes:
    # What event.json says may come from anywhere.
    if Path(name).name != name or name in ("", ".", ".."):
        raise SourceError(f"{folder}: frame {name!r} is no file of the event")
    path = folder / name
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"{path} is missing or a link: copy the event again") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SourceError(f"{path} is no file: copy the event again")
        return file.read()


def _bag_pictures(path: Path, topic: str, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield the readable pictures of a bag from a place on, with their places."""
    linked = [item.name for item in path.iterdir() if item.is_symlink()]
    if linked:
        raise SourceError(f"{path / linked[0]} is a link: copy the event again")
    with open_bag(path) as bag:
        index = 0
        for item in bag.messages(topic):
            if isinstance(item, UnreadableFrame):
                index += item.frames
                continue
            if index >= first:
                try:
                    data = bytes(deserialize(item).data)
                except Exception:  # of many kinds, when its bytes are damaged
                    data = b""
                if data:
                    yield index, data
            index += 1


def _jpeg(array: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", array, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
