"""The layout of the ``~/detection`` message: written by the node, read by its listeners.

It is a ``diagnostic_msgs/DiagnosticArray`` because that is the standard message that carries a
stamp, a level, words and named values; rqt and rosbag tools show it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detection
from anomaly_detector.ros.node.status_message import float32_text, status_message, status_values
from anomaly_detector.stamps import stamp_text, stamp_to_ns


@dataclass(frozen=True)
class DetectionRecord:
    """What one ``~/detection`` message says.

    Attributes:
        stamp_ns: stamp of the image, nanoseconds; None when it is missing.
        score: anomaly score, in the model's units; exactly the float32 of ``~/score``.
        normalized_score: the score in [0, 1], 0.5 at the threshold.
        is_anomaly: ``score >= threshold``.
        alarm: whether the alarm is on (:mod:`anomaly_detector.alarms.alarm_filter`).
        inference_ms: time in the network, milliseconds.
        scene: word of :class:`~anomaly_detector.monitoring.scene.SceneState`; ``unknown`` in
            messages from before there was one.
    """

    stamp_ns: int | None
    frame_id: str
    score: float
    normalized_score: float
    threshold: float
    is_anomaly: bool
    alarm: bool
    model: str
    inference_ms: float
    scene: str = "unknown"


def write_detection(
    header: Any, detection: Detection, alarm: bool, node_name: str, model: str, scene: str
) -> Any:
    """Make the ``diagnostic_msgs/DiagnosticArray`` for one frame, with the image's header."""
    relation = "at or above" if detection.is_anomaly else "below"
    values = {
        "score": float32_text(detection.score),
        "normalized_score": float32_text(detection.normalized_score),
        "threshold": repr(detection.threshold),  # which gives every float64 back exactly
        "is_anomaly": str(detection.is_anomaly),
        "alarm": str(alarm),
        "model": model,
        "inference_ms": f"{detection.inference_ms:.3f}",
        "scene": scene,
    }
    return status_message(
        "WARN" if detection.is_anomaly else "OK",
        f"{node_name}: anomaly",
        f"score {detection.score:.6g} is {relation} the threshold {detection.threshold:.6g}",
        values,
        header,
    )


def read_detection(message: Any) -> DetectionRecord:
    """Read a message that :func:`write_detection` made.

    Raises:
        AnomalyDetectorError: another kind of diagnostic message.
    """
    stamp_ns = stamp_to_ns(message.header.stamp)
    try:
        (status,) = message.status
        values = status_values(status)
        return DetectionRecord(
            stamp_ns=stamp_ns,
            frame_id=message.header.frame_id,
            # Back to the float32 that was written, not to the float64 next to its digits.
            score=float(np.float32(values["score"])),
            normalized_score=float(np.float32(values["normalized_score"])),
            threshold=float(values["threshold"]),
            is_anomaly=values["is_anomaly"] == "True",
            alarm=values["alarm"] == "True",
            model=values["model"],
            inference_ms=float(values["inference_ms"]),
            scene=values.get("scene", "unknown"),
        )
    except (KeyError, ValueError) as error:
        raise AnomalyDetectorError(
            f"diagnostic message with stamp {stamp_text(stamp_ns)} is no detection ({error}): "
            "give the ~/detection topic of a detector node"
        ) from error
