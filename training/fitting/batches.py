"""Batches from a frame set, in an order that follows from the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.fitting.cluster.cluster import Cluster
from training.networks.quiet_keras import keras

Load: TypeAlias = Callable[[NDArray[np.int64]], tuple[Any, Any]]
"""From frame numbers to inputs and targets."""

Sample: TypeAlias = Callable[[np.random.Generator, Any], Any]
"""From a generator and a batch's inputs to what is trained on instead."""


class Batches(keras.utils.PyDataset):
    """Shuffled batches; an epoch's order and samples follow from the seed and its number alone.

    Of several workers each takes its share of every batch. An epoch is a pass over all frames, or
    so many steps of it.
    """

    def __init__(
        self,
        load: Load,
        indices: NDArray[np.int64],
        batch_size: int,
        seed: int | None,
        sample: Sample | None = None,
        cluster: Cluster | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        self._worker, self._workers = (cluster.index, cluster.size) if cluster else (0, 1)
        self._load = load
        self._indices = indices
        self._batch_size = batch_size
        self._seed = seed
        self._sample = sample
        self._steps = -(-len(indices) // batch_size) if steps is None else steps
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for an epoch, counted from 0."""
        self._epoch = epoch
        self._order = self._indices
        if self._seed is not None:
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._indices)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        # Sorted: neighbouring frames of a memory-mapped file are read together.
        inputs, targets = self._load(self._share(np.sort(self._batch(index))))
        if self._sample is not None:
            chance = [self._seed or 0, self._epoch, index]
            if self._workers > 1:
                chance.append(self._worker)
            inputs = self._sample(np.random.default_rng(chance), inputs)
        return inputs, targets

    def sizes(self, index: int) -> tuple[int, int]:
        """Return the number of this worker's frames of a batch and that of all workers'."""
        batch = self._batch(index)
        return len(self._share(batch)), max(len(batch), self._workers)

    def _batch(self, index: int) -> NDArray[np.int64]:
        return self._order[index * self._batch_size :][: self._batch_size]

    def _share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        # A loss of no frames is no number: in a batch of too few, some go to several workers.
        return np.resize(batch, max(len(batch), self._workers))[self._worker :: self._workers]
