"""Shrunk frames of a recording in one memory-mapped uint8 array.

A recording is decoded and shrunk once; training then reads 12 KB a frame from the page cache,
whatever the recording's size, and holds no more of it in memory than the system sees fit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.errors import OutputError, SourceError
from anomaly_detector.files import atomic_directory, user_cache_folder
from anomaly_detector.images.compressed import DECODE_METHOD
from anomaly_detector.images.preprocessing import INPUT_SIZE, RESIZE_METHOD, preprocess
from anomaly_detector.ordered_pool import usable_cores
from anomaly_detector.recordings import Frame, FrameSource, UnreadableFrame

_FRAME_BYTES = INPUT_SIZE * INPUT_SIZE * 3


@dataclass(frozen=True)
class CachedFrames:
    """The shrunk frames of one recording.

    Attributes:
        source: the recording's path.
        images: uint8 [N, 64, 64, 3] RGB, memory-mapped, read-only.
        names: N frame names, as in :class:`anomaly_detector.recordings.Frame`.
        stamps_ns: N stamps in nanoseconds; None where the recording has none.
        unreadable: what could not be read.
    """

    source: Path
    images: NDArray[np.uint8]
    names: Sequence[str]
    stamps_ns: Sequence[int | None]
    unreadable: Sequence[UnreadableFrame]

    def __len__(self) -> int:
        return len(self.images)


def default_cache_folder() -> Path:
    """Return the user's cache folder for shrunk frames (``XDG_CACHE_HOME`` is honoured)."""
    return user_cache_folder("frames")


def cache_frames(
    source: FrameSource,
    folder: Path | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> CachedFrames:
    """Shrink all frames of a recording, or take them from the cache.

    An entry is found again by the recording's files (names, sizes, times), topic and view, decode
    and resize method; a changed recording is read again.

    Args:
        source: the recording.
        folder: where the cache lies; None for :func:`default_cache_folder`.
        workers: frames decoded at the same time; None for one per processor core. The cache's
            bytes do not depend on it.
        progress: show a progress bar on stderr.

    Raises:
        SourceError: no frame is readable, or the cache entry is damaged.
        OutputError: the cache folder cannot be written.
    """
    method = f"{DECODE_METHOD}|{RESIZE_METHOD}"
    if not source.view.region.is_whole_frame:
        method += f"|{source.view.region}"
    if source.view.scaling is not None:
        method += f"|{source.view.scaling}"
    key = hashlib.sha256(
        f"{source.identity}|{method}".encode(errors="backslashreplace")
    ).hexdigest()[:32]
    entry = (default_cache_folder() if folder is None else folder) / key
    if not (entry / "index.json").is_file():
        try:
            _build(source, entry, workers or usable_cores(), progress)
        except OutputError:
            # Another process may have finished the same entry first: theirs is as good.
            if not (entry / "index.json").is_file():
                raise
    return _load(source.path, entry)


def _build(source: FrameSource, entry: Path, workers: int, progress: bool) -> None:
    names: list[str] = []
    stamps: list[int | None] = []
    with atomic_directory(entry) as folder:
        with (folder / "frames.u8").open("wb") as file:
            bar = tqdm(
                source.mapped(shrunk_frame, workers, reduced=True),
                f"reading {source.path.name}",
                len(source),
                unit="frame",
                disable=not progress,
            )
            for name, stamp_ns, image, _ in bar:
                file.write(image.data)
                names.append(name)
                stamps.append(stamp_ns)
        index = {
            "names": names,
            "stamps_ns": stamps,
            "unreadable": [astuple(item) for item in source.unreadable],
        }
        (folder / "index.json").write_text(json.dumps(index))


class ShrunkFrame(NamedTuple):
    """One frame of a recording at the model's input size.

    Attributes:
        name: see :class:`anomaly_detector.recordings.Frame`.
        stamp_ns: likewise.
        image: uint8 [64, 64, 3] RGB.
        time_ns: see there.
    """

    name: str
    stamp_ns: int | None
    image: NDArray[np.uint8]
    time_ns: int | None


def shrunk_frame(frame: Frame) -> ShrunkFrame:
    """Shrink a frame of a recording."""
    return ShrunkFrame(frame.name, frame.stamp_ns, preprocess(frame.pixels), frame.time_ns)


def _load(path: Path, entry: Path) -> CachedFrames:
    file = entry / "frames.u8"
    try:
        index = json.loads((entry / "index.json").read_text())
        count = len(index["names"])
        if file.stat().st_size != count * _FRAME_BYTES:
            raise ValueError("index and frames do not fit together")
        return CachedFrames(
            source=path,
            images=np.memmap(file, np.uint8, "r", shape=(count, INPUT_SIZE, INPUT_SIZE, 3)),
            names=index["names"],
            stamps_ns=index["stamps_ns"],
            unreadable=[UnreadableFrame(*item) for item in index["unreadable"]],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"cache entry {entry} is damaged: remove this folder and run again"
        ) from error
