"""A camera, a detector node and a listener in three processes, and what frames cost between them.

For benchmarks: ``python -m anomaly_detector benchmark --ros`` and the commands in ``benchmarks/``.
The camera stamps each frame with the wall clock just before it is published; the listener compares
with the same clock, so latencies are those that another process on the robot would see.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_detector.benchmarking.machine import process_usage
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.benchmarking.listener import LiveListener
from anomaly_detector.ros.graph.dds import PROFILE_VARIABLES, large_image_environment
from anomaly_detector.ros.tools.tool_node import domain_id

NODE_COMMAND = (sys.executable, "-m", "anomaly_detector.ros.detector_node", "--ros-args")
"""Runs a detector node; parameters follow."""

_NO_PROFILE = """<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <participant profile_name="none"><rtps><name>none</name></rtps></participant>
</profiles>
"""


@dataclass(frozen=True)
class Sample:
    """The node's process ``time_s`` after the first frame: processor time and 10^6 bytes used."""

    time_s: float
    cpu_s: float
    resident_mb: float


@dataclass(frozen=True)
class LiveResult:
    """What one run measured.

    Attributes:
        hz: rate that was asked for; ``sent_hz`` is what the camera reached.
        answered: frames whose score came back.
        skipped: frames that the node was not to score; ``lost`` are the others.
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
    skipped: int
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

    A profile that sets nothing, written into the folder, keeps our own programs from loading the
    one for large images.
    """
    environment = {name: value for name, value in base.items() if name not in PROFILE_VARIABLES}
    (variable,) = set(large_image_environment(environment)) - set(environment)
    profile = folder / "plain_fastdds.xml"
    profile.write_text(_NO_PROFILE, encoding="utf-8")
    return environment | {variable: str(profile)}


@contextmanager
def running(
    command: Sequence[str], environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for the time of the block."""
    process = subprocess.Popen(command, env=environment)
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
        running([*NODE_COMMAND, *arguments, "--log-level", "warn"], environment) as node,
        LiveListener() as listener,
    ):
        listener.wait_for_node(node)
        sent_file = Path(folder, "sent.json")
        camera_environment = (
            large_image_environment(environment)
            if profile
            else plain_environment(environment, Path(folder))
        )
        options = {
            "size": f"{width}x{height}",
            "hz": hz,
            "frames": max(2, round(hz * seconds)),
            "transport": transport,
            "encoding": encoding,
            "reliability": reliability,
            "out": sent_file,
        }
        command = [sys.executable, "-m", "anomaly_detector.ros.benchmarking.camera"]
        command += [f"--{name}={value}" for name, value in options.items()]
        with running(command, camera_environment) as camera:
            samples = _sample(camera, node, seconds, progress)
        if camera.returncode:
            raise AnomalyDetectorError(f"the camera ended with exit code {camera.returncode}")
        sent: list[int] = json.loads(sent_file.read_text(encoding="utf-8"))
        listener.settle(sent[-1])
        compared = _compare(sent, listener)
    return LiveResult(width, height, hz, transport, samples=samples, **compared)


def _sample(
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
    return samples[2:-1] or samples[-1:]


def _compare(sent: list[int], listener: LiveListener) -> dict[str, Any]:
    """Return the fields of the result that come from what was sent and what came back."""
    arrivals: dict[int, int] = {}
    duplicates = 0
    for stamp, arrival in listener.answers():
        duplicates += stamp in arrivals
        arrivals.setdefault(stamp, arrival)
    answered = [stamp for stamp in sent if stamp in arrivals]
    dropped = listener.diagnostics.get("Frames dropped", "unknown")
    skipped = int(listener.diagnostics.get("Frames skipped", "0"))
    return {
        "sent": len(sent),
        "sent_hz": (len(sent) - 1) / ((sent[-1] - sent[0]) / 1e9),
        "answered": len(answered),
        "skipped": skipped,
        "lost": len(sent) - len(answered) - skipped,
        "dropped": int(dropped) if dropped.isdecimal() else None,
        "duplicates": duplicates,
        "latency_ms": [(arrivals[stamp] - stamp) / 1e6 for stamp in answered],
        "sent_at_s": [(stamp - sent[0]) / 1e9 for stamp in answered],
        "diagnostics": dict(listener.diagnostics),
    }
