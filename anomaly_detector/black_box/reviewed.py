"""What the black box recorded and people judged, as recordings.

Of an event judged to be an anomaly only the frames that were flagged while the alarm was on show
it: those before and after it are of the drive around it. Where the verdict names frames, it is
these. Of an event judged normal all frames are normal that the verdict is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anomaly_detector.black_box.events import (
    EVENT_FILE,
    SAMPLE,
    SAVED,
    RecordedEvent,
    RecordedFrame,
    find_events,
    read_event,
)
from anomaly_detector.black_box.verdicts import REVIEW_FILE, UNREVIEWED, Verdict, read_verdict
from anomaly_detector.errors import SourceError
from anomaly_detector.recordings import BagSource, Frame, FrameSource, ImageFilesSource
from anomaly_detector.recordings.base import AnyFrame, decoded


@dataclass(frozen=True)
class ChosenFrames:
    """Frames of one event, in its order."""

    event: RecordedEvent
    frames: Sequence[RecordedFrame]


class RecordedEventsSource(FrameSource):
    """Chosen frames of recorded events, in either format; ``EVENT/FRAME`` is their name.

    Args:
        path: the black box' folder, or that of one event.
        chosen: of each event; there are some.
    """

    def __init__(self, path: Path, chosen: Sequence[ChosenFrames]) -> None:
        super().__init__(path)
        self._chosen = list(chosen)
        self._sources = [_open(item) for item in chosen]

    def __len__(self) -> int:
        return sum(len(item.frames) for item in self._chosen)

    @property
    def identity(self) -> str:
        """See :attr:`FrameSource.identity`."""
        return "|".join(
            f"{source.identity}|{[frame.name for frame in item.frames]}"
            for item, source in zip(self._chosen, self._sources, strict=True)
        )

    def _frames(self) -> Iterator[AnyFrame]:
        for chosen, source in zip(self._chosen, self._sources, strict=True):
            wanted = {frame.name: frame.stamp_ns for frame in chosen.frames}
            source.view = self.view
            # Not its public iteration: one event without a readable frame is no error.
            for item in map(decoded, source._frames()):
                name = f"{chosen.event.path.name}/{item.name}"
                if isinstance(item, Frame):
                    if item.name in wanted:
                        yield replace(item, name=name, stamp_ns=wanted[item.name])
                elif item.frames != 1 or item.name in wanted:
                    yield replace(item, name=name)


def _open(chosen: ChosenFrames) -> FrameSource:
    event = chosen.event
    if event.format == "mcap":
        return BagSource(event.path)
    files = [event.path / frame.name for frame in chosen.frames]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise SourceError(f"{missing[0]} is missing: copy the event again or leave it out")
    return ImageFilesSource(event.path, files)


@dataclass(frozen=True)
class ReviewedEvents:
    """The events of one folder, sorted by what people said of them.

    Attributes:
        path: the black box' folder, or that of one event.
        normal: frames of those judged normal.
        anomalies: likewise.
        counts: number of events of each verdict, :data:`UNREVIEWED` included.
        unreviewed_anomalies: those without a verdict that hold flagged frames.
    """

    path: Path
    normal: Sequence[ChosenFrames]
    anomalies: Sequence[ChosenFrames]
    counts: Counter[str]
    unreviewed_anomalies: int


def read_reviewed(path: Path) -> ReviewedEvents | None:
    """Read the events at a path, and what people said of them.

    Returns:
        None when there is no recorded event at the path.

    Raises:
        SourceError: an event or a verdict is damaged.
    """
    chosen: dict[str, list[ChosenFrames]] = {"normal": [], "anomaly": []}
    counts: Counter[str] = Counter()
    unreviewed = 0
    found = find_events(path)
    for file in sorted(path.glob(f"*/{REVIEW_FILE}")):
        if file.parent not in found and not file.parent.is_symlink():
            raise SourceError(
                f"{file.parent} was judged, and its {EVENT_FILE} is missing or damaged: copy the "
                "event again or leave it out"
            )
    for event in map(read_event, found):
        verdict = read_verdict(event.path) or Verdict(UNREVIEWED)
        counts[verdict.verdict] += 1
        unreviewed += not verdict.is_reviewed and bool(event.anomalous_frames)
        frames = [frame for number, frame in enumerate(event.frames) if verdict.covers(number)]
        if verdict.verdict == "anomaly" and verdict.frames is None:
            # A sample shows it, too, though nothing was flagged; so do frames saved on demand.
            frames = event.anomalous_frames or [f for f in frames if f.phase in (SAMPLE, SAVED)]
        if verdict.verdict in chosen and frames:
            chosen[verdict.verdict].append(ChosenFrames(event, frames))
    if not found:
        return None
    return ReviewedEvents(path, chosen["normal"], chosen["anomaly"], counts, unreviewed)
