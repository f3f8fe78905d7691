"""The layout and the QoS of ``~/state``: written by the node, read by its listeners.

A ``diagnostic_msgs/DiagnosticArray`` as ``~/detection`` is. Its stamp is of the system's clock,
also with use_sim_time: simulated time that stands still would make an old state look fresh.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from std_msgs.msg import Header

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.monitoring.state import DetectorState, StateWord, Verdict
from anomaly_detector.ros.node.result_publishers import Topic
from anomaly_detector.ros.node.status_message import status_message, status_values
from anomaly_detector.stamps import stamp_text, stamp_to_ns

OFFERED_DEADLINE_S = 0.3
"""The least deadline that a subscription may request."""

STATE_TOPIC = Topic(
    "~/state",
    DiagnosticArray,
    "ten times a second in every lifecycle state but finalized: system time; one status, level OK, "
    "WARN (anomaly), ERROR (alarm) or STALE (unknown), with state, reason, detail, is_anomaly, "
    "alarm, alarm_number, alarm_quiet (a repeat, or snoozed), frame_stamp, frame_age, model",
)

_LEVELS: Mapping[StateWord, str] = {
    "ok": "OK",
    "anomaly": "WARN",
    "alarm": "ERROR",
    "unknown": "STALE",
}


@dataclass(frozen=True)
class StateRecord:
    """What one ``~/state`` message says.

    Attributes:
        stamp_ns: when it was said, nanoseconds of the node's system clock.
        state: the node's judgement.
        is_anomaly: of the newest scored frame; None when there is none, as the next two.
        alarm: whether the alarm is on.
        alarm_number: of that alarm, from 1; 0 for none.
        is_quiet: whether nobody is to be called for it.
        frame_age_s: since that frame was scored.
        model: in use; empty when the node is not configured.
    """

    stamp_ns: int | None
    state: DetectorState
    is_anomaly: bool | None = None
    alarm: bool | None = None
    alarm_number: int = 0
    is_quiet: bool = False
    frame_age_s: float | None = None
    model: str = ""


def state_qos(deadline_s: float) -> QoSProfile:
    """Return the QoS of ``~/state`` with a deadline to offer or to request, seconds."""
    return QoSProfile(
        depth=1,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
        deadline=Duration(nanoseconds=round(deadline_s * 1e9)),
    )


def write_state(
    state: DetectorState, verdict: Verdict | None, now_s: float, node: str, frame: str, model: str
) -> Any:
    """Make the message of this moment, ``now_s`` of the verdict's clock, for a camera's frame."""
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = divmod(time.time_ns(), 10**9)
    values = {
        "state": state.word,
        "reason": state.reason,
        "detail": state.detail,
        "is_anomaly": "" if verdict is None else str(verdict.is_anomaly),
        "alarm": "" if verdict is None else str(verdict.is_alarm),
        "alarm_number": "" if verdict is None else str(verdict.alarm_number),
        "alarm_quiet": "" if verdict is None else str(verdict.is_quiet),
        "frame_stamp": "" if verdict is None else stamp_text(verdict.stamp_ns),
        "frame_age": "" if verdict is None else f"{now_s - verdict.at_s:.3f}",
        "model": model,
    }
    return status_message(_LEVELS[state.word], f"{node}: state", state.text, values, header)


def read_state(message: Any) -> StateRecord:
    """Read a message that :func:`write_state` made.

    Raises:
        AnomalyDetectorError: another kind of diagnostic message.
    """
    try:
        (status,) = message.status
        values = status_values(status)
        words: dict[str, StateWord] = {word: word for word in _LEVELS}
        age = values["frame_age"]
        return StateRecord(
            stamp_to_ns(message.header.stamp),
            DetectorState(words[values["state"]], values["reason"], values["detail"]),
            values["is_anomaly"] == "True" if age else None,
            values["alarm"] == "True" if age else None,
            # A node of an earlier version says neither.
            int(values.get("alarm_number") or 0),
            values.get("alarm_quiet") == "True",
            float(age) if age else None,
            values["model"],
        )
    except (KeyError, ValueError) as error:
        raise AnomalyDetectorError(
            f"diagnostic message is no state ({error}): give the ~/state topic of a detector node"
        ) from error
