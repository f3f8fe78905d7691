"""Frames on their way into the black box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from anomaly_detector.alarms.alarm_filter import AlarmState
from anomaly_detector.alarms.incidents import AlarmReport
from anomaly_detector.errors import ImageError
from anomaly_detector.images.image import Image, to_bgr
from anomaly_detector.poses import Place

if TYPE_CHECKING:  # the detector brings ONNX Runtime along, which readers of events do not need
    from anomaly_detector.model.detector import Detection

Phase = Literal["before", "during", "after", "sample", "saved"]
"""Where a frame lies: before the alarm was raised, while it was on, after it was cleared; a sample
of normal ones; or saved on demand."""

JPEG_QUALITY = 95

# What the header of a ROS message holds: int32 seconds.
_MAX_STAMP_NS = (2**31 - 1) * 1_000_000_000


_SUFFIXES = ((b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"BM", ".bmp"))


@dataclass(frozen=True)
class EncodedPicture:
    """A camera's compressed picture, recorded byte by byte as it came.

    Attributes:
        format: as in ``sensor_msgs/CompressedImage``.
        data: bytes, array or uint8 array with the whole picture.
    """

    format: str
    data: Any


@dataclass(frozen=True)
class BlackBoxFrame:
    """One scored frame.

    Attributes:
        picture: pixels, possibly a view of a message's buffer, or the camera's encoded bytes. It
            is copied when it is taken, so that the buffer may be used again after
            :meth:`BlackBox.add`.
        detection: its score.
        decision: what the decision over time made of it.
        stamp_ns: header stamp in nanoseconds; None, 0 and what no header can hold count as none.
        arrival_ns: when it arrived, nanoseconds of a monotonic clock; used without a stamp.
        frame_id: of the header.
        place: where it was taken; None where nobody gives poses.
        alarm: what is known of the alarm that is on.
    """

    picture: Image | EncodedPicture
    detection: Detection
    decision: AlarmState
    stamp_ns: int | None
    arrival_ns: int
    frame_id: str = ""
    place: Place | None = None
    alarm: AlarmReport = AlarmReport()  # noqa: RUF009

    @property
    def has_stamp(self) -> bool:
        """Whether there is a stamp to go by."""
        return self.stamp_ns is not None and 0 < self.stamp_ns <= _MAX_STAMP_NS

    @property
    def time_ns(self) -> int:
        """The stamp, or the time of arrival without one."""
        if self.stamp_ns is not None and self.has_stamp:
            return self.stamp_ns
        return self.arrival_ns

    @property
    def picture_bytes(self) -> int:
        """Bytes that the picture takes in memory."""
        if isinstance(self.picture, Image):
            return self.picture.array.nbytes
        return memoryview(self.picture.data).nbytes

    def detached(self) -> BlackBoxFrame:
        """Return the frame with a picture of its own, which shares no buffer."""
        picture = self.picture
        own: Image | EncodedPicture
        if isinstance(picture, Image):
            own = Image(np.array(picture.array, order="C"), picture.order)
        else:
            own = EncodedPicture(picture.format, bytes(picture.data))
        return replace(self, picture=own)


@dataclass(frozen=True)
class StoredFrame:
    """One frame as it will be written.

    Attributes:
        data: the encoded picture.
        format: as in ``sensor_msgs/CompressedImage``.
        suffix: of an image file with these bytes.
        stamp_ns: the time it is recorded under, nanoseconds.
        frame_id: of the header.
        score: in the model's units.
        normalized_score: in [0, 1].
        is_anomaly: whether the single frame is anomalous.
        place: where it was taken.
    """

    data: bytes
    format: str
    suffix: str
    stamp_ns: int
    frame_id: str
    score: float
    normalized_score: float
    is_anomaly: bool
    place: Place | None


def encode_frame(frame: BlackBoxFrame) -> StoredFrame:
    """Encode the pixels of a frame as JPEG; encoded ones stay as they are.

    Raises:
        ImageError: OpenCV cannot encode it.
    """
    picture = frame.picture
    if isinstance(picture, Image):
        data, text, suffix = _jpeg(picture), "jpeg", ".jpg"
    else:
        data, text = bytes(picture.data), picture.format
        suffix = next((name for magic, name in _SUFFIXES if data.startswith(magic)), ".jpg")
    return StoredFrame(
        data,
        text,
        suffix,
        frame.time_ns,
        frame.frame_id,
        frame.detection.score,
        frame.detection.normalized_score,
        frame.detection.is_anomaly,
        frame.place,
    )


def _jpeg(pixels: Image) -> bytes:
    try:
        array = pixels.array if pixels.order == "mono" else to_bgr(pixels)
        done, data = cv2.imencode(".jpg", array, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    except cv2.error as error:
        raise ImageError(
            f"frame of shape {pixels.array.shape} is no picture: {error}", reason="decode"
        ) from error
    if not done:
        raise ImageError(
            f"frame of shape {pixels.array.shape} cannot be encoded as JPEG", reason="decode"
        )
    return bytes(data)
