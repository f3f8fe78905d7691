"""``python -m training demo``: from a normal drive to flags on live camera frames.

Trains on a normal drive, starts the real node in its own process, replays another drive to it as a
rosbag over DDS (:mod:`anomaly_detector.ros.replay`), and draws what it said. Without recordings of
the user's own, both drives are rendered: a synthetic corridor, and the same corridor with hazards.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.cli.arguments import add_recordings, add_shared
from anomaly_detector.drawing.timeline import TruthEvent
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import BagSource, is_bag, open_source
from anomaly_detector.ros.replay.command import replay_into
from anomaly_detector.ros.replay.comparison import Comparison
from anomaly_detector.ros.replay.picture import draw_replay
from anomaly_detector.ros.replay.session import ReplayOptions, ReplayResult
from training.config.options import DEFAULT_SCORER, TrainOptions
from training.data.labels import read_labels
from training.evaluation.metrics import Event, area_under_roc, find_events
from training.scorers.options import without_unused
from training.scorers.registry import scorers
from training.train import train

_REPLAY = "replay"
_HAZARDS = ("boxes", "water", "human", "cable", "cones", "hanging_cable", "trolley", "defects")
_NORMAL_FRAMES = 700
_HAZARD_FRAMES = 500

# A demo is to be over soon: less than half the training that 'training train' gives by default.
_EPOCHS = 60
_EXPOSURE_EPOCHS = 4
_TRAINING_SECONDS = 150.0
_THESIS_SECONDS = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder for results (default %(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="RECORDING",
        help="your own normal drive: bag, image folder or video (default: a rendered one)",
    )  # fmt: skip
    parser.add_argument(
        "--replay", type=Path, metavar="BAG", help="the drive to replay to the node: a rosbag2"
    )
    parser.add_argument(
        "--labels", type=Path, help="labels.csv of the replayed drive, if there is one"
    )
    add_shared(parser, "--topic")
    parser.add_argument(
        "--scorer", choices=tuple(scorers()), default=DEFAULT_SCORER, help="default %(default)s"
    )
    add_recordings(
        parser, "--anomalies", "recordings of anomalies, for scorers that learn from them"
    )
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code: 1 when a frame was lost on the way."""
    out: Path = arguments.out
    start = time.monotonic()
    if (arguments.data is None) != (arguments.replay is None):
        raise AnomalyDetectorError(
            "a demo with your own drives needs both: --data NORMAL_DRIVE --replay OTHER_DRIVE_BAG"
        )
    if arguments.data is None:
        normal, replay, labels = _render(out, arguments.seed)
    else:
        normal, replay, labels = arguments.data, arguments.replay, arguments.labels
    source = open_source(replay, arguments.topic)
    if not isinstance(source, BagSource):
        raise AnomalyDetectorError(f"{replay} is not a bag: only a rosbag2 can be replayed")

    print(f"\n[2/4] Training on {normal}")
    model = out / "model.onnx"
    options = TrainOptions(
        [str(normal)],
        model,
        topic=arguments.topic if is_bag(normal) else None,
        scorer=arguments.scorer,
        epochs=_EPOCHS,
        exposure_epochs=_EXPOSURE_EPOCHS,
        time_limit=_TRAINING_SECONDS,
        seed=arguments.seed,
    )
    train(replace(without_unused(options), anomalies=arguments.anomalies))
    thesis = None
    if labels is not None and arguments.scorer != "reconstruction":
        thesis = out / "thesis.onnx"
        changed = replace(options, out=thesis, scorer="reconstruction", time_limit=_THESIS_SECONDS)
        train(without_unused(changed))

    print(f"\n[3/4] Replaying {replay} to the node over ROS 2")
    # That of an earlier demo; nothing else in a folder of ours has such a report in it.
    if (out / _REPLAY / "report.html").is_file():
        shutil.rmtree(out / _REPLAY)
    result = replay_into(ReplayOptions(source.path, model, source.topic), out / _REPLAY)

    print("\n[4/4] Results")
    _report(result, labels, out)
    if thesis is not None and labels is not None:
        auc = _offline_auc(source, Detector(thesis), labels)
        print(f"  for comparison, the thesis' way (v5 + reconstruction): ROC-AUC {auc:.3f}")
    print(f"  done in {time.monotonic() - start:.0f} s")
    return 0 if result.is_complete else 1


def _render(out: Path, seed: int) -> tuple[Path, Path, Path]:
    from training.cli.data.corridor import write_drive_bag
    from training.data.corridor import CorridorDrive, write_drive

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
    return normal, bag, hazardous / "labels.csv"


def _report(result: ReplayResult, labels: Path | None, out: Path) -> None:
    """Print the summary and draw the picture."""
    comparison = result.comparison
    answered = comparison.answered
    count = len(answered)
    latency = np.median([answer.inference_ms for answer in answered]) if answered else 0.0
    print(f"  frames sent {result.sent}, answered {count}, lost {len(comparison.missing)}")
    same = count - len(comparison.other_scores)
    print(f"  node and offline scoring give the same score for {same} of {count}")
    print(f"  network time {latency:.2f} ms a frame (median)")
    flagged = sum(answer.is_anomaly for answer in answered)
    print(f"  flagged {flagged} at threshold {result.detector.threshold:.4g}")
    truth: list[TruthEvent] = []
    if labels is not None:
        numbers, classes = read_labels(labels).for_frames([f.name for f in comparison.frames])
        events = find_events(numbers, dict(zip(numbers.tolist(), classes, strict=True)))
        _print_truth(comparison, numbers > 0, events)
        truth = _spans(comparison, events)
    picture = out / "demo.png"
    if draw_replay(picture, result, truth):
        print(f"  picture  {picture}")
    print(f"  report   {out / _REPLAY / 'report.html'}")
    print(f"  model    {result.options.model}")


def _spans(comparison: Comparison, events: Sequence[Event]) -> list[TruthEvent]:
    """Return the true hazards in seconds since the first frame."""
    seconds = [frame.time_s for frame in comparison.frames]
    last = seconds[-1]
    period = last / max(1, len(seconds) - 1)
    return [
        (float(seconds[e.start]), min(last, float(seconds[e.stop - 1]) + period), e.name)
        for e in events
    ]


def _print_truth(
    comparison: Comparison, is_hazard: NDArray[np.bool_], events: Sequence[Event]
) -> None:
    answers = comparison.answers
    answered = np.array([answer is not None for answer in answers])
    scores = np.array([np.nan if answer is None else answer.score for answer in answers])
    flagged = np.array([answer is not None and answer.is_anomaly for answer in answers])
    seen = sum(bool(flagged[event.start : event.stop].any()) for event in events)
    hits, hazards = int((flagged & is_hazard).sum()), int(is_hazard.sum())
    false_alarms, normals = int((flagged & ~is_hazard).sum()), int((~is_hazard).sum())
    print(f"  hits {hits} of {hazards} hazard frames, {seen} of {len(events)} hazards seen")
    print(f"  false alarms {false_alarms} of {normals} normal frames")
    auc = area_under_roc(scores[answered], is_hazard[answered])
    print(f"  ROC-AUC {auc:.3f} (from scores, any hazard against normal)")


def _offline_auc(source: BagSource, detector: Detector, labels: Path) -> float:
    """Return the ROC-AUC of a detector on the replayed drive, any hazard against normal."""
    scored = [(frame.name, result.score) for frame, result in detector.stream(source)]
    numbers, _ = read_labels(labels).for_frames([name for name, _ in scored])
    return area_under_roc(np.array([score for _, score in scored]), numbers > 0)
