"""Frames for training: several recordings as one set, split into blocks of consecutive frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import SourceError
from anomaly_detector.frame_cache import CachedFrames, cache_frames
from anomaly_detector.preprocessing import WHOLE_FRAME, View
from anomaly_detector.recordings import FrameSource, ImageFilesSource, ImageFolderSource
from training.hazards_robots import open_recording
from training.labels import read_labels
from training.recorded_events import open_recorded_events

__all__ = ["BlockSplit", "FrameSet", "fold_blocks", "open_frame_set", "split_blocks"]


class FrameSet:
    """The shrunk frames of one or more recordings, read from their memory-mapped caches.

    Args:
        parts: the recordings, in order.
    """

    def __init__(self, parts: Sequence[CachedFrames]) -> None:
        self.parts = list(parts)
        self._starts = np.cumsum([0] + [len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each recording."""
        return [len(part) for part in self.parts]

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Give frames by their numbers, uint8 [len(indices), 64, 64, 3]."""
        images = np.empty((len(indices), *self.parts[0].images.shape[1:]), np.uint8)
        owners = np.searchsorted(self._starts, indices, side="right") - 1
        for owner in np.unique(owners):
            rows = owners == owner
            images[rows] = self.parts[owner].images[indices[rows] - self._starts[owner]]
        return images


@dataclass(frozen=True)
class BlockSplit:
    """Frame numbers for training and for validation.

    Attributes:
        train: int64, ascending.
        held_out: int64, ascending; blocks of consecutive frames.
        gap: frames left out on each side of a held-out block.
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    gap: int


def open_frame_set(
    sources: Sequence[str],
    topic: str | None = None,
    *,
    view: View = WHOLE_FRAME,
    cache: Path | None = None,
    progress: bool = True,
) -> FrameSet:
    """Open recordings and shrink their frames through the cache.

    Args:
        sources: as :func:`training.hazards_robots.open_recording` takes them.
        topic: image topic, for bags with more than one.
        view: what to see of each frame.
        cache: folder of the cache; None for the user's.
        progress: show progress bars.

    Raises:
        SourceError: one of them cannot be used.
    """
    if not sources:
        raise SourceError("no recording given: name an image folder, a bag or a video")
    opened = [open_recording(source, topic) for source in sources]
    return _cached(opened, view, cache, progress)


def open_anomaly_set(
    sources: Sequence[str],
    topic: str | None = None,
    *,
    view: View = WHOLE_FRAME,
    cache: Path | None = None,
    progress: bool = True,
) -> FrameSet:
    """Open recordings of anomalies; as :func:`open_frame_set`.

    Of an image folder with a ``labels.csv``, as ``training corridor`` writes it, the frames that
    are labelled as normal are left out: a drive with hazards shows normal frames too. A folder of
    the robot's black box, or one of its events, gives the frames that were anomalous during the
    alarm (:mod:`training.recorded_events`).

    Raises:
        SourceError: one of them cannot be used, or has no anomalous frame.
    """
    opened = [
        open_recorded_events(Path(source)) or _anomalies_of(open_recording(source, topic))
        for source in sources
    ]
    return _cached(opened, view, cache, progress)


def _cached(
    sources: Sequence[FrameSource],
    view: View,
    cache: Path | None,
    progress: bool,
) -> FrameSet:
    for source in sources:
        source.view = view
    return FrameSet([cache_frames(source, cache, progress=progress) for source in sources])


def _anomalies_of(source: FrameSource) -> FrameSource:
    table = source.path / "labels.csv"
    if not isinstance(source, ImageFolderSource) or not table.is_file():
        return source
    labels, _ = read_labels(table).for_frames([file.name for file in source.files])
    files = [file for file, label in zip(source.files, labels, strict=True) if label]
    if not files:
        raise SourceError(f"{table} labels every frame as normal: give recordings of anomalies")
    return ImageFilesSource(source.path, files)


def split_blocks(
    lengths: Sequence[int], *, held_out: float = 0.2, blocks: int = 5, gap: int = 10, seed: int = 0
) -> BlockSplit:
    """Hold out blocks of consecutive frames from every recording.

    Neighbouring frames of a drive are nearly equal, so a random split would validate on what was
    trained (which is what the thesis' shuffled folds do, 5.8). Each recording is cut into as many
    stretches as it gets blocks, each stretch gives one block at a random place, and ``gap`` frames
    on both sides of it are used for nothing.

    Args:
        lengths: number of frames of each recording.
        held_out: share of the frames to hold out.
        blocks: blocks for a long recording; a short one gets fewer, of 10 frames at least.
        gap: frames left out on each side of a block; less where blocks are short.
        seed: places the blocks.

    Raises:
        SourceError: too few frames to hold any out.
    """
    generator = np.random.default_rng(seed)
    train: list[NDArray[np.int64]] = []
    held: list[NDArray[np.int64]] = []
    offset = 0
    for length in lengths:
        count = max(1, min(blocks, int(length * held_out) // 10))
        block = int(length * held_out / count)
        if block < 1:
            raise SourceError(
                f"a recording has {length} frames, too few to hold out {held_out:.0%}: "
                "record a longer drive"
            )
        margin = min(gap, block // 2)
        edges = np.linspace(0, length, count + 1).astype(int)
        firsts = [
            int(generator.integers(start, end - block + 1))
            for start, end in itertools.pairwise(edges)
        ]
        is_held = np.zeros(length, bool)
        is_near = np.zeros(length, bool)
        for first in firsts:
            is_held[first : first + block] = True
            is_near[max(0, first - margin) : first + block + margin] = True
        train.append(np.flatnonzero(~is_near) + offset)
        held.append(np.flatnonzero(is_held) + offset)
        offset += length
    return BlockSplit(np.concatenate(train), np.concatenate(held), gap)


def fold_blocks(lengths: Sequence[int], folds: int, *, gap: int = 10) -> list[BlockSplit]:
    """Split recordings for cross-validation, into folds of consecutive frames.

    Each recording is cut into ``folds`` blocks of equal length; fold i holds out the i-th block of
    each. As in :func:`split_blocks`, frames beside a held-out block are used for nothing.

    Args:
        lengths: number of frames of each recording.
        folds: how many, 2 or more.
        gap: frames left out on each side of a block; less where blocks are short.

    Raises:
        SourceError: a recording has fewer than two frames a fold.
    """
    if min(lengths) < 2 * folds:
        raise SourceError(
            f"a recording has {min(lengths)} frames, too few for {folds} folds: "
            "record a longer drive or ask for fewer folds"
        )
    splits = []
    for fold in range(folds):
        train: list[NDArray[np.int64]] = []
        held: list[NDArray[np.int64]] = []
        offset = 0
        for length in lengths:
            first, end = length * fold // folds, length * (fold + 1) // folds
            margin = min(gap, (end - first) // 2)
            numbers = np.arange(length)
            held.append(numbers[first:end] + offset)
            near = (numbers >= first - margin) & (numbers < end + margin)
            train.append(numbers[~near] + offset)
            offset += length
        splits.append(BlockSplit(np.concatenate(train), np.concatenate(held), gap))
    return splits
