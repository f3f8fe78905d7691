"""How strange the parts of a drive's frames are to a pretrained encoder.

As in PatchCore (Roth et al. 2022) a part is strange when the encoder's features of it are far from
those of every other frame near that part of the picture; here the drive itself is the memory, the
seconds around the frame left out. What is varied everywhere is far from everything: as in the local
outlier factor (Breunig et al. 2000) a distance counts relative to how far the nearest part in turn
is from others. The strangest parts count relative to the frame's others, so that a view that is
seen once does not stand out as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.recordings.cache import CachedFrames
from training.data.check.look import Floats, Look
from training.data.frames import FrameSet

Encoder: TypeAlias = Callable[[NDArray[np.uint8]], Floats]
"""From pictures, uint8 [N, 128, 128, 3], RGB, to features of their parts, float32 [N, S, S, C]."""

_SIZE = 128
_BATCH = 16
_MOST = 250
"""Frames to compare with."""

_COMPONENTS = 24
_MARGIN_SECONDS = 4.0
_STRANGEST = 2
_LEAST_SPREAD = 0.05
"""Of the logarithm of a part's distance."""


def encode_frames(
    encode: Encoder, frames: FrameSet, looks: Sequence[Look]
) -> list[NDArray[np.float16]]:
    """Return the features of the frames looked at of each recording, [K, S, S, C]."""
    return [_encoded(encode, part, look) for part, look in zip(frames.parts, looks, strict=True)]


def _encoded(encode: Encoder, part: CachedFrames, look: Look) -> NDArray[np.float16]:
    features = []
    for rows in np.array_split(look.numbers, range(_BATCH, len(look), _BATCH)):
        images = part.images[rows] if look.mask is None else look.mask.filled(part.images[rows])
        batch = encode(np.stack([_resized(image) for image in images]))
        features.append(batch.astype(np.float16))
    return np.concatenate(features)


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(image if len(image) == _SIZE else cv2.resize(image, (_SIZE, _SIZE)), np.uint8)


def patch_scores(looks: Sequence[Look], features: Sequence[NDArray[np.float16]]) -> list[Floats]:
    """Return how strange the strangest parts of each frame are, relative to its others."""
    patches = _components(np.concatenate(features))
    owners = np.repeat(np.arange(len(looks)), [len(look) for look in looks])
    indices = np.concatenate([np.arange(len(look)) for look in looks])
    used = np.flatnonzero(np.concatenate([look.used for look in looks]))
    memory = used[:: -(-len(used) // _MOST)]
    margins = [min(look.samples(_MARGIN_SECONDS), len(look) // 4) for look in looks]
    near = np.abs(indices[:, np.newaxis] - indices[memory]) <= np.array(margins)[owners][:, None]
    near &= owners[:, np.newaxis] == owners[memory]
    side = patches.shape[1]
    shown = looks[0].seen(np.arange(side * side).reshape(1, side, side))[0]
    usual = np.zeros((side, side, len(memory)), np.float32)
    for y, x, distances, _ in _nearest(patches[memory], patches[memory], near[memory], usual):
        usual[y, x] = distances
    strange = np.empty((len(patches), side * side), np.float32)
    for y, x, distances, own in _nearest(patches, patches[memory], near, usual):
        values = np.log(distances / np.sqrt(own + 0.01) + 0.001)
        middle = np.median(values[used])
        spread = 1.4826 * np.median(np.abs(values[used] - middle)) + _LEAST_SPREAD
        strange[:, y * side + x] = (values - middle) / spread
    ordered = np.sort(strange[:, shown], axis=1)
    scores = ordered[:, -_STRANGEST:].mean(axis=1) - np.median(ordered, axis=1)
    return np.split(scores, np.cumsum([len(look) for look in looks])[:-1])


def _components(features: NDArray[np.float16]) -> Floats:
    """Return the principal components of standardised features, [N, S, S, 24] at most."""
    rows = features.reshape(-1, features.shape[-1])
    some = rows[::7].astype(np.float32)
    mean, deviation = some.mean(axis=0), some.std(axis=0) + 0.001
    some = (some - mean) / deviation
    _, vectors = np.linalg.eigh(some.T @ some)
    turn = vectors[:, -_COMPONENTS:] / deviation[:, np.newaxis]
    return np.stack([(own.astype(np.float32) - mean) @ turn for own in features])


def _nearest(
    queries: Floats, memory: Floats, near: NDArray[np.bool_], usual: Floats
) -> Iterator[tuple[int, int, Floats, Floats]]:
    """Yield row, column, distance to the nearest patch in memory, and what is usual of that one.

    Patches of memory count within one row and column, and where ``near`` [queries, memory] is not.
    """
    side = memory.shape[1]
    for y, x in np.ndindex(side, side):
        around = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
        others = memory[:, around[0], around[1]].reshape(-1, memory.shape[-1])
        own = queries[:, y, x]
        squares = np.square(others).sum(axis=1) - 2 * own @ others.T
        squares.reshape(*near.shape, -1)[near] = np.inf
        best = squares.argmin(axis=1)
        distances = squares[np.arange(len(own)), best] + np.square(own).sum(axis=1)
        there = np.moveaxis(usual[around], -1, 0).reshape(-1)
        yield y, x, np.sqrt(np.maximum(distances, 0)), there[best]
