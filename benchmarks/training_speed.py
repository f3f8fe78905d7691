"""Frames per second of training: Keras' plain ``fit``, and ours without and with augmentation.

Run it from the checkout:

    python -m benchmarks.training_speed --architecture v5

The variants take turns, one epoch each, so that a machine that others use slows all of them down
alike; what counts on such a machine is the ratio to the plain ``fit``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.fitting.augmentation import AUGMENTATIONS
from training.fitting.backend import import_keras, seed_everything
from training.networks.autoencoders import ARCHITECTURES, build_autoencoder

_PLAIN = "plain fit"


def _plain_epoch(model: Any, frames: NDArray[np.float32], batch_size: int) -> float:
    start = time.perf_counter()
    model.fit(frames, frames, batch_size=batch_size, epochs=1, verbose=0)
    return time.perf_counter() - start


def _our_epoch(model: Any, frames: NDArray[np.uint8], name: str, settings: Any) -> float:
    from training.fitting.autoencoder import frame_inputs, mean_output
    from training.fitting.fit import fit

    preset = AUGMENTATIONS[name]

    def take(indices: NDArray[np.int64]) -> tuple[Any, Any]:
        return frame_inputs(frames[indices], preset), np.zeros(len(indices), np.float32)

    def draw(generator: np.random.Generator, inputs: Any) -> Any:
        return {**inputs, **(preset.draw(generator, len(inputs["image"])) if preset else {})}

    numbers = np.arange(len(frames))
    start = time.perf_counter()
    fit(
        model, take, numbers, numbers[: settings.batch_size], settings,
        loss=mean_output, label=name, progress=False, draw=draw, keep_optimizer=True,
    )  # fmt: skip
    return time.perf_counter() - start


def measure(architecture: str, frames: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """Train every variant for some epochs in turn and give the figures."""
    keras = import_keras()
    from training.fitting.autoencoder import error_model
    from training.fitting.fit import FitSettings

    seed_everything(0)
    images = np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3), np.uint8)
    plain = build_autoencoder(architecture).model
    plain.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mean_squared_error")
    clip = ARCHITECTURES[architecture]
    settings = FitSettings(
        epochs=1,
        batch_size=batch_size,
        clipnorm=clip.clipnorm,
        global_clipnorm=clip.global_clipnorm,
    )
    epochs: dict[str, Callable[[], float]] = {
        _PLAIN: partial(_plain_epoch, plain, images.astype(np.float32), batch_size)
    }
    for name, preset in AUGMENTATIONS.items():
        model = error_model(build_autoencoder(architecture), preset)
        epochs[f"ours, {name}"] = partial(_our_epoch, model, images, name, settings)
    for epoch in epochs.values():
        epoch()  # the first one traces the graph
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            rates[name].append(frames / epoch())
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "architecture": architecture,
        "frames": frames,
        "batch_size": batch_size,
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "variants": {
            name: {
                "frames_per_s": round(median[name]),
                "best_frames_per_s": round(max(values)),
                "ratio": round(median[name] / median[_PLAIN], 3),
            }
            for name, values in rates.items()
        },
    }


def main() -> int:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--architecture", default="v5", choices=list(ARCHITECTURES))
    parser.add_argument("--frames", type=int, default=3200, help="an epoch (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="epochs each (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = measure(
        arguments.architecture, arguments.frames, arguments.batch_size, arguments.rounds
    )
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(
        f"{figures['architecture']}, batch {figures['batch_size']}, {figures['frames']} frames an "
        f"epoch, {figures['processors']} processors, load {figures['load']}"
    )
    print(f"{'':>14}  frames/s (median, best)  ratio")
    for name, row in figures["variants"].items():
        rates = f"{row['frames_per_s']:>12} {row['best_frames_per_s']:>10}"
        print(f"{name:>14}  {rates}  {row['ratio']:>6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
