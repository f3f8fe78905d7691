"""An image topic of a ROS bag as a recording, whole or not.

A drive cannot be recorded again. So what is whole is read, and what is missing is named. Only the
types of images matter, and these are known without the bag; the definitions, counts, QoS and file
names that tools wrote into it decide nothing.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from anomaly_detector.errors import ImageError, SourceError, as_one_line
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.message import decode_compressed, decode_image
from anomaly_detector.recordings.bag_file import (
    BagFile,
    DamagedError,
    Lost,
    Message,
    decompressed,
)
from anomaly_detector.recordings.base import (
    Frame,
    FrameSource,
    PendingFrame,
    UnreadableFrame,
    natural_key,
    same,
)
from anomaly_detector.stamps import FrameClock, stamp_to_ns

BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})
_READER = "bags/2"
"""Part of a recording's identity: an older reader gave up where damage began."""

_IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_ENCODINGS = ("cdr", "ros1")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_PACKET_TYPES = {
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": "ffmpeg",
    "theora_image_transport/msg/Packet": "theora",
}
"""Types of video packets, and the transport of ``image_transport`` that makes images of them."""


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
        return f"{super().identity}|{self.topic}|{_READER}"

    def _frames(self) -> Iterator[Frame | UnreadableFrame]:
        return (pending() for pending in self._pending())

    def _pending(self) -> Iterator[PendingFrame]:
        index = 0
        clock = FrameClock()
        with open_bag(self.path) as bag:
            for item in bag.messages(self.topic):
                if isinstance(item, UnreadableFrame):
                    yield partial(same, item)
                    index += item.frames
                    continue
                name = f"{index:06d}"
                index += 1
                try:
                    message = deserialize(item)
                except Exception as error:  # whatever a damaged payload runs into
                    reason = f"message cannot be deserialized: {as_one_line(error)}"
                    yield partial(same, UnreadableFrame(name, reason))
                    continue
                stamp_ns = stamp_to_ns(message.header.stamp)
                yield partial(
                    _decode_message,
                    message,
                    item.channel.type,
                    name,
                    stamp_ns,
                    clock.time_ns(stamp_ns, item.time_ns),
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


@functools.cache
def _typestore(name: str = "LATEST") -> Any:
    # Imported here: the node needs no bag reader.
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores[name])


def _unpacked(message: Message) -> bytes:
    data = message.data
    # No serialized message begins so; the bag's metadata may not say it, or be missing.
    return decompressed("zstd", data) if data.startswith(_ZSTD_MAGIC) else data


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


class Bag:
    """An open bag, of one or several files.

    Attributes:
        path: where it is.
        files: those that can be read, in order.
        problems: with its files as a whole.
        stated: topic and type to number of messages, as ``metadata.yaml`` says.
    """

    def __init__(
        self,
        path: Path,
        files: list[BagFile],
        problems: list[UnreadableFrame],
        stated: Counter[tuple[str, str]],
    ) -> None:
        self.path = path
        self.files = files
        self.problems = problems
        self.stated = stated

    def image_types(self) -> dict[str, Counter[str]]:
        """Return the image topics: name to number of messages of each type."""
        counts: dict[str, Counter[str]] = {}
        for file in self.files:
            for number, channel in file.channels.items():
                if channel.type in _IMAGE_TYPES and channel.encoding in _ENCODINGS:
                    types = counts.setdefault(channel.topic, Counter())
                    types[channel.type] += file.counts[number]
        return counts

    def image_topics(self) -> dict[str, tuple[str, int]]:
        """Return the image topics: name to type and number of messages.

        A topic that has messages of both image types is given the type of most.
        """
        return {
            topic: (types.most_common(1)[0][0], types.total())
            for topic, types in self.image_types().items()
        }

    def image_topic(self, topic: str | None = None) -> tuple[str, int]:
        """Choose an image topic, see :func:`find_image_topic`."""
        topics = self.image_topics()
        listed = ", ".join(f"{name} ({kind}, {count})" for name, (kind, count) in topics.items())
        if not topics:
            raise SourceError(self._no_image_topic())
        if topic is None:
            filled = [name for name, (_, count) in topics.items() if count]
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
        count = topics[topic][1]
        if not count:
            raise SourceError(f"bag {self.path} has no message on {topic}{self._damage()}")
        return topic, count

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
    paths, problems, stated = _contents(path)
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
    if head.startswith(_ZSTD_MAGIC):
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


def _contents(
    path: Path,
) -> tuple[list[Path], list[UnreadableFrame], Counter[tuple[str, str]]]:
    """Return a bag's files in order, what is known to be missing, and the stated counts."""
    if not path.is_dir():
        return [path], [], Counter()
    present = _bag_files(path)
    try:
        named, stated = _read_metadata(path / "metadata.yaml")
    except FileNotFoundError:
        if len({re.sub(r"_\d+$", "", PurePath(_bare_name(file)).stem) for file in present}) > 1:
            names = ", ".join(file.name for file in present)
            raise SourceError(
                f"{path} holds {names} but no metadata.yaml: give them one by one, or as '{path}/*'"
            ) from None
        problem = "missing: whether a file is missing, too, is not known"
        return present, [UnreadableFrame("metadata.yaml", problem, 0)], Counter()
    except Exception:  # whatever is in it
        problem = "empty or damaged: whether a file is missing is not known"
        return present, [UnreadableFrame("metadata.yaml", problem, 0)], Counter()
    by_name = {_bare_name(file): file for file in present}
    known = [by_name.pop(name) for name in map(_bare_name, named) if name in by_name]
    others = list(by_name.values())
    if known:
        # Of another format may be what somebody converted.
        others = [file for file in others if bag_suffix(file) == bag_suffix(known[0])]
    missing = [
        name for name in named if _bare_name(name) not in {_bare_name(file) for file in known}
    ]
    problems = []
    if len(missing) > len(others):  # else they were renamed
        problems = [
            UnreadableFrame(name.name, "missing, but named in metadata.yaml", 0) for name in missing
        ]
    files = [*known, *others] if not missing else sorted([*known, *others], key=_order)
    return files, problems, stated


def _read_metadata(path: Path) -> tuple[list[PurePath], Counter[tuple[str, str]]]:
    """Return the files that a bag's metadata names, and how many messages it counts on topics."""
    import yaml

    information = yaml.safe_load(path.read_bytes())["rosbag2_bagfile_information"]
    named = [PurePath(str(name)) for name in information["relative_file_paths"]]
    stated: Counter[tuple[str, str]] = Counter()
    for entry in information.get("topics_with_message_count") or ():
        topic = entry["topic_metadata"]
        stated[topic["name"], topic["type"]] += int(entry["message_count"])
    return named, stated


def _order(path: PurePath) -> list[tuple[int, int | str]]:
    return natural_key(path.name)


def _bag_files(folder: Path) -> list[Path]:
    """Return the bag files in a folder, in natural order; of a packed one only what it was."""
    files = {f.name: f for f in folder.iterdir() if bag_suffix(f) and f.is_file()}
    kept = [f for f in files.values() if _bare_name(f) == f.name or _bare_name(f) not in files]
    return sorted(kept, key=_order)


def _bare_name(path: PurePath) -> str:
    """Return a bag file's name without what says that it is packed or was not closed."""
    return re.sub(r"\.(zstd?|active)$", "", path.name, flags=re.IGNORECASE)


def bag_suffix(path: PurePath) -> str:
    """Return the suffix that tells a bag's format, in small letters; nothing for other files."""
    suffix = PurePath(_bare_name(path)).suffix.lower()
    return suffix if suffix in BAG_SUFFIXES else ""


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag's folder or file, by its name and contents."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_bag_files(path))
    return path.is_file() and bool(bag_suffix(path))


def list_image_topics(path: Path) -> dict[str, tuple[str, int]]:
    """Return a bag's image topics: name to message type and number of messages.

    Raises:
        SourceError: the bag cannot be opened.
    """
    with open_bag(path) as bag:
        return bag.image_topics()


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
    with open_bag(path) as bag:
        return bag.image_topic(topic)
