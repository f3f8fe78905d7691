"""The layout of ``~/camera_health``, and of the status ``NODE: camera`` on ``/diagnostics``."""

from __future__ import annotations

from typing import Any

from anomaly_detector.camera_health.watch import CameraState
from anomaly_detector.ros.node.status_message import status_message
from anomaly_detector.stamps import stamp_text


def write_camera_health(header: Any, state: CameraState, node: str, has_reference: bool) -> Any:
    """Make the ``diagnostic_msgs/DiagnosticArray`` of a moment; the header is that of a frame."""
    values = {
        "Cause": state.cause,
        "Since": stamp_text(state.since_ns),
        "Strength": f"{state.strength:.2f}" if state.cause else "",
        "Reference": "of the model" if has_reference else "none",
    }
    level = "WARN" if state.cause else "OK"
    return status_message(level, f"{node}: camera", state.text, values, header)
