"""Several drives each of some places: where their frames are and what is in them.

The frames are no part of the repository; the README beside them says where they come from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory
from anomaly_detector.images.image import to_rgb
from anomaly_detector.recordings import ImageFilesSource, ImageFolderSource, open_source
from training.data.labels import NORMAL

PLACES: Mapping[str, Mapping[str, float | None]] = {
    "expo_track": {
        **{"evening1_run1": 11, "evening1_run2": 4.5},
        **{"evening2_run2": 4.8, "evening2_run1": 4.8},
    },
    "carpet_loop": dict.fromkeys(("lap_00002", "lap_02563", "lap_09926", "lap_19636"), 20),
    "usi_track": {"run1": 10, "run2": 6.5, "run3": 4},
    "workshop_loop": {"run1": 2.5, "run2": 2.5},
    "donkeycar_track": {"lap1": 20, "lap2": 20},
    "vpr_corridor": {"ref": None, "query": None},
    "nao_canteen": {"run1": None, "run2": None},
    # Of a still camera; at this rate the frames before the hand are 60 s.
    "lens_hand": {"bebop_hand_over_lens": 28 / 60},
}
"""Drives of each place with their frames a second, all in one direction.

The headline pair trains on the first and tests on the last: another evening, where there is one.
"""

_THINGS = ("person", "blocked")
_HAND = range(28, 93)
_LAPS = {"lap1": slice(520), "lap2": slice(520, None)}
_PEOPLE = range(844, 890)  # close to the track in the second lap
_LEFT_OUT = ""


@dataclass(frozen=True)
class Drive:
    """One drive of a place.

    Attributes:
        place: of :data:`PLACES`.
        name: likewise.
        files: its frames, in order.
        labels: of each frame: normal, the real thing that is in it, or empty for one left out.
        rate: frames a second; None where nobody knows it.
    """

    place: str
    name: str
    files: tuple[Path, ...]
    labels: tuple[str, ...]
    rate: float | None

    def numbers(self, label: str = NORMAL, start: int = 0, stop: int | None = None) -> list[int]:
        """Return the numbers of the frames with a label."""
        return [n for n in range(len(self.files))[start:stop] if self.labels[n] == label]

    @property
    def things(self) -> list[str]:
        """The labels of real things."""
        return sorted(set(self.labels) - {NORMAL, _LEFT_OUT})

    def source(self, numbers: Iterable[int]) -> ImageFilesSource:
        """Return some of its frames as a recording."""
        return ImageFilesSource(self.files[0].parent, [self.files[number] for number in numbers])

    def frames_of(self, seconds: int) -> int:
        """Return how many of the first frames to take for a time.

        Where that is more than half of the drive, or the rate is unknown, the first quarter stands
        for 60 s, a twelfth for 20 s, and so on.
        """
        count = round(seconds * self.rate) if self.rate else len(self.files)
        return count if count <= len(self.files) // 2 else len(self.files) * seconds // 240


def read_drive(shared: Path, place: str, name: str, out: Path) -> Drive:
    """Find the frames of a drive and their labels; frames of a video are written into ``out``.

    Raises:
        AnomalyDetectorError: it is not there.
    """
    folder = shared / place / name
    if place == "donkeycar_track":
        folder = folder.with_name("images")
    elif place == "lens_hand":
        folder = _video_frames(folder.with_suffix(".avi"), out)
    elif not folder.is_dir():
        folder = shared / "drives" / place / name
    if not folder.is_dir():
        raise AnomalyDetectorError(f"{folder} is not there: give the folder of the data, --shared")
    files = ImageFolderSource(folder).files
    labels = [NORMAL] * len(files)
    if place == "donkeycar_track":
        labels = [_LEFT_OUT if number in _PEOPLE else NORMAL for number in range(len(files))]
        files, labels = files[_LAPS[name]], labels[_LAPS[name]]
    elif place == "nao_canteen":
        with (shared / place / "labels.csv").open(newline="", encoding="utf-8") as table:
            known = {row["file"]: row["label"] for row in csv.DictReader(table)}
        labels = [known[f"{name}/{file.name}"] for file in files]
        labels = [label if label in (NORMAL, *_THINGS) else _LEFT_OUT for label in labels]
    elif place == "lens_hand":
        labels = ["hand" if number in _HAND else NORMAL for number in range(len(files))]
    return Drive(place, name, tuple(files), tuple(labels), PLACES[place][name])


def _video_frames(video: Path, out: Path) -> Path:
    folder = out / video.stem
    if not folder.is_dir():
        source = open_source(video)
        with atomic_directory(folder) as temporary:
            for number, frame in enumerate(source):
                picture = cv2.cvtColor(to_rgb(frame.pixels), cv2.COLOR_RGB2BGR)
                cv2.imwrite(str(temporary / f"{number:06d}.png"), picture)
    return folder
