"""A video file as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from anomaly_detector.errors import SourceError
from anomaly_detector.pixels import Pixels
from anomaly_detector.recordings.base import Frame, FrameSource, UnreadableFrame

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"})


class VideoSource(FrameSource):
    """A video file that OpenCV can read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        capture = self._open()
        self._count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise SourceError(f"{self.path} cannot be opened as a video: is it whole?")
        return capture

    def __len__(self) -> int:
        return self._count

    def _frames(self) -> Iterator[Frame | UnreadableFrame]:
        capture = self._open()
        try:
            index = 0
            while True:
                readable, picture = capture.read()
                if not readable:
                    break
                milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
                pixels = Pixels(np.asarray(picture, dtype=np.uint8), "bgr")
                yield Frame(f"{index:06d}", round(milliseconds * 1e6), pixels)
                index += 1
            if index < self._count:
                reason = f"the video ends {self._count - index} frames early"
                yield UnreadableFrame(f"{index:06d}", reason)
        finally:
            capture.release()
