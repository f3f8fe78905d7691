"""Which frames an epoch sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.networks.backend import import_keras

import_keras()

from training.fitting.batches import Batches  # noqa: E402


def _load(indices: NDArray[np.int64]) -> tuple[Any, Any]:
    return indices, np.zeros(len(indices))


def test_epochs_of_few_steps_see_all_of_a_long_drive() -> None:
    batches = Batches(_load, np.arange(100), 4, seed=0, steps=5)
    assert len(batches) == 5
    seen: set[int] = set()
    for epoch in range(60):
        batches.set_epoch(epoch)
        frames = np.concatenate([batches[index][0] for index in range(len(batches))])
        assert len(set(frames)) == 20  # none twice
        seen |= set(frames.tolist())
    assert seen == set(range(100))


def test_without_steps_an_epoch_is_a_pass() -> None:
    batches = Batches(_load, np.arange(10), 4, seed=0)
    assert sorted(np.concatenate([batches[index][0] for index in range(3)])) == list(range(10))
