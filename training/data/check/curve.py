"""Whether more driving would teach more: the learning curve of the simplest scorer.

It scores a frame by its distance to the most similar frame that it knows, and flags what is farther
than 95 % of the frames it knows are from each other. Each eighth of the drive is held out in turn,
and what is known is a part of the rest: consecutive frames, an eighth, a quarter, half, all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.check.look import Floats
from training.data.check.samples import Samples

PARTS = (8, 4, 2, 1)
"""Into how many parts the rest of the drive is cut, one of which is known."""

_BLOCKS = 8
_GAP_SECONDS = 1.0
_QUANTILE = 0.95
_FALLS = 0.05
"""Share of the frames that the last doubling of the drive makes known."""


@dataclass(frozen=True)
class LearningCurve:
    """The share of held-out frames that are flagged, by how much of the drive is known.

    Attributes:
        errors: float64 [blocks, 4], of each held-out part for each of :data:`PARTS`.
    """

    errors: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """The share for each of :data:`PARTS`, float64 [4]."""
        return np.asarray(self.errors.mean(axis=0))

    @property
    def falls(self) -> bool:
        """Whether the share still falls."""
        return bool(self.means[-2] - self.means[-1] > _FALLS)

    def __str__(self) -> str:
        half, whole = self.means[-2:]
        verb = "would still teach" if self.falls else "would hardly teach"
        return (
            f"more driving {verb}: a simple model of half the drive flags {half:.0%} of the frames "
            f"that it has not seen, one of all of it {whole:.0%}"
        )


def learn(samples: Samples) -> LearningCurve:
    """Measure the learning curve of a drive."""
    count, gap = len(samples), samples.count_in(_GAP_SECONDS)
    distance = 1 - samples.views @ samples.views.T
    index = np.arange(count)
    near = np.abs(index[:, np.newaxis] - index) <= gap
    near &= samples.recordings[:, np.newaxis] == samples.recordings
    among = np.where(near, np.float32(np.inf), distance)
    errors = []
    for block in np.array_split(index, _BLOCKS):
        rest = np.concatenate([index[block[-1] + gap + 1 :], index[: max(0, block[0] - gap)]])
        errors.append(
            [
                np.mean([_flagged(distance, among, block, k) for k in np.array_split(rest, parts)])
                for parts in PARTS
            ]
        )
    return LearningCurve(np.array(errors, np.float64))


def _flagged(
    distance: Floats, among: Floats, block: NDArray[np.int64], known: NDArray[np.int64]
) -> float:
    own = among[np.ix_(known, known)].min(axis=1, initial=np.inf)
    own = own[np.isfinite(own)]
    limit = np.quantile(own, _QUANTILE) if len(own) else np.inf
    return float(np.mean(distance[np.ix_(block, known)].min(axis=1, initial=np.inf) > limit))
