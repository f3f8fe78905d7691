"""``python -m training encode``: frames in, their codes out (thesis 5.16)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.cli.arguments import add_view_arguments, given_view
from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.files import check_output_file
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.recordings import (
    BagSource,
    FrameSource,
    count_frames,
    is_bag,
    open_source,
    warn_unreadable,
)
from anomaly_detector.recordings.cache import CachedFrames, cache_frames
from training.data.labels import FrameLabels, read_labels
from training.data.latents import UNKNOWN_LABEL, CodeModel, FrameTable, write_codes
from training.evaluation.evaluate import frame_names

_BATCH = 256

_Truth: TypeAlias = dict[str, tuple[int, str, int | None]]
"""Frame name to label, class name and stamp."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--model", required=True, help="model file, or name of a shipped model")
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="SOURCE",
        help="recordings: image folders, rosbag2 folders or files, videos",
    )  # fmt: skip
    parser.add_argument(
        "--labels", nargs="+", default=[], metavar="CSV",
        help="truth per frame, one file per recording in the same order (default: not known)",
    )  # fmt: skip
    parser.add_argument("--topic", help="image topic, for bags with several")
    add_view_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="file to write (.npz)")
    parser.add_argument("--cache", type=Path, help="folder for resized frames (default ~/.cache)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    out: Path = arguments.out
    if out.suffix != ".npz":
        raise AnomalyDetectorError(f"--out {out} does not end with .npz: name a NumPy archive")
    if arguments.labels and len(arguments.labels) != len(arguments.data):
        raise AnomalyDetectorError(
            f"{len(arguments.data)} --data and {len(arguments.labels)} --labels: give one labels "
            "file per recording, in the same order, or none"
        )
    check_output_file(out)
    path = resolve_model(arguments.model)
    model = CodeModel(path, given_view(arguments, path))
    sources = [
        open_source(source, arguments.topic if is_bag(Path(source)) else None)
        for source in arguments.data
    ]
    if arguments.topic and not any(isinstance(source, BagSource) for source in sources):
        raise AnomalyDetectorError(
            f"--topic {arguments.topic}: none of the recordings is a bag: leave the topic out"
        )
    # Labels of another recording are told before hours of reading.
    truths: list[_Truth | None] = [
        _truth(source, read_labels(path))
        for source, path in zip(sources, arguments.labels, strict=False)
    ] or [None] * len(sources)
    for source in sources:
        source.view = model.view
    parts = [cache_frames(source, arguments.cache) for source in sources]
    frames = _table(parts, truths)
    write_codes(out, frames, model, _vectors(model, parts, len(frames)))
    for part in parts:
        warn_unreadable(part.source, part.unreadable)
    unreadable = sum(count_frames(part.unreadable) for part in parts)
    print(
        f"{out}: {len(frames)} codes of {model.size} numbers"
        + (f", {unreadable} unreadable frames skipped" if unreadable else "")
    )
    return 0


def _truth(source: FrameSource, labels: FrameLabels) -> _Truth:
    """Return label, class name and stamp of every frame by its name."""
    # By all names, also of frames that cannot be read: labels without names go by order.
    names = frame_names(source)
    given, classes = labels.for_frames(names)
    stamps = labels.stamps_for_frames(names)
    return dict(zip(names, zip(given.tolist(), classes, stamps, strict=True), strict=True))


def _table(parts: Sequence[CachedFrames], truths: Sequence[_Truth | None]) -> FrameTable:
    names: list[str] = []
    stamps_ns: list[int | None] = []
    labels: list[int] = []
    classes: list[str] = []
    class_of: dict[int, str] = {}
    for part, truth in zip(parts, truths, strict=True):
        for name, own_stamp in zip(part.names, part.stamps_ns, strict=True):
            label, class_name, stamp = (UNKNOWN_LABEL, "", None) if truth is None else truth[name]
            if class_of.setdefault(label, class_name) != class_name:
                raise SourceError(
                    f"label {label} is {class_of[label]!r} in one labels file and {class_name!r} "
                    f"in that of {part.source}: number the classes alike in all files"
                )
            names.append(name)
            stamps_ns.append(stamp if own_stamp is None else own_stamp)
            labels.append(label)
            classes.append(class_name)
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return FrameTable(numbers, names, stamps_ns, np.array(labels, np.int64), classes)


def _vectors(
    model: CodeModel, parts: Sequence[CachedFrames], count: int
) -> Iterator[NDArray[np.float32]]:
    with tqdm(total=count, desc="encoding", unit="frame") as bar:
        for part in parts:
            for start in range(0, len(part), _BATCH):
                batch = np.asarray(part.images[start : start + _BATCH])
                yield model.encode(batch)
                bar.update(len(batch))
