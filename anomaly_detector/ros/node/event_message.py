"""The layout of the ``~/event`` message: the start and the end of an alarm.

A ``diagnostic_msgs/DiagnosticArray`` as ``~/detection`` is, with the header of the frame that
raised the alarm (start) or of the frame that cleared it (end).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from anomaly_detector.alarms.alarm_filter import AlarmEvent
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.stamps import format_stamp, stamp_text


@dataclass(frozen=True)
class EventRecord:
    """What one ``~/event`` message says.

    Attributes:
        kind: ``start`` or ``end``.
        number: of the alarm, counted from 1 since the node's start.
        start_stamp: stamp of the frame that raised the alarm, seconds as text with nine decimals.
        end_stamp: stamp of the last frame with the alarm on; empty in a start.
        frames: number of frames with the alarm on; 1 in a start.
        peak_stamp: stamp of the frame with the highest score so far.
        peak_score: its score.
        peak_normalized_score: its normalised score.
    """

    kind: str
    number: int
    start_stamp: str
    end_stamp: str
    frames: int
    peak_stamp: str
    peak_score: float
    peak_normalized_score: float


def write_event_start(
    header: Any, number: int, stamp_ns: int, score: float, normalized_score: float, node_name: str
) -> Any:
    """Make the message for the frame that raises an alarm.

    Args:
        header: of the frame.
        number: of the alarm.
        stamp_ns: of the frame.
        score: of the frame.
        normalized_score: of the frame.
        node_name: for the status' name.
    """
    stamp = format_stamp(stamp_ns)
    record = EventRecord("start", number, stamp, "", 1, stamp, score, normalized_score)
    return _write(header, record, node_name, f"anomaly {number} started")


def write_event_end(header: Any, number: int, event: AlarmEvent, node_name: str) -> Any:
    """Make the message for an alarm that has ended.

    Args:
        header: of the frame that cleared it, or of the last one with the alarm on.
        number: of the alarm.
        event: what it was.
        node_name: for the status' name.
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
    )
    return _write(header, record, node_name, f"anomaly {number} ended after {event.frames} frames")


def _write(header: Any, record: EventRecord, node_name: str, message: str) -> Any:
    level = DiagnosticStatus.WARN if record.kind == "start" else DiagnosticStatus.OK
    values = {
        "event": record.kind,
        "number": str(record.number),
        "start_stamp": record.start_stamp,
        "end_stamp": record.end_stamp,
        "frames": str(record.frames),
        "peak_stamp": record.peak_stamp,
        "peak_score": f"{np.float32(record.peak_score):.9g}",
        "peak_normalized_score": f"{np.float32(record.peak_normalized_score):.9g}",
    }
    status = DiagnosticStatus(
        level=level,
        name=f"{node_name}: event",
        message=message,
        hardware_id=header.frame_id,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    return DiagnosticArray(header=header, status=[status])


def read_event(message: Any) -> EventRecord:
    """Read a message of ``~/event``.

    Raises:
        AnomalyDetectorError: another kind of diagnostic message.
    """
    try:
        (status,) = message.status
        values = {item.key: item.value for item in status.values}
        return EventRecord(
            kind=values["event"],
            number=int(values["number"]),
            start_stamp=values["start_stamp"],
            end_stamp=values["end_stamp"],
            frames=int(values["frames"]),
            peak_stamp=values["peak_stamp"],
            peak_score=float(np.float32(values["peak_score"])),
            peak_normalized_score=float(np.float32(values["peak_normalized_score"])),
        )
    except (KeyError, ValueError) as error:
        raise AnomalyDetectorError(
            f"diagnostic message is no event ({error}): give the ~/event topic of a detector node"
        ) from error
