"""Frames per second of training: Keras' plain ``fit``, and ours without and with augmentation.

    python -m benchmarks.training_speed --architecture v5

The variants take turns, one epoch each, so that a machine that others use slows all of them down
alike; what counts on such a machine is the ratio to the plain ``fit``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import options, run
from training.networks.augmentation import AUGMENTATIONS
from training.networks.autoencoders import ARCHITECTURES, build_autoencoder
from training.networks.backend import import_keras, seed_everything

_PLAIN = "plain fit"


def _our_epoch(model: Any, frames: NDArray[np.uint8], name: str, settings: Any) -> None:
    from training.fitting.fit import fit
    from training.scorers.autoencoder import frame_inputs, mean_output

    preset = AUGMENTATIONS[name]

    def load(indices: NDArray[np.int64]) -> tuple[Any, Any]:
        return frame_inputs(frames[indices], preset), np.zeros(len(indices), np.float32)

    def sample(generator: np.random.Generator, inputs: Any) -> Any:
        return {**inputs, **(preset.sample(generator, len(inputs["image"])) if preset else {})}

    numbers = np.arange(len(frames))
    fit(
        model, load, numbers, numbers[: settings.batch_size], settings,
        loss=mean_output, label=name, progress=False, sample=sample, keep_optimizer=True,
    )  # fmt: skip


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Train every variant for some epochs in turn."""
    keras = import_keras()
    from training.fitting.settings import FitSettings
    from training.scorers.autoencoder import error_model

    architecture, frames, batch = arguments.architecture, arguments.frames, arguments.batch_size
    seed_everything(0)
    images = np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3), np.uint8)
    inputs = images.astype(np.float32)
    plain = build_autoencoder(architecture).model
    plain.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mean_squared_error")
    clip = ARCHITECTURES[architecture]
    settings = FitSettings(
        epochs=1, batch_size=batch, clipnorm=clip.clipnorm, global_clipnorm=clip.global_clipnorm
    )
    epochs: dict[str, Callable[[], object]] = {
        _PLAIN: partial(plain.fit, inputs, inputs, batch_size=batch, epochs=1, verbose=0)
    }
    for name, preset in AUGMENTATIONS.items():
        model = error_model(build_autoencoder(architecture), preset)
        epochs[f"ours, {name}"] = partial(_our_epoch, model, images, name, settings)
    for epoch in epochs.values():
        epoch()  # the first one traces the graph
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(arguments.rounds):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            rates[name].append(frames / (time.perf_counter() - start))
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(
        f"{architecture}, batch {batch}, {frames} frames an epoch, {os.cpu_count()} processors, "
        f"load {os.getloadavg()[0]:.1f}\n{'':>14}  frames/s (median, best)  ratio"
    )
    for name, rate in median.items():
        best, ratio = max(rates[name]), rate / median[_PLAIN]
        print(f"{name:>14}  {rate:>12.0f} {best:>10.0f}  {ratio:>6.2f}")
    return {"architecture": architecture, "batch_size": batch, "frames_per_s": rates}, True


def main() -> int:
    """Run the command line; return the exit code."""
    parser = options(__doc__)
    parser.add_argument("--architecture", default="v5", choices=list(ARCHITECTURES))
    parser.add_argument("--frames", type=int, default=3200, help="an epoch (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs each (%(default)s)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
