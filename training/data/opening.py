"""Recordings of any kind, and what their frames truly show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly_detector.errors import SourceError
from anomaly_detector.recordings import FrameSource, ImageFilesSource, is_bag, open_source
from training.data.hazards_robots.loader import open_labelled
from training.data.labels import NORMAL, UNKNOWN, FrameLabels


def open_recording(text: str, topic: str | None = None) -> FrameSource:
    """Open a recording of any kind, or a part of the data set Hazards&Robots.

    Args:
        text: what :func:`anomaly_detector.recordings.open_source` takes, or ``DIR#SPLIT[:WHICH]``
            as in :func:`training.data.hazards_robots.loader.open_labelled`.
        topic: image topic, for bags with more than one; other recordings leave it aside.

    Raises:
        SourceError: nothing there, or nothing in it that can be read.
    """
    if "#" in text and not Path(text).exists():
        return open_labelled(text)
    return open_source(text, topic if is_bag(Path(text)) else None)


@dataclass(frozen=True)
class LabelledRecording:
    """A recording and its truth.

    Attributes:
        source: the frames.
        labels: truth per frame; None when all frames are of one class.
        class_name: class of all frames when ``labels`` is None; empty when it is not known.
    """

    source: FrameSource
    labels: FrameLabels | None = None
    class_name: str = NORMAL


class Truths:
    """Label, class name and stamp of the frames of several recordings.

    A class without a number of its own gets the next one; one that is not known, UNKNOWN.

    Raises:
        SourceError: labels do not fit their recording, or two files number the classes otherwise.
    """

    def __init__(self, recordings: Sequence[LabelledRecording]) -> None:
        self._recordings = recordings
        self._numbers = {NORMAL: 0, "": UNKNOWN}
        for recording in recordings:
            if recording.labels is not None:
                # Checks all names before the first frame is scored.
                recording.labels.rows_for(frame_names(recording.source))
                self._register(recording.labels)
        for recording in recordings:
            if recording.labels is None and recording.class_name not in self._numbers:
                self._numbers[recording.class_name] = max(self._numbers.values()) + 1

    def _register(self, labels: FrameLabels) -> None:
        for label, name in dict(zip(labels.labels.tolist(), labels.classes, strict=True)).items():
            others = [other for other, number in self._numbers.items() if number == label]
            if self._numbers.setdefault(name, label) != label or (others and others != [name]):
                raise SourceError(
                    f"{labels.path}: class {name!r} has label {label}, another labels file has "
                    f"{dict(self._numbers)}: number the classes alike in all files"
                )

    def of(self, number: int, position: int, name: str) -> tuple[int, str, int | None]:
        """Return label, class name and stamp of a frame.

        Args:
            number: of its recording.
            position: among all frames of its recording, the unreadable ones included.
            name: its name.

        Raises:
            SourceError: the recording has more frames than its labels have rows.
        """
        recording = self._recordings[number]
        labels = recording.labels
        if labels is None:
            return self._numbers[recording.class_name], recording.class_name, None
        row = position if labels.stems is None else int(labels.rows_for([name])[0])
        if row >= len(labels):
            raise SourceError(
                f"{labels.path} has {len(labels)} rows, {recording.source.path} has more frames: "
                "give the labels of this recording"
            )
        stamp = None if labels.stamps_ns is None else labels.stamps_ns[row]
        return int(labels.labels[row]), labels.classes[row], stamp


def frame_names(source: FrameSource) -> list[str]:
    """Return the names that the frames of a recording will have."""
    if isinstance(source, ImageFilesSource):
        return [file.name for file in source.files]
    return [f"{index:06d}" for index in range(len(source))]
