"""What the network costs: latency, throughput and CPU time under each setting of ONNX Runtime.

    python -m benchmarks.inference
    python -m benchmarks.inference --model model.onnx --seconds 1

A robot's battery pays for CPU time, not for latency: beside the latency of one run after another
stands the CPU time of one frame when frames come at 30 Hz, idle threads that spin included. The
last line compares the detector's own work on a frame with the bare run that it contains.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_model_file
from anomaly_detector.model.providers import CPU
from anomaly_detector.model.session import IoBinding, session_options
from benchmarks.common import options, run

import onnxruntime  # isort: skip  # after the package, which switches telemetry off

RATE_HZ = 30.0
OUTPUTS = ("score", "normalized_score", "anomaly_map")


def durations_and_cpu(call: Callable[[], object], seconds: float) -> tuple[list[float], float]:
    """Call again and again; return the duration of each call and the CPU time of all, seconds."""
    for _ in range(10):
        call()
    durations = []
    cpu, end = time.process_time(), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call()
        durations.append(time.perf_counter() - start)
    return durations, time.process_time() - cpu


def cpu_at_rate(call: Callable[[], object], seconds: float) -> float:
    """Call at 30 Hz; return the CPU time of one call, seconds."""
    count = max(1, int(seconds * RATE_HZ))
    cpu, start = time.process_time(), time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, start + number / RATE_HZ - time.perf_counter()))
        call()
    time.sleep(1 / RATE_HZ)
    return (time.process_time() - cpu) / count


def setting_row(
    data: bytes, *, spinning: bool, threads: int, bound: bool, batch: int, seconds: float
) -> dict[str, Any]:
    """Measure one setting on the CPU.

    Args:
        data: the model file.
        spinning: idle threads wait in a busy loop.
        threads: inside one operator.
        bound: inputs and outputs are bound to fixed memory.
        batch: frames of a run.
        seconds: for each figure.
    """
    session = onnxruntime.InferenceSession(
        data, session_options(threads, spinning=spinning), providers=[CPU]
    )
    shape = (batch, *session.get_inputs()[0].shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    results = session.run(OUTPUTS, {"image": images})
    shapes = {name: result.shape for name, result in zip(OUTPUTS, results, strict=True)}
    binding = IoBinding(session, shape, shapes)

    def call() -> Any:
        return binding.run(images) if bound else session.run(OUTPUTS, {"image": images})

    durations, cpu = durations_and_cpu(call, seconds)
    p50, p99 = np.percentile(durations, [50, 99]) * 1e6
    frames = len(durations) * batch
    return {
        "spinning": "yes" if spinning else "no",
        "threads": threads,
        "bound": "yes" if bound else "no",
        "batch": batch,
        "p50 us": round(p50),
        "p99 us": round(p99),
        "frames/s": round(frames / sum(durations)),
        "CPU us/frame": round(cpu / frames * 1e6),
        "at 30 Hz": round(cpu_at_rate(call, seconds) * 1e6) if batch == 1 else "",
    }


def overhead(model: Path, seconds: float) -> tuple[float, float]:
    """Return the median of a bare run and of ``detect``, alternating, in microseconds."""
    detector = Detector(model, providers=[CPU])
    session = onnxruntime.InferenceSession(
        read_model_file(model).data, session_options(), providers=[CPU]
    )
    image = np.random.default_rng(0).integers(0, 256, session.get_inputs()[0].shape[1:], np.uint8)
    bare, own = [], []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        session.run(OUTPUTS, {"image": image[np.newaxis]})
        middle = time.perf_counter()
        detector.detect(image, "rgb")
        bare.append(middle - start)
        own.append(time.perf_counter() - middle)
    return float(np.median(bare) * 1e6), float(np.median(own) * 1e6)


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure every setting, then the detector's own work."""
    model, seconds = arguments.model, arguments.seconds
    start = time.perf_counter()
    data = read_model_file(model).data
    read_ms = (time.perf_counter() - start) * 1e3
    print(
        f"{model.name}, onnxruntime {onnxruntime.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"read and checked in {read_ms:.1f} ms"
    )
    rows: list[dict[str, Any]] = []
    for batch, threads, spinning, bound in itertools.product(
        (1, 8, 32), (1, 2), (False, True), (False, True)
    ):
        row = setting_row(
            data, spinning=spinning, threads=threads, bound=bound, batch=batch, seconds=seconds
        )
        if not rows:
            print("  ".join(row))
        print("  ".join(f"{value!s:>{len(name)}}" for name, value in row.items()), flush=True)
        rows.append(row)
    bare, own = overhead(model, seconds)
    print(f"bare run {bare:.0f} us, detect {own:.0f} us: {own / bare:.3f} times")
    return {"model": model.name, "rows": rows, "bare_run_us": bare, "detect_us": own}, True


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--model")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure (%(default)s)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
