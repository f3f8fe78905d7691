"""Latents: the 128-vectors that a detector's encoder gives, as a file for analysis.

The encoder is :class:`anomaly_detector.model.latents.LatentEncoder`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.files import atomic_path
from anomaly_detector.model.latents import LatentEncoder


@dataclass(frozen=True)
class FrameTable:
    """N frames with their truth, without their latents.

    Attributes:
        recordings: int64 [N], number of each frame's recording, ascending from 0.
        names: frame names.
        stamps_ns: stamps in nanoseconds, None where the recording has none.
        labels: int64 [N]: 0 normal, 1 and more hazard classes, -1 unknown.
        classes: class names, empty for unknown.
    """

    recordings: NDArray[np.int64]
    names: list[str]
    stamps_ns: list[int | None]
    labels: NDArray[np.int64]
    classes: list[str]

    def __len__(self) -> int:
        return len(self.names)


def write_latents(
    path: Path, frames: FrameTable, model: LatentEncoder, latents: NDArray[np.float32]
) -> None:
    """Write a NumPy archive of latents.

    Args:
        path: ends with ``.npz``.
        frames: N frames.
        model: what made the latents.
        latents: float32 [N, size].

    Raises:
        AnomalyDetectorError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            codes=latents,
            recordings=frames.recordings,
            names=np.array(frames.names, np.str_),
            stamps_ns=np.array([stamp or 0 for stamp in frames.stamps_ns], np.int64),
            has_stamp=np.array([stamp is not None for stamp in frames.stamps_ns], np.bool_),
            labels=frames.labels,
            classes=np.array(frames.classes, np.str_),
            model=np.array(json.dumps(model.model, sort_keys=True)),
        )
