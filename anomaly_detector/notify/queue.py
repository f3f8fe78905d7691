"""Notices that wait on the disk until they are delivered, also over a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomaly_detector.errors import OutputError
from anomaly_detector.files import atomic_path

_SUFFIX, _REFUSED = ".json", ".refused"


class DiskQueue:
    """A folder with one file a notice, the oldest first. One thread puts, another takes.

    Args:
        folder: is made where it is not there.
        max_bytes: of all files; the oldest are removed to keep it.

    Attributes:
        removed: notices that were removed to make room.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, max_bytes: float) -> None:
        self.folder = folder
        self.removed = 0
        self._max_bytes = max_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"queue {folder} cannot be made ({error.strerror}): choose another place"
            ) from error

    def put(self, content: Mapping[str, Any]) -> Path:
        """Write a notice; it is complete or absent, also after a power cut.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.folder / f"{time.time_ns():020d}{_SUFFIX}"
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        self._make_room(path)
        return path

    def _make_room(self, newest: Path) -> None:
        files = sorted(self.folder.glob(f"*{_REFUSED}")) + self.waiting()
        sizes = {path: path.stat().st_size for path in files if path.exists()}
        for path in files:
            if sum(sizes.values()) <= self._max_bytes or path == newest:
                return
            path.unlink(missing_ok=True)
            self.removed += sizes.pop(path, 0) > 0

    def waiting(self) -> list[Path]:
        """Return the files of all notices that wait, the oldest first."""
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def done(self, path: Path) -> None:
        """Remove a notice that has been delivered."""
        path.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> Path:
        """Keep a notice that nobody will ever take, beside the others; return its file."""
        return path.rename(path.with_suffix(_REFUSED))
