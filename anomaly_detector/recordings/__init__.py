"""Recordings as streams of frames: a folder of images, a ROS bag or a video file.

Training and offline scoring read through this one layer. A recording lies on the disk; a *source*
is one that is open for reading, and holds one full-size frame at a time. Frames that cannot be
read are recorded in :attr:`FrameSource.unreadable` and skipped; a source that yields nothing at
all is an error.
"""

from anomaly_detector.recordings.bag import Bag, open_bag
from anomaly_detector.recordings.bag_folder import is_bag
from anomaly_detector.recordings.bag_source import BagSource, deserialize, to_cdr
from anomaly_detector.recordings.base import (
    Frame,
    FrameSource,
    UnreadableFrame,
    count_frames,
    frame_size,
    natural_key,
    path_identity,
    warn_unreadable,
)
from anomaly_detector.recordings.images import IMAGE_SUFFIXES, ImageFilesSource, ImageFolderSource
from anomaly_detector.recordings.opening import expand_sources, open_source
from anomaly_detector.recordings.poses import read_poses
from anomaly_detector.recordings.video import VIDEO_SUFFIXES, VideoSource

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Bag",
    "BagSource",
    "Frame",
    "FrameSource",
    "ImageFilesSource",
    "ImageFolderSource",
    "UnreadableFrame",
    "VideoSource",
    "count_frames",
    "deserialize",
    "expand_sources",
    "frame_size",
    "is_bag",
    "natural_key",
    "open_bag",
    "open_source",
    "path_identity",
    "read_poses",
    "to_cdr",
    "warn_unreadable",
]
