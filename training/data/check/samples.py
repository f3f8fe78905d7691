"""The frames of all recordings in which the robot moves, as views to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.check.look import FEWEST, Floats, Look, Numbers, directions, halved

_MOST = 1500


@dataclass(frozen=True)
class Samples:
    """Frames of all recordings, K of them.

    Attributes:
        recordings: int64 [K], number of the recording.
        indices: int64 [K], index among the frames looked at there.
        views: float32 [K, 192], unit vectors whose products are correlations.
        step: seconds between two of them.
    """

    recordings: Numbers
    indices: Numbers
    views: Floats
    step: float

    def __len__(self) -> int:
        return len(self.views)

    def count_in(self, seconds: float) -> int:
        """Return how many are in a time, at least 1, at most all."""
        return max(1, min(len(self), round(seconds / self.step)))

    @classmethod
    def of(cls, looks: Sequence[Look]) -> Samples:
        """Return the frames in which the robot moves; all where it hardly does."""
        moving = [look.used & ~look.still for look in looks]
        if sum(int(mask.sum()) for mask in moving) < FEWEST:
            moving = [look.used for look in looks]
        every = -(-sum(int(mask.sum()) for mask in moving) // _MOST)
        chosen = [np.flatnonzero(mask)[::every] for mask in moving]
        pairs = list(zip(looks, chosen, strict=True))
        return cls(
            np.repeat(np.arange(len(looks)), [len(own) for own in chosen]),
            np.concatenate(chosen),
            np.concatenate([directions(halved(look.cells[own])) for look, own in pairs]),
            every * float(np.median([look.step for look in looks])),
        )
