"""What the node says on ``/diagnostics``: how it is, and the numbers behind that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import Header

from anomaly_detector.black_box import BlackBox
from anomaly_detector.camera_health.watch import CameraState
from anomaly_detector.monitoring.health import Health, HealthLimits, assess
from anomaly_detector.monitoring.scene import SceneState
from anomaly_detector.monitoring.statistics import StatisticsReport
from anomaly_detector.ros.graph.camera_message import write_camera_health
from anomaly_detector.ros.node.frame_processor import FrameProcessor
from anomaly_detector.ros.node.status_message import status_message
from anomaly_detector.stamps import stamp_text

MEANINGS = {
    "State": "of the lifecycle",
    "Frames received": "frames that reached the node",
    "Frames scored": "of these, scored",
    "Frames dropped": "sent, but replaced by newer ones or lost on the way, by the middleware's "
    "sequence numbers; `unknown` where it gives none (Humble, Cyclone DDS)",
    "Frames failed": "frames that could not be used",
    "Frames failed (REASON)": "by reason: encoding, size, step, data, decode, depth, roi, stamp, "
    "model, internal",
    "Frames skipped": "not scored because of `max_rate_hz`, or in a pause",
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
    "Alarms": "since configuration",
    "Alarms repeated": "of these, repeats of an earlier one",
    "Snoozed": "places, and until when",
    "Scene": "as a whole: unknown, as trained, differs or blank picture",
    "Scene since": "stamp from which on it differs, or the picture is blank",
    "Scene median score": "of the last 60 seconds that count",
    "Scene flagged": "share of them",
    "Calibrated 95 % quantile": "of the scores; `unknown` where the model has none",
    "Pose": "of the newest frame: frame_id, x, y, yaw and age, or why there is none; empty without "
    "`pose_topic`",
    "Model": "in use",
    "Model loading": "being loaded",
    "Execution provider wanted": "of ONNX Runtime, in order of preference",
    "Execution provider": "the one in use",
    "Black box events": "written; this and the next seven with a black box only",
    "Black box events dropped": "events that could not be written",
    "Black box events lost unreviewed": "removed to make room before anybody had looked at them",
    "Black box events not kept": "removed though they were to be kept: nothing else was left",
    "Black box samples": "normal frames written",
    "Black box frames": "frames written",
    "Black box size (MB)": "of all events in the folder",
    "Black box error": "the last one",
    "Last error": "in one line",
}
"""What each key means; REASON is one of several."""


@dataclass(frozen=True)
class NodeStatus:
    """The node at one moment."""

    state: str
    report: StatisticsReport
    limits: HealthLimits
    waiting_s: float | None
    """Time since it began to listen to the camera; None unless active."""
    frames: FrameProcessor | None
    """None unless configured."""
    model: str
    """Path or name, as the parameter has it."""
    is_loading: bool
    notice: str
    """What takes long at the moment; empty as a rule, as the next one."""
    last_error: str
    awake_s: float = math.inf
    """Time since it last stood still."""

    def values(self) -> dict[str, str]:
        """Return all that is published, by the keys of :data:`MEANINGS`."""
        return {
            "State": self.state,
            **_frame_values(self.report, self.limits.expected_rate),
            **_result_values(self.frames),
            **_scene_values(SceneState() if self.frames is None else self.frames.scene),
            "Pose": _pose(self.frames),
            **_model_values(self),
            **_black_box_values(None if self.frames is None else self.frames.black_box),
            "Last error": self.last_error,
        }


class DiagnosticsPublisher:
    """Publishes the node's status on ``/diagnostics``.

    Args:
        node: an ``rclpy.node.Node``.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish(self, status: NodeStatus) -> None:
        """Publish how the node is."""
        health = self._health(status)
        header = None if status.frames is None else status.frames.last_header
        # As diagnostic_updater names it; with the namespace, where there is one.
        name = self._node.get_fully_qualified_name().lstrip("/")
        own = Header(frame_id="" if header is None else header.frame_id)
        detector = status_message(
            health.level, f"{name}: detector", health.message, status.values(), own
        )
        message = DiagnosticArray(status=[*detector.status, *_camera(own, name, status.frames)])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _health(self, status: NodeStatus) -> Health:
        if status.waiting_s is None or status.frames is None:
            if status.notice:
                return Health("WARN", f"{status.state}: {status.notice}")
            if status.last_error:
                return Health("ERROR", f"{status.state}: {status.last_error}")
            return Health("OK", status.state)
        health = assess(
            status.report,
            status.limits,
            waiting_s=status.waiting_s,
            awake_s=status.awake_s,
            others=[
                status.notice,
                status.frames.detector.provider_report.warning,
                status.frames.scene.warning,
                _pose_warning(status.frames),
                _black_box_warning(status.frames.black_box),
            ],
            last_error=status.last_error,
            max_rate_hz=status.frames.gate.settings.max_rate_hz,
            paused=status.frames.paused,
        )
        clock = self._node.get_clock()
        if health.level == "OK" and clock.ros_time_is_active and clock.now().nanoseconds == 0:
            return Health("WARN", "use_sim_time is set, but nothing comes on /clock")
        return health


def _camera(header: Any, name: str, frames: FrameProcessor | None) -> list[Any]:
    """Return the status of the camera, in a list."""
    state = CameraState() if frames is None else frames.camera
    has_reference = frames is not None and frames.detector.camera_reference is not None
    return list(write_camera_health(header, state, name, has_reference).status)


def _frame_values(report: StatisticsReport, expected_rate: float) -> dict[str, str]:
    reasons = {
        f"Frames failed ({reason})": str(count) for reason, count in sorted(report.failed.items())
    }
    return {
        "Frames received": str(report.received),
        "Frames scored": str(report.scored),
        "Frames dropped": "unknown" if report.dropped is None else str(report.dropped),
        "Frames failed": str(sum(report.failed.values())),
        **reasons,
        "Frames skipped": str(report.skipped),
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


def _result_values(frames: FrameProcessor | None) -> dict[str, str]:
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
        "Alarms": "0" if frames is None else str(frames.incidents.alarms),
        "Alarms repeated": "0" if frames is None else str(frames.incidents.repeats),
        "Snoozed": "" if frames is None else "; ".join(map(str, frames.incidents.snoozes)),
    }


def _scene_values(scene: SceneState) -> dict[str, str]:
    return {
        "Scene": scene.word,
        "Scene since": stamp_text(scene.since_ns),
        "Scene median score": _score(scene.median),
        "Scene flagged": "unknown" if scene.median is None else f"{scene.flagged:.2f}",
        "Calibrated 95 % quantile": _score(scene.quantile),
    }


def _pose(frames: FrameProcessor | None) -> str:
    return "" if frames is None or frames.last_place is None else str(frames.last_place)


def _pose_warning(frames: FrameProcessor) -> str | None:
    place = frames.last_place
    return f"place unknown: {place.problem}" if place is not None and place.problem else None


def _model_values(status: NodeStatus) -> dict[str, str]:
    detector = None if status.frames is None else status.frames.detector
    return {
        "Model": status.model if detector is None else detector.metadata.name,
        "Model loading": status.model if status.is_loading else "",
        "Execution provider wanted": (
            "" if detector is None else ", ".join(detector.provider_report.wanted)
        ),
        "Execution provider": "" if detector is None else detector.providers[0],
    }


def _black_box_values(black_box: BlackBox | None) -> dict[str, str]:
    if black_box is None:
        return {}
    statistics = black_box.statistics
    return {
        "Black box events": str(statistics.events_written),
        "Black box events dropped": str(statistics.events_dropped),
        "Black box events lost unreviewed": str(statistics.events_lost),
        "Black box events not kept": str(statistics.events_not_kept),
        "Black box samples": str(statistics.samples_written),
        "Black box frames": str(statistics.frames_recorded),
        "Black box size (MB)": f"{statistics.bytes_on_disk / 1e6:.1f}",
        "Black box error": statistics.last_error,
    }


def _black_box_warning(black_box: BlackBox | None) -> str | None:
    if black_box is None:
        return None
    statistics = black_box.statistics
    if statistics.is_failing:
        return f"black box: {statistics.last_error}"
    if statistics.events_not_kept:
        return (
            f"black box: {statistics.events_not_kept} events that were to be kept were removed: "
            "raise black_box_max_megabytes or copy what is there"
        )
    return None


def _score(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"


def _number(value: float, digits: int) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"
