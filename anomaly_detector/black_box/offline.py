"""The events of a recording, as the black box of a live node records them.

The scores are computed first, fast and in batches. Then the recording is read again for the
pictures.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmState
from anomaly_detector.alarms.incidents import IncidentSettings, IncidentWatch
from anomaly_detector.black_box.events import find_events
from anomaly_detector.black_box.frames import BlackBoxFrame, EncodedPicture
from anomaly_detector.black_box.recorder import BlackBox
from anomaly_detector.black_box.settings import BLACK_BOX_SETTINGS, BlackBoxSettings
from anomaly_detector.black_box.verdicts import REVIEW_FILE
from anomaly_detector.errors import AnomalyDetectorError, ImageError, OutputError
from anomaly_detector.files import atomic_directory, check_output_folder
from anomaly_detector.images.image import Image
from anomaly_detector.images.message import as_image
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.poses import PoseTrack
from anomaly_detector.recordings import BagSource, FrameSource, UnreadableFrame

if TYPE_CHECKING:
    from anomaly_detector.scoring.stream import ScoredFrame

_NO_MAP = np.zeros((1, 1), np.float32)


@dataclass(frozen=True)
class _Seen:
    """What is kept of a scored frame; the image of those that an incident is known by."""

    time_ns: int
    has_stamp: bool
    score: float
    normalized_score: float
    is_anomaly: bool
    state: AlarmState
    image: NDArray[np.uint8] | None


class EventRecorder:
    """Takes the scored frames of a recording, and writes the events in it.

    Args:
        detector: the model; it says again where the evidence lies in the peaks of alarms.
        poses: of the robot; None for none.
        incidents: when an alarm is a repeat; None for the defaults.
    """

    def __init__(
        self,
        detector: Detector,
        poses: PoseTrack | None = None,
        incidents: IncidentSettings | None = None,
    ) -> None:
        self._detector, self._poses = detector, poses
        self._incidents = IncidentSettings() if incidents is None else incidents
        self._frames: dict[str, _Seen] = {}
        self._has_stamp = False
        self._peak_score = 0.0

    def see(self, frame: ScoredFrame, state: AlarmState) -> None:
        """Take the next frame and what the alarm filter made of it.

        Raises:
            AnomalyDetectorError: it has no time.
        """
        if frame.time_ns is None:
            raise AnomalyDetectorError(
                f"frame {frame.name} has no time stamp, so that there is no time before and after "
                "an alarm: give the rate of an image folder (--fps)"
            )
        self._has_stamp = self._has_stamp or frame.stamp_ns is not None
        is_peak = state.is_alarm and (state.started or frame.score > self._peak_score)
        if is_peak:
            self._peak_score = frame.score
        self._frames[frame.name] = _Seen(
            frame.time_ns,
            self._has_stamp,
            frame.score,
            frame.normalized_score,
            frame.is_anomaly,
            state,
            frame.image if is_peak else None,
        )

    def write(self, source: FrameSource, folder: Path) -> int:
        """Write the events into a folder, all or none.

        Args:
            source: the recording that the frames are of.
            folder: new, empty, or with events that nobody has looked at, which are replaced.

        Returns:
            The number of events, samples included.

        Raises:
            OutputError: the folder is something else, or cannot be written.
            SourceError: the recording cannot be read again.
        """
        check_events_folder(folder)
        for event in find_events(folder):  # the folder stays: it may be a link
            shutil.rmtree(event)
        watch = IncidentWatch(self._incidents)
        with atomic_directory(folder) as temporary:
            model = self._detector.metadata.name
            with BlackBox(_settings(temporary), model=model, is_live=False) as box:
                for name, picture, frame_id in _pictures(source, self._detector.view):
                    seen = self._frames.get(name)
                    if seen is not None:
                        frame = self._boxed(seen, watch, picture, frame_id)
                        # The times of others start at 0, which is no stamp of a header.
                        is_bag = isinstance(source, BagSource)
                        box.add(frame if is_bag else replace(frame, stamp_ns=None))
            return len(find_events(temporary))

    def _boxed(
        self, seen: _Seen, watch: IncidentWatch, picture: Image | EncodedPicture, frame_id: str
    ) -> BlackBoxFrame:
        detector, now = self._detector, seen.time_ns
        place = None if self._poses is None else self._poses.at(now)
        result = _Looked(seen.score, seen.normalized_score, detector, seen.image)
        image = np.zeros((0, 0, 3), np.uint8) if seen.image is None else seen.image
        alarm = watch.update(seen.state, result, image, place, now)
        detection = Detection(
            seen.score,
            seen.normalized_score,
            detector.threshold,
            seen.is_anomaly,
            _NO_MAP,
            inference_ms=0.0,
        )
        stamp_ns = now if seen.has_stamp else None
        return BlackBoxFrame(picture, detection, seen.state, stamp_ns, now, frame_id, place, alarm)


@dataclass(frozen=True)
class _Looked:
    """A result whose map is computed when it is asked for."""

    score: float
    normalized_score: float
    detector: Detector
    image: NDArray[np.uint8] | None

    @cached_property
    def anomaly_map(self) -> NDArray[np.float32]:
        """Where the evidence lies."""
        assert self.image is not None
        scores = self.detector.score_batch(self.image[np.newaxis])
        return np.asarray(scores.anomaly_map[0], np.float32)


def check_events_folder(folder: Path) -> None:
    """Refuse a folder for events that holds something else, or what people have said of events.

    Raises:
        OutputError: it does, or it cannot be written.
    """
    items = list(folder.iterdir()) if folder.is_dir() else []
    events = find_events(folder)
    judged = [path for path in events if (path / REVIEW_FILE).exists()]
    if judged:
        raise OutputError(f"{judged[0]} has been reviewed: name another folder for the events")
    if len(items) != len(events) or folder in events:
        raise OutputError(f"{folder} holds other things than events: name a new folder")
    if not items:
        check_output_folder(folder)


def _settings(folder: Path) -> BlackBoxSettings:
    (largest,) = (item.maximum for item in BLACK_BOX_SETTINGS if item.name == "max_megabytes")
    assert largest is not None
    return BlackBoxSettings(str(folder), max_megabytes=largest)


def _pictures(source: FrameSource, view: View) -> Iterator[tuple[str, Image | EncodedPicture, str]]:
    """Yield each readable frame: its name, the picture as the camera sent it, and frame_id."""
    if isinstance(source, BagSource):
        for item in source.messages():
            if isinstance(item, UnreadableFrame):
                continue
            name, message, _ = item
            try:
                yield name, _picture(message, view), str(message.header.frame_id)
            except ImageError:  # scoring has said so
                continue
        return
    source.view = View(scaling=view.scaling)
    for frame in source:
        yield frame.name, frame.pixels, ""


def _picture(message: Any, view: View) -> Image | EncodedPicture:
    if hasattr(message, "format"):
        return EncodedPicture(message.format, message.data)
    return as_image(message, scaling=view.scaling)
