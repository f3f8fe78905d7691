"""``python -m training demo``: from a normal drive to flags on live camera frames.

Trains on a normal drive, starts the real node in its own process, replays another drive to it as a
rosbag over DDS, collects what it publishes, and draws the scores. Without recordings of the user's
own, both drives are rendered: a synthetic corridor, and the same corridor with hazards.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.detector import Detector
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.image import Pixels, to_rgb
from anomaly_detector.scoring import score_frames
from anomaly_detector.sources import BagSource, is_bag, list_image_topics, open_source
from anomaly_detector.timeline import Thumbnail, draw_timeline, flag_intervals, top_frames
from training.labels import read_labels
from training.metrics import Event, area_under_roc, find_events
from training.options import SCORERS, TrainOptions
from training.train import train

if TYPE_CHECKING:
    from anomaly_detector.ros.collector import CollectedDetection

__all__ = ["add_arguments", "run"]

_NODE = "/anomaly_demo/anomaly_detector"
_HAZARDS = ("boxes", "water", "human", "cable", "cones", "hanging_cable", "trolley", "defects")
_NORMAL_FRAMES = 700
_HAZARD_FRAMES = 500

# A demo is to be over soon: a third of the training that 'training train' gives by default.
_EPOCHS = 60
_EXPOSURE_EPOCHS = 6
_TRAINING_SECONDS = 150.0
_THESIS_SECONDS = 20.0
_READY_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 10.0
_EXIT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class _Drives:
    """What to train on and what to replay; ``labels`` is the truth of the replay, if known."""

    normal: Path
    replay: Path
    labels: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder for results (default %(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="SOURCE",
        help="your own normal drive: bag, image folder or video (default: a rendered one)",
    )  # fmt: skip
    parser.add_argument(
        "--replay", type=Path, metavar="BAG", help="the drive to replay to the node: a rosbag2"
    )
    parser.add_argument(
        "--labels", type=Path, help="labels.csv of the replayed drive, if there is one"
    )
    parser.add_argument("--topic", help="image topic, for bags with more than one")
    parser.add_argument(
        "--scorer", choices=tuple(SCORERS), default=next(iter(SCORERS)), help="default %(default)s"
    )
    parser.add_argument(
        "--anomalies", nargs="+", default=[], metavar="SOURCE",
        help="recordings of anomalies, for scorers that learn from them",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line; gives the exit code: 1 when a frame was lost on the way."""
    out: Path = arguments.out
    start = time.monotonic()
    if (arguments.data is None) != (arguments.replay is None):
        raise AnomalyDetectorError(
            "a demo with your own drives needs both: --data NORMAL_DRIVE --replay OTHER_DRIVE_BAG"
        )
    if arguments.data is None:
        drives = _render(out, arguments.seed)
    else:
        drives = _Drives(arguments.data, arguments.replay, arguments.labels)
    replay = open_source(drives.replay, arguments.topic)
    if not isinstance(replay, BagSource):
        raise AnomalyDetectorError(f"{drives.replay} is not a bag: only a rosbag2 can be replayed")

    print(f"\n[2/4] Training on {drives.normal}")
    model = out / "model.onnx"
    options = TrainOptions(
        [str(drives.normal)],
        model,
        topic=arguments.topic if is_bag(drives.normal) else None,
        scorer=arguments.scorer,
        anomalies=arguments.anomalies,
        epochs=_EPOCHS,
        exposure_epochs=_EXPOSURE_EPOCHS,
        time_limit=_TRAINING_SECONDS,
        seed=arguments.seed,
    )
    train(options)
    thesis = None
    if drives.labels is not None and arguments.scorer != "reconstruction":
        thesis = out / "thesis.onnx"
        train(
            replace(
                options,
                out=thesis,
                scorer="reconstruction",
                anomalies=(),
                time_limit=_THESIS_SECONDS,
            )
        )

    print(f"\n[3/4] Replaying {drives.replay} to the node over ROS 2")
    detections = _replay_through_node(model, replay)

    print("\n[4/4] Results")
    passed = _report(replay, Detector(model), detections, drives.labels, out)
    if thesis is not None and drives.labels is not None:
        auc = _offline_auc(replay, Detector(thesis), drives.labels)
        print(f"  for comparison, the thesis' way (v5 + reconstruction): ROC-AUC {auc:.3f}")
    print(f"  done in {time.monotonic() - start:.0f} s")
    return 0 if passed else 1


def _render(out: Path, seed: int) -> _Drives:
    from training.corridor import CorridorDrive, write_drive
    from training.corridor_command import write_drive_bag

    print("[1/4] Rendering a normal drive, and one with hazards, through the same corridor")
    normal, hazardous = out / "normal_drive", out / "hazardous_drive"
    for folder in (normal, hazardous):
        # Drives of an earlier demo; nothing else has these names in a folder of ours.
        if (folder / "labels.csv").is_file():
            shutil.rmtree(folder)
    write_drive(CorridorDrive(_NORMAL_FRAMES, seed, drive=0), normal)
    drive = CorridorDrive(_HAZARD_FRAMES, seed, drive=1, hazards=_HAZARDS)
    write_drive(drive, hazardous)
    bag = write_drive_bag(hazardous)
    return _Drives(normal, bag, hazardous / "labels.csv")


def _replay_through_node(model: Path, replay: BagSource) -> list[CollectedDetection]:
    """Start the node and the player, each in its own process, and collect what the node says."""
    from anomaly_detector.ros.collector import DetectionCollector
    from anomaly_detector.ros.dds import large_image_environment

    kind = list_image_topics(replay.path)[replay.topic][0]
    transport = "compressed" if kind.endswith("CompressedImage") else "raw"
    namespace, name = _NODE.rsplit("/", 1)
    image = f"{namespace}/image" + ("/compressed" if transport == "compressed" else "")
    parameters = ("-p", f"model:={model}", "-p", f"image_transport:={transport}")
    node_command = [
        sys.executable, "-m", "anomaly_detector.ros.detector_node", "--ros-args",
        "-r", f"__ns:={namespace}", "-r", f"__node:={name}", *parameters,
    ]  # fmt: skip
    player_command = [
        sys.executable, "-m", "anomaly_detector", "play", str(replay.path),
        "--topic", replay.topic, "--output-topic", image,
    ]  # fmt: skip
    environment = large_image_environment(os.environ)
    with DetectionCollector(_NODE) as collector, _process(node_command, environment) as node:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not collector.wait_for_node(timeout=0.5):
            if node.poll() is not None or time.monotonic() > deadline:
                raise AnomalyDetectorError(
                    "the detector node did not come up: its own message is above"
                )
        player = subprocess.run(player_command, env=environment, check=False)
        if player.returncode != 0:
            raise AnomalyDetectorError("the bag was not played: the player's message is above")
        collector.wait_for(len(replay), _ANSWER_TIMEOUT_S)
        return collector.detections()


@contextmanager
def _process(
    command: Sequence[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, end it as Ctrl-C would, and insist that it ends well."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code != 0:
        raise AnomalyDetectorError(
            f"the detector node ended with exit code {code}: its own message is above"
        )


def _report(
    replay: BagSource,
    detector: Detector,
    detections: Sequence[CollectedDetection],
    labels: Path | None,
    out: Path,
) -> bool:
    """Print the summary and draw the picture; gives whether every frame was answered."""
    by_stamp = {detection.stamp_ns: detection for detection in detections}
    names: list[str] = []
    stamps: list[int] = []
    same = 0
    for frame, offline in score_frames(detector, replay):
        names.append(frame.name)
        stamps.append(frame.stamp_ns or 0)
        live = by_stamp.get(stamps[-1])
        same += live is not None and np.float32(live.score) == np.float32(offline.score)
    answered = [by_stamp[stamp] for stamp in stamps if stamp in by_stamp]
    flagged = sum(detection.is_anomaly for detection in answered)
    latency = np.median([detection.inference_ms for detection in answered]) if answered else 0.0
    sent = len(stamps)
    print(f"  frames sent {sent}, answered {len(answered)}, lost {sent - len(answered)}")
    print(f"  node and offline scoring give the same score for {same} of {len(answered)}")
    print(f"  network time {latency:.2f} ms a frame (median)")
    print(f"  flagged {flagged} at threshold {detector.threshold:.4g}")
    events: list[Event] = []
    if labels is not None:
        numbers, classes = read_labels(labels).for_frames(names)
        events = find_events(numbers, dict(zip(numbers.tolist(), classes, strict=True)))
        _print_truth(stamps, by_stamp, numbers > 0, events)
    if answered:
        picture = out / "demo.png"
        _draw(replay, detector, stamps, by_stamp, events, picture)
        print(f"  picture  {picture}")
    print(f"  model    {detector.path}")
    return len(answered) == sent


def _print_truth(
    stamps: Sequence[int],
    by_stamp: Mapping[int, CollectedDetection],
    is_hazard: NDArray[np.bool_],
    events: Sequence[Event],
) -> None:
    answered = np.array([stamp in by_stamp for stamp in stamps])
    scores = np.array([by_stamp[s].score if s in by_stamp else np.nan for s in stamps])
    flagged = np.array([s in by_stamp and by_stamp[s].is_anomaly for s in stamps])
    seen = sum(bool(flagged[event.start : event.stop].any()) for event in events)
    hits, hazards = int((flagged & is_hazard).sum()), int(is_hazard.sum())
    false_alarms, normals = int((flagged & ~is_hazard).sum()), int((~is_hazard).sum())
    print(f"  hits {hits} of {hazards} hazard frames, {seen} of {len(events)} hazards seen")
    print(f"  false alarms {false_alarms} of {normals} normal frames")
    auc = area_under_roc(scores[answered], is_hazard[answered])
    print(f"  ROC-AUC {auc:.3f} (from scores, any hazard against normal)")


def _offline_auc(replay: BagSource, detector: Detector, labels: Path) -> float:
    """Give the ROC-AUC of a detector on the replayed drive, any hazard against normal."""
    scored = [(frame.name, result.score) for frame, result in score_frames(detector, replay)]
    numbers, _ = read_labels(labels).for_frames([name for name, _ in scored])
    return area_under_roc(np.array([score for _, score in scored]), numbers > 0)


def _draw(
    replay: BagSource,
    detector: Detector,
    stamps: Sequence[int],
    by_stamp: Mapping[int, CollectedDetection],
    events: Sequence[Event],
    picture: Path,
) -> None:
    """Draw the node's scores over time, and the frames with the highest ones."""
    answered = [by_stamp[stamp] for stamp in stamps if stamp in by_stamp]
    seconds = (np.array(stamps, np.float64) - stamps[0]) / 1e9
    answered_seconds = (np.array([d.stamp_ns for d in answered], np.float64) - stamps[0]) / 1e9
    scores = np.array([detection.score for detection in answered])
    last = float(seconds[-1])
    period = last / max(1, len(stamps) - 1)
    top = {answered[index].stamp_ns for index in top_frames(answered_seconds, scores)}
    thumbnails: list[Thumbnail] = []
    thumbnail_seconds: list[float] = []
    for frame, detection in score_frames(detector, replay):
        if frame.stamp_ns in top:
            second = float((frame.stamp_ns - stamps[0]) / 1e9)
            title = f"{second:.1f} s, score {detection.score:.4g}"
            thumbnails.append((title, _thumbnail(frame.pixels), detection.anomaly_map))
            thumbnail_seconds.append(second)
    draw_timeline(
        picture,
        answered_seconds,
        scores,
        detector.threshold,
        [
            (float(seconds[e.start]), min(last, float(seconds[e.stop - 1]) + period), e.name)
            for e in events
        ],
        thumbnails,
        alarms=flag_intervals(answered_seconds, np.array([d.alarm for d in answered])),
        title=f"What the node said of {replay.path}",
        score_label=textwrap.fill(f"Anomaly score ({detector.metadata.score_units})", 38),
        thumbnail_stamps_s=thumbnail_seconds,
    )


def _thumbnail(pixels: Pixels) -> NDArray[np.uint8]:
    """Give a small RGB copy for a thumbnail, uint8 [192, 192, 3]."""
    rgb = to_rgb(pixels)
    return np.asarray(cv2.resize(rgb, (192, 192), interpolation=cv2.INTER_AREA), np.uint8)
