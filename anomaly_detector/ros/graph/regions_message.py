"""The layout of ``~/regions``, ``vision_msgs/Detection2DArray``, where that is installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from anomaly_detector.model.regions import AnomalyRegion

try:
    from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose
    from vision_msgs.msg import Detection2DArray as Detection2DArray
except ImportError:  # apt has it; PyPI has no wheel of it
    Detection2D = Detection2DArray = ObjectHypothesisWithPose = None

CLASS_ID = "anomaly"
"""Of every detection: the model knows what is normal, and no classes of anomalies."""


def write_regions(header: Any, regions: Iterable[AnomalyRegion]) -> Any:
    """Make the ``vision_msgs/Detection2DArray`` for one frame, with the image's header."""
    message = Detection2DArray(header=header)
    for region in regions:
        detection = Detection2D(header=header)
        box = detection.bbox
        box.center.position.x, box.center.position.y = region.center
        box.size_x, box.size_y = float(region.width), float(region.height)
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = CLASS_ID
        hypothesis.hypothesis.score = region.score
        detection.results.append(hypothesis)
        message.detections.append(detection)
    return message
