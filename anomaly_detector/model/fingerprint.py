"""Recordings that a model was trained on, known again wherever they lie and whatever their name.

A fingerprint is a hash of each of some frames, spread evenly over the recording. Hashes are of the
content, so that a copy, a longer recording that holds the trained one, and a piece of it are known
again too. What is measured on such frames says nothing about new ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.files import printable
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.ordered_pool import usable_cores

if TYPE_CHECKING:
    # The metadata imports this module, and recordings are not needed for them.
    from anomaly_detector.model.metadata import ModelMetadata
    from anomaly_detector.recordings import Frame, FrameSource

_MOST_FRAMES = 64
_LEAST_FRAMES = 8
_MOST_HASHES = 16_384
"""Of all recordings of a model together: they are 200 kB of its metadata."""

_DIGITS = 12
_CELLS = 16
_GREY_STEP = 8


@dataclass(frozen=True)
class Fingerprint:
    """What a training recording is known by.

    Attributes:
        name: its file's or folder's name.
        frames: its number of readable frames.
        hashes: of frames spread over it, 12 hexadecimal digits each.
    """

    name: str
    frames: int
    hashes: str

    def parts(self) -> set[str]:
        """Return the different hashes."""
        return {self.hashes[i : i + _DIGITS] for i in range(0, len(self.hashes), _DIGITS)}


@dataclass(frozen=True)
class TrainedRecording:
    """The name of a recording that shows trained frames, and its name in the training."""

    recording: str
    trained_as: str


def fingerprints(recordings: Sequence[tuple[str, NDArray[np.uint8]]]) -> tuple[Fingerprint, ...]:
    """Return the fingerprints of recordings, each a name and uint8 [N, H, W, 3] as trained on."""
    each = max(1, len(recordings))
    most = max(_LEAST_FRAMES, min(_MOST_FRAMES, _MOST_HASHES // each))
    found = []
    for name, images in recordings:
        spread = np.unique(np.linspace(0, len(images) - 1, most).round().astype(int))
        hashes = "".join(frame_hash(images[index]) for index in spread)
        found.append(Fingerprint(printable(name), len(images), hashes))
    return tuple(found)


def find_trained(
    sources: Iterable[FrameSource], metadata: ModelMetadata
) -> tuple[TrainedRecording, ...]:
    """Return which recordings show frames that a model was trained on.

    Reads every recording once, with the model's own view as in its training, and none for a model
    that knows no fingerprint.

    Raises:
        SourceError: a recording has no readable frame.
    """
    found: list[TrainedRecording] = []
    for source in sources if metadata.training_recordings else ():
        source.view = metadata.view
        hashed = partial(_hash_of, size=metadata.view.size)
        hashes = list(source.mapped(hashed, usable_cores(), reduced=True))
        found += known_again(source.path.name, hashes, metadata.training_recordings)
    return tuple(found)


def known_again(
    name: str, frames: Sequence[str] | NDArray[np.uint8], known: Sequence[Fingerprint]
) -> Iterator[TrainedRecording]:
    """Yield the training recordings that a recording is a copy, a part or an extension of.

    ``frames`` are the hash of every frame, or the frames, uint8 [N, H, W, 3].
    """
    hashes: Collection[str] = {f if isinstance(f, str) else frame_hash(f) for f in frames}
    for fingerprint in known:
        parts = fingerprint.parts()
        # Of a piece only so many of the spread frames can be there.
        share = min(1.0, len(frames) / fingerprint.frames)
        needed = max(min(3, len(parts)), math.ceil(0.5 * share * len(parts)))
        if len(parts.intersection(hashes)) >= needed:
            yield TrainedRecording(printable(name), fingerprint.name)


def trained_warning(found: Sequence[TrainedRecording], consequence: str) -> str | None:
    """Return the line that tells of recordings which were trained on; None without any."""
    if not found:
        return None
    names = dict.fromkeys(
        item.recording
        if item.recording == item.trained_as
        else f"{item.recording} (trained as {item.trained_as})"
        for item in found
    )
    return f"warning: the model was trained on {', '.join(names)}: {consequence}"


def _hash_of(frame: Frame, size: int) -> str:
    return frame_hash(preprocess(frame.pixels, size))


def frame_hash(image: NDArray[np.uint8]) -> str:
    """Return the hash of a frame, uint8 [H, W, 3].

    Of coarse cells and coarse grey levels: another decoder's last bit seldom changes it, and the
    noise of another drive through the same place always does.
    """
    cells = cv2.resize(image, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA) // _GREY_STEP
    return hashlib.blake2b(cells.tobytes(), digest_size=_DIGITS // 2).hexdigest()
