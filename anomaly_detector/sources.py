"""Recordings as streams of frames: a folder of images, a ROS bag or a video file.

Training and offline scoring read through this one layer. A source holds one full-size frame at a
time. Frames that cannot be read are recorded in :attr:`FrameSource.unreadable` and skipped; a
source that yields nothing at all is an error.
"""

from __future__ import annotations

import abc
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np

from anomaly_detector.encodings import ImageScaling
from anomaly_detector.errors import ImageError, SourceError, as_one_line
from anomaly_detector.image import Pixels, decode_compressed, decode_encoded_bytes, decode_image
from anomaly_detector.ordered_pool import map_in_order
from anomaly_detector.pixels import crop
from anomaly_detector.preprocessing import WHOLE_FRAME, View

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "BagSource",
    "Frame",
    "FrameSource",
    "ImageFilesSource",
    "ImageFolderSource",
    "UnreadableFrame",
    "VideoSource",
    "expand_sources",
    "find_image_topic",
    "is_bag",
    "list_image_topics",
    "natural_key",
    "open_bag",
    "open_source",
    "path_identity",
    "usable_cores",
]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"})
_BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})
_IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Frame:
    """One frame of a recording.

    Attributes:
        name: file name, or the frame's number in a bag's topic or a video as six digits.
        stamp_ns: header stamp of a bag's message, or time since the start of a video, in
            nanoseconds; None for a folder of images.
        pixels: the picture, full size unless a reduced one was asked for.
    """

    name: str
    stamp_ns: int | None
    pixels: Pixels


@dataclass(frozen=True)
class UnreadableFrame:
    """A frame that was skipped, and why."""

    name: str
    reason: str


_PendingFrame: TypeAlias = Callable[[], "Frame | UnreadableFrame"]
"""Decodes one frame whose bytes are at hand or in a file of their own; from any thread."""

_WAITING_PER_WORKER = 4
"""Frames begun or waiting for their turn, a worker: they bound the memory."""


class FrameSource(abc.ABC):
    """A recording that can be read from start to end, any number of times.

    Attributes:
        path: where it is.
        view: the part of each frame that is given and how deep pictures are scaled; may be set
            before a pass. A frame that its region does not fit into counts as unreadable.
        unreadable: the frames skipped by the newest pass, in order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.view: View = WHOLE_FRAME
        self.unreadable: list[UnreadableFrame] = []
        # Whether the newest pass may decode JPEG at reduced scale.
        self._reduced = False

    @abc.abstractmethod
    def __len__(self) -> int:
        """Give the number of frames that the recording says it has; some may be unreadable."""

    @abc.abstractmethod
    def _frames(self) -> Iterator[Frame | UnreadableFrame]:
        """Yield every frame in order."""

    def _pending(self) -> Iterator[_PendingFrame]:
        """Yield what decodes each frame, in order; whole frames unless a subclass can do better."""
        for item in self._frames():
            yield partial(_same, item)

    def _mapped(
        self, function: Callable[[Frame], _T], workers: int
    ) -> Iterator[_T | UnreadableFrame]:
        """Yield ``function`` of every frame in order."""

        def decode(pending: _PendingFrame) -> _T | UnreadableFrame:
            item = self._cropped(pending())
            return item if isinstance(item, UnreadableFrame) else function(item)

        if workers <= 1:
            yield from map(decode, self._pending())
            return
        # Threads, not processes: OpenCV decodes and resizes without the interpreter's lock.
        waiting = _WAITING_PER_WORKER * workers
        yield from map_in_order(decode, self._pending(), workers, waiting)

    @property
    def identity(self) -> str:
        """A text that tells this recording from others; changes when the files change."""
        return path_identity(self.path)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the readable frames in order.

        Raises:
            SourceError: at the end, when not one frame was readable.
        """
        return self._readable(map(self._cropped, self._frames()), reduced=False)

    def _cropped(self, item: Frame | UnreadableFrame) -> Frame | UnreadableFrame:
        if isinstance(item, UnreadableFrame) or self.view.region.is_whole_frame:
            return item
        try:
            return replace(item, pixels=crop(item.pixels, self.view.region))
        except ImageError as error:
            return UnreadableFrame(item.name, str(error))

    def mapped(
        self, function: Callable[[Frame], _T], workers: int = 1, *, reduced: bool = False
    ) -> Iterator[_T]:
        """Yield ``function`` of the readable frames, in order.

        Args:
            function: called once for every readable frame; with several workers from any thread.
            workers: threads that decode and call ``function`` at the same time. A bag's messages
                and a video's frames are read in one thread; of a video, that decodes them too.
            reduced: whether the frames are only wanted for
                :func:`~anomaly_detector.preprocessing.shrink`, so that JPEG may be decoded at
                reduced scale (:func:`~anomaly_detector.image.decode_encoded_bytes`). The node
                does so too.

        Raises:
            SourceError: at the end, when not one frame was readable.
        """
        return self._readable(self._mapped(function, workers), reduced=reduced)

    def _readable(self, items: Iterator[_T | UnreadableFrame], *, reduced: bool) -> Iterator[_T]:
        self.unreadable = []
        # A region's edges may lie between the pixels of a reduced picture.
        self._reduced = reduced and self.view.region.is_whole_frame
        count = 0
        for item in items:
            if isinstance(item, UnreadableFrame):
                self.unreadable.append(item)
            else:
                count += 1
                yield item
        if count == 0:
            detail = ""
            if self.unreadable:
                first = self.unreadable[0]
                detail = f" (all {len(self.unreadable)} unreadable; {first.name}: {first.reason})"
            raise SourceError(f"{self.path} has no readable frame{detail}: give another recording")


class ImageFilesSource(FrameSource):
    """A list of image files, in the order given.

    Args:
        path: the folder that they belong to, for messages and for :attr:`identity`.
        files: the image files.
    """

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path)
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def identity(self) -> str:
        """See :attr:`FrameSource.identity`."""
        stats = [(f, f.stat()) for f in self.files]
        lines = [(os.path.relpath(f, self.path), s.st_size, s.st_mtime_ns) for f, s in stats]
        return f"{self.path.resolve()}|{lines}"

    def _frames(self) -> Iterator[Frame | UnreadableFrame]:
        return (_read_image_file(file, self.view.scaling, self._reduced) for file in self.files)

    def _pending(self) -> Iterator[_PendingFrame]:
        return (
            partial(_read_image_file, file, self.view.scaling, self._reduced) for file in self.files
        )


class ImageFolderSource(ImageFilesSource):
    """The images directly in a folder, in natural order (``2.jpg`` before ``10.jpg``)."""

    def __init__(self, path: Path) -> None:
        files = sorted(
            (f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()),
            key=lambda f: natural_key(f.name),
        )
        if not files:
            raise SourceError(
                f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}), bag or video: "
                "give the folder that directly holds the frames"
            )
        super().__init__(path, files)


def _read_image_file(
    file: Path, scaling: ImageScaling | None, reduced: bool
) -> Frame | UnreadableFrame:
    try:
        pixels = decode_encoded_bytes(
            file.read_bytes(), file.name, scaling=scaling, reduced=reduced
        )
    except (ImageError, OSError) as error:
        return UnreadableFrame(file.name, str(error))
    return Frame(file.name, None, pixels)


class BagSource(FrameSource):
    """One image topic of a rosbag2 (sqlite3 or mcap, folder or single file) or a ROS 1 bag.

    Args:
        path: the bag's folder or file.
        topic: the image topic; None when the bag has just one.

    Raises:
        SourceError: the bag cannot be opened, has no image topic, or more than one to choose from.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        super().__init__(path)
        self.topic, self._count = find_image_topic(path, topic)

    def __len__(self) -> int:
        return self._count

    @property
    def identity(self) -> str:
        """See :attr:`FrameSource.identity`."""
        return f"{super().identity}|{self.topic}"

    def _frames(self) -> Iterator[Frame | UnreadableFrame]:
        return (pending() for pending in self._pending())

    def _pending(self) -> Iterator[_PendingFrame]:
        with open_bag(self.path) as reader:
            connections = [c for c in reader.connections if c.topic == self.topic]
            messages = reader.messages(connections=connections)
            for index in range(self._count):
                name = f"{index:06d}"
                try:
                    connection, _, data = next(messages)
                except StopIteration:
                    missing = self._count - index
                    reason = f"the bag ends {missing} messages early"
                    yield partial(_same, UnreadableFrame(name, reason))
                    return
                except Exception as error:  # storage errors: sqlite, mcap, zstd, struct, ...
                    reason = f"the bag is damaged from here on: {error}"
                    yield partial(_same, UnreadableFrame(name, reason))
                    return
                try:
                    # Here, not by the worker: a reader that is closed knows no types.
                    message = reader.deserialize(data, connection.msgtype)
                except Exception as error:  # whatever a damaged CDR payload runs into
                    reason = f"message cannot be deserialized: {error}"
                    yield partial(_same, UnreadableFrame(name, reason))
                    continue
                yield partial(
                    _decode_message,
                    message,
                    connection.msgtype,
                    name,
                    self.view.scaling,
                    self._reduced,
                )


def _same(item: Frame | UnreadableFrame) -> Frame | UnreadableFrame:
    return item


def _decode_message(
    message: Any, message_type: str, name: str, scaling: ImageScaling | None, reduced: bool
) -> Frame | UnreadableFrame:
    stamp = message.header.stamp
    try:
        if message_type == _IMAGE_TYPES[1]:
            pixels = decode_compressed(message, scaling=scaling, reduced=reduced)
        else:
            pixels = decode_image(message, scaling=scaling)
    except ImageError as error:
        return UnreadableFrame(name, str(error))
    return Frame(name, int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec), pixels)


class VideoSource(FrameSource):
    """A video file that OpenCV can read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        capture = self._open()
        self._count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise SourceError(f"{self.path} cannot be opened as a video: is it whole?")
        return capture

    def __len__(self) -> int:
        return self._count

    def _frames(self) -> Iterator[Frame | UnreadableFrame]:
        capture = self._open()
        try:
            index = 0
            while True:
                readable, picture = capture.read()
                if not readable:
                    break
                milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
                pixels = Pixels(np.asarray(picture, dtype=np.uint8), "bgr")
                yield Frame(f"{index:06d}", round(milliseconds * 1e6), pixels)
                index += 1
            if index < self._count:
                reason = f"the video ends {self._count - index} frames early"
                yield UnreadableFrame(f"{index:06d}", reason)
        finally:
            capture.release()


def open_source(path: str | Path, topic: str | None = None) -> FrameSource:
    """Open a recording of any kind.

    Args:
        path: a folder of images, a rosbag2 folder, an .mcap, .db3 or .bag file, or a video file.
        topic: the image topic of a bag; only needed when it has more than one.

    Raises:
        SourceError: nothing there, or nothing in it that this package reads.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"{path} does not exist: give an image folder, a bag or a video")
    source: FrameSource
    if is_bag(path):
        return BagSource(path, topic)
    if topic is not None:
        raise SourceError(f"{path} is not a bag, so it has no topic {topic!r}: leave the topic out")
    if path.is_dir():
        bags = sorted(f.name for f in path.iterdir() if f.suffix.lower() in _BAG_SUFFIXES)
        if bags:
            raise SourceError(
                f"{path} holds {', '.join(bags)} but no metadata.yaml: the recording was cut off; "
                f"run 'ros2 bag reindex {path}' or give the file itself"
            )
        source = ImageFolderSource(path)
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        source = VideoSource(path)
    else:
        raise SourceError(
            f"{path} is no bag ({', '.join(sorted(_BAG_SUFFIXES))}) or video "
            f"({', '.join(sorted(VIDEO_SUFFIXES))}): give one of these or an image folder"
        )
    return source


def expand_sources(texts: Sequence[str]) -> list[str]:
    """Give the recordings that a command line names, each once.

    Args:
        texts: recordings, or shell patterns for them (``runs/2026-*``), which are expanded here
            so that they can be quoted. Of a pattern's matches, files that are neither a bag nor a
            video are left out.

    Returns:
        In the order given, a pattern's matches in natural order. What is no pattern stays as it
        is, there or not.

    Raises:
        SourceError: a pattern matches no recording.
    """
    found: list[str] = []
    for text in texts:
        if Path(text).exists() or not re.search(r"[*?[]", text):
            found.append(text)
            continue
        matches = [match for match in glob.glob(text, recursive=True) if _may_be_source(match)]
        if not matches:
            raise SourceError(
                f"pattern {text} matches no folder, bag or video: check it with 'ls -d {text}'"
            )
        found += sorted(matches, key=natural_key)
    unique: dict[Path, str] = {}
    for text in found:
        unique.setdefault(Path(text).resolve(), text)
    return list(unique.values())


def _may_be_source(text: str) -> bool:
    path = Path(text)
    return path.is_dir() or path.suffix.lower() in _BAG_SUFFIXES | VIDEO_SUFFIXES


def path_identity(path: Path) -> str:
    """Give a text that changes when a recording's files change (names, sizes, times).

    Raises:
        OSError: it is not there.
    """
    path.stat()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return f"{path.resolve()}|{stats}"


def usable_cores() -> int:
    """Give the number of processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def is_bag(path: Path) -> bool:
    """Tell whether a path is a rosbag2 folder or a bag file, by its name and contents."""
    is_file = path.is_file() and path.suffix.lower() in _BAG_SUFFIXES
    return is_file or (path / "metadata.yaml").is_file()


def list_image_topics(path: Path) -> dict[str, tuple[str, int]]:
    """Give a bag's image topics: name to message type and number of messages.

    Raises:
        SourceError: the bag cannot be opened.
    """
    topics: dict[str, tuple[str, int]] = {}
    with open_bag(path) as reader:
        for connection in reader.connections:
            if connection.msgtype in _IMAGE_TYPES:
                _, count = topics.get(connection.topic, ("", 0))
                topics[connection.topic] = (connection.msgtype, count + connection.msgcount)
    return topics


def find_image_topic(path: Path, topic: str | None = None) -> tuple[str, int]:
    """Choose a bag's image topic.

    Args:
        path: the bag.
        topic: the wanted topic; None when the bag has just one.

    Returns:
        The topic and its number of messages.

    Raises:
        SourceError: no image topic, the wanted one is not there, it is empty, or several are
            there and none was asked for.
    """
    topics = list_image_topics(path)
    listed = ", ".join(f"{name} ({kind}, {count})" for name, (kind, count) in topics.items())
    if not topics:
        raise SourceError(
            f"bag {path} has no sensor_msgs/Image or CompressedImage topic: "
            "record the camera topic too"
        )
    if topic is None:
        filled = [name for name, (_, count) in topics.items() if count]
        if not filled:
            raise SourceError(f"bag {path} has no image message ({listed}): record it again")
        if len(filled) > 1:
            raise SourceError(
                f"bag {path} has several image topics: choose one with --topic: {listed}"
            )
        topic = filled[0]
    if topic not in topics:
        raise SourceError(f"bag {path} has no image topic {topic!r}, it has {listed}")
    count = topics[topic][1]
    if not count:
        raise SourceError(f"bag {path} has no message on {topic}: record it again")
    return topic, count


@contextmanager
def open_bag(path: Path) -> Iterator[Any]:
    """Open a ``rosbags.highlevel.AnyReader``, turning what damaged files raise into our error."""
    # Imported here: the node needs no bag reader.
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    try:
        # Bags of Humble and older carry no message definitions: image messages never changed.
        reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except Exception as error:  # sqlite3, mcap, yaml, zstd: each has errors of its own
        reason = as_one_line(error) or type(error).__name__
        raise SourceError(
            f"bag {path} cannot be opened ({reason}): copy or record it again"
        ) from error
    try:
        yield reader
    finally:
        reader.close()


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Give a sort key that orders the numbers in names by value (``2`` before ``10``)."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]
