"""Recordings as a command line names them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from anomaly_detector.errors import SourceError
from anomaly_detector.recordings.bag_folder import BAG_SUFFIXES, bag_suffix, is_bag
from anomaly_detector.recordings.bag_source import BagSource
from anomaly_detector.recordings.base import FrameSource, natural_key
from anomaly_detector.recordings.images import ImageFolderSource
from anomaly_detector.recordings.video import VIDEO_SUFFIXES, VideoSource

_PACKED = frozenset({".7z", ".bz2", ".gz", ".lz4", ".tar", ".xz", ".zip"})


def open_source(path: str | Path, topic: str | None = None) -> FrameSource:
    """Open a recording of any kind.

    Args:
        path: a folder of images, a rosbag2 folder, an .mcap, .db3 or .bag file, or a video file.
        topic: the image topic of a bag; only needed when it has more than one.

    Raises:
        SourceError: nothing there, or nothing in it that this package reads.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"{path} does not exist: give an image folder, a bag or a video")
    if is_bag(path):
        return BagSource(path, topic)
    if topic is not None:
        raise SourceError(f"{path} is not a bag, so it has no topic {topic!r}: leave the topic out")
    if path.is_dir():
        return ImageFolderSource(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path)
    if _is_packed_bag(path):
        raise SourceError(f"{path} is packed: unpack it and give the bag in it")
    raise SourceError(
        f"{path} is no bag ({', '.join(sorted(BAG_SUFFIXES))}) or video "
        f"({', '.join(sorted(VIDEO_SUFFIXES))}): give one of these or an image folder"
    )


def expand_sources(texts: Sequence[str]) -> list[str]:
    """Return the recordings that a command line names, each once.

    Args:
        texts: recordings, or shell patterns for them (``runs/2026-*``), which are expanded here
            so that they can be quoted. Of a pattern's matches, files that are neither a bag nor a
            video are left out.

    Returns:
        In the order given, a pattern's matches in natural order. What is no pattern stays as it
        is, there or not.

    Raises:
        SourceError: a pattern matches no recording, or a name is empty.
    """
    found: list[str] = []
    for text in texts:
        if not text:
            raise SourceError("a recording's name is empty: give an image folder, a bag or a video")
        if Path(text).exists() or not re.search(r"[*?[]", text):
            found.append(text)
            continue
        matches = [match for match in glob.glob(text, recursive=True) if _may_be_source(match)]
        if not matches:
            raise SourceError(
                f"pattern {text} matches no folder, bag or video: check it with 'ls -d {text}'"
            )
        found += sorted(matches, key=natural_key)
    unique: dict[str, str] = {}
    for text in found:
        # Unlike Path.resolve, this takes links that lead to themselves.
        unique.setdefault(os.path.realpath(text), text)
    return list(unique.values())


def _may_be_source(text: str) -> bool:
    path = Path(text)
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    return path.is_dir() or is_video or bool(bag_suffix(path)) or _is_packed_bag(path)


def _is_packed_bag(path: Path) -> bool:
    suffixes = path.suffixes[-2:]
    return len(suffixes) == 2 and suffixes[0].lower() in BAG_SUFFIXES and suffixes[1] in _PACKED
