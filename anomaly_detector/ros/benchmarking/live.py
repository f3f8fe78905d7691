"""A camera, a detector node and a listener in three processes, and what frames cost between them.

For benchmarks: ``python -m anomaly_detector benchmark --ros`` and the commands in ``benchmarks/``.
The camera stamps each frame with the wall clock just before it is published; the listener compares
with the same clock, so latencies are those that another process on the robot would see.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_detector.benchmarking.camera import (
    CameraFrame,
    CompressedFrame,
    camera_frame,
    parse_size,
)
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.graph.dds import PROFILE_VARIABLES, large_image_environment
from anomaly_detector.ros.tools.tool_node import domain_id, spinning, tool_node, wait_for_match

NODE_COMMAND = (sys.executable, "-m", "anomaly_detector.ros.detector_node", "--ros-args")
"""Runs a detector node; parameters follow."""

LISTENER_NAME = "live_listener"

START_S = 60.0
"""For processes to start and find each other, on a busy machine."""

LINGER_S = 1.0
"""Time for the last frame to arrive, before the camera goes away."""

_PICTURES = 8

_NO_PROFILE = """<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <participant profile_name="none"><rtps><name>none</name></rtps></participant>
</profiles>
"""


@dataclass(frozen=True)
class Sample:
    """The node's process at one moment.

    Attributes:
        time_s: since the first frame was sent.
        cpu_s: processor time used since the node's start.
        resident_mb: resident memory, 10^6 bytes.
    """

    time_s: float
    cpu_s: float
    resident_mb: float


@dataclass(frozen=True)
class LiveResult:
    """What one run measured.

    Attributes:
        width: of the frames, pixels.
        height: of the frames, pixels.
        hz: rate that was asked for.
        transport: ``raw`` or ``compressed``.
        sent: frames published.
        sent_hz: rate at which they were.
        answered: frames whose score came back.
        lost: the rest.
        dropped: frames that the node says it did not receive.
        duplicates: frames that were answered twice.
        latency_ms: from the camera's stamp to the arrival of ``~/score`` in another process, one
            value an answered frame, in the order of sending.
        sent_at_s: time at which each of these frames was sent, since the first.
        samples: the node's process, about once a second.
        diagnostics: the newest values on /diagnostics, key to text.
    """

    width: int
    height: int
    hz: float
    transport: str
    sent: int
    sent_hz: float
    answered: int
    lost: int
    dropped: int | None
    duplicates: int
    latency_ms: list[float] = field(repr=False)
    sent_at_s: list[float] = field(repr=False)
    samples: list[Sample] = field(repr=False)
    diagnostics: dict[str, str] = field(repr=False)

    def latency_percentile(self, percent: float) -> float:
        """Return a percentile of the latency, milliseconds; NaN when nothing was answered."""
        return float(np.percentile(self.latency_ms, percent)) if self.latency_ms else float("nan")

    @property
    def cpu_share(self) -> float:
        """Share of one core that the node used, from the first sample to the last."""
        if len(self.samples) < 2:
            return float("nan")
        first, last = self.samples[0], self.samples[-1]
        return (last.cpu_s - first.cpu_s) / (last.time_s - first.time_s)

    def summary(self) -> dict[str, Any]:
        """Return the figures for a JSON file: percentiles in the place of single frames."""
        lists = ("latency_ms", "sent_at_s", "samples", "diagnostics")
        return {
            **{name: value for name, value in vars(self).items() if name not in lists},
            **{f"latency_p{p}_ms": self.latency_percentile(p) for p in (50, 95, 99)},
            "latency_max_ms": self.latency_percentile(100),
            "cpu_percent": 100 * self.cpu_share,
            "resident_mb": self.samples[-1].resident_mb if self.samples else None,
        }


def plain_environment(base: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return an environment in which Fast DDS is as it comes.

    Args:
        base: the environment to start from; not changed.
        folder: to write a profile that sets nothing into, which keeps our own programs from
            loading the one for large images.
    """
    environment = {name: value for name, value in base.items() if name not in PROFILE_VARIABLES}
    (variable,) = set(large_image_environment(environment)) - set(environment)
    profile = folder / "plain_fastdds.xml"
    profile.write_text(_NO_PROFILE, encoding="utf-8")
    return environment | {variable: str(profile)}


def process_usage(pid: int) -> tuple[float, float]:
    """Return the processor time (s) and resident memory (10^6 bytes) of a process.

    Raises:
        AnomalyDetectorError: it has ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError as error:
        raise AnomalyDetectorError(f"process {pid} has ended") from error
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def running_node(
    arguments: Sequence[str], environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a detector node for the time of the block.

    Args:
        arguments: after ``--ros-args``.
        environment: None for this process' own.
    """
    process = subprocess.Popen([*NODE_COMMAND, *arguments], env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure_live(
    model: Path,
    *,
    width: int = 640,
    height: int = 480,
    hz: float = 30.0,
    seconds: float = 10.0,
    transport: str = "raw",
    encoding: str = "rgb8",
    profile: bool = True,
    reliability: str = "reliable",
    parameters: Sequence[str] = (),
    progress: bool = False,
) -> LiveResult:
    """Run camera, node and listener, and compare what was sent with what came back.

    Args:
        model: of the node.
        width: of the frames, pixels.
        height: of the frames, pixels.
        hz: frames a second.
        seconds: length of the run.
        transport: ``raw`` or ``compressed`` (JPEG).
        encoding: of raw frames.
        profile: the camera loads the Fast DDS profile for large images; else one that sets nothing.
        reliability: of the camera's publisher, ``reliable`` or ``best_effort``.
        parameters: more parameters of the node, ``name:=value``.
        progress: show a bar on stderr when it is a terminal.

    Raises:
        AnomalyDetectorError: no ROS, or one of the processes does not start or ends early.
    """
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain_id())}
    os.environ["ROS_DOMAIN_ID"] = environment["ROS_DOMAIN_ID"]
    settings = [f"model:={model}", f"image_transport:={transport}", *parameters]
    arguments = [part for setting in settings for part in ("-p", setting)]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_node([*arguments, "--log-level", "warn"], environment) as node,
        LiveListener() as listener,
    ):
        listener.wait_for_node(node)
        sent_file = Path(folder, "sent.json")
        camera_environment = (
            large_image_environment(environment)
            if profile
            else plain_environment(environment, Path(folder))
        )
        camera = subprocess.Popen(
            [
                *(sys.executable, "-m", "anomaly_detector.ros.benchmarking.live"),
                *("--size", f"{width}x{height}", "--hz", str(hz)),
                *("--frames", str(max(2, round(hz * seconds)))),
                *("--transport", transport, "--encoding", encoding),
                *("--reliability", reliability, "--out", str(sent_file)),
            ],
            env=camera_environment,
        )
        samples = _watch(camera, node, seconds, progress)
        if camera.returncode:
            raise AnomalyDetectorError(f"the camera ended with exit code {camera.returncode}")
        sent: list[int] = json.loads(sent_file.read_text(encoding="utf-8"))
        listener.settle(sent[-1])
        return _compare(sent, listener, samples, (width, height), hz, transport)


def _watch(
    camera: subprocess.Popen[bytes],
    node: subprocess.Popen[bytes],
    seconds: float,
    progress: bool,
) -> list[Sample]:
    from tqdm import tqdm

    start = time.monotonic()
    samples: list[Sample] = []
    with tqdm(total=round(seconds), unit="s", disable=None if progress else True) as bar:
        while camera.poll() is None:
            cpu_s, resident_mb = process_usage(node.pid)
            samples.append(Sample(time.monotonic() - start, cpu_s, resident_mb))
            bar.update(min(round(seconds), round(samples[-1].time_s)) - bar.n)
            try:
                camera.wait(1.0)
            except subprocess.TimeoutExpired:
                continue
    if node.poll() is not None:
        raise AnomalyDetectorError(f"the node ended early, with exit code {node.returncode}")
    # The camera's start is in the first samples, its end in the last: the node idles there.
    return samples[2:-1]


def _compare(
    sent: list[int],
    listener: LiveListener,
    samples: list[Sample],
    size: tuple[int, int],
    hz: float,
    transport: str,
) -> LiveResult:
    arrivals: dict[int, int] = {}
    duplicates = 0
    for stamp, arrival in listener.answers():
        duplicates += stamp in arrivals
        arrivals.setdefault(stamp, arrival)
    answered = [stamp for stamp in sent if stamp in arrivals]
    dropped = listener.diagnostics.get("Frames dropped", "unknown")
    return LiveResult(
        width=size[0],
        height=size[1],
        hz=hz,
        transport=transport,
        sent=len(sent),
        sent_hz=(len(sent) - 1) / ((sent[-1] - sent[0]) / 1e9),
        answered=len(answered),
        lost=len(sent) - len(answered),
        dropped=int(dropped) if dropped.isdecimal() else None,
        duplicates=duplicates,
        latency_ms=[(arrivals[stamp] - stamp) / 1e6 for stamp in answered],
        sent_at_s=[(stamp - sent[0]) / 1e9 for stamp in answered],
        samples=samples,
        diagnostics=dict(listener.diagnostics),
    )


class LiveListener:
    """Receives ``~/score`` and ``~/detection`` in this process, with the time of each arrival.

    Attributes:
        node: an ``rclpy`` node, spun in a thread.
        arrivals: of ``~/detection``: stamp of the frame and time of arrival, nanoseconds.
        score_arrivals: of ``~/score``: time of arrival by the wall clock, nanoseconds.
        diagnostics: the newest values on /diagnostics, key to text.
    """

    def __init__(self) -> None:
        self.arrivals: list[tuple[int, int]] = []
        self.score_arrivals: list[int] = []
        self.diagnostics: dict[str, str] = {}

    def __enter__(self) -> LiveListener:
        with ExitStack() as made:
            self.node = made.enter_context(tool_node(LISTENER_NAME, "a live benchmark"))
            self._subscribe()
            made.enter_context(spinning(self.node))
            self._made = made.pop_all()
        return self

    def _subscribe(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile
        from std_msgs.msg import Float32

        subscribe = self.node.create_subscription
        subscribe(
            DiagnosticArray,
            "/anomaly_detector/detection",
            self._on_detection,
            QoSProfile(depth=1000),
        )
        subscribe(Float32, "/anomaly_detector/score", self._on_score, QoSProfile(depth=1000))
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def answers(self) -> list[tuple[int, int]]:
        """Return the stamp of each answered frame and the time at which its score arrived.

        A score carries no stamp, but both topics are reliable and keep their order, so that the
        n-th score is that of the n-th detection. Should one of them be missing all the same, the
        detection's own arrival, a little later, stands for the score's.
        """
        if len(self.score_arrivals) != len(self.arrivals):
            return list(self.arrivals)
        stamps = (stamp for stamp, _ in self.arrivals)
        return list(zip(stamps, self.score_arrivals, strict=True))

    def _on_detection(self, message: Any) -> None:
        stamp = message.header.stamp
        self.arrivals.append((stamp.sec * 10**9 + stamp.nanosec, time.time_ns()))

    def _on_score(self, _: Any) -> None:
        self.score_arrivals.append(time.time_ns())

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            self.diagnostics = {item.key: item.value for item in status.values}

    def wait_for_node(self, node: subprocess.Popen[bytes]) -> None:
        """Wait until the node is active."""
        deadline = time.monotonic() + START_S
        while self.diagnostics.get("State") != "active":
            if node.poll() is not None or time.monotonic() > deadline:
                raise AnomalyDetectorError("the detector node did not become active: see above")
            time.sleep(0.05)

    def settle(self, last_stamp: int) -> None:
        """Wait for the last answers and for diagnostics that count them all."""
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            if self.arrivals and self.arrivals[-1][0] == last_stamp:
                break
            time.sleep(0.05)
        self.diagnostics = {}
        deadline = time.monotonic() + START_S
        while not self.diagnostics and time.monotonic() < deadline:
            time.sleep(0.05)


def run_camera(
    *,
    width: int,
    height: int,
    hz: float,
    frames: int,
    transport: str,
    encoding: str = "rgb8",
    reliability: str = "reliable",
    topic: str = "/image",
) -> list[int]:
    """Publish noise as a camera does; return the stamps of the frames, nanoseconds.

    A frame that is late delays those after it: a burst to catch up is no camera.

    Raises:
        AnomalyDetectorError: nobody subscribes.
    """
    frames_to_show = [
        camera_frame(index, width, height, transport, encoding) for index in range(_PICTURES)
    ]
    with tool_node("live_camera", "a live benchmark") as node:
        from rclpy.qos import QoSProfile, QoSReliabilityPolicy

        messages = [ros_message(frame) for frame in frames_to_show]
        qos = QoSProfile(depth=10, reliability=QoSReliabilityPolicy[reliability.upper()])
        suffix = "/compressed" if transport == "compressed" else ""
        publisher = node.create_publisher(type(messages[0]), f"{topic}{suffix}", qos)
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
            message = messages[index % len(messages)]
            stamp = time.time_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            publisher.publish(message)
            stamps.append(stamp)
        time.sleep(LINGER_S)
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
    arguments = parser.parse_args(argv)
    width, height = parse_size(arguments.size)
    stamps = run_camera(
        width=width,
        height=height,
        hz=arguments.hz,
        frames=arguments.frames,
        transport=arguments.transport,
        encoding=arguments.encoding,
        reliability=arguments.reliability,
    )
    arguments.out.write_text(json.dumps(stamps), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
