"""How surely a drive with a fault is refused before a model adapts, and how rarely a clean one.

Each drive of a place is compared with each other drive of it, as it is and with a fault that stays
over the drive; and with a drive of each other place. The limits were chosen on the places of
``CHOSEN_ON``, the rest are the test:

    python -m benchmarks.drive_changes --shared ../shared/data --frames build/drives
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.image import Image as Frame
from anomaly_detector.images.image import to_rgb
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.ordered_pool import usable_cores
from benchmarks.common import judge, options, print_table, run
from benchmarks.places import PLACES, read_drive
from training.adaptation.changes import compare
from training.data.past import spread
from training.evaluation.faults import FAULTS, UNITS, Fault
from training.evaluation.faults.base import (
    Image,
    Mask,
    as_image,
    blend,
    optical_scale,
    smooth_noise,
)
from training.evaluation.faults.optics import GaussianBlur, LensDirt, Tilt
from training.evaluation.faults.sensor import Dark, SensorNoise

CHOSEN_ON = ("expo_track", "donkeycar_track", "vpr_corridor")
TESTED_ON = ("carpet_loop", "usi_track", "workshop_loop", "nao_canteen")

_PAST, _WHOLE, _MINUTE = 150, 80, 60
"""Frames of a drive before, of a whole drive of today, and of its middle minute."""


@dataclass(frozen=True)
class Smear(Fault, group="lens"):
    """Grease over half of the lens.

    Attributes:
        sigma: standard deviation of the blur, units.
    """

    sigma: float = 2.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        depth = smooth_noise(rng, image.shape[:2], 3)
        alpha = np.clip((depth - np.median(depth)) / 0.05 + 0.5, 0, 1)
        soft = cv2.GaussianBlur(image, (0, 0), self.sigma * optical_scale(image))
        return blend(image, soft.astype(np.float32), alpha), None


@dataclass(frozen=True)
class PartCover(Fault, group="covers"):
    """Something of one colour before one side of the lens, out of focus.

    Attributes:
        share: of the picture that it covers.
    """

    share: float = 0.5

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        alpha: NDArray[Any] = np.zeros((UNITS, UNITS), np.float32)
        alpha[: round(self.share * UNITS)] = 1
        alpha = np.rot90(cv2.GaussianBlur(alpha, (0, 0), 1.5), int(rng.integers(4)))
        mask = np.asarray(cv2.resize(np.ascontiguousarray(alpha), image.shape[1::-1]), np.float32)
        return blend(image, np.full(3, rng.uniform(10, 200), np.float32), mask), None


@dataclass(frozen=True)
class Gain(Fault, group="sensor"):
    """More or less light, as from one day to the next.

    Attributes:
        gain: by which pixel values are multiplied.
    """

    gain: float = 1.15

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        return as_image(image * self.gain), None


CLEAN: tuple[Fault | None, ...] = (
    None,
    Gain("gain_0.85", gain=0.85),
    Gain("gain_1.15", gain=1.15),
    SensorNoise("noise_4", sigma=4.0),
)

MILD: Mapping[str, Sequence[Fault]] = {
    "blurred": [GaussianBlur("blur_0.5", sigma=0.5), GaussianBlur("blur_0.75", sigma=0.75)],
    "dimmed": [Dark("dark_0.7", gain=0.7), Dark("dark_0.6", gain=0.6)],
    "tilted": [Tilt("tilt_3", degrees=3.0), Tilt("tilt_5", degrees=5.0)],
    "smeared": [
        Smear("smear_1", sigma=1.0),
        LensDirt("thin_dirt", count=(2, 3), opacity=(0.4, 0.6)),
    ],
    "covered": [PartCover("quarter_covered", share=0.25)],
}
STRONG: Mapping[str, Sequence[Fault]] = {
    "blurred": [FAULTS["blur_1"], FAULTS["blur_2"], FAULTS["defocus_2.5"]],
    "dimmed": [Dark("dark_0.5", gain=0.5), FAULTS["dark"]],
    "tilted": [FAULTS["tilt_10"], FAULTS["tilt_20"]],
    "smeared": [Smear("smear_2"), FAULTS["lens_dirt"], FAULTS["lens_drops"]],
    "covered": [
        PartCover("half_covered"),
        *(FAULTS[f"cover_{name}"] for name in ("hand", "cloth", "tape")),
    ],
}

Refused = list[tuple[str, str, str, list[str]]]
"""Set of places, length of today's drive, fault, and the names of the changes refused."""


@lru_cache(maxsize=4)
def _frames(shared: Path, place: str, name: str, out: Path) -> tuple[list[Image], int]:
    """Return the normal frames of a drive, and how many of them are a minute."""
    drive = read_drive(shared, place, name, out)
    numbers = drive.numbers()
    frames = [to_rgb(frame.pixels) for frame in drive.source(numbers)]
    return frames, min(len(frames), drive.frames_of(60))


def _faulted(
    frames: Sequence[Image], most: int, fault: Fault | None = None, seed: Sequence[int] = (0,)
) -> NDArray[np.uint8]:
    """Put a fault on at most so many frames of some, the same on each."""
    return np.stack(
        [
            preprocess(Frame(fault.apply(i, np.random.default_rng(seed))[0] if fault else i, "rgb"))
            for i in (frames[number] for number in spread(len(frames), most))
        ]
    )


def measure_drive(shared: Path, place: str, name: str, out: Path) -> Refused:
    """Compare a drive, clean and with each fault, with others of its place and of other ones."""
    group = "chosen on" if place in CHOSEN_ON else "tested on"
    frames, minute = _frames(shared, place, name, out)
    start = (len(frames) - minute) // 2
    todays = (
        ("whole", frames, _WHOLE),
        ("minute", frames[start : start + minute], _MINUTE),
    )
    others = [other for other in PLACES[place] if other != name]
    pasts = [_past(shared, place, other, out) for other in others]
    found: Refused = []
    faults = [*CLEAN, *itertools.chain(*MILD.values(), *STRONG.values())]
    for (length, today, most), (index, fault) in itertools.product(todays, enumerate(faults)):
        images = _faulted(today, most, fault, [index, sum(map(ord, place + name))])
        for past in pasts:
            names = [change.name for change in compare(past, images).outside]
            found.append((group, length, fault.name if fault else "clean", names))
    images = _faulted(frames, _WHOLE)
    for elsewhere in (*CHOSEN_ON, *TESTED_ON):
        if elsewhere != place:
            past = _past(shared, elsewhere, next(iter(PLACES[elsewhere])), out)
            names = [change.name for change in compare(past, images).outside]
            found.append((group, "whole", "another place", names))
    return found


def _past(shared: Path, place: str, name: str, out: Path) -> NDArray[np.uint8]:
    return _faulted(_frames(shared, place, name, out)[0], _PAST)


def _measure(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], bool]:
    drives = [(p, name) for p in arguments.places for name in PLACES[p]]
    start = time.perf_counter()
    with ProcessPoolExecutor(usable_cores()) as pool:
        futures = [
            pool.submit(measure_drive, arguments.shared, *drive, arguments.frames)
            for drive in drives
        ]
        found = list(itertools.chain(*(future.result() for future in futures)))
    print_table(
        [
            "drive of today",
            "fault",
            "refused: chosen on",
            "tested on",
            "a minute of it",
            "refused as",
        ],
        _rows(found),
    )
    tested = [item for item in found if item[0] == "tested on"]
    strong = {fault.name for fault in itertools.chain(*STRONG.values())}
    faulty = [bool(item[3]) for item in tested if item[2] in strong]
    clean = [bool(item[3]) for item in tested if item[2] == "clean"]
    figures = {"found": found, "seconds": round(time.perf_counter() - start)}
    if not tested:
        return figures, True
    refused, wrongly = float(np.mean(faulty)), float(np.mean(clean))
    return figures, judge(
        {
            f"strong faults refused {refused:.1%}, at least 95 %": refused >= 0.95,
            f"clean drives refused {wrongly:.1%}, at most 5 %": wrongly <= 0.05,
        }
    )


def _rows(found: Refused) -> Iterator[list[str]]:
    faults = [("clean", fault.name if fault else "clean") for fault in CLEAN]
    for kind in MILD:
        faults += [(f"{kind}, mild", fault.name) for fault in MILD[kind]]
        faults += [(kind, fault.name) for fault in STRONG[kind]]
    for kind, fault in [*faults, ("of another place", "another place")]:
        cells = [kind, fault]
        for group, length in (("chosen on", "whole"), ("tested on", "whole"), ("", "minute")):
            names = [n for g, w, f, n in found if f == fault and w == length and group in (g, "")]
            share = f"{np.mean([bool(n) for n in names]):.0%}" if names else ""
            cells.append(f"{share} of {len(names)}" if names else "")
        every = list(itertools.chain(*(n for _, _, f, n in found if f == fault)))
        counts = sorted(((every.count(name), name) for name in set(every)), reverse=True)
        yield [*cells, ", ".join(f"{name} {count}" for count, name in counts[:3])]


def main() -> int:
    """Run the command line."""
    parser = options(__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), metavar="FOLDER")
    parser.add_argument("--frames", type=Path, default=Path("build/drives"), metavar="FOLDER")
    every = (*CHOSEN_ON, *TESTED_ON)
    parser.add_argument("--places", nargs="+", choices=every, default=every, metavar="PLACE")
    return run(parser, _measure)


if __name__ == "__main__":
    sys.exit(main())
