"""MCAP files, whole or not; of any profile, since each channel says how it is encoded."""

from __future__ import annotations

import mmap
import re
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from pathlib import Path

from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import make_reader

from anomaly_detector.recordings.bag_file import (
    Channel,
    Chunk,
    ChunkedFile,
    DamagedError,
    Lost,
    Message,
    decompressed,
    ros2_type,
)

MCAP_MAGIC = b"\x89MCAP0\r\n"

_HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_CHUNK = struct.Struct("<QQQII")
_CHUNK_HEAD = re.compile(rb"\x06.{7}\x00.{28}(?:\x00{4}|\x03\x00{3}lz4|\x04\x00{3}zstd)", re.DOTALL)

_OPCODES = frozenset(Opcode)
_PRIVATE_OPCODES = 0x80


class McapFile(ChunkedFile):
    """An MCAP file: by its summary where that is whole, else record by record."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._schemas: dict[int, str] = {}
        # Whether messages lie outside of chunks.
        self._has_loose = False
        if not self._read_summary():
            self._scan()

    def _read_summary(self) -> bool:
        """Take over the summary, and return whether it covers the whole file."""
        if self._read_at(max(0, self._size - len(MCAP_MAGIC)), len(MCAP_MAGIC)) != MCAP_MAGIC:
            return False
        try:
            self._file.seek(0)
            summary = make_reader(self._file).get_summary()
        except Exception:  # whatever damaged bytes lead to
            return False
        if summary is None or summary.statistics is None:
            return False
        statistics = summary.statistics
        indexes = summary.chunk_indexes
        if (
            statistics.channel_count != len(summary.channels)
            or statistics.chunk_count != len(indexes)
            or any(index.chunk_start_offset + index.chunk_length > self._size for index in indexes)
        ):
            return False
        self._schemas = {number: schema.name for number, schema in summary.schemas.items()}
        for channel in summary.channels.values():
            self._add(channel)
        self.counts.update(statistics.channel_message_counts)
        self._has_loose = statistics.message_count > 0 and not indexes
        self._chunks = [
            Chunk(
                index.chunk_start_offset,
                index.chunk_start_offset + _HEAD.size,
                index.chunk_start_offset + index.chunk_length,
                index.message_start_time,
                index.message_index_offsets or None,
            )
            for index in indexes
        ]
        return True

    def _scan(self) -> None:
        """Find chunks and channels without the summary."""
        try:
            for opcode, start, end, is_whole in self._records():
                if opcode == Opcode.CHUNK:
                    start_ns = int.from_bytes(self._read_at(start, 8), "little")
                    chunk = Chunk(start - _HEAD.size, start, end, start_ns, is_cut=not is_whole)
                    self._chunks.append(chunk)
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    self._declare(opcode, self._read_at(start, end - start))
                elif opcode == Opcode.MESSAGE:
                    self._has_loose = True
                    self.counts[int.from_bytes(self._read_at(start, 2), "little")] += 1
        except DamagedError as error:
            self.damage = str(error)
        self._count()

    def _records(self) -> Iterator[tuple[int, int, int, bool]]:
        """Yield opcode, start and end of the content of each record outside of chunks.

        The last value says whether the record is whole; only chunks may not be.

        Raises:
            DamagedError: at the end, when not all could be read.
        """
        position, damage = len(MCAP_MAGIC), ""
        while position < self._size:
            head = self._read_at(position, _HEAD.size)
            opcode, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                break
            start = position + _HEAD.size
            end = start + length
            is_known = opcode in _OPCODES or opcode >= _PRIVATE_OPCODES
            if is_known and end <= self._size:
                yield opcode, start, end, True
                position = end
                continue
            found = self._find_chunk(position + 1)
            damage = damage or (
                f"cut off or damaged in the record at byte {position} of {self._size}: what "
                + (
                    "cannot be read of the rest is missing"
                    if found is None
                    else f"follows to byte {found} is missing"
                )
            )
            end = self._size if found is None else found
            if opcode == Opcode.CHUNK:
                yield opcode, start, end, False
            position = end
        else:
            damage = damage or f"not closed: it ends at byte {position}"
        if damage:
            raise DamagedError(damage)

    def _find_chunk(self, position: int) -> int | None:
        """Find the first whole chunk from a position on."""
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            while match := _CHUNK_HEAD.search(content, position):
                start, end = match.start(), match.end() + 8
                _, length = _HEAD.unpack_from(content, start)
                size = int.from_bytes(content[end - 8 : end], "little")
                if start + _HEAD.size + length == end + size <= self._size:
                    return start
                position = start + 1
        return None

    def _declare(self, opcode: int, content: bytes) -> None:
        stream = ReadDataStream(BytesIO(content))
        try:
            if opcode == Opcode.SCHEMA:
                schema = records.Schema.read(stream)
                self._schemas[schema.id] = schema.name
            else:
                self._add(records.Channel.read(stream))
        except (McapError, struct.error, ValueError):
            return  # its messages are not taken for any topic's

    def _add(self, channel: records.Channel) -> None:
        kind = ros2_type(self._schemas.get(channel.schema_id, ""))
        self.channels[channel.id] = Channel(channel.topic, kind, channel.message_encoding)

    def _index(self, chunk: Chunk) -> Mapping[int, int]:
        index: Counter[int] = Counter()
        position = chunk.end
        while len(head := self._read_at(position, 15)) == 15:
            opcode, length, channel, size = struct.unpack("<BQHI", head)
            if opcode != Opcode.MESSAGE_INDEX or position + _HEAD.size + length > self._size:
                break
            if size:
                index[channel] += size // 16
            position += _HEAD.size + length
        return index

    def _read_chunk(
        self, chunk: Chunk, wanted: Collection[int] | None
    ) -> Iterator[tuple[int, int, bytes]]:
        content = memoryview(self._content(chunk))
        try:
            _, _, _, checksum, length = _CHUNK.unpack_from(content)
            start = _CHUNK.size + length
            compression = str(content[_CHUNK.size : start], "ascii")
        except (struct.error, ValueError) as error:
            raise DamagedError("its head is damaged") from error
        data = decompressed(compression, content[start + 8 :], is_cut=chunk.is_cut)
        if checksum and not chunk.is_cut and zlib.crc32(data) != checksum:
            if compression:  # which spreads the damage
                raise DamagedError("its checksum does not match")
            chunk.doubt = "has damaged bytes in it: frames in it may be wrong"
        position = 0
        while position + _HEAD.size <= len(data):
            opcode, length = _HEAD.unpack_from(data, position)
            start = position + _HEAD.size
            position = start + length
            if position > len(data):
                break
            if opcode == Opcode.MESSAGE and length >= _MESSAGE.size:
                channel, _, time_ns, _ = _MESSAGE.unpack_from(data, start)
                if wanted is None or channel in wanted:
                    yield channel, time_ns, data[start + _MESSAGE.size : position]
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._declare(opcode, data[start:position])
        if position != len(data) and not chunk.is_cut:
            raise DamagedError("it ends within a record")

    def messages(self, wanted: Collection[int]) -> Iterator[Message | Lost]:
        """See :meth:`BagFile.messages`; those outside of chunks come in the file's order."""
        yield from super().messages(wanted)
        if not self._has_loose:
            return
        left = sum(self.counts[channel] for channel in wanted)
        try:
            for opcode, start, end, _ in self._records():
                if opcode != Opcode.MESSAGE or end - start < _MESSAGE.size:
                    continue
                channel, _, time_ns, _ = _MESSAGE.unpack(self._read_at(start, _MESSAGE.size))
                if channel in wanted:
                    left -= 1
                    data = self._read_at(start + _MESSAGE.size, end - start - _MESSAGE.size)
                    yield Message(self.channels[channel], time_ns, data)
        except DamagedError as error:
            if not self.damage:  # else it is reported already
                yield Lost(max(0, left), str(error))
