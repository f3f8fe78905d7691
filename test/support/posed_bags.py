"""Bags with images and the robot's poses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import PERIOD_NS, START_NS
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from anomaly_detector.poses import POSE_TYPES, Pose

STORE = get_typestore(Stores.LATEST)
POSE_TOPIC = "/pose"


def along_x(count: int, period_ns: int = PERIOD_NS, frame_id: str = "map") -> list[Pose]:
    """Return poses half a metre apart on the x axis, with the stamps of frames, turning left."""
    return [
        Pose(START_NS + index * period_ns, frame_id, index / 2, -1.0, 0.25, index / 10)
        for index in range(count)
    ]


def pose_message(pose: Pose, kind: str, types: Any = STORE.types) -> Any:
    """Make a message of one of ``POSE_TYPES``, of a bag writer's types."""
    seconds, nanoseconds = divmod(pose.stamp_ns, 10**9)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=pose.frame_id)
    turn = types["geometry_msgs/msg/Quaternion"](
        x=0.0, y=0.0, z=math.sin(pose.yaw / 2), w=math.cos(pose.yaw / 2)
    )
    point = types["geometry_msgs/msg/Point"](x=pose.x, y=pose.y, z=pose.z)
    message = types["geometry_msgs/msg/Pose"](position=point, orientation=turn)
    covariance = np.zeros(36)
    if kind == "geometry_msgs/msg/PoseStamped":
        return types[kind](header=header, pose=message)
    with_covariance = types["geometry_msgs/msg/PoseWithCovariance"](
        pose=message, covariance=covariance
    )
    if kind == "geometry_msgs/msg/PoseWithCovarianceStamped":
        return types[kind](header=header, pose=with_covariance)
    zero = types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    twist = types["geometry_msgs/msg/TwistWithCovariance"](
        twist=types["geometry_msgs/msg/Twist"](linear=zero, angular=zero), covariance=covariance
    )
    return types[kind](header=header, child_frame_id="base", pose=with_covariance, twist=twist)


def write_posed_bag(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    poses: Iterable[Pose],
    kind: str = POSE_TYPES[0],
    period_ns: int = PERIOD_NS,
) -> Path:
    """Write a bag with rgb8 images on ``/camera/image_raw`` and poses on ``POSE_TOPIC``."""
    types = STORE.types
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection(
            "/camera/image_raw", "sensor_msgs/msg/Image", typestore=STORE
        )
        places = writer.add_connection(POSE_TOPIC, kind, typestore=STORE)
        messages = [(pose.stamp_ns, places, kind, pose_message(pose, kind)) for pose in poses]
        for index, frame in enumerate(frames):
            stamp_ns = START_NS + index * period_ns
            seconds, nanoseconds = divmod(stamp_ns, 10**9)
            stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
            image = types["sensor_msgs/msg/Image"](
                header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera"),
                height=frame.shape[0],
                width=frame.shape[1],
                encoding="rgb8",
                is_bigendian=0,
                step=frame.shape[1] * 3,
                data=frame.reshape(-1),
            )
            messages.append((stamp_ns, images, "sensor_msgs/msg/Image", image))
        for time_ns, connection, name, message in sorted(messages, key=lambda item: item[0]):
            writer.write(connection, time_ns, STORE.serialize_cdr(message, name))
    return path
