"""Send the node three times what it can follow, and see that only newest frames are scored.

Camera, node and listener run in processes of their own::

    python -m benchmarks.node_overload
    python -m benchmarks.node_overload --seconds 10

Three times the rate that a real model reaches (some hundred frames a second) is more than one
publisher in Python can send, and would measure the publisher. So a slow detector is made, operator
by operator: a large convolution that is applied again and again, until one frame costs about
``--cost`` milliseconds on this machine. Frames are small, so that the network is what limits the
node.

First the achievable rate is measured, with a frame always waiting; then comes the overload. The
exit code is 1 when a bar is missed: the latency's 99th percentile is below three times what one
frame costs, and every frame is answered or counted as dropped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anomaly_detector.benchmarking.camera import parse_size
from anomaly_detector.cli.benchmark import machine
from anomaly_detector.files import atomic_path
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.metadata import METADATA_KEY, Calibration, ModelMetadata
from anomaly_detector.model.normalization import (
    add_normalized_score,
    float32_threshold,
    normalization_scale,
)
from anomaly_detector.ros.benchmarking.live import LiveResult, measure_live

OVERLOAD = 3.0
MAX_LATENCY = 3.0
"""Bar: p99 of the latency, in costs of one frame."""

_CHANNELS = 64


def write_slow_model(path: Path, convolutions: int) -> Path:
    """Write a detector with as many convolutions of 64 channels on 64x64 pixels.

    Args:
        path: of the ONNX file.
        convolutions: one takes 0.3 thousand million multiplications with 3x3 kernels.
    """
    random = np.random.default_rng(0)
    kernel = random.normal(0.0, 1e-3, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
    first = random.normal(0.0, 1e-3, (_CHANNELS, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["layer_0"], pads=[1, 1, 1, 1]),
        *(
            helper.make_node(
                "Conv", [f"layer_{i}", "kernel"], [f"layer_{i + 1}"], pads=[1, 1, 1, 1]
            )
            for i in range(convolutions)
        ),
        helper.make_node("Abs", [f"layer_{convolutions}"], ["size"]),
        helper.make_node("ReduceMean", ["size", "channels"], ["anomaly_map"], keepdims=0),
        helper.make_node("ReduceMean", ["anomaly_map", "pixels_axes"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 64, 64, 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", 64, 64]),
        ],
        [
            numpy_helper.from_array(first, "first"),
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(np.array([1], np.int64), "channels"),
            numpy_helper.from_array(np.array([1, 2], np.int64), "pixels_axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    metadata = ModelMetadata(
        name="slow",
        architecture="convolutions",
        scorer="reconstruction",
        score_units="none",
        threshold=1000.0,
        calibration=Calibration("fixed"),
    )
    add_normalized_score(
        model, float32_threshold(metadata.threshold), normalization_scale(metadata)
    )
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.save(model, path)
    return path


def inference_ms(path: Path, runs: int = 7) -> float:
    """Return the median time of a frame in a model, milliseconds."""
    with Detector(path) as detector:
        image = np.zeros((64, 64, 3), np.uint8)
        durations = []
        for _ in range(runs):
            start = time.perf_counter()
            detector.detect(image, "rgb")
            durations.append(time.perf_counter() - start)
    return 1e3 * float(np.median(durations))


def model_of_cost(path: Path, cost_ms: float) -> Path:
    """Write a detector of which a frame costs about as many milliseconds on this machine."""
    few, many = 2, 10
    base = inference_ms(write_slow_model(path, few))
    each = max(0.05, (inference_ms(write_slow_model(path, many)) - base) / (many - few))
    return write_slow_model(path, max(few, round(few + (cost_ms - base) / each)))


def main() -> int:
    """Run the benchmark; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="(default: %(default)s)")
    parser.add_argument(
        "--cost", type=float, default=20.0, metavar="MS",
        help="what a frame is to cost in the slow model (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--size", default="160x120", metavar="WIDTHxHEIGHT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    arguments = parser.parse_args()
    width, height = parse_size(arguments.size)
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        model = model_of_cost(Path(folder, "slow.onnx"), arguments.cost)
        alone_ms = inference_ms(model)

        def run(hz: float, seconds: float) -> LiveResult:
            return measure_live(
                model, width=width, height=height, hz=hz, seconds=seconds, progress=True
            )

        # Twice what the network alone could do: a frame always waits, so this is the limit.
        saturated = run(2e3 / alone_ms, min(10.0, arguments.seconds))
        rate = answered_per_second(saturated)
        cost_ms = 1e3 / rate
        result = run(OVERLOAD * rate, arguments.seconds)
    p99 = result.latency_percentile(99)
    dropped = "unknown" if result.dropped is None else str(result.dropped)
    print(
        f"network alone {alone_ms:.1f} ms a frame; the node follows {rate:.1f} frames/s, "
        f"{cost_ms:.1f} ms a frame\n"
        f"{result.sent} frames sent at {result.sent_hz:.1f}/s for {arguments.seconds:g} s: "
        f"{result.answered} answered, {dropped} counted as dropped, latency p50 "
        f"{result.latency_percentile(50):.1f} ms, p99 {p99:.1f} ms"
    )
    bars = {
        f"input is {result.sent_hz / rate:.2f} times the achievable rate": (
            result.sent_hz > 0.95 * OVERLOAD * rate
        ),
        f"p99 is {p99 / cost_ms:.2f} times the cost of a frame": p99 < MAX_LATENCY * cost_ms,
        "every frame was answered or counted as dropped": (
            result.dropped is not None
            and result.sent == result.answered + result.dropped
            and not result.duplicates
        ),
    }
    for text, is_met in bars.items():
        print(f"{'ok    ' if is_met else 'MISSED'} {text}")
    if arguments.json is not None:
        report = {
            "machine": where,
            "network_ms": alone_ms,
            "achievable_hz": rate,
            "frame_cost_ms": cost_ms,
            "result": result.summary(),
        }
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(bars.values()) else 1


def answered_per_second(result: LiveResult) -> float:
    """Return the rate of the answers."""
    return (len(result.sent_at_s) - 1) / (result.sent_at_s[-1] - result.sent_at_s[0])


if __name__ == "__main__":
    sys.exit(main())
