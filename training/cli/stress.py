"""``python -m training stress``: measure what a model makes of injected faults."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from anomaly_detector.cli.arguments import add_exclude, add_shared, add_view_arguments, given_view
from anomaly_detector.drawing.page import write_page
from anomaly_detector.errors import SourceError
from anomaly_detector.files import atomic_directory, check_output_folder
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.fingerprint import find_trained, trained_warning
from anomaly_detector.recordings import FrameSource, count_frames, open_source, warn_unreadable
from training.cli.arguments import add_bootstrap_arguments, add_report_argument, check_bootstrap
from training.evaluation.faults import FAULT_SETS, choose_faults
from training.evaluation.stress import (
    TRAINED_REMEDY,
    StressResult,
    numbered_frames,
    run_stress,
)
from training.reports.page import number_text
from training.reports.stress import stress_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m training stress``."""
    add_shared(parser, "--model", "--topic")
    parser.add_argument(
        "--normal", required=True, metavar="RECORDING",
        help="a recording of normal frames that the model was not trained on",
    )  # fmt: skip
    add_view_arguments(parser)
    add_exclude(parser, "frames of the recording to leave out since they are not normal")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--set", default="full", choices=list(FAULT_SETS), dest="fault_set",
        help="reference: few and plain, fixed for quoted figures; full: like real faults "
        "(default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--faults", nargs="+", metavar="NAME", help="these faults only, of either set"
    )
    add_bootstrap_arguments(parser, "of the faults and the bootstrap")
    add_report_argument(parser, "stress.json and report.html")


def run(args: argparse.Namespace) -> int:
    """Run the command line and return the exit code.

    Raises:
        AnomalyDetectorError: wrong options, or what :func:`run_stress` and
            :func:`write_stress` raise.
    """
    check_bootstrap(args)
    check_output_folder(args.out)
    faults = choose_faults(args.faults) if args.faults else FAULT_SETS[args.fault_set]
    source = open_source(args.normal, args.topic)
    left_out = {n for first, last in args.exclude for n in range(first, min(last + 1, len(source)))}
    if len(left_out) >= len(source) > 0:
        raise SourceError(
            f"--exclude leaves none of the {len(source)} frames of {source.path}: leave out fewer"
        )
    detector = Detector(args.model, view=given_view(args, args.model))
    trained_on = find_trained([source], detector.metadata)
    if warning := trained_warning(trained_on, TRAINED_REMEDY):
        print(warning, flush=True)
    result = run_stress(
        detector,
        numbered_frames(source, detector.view, args.exclude),
        faults,
        args.seed,
        bootstrap=args.bootstrap,
        block=args.block,
        trained_on=trained_on,
        total=len(source) - len(left_out),
    )
    warn_unreadable(source.path, source.unreadable)
    write_stress(result, source, args.out)
    print(format_stress(result))
    print(f"report: {args.out / 'report.html'}")
    return 0


def write_stress(result: StressResult, source: FrameSource, output: Path) -> None:
    """Write stress.json and report.html into a new folder, both or none.

    Raises:
        AnomalyDetectorError: the folder is not empty or cannot be written.
    """
    with atomic_directory(output) as folder:
        contents = {"source": str(source.path), "unreadable": count_frames(source.unreadable)}
        contents |= result.to_dict()
        text = json.dumps(contents, indent=2, allow_nan=False)
        (folder / "stress.json").write_text(text + "\n", encoding="utf-8")
        write_page(stress_report(result, str(source.path)), folder / "report.html")


def format_stress(result: StressResult) -> str:
    """Return the results as a text table for a terminal."""
    width = max(len("minimum"), *(len(item.fault.name) for item in result.faults))
    lines = [
        f"{result.model}: {result.frames} frames, each clean and with every fault; "
        f"threshold {result.threshold:.4g}",
        "",
        f"{'fault':{width}}  {'ROC-AUC [95 %]':20}   recall  raised  points",
    ]
    for item in result.faults:
        cells = [f"{item.fault.name:{width}}  {item.roc_auc!s:20} "]
        cells += [_cell(value) for value in (item.recall, item.raised, item.pointing)]
        cells += [] if item.counted else ["  not counted"]
        lines.append(" ".join(cells).rstrip())
    worst = result.worst
    if worst is not None:
        least = min(item.recall for item in result.counted)
        lines += [
            f"{'mean':{width}}  {result.mean_roc_auc!s:20}  {_cell(result.mean_recall)} "
            f"{'':7} {_cell(result.mean_pointing)}",
            f"{'minimum':{width}}  {worst.roc_auc.value:<20.3f}  {least:7.3f}",
        ]
    lines += ["", f"false alarms on the clean frames: {result.false_alarms:.3f}"]
    if len(result.counted) < len(result.faults):
        lines.append("not counted: a fault of the sequence, which one frame alone cannot show")
    if result.bootstrap and any(item.narrow for item in result.faults):
        lines.append("few independent frames: the intervals are too narrow")
    return "\n".join(lines)


def _cell(value: float) -> str:
    return f"{number_text(value, ''):>7}"
