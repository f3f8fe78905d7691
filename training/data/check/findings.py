"""What ails a drive, from the stamps and from how the picture changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from training.data.check.look import (
    CELLS,
    Look,
    directions,
    joined,
    smoothed,
    stretches_of,
)

_STILL_COUNTS = 0.3
_FROZEN_SECONDS = 0.5
_JUMP = 1.25
"""Factor of brightness."""

_ALIKE_CELLS = 0.75
_SAME_VIEW = 0.6
_SHOWN = 0.25
"""Share of the picture that is still seen after a jump, at least."""

_JUMPS_A_MINUTE = 6
_BLURRED = 0.75
"""Share of the drive's median sharpness."""

_BLURRED_SECONDS = 0.5
_BLURRED_COUNTS = 0.2
_SHARP = 0.75
"""Median sharpness of a drive with a lens in focus, at least."""

_GAP_PERIODS = 3.0
_GAP_SECONDS = 0.5
_GAP_COUNTS = 0.05


@dataclass(frozen=True)
class Stretch:
    """A part of a recording.

    Attributes:
        recording: number of the recording.
        first: index of its first frame among those looked at.
        last: likewise, included.
        note: what is there, in words.
    """

    recording: int
    first: int
    last: int
    note: str

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Finding:
    """Something to know of the drives.

    Attributes:
        name: its kind.
        what: in words, with figures.
        remedy: what to do about it where it counts.
        counts: whether it is a reason to look before training.
        stretches: where it is, in order.
        spoils: whether the frames there are not fit to be trained on.
        is_shortage: it is that there is too little.
    """

    name: str
    what: str
    remedy: str
    counts: bool
    stretches: Sequence[Stretch] = ()
    spoils: bool = False
    is_shortage: bool = False

    @property
    def advice(self) -> str:
        """What to do about it, if anything."""
        return self.remedy if self.counts else "nothing to do, it is little"


def find_faults(looks: Sequence[Look]) -> Iterator[Finding]:
    """Yield what ails the recordings: gaps, frozen pictures, standstill, exposure, blur."""
    total = sum(map(len, looks))
    gaps = [item for n, look in enumerate(looks) for item in _gaps(n, look)]
    if gaps:
        seconds = sum(lost for _, lost in gaps)
        longest = max(lost for _, lost in gaps)
        yield Finding(
            "gaps",
            f"{_count(gaps, 'gap')} in the stamps, {seconds:.1f} s together, the longest "
            f"{longest:.1f} s",
            "record the camera's compressed topic alone, on the robot itself, and drive there "
            "again",
            seconds > _GAP_COUNTS * sum(look.seconds for look in looks if look.timed),
            [stretch for stretch, _ in gaps],
        )
    frozen = [item for n, look in enumerate(looks) for item in _frozen(n, look)]
    if frozen:
        yield Finding(
            "frozen",
            f"the picture freezes {_times(frozen)}, {_together(looks, frozen)}",
            "check the camera's driver and cable, and drive there again",
            True,
            frozen,
            spoils=True,
        )
    still = [item for n, look in enumerate(looks) for item in _still(n, look)]
    if still:
        yield Finding(
            "standing still",
            f"standing still {_together(looks, still)}",
            "record another drive of the same length without a stop: what stands counts as one "
            "frame",
            sum(map(len, still)) > _STILL_COUNTS * total,
            still,
            spoils=True,
        )
    jumps = [item for n, look in enumerate(looks) for item in _jumps(n, look)]
    if jumps:
        minutes = sum(len(look) * look.step for look in looks) / 60
        yield Finding(
            "exposure",
            f"{_count(jumps, 'exposure jump')}",
            "give the camera a fixed exposure, here and on patrol, and record again",
            len(jumps) > max(1, _JUMPS_A_MINUTE * minutes),
            jumps,
        )
    yield from _blur(looks)


def _blur(looks: Sequence[Look]) -> Iterator[Finding]:
    total = sum(map(len, looks))
    sharpness = np.median(np.concatenate([look.sharpness for look in looks]))
    if sharpness < _SHARP:
        yield Finding(
            "blur",
            f"the whole drive is blurred (sharpness {sharpness:.2f}, {_SHARP} expected)",
            "clean and focus the lens, and record again",
            True,
        )
        return
    blurred = [item for n, look in enumerate(looks) for item in _blurred(n, look)]
    if blurred:
        yield Finding(
            "blur",
            f"blurred {_together(looks, blurred)}",
            "drive there again, more slowly",
            sum(map(len, blurred)) > _BLURRED_COUNTS * total,
            blurred,
            spoils=True,
        )


def _count(items: Sequence[object], name: str) -> str:
    return f"{len(items)} {name}{'s' * (len(items) > 1)}"


def _times(items: Sequence[object]) -> str:
    return "once" if len(items) == 1 else f"{len(items)} times"


def _together(looks: Sequence[Look], stretches: Sequence[Stretch]) -> str:
    """Return how long stretches take together, as time where all recordings have stamps."""
    if all(look.timed for look in looks):
        text = f"{sum(len(item) * looks[item.recording].step for item in stretches):.1f} s"
    else:
        every = [looks[item.recording].every for item in stretches]
        text = f"{sum(len(s) * n for s, n in zip(stretches, every, strict=True))} frames"
    return text if len(stretches) == 1 else f"{text} in {len(stretches)} stretches"


def _gaps(number: int, look: Look) -> list[tuple[Stretch, float]]:
    """Return where frames are missing, with the seconds that are."""
    if not look.timed:
        return []
    periods = np.diff(look.times)
    usual = float(np.median(periods))
    missing = (periods > max(_GAP_PERIODS * usual, _GAP_SECONDS)) | (periods < 0)
    found = []
    for frame in np.flatnonzero(missing):
        first = int(np.searchsorted(look.numbers, frame, side="right")) - 1
        last = min(first + 1, len(look) - 1)
        seconds = float(periods[frame])
        note = f"{seconds:.1f} s without a frame" if seconds > 0 else "stamps run backwards"
        found.append((Stretch(number, first, last, note), abs(seconds)))
    return found


def _still(number: int, look: Look) -> list[Stretch]:
    return [Stretch(number, *run, "standing still") for run in stretches_of(look.still)]


def _frozen(number: int, look: Look) -> list[Stretch]:
    same = (np.abs(np.diff(look.grey, axis=0)).max(axis=(1, 2)) == 0) & look.used[1:]
    runs = stretches_of(same, look.samples(_FROZEN_SECONDS))
    return [Stretch(number, first, last + 1, "not one pixel changes") for first, last in runs]


def _jumps(number: int, look: Look) -> list[Stretch]:
    """Return where the whole picture gets brighter or darker at once, of the same view."""
    brightness = look.seen(np.log(look.cells.mean(axis=-1) + 4))
    change = np.median(np.diff(brightness, axis=0), axis=1)
    for index in np.flatnonzero(np.abs(change) > np.log(_JUMP) / 2):
        change[index] = _change_of_light(look, int(index))
    found = []
    for first, last in joined(stretches_of(np.abs(change) > np.log(_JUMP)), look.samples(0.2)):
        strongest = first + int(np.argmax(np.abs(change[first : last + 1])))
        factor = float(np.exp(change[strongest]))
        found.append(Stretch(number, first, last + 1, f"{factor:.2f} times as bright"))
    return found


def _change_of_light(look: Look, index: int) -> float:
    """Return how much brighter the picture gets from a frame to the next, a logarithm.

    The view moves between them, too, of fast robots by much: the one before is moved as the robot
    moved. 0 when they are of other views, or only parts of them change.
    """
    before, after = look.grey[index : index + 2]
    light = np.log(look.grey[[index + 1, index]] + 4)
    light = (light - light.mean(axis=(1, 2), keepdims=True)) / (
        light.std(axis=(1, 2), keepdims=True) + 0.05
    )
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rows, columns = np.indices(before.shape, np.float32)
    there = flow.calc(*np.clip(128 + 50 * light, 0, 255).astype(np.uint8), None)  # type: ignore
    there += np.stack([columns, rows], axis=-1)
    inside = ((there >= 0) & (there < len(before))).all(axis=-1)
    before = cv2.remap(before, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore
    cells = [
        look.seen(cv2.resize(item, (CELLS, CELLS), interpolation=cv2.INTER_AREA)[np.newaxis])[0]
        for item in (before, after, inside.astype(np.float32))
    ]
    shown = cells[2] > 0.5
    if np.mean(shown) < _SHOWN:
        return 0.0
    dark, bright = (np.log(item[shown] + 4) for item in cells[:2])
    change = bright - dark
    middle = float(np.median(change))
    alike = np.mean(np.sign(middle) * change > abs(middle) / 2)
    views = directions(np.stack([dark, bright])[..., np.newaxis, np.newaxis])
    same = float(views[0] @ views[1]) > _SAME_VIEW
    return middle if same and alike > _ALIKE_CELLS else 0.0


def _blurred(number: int, look: Look) -> list[Stretch]:
    usual = float(np.median(look.sharpness))
    sharp = smoothed(look.sharpness, look.samples(0.2)) / usual
    runs = joined(stretches_of((sharp < _BLURRED) & look.used), look.samples(0.3))
    least = look.samples(_BLURRED_SECONDS)
    return [
        Stretch(number, a, b, f"{sharp[a : b + 1].min():.0%} of the usual sharpness")
        for a, b in runs
        if b - a + 1 >= least
    ]
