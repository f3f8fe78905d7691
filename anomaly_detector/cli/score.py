"""``python -m anomaly_detector score``: recordings in, CSV files of scores and alarms out."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from anomaly_detector.alarms.alarm_filter import AlarmSettings, add_alarm_arguments, alarm_settings
from anomaly_detector.black_box.offline import EventRecorder, check_events_folder
from anomaly_detector.cli.arguments import (
    add_pose_arguments,
    add_recordings,
    add_shared,
    add_view_arguments,
    given_view,
    pose_settings,
)
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import output_files
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.recordings import expand_sources, open_source, read_poses, warn_unreadable
from anomaly_detector.scoring.fleet.job import FleetOptions, score_fleet
from anomaly_detector.scoring.fleet.report import summary_table
from anomaly_detector.scoring.stream import BATCH_SIZE
from anomaly_detector.scoring.tables import write_scores

_MAX_NAMED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add_shared(parser, "--model")
    purpose = "image folders, bags or videos to score, or quoted patterns such as 'runs/*'"
    add_recordings(parser, "--input", purpose, required=True)
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("--output", "--out", type=Path, help="CSV file to write, of one recording")
    output.add_argument(
        "--output-dir", type=Path, metavar="DIR",
        help="folder for the tables of many recordings, a summary and a report; run again after "
        "a break, it goes on where it stopped",
    )  # fmt: skip
    parser.add_argument(
        "--events", type=Path, help="with --output: CSV file for the alarms, one row each"
    )
    parser.add_argument(
        "--regions", type=Path,
        help="with --output: CSV file for the boxes around what is anomalous, in pixels of the "
        "camera's frame, one row each",
    )  # fmt: skip
    parser.add_argument(
        "--events-dir", type=Path, metavar="DIR",
        help="folder for recorded events, as the node's black box writes them; of many recordings "
        "one folder each",
    )  # fmt: skip
    add_shared(parser, "--topic")
    parser.add_argument(
        "--fps", type=float, help="frames a second of an image folder, which has no time stamps"
    )
    add_shared(parser, "--threshold", "--providers")
    parser.add_argument(
        "--workers", type=int,
        help="processor cores to use (default: all); with --scheduler, threads for each recording "
        "(default: 1). The tables do not depend on it",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE,
        help="frames a run of the network (default %(default)s); 1 is slower and gives the node's "
        "scores to the last digit",
    )  # fmt: skip
    parser.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="with --output-dir: score on a Dask cluster, such as tcp://10.0.0.5:8786",
    )  # fmt: skip
    parser.add_argument(
        "--retries", type=int, default=1,
        help="with --output-dir: times that a recording is tried again after an error "
        "(default %(default)s)",
    )  # fmt: skip
    add_view_arguments(parser)
    add_pose_arguments(parser)
    add_alarm_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code: 1 when a recording could not be scored."""
    decision = alarm_settings(arguments)
    sources = expand_sources(arguments.input)
    model = resolve_model(arguments.model)
    if arguments.output_dir is not None:
        return _score_many(arguments, model, sources, decision)
    if len(sources) > 1:
        raise AnomalyDetectorError(
            f"--output {arguments.output} is for one recording, --input gives {len(sources)}: "
            "give --output-dir DIR"
        )
    if arguments.scheduler is not None:
        raise AnomalyDetectorError(
            f"--scheduler {arguments.scheduler} works with --output-dir DIR, not with --output"
        )
    with output_files(arguments.output, arguments.events, arguments.regions):
        return _score_one(arguments, model, sources[0], decision)


def _score_one(
    arguments: argparse.Namespace, model: Path, path: str, decision: AlarmSettings
) -> int:
    source = open_source(path, arguments.topic)
    poses = read_poses(Path(path), pose_settings(arguments))
    detector = Detector(
        model,
        providers=arguments.providers,
        threshold=arguments.threshold,
        view=given_view(arguments, model),
    )
    recorder = None
    if arguments.events_dir is not None:
        check_events_folder(arguments.events_dir)
        for table in filter(None, (arguments.output, arguments.events, arguments.regions)):
            if table.resolve().is_relative_to(arguments.events_dir.resolve()):
                raise AnomalyDetectorError(
                    f"{table} lies in --events-dir {arguments.events_dir}, which holds events "
                    "alone: name another folder for one of them"
                )
        recorder = EventRecorder(detector, poses)
    start = time.perf_counter()
    summary = write_scores(
        detector,
        source,
        arguments.output,
        decision=decision,
        events=arguments.events,
        regions=arguments.regions,
        poses=poses,
        recorder=recorder,
        fps=arguments.fps,
        workers=arguments.workers,
        batch_size=arguments.batch_size,
    )
    rate = summary.scored / (time.perf_counter() - start)
    if recorder is not None:
        count = recorder.write(source, arguments.events_dir)
        print(f"{arguments.events_dir}: {count} events")
    warn_unreadable(path, summary.skipped)
    if summary.without_stamp:
        print(
            f"warning: {summary.without_stamp} frames have no time stamp (zero, negative, or a "
            "second of nanoseconds): set it in the camera driver",
            file=sys.stderr,
        )
    for text in [*(item.text for item in summary.scene), *(item.text for item in summary.camera)]:
        print(f"warning: {text}", file=sys.stderr)
    print(
        f"{arguments.output}: {summary.scored} frames scored, {summary.flagged} anomalous at "
        f"threshold {detector.threshold:.6g}, {summary.alarms} alarms, "
        f"{summary.unreadable} unreadable, {rate:.0f} frames/s"
    )
    return 0


def _score_many(
    arguments: argparse.Namespace, model: Path, sources: list[str], decision: AlarmSettings
) -> int:
    if arguments.events is not None:
        raise AnomalyDetectorError(
            f"--events {arguments.events} goes with --output: --output-dir has a table of alarms "
            "for each recording"
        )
    if arguments.regions is not None:
        raise AnomalyDetectorError(
            f"--regions {arguments.regions} goes with --output, not with --output-dir: score the "
            "recordings of interest one by one"
        )
    start = time.perf_counter()
    job = score_fleet(
        FleetOptions(
            sources,
            model,
            arguments.output_dir,
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            retries=arguments.retries,
            topic=arguments.topic,
            fps=arguments.fps,
            threshold=arguments.threshold,
            view=given_view(arguments, model),
            providers=arguments.providers,
            decision=decision,
            batch_size=arguments.batch_size,
            pose=pose_settings(arguments),
            events_dir=arguments.events_dir and os.path.realpath(arguments.events_dir),
        )
    )
    for result in job.results:
        if result.skipped:
            print(f"warning: {result.source}: {result.skipped}", file=sys.stderr)
        if result.scene:
            print(f"warning: {result.source}: {result.scene}", file=sys.stderr)
    print(summary_table(job.results))
    print(
        f"{arguments.output_dir}: threshold {job.threshold:.6g}, {job.kept} recordings kept from "
        f"an earlier run, {time.perf_counter() - start:.1f} s"
    )
    if job.failed:
        for result in job.failed[:_MAX_NAMED]:
            print(f"warning: {result.name} failed: {result.error}", file=sys.stderr)
        raise AnomalyDetectorError(
            f"{len(job.failed)} of {len(job.results)} recordings could not be scored, see "
            f"{arguments.output_dir / 'summary.csv'}: run the same command again to try just these"
        )
    return 0
