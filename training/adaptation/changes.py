"""What has changed between the drives that a model knows and the one that it shall learn.

Adapting to a drive with a greasy lens would teach the model that grease is normal. So each frame of
today is matched to the most similar known frames, by thumbnails without their mean colour: then
the route counts little, and medians over these pairs tell what the camera and the light do.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.mask import Mask
from anomaly_detector.images.preprocessing import INPUT_SIZE
from training.data.past import pooled, spread

Images: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

FEWEST_FRAMES = 10
"""Of either side."""

MOST_LEFT_OUT = 0.2
"""Share of a drive that can stand out from the rest of it."""

_STANDS_OUT = 8.0
"""Robust standard deviations of the drive; a stretch goes on down to half of them."""

_SMOOTHED = 2
"""Frames on either side of the one whose median is taken."""

_MOST_FRAMES = 200
_MOST_TURNED = 150
_MATCHES = 5
_ALIKE = 0.65
_CELL = 8
_ANGLES = np.arange(-24, 25, 2)
_PLAINLY_ROLLED = 0.012
"""By how much the past has to be more alike to today when it is turned."""

_STILL = 0.35
_STAINED = 0.12
_MOVED = 3
_EMPTY = 0.3
"""Grey levels of detail in a picture without any."""


@dataclass(frozen=True)
class Limit:
    """Where a change begins to look like a fault, and what to do if it is none.

    Attributes:
        what: the figure, with its unit.
        low: least figure of today; minus infinity for none.
        high: largest one; infinity for none.
        is_factor: low and high are to be multiplied by the figure of the past.
        remedy: what to do if it is a fault.
    """

    what: str
    low: float
    high: float
    is_factor: bool
    remedy: str


_INF = float("inf")

LIMITS: dict[str, Limit] = {
    "blur": Limit("sharpness", 0.75, _INF, True, "clean or refocus the lens"),
    "exposure": Limit("mean grey level", 0.65, 1.55, True, "check the exposure and the light"),
    "contrast": Limit("contrast", 0.72, 1.6, True, "look for fog or grease on the lens"),
    "colour": Limit("ratio of colour channels", 0.78, 1.28, True, "check the white balance"),
    "roll": Limit("roll in degrees", -3.0, 3.0, False, "straighten the camera"),
    "cover": Limit("share of the picture covered", -_INF, 0.09, False, "free and clean the lens"),
    "place": Limit("share of frames of known places", 0.4, _INF, False, "train a model of its own"),
}
"""By name of the change, as in ``--accept-change``."""


@dataclass(frozen=True)
class Change:
    """One figure of the past and of today.

    Attributes:
        name: of :data:`LIMITS`.
        past: figure of the known frames that today's are most similar to.
        today: figure of today.
    """

    name: str
    past: float
    today: float

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest figure of today that is no fault."""
        limit = LIMITS[self.name]
        factor = self.past if limit.is_factor else 1
        return limit.low * factor, limit.high * factor

    @property
    def is_refused(self) -> bool:
        """Whether today is outside the limits."""
        low, high = self.limits
        return not low <= self.today <= high

    @property
    def limit_text(self) -> str:
        """The limits in words."""
        low, high = self.limits
        if high == _INF:
            return f"at least {low:.3g}"
        return f"at most {high:.3g}" if low == -_INF else f"{low:.3g} to {high:.3g}"

    def __str__(self) -> str:
        limit = LIMITS[self.name]
        before = f" ({self.past:.3g} before)" if limit.is_factor else ""
        return f"{limit.what} {self.today:.3g}, {self.limit_text} expected{before}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return {"name": self.name, "past": round(self.past, 4), "today": round(self.today, 4)}


@dataclass(frozen=True)
class Changes:
    """What has changed.

    Attributes:
        changes: one of each name, in the order of :data:`LIMITS`.
        frames: int64 [M], the numbers of the frames of today that were compared.
        matches: int64 [M], of each the number of the most similar frame of the past.
        similarity: float32 [M], -1 to 1, of these two.
    """

    changes: tuple[Change, ...]
    frames: NDArray[np.int64]
    matches: NDArray[np.int64]
    similarity: Floats

    @property
    def outside(self) -> tuple[Change, ...]:
        """The changes that look like a fault."""
        return tuple(change for change in self.changes if change.is_refused)

    def refused(self, accepted: Collection[str] = ()) -> list[dict[str, Any]]:
        """Check that every change that looks like a fault was accepted.

        Args:
            accepted: names of :data:`LIMITS`.

        Returns:
            The changes that were accepted and would else have been refused, for the provenance.

        Raises:
            AnomalyDetectorError: another one looks like a fault, or a name is unknown.
        """
        unknown = sorted(set(accepted) - set(LIMITS))
        if unknown:
            raise AnomalyDetectorError(
                f"--accept-change {unknown[0]} is unknown: choose from {', '.join(LIMITS)}"
            )
        faults = [change for change in self.outside if change.name not in accepted]
        if faults:
            raise AnomalyDetectorError(
                f"today's drive differs from the drives before: {'; '.join(map(str, faults))}: "
                f"{LIMITS[faults[0].name].remedy} and record again, or if it is to stay so, "
                f"--accept-change {' '.join(change.name for change in faults)}"
            )
        return [change.to_dict() for change in self.outside]


@dataclass(frozen=True)
class _Look:
    """Figures of frames, for each frame and cell."""

    grey: Floats
    thumbnails: Floats
    shapes: Floats
    fine: Floats
    medium: Floats
    fine_cells: Floats
    medium_cells: Floats
    mean: Floats
    deviation: Floats
    colors: Floats
    cells: Floats

    @classmethod
    def of(cls, images: Images) -> _Look:
        pictures = images.astype(np.float32)
        grey = np.asarray(pictures.mean(axis=-1))
        soft, softer = _blurred(grey, 0.7), _blurred(grey, 1.5)
        fine, medium = np.square(grey - soft), np.square(soft - softer)
        small = pooled(grey, 2)
        shapes = _blurred(small, 0.6) - _blurred(small, 2.5)
        shapes /= np.sqrt(_blurred(np.square(shapes), 3)) + 4
        thumbnails = pooled(pictures, _CELL)
        thumbnails -= thumbnails.mean(axis=(1, 2), keepdims=True)
        return cls(
            grey,
            _directions(thumbnails),
            shapes,
            _root_mean(fine) + _EMPTY,
            _root_mean(medium) + _EMPTY,
            np.asarray(np.sqrt(pooled(fine, _CELL)) + _EMPTY, np.float32),
            np.asarray(np.sqrt(pooled(medium, _CELL)) + 2 * _EMPTY, np.float32),
            grey.mean(axis=(1, 2)) + 1,
            grey.std(axis=(1, 2)) + 1,
            pictures.mean(axis=(1, 2)) + 3,
            pooled(grey, _CELL // 2),
        )


def _blurred(images: Floats, sigma: float) -> Floats:
    return np.asarray([cv2.GaussianBlur(image, (0, 0), sigma) for image in images], np.float32)


def _root_mean(squares: Floats) -> Floats:
    return np.asarray(np.sqrt(squares.mean(axis=(1, 2))), np.float32)


def _directions(values: Floats) -> Floats:
    """Return a unit vector of each frame: products of two are correlations."""
    rows = values.reshape(len(values), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6), np.float32)


def _ratio(ours: Floats, theirs: Floats, matches: NDArray[np.int64]) -> tuple[float, float]:
    """Return the median of the past and that times the median ratio of matched frames."""
    known = np.median(theirs[matches], axis=1)
    past = float(np.median(known))
    return past, past * float(np.median(ours / known))


def compare(past: Images, today: Images, mask: Mask | None = None) -> Changes:
    """Compare a drive with the frames that a model knows; of either at most 200 are looked at.

    Args:
        past: uint8 RGB [K, H, W, 3], in any order.
        today: uint8 RGB [N, H, W, 3], in the order of recording.
        mask: of the model; what changes under it is no change.

    Raises:
        AnomalyDetectorError: there are too few frames of either.
    """
    for name, images in (("the past", past), ("today's drive", today)):
        if len(images) < FEWEST_FRAMES:
            raise AnomalyDetectorError(
                f"{name} has {len(images)} frames, too few to compare: give at least "
                f"{FEWEST_FRAMES}"
            )
    known, frames = spread(len(past), _MOST_FRAMES), spread(len(today), _MOST_FRAMES)
    seen = (lambda images: images) if mask is None else mask.filled
    theirs, ours = (_Look.of(_small(seen(each))) for each in (past[known], today[frames]))
    similarities = ours.thumbnails @ theirs.thumbnails.T
    count = min(_MATCHES, len(known))
    matches = np.argsort(-similarities, axis=1)[:, :count]
    similarity = similarities.max(axis=1)
    figures = {
        "blur": _ratio(ours.fine / ours.medium, theirs.fine / theirs.medium, matches),
        "exposure": _ratio(ours.mean, theirs.mean, matches),
        "contrast": _ratio(ours.deviation / ours.mean, theirs.deviation / theirs.mean, matches),
        "colour": _color_shift(ours.colors, theirs.colors, matches),
        "roll": (0.0, _roll(ours.shapes, theirs.shapes)),
        "cover": (0.0, _covered(ours, theirs, matches, mask)),
        "place": (1.0, float(np.mean(similarity >= _ALIKE))),
    }
    return Changes(
        tuple(Change(name, *figures[name]) for name in LIMITS),
        frames,
        known[matches[:, 0]],
        similarity,
    )


def _small(images: Images) -> Images:
    """Return frames at 64x64, the size that the limits are for."""
    factor = images.shape[1] // INPUT_SIZE
    return images if factor == 1 else np.rint(pooled(images, factor)).astype(np.uint8)


def _color_shift(ours: Floats, theirs: Floats, matches: NDArray[np.int64]) -> tuple[float, float]:
    """Return the ratio of two channels, past and today: the one that has changed the most."""
    pairs = [
        _ratio(ours[:, a] / ours[:, b], theirs[:, a] / theirs[:, b], matches)
        for a, b in ((0, 1), (2, 1), (0, 2))
    ]
    return max(pairs, key=lambda pair: abs(np.log(pair[1] / pair[0])))


def _roll(ours: Floats, theirs: Floats) -> float:
    """Return the angle at which the past has to be turned to be most alike to today, degrees."""
    ours, theirs = (images[spread(len(images), _MOST_TURNED)] for images in (ours, theirs))
    side = ours.shape[1]
    places = np.arange(side // 2) - (side // 2 - 1) / 2
    disc = np.hypot(places, places[:, np.newaxis]).ravel() < side / 4 - 0.4

    def described(images: Floats) -> Floats:
        return _directions(pooled(images, 2).reshape(len(images), -1)[:, disc])

    today = described(ours)
    alike = []
    for angle in _ANGLES:
        turn = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, float(angle), 1)
        turned = [
            cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
            for image in theirs
        ]
        alike.append(float((today @ described(np.stack(turned)).T).max(axis=1).mean()))
    best = int(np.argmax(alike))
    if alike[best] - alike[len(alike) // 2] < _PLAINLY_ROLLED:
        return 0.0
    if not 0 < best < len(alike) - 1:
        return float(_ANGLES[best])
    left, top, right = alike[best - 1 : best + 2]
    offset = 0.5 * (left - right) / (left - 2 * top + right) if left + right < 2 * top else 0
    return float(_ANGLES[best] + offset * (_ANGLES[1] - _ANGLES[0]))


def _covered(ours: _Look, theirs: _Look, matches: NDArray[np.int64], mask: Mask | None) -> float:
    """Return the share of the picture that is covered, smeared or stained.

    Such a part hardly changes over the drive, has lost its detail, or shows a pattern that stays.
    The first two are measured against the rest of the picture, so that a dark or blurred drive is
    not one with a covered lens.
    """
    busy = cv2.erode(_share_of_busy(theirs.cells[matches[:, 0]]), np.ones((3, 3), np.uint8))
    still = _share_of_busy(ours.cells) / (busy + 0.15) < _STILL
    lost = np.kron(_detail_lost(ours, theirs, matches), np.ones((2, 2), bool))
    side = len(still)
    stains = _stains(ours, theirs, matches).reshape(side, _CELL // 2, side, _CELL // 2)
    covered = still | lost | (stains.max(axis=(1, 3)) > _STAINED)
    return float(np.mean(covered if mask is None else covered & ~mask.cells(side, side)))


def _stains(ours: _Look, theirs: _Look, matches: NDArray[np.int64]) -> Floats:
    """Return how strongly a pattern stays that no similar frame of the past has, by pixel.

    It is in the mean of each third of the drive, and in no pixel within three of the past's mean:
    the camera's own housing may have moved a little. The unit is the scene's standard deviation.
    """
    gain = float(np.median(theirs.mean[matches].mean(axis=1)) / np.median(ours.mean))
    around = np.ones((2 * _MOVED + 1, 2 * _MOVED + 1), np.uint8)
    patterns = []
    for part in np.array_split(np.arange(len(matches)), 3):
        today = _pattern(ours.grey[part].mean(axis=0) * gain)
        counts = np.bincount(matches[part].ravel(), minlength=len(theirs.grey))
        past = _pattern(np.average(theirs.grey, axis=0, weights=counts))
        above = np.maximum(today - cv2.dilate(past, around), 0)
        patterns.append(above - np.maximum(cv2.erode(past, around) - today, 0))
    lighter, darker = np.min(patterns, axis=0), -np.max(patterns, axis=0)
    scene = np.quantile(ours.grey.std(axis=0), 0.8) * gain + 3
    return np.asarray(np.maximum(lighter, darker) / scene, np.float32)


def _pattern(mean: NDArray[np.floating[Any]]) -> Floats:
    picture = np.asarray(mean, np.float32)
    soft, softer = (cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (0.8, 4))
    return np.asarray(soft - softer, np.float32)


def _share_of_busy(cells: Floats) -> Floats:
    deviation = cells.std(axis=0)
    return np.asarray(deviation / (np.quantile(deviation, 0.8) + 1e-3), np.float32)


def _detail_lost(ours: _Look, theirs: _Look, matches: NDArray[np.int64]) -> NDArray[np.bool_]:
    lost = np.zeros(ours.fine_cells.shape[1:], bool)
    for today, past, drop in (
        (ours.fine_cells / ours.medium_cells, theirs.fine_cells / theirs.medium_cells, 0.5),
        (ours.medium_cells, theirs.medium_cells, 1.0),
    ):
        change = np.median(np.log(today) - np.log(past)[matches].mean(axis=1), axis=0)
        lost |= change < np.quantile(change, 0.75) - drop
    return lost


def stand_out(past: Images, today: Images) -> list[tuple[int, int]]:
    """Return the stretches of a drive that are unlike the past and the rest of the drive is not.

    A box in the way or a person in one place makes one. What differs all along the drive, as a
    covered lens does, makes none.

    Args:
        past: uint8 RGB [K, H, W, 3].
        today: uint8 RGB [N, H, W, 3], in the order of recording.

    Returns:
        The first and last frame of each, together at most :data:`MOST_LEFT_OUT` of the drive: the
        ones that stand out most.
    """
    scores = _strangeness(past[spread(len(past), _MOST_FRAMES)], today)
    reach = range(-_SMOOTHED, _SMOOTHED + 1)
    padded = np.pad(scores, _SMOOTHED, "edge")
    scores = np.median([padded[_SMOOTHED + r : len(today) + _SMOOTHED + r] for r in reach], axis=0)
    middle = np.median(scores)
    scores = (scores - middle) / (1.4826 * np.median(np.abs(scores - middle)) + 1e-6)
    edges = np.flatnonzero(np.diff(np.pad(scores > _STANDS_OUT / 2, 1).astype(int)))
    stretches = [
        (int(first), int(end) - 1)
        for first, end in edges.reshape(-1, 2)
        if scores[first:end].max() > _STANDS_OUT
    ]
    left, chosen = MOST_LEFT_OUT * len(today), []
    for first, last in sorted(stretches, key=lambda each: -scores[each[0] : each[1] + 1].max()):
        if last - first + 1 <= left:
            left -= last - first + 1
            chosen.append((first, last))
    return sorted(chosen)


def _strangeness(past: Images, today: Images) -> Floats:
    """Return how far the strangest part of each frame is from similar known ones.

    A cell of 4 pixels may lie a cell away in the known frame.
    """
    cell = past.shape[1] * _CELL // 2 // INPUT_SIZE
    theirs, ours = (pooled(images.astype(np.float32), cell) for images in (past, today))
    theirs, ours = (cells - cells.mean(axis=(1, 2), keepdims=True) for cells in (theirs, ours))
    side = ours.shape[1]
    thumbnails = [_directions(pooled(cells, 2)) for cells in (theirs, ours)]
    count = min(2 * _MATCHES, len(past))
    matches = np.argpartition(-thumbnails[1] @ thumbnails[0].T, count - 1, axis=1)[:, :count]
    padded = np.pad(theirs, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    distance = np.full(ours.shape[:3], np.inf, np.float32)
    for match, y, x in itertools.product(matches.T, range(3), range(3)):
        known = padded[match, y : y + side, x : x + side]
        distance = np.minimum(distance, np.abs(ours - known).mean(axis=-1))
    usual = np.median(distance, axis=0)
    distance /= usual + usual.mean() + 1
    smooth = np.asarray([cv2.blur(cells, (3, 3)) for cells in distance])
    strangest = np.sort(smooth.reshape(len(today), -1), axis=1)[:, -6:]
    return np.asarray(strangest.mean(axis=1), np.float32)
