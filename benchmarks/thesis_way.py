"""Compare the thesis' way with a frame and ours, in turns, in one run.

The thesis (its code 5.3 and 5.13) shrinks a frame with Pillow and calls Keras' ``predict`` twice,
for the encoder and for the decoder; the score is the mean squared difference. Ours is the node's:
pixels as a view of the message, one shrink, one run of ONNX Runtime, the decision over time.
Run with ``python -m benchmarks.thesis_way --model MODEL``: a v5 model with the reconstruction score
has the same network as the thesis' last one. Needs ``training`` and Pillow.

The exit code is 1 when ours is less than 60 times faster.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_detector.benchmarking.camera import camera_frame, parse_size
from anomaly_detector.benchmarking.steps import PICTURES, WORK, FrameSteps, Percentiles
from anomaly_detector.cli.benchmark import machine
from anomaly_detector.files import atomic_path
from anomaly_detector.model.detector import Detector
from training.networks.autoencoders import build_autoencoder

BAR = 60.0
_BLOCK = 10
"""Frames of each way in turn; the first is left out, it fetches the other's place in the cache."""


def thesis_score(autoencoder: Any, picture: NDArray[np.uint8]) -> float:
    """Score a frame, uint8 [H, W, 3], as the thesis does."""
    image = Image.fromarray(picture).resize((64, 64))
    array = np.array(image).reshape(1, 64, 64, 3)
    code = autoencoder.encoder.predict(array, verbose=0)
    decoded = autoencoder.decoder.predict(code, verbose=0)
    return float(np.mean((array - decoded) ** 2))


def main() -> int:
    """Run the benchmark; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="corridor", help="name or path (default: %(default)s)")
    parser.add_argument("--size", default="640x480", metavar="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    arguments = parser.parse_args()
    width, height = parse_size(arguments.size)
    where = machine()
    messages = [camera_frame(index, width, height) for index in range(PICTURES)]
    pictures = [np.frombuffer(m.data, np.uint8).reshape(height, width, 3) for m in messages]
    # What its weights are does not change the time.
    autoencoder = build_autoencoder("v5")
    steps = FrameSteps(Detector(arguments.model))
    for picture, message in zip(pictures, messages, strict=True):
        thesis_score(autoencoder, picture)
        steps(message)
    steps.forget()
    theirs: list[float] = []
    ours: list[float] = []
    while len(theirs) < arguments.frames:
        block: list[float] = []
        for index in range(_BLOCK):
            start = time.perf_counter()
            thesis_score(autoencoder, pictures[index % PICTURES])
            block.append(time.perf_counter() - start)
        theirs += block[1:]
        steps.forget()
        for index in range(_BLOCK):
            steps(messages[index % PICTURES])
        ours += steps.durations[WORK][1:]
    rows = {"thesis": Percentiles.of(theirs), "ours": Percentiles.of(ours)}
    ratio = rows["thesis"].p50 / rows["ours"].p50
    print(f"{'milliseconds a frame':22} {'p50':>8} {'p95':>8} {'p99':>8}")
    for name, row in rows.items():
        print(f"{name:22} {row.p50 / 1e3:8.3f} {row.p95 / 1e3:8.3f} {row.p99 / 1e3:8.3f}")
    print(f"ours is {ratio:.0f} times faster (load average {where['load_average']:.1f})")
    if arguments.json is not None:
        report = {
            "machine": where,
            "model": steps.detector.metadata.name,
            "rows": {name: vars(row) for name, row in rows.items()},
            "ratio": ratio,
        }
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
