"""A video file as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from anomaly_detector.errors import SourceError
from anomaly_detector.images.image import Image
from anomaly_detector.recordings.base import AnyFrame, Frame, FrameSource, UnreadableFrame

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"})

_MOST_FAILED = 100
"""Reads that fail in a row, after which the video is taken for ended."""


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
        # Frames are used as they were stored, as pictures are, whatever a tag says of rotation.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return capture

    def __len__(self) -> int:
        return self._count

    def _has_exact_count(self) -> bool:
        """Return whether the file is an AVI: others guess, or count frames that are not shown."""
        with self.path.open("rb") as file:
            return file.read(4) == b"RIFF"

    def _frames(self) -> Iterator[AnyFrame]:
        capture = self._open()
        try:
            index = failed = 0
            # The container's count is a guess, so the end is where no frame follows any more.
            while failed < _MOST_FAILED:
                readable, picture = capture.read()
                if not readable:
                    failed += 1
                    continue
                for _ in range(failed):
                    yield UnreadableFrame(f"{index:06d}", "the video is damaged here")
                    index += 1
                failed = 0
                milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
                pixels = Image(np.asarray(picture, dtype=np.uint8), "bgr")
                yield Frame(f"{index:06d}", round(milliseconds * 1e6), pixels)
                index += 1
            missing = self._count - index
            if missing > 0 and self._has_exact_count():
                yield UnreadableFrame(f"{index:06d}", "the video is cut off before it", missing)
        finally:
            capture.release()
