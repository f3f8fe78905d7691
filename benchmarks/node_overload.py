"""Send the node three times what it can follow, and see that only newest frames are scored.

Camera, node and listener run in processes of their own::

    python -m benchmarks.node_overload
    python -m benchmarks.node_overload --seconds 10

Three times the rate that a real model reaches (some hundred frames a second) is more than one
publisher in Python can send, and would measure the publisher. So a slow detector is made: a large
convolution that is applied again and again, until one frame costs about ``--cost`` milliseconds on
this machine. Frames are small, so that the network is what limits the
node.

First the achievable rate is measured, with a frame always waiting; then comes the overload. The
exit code is 1 when a bar is missed: the latency's 99th percentile is below three times what one
frame costs, and every frame is answered or counted as dropped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.parser import parse_model

from anomaly_detector.model.detector import Detector
from anomaly_detector.model.metadata import METADATA_KEY, Calibration, ModelMetadata
from anomaly_detector.model.normalization import (
    add_normalized_score,
    float32_threshold,
    normalization_scale,
)
from anomaly_detector.ros.benchmarking.live import LiveResult, measure_live
from benchmarks.common import judge, measure_durations, options, run

OVERLOAD = 3.0
MAX_LATENCY = 3.0
"""Bar: p99 of the latency, in costs of one frame."""

_CHANNELS = 64
_GRAPH = """
<ir_version: 9, opset_import: ["" : 18]>
slow (uint8[N, 64, 64, 3] image) => (float[N] score, float[N, 64, 64] anomaly_map)
<int64[1] channels = {1}, int64[2] places = {1, 2}>
{
    pixels = Cast <to = 1> (image)
    planes = Transpose <perm = [0, 3, 1, 2]> (pixels)
    layer_0 = Conv <pads = [1, 1, 1, 1]> (planes, first)
    LAYERS
    size = Abs (last)
    anomaly_map = ReduceMean <keepdims = 0> (size, channels)
    score = ReduceMean <keepdims = 0> (anomaly_map, places)
}
"""


def write_slow_model(path: Path, convolutions: int) -> Path:
    """Write a detector with as many convolutions of 64 channels on 64x64 pixels.

    Args:
        path: of the ONNX file.
        convolutions: at least one; it takes 0.3 thousand million multiplications (3x3 kernels).
    """
    random = np.random.default_rng(0)
    kernel = random.normal(0.0, 1e-3, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
    first = random.normal(0.0, 1e-3, (_CHANNELS, 3, 3, 3)).astype(np.float32)
    outputs = [*(f"layer_{index + 1}" for index in range(convolutions - 1)), "last"]
    layers = [
        f"{output} = Conv <pads = [1, 1, 1, 1]> (layer_{index}, kernel)"
        for index, output in enumerate(outputs)
    ]
    model = parse_model(_GRAPH.replace("LAYERS", "\n".join(layers)))
    for name, values in (("first", first), ("kernel", kernel)):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
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


def inference_ms(path: Path, seconds: float = 0.5) -> float:
    """Return the median time of a frame in a model, milliseconds."""
    image = np.zeros((64, 64, 3), np.uint8)
    with Detector(path) as detector:
        durations = measure_durations(lambda: detector.detect(image, "rgb"), seconds)
    return 1e3 * float(np.median(durations))


def model_of_cost(path: Path, cost_ms: float) -> Path:
    """Write a detector of which a frame costs about as many milliseconds on this machine."""
    few, many = 2, 10
    base = inference_ms(write_slow_model(path, few))
    each = max(0.05, (inference_ms(write_slow_model(path, many)) - base) / (many - few))
    return write_slow_model(path, max(few, round(few + (cost_ms - base) / each)))


def answered_per_second(result: LiveResult) -> float:
    """Return the rate of the answers."""
    return (len(result.sent_at_s) - 1) / (result.sent_at_s[-1] - result.sent_at_s[0])


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure the achievable rate, then the overload."""
    width, height = arguments.size
    with tempfile.TemporaryDirectory() as folder:
        model = model_of_cost(Path(folder, "slow.onnx"), arguments.cost)
        alone_ms = inference_ms(model)

        def live(hz: float, seconds: float) -> LiveResult:
            return measure_live(
                model, width=width, height=height, hz=hz, seconds=seconds, progress=True
            )

        # Twice what the network alone could do: a frame always waits, so this is the limit.
        saturated = live(2e3 / alone_ms, min(10.0, arguments.seconds))
        rate = answered_per_second(saturated)
        cost_ms = 1e3 / rate
        result = live(OVERLOAD * rate, arguments.seconds)
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
    figures = {"network_ms": alone_ms, "achievable_hz": rate, "result": result.summary()}
    return figures, judge(bars)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--size")
    parser.set_defaults(size="160x120")
    parser.add_argument("--seconds", type=float, default=60.0, help="(%(default)s)")
    parser.add_argument(
        "--cost", type=float, default=20.0, metavar="MS",
        help="what a frame is to cost in the slow model (%(default)s)",
    )  # fmt: skip
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
