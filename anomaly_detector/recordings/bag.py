"""An image topic of a ROS bag as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from anomaly_detector.encodings import ImageScaling
from anomaly_detector.errors import ImageError, SourceError, as_one_line
from anomaly_detector.image import decode_compressed, decode_image
from anomaly_detector.recordings.base import (
    Frame,
    FrameSource,
    PendingFrame,
    UnreadableFrame,
    same,
)
from anomaly_detector.stamps import FrameClock, stamp_to_ns

BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})
_IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


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

    def _pending(self) -> Iterator[PendingFrame]:
        with open_bag(self.path) as reader:
            connections = [c for c in reader.connections if c.topic == self.topic]
            messages = reader.messages(connections=connections)
            clock = FrameClock()
            for index in range(self._count):
                name = f"{index:06d}"
                try:
                    connection, recorded_ns, data = next(messages)
                except StopIteration:
                    missing = self._count - index
                    reason = f"the bag ends {missing} messages early"
                    yield partial(same, UnreadableFrame(name, reason))
                    return
                except Exception as error:  # storage errors: sqlite, mcap, zstd, struct, ...
                    reason = f"the bag is damaged from here on: {error}"
                    yield partial(same, UnreadableFrame(name, reason))
                    return
                try:
                    # Here, not by the worker: a reader that is closed knows no types.
                    message = reader.deserialize(data, connection.msgtype)
                except Exception as error:  # whatever a damaged CDR payload runs into
                    reason = f"message cannot be deserialized: {error}"
                    yield partial(same, UnreadableFrame(name, reason))
                    continue
                stamp_ns = stamp_to_ns(message.header.stamp)
                yield partial(
                    _decode_message,
                    message,
                    connection.msgtype,
                    name,
                    stamp_ns,
                    clock.time_ns(stamp_ns, recorded_ns),
                    self.view.scaling,
                    self._reduced,
                )


def _decode_message(
    message: Any,
    message_type: str,
    name: str,
    stamp_ns: int | None,
    time_ns: int,
    scaling: ImageScaling | None,
    reduced: bool,
) -> Frame | UnreadableFrame:
    try:
        if message_type == _IMAGE_TYPES[1]:
            pixels = decode_compressed(message, scaling=scaling, reduced=reduced)
        else:
            pixels = decode_image(message, scaling=scaling)
    except ImageError as error:
        return UnreadableFrame(name, str(error))
    return Frame(name, stamp_ns, pixels, time_ns)


def is_bag(path: Path) -> bool:
    """Tell whether a path is a rosbag2 folder or a bag file, by its name and contents."""
    is_file = path.is_file() and path.suffix.lower() in BAG_SUFFIXES
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
