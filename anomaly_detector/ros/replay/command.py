"""``python -m anomaly_detector replay``: a bag through the real node, on a host without ROS tools.

rclpy is imported when the replay starts: the command line can be built without ROS.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from anomaly_detector.alarms.alarm_filter import add_alarm_arguments, alarm_settings
from anomaly_detector.cli.arguments import add_shared, add_view_arguments, given_view
from anomaly_detector.drawing.page import import_jinja2
from anomaly_detector.drawing.timeline import import_matplotlib
from anomaly_detector.files import atomic_directory
from anomaly_detector.model.shipped import resolve_model
from anomaly_detector.ros.node.given_parameters import read_params_file
from anomaly_detector.ros.node.parameters import parameters_of
from anomaly_detector.ros.replay.comparison import frame_ranges
from anomaly_detector.ros.replay.picture import draw_replay
from anomaly_detector.ros.replay.report import write_replay_report
from anomaly_detector.ros.replay.session import ReplayOptions, ReplayResult, replay

_MAX_NAMED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap, .db3 or .bag file")
    add_shared(parser, "--model")
    parser.add_argument(
        "--out", "--output", type=Path, required=True, help="folder to write; must be new"
    )
    add_shared(parser, "--topic")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="speed, as a factor (default: %(default)s)"
    )
    add_shared(parser, "--threshold", "--providers")
    parser.add_argument(
        "--newest-only", action="store_true",
        help="subscribe as on a robot, where the newest frame wins and a slow machine leaves "
        "frames out, instead of letting frames wait in line",
    )  # fmt: skip
    parser.add_argument(
        "--allow-missing", action="store_true", help="frames without an answer are no error"
    )
    parser.add_argument(
        "--no-pictures", action="store_true", help="record no camera pictures and overlays"
    )
    parser.add_argument(
        "--domain-id", type=int, metavar="N",
        help="ROS_DOMAIN_ID to run in, to be looked at from outside (default: one of its own)",
    )  # fmt: skip
    parser.add_argument(
        "--node-name", default="/anomaly_detector", metavar="/NAME",
        help="of the node, with its namespace (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--params-file", type=Path, metavar="FILE",
        help="YAML file with the node's parameters; offline scoring takes its threshold, region, "
        "scaling, providers and alarm filter, too; options win",
    )  # fmt: skip
    parser.add_argument(
        "--storage", choices=("mcap", "sqlite3"), default="mcap",
        help="of the recorded bag (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--start-timeout", type=float, default=60.0, metavar="SECONDS",
        help="longest time for the node to become active (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--no-report", action="store_true", help="no report.html and no timeline.png"
    )
    parser.add_argument(
        "--no-dds-profile", action="store_true",
        help="leave the middleware as it is, without the profile for large images",
    )  # fmt: skip
    add_view_arguments(parser)
    add_alarm_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code: 1 when a frame is missing or differs."""
    model = resolve_model(arguments.model)
    node, params_file = arguments.node_name, arguments.params_file
    own = parameters_of({} if params_file is None else read_params_file(params_file, node))
    options = ReplayOptions(
        arguments.bag,
        model,
        topic=arguments.topic,
        rate=arguments.rate,
        threshold=own.threshold if arguments.threshold is None else arguments.threshold,
        view=given_view(arguments, model, own.view),
        providers=arguments.providers or own.providers,
        alarm=alarm_settings(arguments, own.alarm),
        newest_only=arguments.newest_only,
        pictures=not arguments.no_pictures,
        domain=arguments.domain_id,
        node_name=node,
        params_file=params_file,
        storage=arguments.storage,
        start_timeout_s=arguments.start_timeout,
        large_images=not arguments.no_dds_profile,
    )
    result = replay_into(options, arguments.out, report=not arguments.no_report)
    print("\n".join(summary_lines(result, arguments.out)))
    if not result.is_equal:
        print(
            f"error: the node and offline scoring differ: {result.comparison.scores_text}, "
            f"{len(result.comparison.other_anomalies)} flags and "
            f"{len(result.comparison.other_alarms)} alarms are others",
            file=sys.stderr,
        )
        return 1
    if not result.is_complete and not arguments.allow_missing:
        print(
            f"error: {len(result.comparison.missing)} frames without an answer: play slower "
            "(--rate), or accept it with --allow-missing",
            file=sys.stderr,
        )
        return 1
    return 0


def replay_into(options: ReplayOptions, out: Path, *, report: bool = True) -> ReplayResult:
    """Replay a bag into a new folder, which appears when it is whole; ``report`` adds the pages.

    Raises:
        AnomalyDetectorError: as for :func:`~anomaly_detector.ros.replay.session.replay`, the
            folder is there and not empty, or matplotlib or jinja2 is missing.
    """
    if report:
        import_matplotlib()
        import_jinja2()
    with atomic_directory(out) as folder:
        result = replay(options, folder)
        if report:
            draw_replay(folder / "timeline.png", result)
            write_replay_report(folder / "report.html", result, folder)
    return result


def summary_lines(result: ReplayResult, out: Path) -> list[str]:
    """Return the summary for the terminal."""
    comparison = result.comparison
    answered = comparison.answered
    count = len(answered)
    same_scores = count - len(comparison.other_scores)
    same_flags = count - len(comparison.other_anomalies)
    same_alarms = count - len(comparison.other_alarms)
    anomalies = sum(answer.is_anomaly for answer in answered)
    alarms = sum(event.kind == "start" for event in result.events)
    lines = [
        f"{result.options.bag} {result.source.topic}: {result.sent} frames sent in "
        f"{result.duration_s:.1f} s, {count} of {len(comparison.frames)} answered",
        f"node and offline scoring: same score {same_scores}, same flag {same_flags}, same alarm "
        f"{same_alarms} of {count} frames; {'same' if result.same_events else 'other'} events",
        comparison.scores_text,
        f"{anomalies} anomalous at threshold {result.detector.threshold:.6g}, {alarms} "
        f"alarm{'s' if alarms != 1 else ''}",
    ]
    lines += [stretch.text for stretch in comparison.scene]
    page = "report.html" if (out / "report.html").is_file() else ""
    for title, names in comparison.differences.items():
        lines.append(f"{len(names)} frames {title}: {_some(frame_ranges(names), ', ', page)}")
    if result.unreadable:
        lines.append(f"unreadable: {_some(result.unreadable, '; ', page)}")
    if without := sum(frame.stamp_ns is None for frame in comparison.frames):
        lines.append(f"{without} frames have no time stamp: set it in the camera driver")
    if comparison.extra:
        lines.append(f"{comparison.extra} answers to no frame, or to one that had one already")
    lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    return lines


def _some(items: Sequence[str], separator: str, page: str) -> str:
    shown = separator.join(items[:_MAX_NAMED])
    more = f" and more{page and f', see {page}'}"
    return shown + (more if len(items) > _MAX_NAMED else "")
