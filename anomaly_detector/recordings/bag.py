"""A ROS bag of one or several files, whole or not.

A drive cannot be recorded again. So what is whole is read, and what is missing is named. Only the
types of images matter, and these are known without the bag; the definitions, counts, QoS and file
names that tools wrote into it decide nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from anomaly_detector.errors import SourceError, as_one_line
from anomaly_detector.recordings.bag_file import ZSTD_MAGIC, BagFile, DamagedError, Lost, Message
from anomaly_detector.recordings.bag_folder import bag_contents, bag_suffix
from anomaly_detector.recordings.base import UnreadableFrame

_IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_ENCODINGS = ("cdr", "ros1")

_PACKET_TYPES = {
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": "ffmpeg",
    "theora_image_transport/msg/Packet": "theora",
}
"""Types of video packets, and the transport of ``image_transport`` that makes images of them."""


@dataclass(frozen=True)
class Bag:
    """An open bag, of one or several files.

    Attributes:
        path: where it is.
        files: those that can be read, in order.
        problems: with its files as a whole.
        stated: topic and type to number of messages, as ``metadata.yaml`` says.
    """

    path: Path
    files: list[BagFile]
    problems: list[UnreadableFrame]
    stated: Counter[tuple[str, str]]

    def image_topics(self) -> dict[str, Counter[str]]:
        """Return the image topics: name to number of messages of each type."""
        topics: dict[str, Counter[str]] = {}
        for file in self.files:
            for number, channel in file.channels.items():
                if channel.type in _IMAGE_TYPES and channel.encoding in _ENCODINGS:
                    types = topics.setdefault(channel.topic, Counter())
                    types[channel.type] += file.counts[number]
        return topics

    def image_topic(self, topic: str | None = None) -> tuple[str, Counter[str]]:
        """Choose an image topic.

        Args:
            topic: the wanted topic; None when the bag has just one.

        Returns:
            The topic, and its number of messages of each type.

        Raises:
            SourceError: no image topic, the wanted one is not there, it is empty, or several are
                there and none was asked for.
        """
        topics = self.image_topics()
        listed = ", ".join(
            f"{name} ({types.most_common(1)[0][0]}, {types.total()})"
            for name, types in topics.items()
        )
        if not topics:
            raise SourceError(self._no_image_topic())
        if topic is None:
            filled = [name for name, types in topics.items() if types.total()]
            if not filled:
                raise SourceError(
                    f"bag {self.path} has no image message ({listed}){self._damage()}"
                )
            if len(filled) > 1:
                raise SourceError(
                    f"bag {self.path} has several image topics: choose one with --topic: {listed}"
                )
            topic = filled[0]
        if topic not in topics:
            raise SourceError(f"bag {self.path} has no image topic {topic!r}, it has {listed}")
        if not topics[topic].total():
            raise SourceError(f"bag {self.path} has no message on {topic}{self._damage()}")
        return topic, topics[topic]

    def _damage(self) -> str:
        """Return what is wrong with the files, to go on with in an error."""
        problems = [
            *map(str, self.problems),
            *(f"{file.path.name}: {file.damage}" for file in self.files if file.damage),
        ]
        return "".join(f"; {problem}" for problem in problems) or ": record the camera topic too"

    def _no_image_topic(self) -> str:
        channels = [channel for file in self.files for channel in file.channels.values()]
        for channel in channels:
            transport = _PACKET_TYPES.get(channel.type)
            if transport is not None:
                return (
                    f"bag {self.path} has no image topic, but video packets on {channel.topic} "
                    f"({channel.type}): play it, record what 'ros2 run image_transport republish "
                    f"{transport} raw' makes of that topic, and give that bag"
                )
            if channel.type in _IMAGE_TYPES:
                return (
                    f"bag {self.path} has images on {channel.topic} in the encoding "
                    f"{channel.encoding!r}: convert it to cdr"
                )
        return f"bag {self.path} has no sensor_msgs/Image or CompressedImage topic{self._damage()}"

    def messages(
        self, topic: str, types: tuple[str, ...] = _IMAGE_TYPES
    ) -> Iterator[Message | UnreadableFrame]:
        """Yield the messages of a topic, file by file, each in the order of their times.

        Args:
            topic: its name.
            types: messages of other types on it are left out.
        """
        yield from self.problems
        index = 0
        is_damaged = bool(self.problems)
        for file in self.files:
            wanted = {
                number
                for number, channel in file.channels.items()
                if channel.topic == topic
                and channel.type in types
                and channel.encoding in _ENCODINGS
            }
            for item in file.messages(wanted) if wanted else ():
                if isinstance(item, Lost):
                    name = f"{index:06d}" if item.frames else file.path.name
                    reason = f"{file.path.name}: {item.reason}" if item.frames else item.reason
                    yield UnreadableFrame(name, reason, item.frames)
                    is_damaged = True
                    index += item.frames
                else:
                    yield item
                    index += 1
            if file.damage:
                yield UnreadableFrame(file.path.name, file.damage, 0)
                is_damaged = True
        more = sum(self.stated[topic, kind] for kind in types) - index
        if more > 0:
            # A count proves nothing: it is only trusted where something is known to be missing.
            if is_damaged:
                reason = f"missing, as metadata.yaml counts {index + more} on {topic}"
                yield UnreadableFrame(f"{index:06d}", reason, more)
            else:
                reason = f"counts {index + more} messages on {topic}, {index} are there"
                yield UnreadableFrame("metadata.yaml", reason, 0)


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag: a folder or a single file.

    Raises:
        SourceError: nothing in it can be read.
    """
    paths, problems, stated = bag_contents(path)
    with ExitStack() as stack:
        files = []
        for file in paths:
            try:
                files.append(_open_file(file, stack))
            except (DamagedError, OSError) as error:
                reason = getattr(error, "strerror", None) or as_one_line(error)
                problems.append(UnreadableFrame(file.name, reason, 0))
        if not files:
            raise SourceError(
                f"bag {path} cannot be read: {'; '.join(map(str, problems)) or 'it has no file'}"
            )
        yield Bag(path, files, problems, stated)


def _open_file(path: Path, stack: ExitStack) -> BagFile:
    # Imported here: the node needs no bag reader.
    from anomaly_detector.recordings.mcap_file import MCAP_MAGIC, McapFile
    from anomaly_detector.recordings.ros1_file import ROS1_MAGIC, Ros1File
    from anomaly_detector.recordings.sqlite_file import SqliteFile

    with path.open("rb") as file:
        head = file.read(16)
    content = path
    if head.startswith(ZSTD_MAGIC):
        content = _decompressed_file(path, stack)
        with content.open("rb") as file:
            head = file.read(16)
    opened: BagFile
    if head.startswith(MCAP_MAGIC):
        opened = McapFile(content)
    elif head.startswith(ROS1_MAGIC):
        opened = Ros1File(content)
    elif bag_suffix(path) == ".db3":
        opened = SqliteFile(content)
    else:
        kind = {".mcap": "an MCAP file", ".bag": "a ROS 1 bag"}.get(bag_suffix(path), "a bag")
        raise DamagedError("empty" if not head else f"does not begin as {kind} does")
    opened.path = path
    stack.callback(opened.close)
    return opened


def _decompressed_file(path: Path, stack: ExitStack) -> Path:
    import zstandard

    try:
        content = Path(stack.enter_context(tempfile.TemporaryDirectory()), path.stem)
        with path.open("rb") as packed, content.open("wb") as unpacked:
            reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
            shutil.copyfileobj(reader, unpacked)
    except OSError as error:
        raise DamagedError(
            f"no room to decompress it into {tempfile.gettempdir()} ({error.strerror}): make room "
            "there, set TMPDIR, or decompress it with 'unzstd'"
        ) from error
    except zstandard.ZstdError:
        pass  # what was decompressed may be whole in part
    return content
