"""What a model has seen: a sample of its drives that travels with it, for later adaptations.

``past.npz`` in the training folder beside a model holds at most :data:`MOST_FRAMES` normal frames
of all drives together, a few megabytes. Frames that were trained on are chosen to cover the route,
by greedy k-centre (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance") on
thumbnails; held-out ones are spread evenly over time, so that their scores are those of the drive.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from anomaly_detector.images.packed import pack, unpack
from anomaly_detector.model.fingerprint import Fingerprint, fingerprints
from training.data.frames import BlockSplit, FrameSet

MOST_FRAMES = 400
"""Of all drives together, held-out ones included."""

MOST_HELD_OUT = 100
MOST_ANOMALIES = 100

_CANDIDATES = 3000
_PICTURES = ("images", "anomalies")

_CELLS = 8
"""Of a thumbnail, in each direction."""


@dataclass(frozen=True)
class Past:
    """A sample of what a model has seen.

    Attributes:
        images: uint8 [K, H, W, 3], normal frames, drive by drive in the order of recording.
        drives: int64 [K], the number of each frame's drive.
        held_out: bool [K], never trained on; thresholds come from these.
        recordings: the drives.
        anomalies: uint8 [A, H, W, 3], recorded anomalies that were trained on.
    """

    images: NDArray[np.uint8]
    drives: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    recordings: tuple[Fingerprint, ...]
    anomalies: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def trained(self) -> NDArray[np.uint8]:
        """The frames that were trained on."""
        return self.images[~self.held_out]

    @property
    def calibration(self) -> NDArray[np.uint8]:
        """The frames that were held out."""
        return self.images[self.held_out]

    @classmethod
    def of(cls, frames: FrameSet, split: BlockSplit, anomalies: FrameSet | None) -> Past:
        """Return the sample of a training's frames; those between its blocks are left out."""
        drives = np.repeat(np.arange(len(frames.parts)), frames.lengths)
        candidates = []
        for part in (split.train, split.calibration):
            for drive in range(len(frames.parts)):
                own = part[drives[part] == drive]
                candidates.append(own[spread(len(own), max(1, _CANDIDATES // len(frames.parts)))])
        numbers = np.unique(np.concatenate(candidates))
        return cls(
            frames.load(numbers),
            drives[numbers],
            np.isin(numbers, split.calibration),
            fingerprints([(part.source.name, part.images) for part in frames.parts]),
            load_some(anomalies, MOST_ANOMALIES, frames.size),
        ).within_limits()

    def grown(self, other: Past) -> Past:
        """Return a sample of both, within the limits; each drive keeps its fair share."""
        drives = other.drives + len(self.recordings)
        both = Past(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.drives, drives]),
            np.concatenate([self.held_out, other.held_out]),
            self.recordings + other.recordings,
            np.concatenate([self.anomalies, other.anomalies]),
        )
        return both.within_limits()

    def within_limits(self) -> Past:
        """Return a sample of this one that is not larger than one may be."""
        held_out, trained = np.flatnonzero(self.held_out), np.flatnonzero(~self.held_out)
        held_out = self._sampled(held_out, MOST_HELD_OUT, _evenly)
        trained = self._sampled(trained, MOST_FRAMES - len(held_out), _covering)
        kept = np.sort(np.concatenate([held_out, trained]))
        return Past(
            self.images[kept],
            self.drives[kept],
            self.held_out[kept],
            self.recordings,
            self.anomalies[_evenly(self.anomalies, MOST_ANOMALIES)],
        )

    def _sampled(
        self,
        rows: NDArray[np.int64],
        limit: int,
        choose: Callable[[NDArray[np.uint8], int], NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        counts = np.bincount(self.drives[rows], minlength=len(self.recordings))
        kept = [rows[:0]]
        for drive, share in enumerate(_fair_shares(counts, limit)):
            own = rows[self.drives[rows] == drive]
            kept.append(own[choose(self.images[own], share)])
        return np.concatenate(kept)

    def write(self, path: Path) -> None:
        """Write the file; pictures are compressed without loss."""
        recordings = json.dumps([asdict(item) for item in self.recordings])
        arrays = vars(self) | {"recordings": np.array(recordings)}
        for name in _PICTURES:
            arrays[name], arrays[_lengths(name)] = pack(arrays[name])
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays, size=self.images.shape[1])

    @classmethod
    def read(cls, path: Path) -> Past:
        """Read a file.

        Raises:
            AnomalyDetectorError: it is not there, or damaged.
        """
        if not path.is_file():
            raise AnomalyDetectorError(
                f"{path} is not there, the sample of frames that the model was trained on: train "
                "the model again with this version"
            )
        try:
            with path.open("rb") as stream, np.load(stream) as file:
                arrays: dict[str, Any] = {name: file[name] for name in cls.__dataclass_fields__}
                for name in _PICTURES:
                    pictures = unpack(arrays[name], file[_lengths(name)])
                    size = int(file["size"])
                    arrays[name] = np.array(pictures, np.uint8).reshape(-1, size, size, 3)
            recordings = json.loads(str(arrays.pop("recordings")))
            return cls(**arrays, recordings=tuple(Fingerprint(**item) for item in recordings))
        except (
            OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, cv2.error,
        ) as error:  # fmt: skip
            raise AnomalyDetectorError(
                f"{path} is damaged ({error}): copy the folder again, or train the model again"
            ) from error


def _lengths(name: str) -> str:
    return f"{name}_lengths"


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Return the numbers of at most so many frames of some, spread evenly over them."""
    return np.arange(min(count, most)) * count // max(1, min(count, most))


def pooled(images: NDArray[np.generic], cell: int) -> NDArray[np.float32]:
    """Return the means of square cells; [N, H, W] or [N, H, W, 3]."""
    count, side = len(images), images.shape[1] // cell
    rows = images.reshape(count, side, cell, -1).mean(axis=2, dtype=np.float32)
    cells = rows.reshape(count, side, side, cell, *images.shape[3:])
    return np.asarray(cells.mean(axis=3))


def load_some(frames: FrameSet | None, most: int, size: int) -> NDArray[np.uint8]:
    """Return at most so many frames of some, uint8 [N, H, W, 3], spread evenly over them."""
    if frames is None:
        return np.zeros((0, size, size, 3), np.uint8)
    return frames.load(spread(len(frames), most))


def _fair_shares(counts: NDArray[np.int64], limit: int) -> list[int]:
    """Share a limit among drives; what a short drive leaves is the others'."""
    shares = [0] * len(counts)
    for place, drive in enumerate(np.argsort(counts, kind="stable")):
        shares[drive] = min(int(counts[drive]), limit // (len(counts) - place))
        limit -= shares[drive]
    return shares


def _evenly(images: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    return spread(len(images), count)


def _covering(images: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return the numbers of the frames that are the farthest from each other, ascending."""
    if len(images) <= count:
        return np.arange(len(images))
    if count == 0:
        return np.arange(0)
    thumbnails = pooled(images, images.shape[1] // _CELLS).reshape(len(images), -1)
    chosen = [len(images) // 2]
    distance = np.full(len(images), np.inf, np.float32)
    for _ in range(1, count):
        new = np.square(thumbnails - thumbnails[chosen[-1]]).sum(axis=1)
        distance = np.minimum(distance, new)
        distance[chosen[-1]] = -1  # never twice, even if all frames are alike
        chosen.append(int(distance.argmax()))
    return np.sort(np.array(chosen))
