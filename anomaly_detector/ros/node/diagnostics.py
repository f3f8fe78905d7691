"""What the node says on ``/diagnostics``: how it is, and the numbers behind that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from anomaly_detector.black_box import BlackBox
from anomaly_detector.model.detector import Detector
from anomaly_detector.monitoring.health import Health
from anomaly_detector.monitoring.statistics import StatisticsReport
from anomaly_detector.ros.node.frame_processor import FrameProcessor

MEANINGS = {
    "State": "of the lifecycle",
    "Frames received": "frames that reached the node",
    "Frames scored": "of these, scored",
    "Frames dropped": "sent, but replaced by newer ones or lost on the way, by the middleware's "
    "sequence numbers; `unknown` where it gives none (Humble, Cyclone DDS)",
    "Frames failed": "frames that could not be used",
    "Frames failed (REASON)": "by reason: encoding, size, step, data, decode, depth, roi, stamp, "
    "model, internal",
    "Frames without stamp": "scored all the same",
    "Frames from the future": "stamped ahead of the clock; scored all the same",
    "Frames repeated": "frames whose 64x64 pixels equal those of the one before",
    "Picture unchanged for (s)": "time for which they have been equal",
    "Input rate (Hz)": "frames sent to the node, dropped ones included",
    "Expected rate (Hz)": "the parameter `expected_rate`",
    "Age of last frame (s)": "since it arrived",
    "Processing time p50 (ms)": "from the message in hand to the published result, median",
    "Processing time p99 (ms)": "the same, 99th percentile",
    "Queueing delay p50 (ms)": "from the image's stamp to the start of processing, median",
    "Queueing delay p99 (ms)": "the same, 99th percentile",
    "Busy": "share of the time spent processing",
    "Score": "of the newest frame, in the model's units",
    "Normalized score": "of the newest frame",
    "Anomaly state": "of the newest frame: normal, anomaly or alarm",
    "Alarms": "raised since configuration",
    "Model": "in use",
    "Model loading": "being loaded",
    "Execution provider wanted": "of ONNX Runtime, in order of preference",
    "Execution provider": "the one in use",
    "Black box events": "written; this and the next four with a black box only",
    "Black box events dropped": "events that could not be written",
    "Black box frames": "frames written",
    "Black box size (MB)": "of all events in the folder",
    "Black box error": "the last one",
    "Last error": "in one line",
}
"""What each key means; REASON is one of several."""

_LEVELS = {
    "OK": DiagnosticStatus.OK,
    "WARN": DiagnosticStatus.WARN,
    "ERROR": DiagnosticStatus.ERROR,
    "STALE": DiagnosticStatus.STALE,
}


def write_diagnostics(
    stamp: Any, node_name: str, hardware_id: str, health: Health, values: Mapping[str, str]
) -> Any:
    """Make the message.

    Args:
        stamp: ``builtin_interfaces/Time`` of now.
        node_name: the status is named ``<node name>: detector``.
        hardware_id: of the camera: the newest frame's ``frame_id``.
        health: level and sentence.
        values: what is known, key to text.

    Returns:
        A ``diagnostic_msgs/DiagnosticArray`` with one status.
    """
    status = DiagnosticStatus(
        level=_LEVELS[health.level],
        name=f"{node_name}: detector",
        message=health.message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message


def frame_values(report: StatisticsReport, expected_rate: float) -> dict[str, str]:
    """Return the values that tell of the frames.

    Args:
        report: of the frames.
        expected_rate: frames a second; 0 when not known.
    """
    reasons = {
        f"Frames failed ({reason})": str(count) for reason, count in sorted(report.failed.items())
    }
    return {
        "Frames received": str(report.received),
        "Frames scored": str(report.scored),
        "Frames dropped": "unknown" if report.dropped is None else str(report.dropped),
        "Frames failed": str(sum(report.failed.values())),
        **reasons,
        "Frames without stamp": str(report.without_stamp),
        "Frames from the future": str(report.from_future),
        "Frames repeated": str(report.repeated),
        "Input rate (Hz)": _number(report.input_rate, 2),
        "Expected rate (Hz)": f"{expected_rate:g}" if expected_rate else "unknown",
        "Age of last frame (s)": "never" if report.age_s is None else f"{report.age_s:.3f}",
        "Picture unchanged for (s)": f"{report.unchanged_s:.3f}",
        "Processing time p50 (ms)": _number(report.processing_p50_s * 1e3, 3),
        "Processing time p99 (ms)": _number(report.processing_p99_s * 1e3, 3),
        "Queueing delay p50 (ms)": _number(report.queueing_p50_s * 1e3, 3),
        "Queueing delay p99 (ms)": _number(report.queueing_p99_s * 1e3, 3),
        "Busy": f"{report.busy:.3f}",
    }


def result_values(frames: FrameProcessor | None) -> dict[str, str]:
    """Return the values that tell of the newest result."""
    detection = None if frames is None else frames.last_detection
    if frames is None or detection is None:
        score, normalized, state = "none", "none", "unknown"
    else:
        score, normalized = f"{detection.score:.6g}", f"{detection.normalized_score:.4f}"
        state = "alarm" if frames.is_alarm else "anomaly" if detection.is_anomaly else "normal"
    return {
        "Score": score,
        "Normalized score": normalized,
        "Anomaly state": state,
        "Alarms": "0" if frames is None else str(frames.alarms),
    }


def model_values(detector: Detector | None, name: str, loading: str) -> dict[str, str]:
    """Return the values that tell of the model.

    Args:
        detector: the one in use; None without one.
        name: of the model that is to be used, without a detector.
        loading: the model that is being loaded; empty without one.
    """
    return {
        "Model": name if detector is None else detector.metadata.name,
        "Model loading": loading,
        "Execution provider wanted": (
            "" if detector is None else ", ".join(detector.provider_report.wanted)
        ),
        "Execution provider": "" if detector is None else detector.providers[0],
    }


def black_box_values(black_box: BlackBox | None) -> dict[str, str]:
    """Return the values that tell of the black box; none without one."""
    if black_box is None:
        return {}
    statistics = black_box.statistics
    return {
        "Black box events": str(statistics.events_written),
        "Black box events dropped": str(statistics.events_dropped),
        "Black box frames": str(statistics.frames_recorded),
        "Black box size (MB)": f"{statistics.bytes_on_disk / 1e6:.1f}",
        "Black box error": statistics.last_error,
    }


def _number(value: float, digits: int) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"
