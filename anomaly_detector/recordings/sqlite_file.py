"""SQLite files of rosbag2 (``.db3``), whole or not, with what lies in their write-ahead log."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from anomaly_detector.recordings.bag_file import (
    BagFile,
    Channel,
    DamagedError,
    Lost,
    Message,
    ros2_type,
)

_ROW = "id, topic_id, timestamp, data"

_SIDE_FILES = ("-wal", "-journal")
"""What SQLite keeps beside a file until it is closed: rows that are not in the file itself."""

_FUTILE_ROWS = 2000
"""Rows that cannot be read in a row, after which no more are looked for."""


class SqliteFile(BagFile):
    """A SQLite file; it is never written to, and nothing is written beside it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stack = contextlib.ExitStack()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        side_files = [Path(f"{self.path}{suffix}") for suffix in _SIDE_FILES]
        side_files = [file for file in side_files if file.is_file() and file.stat().st_size]
        uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
        if side_files:
            # SQLite takes these rows over into the file: into a copy of it.
            try:
                folder = self._stack.enter_context(tempfile.TemporaryDirectory())
                for file in (self.path, *side_files):
                    shutil.copyfile(file, Path(folder) / file.name)
            except OSError as error:
                names = ", ".join(file.name for file in side_files)
                self.damage = (
                    f"read without {names} ({error.strerror}): make room in "
                    f"{tempfile.gettempdir()} for a copy, or set TMPDIR"
                )
            else:
                uri = (Path(folder) / self.path.name).as_uri()
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._database = self._stack.enter_context(contextlib.closing(connection))
        self._database.text_factory = lambda data: data.decode(errors="replace")
        # Else SQLite refuses to read a file that is shorter than it was.
        self._database.execute("PRAGMA writable_schema=ON")
        try:
            topics = self._database.execute(
                "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
            ).fetchall()
        except sqlite3.Error as error:
            raise DamagedError(f"damaged or no bag ({error})") from error
        for number, name, kind, encoding in topics:
            self.channels[number] = Channel(str(name), ros2_type(str(kind)), str(encoding or "cdr"))
        try:
            self.counts.update(
                dict(self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY 1"))
            )
        except sqlite3.Error as error:
            self.damage = f"cut off or damaged ({error})"
            self.counts.update(topic for (topic,) in self._rescue("topic_id"))

    def messages(self, wanted: Collection[int]) -> Iterator[Message | Lost]:
        """See :meth:`BagFile.messages`."""
        left = sum(self.counts[topic] for topic in wanted)
        seen = set()
        places = ",".join("?" * len(wanted))
        query = f"SELECT {_ROW} FROM messages WHERE topic_id IN ({places}) ORDER BY timestamp, id"
        try:
            for row in self._database.execute(query, tuple(wanted)):
                seen.add(row[0])
                yield self._message(row)
        except sqlite3.Error as error:
            for row in self._rescue(_ROW):
                if row[1] in wanted and row[0] not in seen:
                    seen.add(row[0])
                    yield self._message(row)
            if left > len(seen) or not self.damage:
                yield Lost(max(0, left - len(seen)), f"rows cannot be read ({error})")

    def _message(self, row: tuple[Any, ...]) -> Message | Lost:
        number, topic, time_ns, data = row
        if isinstance(time_ns, int) and isinstance(data, bytes):
            return Message(self.channels[topic], time_ns, data)
        return Lost(1, f"row {number} is damaged")

    def _rescue(self, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield what can be read of all rows one by one, by their numbers."""
        number = futile = 0
        while futile < _FUTILE_ROWS:
            number, futile = number + 1, futile + 1
            with contextlib.suppress(sqlite3.Error):
                query = f"SELECT {columns} FROM messages WHERE id = ?"
                for row in self._database.execute(query, (number,)):
                    futile = 0
                    yield row

    def close(self) -> None:
        """See :meth:`BagFile.close`."""
        self._stack.close()
