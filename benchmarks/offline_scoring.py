"""Time and memory of offline scoring on JPEG frames of a corridor.

Render distinct frames of the synthetic corridor once, write as many files as asked for from them,
and score the folder as ``python -m anomaly_detector score`` does, once for each number of workers:

    python -m benchmarks.offline_scoring --model build/v5.onnx --frames 5000

The thesis' test set has 56,100 frames of 512x512; the time for these is extrapolated.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_detector.model.detector import Detector
from anomaly_detector.ordered_pool import usable_cores
from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import preprocessed_frame
from anomaly_detector.scoring.tables import write_scores
from benchmarks.common import anonymous_mib, options, peak_anonymous_mib, run, write_jpegs
from training.data.corridor import CorridorDrive
from training.data.corridor.writer import render_frames

THESIS_FRAMES = 56_100
"""Test frames of the thesis (4.2), 512x512."""

_FPS = 20.0


def score_once(
    detector: Detector, frames: Path, folder: Path, workers: int, batch: int
) -> dict[str, Any]:
    """Score the frames once; return time, memory and a hash of the table."""
    source = open_source(frames)
    output = folder / "scores.csv"
    before = anonymous_mib()
    with peak_anonymous_mib() as peak:
        processor, started = time.process_time(), time.perf_counter()
        summary = write_scores(
            detector, source, output, fps=_FPS, workers=workers, batch_size=batch, progress=False
        )
        seconds = time.perf_counter() - started
        processor = time.process_time() - processor
    return {
        "workers": workers,
        "batch": batch,
        "frames": summary.scored,
        "frames_per_s": round(summary.scored / seconds),
        "processor_ms_a_frame": round(1e3 * processor / summary.scored, 3),
        f"s_for_{THESIS_FRAMES}": round(THESIS_FRAMES * seconds / summary.scored, 1),
        "anonymous_mib_before": round(before),
        "anonymous_mib_peak": round(peak[0]),
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest()[:12],
    }


def differing_scores(detector: Detector, frames: Path, batch: int, count: int) -> int:
    """Return how many of the first frames get another score in batches than alone."""
    resize = partial(preprocessed_frame, size=detector.view.size)
    resized = open_source(frames).mapped(resize, reduced=True)
    images = np.stack([frame.pixels.array for frame in islice(resized, count)])
    alone = [detector.score_batch(image[np.newaxis]).score[0] for image in images]
    parts = [images[start : start + batch] for start in range(0, len(images), batch)]
    batched = np.concatenate([detector.score_batch(part).score for part in parts])
    return int((batched != np.array(alone)).sum())


def one_by_one(detector: Detector, frames: Path, count: int) -> float:
    """Return the frames a second of scoring as the node does: one frame after the other."""
    started = time.perf_counter()
    done = sum(1 for _ in islice(detector.stream(frames), count))
    return done / (time.perf_counter() - started)


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Score with every batch size and number of workers."""
    rows: list[dict[str, Any]] = []

    def report(**row: Any) -> None:
        rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    drive = CorridorDrive(
        arguments.distinct, seed=0, width=arguments.side, height=arguments.side, fps=_FPS
    )
    with (
        tempfile.TemporaryDirectory(prefix="offline_scoring_") as name,
        Detector(arguments.model) as detector,
    ):
        folder = Path(name)
        frames = folder / "frames"
        rendered = (frame.image for frame in render_frames(drive, workers=1))
        pictures = (np.asarray(image[..., ::-1]) for image in rendered)
        write_jpegs(frames, pictures, arguments.frames, arguments.quality)
        rate = one_by_one(detector, frames, min(1000, arguments.frames))
        report(one_by_one_frames_per_s=round(rate))
        for batch in arguments.batch_size:
            differing = differing_scores(detector, frames, batch, arguments.distinct)
            report(batch=batch, differing=differing, of=arguments.distinct)
        for workers in arguments.workers:
            for batch in arguments.batch_size:
                report(**score_once(detector, frames, folder, workers, batch))
    return {"rows": rows}, True


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__, "--model")
    parser.add_argument("--frames", type=int, default=5000, help="(%(default)s)")
    parser.add_argument("--distinct", type=int, default=100, help="frames rendered (%(default)s)")
    parser.add_argument("--side", type=int, default=512, help="of a frame, pixels (%(default)s)")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG files (%(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=sorted({1, usable_cores()}), help="(%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 16])
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
