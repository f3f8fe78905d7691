"""Stretches of a drive that stand out from the rest of it.

A frame is strange when parts of it have colours that the rest of the drive hardly has at that
height, the seconds around it left out; when they have much less or much more detail than is usual
in that part of the picture; or when they stay as they are while the others move. Large things in
the way, another place and a covered lens are such. Smaller things are strange to a pretrained
encoder, where there is one.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.check.findings import Finding, Stretch
from training.data.check.look import Floats, Look, joined, smoothed, stretches_of
from training.data.check.patches import patch_scores

STANDS_OUT = 4.5
"""Robust standard deviations of the drive; a stretch goes on down to half of them."""

_PATCHES_STAND_OUT = 5.0
"""The same of what is strange to the encoder."""

_LEAST_DEVIATION = 0.15
"""Of a drive that is the same all along; scores are logarithms."""

_SECONDS = 0.5
_LEAST_FRAMES = 4
_MARGIN_SECONDS = 4.0
_BLOCK_SECONDS = 1.0
_MOST_BLOCKS = 100
_BANDS = 4
_BINS = 16
_COLORS = (_BINS, _BINS, _BINS, _BANDS)
_LIGHT, _TINT = 0.25, 0.1
"""Widths of the bins of the logarithms of brightness and of the ratios of channels."""

_RARE = 0.02
_RAREST_CELLS = 12
_ODDEST_CELLS = 10
_STILLEST_CELLS = 40


def find_strange(looks: Sequence[Look], scores: Sequence[Floats]) -> list[Finding]:
    """Return the stretches that stand out as one finding; none where there are none.

    Args:
        looks: the recordings.
        scores: of :func:`strangeness`.
    """
    found = [
        Stretch(number, *run, f"{own[run[0] : run[1] + 1].max():.0f} deviations from the rest")
        for number, (look, own) in enumerate(zip(looks, scores, strict=True))
        for run in strange_runs(look, own)
    ]
    if not found:
        return []
    where = ", ".join(looks[item.recording].span(item.first, item.last) for item in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    name = "stretches stand" if len(found) > 1 else "stretch stands"
    return [
        Finding(
            "stands out",
            f"{len(found)} {name} out: {where}{more}",
            "look at the page: if that is normal, drive there again, so that it is seen twice; if "
            f"not, leave it out: --exclude {' '.join(_excluded(looks, item) for item in found)}",
            True,
            found,
            spoils=True,
        )
    ]


def _excluded(looks: Sequence[Look], item: Stretch) -> str:
    """Return a stretch as --exclude takes it."""
    look = looks[item.recording]
    first, last = look.numbers[[item.first, item.last]]
    return shlex.quote(f"{look.name}:{first}-{last}") if len(looks) > 1 else f"{first}-{last}"


def strange_runs(look: Look, scores: Floats) -> list[tuple[int, int]]:
    """Return the first and the last index of each stretch that stands out."""
    runs = joined(stretches_of((scores > STANDS_OUT / 2) & look.used), look.samples(0.3))
    least = max(_LEAST_FRAMES, look.samples(_SECONDS))
    return [(a, b) for a, b in runs if b - a + 1 >= least and scores[a : b + 1].max() > STANDS_OUT]


def strangeness(
    looks: Sequence[Look], features: Sequence[NDArray[np.float16]] | None = None
) -> list[Floats]:
    """Return how strange each frame is, in robust deviations of the drives.

    Args:
        looks: the recordings.
        features: of each recording, what the encoder sees in the frames that were looked at.
    """
    kinds = [
        _deviations(looks, score(looks)) for score in (_color_scores, _detail_scores, _cover_scores)
    ]
    if features is not None:
        scale = STANDS_OUT / _PATCHES_STAND_OUT
        deviations = _deviations(looks, patch_scores(looks, features))
        kinds.append([scale * own for own in deviations])
    return [np.maximum.reduce(own) for own in zip(*kinds, strict=True)]


def _deviations(looks: Sequence[Look], scores: Sequence[Floats]) -> list[Floats]:
    pairs = zip(looks, scores, strict=True)
    smooth = [smoothed(own, look.samples(0.2)) for look, own in pairs]
    every = np.concatenate(smooth)
    middle = np.median(every)
    deviation = max(_LEAST_DEVIATION, 1.4826 * float(np.median(np.abs(every - middle))))
    return [np.asarray((own - middle) / deviation, np.float32) for own in smooth]


def _color_scores(looks: Sequence[Look]) -> list[Floats]:
    """Return how rare the rarest colours of each frame are among the other frames."""
    codes = [_color_codes(look) for look in looks]
    size = int(np.prod(_COLORS))
    total = sum(np.bincount(code.ravel(), minlength=size) for code in codes)
    blocks = _MOST_BLOCKS / sum(map(len, codes))
    scores = []
    for look, code in zip(looks, codes, strict=True):
        wanted = min(round(len(code) * blocks), len(code) // look.samples(_BLOCK_SECONDS))
        # Of a short recording a rest is left, too.
        margin = min(look.samples(_MARGIN_SECONDS), len(look) // 4)
        rarity = []
        for block in np.array_split(np.arange(len(code)), max(1, wanted)):
            near = code[max(0, block[0] - margin) : block[-1] + margin + 1]
            rest = _blurred(total - np.bincount(near.ravel(), minlength=size))
            rare = -np.log((rest[code[block]] + _RARE) / (rest.sum() + 1))
            rarity.append(np.sort(rare, axis=1)[:, -_RAREST_CELLS:].mean(axis=1))
        scores.append(np.asarray(np.concatenate(rarity), np.float32))
    return scores


def _color_codes(look: Look) -> NDArray[np.int64]:
    """Return the bin of brightness, tint and height that each cell is in, int64 [K, cells]."""
    light = look.cells + 8
    values = (
        (np.log(light.mean(axis=-1)) - 2) / _LIGHT,
        np.log(light[..., 0] / light[..., 1]) / _TINT + _BINS / 2,
        np.log(light[..., 2] / light[..., 1]) / _TINT + _BINS / 2,
    )
    bins = [np.clip(value.astype(np.int64), 0, _BINS - 1) for value in values]
    rows = np.arange(light.shape[1]) * _BANDS // light.shape[1]
    bins.append(np.broadcast_to(rows[:, np.newaxis], bins[0].shape))
    return look.seen(np.asarray(np.ravel_multi_index(bins, _COLORS), np.int64))


def _blurred(counts: NDArray[np.int64]) -> Floats:
    """Return a histogram whose counts count for the neighbouring bins, too."""
    values: Floats = counts.reshape(_COLORS).astype(np.float32)
    for axis in range(3):
        padded = np.pad(values, [(int(a == axis),) * 2 for a in range(4)])
        low, middle, high = (np.take(padded, range(k, k + _BINS), axis) for k in range(3))
        values = np.asarray((low + 2 * middle + high) / 4, np.float32)
    return values.ravel()


def _detail_scores(looks: Sequence[Look]) -> list[Floats]:
    """Return how far the detail of a frame's oddest parts is from what is usual there."""
    grey = [np.log(look.cells.mean(axis=-1) + 8) for look in looks]
    quarters = [
        np.stack([own[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]).std(axis=0) for own in grey
    ]
    details = [look.seen(np.log(own + 0.01)) for look, own in zip(looks, quarters, strict=True)]
    every = np.concatenate(details)
    usual = np.median(every, axis=0)
    spread = 1.4826 * np.median(np.abs(every - usual), axis=0) + 0.05
    return [
        np.log(
            np.sort(np.square((own - usual) / spread), axis=1)[:, -_ODDEST_CELLS:].mean(axis=1)
            + 1e-6
        )
        for own in details
    ]


def _cover_scores(looks: Sequence[Look]) -> list[Floats]:
    """Return how still parts of the picture are while the others move."""
    changes = [_changes(look) for look in looks]
    usual = np.median(np.concatenate(changes), axis=0) + 0.5
    scores = []
    for look, own in zip(looks, changes, strict=True):
        ratio = own / usual
        ratio /= np.median(ratio, axis=1, keepdims=True) + 0.05
        stillest = np.sort(ratio, axis=1)[:, :_STILLEST_CELLS]
        stillness = np.asarray(-np.log(stillest.mean(axis=1) + 0.02), np.float32)
        # Where the robot stands, comes to a stop or starts, nothing moves.
        around = np.ones(2 * look.samples(1.0) + 1)
        stands = np.pad(look.still, len(around) // 2, constant_values=True)
        stillness[np.convolve(stands, around, "valid") > 0] = 0
        scores.append(stillness)
    return scores


def _changes(look: Look) -> Floats:
    """Return how much each cell changes around each frame, grey levels, float32 [K, cells]."""
    grey = look.seen(look.cells.mean(axis=-1))
    lag = min(look.samples(0.3), len(look) - 1)
    change = np.pad(np.abs(grey[lag:] - grey[:-lag]), ((lag // 2, lag - lag // 2), (0, 0)), "edge")
    return np.asarray(cv2.blur(change, (1, look.samples(0.8) | 1)), np.float32)
