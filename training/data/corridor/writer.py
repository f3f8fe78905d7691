"""Renders drives in parallel and writes them as image folders with truth."""

from __future__ import annotations

import csv
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import cv2
from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory
from training.data.corridor.drive import CorridorDrive, CorridorFrame

_CHUNK = 8
_JPEG_QUALITY = 95
_HEADER = ("frame", "stamp_ns", "label", "hazard", "distance_m", "visible_fraction")

_drive: CorridorDrive | None = None


def render_frames(drive: CorridorDrive, workers: int | None = None) -> Iterator[CorridorFrame]:
    """Render a drive in parallel, in order, with a bounded number of frames in memory.

    Args:
        drive: what to render.
        workers: number of processes; None for one per core, 1 to render in this process.

    Yields:
        The frames 0, 1, 2, ...; the same whatever `workers` is.

    Raises:
        AnomalyDetectorError: `workers` is below 1.
    """
    count = _worker_count(drive, workers)
    if count == 1:
        yield from drive
        return
    chunks = [(i, min(i + _CHUNK, len(drive))) for i in range(0, len(drive), _CHUNK)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(count, initializer=_start_worker, initargs=(drive,)) as pool:
        pending = deque(pool.apply_async(_render_chunk, (c,)) for c in chunks[: 2 * count])
        coming = iter(chunks[2 * count :])
        while pending:
            frames = pending.popleft().get()
            following = next(coming, None)
            if following is not None:
                pending.append(pool.apply_async(_render_chunk, (following,)))
            yield from frames


def _worker_count(drive: CorridorDrive, workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise AnomalyDetectorError(f"workers is {workers}: give at least 1")
    wanted = workers if workers is not None else os.cpu_count() or 1
    # A worker has to build the corridor first: not worth it for a few frames.
    return max(1, min(wanted, len(drive) // (4 * _CHUNK)))


def _start_worker(drive: CorridorDrive) -> None:
    global _drive
    cv2.setNumThreads(1)
    _drive = drive


def _render_chunk(chunk: tuple[int, int]) -> list[CorridorFrame]:
    assert _drive is not None
    return [_drive.frame(i) for i in range(*chunk)]


def write_drive(
    drive: CorridorDrive,
    out: Path,
    *,
    workers: int | None = None,
    image_format: str = "jpg",
    progress: bool = True,
) -> None:
    """Write a drive as a folder of images with masks and labels.

    The folder has `000000.jpg` and so on, `masks/000000.png` (0 or 255) for each frame with a
    hazard, and `labels.csv` with the columns frame, stamp_ns, label, hazard, distance_m (empty for
    a normal frame) and visible_fraction (share of the frame that the mask covers). It appears
    under its name when it is complete.

    Args:
        drive: what to render and write.
        out: the folder to make; it may exist if it is empty.
        workers: number of processes; None for one per core.
        image_format: "jpg" (quality 95) or "png".
        progress: show a progress bar on stderr.

    Raises:
        OutputError: `out` exists and is not an empty folder, or cannot be written.
        AnomalyDetectorError: an argument is wrong.
    """
    if image_format not in ("jpg", "png"):
        raise AnomalyDetectorError(f"image format is {image_format!r}: choose jpg or png")
    _worker_count(drive, workers)
    frames = tqdm(
        render_frames(drive, workers),
        total=len(drive),
        unit="frame",
        file=sys.stderr,
        disable=not progress,
    )
    with atomic_directory(out) as folder, (folder / "labels.csv").open("w", newline="") as file:
        masks = folder / "masks"
        masks.mkdir()
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_HEADER)
        for index, frame in enumerate(frames):
            name, distance = f"{index:06d}.{image_format}", ""
            _save(folder / name, cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
            if frame.label:
                _save(masks / f"{index:06d}.png", frame.mask.astype("uint8") * 255)
                distance = f"{frame.distance_m:.3f}"
            truth = (frame.stamp_ns, frame.label, frame.hazard, distance)
            table.writerow((name, *truth, f"{frame.mask.mean():.5f}"))


def _save(path: Path, image: cv2.typing.MatLike) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise AnomalyDetectorError(f"{path} cannot be encoded")
    path.write_bytes(data.tobytes())
