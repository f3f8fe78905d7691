"""``python -m anomaly_detector benchmark``: what a frame costs on this machine, beside the floor.

Without ``--ros`` the steps are measured in this process and nothing of ROS is imported; with it
camera, node and listener run as processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_detector.benchmarking.camera import BENCHMARK_ENCODINGS, parse_size
from anomaly_detector.benchmarking.machine import machine, process_usage
from anomaly_detector.benchmarking.steps import (
    FLOOR_ROWS,
    STEPS,
    WORK,
    FrameCost,
    Percentiles,
    measure_frame_cost,
)
from anomaly_detector.cli.arguments import add_shared
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path, output_files
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.shipped import resolve_model

if TYPE_CHECKING:  # nothing of ROS is read unless it is asked for
    from anomaly_detector.ros.benchmarking.live import LiveResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add_shared(parser, "--model")
    parser.add_argument(
        "--size", default="640x480", metavar="WIDTHxHEIGHT", help="of the frames (%(default)s)"
    )
    parser.add_argument(
        "--transport", choices=("raw", "compressed"), default="raw", help="default: %(default)s"
    )
    parser.add_argument(
        "--encoding", choices=BENCHMARK_ENCODINGS, default="rgb8", metavar="NAME",
        help="of raw frames, as in sensor_msgs/Image (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--frames", type=int, default=1000, metavar="N",
        help="frames for the time of each step (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--hz", type=float, default=30.0, help="frame rate for CPU and latency (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of a run at that rate (%(default)s)"
    )
    parser.add_argument(
        "--ros", action="store_true",
        help="measure the node too: publishing, start-up, and latency, loss, CPU and memory with "
        "camera, node and listener in processes of their own",
    )  # fmt: skip
    parser.add_argument(
        "--sustained", action="store_true",
        help="with --ros: search the highest frame rate that the node follows without a drop",
    )  # fmt: skip
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME:=VALUE",
        help="with --ros: a parameter of the running node, such as max_rate_hz:=5.0",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    with output_files(arguments.json):
        return _benchmark(arguments)


def _benchmark(arguments: argparse.Namespace) -> int:
    width, height = parse_size(arguments.size)
    for name in ("frames", "hz", "seconds"):
        if not (value := getattr(arguments, name)) > 0:
            raise AnomalyDetectorError(f"--{name} is {value:g}: give more than 0")
    if arguments.sustained and not arguments.ros:
        raise AnomalyDetectorError("--sustained measures a running node: give --ros as well")
    if arguments.parameter and not arguments.ros:
        raise AnomalyDetectorError("--parameter is for a running node: give --ros as well")
    model = resolve_model(arguments.model)
    frame: dict[str, Any] = {"width": width, "height": height}
    frame |= {"transport": arguments.transport, "encoding": arguments.encoding}
    with Detector(model) as detector:
        count, hz, seconds = arguments.frames, arguments.hz, arguments.seconds
        cost = measure_frame_cost(detector, frames=count, hz=hz, seconds=seconds, **frame)
        report: dict[str, Any] = {
            "model": detector.metadata.name,
            "architecture": detector.metadata.architecture,
            "scorer": detector.metadata.scorer,
            "provider": detector.providers[0],
            "machine": machine(),
            "frame": frame,
            "in_process": asdict(cost) | {"resident_mb": process_usage(os.getpid())[1]},
        }
    print(_heading(report))
    node = _measure_node(model, arguments, frame) if arguments.ros else {}
    _print_steps(cost, node, report["in_process"]["resident_mb"])
    if node:
        _print_node(node)
        if arguments.sustained:
            node["sustained"] = _follow(model, frame)
        report["node"] = {name: _plain(value) for name, value in node.items()}
    if arguments.json is not None:
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _measure_node(
    model: Path, arguments: argparse.Namespace, frame: dict[str, Any]
) -> dict[str, Any]:
    from anomaly_detector.ros.benchmarking.live import measure_live
    from anomaly_detector.ros.benchmarking.node import measure_node_cost, measure_start_up

    return {
        "cost": measure_node_cost(model, frames=arguments.frames, **frame),
        "start_up": measure_start_up(model),
        "live": measure_live(
            model,
            hz=arguments.hz,
            seconds=arguments.seconds,
            parameters=arguments.parameter,
            progress=True,
            **frame,
        ),
    }


def _follow(model: Path, frame: dict[str, Any]) -> LiveResult | None:
    from anomaly_detector.ros.benchmarking.node import follow

    def print_result(result: LiveResult) -> None:
        print(
            f"  {result.hz:g} Hz: {result.sent} frames sent at {result.sent_hz:.1f}/s, "
            f"{result.lost} lost, p99 {result.latency_percentile(99):.2f} ms",
            flush=True,
        )

    print("\nsustained rate")
    best = follow(model, on_result=print_result, **frame)
    if best is None:
        print("no rate was followed without a drop")
    else:
        print(f"followed without a drop: {best.sent_hz:.0f} frames/s")
    return best


def _heading(report: dict[str, Any]) -> str:
    frame, where = report["frame"], report["machine"]
    kind = frame["encoding"] if frame["transport"] == "raw" else "JPEG"
    return (
        f"{report['model']} ({report['architecture']}, {report['scorer']}) on {report['provider']}"
        f", one thread, {frame['width']}x{frame['height']} {kind}\n"
        f"{where['date']}, {where['processor']}, {where['cores']} cores, load average "
        f"{where['load_average']:.1f}, onnxruntime {where['onnxruntime']}, "
        f"OpenCV {where['opencv']}\n"
    )


def _print_steps(cost: FrameCost, node: dict[str, Any], resident_mb: float) -> None:
    print(f"{'microseconds a frame':30} {'p50':>8} {'p95':>8} {'p99':>8}")
    for name in (*STEPS, WORK):
        _print_row(name, cost.rows[name])
    if node:
        _print_row("publish", node["cost"].publish)
        _print_row("whole frame in the node", node["cost"].whole)
        latency = [1e3 * node["live"].latency_percentile(percent) for percent in (50, 95, 99)]
        _print_row("end to end by stamp", Percentiles(*latency))
    for name in FLOOR_ROWS:
        _print_row(name, cost.rows[name])
    print(
        f"\nnode work / bare network: {cost.ratio:.2f}\n"
        f"in this process at {cost.hz:g} Hz: {cost.cpu_percent:.1f} % of one core, "
        f"{resident_mb:.0f} MB resident"
    )


def _print_row(name: str, row: Percentiles) -> None:
    print(f"{name:30} {row.p50:8.1f} {row.p95:8.1f} {row.p99:8.1f}")


def _print_node(node: dict[str, Any]) -> None:
    live, start_up = node["live"], node["start_up"]
    resident = live.samples[-1].resident_mb if live.samples else float("nan")
    print(
        f"node at {live.hz:g} Hz: {live.lost} of {live.sent} frames lost, "
        f"{live.skipped} skipped, "
        f"{100 * live.cpu_share:.1f} % of one core, {resident:.0f} MB resident\n"
        f"node active {start_up.active_s:.2f} s after its start, first answer after "
        f"{start_up.first_answer_s:.2f} s"
    )


def _plain(value: Any) -> Any:
    if hasattr(value, "summary"):  # a live result
        return value.summary()
    return None if value is None else asdict(value)
