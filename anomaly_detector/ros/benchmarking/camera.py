"""A camera that publishes noise, in a process of its own: ``run_camera`` as a command line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomaly_detector.benchmarking.camera import (
    CameraFrame,
    CompressedFrame,
    camera_frame,
    parse_size,
)
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.tools.tool_node import tool_node, wait_for_match

START_S = 60.0
"""For processes to start and find each other, on a busy machine."""

_LINGER_S = 1.0
"""Time for the last frame to arrive, before the camera goes away."""

_PICTURES = 8


def run_camera(
    size: str, hz: float, frames: int, transport: str, encoding: str, reliability: str
) -> list[int]:
    """Publish noise as a camera does; return the stamps of the frames, nanoseconds.

    A frame that is late delays those after it: a burst to catch up is no camera.

    Raises:
        AnomalyDetectorError: nobody subscribes.
    """
    width, height = parse_size(size)
    pictures = [
        camera_frame(index, width, height, transport, encoding) for index in range(_PICTURES)
    ]
    with tool_node("live_camera", "a live benchmark") as node:
        from rclpy.qos import QoSProfile, QoSReliabilityPolicy

        messages = [ros_message(picture) for picture in pictures]
        qos = QoSProfile(depth=10, reliability=QoSReliabilityPolicy[reliability.upper()])
        topic = "/image/compressed" if transport == "compressed" else "/image"
        publisher = node.create_publisher(type(messages[0]), topic, qos)
        deadline = time.monotonic() + START_S
        while not publisher.get_subscription_count():
            if time.monotonic() > deadline:
                raise AnomalyDetectorError(f"nobody subscribes to {publisher.topic_name}")
            time.sleep(0.02)
        wait_for_match(node, publisher, START_S)
        stamps = []
        due = time.monotonic()
        for index in range(frames):
            due = max(due, time.monotonic() - 0.5 / hz)
            time.sleep(max(0.0, due - time.monotonic()))
            due += 1 / hz
            stamps.append(publish_now(publisher, messages[index % len(messages)]))
        time.sleep(_LINGER_S)
    return stamps


def ros_message(frame: CameraFrame | CompressedFrame) -> Any:
    """Make the ``sensor_msgs`` message of a frame."""
    from sensor_msgs.msg import CompressedImage, Image

    if isinstance(frame, CompressedFrame):
        message = CompressedImage(format=frame.format, data=frame.data)
    else:
        message = Image(
            width=frame.width, height=frame.height, encoding=frame.encoding, step=frame.step
        )
        message.data = frame.data
    message.header.frame_id = "camera"
    return message


def stamp_now(message: Any) -> int:
    """Stamp a message with the wall clock; return the stamp, nanoseconds."""
    stamp = time.time_ns()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    return stamp


def publish_now(publisher: Any, message: Any) -> int:
    """Stamp and publish a message; return the stamp, nanoseconds."""
    stamp = stamp_now(message)
    publisher.publish(message)
    return stamp


def main(argv: Sequence[str] | None = None) -> int:
    """Run the camera's process."""
    # Fast DDS' shared memory is removed on the way out, which a signal would cut short.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description=run_camera.__doc__)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--hz", type=float, default=30.0)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--transport", choices=("raw", "compressed"), default="raw")
    parser.add_argument("--encoding", default="rgb8")
    parser.add_argument("--reliability", default="reliable")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the stamps")
    options = vars(parser.parse_args(argv))
    out: Path = options.pop("out")
    out.write_text(json.dumps(run_camera(**options)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
