"""What the node adds to a frame: publishing, starting, and the highest rate it can follow.

For ``python -m anomaly_detector benchmark --ros``. The publish step is timed in a process of its
own (:func:`main`) with a real lifecycle node, whose topics another process subscribes to; what a
whole node process does with a camera is measured by :mod:`anomaly_detector.ros.benchmarking.live`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_detector.benchmarking.camera import camera_frame, parse_size
from anomaly_detector.benchmarking.steps import PICTURES, FrameSteps, Percentiles
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.benchmarking.live import (
    LISTENER_NAME,
    NODE_COMMAND,
    LiveListener,
    LiveResult,
    measure_live,
    ros_message,
)
from anomaly_detector.ros.tools.tool_node import check_domain_id, domain_id, wait_until_found

DEADLINE_S = 60.0
"""For processes to start and topics to be found, on a busy machine."""

RATES = (30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 350, 400)
"""Frame rates that are tried, one after another."""

_REACHED = 0.97
"""A camera that sends less than this share of what it was asked for is at its own limit."""

_WARM_UP = 100


@dataclass(frozen=True)
class NodeCost:
    """What a frame costs inside a node, message in hand.

    Attributes:
        publish: writing and sending ``~/score`` and ``~/detection`` to a subscriber of each.
        whole: all that the node does with an image, counting and checks included.
    """

    publish: Percentiles
    whole: Percentiles


@dataclass(frozen=True)
class StartUp:
    """How long a node takes to be of use, from the start of its process.

    Attributes:
        active_s: until it says that it is active; imports, model and warm-up run included.
        first_answer_s: until the first result has arrived in another process.
    """

    active_s: float
    first_answer_s: float


def measure_node_cost(
    model: Path, *, width: int, height: int, transport: str, encoding: str, frames: int
) -> NodeCost:
    """Time the publish step and the whole of a frame, in a process that holds a real node.

    Args:
        model: of the node.
        width: of the frames, pixels.
        height: of the frames, pixels.
        transport: ``raw`` or ``compressed``.
        encoding: of raw frames.
        frames: number to measure.

    Raises:
        AnomalyDetectorError: no ROS, or the process fails.
    """
    os.environ["ROS_DOMAIN_ID"] = str(domain_id())
    with tempfile.TemporaryDirectory() as folder, LiveListener():
        out = Path(folder, "cost.json")
        command = [
            *(sys.executable, "-m", "anomaly_detector.ros.benchmarking.node", str(model)),
            *("--size", f"{width}x{height}", "--transport", transport),
            *("--encoding", encoding, "--frames", str(frames), "--out", str(out)),
        ]
        code = subprocess.run(command).returncode
        if code:
            raise AnomalyDetectorError(f"the node's process ended with exit code {code}")
        cost = json.loads(out.read_text(encoding="utf-8"))
    return NodeCost(Percentiles(**cost["publish"]), Percentiles(**cost["whole"]))


def measure_start_up(model: Path) -> StartUp:
    """Start a node while a camera sends, and wait for its first answer.

    Raises:
        AnomalyDetectorError: no ROS, or the node does not start.
    """
    from rclpy.qos import QoSProfile

    os.environ["ROS_DOMAIN_ID"] = str(domain_id())
    with LiveListener() as listener:
        # Small frames: what is asked is how soon, not how large.
        message = ros_message(camera_frame(0, 64, 48))
        publisher = listener.node.create_publisher(type(message), "/image", QoSProfile(depth=1))
        start = time.monotonic()
        process = subprocess.Popen(
            [*NODE_COMMAND, "-p", f"model:={model}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        active: list[float] = []
        lines: list[str] = []

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if "active, waiting for" in line:
                    active.append(time.monotonic() - start)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            while not listener.arrivals:
                if process.poll() is not None or time.monotonic() - start > DEADLINE_S:
                    raise AnomalyDetectorError(
                        f"the node gave no answer: {lines[-1] if lines else 'it said nothing'}"
                    )
                stamp = time.time_ns()
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
                publisher.publish(message)
                time.sleep(0.02)
            answered = time.monotonic() - start
        finally:
            process.terminate()
            process.wait()
            reader.join()
            assert process.stdout is not None
            process.stdout.close()
        if not active:
            raise AnomalyDetectorError("the node answered but never said that it is active")
        return StartUp(active[0], answered)


def follow(
    model: Path,
    *,
    seconds: float = 5.0,
    rates: Sequence[float] = RATES,
    tell: Callable[[LiveResult], None] = lambda _: None,
    **options: Any,
) -> LiveResult | None:
    """Find the highest rate at which no frame is dropped.

    Each rate has two tries, since a machine that others use takes the core away now and then.

    Args:
        model: of the node.
        seconds: length of each try.
        rates: to try, rising.
        tell: called with every try's result.
        **options: for :func:`measure_live`.

    Returns:
        The run with the highest rate without a lost frame; None when each one lost some. A camera
        that cannot send faster ends the search.
    """
    best = None
    for hz in rates:
        for _ in range(2):
            result = measure_live(model, hz=hz, seconds=seconds, **options)
            tell(result)
            if not result.lost:
                break
        if result.lost:
            return best
        best = result
        if result.sent_hz < _REACHED * hz:
            return best
    return best


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process that holds the node."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--transport", default="raw")
    parser.add_argument("--encoding", default="rgb8")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    width, height = parse_size(arguments.size)
    cost = _node_cost(
        arguments.model,
        [
            ros_message(camera_frame(index, width, height, arguments.transport, arguments.encoding))
            for index in range(PICTURES)
        ],
        arguments.transport,
        arguments.frames,
    )
    text = json.dumps({"publish": vars(cost.publish), "whole": vars(cost.whole)})
    arguments.out.write_text(text, encoding="utf-8")
    return 0


def _node_cost(model: Path, messages: Sequence[Any], transport: str, frames: int) -> NodeCost:
    import rclpy
    from rclpy.lifecycle import LifecycleNode
    from rclpy.parameter import Parameter

    from anomaly_detector.model.detector import Detector
    from anomaly_detector.monitoring.statistics import FrameStatistics
    from anomaly_detector.ros.node.frame_processor import FrameProcessor
    from anomaly_detector.ros.node.live_parameters import declare_parameters
    from anomaly_detector.ros.node.result_publishers import ResultPublishers

    check_domain_id()
    rclpy.init(args=[])
    overrides = [Parameter("image_transport", value=transport)]
    node = LifecycleNode("anomaly_detector", parameter_overrides=overrides)
    detector = Detector(model)
    results = ResultPublishers(node)
    processor = FrameProcessor(node, detector, declare_parameters(node), FrameStatistics())
    node.trigger_configure()
    node.trigger_activate()
    deadline = time.monotonic() + DEADLINE_S
    while not all(node.count_subscribers(f"/anomaly_detector/{topic}") for topic in _HEARD):
        if time.monotonic() > deadline:
            raise AnomalyDetectorError("nobody subscribes to the node's topics")
        time.sleep(0.05)
    if wait_until_found(node, [f"/{LISTENER_NAME}"], DEADLINE_S):
        raise AnomalyDetectorError("the listener does not answer")
    steps = FrameSteps(detector)
    publish: list[float] = []
    whole: list[float] = []
    for index in range(_WARM_UP + frames):
        message = messages[index % len(messages)]
        stamp = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        detection, is_alarm = steps(message)
        start = time.perf_counter()
        results.publish_detection(message.header, detection, is_alarm, "anomaly_detector", "model")
        results.publish_pictures(message.header, detection.anomaly_map, lambda: None)
        end = time.perf_counter()
        publish.append(end - start)
        start = time.perf_counter()
        processor.process(message, b"camera", index)
        whole.append(time.perf_counter() - start)
    processor.destroy()
    results.destroy()
    node.destroy_node()
    rclpy.shutdown()
    return NodeCost(Percentiles.of(publish[_WARM_UP:]), Percentiles.of(whole[_WARM_UP:]))


_HEARD = ("score", "detection")


if __name__ == "__main__":
    sys.exit(main())
