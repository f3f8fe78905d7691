"""What the network costs: latency, throughput and CPU time under each setting of ONNX Runtime.

Run with ``python -m benchmarks.inference [--model NAME] [--seconds S] [--json FILE]``.

A robot's battery pays for CPU time, not for latency: beside the latency of one run after another
stands the CPU time of one frame when frames come at 30 Hz, idle threads that spin included. The
last line compares the detector's own work on a frame with the bare run that it contains.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_detector.files import atomic_path
from anomaly_detector.images.preprocessing import INPUT_SIZE
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_model_file
from anomaly_detector.model.io_binding import BoundRun
from anomaly_detector.model.providers import CPU, session_options
from anomaly_detector.model.shipped import resolve_model

import onnxruntime  # isort: skip  # after the package, which switches telemetry off

RATE_HZ = 30.0
OUTPUTS = ("score", "normalized_score", "anomaly_map")


@dataclass(frozen=True)
class Row:
    """One setting and what it costs.

    Attributes:
        spinning: idle threads wait in a busy loop.
        threads: inside one operator.
        bound: inputs and outputs bound to fixed memory.
        batch: frames of a run.
        p50_us: of a run, microseconds, runs one after another.
        p99_us: of a run.
        frames_per_second: of runs one after another.
        cpu_us_per_frame: CPU time of all threads, runs one after another.
        cpu_us_per_frame_30hz: the same when runs of one frame start at 30 Hz; None for batches.
    """

    spinning: bool
    threads: int
    bound: bool
    batch: int
    p50_us: float
    p99_us: float
    frames_per_second: float
    cpu_us_per_frame: float
    cpu_us_per_frame_30hz: float | None


def measure(run: Callable[[], object], seconds: float) -> tuple[list[float], float]:
    """Run again and again; gives the duration of each run and the CPU time of all, in seconds."""
    for _ in range(10):
        run()
    durations = []
    cpu, end = time.process_time(), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run()
        durations.append(time.perf_counter() - start)
    return durations, time.process_time() - cpu


def cpu_at_rate(run: Callable[[], object], seconds: float) -> float:
    """Run at 30 Hz; gives the CPU time of one run, in seconds."""
    count = max(1, int(seconds * RATE_HZ))
    cpu, start = time.process_time(), time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, start + number / RATE_HZ - time.perf_counter()))
        run()
    time.sleep(1 / RATE_HZ)
    return (time.process_time() - cpu) / count


def measure_setting(
    data: bytes, spinning: bool, threads: int, bound: bool, batch: int, seconds: float
) -> Row:
    """Measure one setting on the CPU."""
    session = onnxruntime.InferenceSession(
        data, session_options(threads, spinning=spinning), providers=[CPU]
    )
    shape = (batch, INPUT_SIZE, INPUT_SIZE, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    results = session.run(OUTPUTS, {"image": images})
    shapes = {name: result.shape for name, result in zip(OUTPUTS, results, strict=True)}
    bound_run = BoundRun(session, "image", shape, shapes)

    def run() -> Any:
        return bound_run(images) if bound else session.run(OUTPUTS, {"image": images})

    durations, cpu = measure(run, seconds)
    p50, p99 = np.percentile(durations, [50, 99]) * 1e6
    frames = len(durations) * batch
    return Row(
        spinning,
        threads,
        bound,
        batch,
        float(p50),
        float(p99),
        frames / sum(durations),
        cpu / frames * 1e6,
        cpu_at_rate(run, seconds) * 1e6 if batch == 1 else None,
    )


def overhead(model: Path, seconds: float) -> tuple[float, float]:
    """Return the median of a bare run and of ``detect``, alternating, in microseconds."""
    detector = Detector(model, providers=[CPU])
    session = onnxruntime.InferenceSession(
        read_model_file(model).data, session_options(), providers=[CPU]
    )
    image = np.random.default_rng(0).integers(0, 256, (INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    bare, own = [], []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        session.run(OUTPUTS, {"image": image[np.newaxis]})
        middle = time.perf_counter()
        detector.detect(image, "rgb")
        bare.append(middle - start)
        own.append(time.perf_counter() - middle)
    return float(np.median(bare) * 1e6), float(np.median(own) * 1e6)


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="corridor", help="model file, or name of a shipped one")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    model = resolve_model(arguments.model)
    start = time.perf_counter()
    data = read_model_file(model).data
    read_ms = (time.perf_counter() - start) * 1e3
    print(
        f"{model.name}, onnxruntime {onnxruntime.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"read and checked in {read_ms:.1f} ms"
    )
    print("spinning threads bound batch   p50 us   p99 us  frames/s  CPU us/frame  at 30 Hz")
    rows = []
    for batch, threads, spinning, bound in itertools.product(
        (1, 8, 32), (1, 2), (False, True), (False, True)
    ):
        row = measure_setting(data, spinning, threads, bound, batch, arguments.seconds)
        rows.append(row)
        paced = "" if row.cpu_us_per_frame_30hz is None else f"{row.cpu_us_per_frame_30hz:9.0f}"
        print(
            f"{'yes' if spinning else 'no':8} {threads:7} {'yes' if bound else 'no':5} {batch:5} "
            f"{row.p50_us:8.0f} {row.p99_us:8.0f} {row.frames_per_second:9.0f} "
            f"{row.cpu_us_per_frame:13.0f} {paced}".rstrip(),
            flush=True,
        )
    bare, own = overhead(model, arguments.seconds)
    print(f"bare run {bare:.0f} us, detect {own:.0f} us: {own / bare:.3f} times")
    if arguments.json is not None:
        figures = {
            "model": model.name,
            "onnxruntime": onnxruntime.__version__,
            "rows": [asdict(row) for row in rows],
            "bare_run_us": bare,
            "detect_us": own,
        }
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
