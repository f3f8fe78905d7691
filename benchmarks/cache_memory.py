"""Time and memory of the frame cache on a set as large as the Hazards&Robots training set.

Write a set of JPEG frames, build its cache, then read every frame once in shuffled batches as an
epoch of training does:

    python -m benchmarks.cache_memory
    python -m benchmarks.cache_memory --train    # and train v5 for an epoch from that cache

Resident memory counts the cache's pages too, which the system takes back when it needs them.
Anonymous memory is what the process really holds on to.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import CachedFrames, cache_frames
from benchmarks.common import anonymous_mib, options, peak_anonymous_mib, run, write_jpegs
from training.data.frames import FrameSet, split_blocks

TRAINING_FRAMES = 56_066
"""Normal training frames of Hazards&Robots, Zenodo record 7074958."""

_SIZE = 64
_DISTINCT = 200
_BATCH = 32


def textures() -> Iterator[NDArray[np.uint8]]:
    """Yield pictures of smooth texture with some noise."""
    generator = np.random.default_rng(0)
    for _ in range(_DISTINCT):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
        noise = generator.integers(-12, 13, picture.shape, dtype=np.int16)
        yield np.clip(picture + noise, 0, 255).astype(np.uint8)


def read_epoch(cached: CachedFrames) -> None:
    """Read every frame once in shuffled batches."""
    order = np.random.default_rng(0).permutation(len(cached))
    for start in range(0, len(order), _BATCH):
        cached.images[order[start : start + _BATCH]].astype(np.float32).mean()


def train_epoch(cached: CachedFrames) -> float:
    """Train v5 for one epoch on a cached set and validate it; return the seconds."""
    # Keras takes seconds and hundreds of MiB to import: only when training is asked for.
    from training.networks.backend import import_keras, seed_everything

    import_keras()
    from training.fitting.fit import fit
    from training.fitting.settings import FitSettings
    from training.networks.autoencoders import build_autoencoder
    from training.scorers.autoencoder import error_model, frame_inputs, mean_output

    frames = FrameSet([cached])
    split = split_blocks(frames.lengths, frames.gaps, seed=0)
    seed_everything(0)
    result = fit(
        error_model(build_autoencoder("v5"), None),
        lambda indices: (
            frame_inputs(frames.load(indices), None),
            np.zeros(len(indices), np.float32),
        ),
        split.train,
        split.validation,
        FitSettings(epochs=1, batch_size=_BATCH, seed=0),
        loss=mean_output,
        label="training v5",
        progress=False,
    )
    return result.seconds


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Write a set, cache it, read it for an epoch, and train."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="cache_memory_") as name:
        frames, cache = Path(name, "frames"), Path(name, "cache")
        write_jpegs(frames, textures(), arguments.frames)
        before = anonymous_mib()
        with peak_anonymous_mib() as peak:
            start = time.perf_counter()
            cached = cache_frames(open_source(frames), cache, progress=False)
            seconds["build"] = time.perf_counter() - start
            start = time.perf_counter()
            cache_frames(open_source(frames), cache, progress=False)
            seconds["reuse"] = time.perf_counter() - start
            start = time.perf_counter()
            read_epoch(cached)
            seconds["epoch"] = time.perf_counter() - start
            if arguments.train:
                seconds["train"] = train_epoch(cached)
        figures = {
            "frames": len(cached),
            "cache_mib": cached.images.nbytes / 2**20,
            **{f"{what}_s": s for what, s in seconds.items()},
            **{f"{what}_frames_per_s": len(cached) / seconds[what] for what in ("build", "epoch")},
            "anonymous_mib_before": before,
            "peak_anonymous_mib": peak[0],
            "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    for key, value in figures.items():
        print(f"{key:>22}  {value:.5g}")
    return figures, True


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__)
    parser.add_argument("--frames", type=int, default=TRAINING_FRAMES, help="(%(default)s)")
    parser.add_argument("--train", action="store_true", help="train v5 for one epoch, too")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
