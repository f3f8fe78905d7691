"""Preprocessed frames of a recording in one memory-mapped uint8 array.

A recording is decoded and resized once; training then reads 12 KB a frame from the page cache,
whatever the recording's size, and holds no more of it in memory than the system sees fit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.errors import OutputError, SourceError
from anomaly_detector.files import atomic_directory, printable, user_cache_folder
from anomaly_detector.images.compressed import DECODE_METHOD
from anomaly_detector.images.preprocessing import INPUT_SIZE, RESIZE_METHOD, preprocessed
from anomaly_detector.ordered_pool import usable_cores
from anomaly_detector.recordings import Frame, FrameSource, UnreadableFrame


@dataclass(frozen=True)
class CachedFrames:
    """The preprocessed frames of one recording.

    Attributes:
        source: the recording's path.
        images: uint8 [N, H, W, 3] RGB, memory-mapped, read-only.
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


def cache_frames(
    source: FrameSource,
    folder: Path | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> CachedFrames:
    """Preprocess all frames of a recording, or take them from the cache.

    An entry is found again by the recording's files (names, sizes, times), topic and view, decode
    and resize method; a changed recording is read again.

    Args:
        source: the recording.
        folder: where the cache lies; None for the user's (``XDG_CACHE_HOME`` is honoured).
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
    if source.view.size != INPUT_SIZE:
        method += f"|{source.view.size}"
    identity = f"{source.identity}|{method}".encode(errors="backslashreplace")
    key = hashlib.sha256(identity).hexdigest()[:32]
    entry = (user_cache_folder("frames") if folder is None else folder) / key
    if not (entry / "index.json").is_file():
        try:
            _build(source, entry, workers or usable_cores(), progress)
        except OutputError:
            # Another process may have finished the same entry first: theirs is as good.
            if not (entry / "index.json").is_file():
                raise
    return _load(source.path, entry, source.view.size)


def _build(source: FrameSource, entry: Path, workers: int, progress: bool) -> None:
    names: list[str] = []
    stamps: list[int | None] = []
    with atomic_directory(entry) as folder:
        with (folder / "frames.u8").open("wb") as file:
            bar = tqdm(
                source.mapped(
                    partial(preprocessed_frame, size=source.view.size), workers, reduced=True
                ),
                f"reading {printable(source.path.name)}",
                len(source),
                unit="frame",
                disable=not progress,
            )
            for frame in bar:
                file.write(frame.pixels.array.data)
                names.append(frame.name)
                stamps.append(frame.stamp_ns)
        index = {
            "names": names,
            "stamps_ns": stamps,
            "unreadable": [astuple(item) for item in source.unreadable],
        }
        (folder / "index.json").write_text(json.dumps(index))


def preprocessed_frame(frame: Frame, size: int) -> Frame:
    """Return a frame with its picture at the model's input size, uint8 [size, size, 3] RGB."""
    return replace(frame, pixels=preprocessed(frame.pixels, size))


def _load(path: Path, entry: Path, size: int) -> CachedFrames:
    file = entry / "frames.u8"
    try:
        index = json.loads((entry / "index.json").read_text())
        shape = len(index["names"]), size, size, 3
        if file.stat().st_size != math.prod(shape):
            raise ValueError("index and frames do not fit together")
        return CachedFrames(
            source=path,
            images=np.memmap(file, np.uint8, "r", shape=shape),
            names=index["names"],
            stamps_ns=index["stamps_ns"],
            unreadable=[UnreadableFrame(*item) for item in index["unreadable"]],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"cache entry {entry} is damaged: remove this folder and run again"
        ) from error
