"""Compare the thesis' way with a frame and ours, in turns, in one run.

    python -m benchmarks.thesis_way --model build/v5.onnx

The thesis (its code 5.3 and 5.13) resizes a frame with Pillow and calls Keras' ``predict`` twice,
for the encoder and for the decoder; the score is the mean squared difference. Ours is the node's:
pixels as a view of the message, one resizing, one run of ONNX Runtime, the alarm filter. A v5 model
with the reconstruction score has the same network as the thesis' last one. Needs the extra
``training`` and Pillow.

The exit code is 1 when ours is less than 60 times faster.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_detector.benchmarking.camera import camera_frame
from anomaly_detector.benchmarking.steps import PICTURES, WORK, FrameSteps, Percentiles
from anomaly_detector.model.detector import Detector
from benchmarks.common import judge, options, run
from training.networks.autoencoders import build_autoencoder

BAR = 60.0
_BLOCK = 10
"""Frames of each way in turn; the first is left out, it fetches the other's place in the cache."""


def thesis_score(autoencoder: Any, picture: NDArray[np.uint8]) -> float:
    """Score a frame, uint8 [H, W, 3], as the thesis does."""
    image = Image.fromarray(picture).resize((64, 64))
    array = np.array(image).reshape(1, 64, 64, 3)
    embedding = autoencoder.encoder.predict(array, verbose=0)
    decoded = autoencoder.decoder.predict(embedding, verbose=0)
    return float(np.mean((array - decoded) ** 2))


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Score frames in both ways, in turns."""
    width, height = arguments.size
    messages = [camera_frame(index, width, height) for index in range(PICTURES)]
    pictures = [np.frombuffer(m.data, np.uint8).reshape(height, width, 3) for m in messages]
    # What its weights are does not change the time.
    autoencoder = build_autoencoder("v5")
    steps = FrameSteps(Detector(arguments.model))
    for picture, message in zip(pictures, messages, strict=True):
        thesis_score(autoencoder, picture)
        steps(message)
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
    is_met = judge({f"ours is {ratio:.0f} times faster": ratio >= BAR})
    return {"rows": {name: vars(row) for name, row in rows.items()}, "ratio": ratio}, is_met


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--model", "--size")
    parser.add_argument("--frames", type=int, default=200, help="(%(default)s)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
