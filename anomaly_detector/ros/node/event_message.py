"""The layout of the ``~/event`` message: the start and the end of an alarm.

A ``diagnostic_msgs/DiagnosticArray`` as ``~/detection`` is, with the header of the frame that
raised the alarm (start) or of the frame that cleared it (end).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anomaly_detector.alarms.alarm_filter import AlarmEvent
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.poses import PLACE_COLUMNS, Place
from anomaly_detector.ros.node.status_message import float32_text, status_message, status_values
from anomaly_detector.stamps import format_stamp, stamp_text


@dataclass(frozen=True)
class EventRecord:
    """What one ``~/event`` message says: the ``start`` or ``end`` of an alarm, counted from 1.

    Stamps are seconds as text with nine decimals; that of the end is empty in a start. The place is
    that of the peak so far, by :data:`~anomaly_detector.poses.PLACE_COLUMNS`; empty without poses.
    """

    kind: str
    number: int
    start_stamp: str
    end_stamp: str
    frames: int
    peak_stamp: str
    peak_score: float
    peak_normalized_score: float
    place: Mapping[str, str] = field(default_factory=dict)


def write_event_start(
    header: Any,
    number: int,
    stamp_ns: int,
    score: float,
    normalized_score: float,
    place: Place | None,
    node_name: str,
) -> Any:
    """Make the message for the frame that raises an alarm, from its header, stamp and scores."""
    stamp = format_stamp(stamp_ns)
    record = EventRecord(
        "start", number, stamp, "", 1, stamp, score, normalized_score, _texts(place)
    )
    return _write(header, record, node_name, f"anomaly {number} started")


def write_event_end(
    header: Any, number: int, event: AlarmEvent, place: Place | None, node_name: str
) -> Any:
    """Make the message for an alarm that has ended.

    The header is that of the frame that cleared it, or of the last one with the alarm on.
    """
    record = EventRecord(
        "end",
        number,
        stamp_text(event.start_stamp_ns),
        stamp_text(event.end_stamp_ns),
        event.frames,
        stamp_text(event.peak_stamp_ns),
        event.peak_score,
        event.peak_normalized_score,
        _texts(place),
    )
    return _write(header, record, node_name, f"anomaly {number} ended after {event.frames} frames")


def _texts(place: Place | None) -> Mapping[str, str]:
    return {} if place is None else place.texts()


def _write(header: Any, record: EventRecord, node_name: str, message: str) -> Any:
    fields = {name: v for name, v in vars(record).items() if name != "place"} | dict(record.place)
    values = {"event" if name == "kind" else name: str(v) for name, v in fields.items()}
    for name in ("peak_score", "peak_normalized_score"):
        values[name] = float32_text(getattr(record, name))
    level = "WARN" if record.kind == "start" else "OK"
    return status_message(level, f"{node_name}: event", message, values, header)


def read_event(message: Any) -> EventRecord:
    """Read a message of ``~/event``.

    Raises:
        AnomalyDetectorError: another kind of diagnostic message.
    """
    try:
        (status,) = message.status
        values = status_values(status)
        return EventRecord(
            kind=values["event"],
            number=int(values["number"]),
            start_stamp=values["start_stamp"],
            end_stamp=values["end_stamp"],
            frames=int(values["frames"]),
            peak_stamp=values["peak_stamp"],
            peak_score=float(np.float32(values["peak_score"])),
            peak_normalized_score=float(np.float32(values["peak_normalized_score"])),
            place={name: values[name] for name in PLACE_COLUMNS if name in values},
        )
    except (KeyError, ValueError) as error:
        raise AnomalyDetectorError(
            f"diagnostic message is no event ({error}): give the ~/event topic of a detector node"
        ) from error
