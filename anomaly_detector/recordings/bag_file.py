"""One file of a bag, whatever its format: its channels, and the messages that are whole."""

from __future__ import annotations

import abc
import bz2
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_MOST_OF_CUT = 1 << 28
"""Bytes that are read of a chunk that is cut off, at most."""


class DamagedError(Exception):
    """A part of a file cannot be read; the message says why."""


class Channel(NamedTuple):
    """What a topic was recorded as; a topic may have several channels.

    Attributes:
        topic: its name.
        type: of its messages, as in ROS 2 (``sensor_msgs/msg/Image``).
        encoding: of its messages: ``cdr``, ``ros1``, or what other tools write.
    """

    topic: str
    type: str
    encoding: str


class Message(NamedTuple):
    """A message as it was recorded: its channel, time of recording (nanoseconds) and bytes."""

    channel: Channel
    time_ns: int
    data: bytes


class Lost(NamedTuple):
    """Messages that cannot be read: how many (0 when that is not known), and why."""

    frames: int
    reason: str


class BagFile(abc.ABC):
    """A file that is open for reading.

    Attributes:
        path: where it is.
        channels: number to channel.
        counts: number of a channel to its number of messages, as far as the file says.
        damage: what is wrong with the file as a whole; empty when nothing is known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self.damage = ""

    @abc.abstractmethod
    def messages(self, wanted: Collection[int]) -> Iterator[Message | Lost]:
        """Yield the messages of some channels in the order of their times."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the file."""


@dataclass
class Chunk:
    """A stretch of a file that is compressed as one.

    Attributes:
        position: of its record, bytes from the start of the file.
        start: of its content.
        end: of its content, as far as the file has it.
        start_ns: earliest time of its messages.
        channels: that have messages in it; None when only reading it shows.
        is_cut: the file ends in it.
        doubt: why not all that was read of it may be right.
    """

    position: int
    start: int
    end: int
    start_ns: int = 0
    channels: Collection[int] | None = None
    is_cut: bool = False
    doubt: str = ""


class ChunkedFile(BagFile):
    """A file of records, most of which are chunks: MCAP and ROS 1."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.open("rb")
        self._size = path.stat().st_size
        self._chunks: list[Chunk] = []

    @abc.abstractmethod
    def _read_chunk(
        self, chunk: Chunk, wanted: Collection[int] | None
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, time and data of messages, of all channels for None.

        Channels that the chunk declares are taken over.

        Raises:
            DamagedError: it cannot be read.
        """

    @abc.abstractmethod
    def _index(self, chunk: Chunk) -> Mapping[int, int]:
        """Return the numbers of messages of channels that the index behind a chunk gives."""

    def _read_at(self, position: int, length: int) -> bytes:
        if position > self._size:  # of an absurd length, which no seek takes
            return b""
        self._file.seek(position)
        return self._file.read(length)

    def _content(self, chunk: Chunk) -> bytes:
        """Return what the file has of a chunk; the length of one that is cut off may be absurd."""
        end = min(chunk.end, self._size)
        if chunk.is_cut:
            end = min(end, chunk.start + _MOST_OF_CUT)
        return self._read_at(chunk.start, end - chunk.start)

    def _count(self) -> None:
        """Count the messages of chunks; reads those without an index or with unknown channels."""
        for chunk in self._chunks:
            index = self._index(chunk)
            if not index or not index.keys() <= self.channels.keys():
                found, _ = self._read(chunk, None)
                index = index or Counter(channel for channel, _, _ in found)
                chunk.start_ns = min((time_ns for _, time_ns, _ in found), default=0)
            chunk.channels = index.keys() or None
            self.counts.update(index)

    def _read(
        self, chunk: Chunk, wanted: Collection[int] | None
    ) -> tuple[list[tuple[int, int, bytes]], str]:
        """Return what :meth:`_read_chunk` yields, and what is wrong with the rest."""
        found = []
        try:
            for item in self._read_chunk(chunk, wanted):
                found.append(item)
        except DamagedError as error:
            return found, f"is damaged ({error})"
        return found, chunk.doubt

    def messages(self, wanted: Collection[int]) -> Iterator[Message | Lost]:
        """See :meth:`BagFile.messages`."""
        chunks = [c for c in self._chunks if c.channels is None or set(wanted) & set(c.channels)]
        # Chunks may overlap in time: they may be of several topics or writers.
        waiting: list[tuple[int, int, Message | Lost]] = []
        numbers = itertools.count()
        for chunk in sorted(chunks, key=lambda chunk: chunk.start_ns):
            while waiting and waiting[0][0] < chunk.start_ns:
                yield heapq.heappop(waiting)[2]
            found, damage = self._read(chunk, wanted)
            last_ns = chunk.start_ns
            for channel, last_ns, data in found:
                message = Message(self.channels[channel], last_ns, data)
                heapq.heappush(waiting, (last_ns, next(numbers), message))
            if damage:
                index = self._index(chunk)
                missing = sum(index.get(channel, 0) for channel in wanted) - len(found)
                reason = f"the chunk at byte {chunk.position} {damage}"
                lost = Lost(max(0, missing), reason)
                heapq.heappush(waiting, (last_ns, next(numbers), lost))
        while waiting:
            yield heapq.heappop(waiting)[2]

    def close(self) -> None:
        """See :meth:`BagFile.close`."""
        self._file.close()


def decompressed(compression: str, data: bytes | memoryview, *, is_cut: bool = False) -> bytes:
    """Return what was compressed; of data that is cut off, as far as it goes.

    Args:
        compression: ``bz2``, ``lz4``, ``zstd``, or nothing.
        data: compressed.
        is_cut: the data is known to be cut off.

    Raises:
        DamagedError: the data or the name of the compression is damaged.
    """
    if compression in ("", "none"):
        return bytes(data)
    # Imported here: the node needs no bag reader.
    import lz4.frame
    import zstandard

    decompressors: Mapping[str, Callable[[], Any]] = {
        "bz2": bz2.BZ2Decompressor,
        "lz4": lz4.frame.LZ4FrameDecompressor,
        "zstd": zstandard.ZstdDecompressor().decompressobj,
    }
    if compression not in decompressors:
        raise DamagedError(f"unknown compression {compression!r}")
    decompressor = decompressors[compression]()
    try:
        content: bytes = decompressor.decompress(data)
    except (zstandard.ZstdError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise DamagedError(f"{compression}: {error}") from error
    if not decompressor.eof and not is_cut:
        raise DamagedError(f"{compression}: cut off")
    return content


def ros2_type(name: str) -> str:
    """Return a message type's name in the form of ROS 2, whatever form it is given in."""
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else name
