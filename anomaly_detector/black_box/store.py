"""The folder that the events lie in: whole events only, and no more than fit.

Room is made by what people said of the events: samples go first, then those judged normal, those
that nobody has looked at, those they were unsure of, and anomalies, the rarest data there is. Of
equals repeats go first, then the oldest. What they want kept goes only when nothing else is left.

An event is put together in a workspace, a hidden folder with a file that the process keeps
locked, and then moved to its place in one step. After a kill the lock is gone, whatever became of
the process number, and the next black box in the same folder removes the workspace.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from anomaly_detector.black_box.events import (
    EVENT_NAME,
    SAMPLE,
    event_content,
    event_number,
    is_event,
)
from anomaly_detector.black_box.settings import BlackBoxSettings
from anomaly_detector.black_box.verdicts import REVIEW_FILE, UNREVIEWED, Verdict, read_verdict
from anomaly_detector.black_box.writing import prepare_format
from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.files import sync

_WORKSPACE_PREFIX = ".black_box_"
_LOCK = "lock"

_ORDER = ("normal", UNREVIEWED, "unsure", "anomaly")
"""Verdicts, from those whose events go first."""


def check_black_box(settings: BlackBoxSettings) -> None:
    """Refuse settings that nothing could be recorded with; nothing is made on the disk.

    Raises:
        AnomalyDetectorError: no folder is given, it cannot be made or written to, or mcap is asked
            for without ``rosbags``.
    """
    folder = settings.path
    prepare_format(settings.format)
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # too long, behind a folder of others, a zero byte
        reason = getattr(error, "strerror", None) or error
        raise AnomalyDetectorError(
            f"black box folder is {folder} ({reason}): choose another place"
        ) from error
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "not writable" if existing.is_dir() else "no folder"
        raise AnomalyDetectorError(
            f"black box folder is {folder}, and {existing} is {what}: choose another place"
        )


_UNREVIEWED = Verdict(UNREVIEWED)


@dataclass
class _Stored:
    """What is known of an event in the folder, without reading it again."""

    size: int
    is_sample: bool
    is_repeat: bool = False
    verdict: Verdict = _UNREVIEWED
    # Of the review.json that the verdict was read from.
    stamp: tuple[int, int] | None = None

    @property
    def rank(self) -> int:
        """How late it goes."""
        if self.verdict.keep:
            return len(_ORDER)
        rank = _ORDER.index(self.verdict.verdict)
        return -1 if self.is_sample and rank < _ORDER.index("unsure") else rank

    def look(self, path: Path) -> None:
        """Read what people said of it, if that has changed."""
        try:
            status = os.stat(path / REVIEW_FILE)
        except OSError:
            self.verdict, self.stamp = _UNREVIEWED, None
            return
        stamp = status.st_mtime_ns, status.st_ino
        if stamp == self.stamp:
            return
        self.stamp = stamp
        try:
            self.verdict = read_verdict(path) or _UNREVIEWED
        except SourceError:  # somebody said something of it: what, a person may still find out
            self.verdict = Verdict("anomaly")


class EventStore:
    """A folder of events, used by one thread; others may use the same folder.

    Every method may raise ``OSError``.

    Args:
        folder: made if need be.
        max_bytes: of all events together.

    Attributes:
        removed: number of events removed to make room.
        removed_unreviewed: of these, that nobody had looked at; samples do not count.
        removed_kept: of these, that were to be kept.
        bytes_on_disk: size of all events in the folder, as of the last look; other threads may
            read it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.removed = self.removed_unreviewed = self.removed_kept = 0
        self.bytes_on_disk = 0
        self._events: dict[str, _Stored] = {}
        self._workspace: Path | None = None
        self._lock: int | None = None

    def open(self) -> None:
        """Make folder and workspace where they are missing, and clear up what others left."""
        if self._workspace is not None and (self._workspace / _LOCK).exists():
            return
        self._release()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_stale_workspaces()
        self._look()
        while self._workspace is None:
            path = Path(tempfile.mkdtemp(prefix=_WORKSPACE_PREFIX, dir=self.folder))
            self._lock = _locked(path / _LOCK, os.O_CREAT)
            # Another box that clears up may have seen it before it was locked.
            if self._lock is not None and (path / _LOCK).exists():
                self._workspace = path
            else:
                self._release()

    def close(self) -> None:
        """Remove the workspace."""
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            shutil.rmtree(workspace, ignore_errors=True)
        self._release()

    def begin(self) -> Path:
        """Return the path of a new event, for a folder to be made there; one at a time."""
        self.open()
        assert self._workspace is not None
        path = self._workspace / "event"
        if path.exists():
            shutil.rmtree(path)
        return path

    def make_room(self, open_bytes: int, *, is_sample: bool = False) -> bool:
        """Remove events until an open one of this size fits; a sample removes only samples.

        Returns:
            Whether it does.
        """
        self._shrink_to(self.max_bytes - open_bytes, is_sample)
        return self.bytes_on_disk + open_bytes <= self.max_bytes

    def publish(
        self, path: Path, began: datetime, *, is_sample: bool = False, is_repeat: bool = False
    ) -> Path:
        """Move a complete event to its place, and remove others to make room for it.

        Args:
            path: where :meth:`begin` said.
            began: UTC.
            is_sample: whether it is one.
            is_repeat: whether it repeats another.

        Returns:
            Where it is now.
        """
        size = _size(path)
        self._look()
        self._shrink_to(self.max_bytes - size, is_sample)
        number = max(map(event_number, os.listdir(self.folder)), default=0)
        while True:
            number += 1
            target = self.folder / f"event_{began:%Y%m%dT%H%M%SZ}_{number:06d}"
            # A folder of that name that is not empty refuses to be replaced; that no empty one
            # is, is looked at here.
            if os.path.lexists(target):
                continue
            try:
                path.rename(target)
                break
            except OSError:
                if not os.path.lexists(target):
                    raise
        sync(self.folder)
        self._events[target.name] = _Stored(size, is_sample, is_repeat)
        self.bytes_on_disk += size
        return target

    def _look(self) -> None:
        """Find the events, which others may have written or removed."""
        names = [name for name in os.listdir(self.folder) if EVENT_NAME.fullmatch(name)]
        self._events = {
            name: stored
            for name in names
            if (stored := self._events.get(name) or self._stored(self.folder / name)) is not None
        }
        self.bytes_on_disk = sum(stored.size for stored in self._events.values())

    def _stored(self, path: Path) -> _Stored | None:
        content = event_content(path)
        if content is None:
            return None
        is_sample, is_repeat = content.get("event_kind") == SAMPLE, bool(content.get("repeat_of"))
        return _Stored(_size(path), is_sample, is_repeat)

    def _shrink_to(self, max_bytes: int, for_sample: bool) -> None:
        if self.bytes_on_disk <= max_bytes:
            return
        for name, stored in self._events.items():
            stored.look(self.folder / name)
        going = sorted(
            (stored.rank, not stored.is_repeat, event_number(name), name)
            for name, stored in self._events.items()
        )
        for rank, _, _, name in going:
            if self.bytes_on_disk <= max_bytes or (for_sample and rank >= 0):
                break
            self._remove(name)

    def _remove(self, name: str) -> None:
        path, stored = self.folder / name, self._events.pop(name)
        # Looked at again: what was an event may have been replaced since.
        if is_event(path) and self._workspace is not None:
            # Moved first, so that a kill in between leaves no half event.
            moved = self._workspace / f"removed_{self.removed}"
            try:
                path.rename(moved)
            except FileNotFoundError:  # removed by another
                pass
            else:
                shutil.rmtree(moved)
                self.removed += 1
                self.removed_kept += stored.verdict.keep
                is_lost = not (stored.verdict.is_reviewed or stored.is_sample)
                self.removed_unreviewed += is_lost
        self.bytes_on_disk -= stored.size

    def _remove_stale_workspaces(self) -> None:
        for path in self.folder.glob(f"{_WORKSPACE_PREFIX}*"):
            if path.is_symlink() or not path.is_dir():
                continue
            try:
                lock = _locked(path / _LOCK)
            except (FileNotFoundError, PermissionError):
                # About to be locked by another, or never was and is empty; or of another user.
                continue
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        self._workspace = None
        if lock is not None:
            os.close(lock)


def _locked(path: Path, flags: int = 0) -> int | None:
    """Open a file and lock it for as long as it is open; None when another has it."""
    handle = os.open(path, os.O_RDWR | flags, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        os.close(handle)
        raise
    return handle


def _size(folder: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):  # another box has removed it
        for path in folder.iterdir():
            total += path.lstat().st_size
    return total
