"""Batches to train on: normal frames, varied, and outliers made of them, with what to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.mask import Mask
from anomaly_detector.images.preprocessing import INPUT_SIZE
from training.scorers.outlier_exposure.outliers import (
    GLOBAL_OUTLIERS,
    TEXTURES,
    GlobalOutlier,
    Texture,
    add_global_outlier,
    add_local_outlier,
    roll_camera,
    vary_normal,
)

MAP_SIZE = INPUT_SIZE // 2
"""Height and width of the network's map."""

ROLL_UNIT = 10.0
"""Degrees."""

_MOST_ROLL = 2.0
"""Units; farther than this is only far."""

_ROLL_WEIGHT = 4.0
"""Of rolled frames: not to be rolled is the rule, and must not be all there is to learn."""

_KINDS = ("normal", "normal", "local", "global")

# Of the faults of the whole picture. A slight roll is the hardest of all to learn.
_ROLLED_SHARE = 0.4

_FEW_ANOMALIES = 10
"""So many recorded anomalies take the place of a quarter of the whole-picture faults."""

_PASTED_SHARE = 0.3
"""A map cell counts as anomalous when this share of it is covered; less of the larger ones, since
lines are thinner there."""

_MIN_VISIBLE = 2
"""Square units that must visibly differ for a frame to count as anomalous."""


@dataclass(frozen=True)
class ExposureParts:
    """What the training consists of; parts are left out to see what they are good for.

    Attributes:
        coord_conv: the network knows where in the picture every cell is.
        roll: it learns to tell by how much the camera has rolled.
        local_outliers: things pasted in.
        global_outliers: faults of the whole picture.
        textures: what local outliers are filled with.
        faults: global outliers, and how often each is sampled.
        weight_decay: times the learning rate, a step: over the whole training the kernels would
            shrink to a sixth. It is meant to keep the network from knowing the drive's few places
            by heart.
    """

    coord_conv: bool = True
    roll: bool = True
    local_outliers: bool = True
    global_outliers: bool = True
    textures: Sequence[Texture] = TEXTURES
    faults: Sequence[tuple[GlobalOutlier, float]] = GLOBAL_OUTLIERS
    weight_decay: float = 1.0


ALL_PARTS = ExposureParts()

EXPOSURE_BATCH = 48
"""Frames a step; every fourth gets a local outlier, every fourth a global one."""

HIGHEST_CELLS = 4
"""Cells of the discriminative map that decide: a thing of 4x4 pixels fills as many."""

MAP_LOSS = 4.0
"""Of the map, beside that of the frame."""

ANOMALOUS_CELL = 4.0
"""How much more an anomalous cell weighs: they are few."""

DROPOUT = 0.3
"""Share of the coarsest features that the whole frame's layer goes without."""


def make_batch(
    generator: np.random.Generator,
    images: NDArray[np.uint8],
    anomalies: NDArray[np.uint8] | None = None,
    parts: ExposureParts = ALL_PARTS,
    mask: Mask | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Turn normal frames into a batch for training.

    Of every four frames two stay normal, the third gets a local outlier, something pasted in, and
    the fourth a global one, a fault of the whole picture: in many cases a camera that has rolled.

    Args:
        generator: source of chance.
        images: uint8 [N, S, S, 3], normal frames.
        anomalies: uint8 [K, S, S, 3], recorded anomalies, 1 or more; the more there are, the
            more they take the place of whole-picture faults, up to half of them.
        parts: without one kind of outlier, its frames get the other.
        mask: what is pasted under it is no outlier, and is not seen.

    Returns:
        ``image`` float32 [N, S, S, 3], whole grey levels; ``map`` [N, 32, 32] and ``frame`` [N],
        1 where anomalous; ``map_weight`` [N], 0 where nothing is known of the place; ``roll`` [N],
        in units of :data:`ROLL_UNIT` degrees, and ``roll_weight`` [N], 0 where it is not known.
    """
    count, unit = len(images), images.shape[1] / INPUT_SIZE
    batch = {
        "image": np.empty(images.shape, np.float32),
        "map": np.zeros((count, MAP_SIZE, MAP_SIZE), np.float32),
        "map_weight": np.ones(count, np.float32),
        "frame": np.zeros(count, np.float32),
        "roll": np.zeros(count, np.float32),
        "roll_weight": np.ones(count, np.float32),
    }
    for index in range(count):
        picture = images[index].astype(np.float32)
        kind = _KINDS[index % 4]
        if kind == "local" and not parts.local_outliers:
            kind = "global"
        elif kind == "global" and not parts.global_outliers:
            kind = "local"
        if kind == "global":
            picture, roll = _global_outlier(picture, generator, anomalies, parts)
            batch["frame"][index] = 1
            batch["map_weight"][index] = 0
            batch["roll"][index] = roll or 0
            batch["roll_weight"][index] = 0 if roll is None else _ROLL_WEIGHT
        else:
            picture = vary_normal(picture, generator)
        if kind == "local":
            picture, pasted = add_local_outlier(picture, generator, parts.textures)
            if mask is not None:
                pasted[mask.ignored] = 0
            cells = cv2.resize(pasted, (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA)
            batch["map"][index] = cells > _PASTED_SHARE / unit**0.5
            batch["frame"][index] = pasted.sum() > _MIN_VISIBLE * unit**2
        # A camera gives whole grey levels between 0 and 255, whatever was done to them.
        batch["image"][index] = np.rint(np.clip(picture, 0, 255))
    if mask is not None:
        batch["image"] = mask.filled(batch["image"])
    batch["roll_weight"] *= parts.roll
    return batch


def _recorded_share(count: int) -> float:
    """Return the share of whole-picture faults that recorded anomalies replace.

    A handful of frames must not push the variety of the made-up faults aside; many may take half.
    """
    return 0.5 * count / (count + _FEW_ANOMALIES)


def _global_outlier(
    picture: NDArray[np.float32],
    generator: np.random.Generator,
    anomalies: NDArray[np.uint8] | None,
    parts: ExposureParts,
) -> tuple[NDArray[np.float32], float | None]:
    """Return a frame with a global outlier, and its roll where that is known."""
    if anomalies is not None and generator.random() < _recorded_share(len(anomalies)):
        recorded = anomalies[int(generator.integers(len(anomalies)))]
        return vary_normal(recorded.astype(np.float32), generator), None
    if generator.random() < _ROLLED_SHARE:
        picture, degrees = roll_camera(picture, generator)
        return picture, float(np.clip(degrees / ROLL_UNIT, -_MOST_ROLL, _MOST_ROLL))
    varied = vary_normal(picture, generator)
    return add_global_outlier(varied, generator, parts.textures, parts.faults), None
