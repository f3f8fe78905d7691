"""Recorded events that people judged, for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anomaly_detector.black_box.reviewed import ChosenFrames, RecordedEventsSource, read_reviewed
from anomaly_detector.errors import SourceError


def open_recorded_anomalies(path: Path) -> RecordedEventsSource | None:
    """Open the anomalies of a black box' folder or of one event of it.

    Returns:
        The frames of the events judged anomalies; None when there is no recorded event at the path.

    Raises:
        SourceError: an event is damaged or has no verdict yet, or none is an anomaly.
    """
    events = read_reviewed(path)
    if events is None:
        return None
    if events.unreviewed_anomalies:
        raise SourceError(
            f"{path} holds {events.unreviewed_anomalies} events that nobody has judged, and a "
            "false alarm among them would be learned as an anomaly: judge them with python -m "
            f"anomaly_detector review {path}"
        )
    if not events.anomalies:
        raise SourceError(
            f"{path} holds {events.counts.total()} recorded events but no frame judged an anomaly: "
            "give recordings of anomalies"
        )
    return RecordedEventsSource(path, events.anomalies)


def thinned(chosen: Sequence[ChosenFrames], share: float) -> list[ChosenFrames]:
    """Return a share of the frames of some events, one at least, spread evenly over them."""
    total = sum(len(item.frames) for item in chosen)
    most = max(1, round(total * share))
    kept, first = [], 0
    for item in chosen:
        # Where the whole number of frames so far goes up.
        frames = [
            frame
            for number, frame in enumerate(item.frames, first)
            if (number + 1) * most // total > number * most // total
        ]
        first += len(item.frames)
        if frames:
            kept.append(ChosenFrames(item.event, frames))
    return kept
