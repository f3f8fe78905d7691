"""ROS 1 bags (version 2.0), indexed or not, whole or not."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from anomaly_detector.recordings.bag_file import (
    Channel,
    Chunk,
    ChunkedFile,
    DamagedError,
    decompressed,
    ros2_type,
)

ROS1_MAGIC = b"#ROSBAG V2.0\n"

_MESSAGE, _BAG_HEADER, _INDEX, _CHUNK, _CONNECTION = 2, 3, 4, 5, 7


class Ros1File(ChunkedFile):
    """A ROS 1 bag, read record by record: its index at the end may be missing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        position, is_closed = len(ROS1_MAGIC), False
        try:
            while position < self._size:
                fields, start, end = self._record(position)
                operation = _number(fields, "op")
                if operation == _CHUNK:
                    is_cut = end > self._size
                    self._chunks.append(Chunk(position, start, end, is_cut=is_cut))
                if end > self._size:
                    raise DamagedError("a record is not whole")
                if operation == _CONNECTION:
                    self._declare(fields, self._read_at(start, end - start))
                elif operation == _BAG_HEADER:
                    is_closed = _number(fields, "index_pos") > 0
                position = end
            if not is_closed:
                self.damage = f"not closed: it ends at byte {position}"
        except DamagedError as error:
            self.damage = (
                f"cut off or damaged in the record at byte {position} of {self._size} ({error}): "
                "what cannot be read of the rest is missing"
            )
        self._count()

    def _record(self, position: int) -> tuple[dict[str, bytes], int, int]:
        """Return the fields of a record, and where its data begins and ends."""
        size = int.from_bytes(self._read_at(position, 4), "little")
        start = position + 4 + size + 4
        if not size or start > self._size:
            raise DamagedError("the head of a record is not whole")
        fields = _fields(self._read_at(position + 4, size))
        return fields, start, start + int.from_bytes(self._read_at(start - 4, 4), "little")

    def _declare(self, fields: Mapping[str, bytes], data: bytes) -> None:
        try:
            more = _fields(data)
            parts = str(fields["topic"], "utf-8").split("/")
            kind = ros2_type(str(more["type"], "utf-8"))
        except (DamagedError, KeyError, ValueError):
            return  # its messages are not taken for any topic's
        topic = "/" + "/".join(filter(None, parts))
        self.channels[_number(fields, "conn")] = Channel(topic, kind, "ros1")

    def _index(self, chunk: Chunk) -> Mapping[int, int]:
        index: Counter[int] = Counter()
        times = []
        position = chunk.end
        try:
            while position < self._size:
                fields, start, end = self._record(position)
                if _number(fields, "op") != _INDEX or end > self._size:
                    break
                if count := _number(fields, "count"):
                    index[_number(fields, "conn")] += count
                    times.append(_time(self._read_at(start, 8)))
                position = end
        except DamagedError:
            pass  # reported when the file was opened
        chunk.start_ns = min(times, default=0)
        return index

    def _read_chunk(
        self, chunk: Chunk, wanted: Collection[int] | None
    ) -> Iterator[tuple[int, int, bytes]]:
        fields, _, _ = self._record(chunk.position)
        compression = str(fields.get("compression", b""), "utf-8", "replace")
        data = decompressed(compression, self._content(chunk), is_cut=chunk.is_cut)
        position = 0
        while position + 4 <= len(data):
            start = position + 4 + int.from_bytes(data[position : position + 4], "little")
            end = start + 4 + int.from_bytes(data[start : start + 4], "little")
            if start + 4 > len(data) or end > len(data):
                if chunk.is_cut:
                    return
                raise DamagedError("it ends within a record")
            fields = _fields(data[position + 4 : start])
            operation = _number(fields, "op")
            if operation == _MESSAGE:
                connection = _number(fields, "conn")
                if wanted is None or connection in wanted:
                    yield connection, _time(fields.get("time", b"")), data[start + 4 : end]
            elif operation == _CONNECTION:
                self._declare(fields, data[start + 4 : end])
            position = end


def _fields(head: bytes) -> dict[str, bytes]:
    """Return the fields of a header: name to value."""
    fields = {}
    position = 0
    while position < len(head):
        end = position + 4 + int.from_bytes(head[position : position + 4], "little")
        name, separator, value = head[position + 4 : end].partition(b"=")
        if not separator or end > len(head):
            raise DamagedError("a header field is damaged")
        fields[str(name, "utf-8", "replace")] = value
        position = end
    return fields


def _number(fields: Mapping[str, bytes], name: str) -> int:
    if name not in fields:
        raise DamagedError(f"header field {name} is missing")
    return int.from_bytes(fields[name], "little")


def _time(data: bytes) -> int:
    try:
        seconds, nanoseconds = struct.unpack("<II", data)
    except struct.error as error:
        raise DamagedError("a time is damaged") from error
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
