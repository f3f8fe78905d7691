"""The layout of the ``~/detection`` message: written by the node, read by its listeners.

It is a ``diagnostic_msgs/DiagnosticArray`` because that is the standard message that carries a
stamp, a level, words and named values; rqt and rosbag tools show it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detection
from anomaly_detector.stamps import stamp_text, stamp_to_ns


@dataclass(frozen=True)
class DetectionRecord:
    """What one ``~/detection`` message says.

    Attributes:
        stamp_ns: stamp of the image, nanoseconds; None when it is missing.
        frame_id: of the image.
        score: anomaly score, in the model's units; exactly the float32 of ``~/score``.
        normalized_score: the score in [0, 1], 0.5 at the threshold.
        threshold: the threshold it was compared with.
        is_anomaly: ``score >= threshold``.
        alarm: the decision over time (:mod:`anomaly_detector.alarms.alarm_filter`).
        model: name of the model.
        inference_ms: time in the network, milliseconds.
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


def write_detection(
    header: Any, detection: Detection, alarm: bool, node_name: str, model: str
) -> Any:
    """Make the message for one frame.

    Args:
        header: the image's ``std_msgs/Header``; becomes the header of the message.
        detection: the result.
        alarm: whether the alarm is on after this frame.
        node_name: of the node, for the status' name.
        model: name of the model.

    Returns:
        A ``diagnostic_msgs/DiagnosticArray`` with one status.
    """
    # Nine significant digits give every float32 back exactly, repr every float64.
    score = f"{np.float32(detection.score):.9g}"
    relation = "at or above" if detection.is_anomaly else "below"
    status = DiagnosticStatus(
        level=DiagnosticStatus.WARN if detection.is_anomaly else DiagnosticStatus.OK,
        name=f"{node_name}: anomaly",
        message=f"score {detection.score:.6g} is {relation} the threshold "
        f"{detection.threshold:.6g}",
        hardware_id=header.frame_id,
        values=[
            KeyValue(key="score", value=score),
            KeyValue(key="normalized_score", value=f"{np.float32(detection.normalized_score):.9g}"),
            KeyValue(key="threshold", value=repr(detection.threshold)),
            KeyValue(key="is_anomaly", value=str(detection.is_anomaly)),
            KeyValue(key="alarm", value=str(alarm)),
            KeyValue(key="model", value=model),
            KeyValue(key="inference_ms", value=f"{detection.inference_ms:.3f}"),
        ],
    )
    return DiagnosticArray(header=header, status=[status])


def read_detection(message: Any) -> DetectionRecord:
    """Read a message that :func:`write_detection` made.

    Raises:
        AnomalyDetectorError: another kind of diagnostic message.
    """
    stamp_ns = stamp_to_ns(message.header.stamp)
    try:
        (status,) = message.status
        values = {item.key: item.value for item in status.values}
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
        )
    except (KeyError, ValueError) as error:
        raise AnomalyDetectorError(
            f"diagnostic message with stamp {stamp_text(stamp_ns)} is no detection ({error}): "
            "give the ~/detection topic of a detector node"
        ) from error
