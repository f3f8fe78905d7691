"""What the robot's black box recorded, as a recording of anomalies.

Of an event only the frames that were flagged while the alarm was on show the anomaly: those before
and after it are of the drive around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from anomaly_detector.black_box.events import RecordedEvent, find_events, read_event
from anomaly_detector.errors import SourceError
from anomaly_detector.recordings import BagSource, Frame, FrameSource, ImageFilesSource
from anomaly_detector.recordings.base import AnyFrame, decoded


class RecordedEventsSource(FrameSource):
    """The anomalous frames of recorded events, in either format; ``EVENT/FRAME`` is their name.

    Args:
        path: the black box' folder, or that of one event.
        events: those that have anomalous frames.
    """

    def __init__(self, path: Path, events: Sequence[RecordedEvent]) -> None:
        super().__init__(path)
        self.events = list(events)
        self._sources = [_open(event) for event in events]

    def __len__(self) -> int:
        return sum(len(event.anomalous_frames) for event in self.events)

    @property
    def identity(self) -> str:
        """See :attr:`FrameSource.identity`."""
        return "|".join(
            f"{source.identity}|{[frame.name for frame in event.anomalous_frames]}"
            for event, source in zip(self.events, self._sources, strict=True)
        )

    def _frames(self) -> Iterator[AnyFrame]:
        for event, source in zip(self.events, self._sources, strict=True):
            wanted = {frame.name: frame.stamp_ns for frame in event.anomalous_frames}
            source.view = self.view
            # Not its public iteration: one event without a readable frame is no error.
            for item in map(decoded, source._frames()):
                name = f"{event.path.name}/{item.name}"
                if isinstance(item, Frame):
                    if item.name in wanted:
                        yield replace(item, name=name, stamp_ns=wanted[item.name])
                elif item.frames != 1 or item.name in wanted:
                    yield replace(item, name=name)


def _open(event: RecordedEvent) -> FrameSource:
    if event.format == "mcap":
        return BagSource(event.path)
    files = [event.path / frame.name for frame in event.anomalous_frames]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise SourceError(f"{missing[0]} is missing: copy the event again or leave it out")
    return ImageFilesSource(event.path, files)


def open_recorded_events(path: Path) -> RecordedEventsSource | None:
    """Open a black box' folder or one event of it.

    Returns:
        Its anomalous frames; None when there is no recorded event at the path.

    Raises:
        SourceError: an event is damaged, or none has an anomalous frame.
    """
    found = find_events(path)
    if not found:
        return None
    events = [event for event in map(read_event, found) if event.anomalous_frames]
    if not events:
        raise SourceError(
            f"{path} holds {len(found)} recorded events but no frame that was anomalous during "
            "one: give recordings of anomalies"
        )
    return RecordedEventsSource(path, events)
