"""Shrunk frames of a recording in one memory-mapped uint8 array.

A recording is decoded and shrunk once; training then reads 12 KB a frame from the page cache,
whatever the recording's size, and holds no more of it in memory than the system sees fit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.errors import SourceError
from anomaly_detector.files import atomic_directory
from anomaly_detector.preprocessing import INPUT_SIZE, RESIZE_METHOD, shrink
from anomaly_detector.sources import FrameSource, UnreadableFrame

__all__ = ["CachedFrames", "cache_frames", "default_cache_folder"]

_FRAME_BYTES = INPUT_SIZE * INPUT_SIZE * 3


@dataclass(frozen=True)
class CachedFrames:
    """The shrunk frames of one recording.

    Attributes:
        source: the recording's path.
        images: uint8 [N, 64, 64, 3] RGB, memory-mapped, read-only.
        names: N frame names, as in :class:`anomaly_detector.sources.Frame`.
        stamps_ns: N stamps in nanoseconds; None where the recording has none.
        unreadable: the frames that were left out.
    """

    source: Path
    images: NDArray[np.uint8]
    names: Sequence[str]
    stamps_ns: Sequence[int | None]
    unreadable: Sequence[UnreadableFrame]

    def __len__(self) -> int:
        return len(self.images)


def default_cache_folder() -> Path:
    """Give the user's cache folder for shrunk frames (``XDG_CACHE_HOME`` is honoured)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "anomaly_detector" / "frames"


def cache_frames(
    source: FrameSource, folder: Path | None = None, *, progress: bool = True
) -> CachedFrames:
    """Shrink all frames of a recording, or take them from the cache.

    An entry is found again by the recording's files (names, sizes, times), topic and resize
    method; a changed recording is read again.

    Args:
        source: the recording.
        folder: where the cache lies; None for :func:`default_cache_folder`.
        progress: show a progress bar on stderr.

    Raises:
        SourceError: no frame is readable.
        AnomalyDetectorError: the cache folder cannot be written.
    """
    key = hashlib.sha256(f"{source.identity}|{RESIZE_METHOD}".encode()).hexdigest()[:32]
    entry = (default_cache_folder() if folder is None else folder) / key
    if not (entry / "index.json").is_file():
        _build(source, entry, progress)
    return _load(source.path, entry)


def _build(source: FrameSource, entry: Path, progress: bool) -> None:
    names: list[str] = []
    stamps: list[int | None] = []
    with atomic_directory(entry) as folder:
        with (folder / "frames.u8").open("wb") as file:
            bar = tqdm(
                source,
                f"reading {source.path.name}",
                len(source),
                unit="frame",
                disable=not progress,
            )
            for frame in bar:
                file.write(shrink(frame.pixels).tobytes())
                names.append(frame.name)
                stamps.append(frame.stamp_ns)
        index = {
            "names": names,
            "stamps_ns": stamps,
            "unreadable": [[item.name, item.reason] for item in source.unreadable],
        }
        (folder / "index.json").write_text(json.dumps(index))


def _load(path: Path, entry: Path) -> CachedFrames:
    index = json.loads((entry / "index.json").read_text())
    count = len(index["names"])
    file = entry / "frames.u8"
    if not file.is_file() or file.stat().st_size != count * _FRAME_BYTES:
        raise SourceError(f"cache entry {entry} is damaged: remove this folder and run again")
    shape = (count, INPUT_SIZE, INPUT_SIZE, 3)
    return CachedFrames(
        source=path,
        images=np.memmap(file, np.uint8, "r", shape=shape),
        names=index["names"],
        stamps_ns=index["stamps_ns"],
        unreadable=[UnreadableFrame(name, reason) for name, reason in index["unreadable"]],
    )
