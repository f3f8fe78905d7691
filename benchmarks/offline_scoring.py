"""Time and memory of offline scoring on JPEG frames of a corridor.

Renders distinct frames of the synthetic corridor once, writes as many files as asked for from
them, and scores the folder through ``python -m anomaly_detector score``'s own code, once for each
number of workers. Run it from the checkout:

    python -m benchmarks.offline_scoring --model models/corridor.onnx --frames 5000

The thesis' test set has 56,100 frames of 512x512; the time for these is extrapolated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from anomaly_detector.model.detector import Detector
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.ordered_pool import usable_cores
from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import shrunk_frame
from anomaly_detector.scoring.tables import write_scores
from benchmarks.cache_memory import anonymous_mib, peak_anonymous_mib
from training.data.corridor import CorridorDrive
from training.data.corridor.writer import render_frames

THESIS_FRAMES = 56_100
"""Test frames of the thesis (4.2), 512x512."""

_FPS = 20.0


def write_frames(folder: Path, frames: int, distinct: int, size: int, quality: int = 95) -> None:
    """Write JPEG frames of a corridor, rendering ``distinct`` of them and no two files alike."""
    drive = CorridorDrive(distinct, seed=0, width=size, height=size, fps=_FPS)
    encoded = []
    for frame in render_frames(drive, workers=1):
        picture = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        encoded.append(data.tobytes())
    folder.mkdir()
    for index in range(frames):
        # Bytes after a JPEG's end marker are ignored: files that differ, without encoding each.
        data_of_frame = encoded[index % len(encoded)] + index.to_bytes(4, "big")
        (folder / f"{index:06d}.jpg").write_bytes(data_of_frame)


def train_v5(data: Path, folder: Path) -> Path:
    """Train the thesis' v5 with its reconstruction score for one epoch, in another process."""
    out = folder / "v5.onnx"
    command = [sys.executable, "-m", "training", "train", "--data", str(data), "--out", str(out)]
    command += ["--scorer", "reconstruction", "--epochs", "1", "--cache", str(folder / "cache")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def measure(
    model: Path, frames: Path, folder: Path, workers: int, batch_size: int
) -> dict[str, float | int | str]:
    """Score the frames once; gives time, memory and a hash of the table."""
    detector = Detector(model)
    source = open_source(frames)
    output = folder / "scores.csv"
    before = anonymous_mib()
    with peak_anonymous_mib() as peak:
        processor, started = time.process_time(), time.perf_counter()
        summary = write_scores(
            detector, source, output, fps=_FPS, workers=workers, batch_size=batch_size,
            progress=False,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        processor = time.process_time() - processor
    return {
        "workers": workers,
        "batch": batch_size,
        "frames": summary.scored,
        "frames_per_s": round(summary.scored / seconds),
        "processor_ms_a_frame": round(1e3 * processor / summary.scored, 3),
        f"s_for_{THESIS_FRAMES}": round(THESIS_FRAMES * seconds / summary.scored, 1),
        "anonymous_mib_before": round(before),
        "anonymous_mib_peak": round(peak[0]),
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest()[:12],
    }


def differing_scores(model: Path, frames: Path, batch_size: int, count: int) -> int:
    """Return how many of the first frames get another score in batches than alone."""
    detector = Detector(model)
    shrunk = open_source(frames).mapped(shrunk_frame, reduced=True)
    images = np.stack([frame.image for frame in islice(shrunk, count)])
    alone = [detector.score_batch(image[np.newaxis]).score[0] for image in images]
    parts = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    batched = np.concatenate([detector.score_batch(part).score for part in parts])
    return int((batched != np.array(alone)).sum())


def one_by_one(model: Path, frames: Path, count: int) -> float:
    """Return the frames a second of scoring as the node does: one frame after the other."""
    results = Detector(model).stream(frames)
    started = time.perf_counter()
    done = sum(1 for _ in islice(results, count))
    return done / (time.perf_counter() - started)


def main() -> int:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--model", default="v5",
        help="model file, name of a shipped model, or v5: trained for one epoch (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--frames", type=int, default=5000, help="default %(default)s")
    parser.add_argument("--distinct", type=int, default=100, help="frames rendered (%(default)s)")
    parser.add_argument("--size", type=int, default=512, help="in pixels (%(default)s)")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG files (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", help="default: 1 and one per core")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    workers = arguments.workers or sorted({1, usable_cores()})
    with tempfile.TemporaryDirectory(prefix="offline_scoring_") as name:
        folder = Path(name)
        frames = folder / "frames"
        details = arguments.distinct, arguments.size, arguments.quality
        write_frames(frames, arguments.frames, *details)
        if arguments.model == "v5":
            few = folder / "few"
            write_frames(few, arguments.distinct, *details)
            model = train_v5(few, folder)
        else:
            model = resolve_model(arguments.model)
        rate = one_by_one(model, frames, min(1000, arguments.frames))
        rows: list[dict[str, float | int | str]] = [{"one_by_one_frames_per_s": round(rate)}]
        for size in arguments.batch_size:
            differing = differing_scores(model, frames, size, arguments.distinct)
            rows.append({"batch": size, "differing": differing, "of": arguments.distinct})
        for count in workers:
            for batch_size in arguments.batch_size:
                rows.append(measure(model, frames, folder, count, batch_size))
    for row in rows:
        print(json.dumps(row) if arguments.json else "  ".join(f"{k} {v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
