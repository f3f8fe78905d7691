"""Time of the resize to 64x64 for each frame size, and its difference to true area averaging.

Run it from the checkout, alone on the machine:

    python -m benchmarks.resize
    python -m benchmarks.resize --frames recordings/lap1 recordings/corridor

One core, frames in memory. The reference is ``cv2.INTER_AREA`` straight from the frame, rounded to
whole grey levels like the result. The frames are rendered corridors (as sharp as their pixels, with
sensor noise) at each size, and those of the recordings that are named: at their own size, and
enlarged to each size, as a camera with a soft lens gives them.

A second table does the same for JPEG of quality 90: decoded in full and at reduced scale, with the
resize in the time, and the difference to full decoding and true area averaging.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.compressed import decode_encoded_bytes
from anomaly_detector.images.image import Image, to_rgb
from anomaly_detector.images.preprocessing import INPUT_SIZE, RESIZE_METHOD, preprocess
from anomaly_detector.recordings import open_source
from training.data.corridor import HAZARD_LABELS, CorridorDrive

SIZES = (
    *("160x120", "320x240", "512x512", "640x360", "640x480", "641x479", "848x480", "1024x768"),
    *("1280x720", "1917x1079", "1920x1080", "480x640", "720x1280", "1080x1920"),
)

_Picture = NDArray[np.uint8]


def _true_area(frame: _Picture) -> _Picture:
    small = cv2.resize(frame, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _microseconds(call: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def _difference(frames: Sequence[_Picture]) -> dict[str, float]:
    differences = [
        np.abs(preprocess(Image(frame, "rgb")).astype(int) - _true_area(frame)) for frame in frames
    ]
    return _summary(differences)


def _summary(differences: Sequence[NDArray[np.int_]]) -> dict[str, float]:
    return {
        "mean": round(float(np.mean(differences)), 2),
        "worst_frame_mean": round(max(float(item.mean()) for item in differences), 2),
        "max": int(np.max(differences)),
    }


def _jpeg(frame: _Picture) -> bytes:
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(data.tobytes())


def _decoded(data: bytes, reduced: bool) -> _Picture:
    return preprocess(decode_encoded_bytes(data, "frame", reduced=reduced))


def _jpeg_difference(frames: Sequence[_Picture]) -> dict[str, float]:
    files = [_jpeg(frame) for frame in frames]
    wholes = [to_rgb(decode_encoded_bytes(data, "frame")) for data in files]
    return _summary(
        [
            np.abs(_decoded(data, True).astype(int) - _true_area(whole))
            for data, whole in zip(files, wholes, strict=True)
        ]
    )


def _rendered(width: int, height: int, count: int) -> list[_Picture]:
    drive = CorridorDrive(count, hazards=list(HAZARD_LABELS), width=width, height=height)
    return [np.asarray(frame.image, np.uint8) for frame in drive]


def _recorded(path: Path, count: int) -> list[_Picture]:
    source = open_source(path)
    step = max(1, len(source) // count)
    return [to_rgb(frame.pixels) for index, frame in enumerate(source) if index % step == 0]


def _enlarged(frame: _Picture, width: int, height: int) -> _Picture:
    larger = width >= frame.shape[1] and height >= frame.shape[0]
    method = cv2.INTER_CUBIC if larger else cv2.INTER_AREA
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method), np.uint8)


def measure(sizes: Sequence[str], folders: Sequence[Path], count: int, rounds: int) -> Any:
    """Return the figures of each size as a list of JSON objects."""
    cv2.setNumThreads(1)
    recordings = {folder.name: _recorded(folder, count) for folder in folders}
    rows = []
    for size in sizes:
        width, height = (int(number) for number in size.split("x"))
        rendered = _rendered(width, height, count)
        frame = rendered[0]
        pixels = Image(frame, "rgb")
        row: dict[str, Any] = {
            "size": size,
            "resize_us": round(_microseconds(partial(preprocess, pixels), rounds)),
            "area_us": round(_microseconds(partial(_true_area, frame), max(5, rounds // 10))),
            "rendered": _difference(rendered),
        }
        data = _jpeg(frame)
        row["jpeg"] = {
            "scale": decode_encoded_bytes(data, "frame", reduced=True).scale,
            "full_us": round(_microseconds(partial(_decoded, data, False), rounds // 4)),
            "reduced_us": round(_microseconds(partial(_decoded, data, True), rounds // 4)),
            "rendered": _jpeg_difference(rendered),
        }
        for name, frames in recordings.items():
            resized = [_enlarged(item, width, height) for item in frames]
            row[name] = _difference(resized)
            row["jpeg"][name] = _jpeg_difference(resized)
        rows.append(row)
    own = {name: _difference(frames) for name, frames in recordings.items()}
    return {
        "method": RESIZE_METHOD,
        "opencv": cv2.__version__,
        "load": round(os.getloadavg()[0], 2),
        "sizes": rows,
        "own_size": own,
    }


def main() -> int:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--frames", nargs="*", type=Path, default=[], metavar="RECORDING",
        help="real recordings to compare on, too (image folder, bag or video)",
    )  # fmt: skip
    parser.add_argument("--sizes", nargs="*", default=SIZES, metavar="WxH")
    parser.add_argument("--count", type=int, default=12, help="frames of each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="timed calls (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = measure(arguments.sizes, arguments.frames, arguments.count, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    names = ["rendered", *figures["own_size"]]
    print(f"{figures['method']}, OpenCV {figures['opencv']}, one core, load {figures['load']}")
    print("difference to true area averaging in grey levels: mean / worst frame's mean / maximum")
    print(f"{'size':>10} {'resize':>8} {'area':>8}" + "".join(f"  {name:>18}" for name in names))
    for row in figures["sizes"]:
        cells = "".join(f"  {_cell(row[name]):>18}" for name in names)
        print(f"{row['size']:>10} {row['resize_us']:>5} us {row['area_us']:>5} us{cells}")
    print("JPEG: decoded and resized")
    print(f"{'size':>10} {'full':>8} {'reduced':>13}" + "".join(f"  {name:>18}" for name in names))
    for row in figures["sizes"]:
        jpeg = row["jpeg"]
        cells = "".join(f"  {_cell(jpeg[name]):>18}" for name in names)
        reduced = f"1/{jpeg['scale']} {jpeg['reduced_us']:>5} us"
        print(f"{row['size']:>10} {jpeg['full_us']:>5} us {reduced:>13}{cells}")
    for name, difference in figures["own_size"].items():
        print(f"{name} at its own size: {_cell(difference)}")
    return 0


def _cell(difference: dict[str, float]) -> str:
    return f"{difference['mean']:.2f} / {difference['worst_frame_mean']:.2f} / {difference['max']}"


if __name__ == "__main__":
    sys.exit(main())
