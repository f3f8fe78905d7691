"""Writes image bags without ROS, for drives that never came from a camera."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import OutputError
from anomaly_detector.files import atomic_directory

IMAGE_TOPIC = "/camera/image_raw"
"""Topic of raw images; compressed ones are on ``/camera/image_raw/compressed``."""

_FRAME_ID = "camera_optical_frame"


@dataclass(frozen=True)
class StampedImage:
    """A frame for a bag: uint8 [H, W, 3] RGB, and its stamp in nanoseconds."""

    stamp_ns: int
    image: NDArray[np.uint8]


def write_image_bag(
    path: Path,
    frames: Iterable[StampedImage],
    *,
    compressed: bool = False,
    storage: str = "sqlite3",
    topic: str = IMAGE_TOPIC,
) -> int:
    """Write a rosbag2 with one image topic; it appears when it is whole.

    Args:
        path: the bag's folder.
        frames: in the order of their stamps.
        compressed: write ``sensor_msgs/CompressedImage`` (JPEG, quality 95) on
            ``<topic>/compressed`` instead of rgb8 ``sensor_msgs/Image`` on the topic itself.
        storage: ``sqlite3`` or ``mcap``.
        topic: name of the raw image topic.

    Returns:
        The number of messages written.

    Raises:
        OutputError: ``path`` is there and not an empty folder, or cannot be written.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)
    name = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    count = 0
    with atomic_directory(path) as folder:
        # The storage file is named after the bag's folder, so the bag gets its name right away.
        bag = folder / path.name
        try:
            # Version 8 is the oldest that the writer knows, so the most robots read it.
            with Writer(bag, version=8, storage_plugin=StoragePlugin[storage.upper()]) as writer:
                connection = writer.add_connection(
                    f"{topic}/compressed" if compressed else topic, name, typestore=store
                )
                for frame in frames:
                    message = _message(store.types, name, frame)
                    writer.write(connection, frame.stamp_ns, store.serialize_cdr(message, name))
                    count += 1
        except sqlite3.Error as error:
            raise OutputError(
                f"{path} cannot be written ({error}): make room in {path.absolute().parent} or "
                "choose another place"
            ) from error
        for file in bag.iterdir():
            file.replace(folder / file.name)
        bag.rmdir()
    return count


def _message(types: Any, name: str, frame: StampedImage) -> Any:
    seconds, nanoseconds = divmod(frame.stamp_ns, 1_000_000_000)
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds),
        frame_id=_FRAME_ID,
    )
    if name.endswith("CompressedImage"):
        return types[name](header=header, format="jpeg", data=_jpeg(frame.image))
    height, width = frame.image.shape[:2]
    return types[name](
        header=header,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=width * 3,
        data=frame.image.reshape(-1),
    )


def _jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]
    )
    return np.asarray(data, dtype=np.uint8).reshape(-1)
