"""Percentile bootstrap of the areas under both curves.

Consecutive video frames show nearly the same scene, so frames drawn one by one would give intervals
that are far too narrow. Here blocks of consecutive frames are drawn instead (:func:`frame_blocks`),
of one recording and one label each, separately among the normal frames and within each class, so
that no class vanishes from a resample.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DEFAULT_BLOCK = 20
"""Frames of a bootstrap block: about a second of video at 15 to 30 frames per second."""

_LEAST_BLOCKS = 5

_CHUNK_CELLS = 4_000_000
"""Resamples are made in chunks of so many weights, to bound memory (about 100 MB)."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def label_runs(labels: IntArray, recordings: IntArray | None = None) -> list[tuple[int, int]]:
    """Return first frame and end of the runs of one label in one recording."""
    if labels.size == 0:
        return []
    changes = np.diff(labels) != 0
    if recordings is not None:
        changes |= np.diff(recordings) != 0
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), int(labels.size)]
    return list(itertools.pairwise(edges))


def frame_blocks(
    labels: IntArray, recordings: IntArray | None, block: int = DEFAULT_BLOCK
) -> tuple[IntArray, frozenset[int]]:
    """Number the blocks of consecutive frames that the bootstrap draws.

    A run of frames of one recording with one label is cut into pieces of about equal length, none
    longer than ``block``. From a handful of blocks nothing about the spread can be learnt, so a
    label with fewer than five is cut finer; its intervals come out too narrow, and it is named.

    Args:
        labels: int [N].
        recordings: int [N], number of each frame's recording; None for one recording.
        block: largest number of frames; 1 treats every frame as independent.

    Returns:
        int64 [N], the block of every frame, ascending from 0; and the labels that were cut finer.

    Raises:
        ValueError: ``block`` below 1.
    """
    if block < 1:
        raise ValueError(f"block is {block}: give at least 1 frame")
    runs = label_runs(labels, recordings)
    lengths: dict[int, int] = {}
    for label in np.unique(labels).tolist():
        own = [stop - start for start, stop in runs if labels[start] == label]
        pieces = sum(-(-length // block) for length in own)
        lengths[label] = block if pieces >= _LEAST_BLOCKS else max(1, sum(own) // _LEAST_BLOCKS)
    numbers = np.empty(labels.size, dtype=np.int64)
    count = 0
    for start, stop in runs:
        pieces = -(-(stop - start) // min(block, lengths[int(labels[start])]))
        numbers[start:stop] = count + np.arange(stop - start) * pieces // (stop - start)
        count += pieces
    return numbers, frozenset(label for label, length in lengths.items() if length < block)


def resampled_areas(
    values: FloatArray, labels: IntArray, blocks: IntArray, resamples: int, seed: int
) -> FloatArray:
    """Resample blocks and return both areas of every group, [resamples, 1 + classes, 2].

    A resample is a weight per frame: how many times its block was drawn. With the scores sorted
    once, every area of every resample is then a few cumulative sums.
    """
    order = np.argsort(-values, kind="stable")
    values, labels, blocks = values[order], labels[order], blocks[order]
    negative, positive = np.flatnonzero(labels == 0), np.flatnonzero(labels != 0)
    present = [int(label) for label in np.unique(labels) if label]
    groups = [np.arange(positive.size)]
    groups += [np.flatnonzero(labels[positive] == label) for label in present]
    # For every positive: negatives with a higher score, and with a higher or equal one.
    above = np.searchsorted(-values[negative], -values[positive], side="left")
    at_least = np.searchsorted(-values[negative], -values[positive], side="right")
    strata = [np.unique(blocks[labels == label]) for label in [0, *present]]
    generator = np.random.default_rng(seed)
    result = np.empty((resamples, len(groups), 2))
    step = max(1, _CHUNK_CELLS // values.size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = _draw_blocks(generator, strata, rows)
        negatives = _cumulative(drawn[:, blocks[negative]])
        weights = drawn[:, blocks[positive]]
        total = negatives[:, -1:]
        higher, not_lower = negatives[:, above], negatives[:, at_least]
        for index, group in enumerate(groups):
            result[start : start + rows, index] = _weighted_areas(
                weights[:, group],
                values[positive][group],
                higher[:, group],
                not_lower[:, group],
                total,
            )
    return result


def resampled_means(values: FloatArray, blocks: IntArray, resamples: int, seed: int) -> FloatArray:
    """Resample blocks and return the mean of every resample, [resamples].

    Args:
        values: float64 [N].
        blocks: int64 [N], of each value, ascending from 0 (:func:`frame_blocks`).
        resamples: how many.
        seed: of the generator.
    """
    sums, counts = np.bincount(blocks, weights=values), np.bincount(blocks)
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK_CELLS // counts.size)
    means = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = _draw_blocks(generator, [np.arange(counts.size)], rows)
        means.append(drawn @ sums / (drawn @ counts))
    return np.concatenate(means)


def _draw_blocks(
    generator: np.random.Generator, strata: Sequence[IntArray], rows: int
) -> FloatArray:
    """Draw as many blocks of each stratum as it has; return times drawn, [rows, blocks]."""
    counts = np.empty((rows, sum(stratum.size for stratum in strata)))
    for stratum in strata:
        picks = generator.integers(stratum.size, size=(rows, stratum.size))
        picks += np.arange(rows)[:, np.newaxis] * stratum.size
        times = np.bincount(picks.ravel(), minlength=rows * stratum.size)
        counts[:, stratum] = times.reshape(rows, stratum.size)
    return counts


def _cumulative(weights: FloatArray) -> FloatArray:
    """Return the sums of the first 0, 1, ... weights of every row."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _weighted_areas(
    weights: FloatArray,
    values: FloatArray,
    higher: FloatArray,
    not_lower: FloatArray,
    negatives: FloatArray,
) -> FloatArray:
    """Compute ROC-AUC and average precision of weighted frames, [rows, 2].

    Args:
        weights: [rows, P], of the positive frames in descending order of score.
        values: [P], their scores.
        higher: [rows, P], weight of the negatives that score higher than each.
        not_lower: [rows, P], weight of the negatives that score higher or equal.
        negatives: [rows, 1], weight of all negatives.
    """
    positives = weights.sum(axis=1, keepdims=True)
    # A pair in order counts 1, a tie one half (Mann-Whitney).
    roc = 1 - (weights * (higher + not_lower)).sum(axis=1) / (2 * positives * negatives)[:, 0]
    # Precision where the threshold is a positive's own score: all that tie with it are flagged.
    ends = np.searchsorted(-values, -values, side="right")
    hits = _cumulative(weights)[:, ends]
    precision = np.divide(hits, hits + not_lower, out=np.zeros_like(hits), where=hits > 0)
    average = (weights * precision).sum(axis=1) / positives[:, 0]
    return np.stack([roc, average], axis=1)
