"""Which of several drives are of one day, to hold out whole days in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.data.frames import FrameSet

MOST_DAYS = 4
"""As many trainings as this are made to calibrate; of more days some are held out together."""

_APART_NS = 6 * 3600 * 10**9
"""Between the end of one day's drives and the beginning of the next."""


def days_of(frames: FrameSet, recordings: int, *, each: bool = False) -> list[list[int]]:
    """Return the numbers of the recordings of each day, in order of time.

    Args:
        frames: the recordings.
        recordings: only so many of the first ones count.
        each: take every recording for a day of its own where the stamps do not tell of several.

    Returns:
        At most :data:`MOST_DAYS` groups; none where all are of one day, or nobody knows.
    """
    numbers = range(min(recordings, len(frames.parts)))
    times = [[stamp for stamp in frames.parts[n].stamps_ns if stamp] for n in numbers]
    days: list[list[int]] = []
    if all(times):
        latest = 0
        for number in sorted(numbers, key=lambda n: times[n][0]):
            if not days or times[number][0] - latest > _APART_NS:
                days.append([])
            days[-1].append(number)
            latest = max(latest, times[number][-1])
    if len(days) < 2 and each:
        days = [[number] for number in numbers]
    return _joined(days) if len(days) > 1 else []


def _joined(days: Sequence[Sequence[int]]) -> list[list[int]]:
    parts = np.array_split(np.arange(len(days)), min(MOST_DAYS, len(days)))
    return [[number for day in part for number in days[day]] for part in parts]
