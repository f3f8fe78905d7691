"""``python -m training encode``: frames in, their codes out (thesis 5.16)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.cli.arguments import (
    add_recordings,
    add_shared,
    add_view_arguments,
    given_view,
)
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import check_output_file
from anomaly_detector.model.latents import LatentEncoder
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.recordings import (
    BagSource,
    count_frames,
    is_bag,
    open_source,
    warn_unreadable,
)
from anomaly_detector.recordings.cache import CachedFrames, cache_frames
from training.data.labels import FrameLabels, read_labels
from training.data.latents import FrameTable, write_latents
from training.data.opening import LabelledRecording, Truths, frame_names

_BATCH = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add_shared(parser, "--model", "--topic", "--cache")
    purpose = "recordings: image folders, rosbag2 folders or files, videos"
    add_recordings(parser, "--data", purpose, required=True)
    parser.add_argument(
        "--labels", nargs="+", default=[], metavar="CSV",
        help="truth per frame, one file per recording in the same order (default: not known)",
    )  # fmt: skip
    add_view_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="file to write (.npz)")


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
    model = LatentEncoder(path, given_view(arguments, path))
    sources = [
        open_source(source, arguments.topic if is_bag(Path(source)) else None)
        for source in arguments.data
    ]
    if arguments.topic and not any(isinstance(source, BagSource) for source in sources):
        raise AnomalyDetectorError(
            f"--topic {arguments.topic}: none of the recordings is a bag: leave the topic out"
        )
    labels: list[FrameLabels | None] = [read_labels(path) for path in arguments.labels]
    pairs = zip(sources, labels or [None] * len(sources), strict=True)
    recordings = [LabelledRecording(source, truth, class_name="") for source, truth in pairs]
    # Labels of another recording are told before hours of reading.
    truths = Truths(recordings)
    for source in sources:
        source.view = model.view
    parts = [cache_frames(source, arguments.cache) for source in sources]
    frames = _table(parts, recordings, truths)
    write_latents(out, frames, model, np.concatenate(list(_latents(model, parts))))
    for part in parts:
        warn_unreadable(part.source, part.unreadable)
    unreadable = sum(count_frames(part.unreadable) for part in parts)
    print(
        f"{out}: {len(frames)} codes of {model.size} numbers"
        + (f", {unreadable} unreadable frames skipped" if unreadable else "")
    )
    return 0


def _table(
    parts: Sequence[CachedFrames], recordings: Sequence[LabelledRecording], truths: Truths
) -> FrameTable:
    rows = []
    for number, (part, recording) in enumerate(zip(parts, recordings, strict=True)):
        # Among all frames, also those that cannot be read: labels without names go by order.
        places = {name: place for place, name in enumerate(frame_names(recording.source))}
        for name, own_stamp in zip(part.names, part.stamps_ns, strict=True):
            label, class_name, stamp = truths.of(number, places.get(name, len(places)), name)
            rows.append(
                (number, name, stamp if own_stamp is None else own_stamp, label, class_name)
            )
    numbers, names, stamps, labels, classes = map(list, zip(*rows, strict=True))
    return FrameTable(
        np.array(numbers, np.int64), names, stamps, np.array(labels, np.int64), classes
    )


def _latents(model: LatentEncoder, parts: Sequence[CachedFrames]) -> Iterator[NDArray[np.float32]]:
    with tqdm(total=sum(map(len, parts)), desc="encoding", unit="frame") as bar:
        for part in parts:
            for start in range(0, len(part), _BATCH):
                batch = np.asarray(part.images[start : start + _BATCH])
                yield model.encode(batch)
                bar.update(len(batch))
