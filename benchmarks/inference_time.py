"""Time that a model takes for one frame, on one core, as the node runs it.

Run it from the checkout:

    python -m benchmarks.inference_time --model models/corridor.onnx

The 64x64 frame is given; decoding and shrinking come on top. The lowest decile says what the model
costs where nothing else runs, the median what it took here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import numpy as np

from anomaly_detector.detector import Detector
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.preprocessing import INPUT_SIZE
from anomaly_detector.resources import resolve_model


def measure(model: str, runs: int) -> dict[str, float]:
    """Time single frames.

    Returns:
        Milliseconds a frame (``median``, ``lowest_decile``) and the machine's ``load``.

    Raises:
        AnomalyDetectorError: the model cannot be used.
    """
    detector = Detector(resolve_model(model), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (8, 1, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    times = []
    for run in range(runs):
        start = time.perf_counter()
        detector.score_batch(frames[run % len(frames)])
        times.append(time.perf_counter() - start)
    milliseconds = 1e3 * np.array(times)
    return {
        "median": round(float(np.median(milliseconds)), 3),
        "lowest_decile": round(float(np.quantile(milliseconds, 0.1)), 3),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True, help="model file, or name of a shipped model")
    parser.add_argument("--runs", type=int, default=1000, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        figures = measure(arguments.model, arguments.runs)
    except AnomalyDetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(figures))
    else:
        print(
            f"{arguments.model}: {figures['median']:.3f} ms a frame in the median of "
            f"{arguments.runs}, {figures['lowest_decile']:.3f} ms in the lowest decile, "
            f"load {figures['load']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
