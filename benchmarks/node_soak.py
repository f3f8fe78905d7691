"""Run the node for a long time and look for lost frames, growing memory and rising latency.

Camera, node and listener run in processes of their own::

    python -m benchmarks.node_soak
    python -m benchmarks.node_soak --minutes 2

Prints a line a minute. The exit code is 1 when a bar is missed: 0 frames lost, resident memory
grown by less than 5 MB after the first minute, and a 99th percentile of the latency that does not
drift: the median of the last quarter's minutes is at most 1.5 times that of the first quarter's, or
1 ms more. A virtual machine itself may become slower or quicker in 20 minutes. So a fixed piece of
work is timed once a second beside the node, and the first quarter's latency is put in proportion to
it before the comparison.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import defaultdict
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from anomaly_detector.ros.benchmarking.live import LiveResult, measure_live
from benchmarks.common import judge, options, run

MAX_GROWTH_MB = 5.0
MAX_DRIFT = 1.5
DRIFT_MS = 1.0
"""Less than this is no drift, however small the latency was to begin with."""


class Yardstick:
    """Times a fixed piece of work once a second: a slower machine is no slower node.

    Attributes:
        costs: when it was due (monotonic, seconds), and milliseconds from then until it was done.
    """

    def __init__(self) -> None:
        self.costs: list[tuple[float, float]] = []
        generator = np.random.default_rng(0)
        self._frame = generator.integers(0, 256, (480, 640, 3), np.uint8)
        self._numbers = generator.random((512, 256), np.float32)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="yardstick", daemon=True)

    def __enter__(self) -> Yardstick:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _measure(self) -> None:
        # What a frame costs the node: to be woken, new memory, arithmetic with cold caches.
        due = time.monotonic() + 1.0
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            self._frame.copy()
            np.sort(self._numbers, axis=1)
            now = time.monotonic()
            self.costs.append((due, 1e3 * (now - due)))
            due = now + 1.0


def per_minute(
    result: LiveResult, costs: list[tuple[float, float]], minute_s: float = 60.0
) -> list[dict[str, float]]:
    """Return what each minute looked like.

    Args:
        result: of the run.
        costs: of the yardstick, seconds since the first frame and milliseconds.
        minute_s: length of a "minute", seconds.
    """
    latencies: dict[int, list[float]] = defaultdict(list)
    for sent_at, latency in zip(result.sent_at_s, result.latency_ms, strict=True):
        latencies[int(sent_at // minute_s)].append(latency)
    rows = []
    for minute, values in sorted(latencies.items()):
        samples = [s for s in result.samples if s.time_s // minute_s == minute]
        work = [cost for due, cost in costs if due // minute_s == minute]
        p50, p99 = np.percentile(values, [50, 99])
        rows.append(
            {
                "minute": minute + 1,
                "answered": len(values),
                "latency_p50_ms": float(p50),
                "latency_p99_ms": float(p99),
                "cpu_percent": 100 * replace(result, samples=samples).cpu_share,
                "resident_mb": samples[-1].resident_mb if samples else float("nan"),
                "yardstick_ms": median(work) if work else float("nan"),
            }
        )
    return rows


def growth_mb(result: LiveResult, minute_s: float = 60.0) -> float:
    """Return how much resident memory has grown since the end of the first minute, 10^6 bytes."""
    later = [sample.resident_mb for sample in result.samples if sample.time_s >= minute_s]
    return later[-1] - later[0] if later else float("nan")


def drift(rows: list[dict[str, float]], name: str = "latency_p99_ms") -> tuple[float, float]:
    """Return the median of a figure over the first and over the last quarter of the minutes."""
    quarter = max(1, len(rows) // 4)
    values = [row[name] for row in rows]
    return median(values[:quarter]), median(values[-quarter:])


def has_drifted(rows: list[dict[str, float]]) -> bool:
    """Return whether the p99 has grown by more than the machine's own pace explains."""
    (early, late), (before, after) = drift(rows), drift(rows, "yardstick_ms")
    expected = early * after / before
    return not late <= max(MAX_DRIFT * expected, expected + DRIFT_MS)


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Run the node, and judge its minutes."""
    width, height = arguments.size
    # A short run is cut into as many parts, so that it shows the same.
    minute_s = min(60.0, arguments.minutes * 60.0 / 4)
    with Yardstick() as yardstick:
        result = measure_live(
            arguments.model,
            width=width,
            height=height,
            hz=arguments.hz,
            seconds=60.0 * arguments.minutes,
            transport=arguments.transport,
            progress=True,
        )
    # The run ends with the last frame, but for the second in which the last answers come.
    end = yardstick.costs[-1][0] - result.sent_at_s[-1]
    rows = per_minute(result, [(t - end, cost) for t, cost in yardstick.costs], minute_s)
    print(f"part of {minute_s:g} s  answered   p50 ms   p99 ms    CPU %  resident MB  yardstick ms")
    for row in rows:
        print(
            f"{row['minute']:12.0f} {row['answered']:9.0f} {row['latency_p50_ms']:8.2f} "
            f"{row['latency_p99_ms']:8.2f} {row['cpu_percent']:8.1f} {row['resident_mb']:12.1f} "
            f"{row['yardstick_ms']:13.3f}"
        )
    growth, (early, late) = growth_mb(result, minute_s), drift(rows)
    before, after = drift(rows, "yardstick_ms")
    bars = {
        f"{result.lost} of {result.sent} frames lost": result.lost == 0,
        f"resident memory grew by {growth:.2f} MB after the first part": growth < MAX_GROWTH_MB,
        f"p99 of the first quarter {early:.2f} ms, of the last {late:.2f} ms; the same work "
        f"{before:.2f} and {after:.2f} ms": not has_drifted(rows),
    }
    figures = {"result": result.summary(), "part_s": minute_s, "parts": rows, "growth_mb": growth}
    return figures, judge(bars)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--model", "--hz", "--size")
    parser.add_argument("--minutes", type=float, default=20.0, help="(%(default)s)")
    parser.add_argument("--transport", choices=("raw", "compressed"), default="raw")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
