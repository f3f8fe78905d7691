"""Writes one event into a new folder, as a rosbag2 or as image files."""

from __future__ import annotations

import abc
import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import anomaly_detector
from anomaly_detector.black_box.events import EVENT_FILE, EVENT_KIND, EVENT_VERSION, SAMPLE, SAVED
from anomaly_detector.black_box.frames import Phase, StoredFrame
from anomaly_detector.black_box.selection import CloseEvent, OpenEvent
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import sync
from anomaly_detector.poses import Place, Pose

_IMAGE = "sensor_msgs/msg/CompressedImage"
_FLOAT = "std_msgs/msg/Float32"
_POSE = "geometry_msgs/msg/PoseStamped"


@dataclass
class _Row:
    name: str
    phase: Phase
    frame: StoredFrame


class EventWriter(abc.ABC):
    """An event that is being written; every method may raise ``OSError``.

    Args:
        path: the event's folder, which this makes.
        opened: what the event began with.
        model: name of the model.
        topic: of the images in a bag; the scores are on topics beside it.
        began_ns: time when it began, nanoseconds since 1970; None for now.
    """

    format: str

    def __init__(
        self, path: Path, opened: OpenEvent, model: str, topic: str, began_ns: int | None = None
    ) -> None:
        self.path = path
        seconds = time.time() if began_ns is None else began_ns / 1e9
        self.began = datetime.fromtimestamp(seconds, timezone.utc)
        self.bytes_written = 0
        self._opened = opened
        self._model = model
        self._topic = topic
        self._rows: list[_Row] = []

    @property
    def frames(self) -> int:
        """Number of frames written."""
        return len(self._rows)

    def add(self, frame: StoredFrame, phase: Phase) -> None:
        """Write one frame."""
        name = self._write(frame)
        self._rows.append(_Row(name, phase, replace(frame, data=b"")))
        self.bytes_written += len(frame.data)

    def finish(self, alarm: CloseEvent, repeat_of: str | None = None) -> None:
        """Complete the event; ``repeat_of`` is the name of the one that it repeats."""
        rows = sorted(self._rows, key=lambda row: row.frame.stamp_ns)
        self._end(rows)
        shown = ("during", SAMPLE, SAVED)
        during = {row.frame.stamp_ns: row.name for row in reversed(rows) if row.phase in shown}
        content = {
            "kind": EVENT_KIND,
            "version": EVENT_VERSION,
            "event_kind": alarm.kind,
            "written_by": f"anomaly_detector {anomaly_detector.__version__}",
            "began_utc": f"{self.began:%Y-%m-%dT%H:%M:%S.%fZ}",
            "stamps": "header" if self._opened.has_stamps else "arrival",
            "model": self._model,
            "threshold": _number(self._opened.threshold),
            "start_stamp_ns": alarm.start_ns,
            "end_stamp_ns": alarm.end_ns,
            "peak": {
                "stamp_ns": alarm.peak_ns,
                "score": _number(alarm.peak_score),
                "normalized_score": _number(alarm.peak_normalized_score),
                "frame": during.get(alarm.peak_ns),
            },
            "pose": _content(alarm.peak_place),
            "repeat_of": repeat_of,
            "alarms": alarm.alarms,
            "alarm_frames": alarm.alarm_frames,
            "part": alarm.part,
            "continues": alarm.continues,
            "format": self.format,
            "topic": self._topic if self.format == "mcap" else None,
            "frames": [
                {
                    "name": row.name,
                    "stamp_ns": row.frame.stamp_ns,
                    "phase": row.phase,
                    "score": _number(row.frame.score),
                    "normalized_score": _number(row.frame.normalized_score),
                    "is_anomaly": row.frame.is_anomaly,
                    "pose": _content(row.frame.place),
                }
                for row in rows
            ],
        }
        file = self.path / EVENT_FILE
        file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        sync(file)
        sync(self.path)

    @abc.abstractmethod
    def abandon(self) -> None:
        """Close what is open, whatever state it is in; the folder is left to be removed."""

    @abc.abstractmethod
    def _write(self, frame: StoredFrame) -> str:
        """Write one frame and return its name, as far as it has one yet."""

    @abc.abstractmethod
    def _end(self, rows: list[_Row]) -> None:
        """Close the files; ``rows``, in the order of stamps, get the names that readers see."""


class JpegEventWriter(EventWriter):
    """One image file a frame, named after its stamp, so that the names sort."""

    format = "jpeg"

    def __init__(
        self, path: Path, opened: OpenEvent, model: str, topic: str, began_ns: int | None = None
    ) -> None:
        super().__init__(path, opened, model, topic, began_ns)
        path.mkdir()

    def _write(self, frame: StoredFrame) -> str:
        path = self.path / f"{frame.stamp_ns:019d}{frame.suffix}"
        number = 0
        while path.exists():
            number += 1
            path = self.path / f"{frame.stamp_ns:019d}_{number}{frame.suffix}"
        path.write_bytes(frame.data)
        sync(path)
        return path.name

    def _end(self, rows: list[_Row]) -> None:
        """Nothing is open, and the files have their names."""

    def abandon(self) -> None:
        """See :meth:`EventWriter.abandon`."""


class McapEventWriter(EventWriter):
    """A rosbag2 with pictures, scores and poses; the event's folder is the bag."""

    format = "mcap"

    def __init__(
        self, path: Path, opened: OpenEvent, model: str, topic: str, began_ns: int | None = None
    ) -> None:
        super().__init__(path, opened, model, topic, began_ns)
        # Imported here: importing the node's parts stays light.
        from rosbags.rosbag2 import StoragePlugin, Writer

        store = _typestore()
        # Version 8 is the oldest that the writer knows, so the most robots read it.
        self._bag = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
        self._bag.open()
        self._poses: Any = None
        try:
            self._images = self._bag.add_connection(topic, _IMAGE, typestore=store)
            self._scores = [
                self._bag.add_connection(f"{topic}/{name}", _FLOAT, typestore=store)
                for name in ("score", "normalized_score")
            ]
        except BaseException:
            self.abandon()
            raise

    def _write(self, frame: StoredFrame) -> str:
        store = _typestore()
        image = store.types[_IMAGE](
            header=_header(frame.stamp_ns, frame.frame_id),
            format=frame.format,
            data=np.frombuffer(frame.data, np.uint8),
        )
        self._bag.write(self._images, frame.stamp_ns, store.serialize_cdr(image, _IMAGE))
        for connection, value in zip(
            self._scores, (frame.score, frame.normalized_score), strict=True
        ):
            data = store.serialize_cdr(store.types[_FLOAT](data=value), _FLOAT)
            self._bag.write(connection, frame.stamp_ns, data)
        if frame.place is not None and frame.place.pose is not None:
            if self._poses is None:
                self._poses = self._bag.add_connection(
                    f"{self._topic}/pose", _POSE, typestore=store
                )
            data = store.serialize_cdr(_pose_message(frame.place.pose), _POSE)
            self._bag.write(self._poses, frame.stamp_ns, data)
        return ""

    def _end(self, rows: list[_Row]) -> None:
        self._bag.close()
        for file in self.path.iterdir():
            sync(file)
        for place, row in enumerate(rows):
            row.name = f"{place:06d}"

    def abandon(self) -> None:
        """See :meth:`EventWriter.abandon`."""
        # Without its index, which may fail to be written again.
        with suppress(Exception):
            self._bag.abort()


WRITERS: dict[str, type[EventWriter]] = {"mcap": McapEventWriter, "jpeg": JpegEventWriter}
"""What writes each of :data:`~anomaly_detector.black_box.settings.BLACK_BOX_FORMATS`."""


def prepare_format(name: str) -> None:
    """Import what a format needs, so that it takes no time from the first event.

    Raises:
        AnomalyDetectorError: it is not installed.
    """
    if name == McapEventWriter.format:
        try:
            _typestore()
        except ImportError as error:
            raise AnomalyDetectorError(
                "format is 'mcap', which needs rosbags: pip install rosbags, or choose 'jpeg'"
            ) from error


@cache
def _typestore() -> Any:
    import rosbags.rosbag2  # noqa: F401 (its own imports are half of the time)
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.LATEST)


def _header(stamp_ns: int, frame_id: str) -> Any:
    types = _typestore().types
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def _pose_message(pose: Pose) -> Any:
    types = _typestore().types
    turn = types["geometry_msgs/msg/Quaternion"](
        0.0, 0.0, math.sin(pose.yaw / 2), math.cos(pose.yaw / 2)
    )
    point = types["geometry_msgs/msg/Point"](pose.x, pose.y, pose.z)
    return types[_POSE](
        _header(pose.stamp_ns, pose.frame_id), types["geometry_msgs/msg/Pose"](point, turn)
    )


def _content(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else place.content()


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
