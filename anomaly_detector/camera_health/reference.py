"""How a camera saw the training drives: the metadata field ``camera_reference`` of a model."""

from __future__ import annotations

import base64
import binascii
import functools
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.camera_health.figures import Figures, Smoothing
from anomaly_detector.camera_health.look import CELLS, SIDE, VIEWS, Floats, Look, Views
from anomaly_detector.errors import AnomalyDetectorError

MAPS = ("level", "spread", "change", "detail", "standing")

_MOST_VIEWS = 96
_CANDIDATES = 600
_MOST_BYTES = 1 << 20
"""Of an array: a damaged file must not fill the memory."""

_HALF = SIDE // 2
_QUANTILES = (0.01, 0.5, 0.99)


@dataclass(frozen=True)
class CameraReference:
    """Statistics of normal drives. Arrays are texts: base64 of what zlib makes of their bytes.

    Attributes:
        frames: that it is from.
        figures: name of each of :class:`~anomaly_detector.camera_health.figures.Figures` to its
            quantiles 1 %, 50 % and 99 %.
        maps: float16 [5, 16, 16], of each cell: mean level; its deviation over all frames; change,
            detail and standing pattern over views that differ
            (:meth:`anomaly_detector.camera_health.look.Views.maps`).
        views: uint8 [V, 32, 32], grey views that cover the drives; none where the camera stood.
    """

    frames: int
    figures: Mapping[str, tuple[float, float, float]]
    maps: str
    views: str

    def __post_init__(self) -> None:
        missing = set(Figures._fields) - set(self.figures)
        if missing:
            raise AnomalyDetectorError(f"has no figure {min(missing)}")
        _ = self.map_arrays, self.view_array

    @functools.cached_property
    def map_arrays(self) -> dict[str, Floats]:
        """The maps, float32 [16, 16], by their names in :data:`MAPS`."""
        arrays = _read(self.maps, np.float16, (len(MAPS), CELLS, CELLS)).astype(np.float32)
        return dict(zip(MAPS, arrays, strict=True))

    @functools.cached_property
    def view_array(self) -> NDArray[np.uint8]:
        """The views."""
        return np.asarray(_read(self.views, np.uint8, (-1, _HALF, _HALF)), np.uint8)

    @property
    def has_moved(self) -> bool:
        """Whether the camera moved enough to know what changes."""
        return len(self.view_array) > 0

    @classmethod
    def of(cls, drives: Iterable[Iterable[NDArray[np.uint8]]]) -> CameraReference | None:
        """Return the reference of normal drives, uint8 [H, W, 3] RGB as the model sees them.

        None where they are too short.
        """
        builder = ReferenceBuilder()
        for drive in drives:
            for image in drive:
                builder.add(image)
            builder.end_drive()
        return builder.build()

    def merged(self, other: CameraReference | None) -> CameraReference:
        """Return the reference of these drives and others."""
        return self if other is None else _joined([self, other])


class ReferenceBuilder:
    """Makes a reference frame by frame; drives are told apart by :meth:`end_drive`."""

    def __init__(self) -> None:
        self._drives: list[CameraReference] = []
        self._begin()

    def _begin(self) -> None:
        self._smoothing, self._views = Smoothing(), Views()
        self._figures: list[Figures] = []
        self._maps: list[Floats] = []
        self._halves: list[NDArray[np.uint8]] = []
        self._every, self._new = 1, 0
        self._count = 0
        self._sum = np.zeros((2, CELLS, CELLS))

    def add(self, image: NDArray[np.uint8]) -> None:
        """Take the next frame in, uint8 [H, W, 3] RGB as the model sees it."""
        look = Look.at(image)
        self._count += 1
        self._sum += look.cells, look.cells * look.cells
        figures = self._smoothing.add(look)
        if self._smoothing.is_full:
            self._figures.append(figures)
        if not self._views.moves_on(look):
            return
        self._views.add(look)
        self._new += 1
        if len(self._views) == VIEWS and self._new % (VIEWS // 4) == 0:
            self._maps.append(self._views.maps())
        if self._new % self._every == 0:
            self._halves.append(np.rint(look.half).astype(np.uint8))
            if len(self._halves) > _CANDIDATES:
                self._halves, self._every = self._halves[1::2], 2 * self._every

    def end_drive(self) -> None:
        """End a drive; the next frame is of another one."""
        if self._figures:
            mean, squares = self._sum / self._count
            spread = np.sqrt(np.maximum(squares - mean * mean, 0.0))
            moving = np.median(self._maps, axis=0) if self._maps else np.zeros((3, CELLS, CELLS))
            views = _covering(self._halves, _MOST_VIEWS if self._maps else 0)
            quantiles = np.quantile(self._figures, _QUANTILES, axis=0).T
            self._drives.append(
                _written(
                    self._count,
                    dict(zip(Figures._fields, quantiles.tolist(), strict=True)),
                    np.concatenate([[mean, spread], moving]),
                    views,
                )
            )
        self._begin()

    def build(self) -> CameraReference | None:
        """Return the reference of all drives; None where they are too short."""
        return _joined(self._drives) if self._drives else None


def _joined(parts: list[CameraReference]) -> CameraReference:
    """Return one reference of several: ranges that hold all, means weighted by frames."""
    if len(parts) == 1:
        return parts[0]
    weights = [part.frames for part in parts]
    figures = {}
    for name in Figures._fields:
        low, usual, high = zip(*(part.figures[name] for part in parts), strict=True)
        figures[name] = (min(low), float(np.average(usual, weights=weights)), max(high))
    maps = np.stack([np.stack([*part.map_arrays.values()]) for part in parts])
    mean = np.average(maps[:, 0], axis=0, weights=weights)
    within = np.average(maps[:, 1] ** 2, axis=0, weights=weights)
    between = np.average((maps[:, 0] - mean) ** 2, axis=0, weights=weights)
    moved = [weight * part.has_moved for weight, part in zip(weights, parts, strict=True)]
    moving = np.zeros((3, CELLS, CELLS))
    if any(moved):
        moving = np.average(maps[:, 2:], axis=0, weights=moved)
    views = [view for part in parts for view in part.view_array]
    return _written(
        sum(weights),
        figures,
        np.concatenate([[mean, np.sqrt(within + between)], moving]),
        _covering(views, _MOST_VIEWS),
    )


def _written(
    frames: int,
    figures: Mapping[str, Iterable[float]],
    maps: NDArray[np.floating[Any]],
    views: NDArray[np.uint8],
) -> CameraReference:
    rounded = {}
    for name, values in figures.items():
        low, usual, high = (float(f"{value:.5g}") for value in values)
        rounded[name] = (low, usual, high)
    return CameraReference(frames, rounded, _text(maps.astype(np.float16)), _text(views))


def _covering(views: list[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    """Return the views that are the farthest from each other (greedy k-centre)."""
    stack = np.array(views, np.uint8).reshape(-1, _HALF, _HALF)
    if len(stack) <= count:
        return stack
    if count == 0:
        return stack[:0]
    small = np.array([cv2.resize(view, (8, 8), interpolation=cv2.INTER_AREA) for view in stack])
    rows = small.reshape(len(small), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    chosen = [len(rows) // 2]
    distance = np.full(len(rows), np.inf, np.float32)
    for _ in range(1, count):
        distance = np.minimum(distance, np.square(rows - rows[chosen[-1]]).sum(axis=1))
        distance[chosen[-1]] = -1  # never twice
        chosen.append(int(distance.argmax()))
    return np.asarray(stack[np.sort(chosen)], np.uint8)


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def _read(text: str, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        packed = base64.b64decode(text, validate=True)
        data = zlib.decompressobj().decompress(packed, _MOST_BYTES)
        return np.asarray(np.frombuffer(data, kind).reshape(shape))
    except (binascii.Error, zlib.error, ValueError) as error:
        raise AnomalyDetectorError(f"has arrays that cannot be read ({error})") from error
