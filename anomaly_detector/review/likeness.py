"""Which events look alike, and the normal frame of training that looks the most like one.

What is compared is the latent of the peak's frame that the model's own encoder gives, less the mean
of those of the events' first frames: latents of one building have most in common. A model without
an encoder, or no model, leaves the frame itself: resized as for a model, averaged to 8x8 cells of
RGB, less its own mean, so that brightness alone makes no difference.
"""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.packed import unpack
from anomaly_detector.model.latents import LatentEncoder, find_encoder
from anomaly_detector.review.catalog import Catalog, Entry
from anomaly_detector.review.pictures import Pictures

_CELLS = 8
_BATCH = 64


class Likeness:
    """Compares events; describes them one after the other in a thread of its own.

    Args:
        catalog: the events.
        pictures: of their frames.
        model: its file; None for none.

    Attributes:
        by: what is compared, in words.
        known: whether there are normal frames of training.
    """

    def __init__(self, catalog: Catalog, pictures: Pictures, model: Path | None) -> None:
        self._catalog, self._pictures = catalog, pictures
        self._encoder, self.by = _encoder(model)
        self._vectors: dict[tuple[str, tuple[int, ...]], NDArray[np.float32] | None] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._normal = normal_frames(model)
        self.known = len(self._normal) > 0
        self._normal_vectors: NDArray[np.float32] | None = None
        threading.Thread(target=self._describe_all, name="likeness", daemon=True).start()

    def groups(self, alike: float) -> tuple[list[list[str]], int]:
        """Return the ids of events that look alike, the largest group first.

        In the order of time, each event joins the group whose first event it is the most like, or
        opens one.

        Args:
            alike: the least cosine of the angle between two of a group.

        Returns:
            The groups, and the number of events that are not described yet.
        """
        self._wake.set()
        entries = sorted(
            self._catalog.entries.values(), key=lambda entry: entry.facts["start_stamp_ns"]
        )
        described = self._vectors.copy()  # the thread adds to it
        found = [(entry.id, described.get(_key(entry))) for entry in entries]
        waiting = sum(_key(entry) not in described for entry in entries)
        known = [(key, pair) for key, pair in found if pair is not None]
        if not known:
            return [], waiting
        vectors = np.stack([pair[0] for _, pair in known])
        if self._encoder is not None:
            vectors -= np.mean([pair[1] for _, pair in known], axis=0)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        groups: list[list[str]] = []
        firsts = np.zeros_like(vectors)
        for (key, _), vector in zip(known, vectors, strict=True):
            likeness = firsts[: len(groups)] @ vector
            if groups and likeness.max() >= alike:
                groups[int(likeness.argmax())].append(key)
            else:
                firsts[len(groups)] = vector
                groups.append([key])
        return sorted(groups, key=lambda group: -len(group)), waiting

    def nearest(self, entry: Entry, number: int) -> bytes | None:
        """Return the normal frame of training most like a frame, as PNG; None where none is known.

        Raises:
            SourceError, ImageError: the frame cannot be read.
        """
        if not self.known:
            return None
        vector = self._describe(self._pictures.preprocessed(entry, number)[np.newaxis])[0]
        with self._lock:
            if self._normal_vectors is None:
                starts = range(0, len(self._normal), _BATCH)
                parts = [np.stack(self._normal[start : start + _BATCH]) for start in starts]
                self._normal_vectors = np.concatenate([self._describe(part) for part in parts])
        distances = np.linalg.norm(self._normal_vectors - vector, axis=1)
        image = self._normal[int(distances.argmin())]
        large = cv2.resize(image, (256, 256), interpolation=cv2.INTER_CUBIC)
        return bytes(cv2.imencode(".png", large[:, :, ::-1])[1])

    def _describe(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return a vector for each frame, float32 [N, size]."""
        if self._encoder is not None:
            return self._encoder.encode(images)
        size = _CELLS, _CELLS
        cells = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
        vectors = np.stack(cells).astype(np.float32).reshape(len(images), -1)
        centred: NDArray[np.float32] = vectors - vectors.mean(axis=1, keepdims=True)
        return centred

    def _describe_all(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            for entry in list(self._catalog.entries.values()):
                key = _key(entry)
                if key in self._vectors:
                    continue
                try:
                    numbers = (entry.peak, 0) if self._encoder else (entry.peak,)
                    images = [self._pictures.preprocessed(entry, number) for number in numbers]
                    self._vectors[key] = self._describe(np.stack(images))
                except (AnomalyDetectorError, OSError):
                    self._vectors[key] = None  # the page shows that its picture is missing


def _key(entry: Entry) -> tuple[str, tuple[int, ...]]:
    return entry.id, entry.seen[:3]


def _encoder(model: Path | None) -> tuple[LatentEncoder | None, str]:
    picture = "pictures of 8x8 cells"
    if model is None:
        return None, picture
    try:
        encoder = find_encoder(model)
    except AnomalyDetectorError as error:
        return None, f"{picture}: {error}"
    if encoder is None:
        return None, f"{picture}: {model.name} has no encoder"
    return encoder, f"latents of {model.name}"


def normal_frames(model: Path | None) -> list[NDArray[np.uint8]]:
    """Return the normal frames, RGB, in the training folder beside a model, if there is one.

    :mod:`training.data.past` writes them.
    """
    path = None if model is None else model.with_suffix(".training") / "past.npz"
    if path is None or not path.is_file():
        return []
    try:
        with np.load(path) as file:
            return unpack(file["images"], file["images_lengths"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, cv2.error):
        return []
