"""``python -m training evaluate``: measure a model on labelled drives and write a report."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from anomaly_detector.cli.arguments import (
    add_recordings,
    add_shared,
    add_view_arguments,
    given_view,
)
from anomaly_detector.drawing.page import write_page
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory, check_output_folder
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.fingerprint import find_trained, trained_warning
from anomaly_detector.recordings import BagSource, count_frames
from anomaly_detector.scoring.tables import format_score
from anomaly_detector.stamps import stamp_text
from training.cli.arguments import add_bootstrap_arguments, add_report_argument, check_bootstrap
from training.data.hazards_robots.loader import HazardsRobotsSource
from training.data.labels import NORMAL, read_labels
from training.data.opening import LabelledRecording, open_recording
from training.evaluation.evaluate import TRAINED_REMEDY, Evaluation, evaluate
from training.reports.evaluation import evaluation_report
from training.reports.page import number_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m training evaluate``."""
    add_shared(parser, "--model", "--topic")
    purpose = "recordings whose truth is in --labels (image folders, bags, videos)"
    add_recordings(parser, "--data", purpose)
    purpose = "labels of --data, one file per recording in the same order"
    add_recordings(parser, "--labels", purpose, metavar="CSV")
    add_recordings(parser, "--normal", "recordings with normal frames only")
    purpose = "recordings with anomalous frames only, of class NAME (default: the folder's)"
    add_recordings(parser, "--anomalous", purpose, metavar="[NAME=]RECORDING")
    add_view_arguments(parser)
    add_report_argument(parser, "evaluation.json, scores.csv and report.html")
    add_bootstrap_arguments(parser, "of the bootstrap")


def run(args: argparse.Namespace) -> int:
    """Run the command line and return the exit code.

    Raises:
        AnomalyDetectorError: wrong options, or what :func:`evaluate` and
            :func:`write_evaluation` raise.
    """
    check_bootstrap(args)
    check_output_folder(args.out)
    recordings = _recordings(args)
    detector = Detector(args.model, view=given_view(args, args.model))
    trained_on = find_trained([item.source for item in recordings], detector.metadata)
    if warning := trained_warning(trained_on, TRAINED_REMEDY):
        print(warning, flush=True)
    evaluation = evaluate(
        detector,
        recordings,
        bootstrap=args.bootstrap,
        block=args.block,
        seed=args.seed,
        trained_on=trained_on,
    )
    write_evaluation(evaluation, args.out)
    print(format_evaluation(evaluation))
    print(f"report: {args.out / 'report.html'}")
    return 0


def write_evaluation(evaluation: Evaluation, output: Path) -> None:
    """Write evaluation.json, scores.csv and report.html into a new folder, all or none.

    ``scores.csv`` has the columns of offline scoring (frame, stamp, score, is_anomaly), the truth
    (label, class) and the recording's number from 0.

    Raises:
        AnomalyDetectorError: the folder is not empty or cannot be written.
    """
    frames = evaluation.frames
    with atomic_directory(output) as folder:
        text = json.dumps(evaluation.to_dict(), indent=2, allow_nan=False)
        (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        with (folder / "scores.csv").open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ("frame", "stamp", "score", "is_anomaly", "label", "class", "recording")
            )
            for name, stamp, score, label, class_name, recording in zip(
                *(frames.names, frames.stamps_ns, frames.scores.tolist()),
                *(frames.labels, frames.classes, frames.recordings),
                strict=True,
            ):
                flag = int(score >= evaluation.threshold)
                shown = stamp_text(stamp), format_score(score)
                writer.writerow((name, *shown, flag, label, class_name, recording))
        write_page(evaluation_report(evaluation), folder / "report.html")


def format_evaluation(evaluation: Evaluation) -> str:
    """Return the results as a text table for a terminal."""
    ranking = evaluation.ranking
    anomalous = ranking.pooled.frames
    width = max([len("pooled"), *(len(item.name) for item in ranking.classes)])
    lines = [
        f"{evaluation.model}: {len(evaluation.frames)} frames, {ranking.normal_frames} normal, "
        f"{anomalous} anomalous",
        "",
        f"{'class':{width}} {'frames':>7}  {'ROC-AUC [95 %]':22} {'PR-AUC [95 %]':21} recall",
    ]
    recalls = {evaluation.class_names[k]: v for k, v in evaluation.class_recall.items()}
    recalls["pooled"] = evaluation.operating_points[0].recall
    items = (ranking.pooled, ranking.macro, *ranking.classes)
    for item in items:
        recall = f"{recalls[item.name]:6.3f}" if item.name in recalls and item.frames else ""
        mark = "*" if item.narrow and ranking.bootstrap else " "
        areas = f"{item.roc_auc!s:22} {item.pr_auc!s:20}{mark}"
        lines.append(f"{item.name:{width}} {item.frames:7d}  {areas} {recall}".rstrip())
    if ranking.bootstrap and any(item.narrow for item in items):
        lines.append("* few independent frames: the interval is too narrow")
    lines += ["", "threshold           accuracy precision  recall      F1  false alarms"]
    for point in evaluation.operating_points:
        ratios = (point.accuracy, point.precision, point.recall, point.f1, point.false_alarm_rate)
        cells = " ".join(f"{number_text(ratio):>8}" for ratio in ratios)
        lines.append(f"{point.name:7} {point.threshold:>10.4g}  {cells}")
    if evaluation.delays:
        found = [d for d in evaluation.delays if d.delay_frames is not None]
        line = f"events: {len(found)} of {len(evaluation.delays)} detected"
        if found:
            median = float(np.median([d.delay_frames for d in found if d.delay_frames is not None]))
            line += f", median delay {median:g} frames"
        lines += ["", line]
    unreadable = sum(count_frames(recording.unreadable) for recording in evaluation.recordings)
    if unreadable:
        lines.append(f"{unreadable} frames were unreadable, see evaluation.json")
    return "\n".join(lines)


def _recordings(args: argparse.Namespace) -> list[LabelledRecording]:
    opened = [open_recording(source, args.topic) for source in args.data]
    # A part of the Hazards&Robots data set brings its labels along.
    unlabelled = [item for item in opened if not isinstance(item, HazardsRobotsSource)]
    if len(unlabelled) != len(args.labels):
        raise AnomalyDetectorError(
            f"{len(unlabelled)} --data and {len(args.labels)} --labels: give one labels file per "
            "recording, in the same order"
        )
    if not (args.data or args.normal or args.anomalous):
        raise AnomalyDetectorError(
            "nothing to evaluate on: give --normal and --anomalous, or --data and --labels"
        )
    files = iter(args.labels)
    recordings = []
    for item in opened:
        own = item.frame_labels if isinstance(item, HazardsRobotsSource) else None
        recordings.append(LabelledRecording(item, own or read_labels(next(files))))
    recordings += [LabelledRecording(open_recording(source, args.topic)) for source in args.normal]
    for text in args.anomalous:
        name, source = _named_source(text)
        recordings.append(LabelledRecording(open_recording(source, args.topic), class_name=name))
    if args.topic and not any(isinstance(item.source, BagSource) for item in recordings):
        raise AnomalyDetectorError(
            f"--topic {args.topic}: none of the recordings is a bag: leave the topic out"
        )
    return recordings


def _named_source(text: str) -> tuple[str, str]:
    """Split ``NAME=SOURCE``; a source without a name is named as its folder or file."""
    name, separator, source = text.partition("=")
    if not separator or Path(text).exists():
        path = Path(text)
        name, source = (path.resolve().name if path.is_dir() else path.stem), text
    name = name.strip()
    if not name or name == NORMAL:
        raise AnomalyDetectorError(
            f"--anomalous {text}: class name is {name!r}: name it as in --anomalous boxes={source}"
        )
    return name, source
