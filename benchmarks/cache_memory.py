"""Time and memory of the frame cache on a set as large as the Hazards&Robots training set.

Writes a set of JPEG frames, builds its cache, then reads every frame once in shuffled batches as an
epoch of training does. Run it from the checkout:

    python -m benchmarks.cache_memory --frames 56066 --size 64

With ``--train`` it then trains the v5 autoencoder for one epoch from that cache, through the same
frame set and training loop as ``python -m training train``.

Peak resident memory counts the cache's pages too, which the system takes back when it needs them;
the peak of anonymous memory is what the process really holds on to.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import CachedFrames, cache_frames
from training.data.frames import FrameSet, split_blocks

TRAINING_FRAMES = 56_066
"""Normal training frames of Hazards&Robots, Zenodo record 7074958."""

_DISTINCT = 200


def write_frames(folder: Path, frames: int, size: int, seed: int = 0) -> None:
    """Write JPEG frames: smooth texture with some noise, no two files with the same bytes.

    Args:
        folder: where; it exists.
        frames: how many.
        size: height and width in pixels.
        seed: of the textures.
    """
    generator = np.random.default_rng(seed)
    encoded: list[bytes] = []
    for _ in range(min(frames, _DISTINCT)):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        picture += generator.integers(-12, 13, picture.shape, dtype=np.int16)
        done, data = cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8))
        assert done
        encoded.append(data.tobytes())
    for index in range(frames):
        # Bytes after a JPEG's end marker are ignored: files that differ, without encoding each.
        data_of_frame = encoded[index % len(encoded)] + index.to_bytes(4, "big")
        (folder / f"{index:06d}_{size}_{size}.jpg").write_bytes(data_of_frame)


def read_epoch(cached: CachedFrames, batch: int = 32, seed: int = 0) -> float:
    """Read every frame once in shuffled batches; give the mean pixel value."""
    order = np.random.default_rng(seed).permutation(len(cached))
    total = 0.0
    for start in range(0, len(order), batch):
        images: NDArray[np.float32] = cached.images[order[start : start + batch]].astype(np.float32)
        total += float(images.mean()) * len(images)
    return total / len(order)


def peak_resident_mib() -> float:
    """Return the process' peak resident memory in MiB, file pages included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def anonymous_mib() -> float:
    """Return the process' anonymous memory in MiB; not a number where ``/proc`` is missing."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return float("nan")


@contextmanager
def peak_anonymous_mib(interval_s: float = 0.02) -> Iterator[list[float]]:
    """Sample :func:`anonymous_mib` during the block; the one-item list holds the peak."""
    peak = [anonymous_mib()]
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(interval_s):
            peak[0] = max(peak[0], anonymous_mib())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def train_epoch(cached: CachedFrames, batch: int = 32, seed: int = 0) -> dict[str, float | int]:
    """Train v5 for one epoch on a cached set, and validate on its held-out blocks.

    Returns:
        Seconds, frames a second, and the process' memory in MiB: before (TensorFlow imported, no
        network yet) and its peaks, the resident one of the whole process so far.
    """
    # Keras takes seconds and hundreds of MiB to import: only when training is asked for.
    from training.fitting.backend import import_keras, seed_everything

    import_keras()
    from training.fitting.autoencoder import error_model, frame_inputs, mean_output
    from training.fitting.fit import FitSettings, fit
    from training.networks.autoencoders import build_autoencoder

    frames = FrameSet([cached])
    split = split_blocks(frames.lengths, frames.gaps, seed=seed)
    anonymous_before = anonymous_mib()
    with peak_anonymous_mib() as anonymous:
        seed_everything(seed)
        result = fit(
            error_model(build_autoencoder("v5"), None),
            lambda indices: (
                frame_inputs(frames.take(indices), None),
                np.zeros(len(indices), np.float32),
            ),
            split.train,
            split.validation,
            FitSettings(epochs=1, batch_size=batch, seed=seed),
            loss=mean_output,
            label="training v5",
            progress=False,
        )
    return {
        "train_frames": len(split.train),
        "held_out_frames": len(split.validation),
        "train_epoch_s": round(result.seconds, 2),
        "train_frames_per_s": round(len(split.train) / result.seconds),
        "train_anonymous_mib_before": round(anonymous_before, 1),
        "train_peak_anonymous_mib": round(anonymous[0], 1),
        "train_peak_resident_mib": round(peak_resident_mib(), 1),
    }


def measure(
    frames: int, size: int, workers: int | None, folder: Path, *, train: bool = False
) -> dict[str, float | int]:
    """Write a set into ``folder``, cache it, read it for an epoch and give the figures.

    Args:
        frames: how many.
        size: their height and width in pixels.
        workers: decoding threads; None for one per processor.
        folder: an empty one.
        train: also train on the set for an epoch (:func:`train_epoch`).
    """
    pictures = folder / "frames"
    pictures.mkdir()
    write_frames(pictures, frames, size)
    resident_at_start = peak_resident_mib()
    with peak_anonymous_mib() as anonymous:
        started = time.perf_counter()
        cached = cache_frames(
            open_source(pictures), folder / "cache", workers=workers, progress=False
        )
        build_s = time.perf_counter() - started
        resident_after_build = peak_resident_mib()
        started = time.perf_counter()
        cache_frames(open_source(pictures), folder / "cache", progress=False)
        reuse_s = time.perf_counter() - started
        started = time.perf_counter()
        read_epoch(cached)
        epoch_s = time.perf_counter() - started
    figures: dict[str, float | int] = {
        "frames": len(cached),
        "frame_size": size,
        "workers": workers or os.cpu_count() or 1,
        "build_s": round(build_s, 2),
        "build_frames_per_s": round(len(cached) / build_s),
        "reuse_s": round(reuse_s, 2),
        "epoch_s": round(epoch_s, 2),
        "epoch_frames_per_s": round(len(cached) / epoch_s),
        "cache_mib": round(cached.images.nbytes / 2**20, 1),
        "peak_resident_mib_at_start": round(resident_at_start, 1),
        "peak_resident_mib_after_build": round(resident_after_build, 1),
        "peak_resident_mib": round(peak_resident_mib(), 1),
        "peak_anonymous_mib": round(anonymous[0], 1),
    }
    return figures | (train_epoch(cached) if train else {})


def main() -> int:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=TRAINING_FRAMES, help="default %(default)s")
    parser.add_argument("--size", type=int, default=64, help="frame size in pixels (%(default)s)")
    parser.add_argument("--workers", type=int, help="decoding threads (one per processor)")
    parser.add_argument("--train", action="store_true", help="also train v5 for one epoch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cache_memory_") as folder:
        figures = measure(
            arguments.frames,
            arguments.size,
            arguments.workers,
            Path(folder),
            train=arguments.train,
        )
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>30}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
