"""What ``training check`` finds on real drives, and how long it takes.

Stretches that stand out: in each drive a thing is put on the frames of three seconds (12 frames at
least) at three places, one at a time. Route: drives of one lap and of several, as people see them.
Learning curve: the gain of the last doubling on the first parts of drives of several laps. Real
things are the people of ``donkeycar_track`` and ``nao_canteen``. The limits were chosen on the
places of ``CHOSEN_ON``; the others are the test:

    python -m benchmarks.drive_check --shared ../shared/data --frames build/drives
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.image import Image as Frame
from anomaly_detector.images.image import to_rgb
from anomaly_detector.images.preprocessing import preprocess
from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import CachedFrames
from benchmarks.common import judge, options, print_table, run, write_jpegs
from benchmarks.drive_changes import CHOSEN_ON, TESTED_ON
from benchmarks.places import PLACES, read_drive
from training.data.check import check_drive
from training.data.check.check import TWICE
from training.data.check.findings import Finding, find_faults
from training.data.check.look import look_at
from training.data.check.patches import Encoder, encode_frames
from training.data.check.stretches import find_strange, strangeness
from training.data.frames import FrameSet, open_frame_set
from training.evaluation.faults import FAULTS
from training.evaluation.faults.base import Image
from training.networks.efficientnet import open_imagenet

SIZE = 128
INSERTED = ("object_10", "object_16", "object_24", "cover_hand", "tilt_10", "another place")
BLURS = ("blur_1", "blur_2", "defocus_2.5")
LARGE = ("object_24", "cover_hand", "another place")
SECONDS, LEAST = 3.0, 12
POSITIONS = (0.2, 0.5, 0.8)

LAPS: Mapping[str, Sequence[tuple[str, Sequence[tuple[str, int, int]]]]] = {
    "one": (
        ("donkeycar_track", [("lap1", 0, 520)]),
        ("donkeycar_track", [("lap2", 0, 480)]),
        ("expo_track", [("evening1_run1", 0, 640)]),
        ("expo_track", [("evening1_run1", 700, 1340)]),
        ("vpr_corridor", [("ref", 0, 111)]),
        ("vpr_corridor", [("query", 0, 111)]),
        ("carpet_loop", [("lap_00002", 0, 175)]),
        ("carpet_loop", [("lap_00002", 200, 375)]),
        ("usi_track", [("run1", 0, 140)]),
        ("usi_track", [("run1", 150, 290)]),
    ),
    "more": (
        ("donkeycar_track", [("lap1", 0, 520), ("lap2", 0, 480)]),
        ("expo_track", [("evening1_run1", 0, 1388)]),
        ("expo_track", [("evening1_run1", 0, 640), ("evening1_run1", 700, 1340)]),
        ("vpr_corridor", [("ref", 0, 111), ("query", 0, 111)]),
        ("carpet_loop", [("lap_00002", 0, 370)]),
        ("carpet_loop", [("lap_00002", 0, 578)]),
        ("usi_track", [("run1", 0, 290)]),
        ("usi_track", [("run1", 0, 840)]),
        ("workshop_loop", [("run1", 0, 750)]),
        ("workshop_loop", [("run1", 0, 750), ("run2", 0, 750)]),
    ),
}
"""Parts of drives, first and end frame, in which each place is seen once, and more than once."""


@cache
def _pictures(shared: Path, place: str, name: str, out: Path) -> list[Image]:
    """Return all frames of a drive as the camera gave them."""
    drive = read_drive(shared, place, name, out)
    return [to_rgb(frame.pixels) for frame in drive.source(range(len(drive.files)))]


@cache
def _small(shared: Path, place: str, name: str, out: Path) -> NDArray[np.uint8]:
    return np.stack([_resized(image) for image in _pictures(shared, place, name, out)])


def _resized(image: Image) -> NDArray[np.uint8]:
    return preprocess(Frame(image, "rgb"), SIZE)


def _recording(images: NDArray[np.uint8], name: str, rate: float | None) -> CachedFrames:
    count = len(images)
    stamps = [round(n * 1e9 / rate) if rate else None for n in range(count)]
    return CachedFrames(Path(name), images, [f"{n:06d}" for n in range(count)], stamps, [])


def _set(*parts: tuple[NDArray[np.uint8], str, float | None]) -> FrameSet:
    return FrameSet([_recording(*part) for part in parts])


def _encoder() -> Encoder:
    """Return the pretrained encoder, which encodes each picture once."""
    encode, known = open_imagenet(), dict[bytes, NDArray[np.float32]]()

    def remembered(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        keys = [hashlib.sha256(image).digest() for image in images]
        new = [number for number, key in enumerate(keys) if key not in known]
        if new:
            known.update(zip([keys[n] for n in new], encode(images[new]), strict=True))
        return np.stack([known[key] for key in keys])

    return remembered


def _strange(frames: FrameSet, encode: Encoder) -> list[tuple[int, int]]:
    """Return the first and last frame of each stretch that stands out."""
    looks = look_at(frames)
    numbers = looks[0].numbers
    scores = strangeness(looks, encode_frames(encode, frames, looks))
    return [
        (int(numbers[item.first]), int(numbers[item.last]))
        for finding in find_strange(looks, scores)
        for item in finding.stretches
    ]


def _overlap(runs: Sequence[tuple[int, int]], first: int, last: int) -> int:
    return sum(max(0, min(b, last) - max(a, first) + 1) for a, b in runs)


def measure_stretches(shared: Path, place: str, name: str, out: Path) -> Mapping[str, Any]:
    """Insert things into a drive; return which were found, and what else stands out."""
    drive = read_drive(shared, place, name, out)
    normal = drive.numbers()
    images = _small(shared, place, name, out)[normal]
    pictures = _pictures(shared, place, name, out)
    encode = _encoder()
    clean = _strange(_set((images, name, drive.rate)), encode)
    length = max(LEAST, round(SECONDS * (drive.rate or 0)))
    others = [other for other in PLACES if other not in (place, "lens_hand")]
    found: dict[str, list[bool]] = {kind: [] for kind in INSERTED}
    for number, kind in enumerate(INSERTED):
        for turn, position in enumerate(POSITIONS):
            first = int(position * len(images))
            put = images.copy()
            elsewhere = others[(number + turn) % len(others)]
            for offset in range(length):
                if kind == "another place":
                    foreign = _small(shared, elsewhere, next(iter(PLACES[elsewhere])), out)
                    put[first + offset] = foreign[50 + offset]
                else:
                    rng = np.random.default_rng([number, turn])
                    picture = pictures[normal[first + offset]]
                    put[first + offset] = _resized(FAULTS[kind].apply(picture, rng)[0])
            runs = _strange(_set((put, name, drive.rate)), encode)
            found[kind].append(_overlap(runs, first, first + length - 1) >= length / 2)
    return {
        "place": place,
        "drive": name,
        "found": found,
        "clean stretches": clean,
        "clean share": sum(b - a + 1 for a, b in clean) / len(images),
        "seconds": len(images) / drive.rate if drive.rate else None,
    }


def measure_faults(shared: Path, place: str, name: str, out: Path) -> Mapping[str, Any]:
    """Return what is found of a drive as it is, out of focus, and darker from its middle on."""
    images, rate = _small(shared, place, name, out), PLACES[place][name]
    pictures = _pictures(shared, place, name, out)
    middle = len(images) // 2
    darker = images.copy()
    darker[middle:] = np.rint(0.7 * images[middle:])

    def findings(shown: NDArray[np.uint8]) -> list[Finding]:
        return list(find_faults(look_at(_set((shown, name, rate)))))

    rng = np.random.default_rng(0)
    blurred = {
        kind: any(
            "whole drive" in finding.what
            for finding in findings(
                np.stack(
                    [
                        _resized(FAULTS[kind].apply(p, rng)[0])
                        for p in pictures[:: max(1, len(pictures) // 60)]
                    ]
                )
            )
        )
        for kind in BLURS
    }
    jumps = [s for f in findings(darker) if f.name == "exposure" for s in f.stretches]
    numbers = look_at(_set((images, name, rate)))[0].numbers
    return {
        "place": place,
        "drive": name,
        "as it is": [finding.what for finding in findings(images) if finding.counts],
        "blurred": blurred,
        "jump found": any(
            numbers[item.first] - 5 <= middle <= numbers[item.last] + 5 for item in jumps
        ),
        "other jumps": max(0, len(jumps) - 1),
        "minutes": len(images) / rate / 60 if rate else None,
    }


def measure_things(shared: Path, place: str, name: str, out: Path) -> Mapping[str, Any]:
    """Return which stretches with people in a drive stand out, and how much of the rest does."""
    drive = read_drive(shared, place, name, out)
    images = _small(shared, place, name, out)
    runs = _strange(_set((images, name, drive.rate)), _encoder())
    is_thing = np.array([label != "normal" for label in drive.labels])
    flagged = np.zeros(len(images), bool)
    for first, last in runs:
        flagged[first : last + 1] = True
    return {
        "place": place,
        "drive": name,
        "frames with things": int(is_thing.sum()),
        "of these in stretches": float(flagged[is_thing].mean()) if is_thing.any() else None,
        "of the others": float(flagged[~is_thing].mean()),
    }


def measure_route(
    shared: Path, place: str, parts: Sequence[tuple[str, int, int]], out: Path
) -> Mapping[str, Any]:
    """Return what is said of the route of parts of drives."""
    sets = [
        (_small(shared, place, name, out)[first:end], name, PLACES[place][name])
        for name, first, end in parts
    ]
    check = check_drive(_set(*sets))
    assert check.curve is not None
    return {
        "place": place,
        "parts": " + ".join(f"{name} {first}-{end}" for name, first, end in parts),
        "seen again": check.route.share,
        "flagged": check.curve.means[-2:].tolist(),
        "falls": check.curve.falls,
        "verdict": check.verdict,
    }


def measure_time() -> Mapping[str, float]:
    """Return how long a drive of 75 s at 30 Hz takes, seconds; JPEG at 640x480."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (60, 400, 3), np.uint8)
    wall = np.asarray(cv2.resize(noise, (6400, 480)), np.uint8)
    views = [np.ascontiguousarray(wall[:, x : x + 640]) for x in range(0, 5760, 4)]
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder, "frames")
        write_jpegs(frames, views, 2250, 85)
        source = open_source(frames)
        source.view = source.view.__class__(size=SIZE)
        start = time.perf_counter()
        opened = open_frame_set([str(frames)], view=source.view, cache=Path(folder, "cache"))
        read = time.perf_counter()
        check_drive(opened, fps=30, curve=False)
        quick = time.perf_counter()
        check_drive(opened, fps=30, encode=open_imagenet())
        return {
            "read": read - start,
            "quick part": quick - read,
            "all parts": time.perf_counter() - quick,
        }


def _is_blurred(kind: str, found: Mapping[str, Any]) -> bool:
    return bool(found["blurred"][kind])


FAULT_ROWS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    **{f"{kind}, all along: found": partial(_is_blurred, kind) for kind in BLURS},
    "0.7 times as bright from the middle on: found": lambda f: f["jump found"],
    "none, but a fault is found": lambda f: bool(f["as it is"]),
}


def _share(values: Sequence[bool]) -> str:
    return f"{sum(values)} of {len(values)}"


def _insertions(
    rows: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]
) -> Iterator[list[str]]:
    for kind in INSERTED:
        yield [
            kind,
            *(
                _share([hit for row in rows if row["place"] in group for hit in row["found"][kind]])
                for group in groups.values()
            ),
        ]
    yield [
        "false stretches in clean drives",
        *(
            f"{sum(len(row['clean stretches']) for row in own)} in {len(own)}"
            for group in groups.values()
            for own in [[row for row in rows if row["place"] in group]]
        ),
    ]


def _measure(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], bool]:
    shared, out = arguments.shared, arguments.frames
    groups = {"chosen on": CHOSEN_ON, "tested on": TESTED_ON}
    seconds = measure_time()
    print(", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()), flush=True)
    stretches = [
        measure_stretches(shared, place, name, out)
        for place in (*CHOSEN_ON, *TESTED_ON)
        for name in PLACES[place]
    ]
    print_table(["inserted", *groups], _insertions(stretches, groups))
    drives = [(place, name) for place in (*CHOSEN_ON, *TESTED_ON) for name in PLACES[place]]
    faults = [measure_faults(shared, *drive, out) for drive in drives]
    print_table(
        ["fault of the drive", *groups],
        (
            [
                title,
                *(_share([test(f) for f in faults if f["place"] in g]) for g in groups.values()),
            ]
            for title, test in FAULT_ROWS.items()
        ),
    )
    things = [
        measure_things(shared, *drive, out)
        for drive in (("donkeycar_track", "lap2"), ("nao_canteen", "run1"), ("nao_canteen", "run2"))
    ]
    print_table(
        ["drive with people", "frames with them", "in stretches", "other frames"],
        (
            [
                f"{item['place']} {item['drive']}",
                str(item["frames with things"]),
                f"{item['of these in stretches']:.0%}",
                f"{item['of the others']:.0%}",
            ]
            for item in things
        ),
    )
    routes = [
        {"laps": laps, **measure_route(shared, place, parts, out)}
        for laps, cases in LAPS.items()
        for place, parts in cases
    ]
    print_table(
        ["parts of drives", "laps", "seen more than once", "flagged, knowing half and all"],
        (
            [
                f"{r['place']} {r['parts']}",
                r["laps"],
                f"{r['seen again']:.0%}",
                " and ".join(f"{s:.0%}" for s in r["flagged"]),
            ]
            for r in routes
        ),
    )
    tested = [row for row in stretches if row["place"] in TESTED_ON]
    large = [hit for row in tested for kind in LARGE for hit in row["found"][kind]]
    right = [
        (route["seen again"] >= TWICE) == (route["laps"] == "more")
        for route in routes
        if route["place"] in TESTED_ON
    ]
    total = seconds["read"] + seconds["all parts"]
    figures = {
        "seconds": seconds,
        "stretches": stretches,
        "faults": faults,
        "things": things,
        "routes": routes,
    }
    return figures, judge(
        {
            f"75 s at 30 Hz checked in {total:.1f} s, at most 20 s": total <= 20,
            f"large things found {np.mean(large):.0%}, at least 80 %": np.mean(large) >= 0.8,
            f"routes judged rightly {_share(right)}, all": all(right),
        }
    )


def main() -> int:
    """Run the command line."""
    parser = options(__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), metavar="FOLDER")
    parser.add_argument("--frames", type=Path, default=Path("build/drives"), metavar="FOLDER")
    return run(parser, _measure)


if __name__ == "__main__":
    sys.exit(main())
