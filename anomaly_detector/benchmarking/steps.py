"""What one frame costs in each step from message to decision, beside the floor; without ROS.

The floor is what no detector can do without: one pass over the frame's bytes, and the bare run of
the network by ONNX Runtime. Both are measured in turns with the steps, in short blocks, and
compared block by block, so that ratios hold on a machine that others use too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmFilter
from anomaly_detector.benchmarking.camera import CameraFrame, CompressedFrame, camera_frame
from anomaly_detector.images.image import Image
from anomaly_detector.images.message import as_image
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.model.file import read_model_file
from anomaly_detector.model.session import session_options

STEPS = ("convert", "resize", "infer", "decide")
"""Message to pixels, to 64x64 RGB, through the network to a detection, to the alarm decision."""

WORK = "node work"
"""All of :data:`STEPS`: from the message in hand to the result."""

FLOOR_ROWS = ("floor: read the bytes", "floor: bare network")

PICTURES = 8
"""Different frames that take turns: a camera's next frame lies elsewhere in memory too."""

_BLOCK = 25
_WARM_UP = 50


@dataclass(frozen=True)
class Percentiles:
    """Of the time that something takes, microseconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> Percentiles:
        """Compute them from durations in seconds."""
        return cls(*(float(value) * 1e6 for value in np.percentile(seconds, [50, 95, 99])))


@dataclass(frozen=True)
class FrameCost:
    """What one frame costs.

    Attributes:
        frames: measured.
        rows: time of each of :data:`STEPS`, of :data:`WORK` and of :data:`FLOOR_ROWS`.
        ratio: median of :data:`WORK` over that of the bare network, of the median block.
        cpu_percent: of one core, when frames come at ``hz``; all threads.
        hz: that rate.
    """

    frames: int
    rows: dict[str, Percentiles]
    ratio: float
    cpu_percent: float
    hz: float


class FrameSteps:
    """The node's own functions, one after another, with the time of each.

    Args:
        detector: the model.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.durations: dict[str, list[float]] = {name: [] for name in (*STEPS, WORK)}
        self._decisions = AlarmFilter()

    def convert(self, message: Any) -> Image:
        """Return the pixels of a message, as the node does."""
        view = self.detector.view
        return as_image(message, scaling=view.scaling, reduced=view.region.is_whole_frame)

    def __call__(self, message: Any) -> tuple[Detection, bool]:
        """Take one frame; return its result and the decision over time."""
        clock = time.perf_counter
        start = clock()
        pixels = self.convert(message)
        converted = clock()
        small = self.detector.prepare(pixels)
        resized = clock()
        detection = self.detector.detect(small)
        inferred = clock()
        state = self._decisions.update(detection, stamp_ns=time.time_ns())
        end = clock()
        durations = self.durations
        durations["convert"].append(converted - start)
        durations["resize"].append(resized - converted)
        durations["infer"].append(inferred - resized)
        durations["decide"].append(end - inferred)
        durations[WORK].append(end - start)
        return detection, state.is_alarm

    def forget(self) -> None:
        """Drop what has been measured so far."""
        for values in self.durations.values():
            values.clear()


def measure_frame_cost(
    detector: Detector,
    *,
    width: int = 640,
    height: int = 480,
    transport: str = "raw",
    encoding: str = "rgb8",
    frames: int = 1000,
    hz: float = 30.0,
    seconds: float = 10.0,
) -> FrameCost:
    """Measure each step of a frame, in this process.

    Args:
        detector: the model, on one thread.
        width: of the frames, pixels.
        height: of the frames, pixels.
        transport: ``raw`` or ``compressed``.
        encoding: of raw frames.
        frames: number to be measured one after another.
        hz: rate for the CPU figure.
        seconds: length of the measurement of the CPU figure.

    Raises:
        AnomalyDetectorError: a frame that cannot be made or scored.
    """
    messages = [camera_frame(i, width, height, transport, encoding) for i in range(PICTURES)]
    steps = FrameSteps(detector)
    bare = _bare_run(detector, detector.prepare(messages[0]).array)
    read, network = FLOOR_ROWS
    floor: dict[str, list[float]] = {name: [] for name in FLOOR_ROWS}
    ratios: list[float] = []
    for index in range(_WARM_UP):
        steps(messages[index % PICTURES])
        bare()
    steps.forget()
    for start in range(0, frames, _BLOCK):
        block = [messages[i % PICTURES] for i in range(start, min(start + _BLOCK, frames))]
        for message in block:
            steps(_received(message))
        bare_block = [_duration(bare) for _ in block]
        floor[network] += bare_block
        ratios.append(float(np.median(steps.durations[WORK][start:]) / np.median(bare_block)))
        for message in block:
            floor[read].append(_duration(partial(_read, _received(message))))
    rows = {name: Percentiles.of(values) for name, values in (steps.durations | floor).items()}
    return FrameCost(
        frames,
        rows,
        float(np.median(ratios)),
        100.0 * _cpu_share(lambda index: steps(messages[index % PICTURES]), hz, seconds),
        hz,
    )


def _bare_run(detector: Detector, image: NDArray[np.uint8]) -> Callable[[], Any]:
    session = onnxruntime.InferenceSession(
        read_model_file(detector.path).data, session_options(), providers=detector.providers
    )
    feed = {"image": np.ascontiguousarray(image[np.newaxis])}
    return lambda: session.run(None, feed)


def _received(message: CameraFrame | CompressedFrame) -> CameraFrame | CompressedFrame:
    """Copy a frame, as taking it from the middleware does: it has just been written then."""
    return replace(message, data=message.data[:])


def _read(message: CameraFrame | CompressedFrame) -> int:
    """Read every byte once, eight at a time."""
    size = len(message.data) // 8
    return int(np.bitwise_or.reduce(np.frombuffer(message.data, np.uint64, size)))


def _duration(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cpu_share(run: Callable[[int], Any], hz: float, seconds: float) -> float:
    """Return the CPU time of all threads over wall-clock time, when runs start at a rate."""
    count = max(1, round(hz * seconds))
    cpu, start = time.process_time(), time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, start + number / hz - time.perf_counter()))
        run(number)
    time.sleep(max(0.0, start + count / hz - time.perf_counter()))
    return (time.process_time() - cpu) / (time.perf_counter() - start)
