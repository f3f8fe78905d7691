"""An image topic of a ROS bag as a recording, whole or not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from anomaly_detector.errors import ImageError, as_one_line
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.message import as_image
from anomaly_detector.recordings.bag import open_bag
from anomaly_detector.recordings.bag_file import ZSTD_MAGIC, Message, decompressed
from anomaly_detector.recordings.base import (
    AnyFrame,
    Frame,
    FrameSource,
    MaybePending,
    UnreadableFrame,
)
from anomaly_detector.stamps import FrameClock, stamp_to_ns

_READER = "bags/2"
"""Part of a recording's identity: an older reader gave up where damage began."""


class BagSource(FrameSource):
    """One image topic of a rosbag2 (sqlite3 or mcap, folder or single file) or a ROS 1 bag.

    Args:
        path: the bag's folder or file.
        topic: the image topic; None when the bag has just one.

    Attributes:
        topic: the image topic.
        message_type: of its messages; of most of them where it has both.

    Raises:
        SourceError: the bag cannot be opened, has no image topic, or more than one to choose from.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        super().__init__(path)
        with open_bag(path) as bag:
            self.topic, types = bag.image_topic(topic)
            self.files = [path / "metadata.yaml", *(file.path for file in bag.files)]
        self.message_type, self._count = types.most_common(1)[0][0], types.total()

    def __len__(self) -> int:
        return self._count

    @property
    def identity(self) -> str:
        """See :attr:`FrameSource.identity`."""
        return f"{super().identity}|{self.topic}|{_READER}"

    def _frames(self) -> Iterator[MaybePending]:
        clock = FrameClock()
        decode = partial(_decode, scaling=self.view.scaling, reduced=self._reduced)
        for item in self.messages():
            if isinstance(item, UnreadableFrame):
                yield item
                continue
            name, message, recorded_ns = item
            stamp_ns = stamp_to_ns(message.header.stamp)
            yield partial(decode, message, name, stamp_ns, clock.time_ns(stamp_ns, recorded_ns))

    def messages(self) -> Iterator[tuple[str, Any, int] | UnreadableFrame]:
        """Yield the name of each frame, its message, and when it was recorded, nanoseconds."""
        index = 0
        with open_bag(self.path) as bag:
            for item in bag.messages(self.topic):
                if isinstance(item, UnreadableFrame):
                    yield item
                    index += item.frames
                    continue
                name = f"{index:06d}"
                index += 1
                try:
                    message = deserialize(item)
                except Exception as error:  # whatever a damaged payload runs into
                    reason = f"message cannot be deserialized: {as_one_line(error)}"
                    yield UnreadableFrame(name, reason)
                    continue
                yield name, message, item.time_ns


def _decode(
    message: Any,
    name: str,
    stamp_ns: int | None,
    time_ns: int,
    *,
    scaling: ImageScaling | None,
    reduced: bool,
) -> AnyFrame:
    try:
        pixels = as_image(message, scaling=scaling, reduced=reduced)
    except ImageError as error:
        return UnreadableFrame(name, str(error))
    return Frame(name, stamp_ns, pixels, time_ns)


@cache
def _typestore(name: str = "LATEST") -> Any:
    # Imported here: the node needs no bag reader.
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores[name])


def _unpacked(message: Message) -> bytes:
    data = message.data
    # No serialized message begins so; the bag's metadata may not say it, or be missing.
    return decompressed("zstd", data) if data.startswith(ZSTD_MAGIC) else data


def deserialize(message: Message) -> Any:
    """Return a message of a type that ROS 2 ships, as ``rosbags`` reads it.

    Raises:
        Exception: of many kinds, when its bytes are damaged.
    """
    data, kind = _unpacked(message), message.channel.type
    if message.channel.encoding == "ros1":
        return _typestore("ROS1_NOETIC").deserialize_ros1(data, kind)
    return _typestore().deserialize_cdr(data, kind)


def to_cdr(message: Message) -> bytes:
    """Return a message as ROS 2 serializes it; that is how it was recorded, but for ROS 1 bags.

    Raises:
        Exception: of many kinds, when its bytes are damaged.
    """
    data = _unpacked(message)
    if message.channel.encoding == "ros1":
        return bytes(_typestore().ros1_to_cdr(data, message.channel.type))
    return data
