"""The node's subscription to the robot's pose."""

from __future__ import annotations

from typing import Any

from anomaly_detector.poses import POSE_TYPES, PoseSettings, PoseTrack
from anomaly_detector.ros.graph.found_topic import FoundTopic

_KEEP_S = 10.0
"""Frames are not older than this when they are scored."""


class PoseInput(FoundTopic):
    """Subscribes to the topic of the settings as soon as it has a publisher of poses.

    Attributes:
        track: the poses so far, or why there is none.

    Raises:
        AnomalyDetectorError: the topic has no name that can be.
    """

    def __init__(self, node: Any, settings: PoseSettings) -> None:
        self.track = PoseTrack(settings, _KEEP_S)
        super().__init__(
            node, "pose_topic", settings.topic, POSE_TYPES, self.track.see, self.track.refuse
        )
