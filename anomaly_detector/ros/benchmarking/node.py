"""What the node adds to a frame: publishing, starting, and the highest rate it can follow.

For ``python -m anomaly_detector benchmark --ros``. The publish step is timed in a process of its
own with a real lifecycle node, whose topics another process subscribes to; what a whole node
process does with a camera is measured by :mod:`anomaly_detector.ros.benchmarking.live`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_detector.benchmarking.camera import camera_frame
from anomaly_detector.benchmarking.steps import PICTURES, FrameSteps, Percentiles
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.benchmarking.camera import START_S, publish_now, ros_message, stamp_now
from anomaly_detector.ros.benchmarking.listener import LISTENER_NAME, LiveListener
from anomaly_detector.ros.benchmarking.live import NODE_COMMAND, LiveResult, measure_live
from anomaly_detector.ros.tools.tool_node import check_domain_id, domain_id, wait_until_found

_RATES = (30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 350, 400)
"""Frame rates that are tried, one after another."""

_TRY_S = 5.0

_REACHED = 0.97
"""A camera that sends less than this share of what it was asked for is at its own limit."""

_WARM_UP = 100


@dataclass(frozen=True)
class NodeCost:
    """What a frame costs inside a node: ``~/score`` and ``~/detection`` sent, and all of it."""

    publish: Percentiles
    whole: Percentiles


@dataclass(frozen=True)
class StartUp:
    """How long a node takes until it says that it is active, and until its first result came."""

    active_s: float
    first_answer_s: float


def measure_node_cost(model: Path, **frame: Any) -> NodeCost:
    """Time the publish step and the whole of a frame, in a process that holds a real node.

    The frame has ``width``, ``height``, ``transport``, ``encoding``, and a number of ``frames``.
    """
    os.environ["ROS_DOMAIN_ID"] = str(domain_id())
    options = json.dumps({"model": str(model), **frame})
    command = [sys.executable, "-m", "anomaly_detector.ros.benchmarking.node", options]
    with LiveListener():
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise AnomalyDetectorError(f"the node's process ended with exit code {process.returncode}")
    publish, whole = json.loads(process.stdout.splitlines()[-1])
    return NodeCost(Percentiles(**publish), Percentiles(**whole))


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
                if process.poll() is not None or time.monotonic() - start > START_S:
                    raise AnomalyDetectorError(
                        f"the node gave no answer: {lines[-1] if lines else 'it said nothing'}"
                    )
                publish_now(publisher, message)
                time.sleep(0.02)
            answered = time.monotonic() - start
            # Its first result may overtake what it says.
            while not active and process.poll() is None and time.monotonic() - start < START_S:
                time.sleep(0.02)
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
    model: Path, on_result: Callable[[LiveResult], None], **options: Any
) -> LiveResult | None:
    """Return the run with the highest rate without a lost frame; None when each one lost some.

    Each rate has two tries, since a machine that others use takes the core away now and then. A
    camera that cannot send faster ends the search. Options are those of :func:`measure_live`.
    """
    best = None
    for hz in _RATES:
        for _ in range(2):
            result = measure_live(model, hz=hz, seconds=_TRY_S, **options)
            on_result(result)
            if not result.lost:
                break
        if result.lost:
            return best
        best = result
        if result.sent_hz < _REACHED * hz:
            return best
    return best


def _measure(
    model: str, width: int, height: int, transport: str, encoding: str, frames: int
) -> tuple[Percentiles, Percentiles]:
    import rclpy
    from rclpy.lifecycle import LifecycleNode
    from rclpy.parameter import Parameter

    from anomaly_detector.model.detector import Detector
    from anomaly_detector.monitoring.statistics import FrameStatistics
    from anomaly_detector.ros.node.frame_processor import FrameProcessor
    from anomaly_detector.ros.node.live_parameters import declare_parameters
    from anomaly_detector.ros.node.result_publishers import ResultPublishers

    pictures = [camera_frame(i, width, height, transport, encoding) for i in range(PICTURES)]
    messages = [ros_message(picture) for picture in pictures]
    check_domain_id()
    rclpy.init(args=[])
    overrides = [Parameter("image_transport", value=transport)]
    node = LifecycleNode("anomaly_detector", parameter_overrides=overrides)
    detector = Detector(model)
    results = ResultPublishers(node)
    processor = FrameProcessor(node, detector, declare_parameters(node), FrameStatistics())
    node.trigger_configure()
    node.trigger_activate()
    deadline = time.monotonic() + START_S
    topics = ("/anomaly_detector/score", "/anomaly_detector/detection")
    while not all(map(node.count_subscribers, topics)):
        if time.monotonic() > deadline:
            raise AnomalyDetectorError("nobody subscribes to the node's topics")
        time.sleep(0.05)
    if wait_until_found(node, [f"/{LISTENER_NAME}"], START_S):
        raise AnomalyDetectorError("the listener does not answer")
    steps = FrameSteps(detector)
    publish: list[float] = []
    whole: list[float] = []
    for index in range(_WARM_UP + frames):
        message = messages[index % len(messages)]
        stamp_now(message)
        detection, is_alarm = steps(message)
        start = time.perf_counter()
        results.publish_detection(
            message.header, detection, is_alarm, "anomaly_detector", "model", "as trained"
        )
        results.publish_pictures(message.header, detection, lambda: None)
        end = time.perf_counter()
        publish.append(end - start)
        start = time.perf_counter()
        processor.process(message, b"camera", index)
        whole.append(time.perf_counter() - start)
    processor.destroy()
    results.destroy()
    node.destroy_node()
    rclpy.shutdown()
    return Percentiles.of(publish[_WARM_UP:]), Percentiles.of(whole[_WARM_UP:])


if __name__ == "__main__":
    print(json.dumps([vars(cost) for cost in _measure(**json.loads(sys.argv[1]))]))
