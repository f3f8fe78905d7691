"""Frames for training: several recordings as one set, split into blocks of consecutive frames."""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.black_box.reviewed import RecordedEventsSource, read_reviewed
from anomaly_detector.errors import SourceError
from anomaly_detector.images.mask import Mask
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View
from anomaly_detector.recordings import (
    FrameSource,
    ImageFilesSource,
    ImageFolderSource,
    warn_unreadable,
)
from anomaly_detector.recordings.cache import CachedFrames, cache_frames
from training.data.events import open_recorded_anomalies, thinned
from training.data.labels import read_labels
from training.data.opening import open_recording

_LABELS = "labels.csv"
_GAP_SECONDS = 1.0
_MOST_GAP = 300
_GAP_PLACES = 64

_TRAIN, _GAP, _VALIDATION, _CALIBRATION = range(4)

Stretch: TypeAlias = tuple[int, int]
"""First and last frame."""


class FrameSet:
    """The resized frames of one or more recordings, read from their memory-mapped caches.

    Args:
        parts: the recordings, in order.
        left_out: first and last frame of the stretches of each that are used for nothing; empty
            for none in any.
        mask: what of the frames is not looked at; they are loaded with it filled.
    """

    def __init__(
        self,
        parts: Sequence[CachedFrames],
        left_out: Sequence[Sequence[Stretch]] = (),
        mask: Mask | None = None,
    ) -> None:
        self.parts = list(parts)
        self.left_out = list(left_out) or [()] * len(self.parts)
        self.mask = mask
        self._starts = np.cumsum([0] + [len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def size(self) -> int:
        """Height and width of the frames."""
        return int(self.parts[0].images.shape[1])

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each recording."""
        return [len(part) for part in self.parts]

    @property
    def gaps(self) -> list[int]:
        """Number of frames of each recording after which the next one is no near copy."""
        return [_gap(part) for part in self.parts]

    @property
    def unused(self) -> NDArray[np.int64]:
        """The numbers of the frames that are left out, int64."""
        stretches = [
            np.arange(start + first, start + last + 1)
            for start, own in zip(self._starts.tolist(), self.left_out, strict=False)
            for first, last in own
        ]
        return np.concatenate([np.arange(0), *stretches])

    @property
    def checksum(self) -> int:
        """A checksum of some of the frames."""
        some = np.linspace(0, len(self) - 1, min(16, len(self))).astype(np.int64)
        return zlib.crc32(self.load(some).tobytes())

    def without(self, parts: Collection[int]) -> FrameSet:
        """Return the set without the recordings of these numbers."""
        kept = [n for n in range(len(self.parts)) if n not in parts]
        left_out = [self.left_out[n] for n in kept]
        return FrameSet([self.parts[n] for n in kept], left_out, self.mask)

    def masked(self, mask: Mask) -> FrameSet:
        """Return the set with a mask."""
        return FrameSet(self.parts, self.left_out, mask)

    def load(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames by their numbers, uint8 [len(indices), H, W, 3]."""
        images = np.empty((len(indices), *self.parts[0].images.shape[1:]), np.uint8)
        owners = np.searchsorted(self._starts, indices, side="right") - 1
        for owner in np.unique(owners):
            rows = owners == owner
            images[rows] = self.parts[owner].images[indices[rows] - self._starts[owner]]
        return images if self.mask is None else self.mask.filled(images)


@overload
def joined(frames: FrameSet, more: FrameSet | None) -> FrameSet: ...
@overload
def joined(frames: FrameSet | None, more: FrameSet | None) -> FrameSet | None: ...
def joined(frames: FrameSet | None, more: FrameSet | None) -> FrameSet | None:
    """Return the recordings of both as one set; None when there is none."""
    sets = [item for item in (frames, more) if item is not None]
    if not sets:
        return None
    return FrameSet(
        [part for item in sets for part in item.parts],
        [own for item in sets for own in item.left_out],
        sets[0].mask,
    )


def frame_period(part: CachedFrames) -> float | None:
    """Return the median time between two frames, seconds; None for a recording without stamps."""
    stamps = [stamp for stamp in part.stamps_ns if stamp is not None]
    if len(stamps) < max(2, len(part)):
        return None
    period = float(np.median(np.diff(stamps))) / 1e9
    return period if period > 0.0 else None


def _gap(part: CachedFrames) -> int:
    """Return the frames of a second, or without stamps those until frames are no longer alike.

    That is the first lag at which the autocorrelation of the pixels is below 1/e, measured at
    places all over the recording.
    """
    period = frame_period(part)
    if period is not None:
        return math.ceil(_GAP_SECONDS / period - 1e-6)
    most = min(_MOST_GAP, len(part) // 2)
    places = np.linspace(0, len(part) - most - 1, _GAP_PLACES).astype(int)
    windows = places[:, np.newaxis] + np.arange(most + 1)
    pixels = part.images[windows.ravel(), ::8, ::8].astype(np.float32)
    variance = pixels.var(axis=0).mean()
    pixels = pixels.reshape(*windows.shape, -1)
    difference = np.square(pixels - pixels[:, :1]).mean(axis=(0, 2)) / 2
    unlike = np.flatnonzero(difference >= (1 - 1 / math.e) * variance)
    return max(1, int(unlike[0])) if unlike.size else most


@dataclass(frozen=True)
class BlockSplit:
    """Frame numbers for training, validation and calibration: int64, ascending.

    Attributes:
        train: frames to train on.
        validation: blocks of consecutive frames, for the loss after every epoch.
        calibration: likewise, for the threshold. None of those for validation when the best epoch
            is chosen by these, else the same.
        gaps: frames left out on each side of a block, of each recording.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    calibration: NDArray[np.int64]
    gaps: Sequence[int]

    def without(self, unused: NDArray[np.int64]) -> BlockSplit:
        """Return the split without some frames.

        Raises:
            SourceError: nothing to train on, or nothing held out is left.
        """
        if not len(unused):
            return self
        train, validation, calibration = (
            np.setdiff1d(numbers, unused)
            for numbers in (self.train, self.validation, self.calibration)
        )
        if not len(train) or not len(validation) or not len(calibration):
            raise SourceError("--exclude leaves too few frames: leave out fewer")
        return BlockSplit(train, validation, calibration, self.gaps)


def names_of(parts: Sequence[CachedFrames]) -> list[str]:
    """Return the name of each recording, with as many folders before it as tell it from others."""
    sources = [part.source for part in parts]
    names = []
    for source in sources:
        tails = [Path(*source.parts[-n:]) for n in range(1, len(source.parts) + 1)]
        unique = (tail for tail in tails if sum(_ends_with(item, tail) for item in sources) == 1)
        names.append(str(next(unique, source)))
    return names


def _ends_with(path: Path, tail: Path) -> bool:
    return path.parts[-len(tail.parts) :] == tail.parts


def exclude(frames: FrameSet, stretches: Sequence[str]) -> FrameSet:
    """Return recordings of which stretches are used for nothing.

    Args:
        frames: the recordings.
        stretches: ``A-B``, first and last frame, or ``NAME:A-B`` where there are several
            recordings; of two with one name, ``FOLDER/NAME:A-B``.

    Raises:
        SourceError: a stretch is none, is not there, or of nobody knows which recording.
    """
    names = names_of(frames.parts)
    left_out: list[list[Stretch]] = [[] for _ in names]
    for text in stretches:
        name, _, numbers = text.rpartition(":")
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", numbers)
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise SourceError(
                f"--exclude {text} is no stretch of frames: give first and last, such as 324-369"
            )
        owners = [n for n, known in enumerate(names) if name in ("", known)] or [
            n for n, part in enumerate(frames.parts) if _ends_with(part.source, Path(name))
        ]
        if len(owners) != 1:
            known = "several recordings" if owners else "no recording"
            raise SourceError(
                f"--exclude {text} is of {known} of {', '.join(names)}: give NAME:{numbers}"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= len(frames.parts[owners[0]]):
            raise SourceError(
                f"--exclude {text} is not in {names[owners[0]]}, which has "
                f"{len(frames.parts[owners[0]])} readable frames: give numbers from 0"
            )
        left_out[owners[0]].append((first, last))
    return FrameSet(frames.parts, left_out, frames.mask)


def open_frame_set(
    sources: Sequence[str],
    topic: str | None = None,
    *,
    anomalous: bool | None = None,
    view: View = WHOLE_FRAME,
    cache: Path | None = None,
    progress: bool = True,
) -> FrameSet:
    """Open recordings and resize their frames through the cache.

    Args:
        sources: as :func:`training.data.opening.open_recording` takes them.
        topic: image topic, for bags with more than one.
        anomalous: for recordings of anomalies. An image folder with a ``labels.csv``, as
            ``training corridor`` writes it, also shows normal frames: True leaves these out, and
            False gives them alone, of which there may be none. A folder of the robot's black box,
            or one of its events, gives the frames judged anomalies
            (:mod:`training.data.events`).
        view: what to see of each frame.
        cache: folder of the cache; None for the user's.
        progress: show progress bars.

    Raises:
        SourceError: one of them cannot be used, has no anomalous frame, or events that nobody has
            judged.
    """
    if not sources:
        raise SourceError("no recording given: name an image folder, a bag or a video")
    opened = [item for text in sources if (item := _open(text, topic, anomalous)) is not None]
    return _cached(opened, view, cache, progress)


def _cached(
    sources: Sequence[FrameSource], view: View, cache: Path | None, progress: bool
) -> FrameSet:
    for source in sources:
        source.view = view
    parts = [cache_frames(source, cache, progress=progress) for source in sources]
    for part in parts:
        warn_unreadable(part.source, part.unreadable)
    return FrameSet(parts)


def _open(text: str, topic: str | None, anomalous: bool | None) -> FrameSource | None:
    """Open the wanted frames of a recording; None where it has none that are normal."""
    if anomalous is None:
        return open_recording(text, topic)
    if (events := open_recorded_anomalies(Path(text))) is not None:
        return events if anomalous else None
    source = open_recording(text, topic)
    part = _labelled(source, anomalous=anomalous)
    if not anomalous:
        return part or None
    if part is not None and not len(part):
        raise SourceError(
            f"{part.path / _LABELS} labels every frame as normal: give recordings of anomalies"
        )
    return source if part is None else part


def _labelled(source: FrameSource, *, anomalous: bool) -> FrameSource | None:
    """Return the anomalous or the normal frames of a folder with labels; None for another one."""
    table = source.path / _LABELS
    if not isinstance(source, ImageFolderSource) or not table.is_file():
        return None
    labels, _ = read_labels(table).for_frames([file.name for file in source.files])
    files = [f for f, label in zip(source.files, labels, strict=True) if bool(label) == anomalous]
    return ImageFilesSource(source.path, files)


EVENTS_SHARE = 0.2
"""Most of the normal frames that are of events judged normal."""

MOST_REPEATS = 10
"""How often a frame of theirs is trained on in an epoch, at most."""


@dataclass(frozen=True)
class EventFrames:
    """What people said of recorded events, as frames.

    Attributes:
        normal: of those judged normal; None for none.
        anomalies: of those judged anomalies; None for none.
        counts: number of events of each verdict.
    """

    normal: FrameSet | None
    anomalies: FrameSet | None
    counts: Counter[str]

    def __str__(self) -> str:
        parts = [
            f"{self.counts[verdict]} judged {verdict} ({len(frames or ())} frames)"
            for verdict, frames in (("normal", self.normal), ("anomaly", self.anomalies))
        ]
        return (
            f"events: {', '.join(parts)}; left out: {self.counts['unsure']} unsure, "
            f"{self.counts['unreviewed']} unreviewed"
        )


def open_events(
    sources: Sequence[str],
    drive_frames: int,
    *,
    view: View = WHOLE_FRAME,
    cache: Path | None = None,
    progress: bool = True,
) -> EventFrames:
    """Open folders of the robot's black box, and sort their frames by the verdicts.

    Args:
        sources: folders of events, or single ones.
        drive_frames: of the normal drives that they join: no more normal frames are taken than
            make :data:`EVENTS_SHARE` of all, spread evenly over the events.
        view: what to see of each frame.
        cache: folder of the cache; None for the user's.
        progress: show progress bars.

    Raises:
        SourceError: a folder has no event, or a damaged one; or no event was judged normal or
            an anomaly.
    """
    reviewed = []
    for source in sources:
        found = read_reviewed(Path(source))
        if found is None:
            raise SourceError(
                f"{source} holds no recorded event: give a folder of the robot's black box; "
                "other recordings of anomalies are for --anomalies"
            )
        reviewed.append(found)
    counts = sum((folder.counts for folder in reviewed), Counter[str]())
    total = sum(len(item.frames) for folder in reviewed for item in folder.normal)
    most = drive_frames * EVENTS_SHARE / (1 - EVENTS_SHARE)
    normal = [
        RecordedEventsSource(folder.path, thinned(folder.normal, min(1.0, most / total)))
        for folder in reviewed
        if folder.normal
    ]
    anomalies = [
        RecordedEventsSource(folder.path, folder.anomalies)
        for folder in reviewed
        if folder.anomalies
    ]
    if not normal and not anomalies:
        raise SourceError(
            f"{', '.join(map(str, sources))}: none of {counts.total()} events is judged normal or "
            f"an anomaly: judge them with python -m anomaly_detector review {sources[0]}"
        )
    return EventFrames(
        _cached(normal, view, cache, progress) if normal else None,
        _cached(anomalies, view, cache, progress) if anomalies else None,
        counts,
    )


def weighed(train: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Return numbers of frames to train on, those of events repeated so that they count.

    They are repeated up to :data:`EVENTS_SHARE` of all, but at most :data:`MOST_REPEATS` times.

    Args:
        train: ascending.
        first: number of the first frame of the events; those before are of the drives.
    """
    drive, own = np.split(train, [np.searchsorted(train, first)])
    wanted = len(drive) * EVENTS_SHARE / (1 - EVENTS_SHARE)
    times = round(wanted / max(1, len(own)))
    return np.concatenate([drive, np.repeat(own, max(1, min(MOST_REPEATS, times)))])


def split_blocks(
    lengths: Sequence[int],
    gaps: Sequence[int],
    *,
    held_out: float = 0.2,
    blocks: int = 5,
    seed: int = 0,
    choose_epoch: bool = False,
) -> BlockSplit:
    """Hold out blocks of consecutive frames from every recording.

    Neighbouring frames of a drive are nearly equal, so a random split would validate on what was
    trained (which is what the thesis' shuffled folds do, 5.8). Each recording is cut into as many
    stretches as it gets blocks, each stretch gives one block at a random place, and the frames of
    the gap on both sides of it are used for nothing.

    Args:
        lengths: number of frames of each recording.
        gaps: frames to leave out on each side of a block, of each recording; less where blocks
            are short.
        held_out: share of the frames to hold out. A recording that is too short for one frame is
            trained on as a whole.
        blocks: blocks for a long recording; a short one gets fewer, of 10 frames at least.
        seed: places the blocks.
        choose_epoch: the best epoch is chosen by the validation loss, which makes the scores of
            those frames too good: every third block, from the second on, is for validation and
            the others for calibration.

    Raises:
        SourceError: too few frames to hold any out.
    """
    generator = np.random.default_rng(seed)
    uses: list[NDArray[np.int8]] = []
    margins: list[int] = []
    for length, gap in zip(lengths, gaps, strict=True):
        wanted = int(length * held_out)
        count = max(2 if choose_epoch else 1, min(blocks, wanted // 10)) if wanted else 0
        block = max(1, int(length * held_out / count)) if wanted else 0
        edges = np.linspace(0, length, count + 1).astype(int)
        margin = min(gap, block // 2, (int(np.diff(edges).min()) - block) // 2) if wanted else 0
        # Blocks of two kinds must not touch each other either.
        room = block + margin * choose_epoch
        use = np.zeros(length, np.int8)
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            first = int(generator.integers(start, end - room + 1))
            near = use[max(0, first - margin) : first + block + margin]
            near[near == 0] = _GAP
            is_validation = choose_epoch and number % 3 == 1
            use[first : first + block] = _VALIDATION if is_validation else _CALIBRATION
        uses.append(use)
        margins.append(margin)
    split = _split(uses, margins)
    if not len(split.calibration) or not len(split.train):
        raise SourceError(
            f"a recording has {max(lengths)} frames, too few to hold out {held_out:.0%}: "
            "record a longer drive"
        )
    return split if choose_epoch else replace(split, validation=split.calibration)


def split_anomalies(lengths: Sequence[int], gaps: Sequence[int], held_out: float) -> BlockSplit:
    """Hold out anomalous frames for validation; as :func:`split_blocks`, but no event is too short.

    Of events that are all too short for one frame to be held out, whole events are; of a single
    one, its last frame. A single frame is trained on and validated on.
    """
    if max(lengths) * held_out >= 1:
        return split_blocks(lengths, gaps, held_out=held_out)
    total = sum(lengths)
    if len(lengths) > 1:
        owners = np.repeat(np.arange(len(lengths)), lengths)
        every = min(len(lengths), round(1 / held_out))
        is_held = owners % every == every - 1
    else:
        is_held = np.arange(total) == total - 1
    held = np.flatnonzero(is_held)
    train = np.flatnonzero(~is_held) if total > 1 else held
    return BlockSplit(train, held, held, [0] * len(lengths))


def fold_blocks(lengths: Sequence[int], gaps: Sequence[int], folds: int) -> list[BlockSplit]:
    """Split recordings for cross-validation, into folds of consecutive frames.

    Each recording is cut into ``folds`` blocks of equal length; fold i holds out the i-th block of
    each. As in :func:`split_blocks`, frames beside a held-out block are used for nothing.

    Args:
        lengths: number of frames of each recording.
        gaps: frames to leave out on each side of a block, of each recording; less where blocks
            are short.
        folds: how many, 2 or more.

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
        uses: list[NDArray[np.int8]] = []
        margins: list[int] = []
        for length, gap in zip(lengths, gaps, strict=True):
            first, end = length * fold // folds, length * (fold + 1) // folds
            margin = min(gap, (end - first) // 2)
            use = np.zeros(length, np.int8)
            use[max(0, first - margin) : end + margin] = _GAP
            use[first:end] = _CALIBRATION
            uses.append(use)
            margins.append(margin)
        split = _split(uses, margins)
        splits.append(replace(split, validation=split.calibration))
    return splits


def _split(uses: Sequence[NDArray[np.int8]], margins: Sequence[int]) -> BlockSplit:
    every = np.concatenate(uses)
    train, validation, calibration = (
        np.flatnonzero(every == kind) for kind in (_TRAIN, _VALIDATION, _CALIBRATION)
    )
    return BlockSplit(train, validation, calibration, margins)
