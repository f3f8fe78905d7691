"""A recording as a stream of frames: one full-size frame at a time, bad ones counted."""

from __future__ import annotations

import abc
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from anomaly_detector.errors import AnomalyDetectorError, ImageError, SourceError
from anomaly_detector.images.image import Image, crop
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View
from anomaly_detector.ordered_pool import map_in_order

_T = TypeVar("_T")


@dataclass(frozen=True)
class Frame:
    """One frame of a recording.

    Attributes:
        name: file name, or the frame's number in a bag's topic or a video as six digits.
        stamp_ns: header stamp of a bag's message, or time since the start of a video, in
            nanoseconds; None for a folder of images, and for a message whose stamp is missing
            (:func:`~anomaly_detector.stamps.stamp_to_ns`).
        pixels: the picture, full size unless a reduced one was asked for.
        time_ns: of a bag's message, what stands in for a missing stamp, or the stamp
            (:class:`~anomaly_detector.stamps.FrameClock`); None for other recordings.
    """

    name: str
    stamp_ns: int | None
    pixels: Image
    time_ns: int | None = None


@dataclass(frozen=True)
class UnreadableFrame:
    """What of a recording was skipped, and why.

    Attributes:
        name: of the frame, of the first of several, or of the file that is not whole.
        reason: what is wrong.
        frames: how many are missing; 0 when nobody knows.
    """

    name: str
    reason: str
    frames: int = 1

    def __str__(self) -> str:
        more = f" and {self.frames - 1} more" if self.frames > 1 else ""
        return f"{self.name}{more}{' skipped' if self.frames else ''}: {self.reason}"


AnyFrame: TypeAlias = "Frame | UnreadableFrame"
MaybePending: TypeAlias = "AnyFrame | Callable[[], AnyFrame]"
"""A frame, or what decodes one whose bytes are at hand or in a file of their own, in any thread."""

_MAX_NAMED = 10
"""Warnings about one recording; the others are only counted."""

_LEAST_FPS, _MOST_FPS = 1e-4, 1e6

_WAITING_PER_WORKER = 4
"""Frames begun or waiting for their turn, a worker: they bound the memory."""


def count_frames(unreadable: Iterable[UnreadableFrame]) -> int:
    """Return the number of frames that are missing, as far as it is known."""
    return sum(item.frames for item in unreadable)


def warn_unreadable(path: str | Path, unreadable: Sequence[UnreadableFrame]) -> None:
    """Say on stderr what of a recording was skipped: one line each, and one for the rest."""
    for item in unreadable[:_MAX_NAMED]:
        print(f"warning: {path}: {item}", file=sys.stderr)
    if rest := unreadable[_MAX_NAMED:]:
        print(f"warning: {path}: {count_frames(rest)} more frames skipped", file=sys.stderr)


class FrameSource(abc.ABC):
    """A recording that can be read from start to end, any number of times.

    Attributes:
        path: where it is.
        files: that it is read from, as far as they are known.
        view: the part of each frame that is given and how deep pictures are scaled; may be set
            before a pass. A frame that its region does not fit into counts as unreadable.
        unreadable: what the newest pass skipped, in order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: Sequence[Path] = [path]
        self.view: View = WHOLE_FRAME
        self.unreadable: list[UnreadableFrame] = []
        # Whether the newest pass may decode JPEG at reduced scale.
        self._reduced = False

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of frames that the recording says it has; some may be unreadable."""

    @abc.abstractmethod
    def _frames(self) -> Iterator[MaybePending]:
        """Yield every frame, or better what decodes it, in order."""

    @property
    def identity(self) -> str:
        """A text that no other recording has; it changes when the files change."""
        return path_identity(self.path)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the readable frames in order.

        Raises:
            SourceError: at the end, when not one frame was readable.
        """
        return self.mapped(lambda frame: frame)

    def _cropped(self, item: AnyFrame) -> AnyFrame:
        if isinstance(item, UnreadableFrame) or self.view.region.is_whole_frame:
            return item
        try:
            return replace(item, pixels=crop(item.pixels, self.view.region))
        except ImageError as error:
            return UnreadableFrame(item.name, str(error))

    def mapped(
        self, function: Callable[[Frame], _T], workers: int = 1, *, reduced: bool = False
    ) -> Iterator[_T]:
        """Yield ``function`` of the readable frames, in order.

        Args:
            function: called once for every readable frame; with several workers from any thread.
            workers: threads that decode and call ``function`` at the same time. A bag's messages
                and a video's frames are read in one thread; of a video, that decodes them too.
            reduced: whether the frames are only wanted for
                :func:`~anomaly_detector.images.preprocessing.preprocess`, so that JPEG may be
                decoded at reduced scale
                (:func:`~anomaly_detector.images.compressed.decode_encoded_bytes`), as in the node.

        Raises:
            SourceError: at the end, when not one frame was readable.
        """
        self.unreadable = []
        # A region's edges may lie between the pixels of a reduced picture.
        self._reduced = reduced and self.view.region.is_whole_frame

        def decode(frame: MaybePending) -> _T | UnreadableFrame:
            item = self._cropped(decoded(frame))
            return item if isinstance(item, UnreadableFrame) else function(item)

        frames = self._frames()
        items: Iterator[_T | UnreadableFrame] = map(decode, frames)
        if workers > 1:
            # Threads, not processes: OpenCV decodes and resizes without the interpreter's lock.
            items = map_in_order(decode, frames, workers, _WAITING_PER_WORKER * workers)
        count = 0
        for item in items:
            if isinstance(item, UnreadableFrame):
                self.unreadable.append(item)
            else:
                count += 1
                yield item
        if count == 0:
            detail = ""
            if self.unreadable:
                missing = count_frames(self.unreadable)
                all_of_them = f"all {missing} unreadable; " if missing else ""
                detail = f" ({all_of_them}{self.unreadable[0]})"
            raise SourceError(f"{self.path} has no readable frame{detail}: give another recording")


def frame_size(source: FrameSource, view: View = WHOLE_FRAME) -> tuple[int, int]:
    """Return width and height of a recording's first readable frame, all of it, pixels.

    Args:
        source: the recording; its next passes see it as before.
        view: says how deep pictures are scaled.

    Raises:
        SourceError: no frame is readable.
    """
    before, source.view = source.view, replace(view, region=WHOLE_FRAME.region)
    try:
        return next(iter(source)).pixels.extent.size
    finally:
        source.view = before


def check_fps(fps: float | None) -> None:
    """Refuse a frame rate that is none.

    Raises:
        AnomalyDetectorError: it is not positive, or gives times that no clock has.
    """
    if fps is not None and not _LEAST_FPS <= fps <= _MOST_FPS:
        raise AnomalyDetectorError(f"frame rate is {fps}: give a positive number, such as 20")


def stamp_and_time(frame: Frame, index: int, fps: float | None) -> tuple[int | None, int | None]:
    """Return a frame's stamp, and the time to decide by.

    Args:
        frame: the frame.
        index: its number.
        fps: gives both from the number where the recording has no times; None leaves them out.
    """
    time_ns = frame.stamp_ns if frame.time_ns is None else frame.time_ns
    if time_ns is None and fps is not None:
        time_ns = round(index * 1e9 / fps)
        return time_ns, time_ns
    return frame.stamp_ns, time_ns


def decoded(item: MaybePending) -> AnyFrame:
    """Return the frame itself."""
    return item if isinstance(item, (Frame, UnreadableFrame)) else item()


def path_identity(path: Path) -> str:
    """Return a text that changes when a recording's files change (names, sizes, times).

    Raises:
        OSError: it is not there.
    """
    path.stat()
    # SQLite keeps rows of a bag beside it until that is closed.
    files = sorted(path.iterdir()) if path.is_dir() else [path, Path(f"{path}-wal")]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return f"{path.resolve()}|{stats}"


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that orders the numbers in names by value (``2`` before ``10``).

    What follows a time stamp in seconds is its fraction (``1700000000.25`` before
    ``1700000000.5``).
    """
    # Decimal digits of any script are numbers; others, such as ``²`` and ``①``, are text.
    parts = re.finditer(r"(?<=\d{9}\.)\d+|(\d+)|\D+", name)
    return [(0, int(part[1])) if part[1] else (1, part[0]) for part in parts]
