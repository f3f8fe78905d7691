"""The poses in a bag."""

from __future__ import annotations

from pathlib import Path

from anomaly_detector.errors import SourceError, as_one_line
from anomaly_detector.poses import POSE_TYPES, PoseSettings, PoseTrack
from anomaly_detector.recordings.bag import open_bag
from anomaly_detector.recordings.bag_folder import is_bag
from anomaly_detector.recordings.bag_source import deserialize
from anomaly_detector.recordings.base import UnreadableFrame


def read_poses(path: Path, settings: PoseSettings) -> PoseTrack | None:
    """Read the poses of a bag's topic; None where no topic is given.

    Raises:
        SourceError: no bag, or it has no poses on the topic.
    """
    if not settings.topic:
        return None
    if not is_bag(path):
        raise SourceError(f"{path} is no bag, so it has no topic {settings.topic!r}: leave it out")
    track = PoseTrack(settings)
    count = 0
    with open_bag(path) as bag:
        for item in bag.messages(settings.topic, POSE_TYPES):
            if isinstance(item, UnreadableFrame):
                continue
            count += 1
            try:
                message = deserialize(item)
            except Exception as error:  # whatever a damaged payload runs into
                track.refuse(f"a pose cannot be deserialized: {as_one_line(error)}")
                continue
            track.see(message)
        channels = {c.topic: c.type for file in bag.files for c in file.channels.values()}
    if not count:
        found = channels.get(settings.topic)
        what = "no pose" if found in POSE_TYPES else found or "no message"
        listed = ", ".join(name for name, kind in channels.items() if kind in POSE_TYPES)
        raise SourceError(
            f"bag {path} has {what} on {settings.topic}: it has poses on {listed or 'no topic'}"
        )
    return track
