"""The soak and overload benchmarks judge what was measured as their bars say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from programs import ROOT

from anomaly_detector.model.detector import Detector
from anomaly_detector.ros.benchmarking.live import LiveResult, Sample
from benchmarks.node_overload import answered_per_second, write_slow_model
from benchmarks.node_soak import Yardstick, drift, growth_mb, has_drifted, per_minute


def result(latencies_of_minutes: list[float], resident_mb: list[float]) -> LiveResult:
    """Return what a run at 1 Hz measured, whose latency and memory change from minute to minute."""
    seconds = 60 * len(latencies_of_minutes)
    return LiveResult(
        width=64,
        height=48,
        hz=1.0,
        transport="raw",
        sent=seconds,
        sent_hz=1.0,
        answered=seconds,
        skipped=0,
        lost=0,
        dropped=0,
        duplicates=0,
        latency_ms=[latencies_of_minutes[second // 60] for second in range(seconds)],
        sent_at_s=[float(second) for second in range(seconds)],
        samples=[Sample(s, 0.1 * s, resident_mb[s // 60]) for s in range(seconds)],
        diagnostics={},
    )


def even(minutes: int, cost: float = 1.0) -> list[tuple[float, float]]:
    """Return the costs of a yardstick on a machine that keeps its pace."""
    return [(float(second), cost) for second in range(60 * minutes)]


def test_soak_gives_each_minute_its_own_figures() -> None:
    rows = per_minute(result([2.0, 3.0], [100.0, 101.0]), even(2))
    assert [row["latency_p99_ms"] for row in rows] == [2.0, 3.0]
    assert [row["answered"] for row in rows] == [60, 60]
    assert [row["resident_mb"] for row in rows] == [100.0, 101.0]
    assert [row["cpu_percent"] for row in rows] == pytest.approx([10.0, 10.0])


def test_soak_sees_growth_after_the_first_minute_only() -> None:
    assert growth_mb(result([2.0] * 3, [50.0, 100.0, 106.0])) == 6.0
    assert growth_mb(result([2.0] * 3, [50.0, 100.0, 100.0])) == 0.0


def test_soak_compares_the_last_quarter_with_the_first() -> None:
    run = result([2.0, 2.0, 9.0, 2.0, 2.0, 2.0, 4.0, 4.0], [100.0] * 8)
    rows = per_minute(run, even(8))
    assert drift(rows) == (2.0, 4.0)
    assert has_drifted(rows)
    # Not when the machine has become as much slower.
    slower = [(second, 1.0 if second < 360 else 2.0) for second, _ in even(8)]
    assert not has_drifted(per_minute(run, slower))
    # Without a yardstick nothing can be said for it.
    assert has_drifted(per_minute(run, []))


def test_yardstick_times_its_work_until_the_end() -> None:
    with Yardstick() as yardstick:
        deadline = time.monotonic() + 20.0
        while not yardstick.costs and time.monotonic() < deadline:
            time.sleep(0.01)
    (when, cost), *_ = yardstick.costs
    assert when <= time.monotonic()
    assert cost > 0


def test_summary_holds_percentiles_in_the_place_of_frames() -> None:
    summary = result([2.0, 4.0], [100.0, 101.0]).summary()
    assert summary["latency_p50_ms"] == 3.0
    assert summary["latency_max_ms"] == 4.0
    assert summary["cpu_percent"] == pytest.approx(10.0)
    assert summary["resident_mb"] == 101.0
    assert not {"latency_ms", "samples"} & set(summary)


def test_overload_knows_the_rate_of_the_answers() -> None:
    assert answered_per_second(result([2.0], [100.0])) == 1.0


def test_slow_model_is_a_detector(tmp_path: Path) -> None:
    with Detector(write_slow_model(tmp_path / "slow.onnx", 2)) as detector:
        black = detector.detect(np.zeros((64, 64, 3), np.uint8), "rgb")
        white = detector.detect(np.full((64, 64, 3), 255, np.uint8), "rgb")
    assert black.score == 0.0
    assert white.score > 0.0


POOL = """
import time
from concurrent.futures import ProcessPoolExecutor
from benchmarks.common import options, run

def measure(_):
    with ProcessPoolExecutor(2) as pool:
        waiting = [pool.submit(time.sleep, 600.0) for _ in range(4)]
        print("started", flush=True)
        return [item.result() for item in waiting], True

run(options("Waits."), measure)
"""


@pytest.mark.parametrize("way", ["node and camera", "pool"])
def test_sigterm_ends_what_a_benchmark_has_started(model: Path, way: str) -> None:
    soak = ["-m", "benchmarks.node_soak", "--model", str(model), "--size", "64x48"]
    arguments = ["-c", POOL] if way == "pool" else soak
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 60.0
        try:
            while len(started := children.read_text().split()) < 2:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            if way == "pool":  # Python cannot be ended cleanly while a thread of it starts
                assert process.stdout is not None
                assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30.0) == 128 + signal.SIGTERM
        finally:
            process.kill()
    deadline = time.monotonic() + 30.0
    while (left := [pid for pid in started if Path("/proc", pid).exists()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.02)
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left
