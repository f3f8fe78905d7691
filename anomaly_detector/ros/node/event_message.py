"""The layout of the ``~/event`` message: the start and the end of an alarm.

A ``diagnostic_msgs/DiagnosticArray`` as ``~/detection`` is, with the header of the frame that
raised the alarm (start) or of the frame that cleared it (end). A repeat that has grown or changed
is raised anew in between. The level is WARN where somebody is to be called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anomaly_detector.alarms.alarm_filter import AlarmEvent
from anomaly_detector.alarms.incidents import AlarmReport
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.poses import PLACE_COLUMNS
from anomaly_detector.ros.node.status_message import float32_text, status_message, status_values
from anomaly_detector.stamps import format_stamp, stamp_text, utc_text


@dataclass(frozen=True)
class EventRecord:
    """What one ``~/event`` message says: ``start``, ``raised`` anew or ``end`` of an alarm.

    Alarms are counted from 1.

    Stamps are seconds as text with nine decimals; that of the end is empty in a start. The place is
    that of the peak so far, by :data:`~anomaly_detector.poses.PLACE_COLUMNS`; empty without poses.
    ``repeat_of`` is the number of the alarm that this one repeats, and ``snoozed_until`` a stamp;
    both are empty where they do not apply.
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
    repeat_of: str = ""
    snoozed_until: str = ""


def write_event_start(
    header: Any,
    report: AlarmReport,
    stamp_ns: int,
    score: float,
    normalized_score: float,
    node_name: str,
) -> Any:
    """Make the message for the frame that raises an alarm, also anew, from its stamp and scores."""
    stamp = format_stamp(stamp_ns)
    kind = "raised" if report.is_raised_anew else "start"
    values = kind, report.number, stamp, "", 1, stamp, score, normalized_score
    what = "has grown or changed" if report.is_raised_anew else "started"
    return _write(header, EventRecord(*values, *_details(report)), report, node_name, what)


def write_event_end(header: Any, report: AlarmReport, event: AlarmEvent, node_name: str) -> Any:
    """Make the message for an alarm that has ended.

    The header is that of the frame that cleared it, or of the last one with the alarm on.
    """
    record = EventRecord(
        "end",
        report.number,
        stamp_text(event.start_stamp_ns),
        stamp_text(event.end_stamp_ns),
        event.frames,
        stamp_text(event.peak_stamp_ns),
        event.peak_score,
        event.peak_normalized_score,
        *_details(report),
    )
    return _write(header, record, report, node_name, f"ended after {event.frames} frames")


def _details(report: AlarmReport) -> tuple[Mapping[str, str], str, str]:
    return (
        {} if report.place is None else report.place.texts(),
        "" if report.repeat_of is None else str(report.repeat_of),
        stamp_text(report.snoozed_until_ns),
    )


def _write(header: Any, record: EventRecord, report: AlarmReport, node_name: str, what: str) -> Any:
    fields = {name: v for name, v in vars(record).items() if name != "place"} | dict(record.place)
    values = {"event" if name == "kind" else name: str(v) for name, v in fields.items()}
    for name in ("peak_score", "peak_normalized_score"):
        values[name] = float32_text(getattr(record, name))
    message = f"anomaly {record.number} {what}"
    if report.repeat_of is not None:
        message += f", a repeat of {report.repeat_of}"
    if report.snoozed_until_ns is not None:
        message += f", where it is snoozed until {utc_text(report.snoozed_until_ns)}"
    level = "OK" if record.kind == "end" or report.is_quiet else "WARN"
    return status_message(level, f"{node_name}: event", message, values, header)


def event_text(message: Any) -> str:
    """Return what the log says of a message of ``~/event``: the words, the score and the place."""
    record = read_event(message)
    text = f"{message.status[0].message}: normalized score {record.peak_normalized_score:.2f}"
    if record.place.get("pose_frame"):
        text += " at {pose_frame} {pose_x} {pose_y}".format(**record.place)
    return text


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
            repeat_of=values.get("repeat_of", ""),
            snoozed_until=values.get("snoozed_until", ""),
        )
    except (KeyError, ValueError) as error:
        raise AnomalyDetectorError(
            f"diagnostic message is no event ({error}): give the ~/event topic of a detector node"
        ) from error
