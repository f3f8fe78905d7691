"""``python -m training compare``: train and measure every architecture with every scorer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.cli.arguments import (
    add_exclude,
    add_recordings,
    add_shared,
    add_view_arguments,
)
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path, check_output_file
from anomaly_detector.model.fingerprint import (
    TrainedRecording,
    fingerprints,
    known_again,
    trained_warning,
)
from anomaly_detector.recordings import expand_sources
from training.config.options import TrainOptions
from training.evaluation.compare import Comparison, compare, labelled_measure, stress_measure
from training.evaluation.faults import FAULT_SETS
from training.evaluation.metrics import json_safe
from training.networks.autoencoders import ARCHITECTURES
from training.scorers.registry import scorers as all_scorers
from training.train import open_frames


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    add_recordings(parser, "--data", "normal drives to train on", required=True)
    parser.add_argument("--test", required=True, metavar="RECORDING", help="drive to measure on")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--labels", type=Path, help="labels.csv of the test drive")
    truth.add_argument(
        "--faults", choices=tuple(FAULT_SETS),
        help="the test drive is normal: inject this set of faults (see 'stress')",
    )  # fmt: skip
    add_recordings(
        parser, "--anomalies", "recordings of anomalies, for scorers that learn from them"
    )
    parser.add_argument(
        "--seen", nargs="+", default=[], metavar="CLASS",
        help="classes of hazards that are among the anomalies: the others are measured apart",
    )  # fmt: skip
    add_shared(parser, "--topic", "--cache")
    add_view_arguments(parser, "all of the frame; the encoding's range")
    add_exclude(parser, "with --faults, frames of the test drive to leave out")
    parser.add_argument(
        "--architectures", default="all", help="names with commas between (default: all)"
    )
    parser.add_argument("--scorers", default="all", help="names with commas between (default: all)")
    parser.add_argument(
        "--minutes", type=float, default=1.0,
        help="most time for the training of each network (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=200, help="most epochs (default %(default)s)")
    parser.add_argument("--augmentation", default="none", help="preset (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder for models and tables")


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    architectures = _names(arguments.architectures, list(ARCHITECTURES), "architecture")
    scorers = _names(arguments.scorers, list(all_scorers()), "scorer")
    if arguments.scorers == "all" and not arguments.anomalies:
        scorers = [name for name in scorers if not all_scorers()[name].needs_anomalies]
    check_output_file(arguments.out / "comparison.json")
    options = TrainOptions(
        arguments.data,
        arguments.out / "model.onnx",
        topic=arguments.topic,
        region=arguments.region,
        image_scaling=arguments.image_scaling or (),
        anomalies=tuple(arguments.anomalies),
        epochs=arguments.epochs,
        augmentation=arguments.augmentation,
        seed=arguments.seed,
        cache=arguments.cache,
        time_limit=60 * arguments.minutes,
    )
    if arguments.labels is not None:
        measure = labelled_measure(
            arguments.test,
            arguments.labels,
            arguments.topic,
            arguments.cache,
            arguments.seen,
        )
    else:
        measure = stress_measure(
            arguments.test, arguments.topic, arguments.exclude, arguments.faults, arguments.seed
        )
    trained_on = _trained_on(options, arguments.test)
    remedy = "these figures say little about new frames: give another drive with --test"
    if warning := trained_warning(trained_on, remedy):
        print(warning, flush=True)
    rows: list[Comparison] = []

    def report(row: Comparison) -> None:
        # Written after every row: a long comparison that is cut off keeps what it has.
        rows.append(replace(row, trained_on=[item.trained_as for item in trained_on]))
        _write(arguments.out, rows, warning)
        print(format_comparison([row]).splitlines()[-1], flush=True)

    print(format_comparison([]))
    compare(options, architectures, scorers, measure, arguments.out, report)
    print(f"{arguments.out / 'comparison.md'} and comparison.json")
    return 0


def _names(text: str, known: Sequence[str], what: str) -> list[str]:
    if text == "all":
        return list(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise AnomalyDetectorError(
                f"{what} {name!r} is not known: choose from {', '.join(known)}"
            )
    return names


def _trained_on(options: TrainOptions, test: str) -> tuple[TrainedRecording, ...]:
    """Return the recordings to be trained on that the test drive shows frames of."""

    def opened(
        sources: Sequence[str], *, anomalous: bool | None = None
    ) -> list[tuple[str, NDArray[np.uint8]]]:
        frames = open_frames(options, expand_sources(sources), anomalous=anomalous)
        return [(part.source.name, part.images) for part in frames.parts]

    trained = opened(options.data)
    if options.anomalies:
        trained += opened(options.anomalies, anomalous=True)
    ((name, images),) = opened([test])
    known = fingerprints(trained)
    return tuple(known_again(name, images, known))


def format_comparison(rows: Sequence[Comparison]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| architecture | scorer | parameters | MACs | epochs | s/epoch | validation loss "
        "| ROC-AUC | small hazards | unseen classes | ms a frame |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        macs = "" if row.macs is None else f"{row.macs / 1e6:,.1f} M"
        unseen = "" if row.roc_auc_unseen is None else f"{row.roc_auc_unseen:.3f}"
        lines.append(
            f"| {row.architecture} | {row.scorer} | {row.parameters:,} | {macs} | {row.epochs} "
            f"| {row.seconds_per_epoch:.2f} | {row.validation_loss:.4g} | {row.roc_auc:.3f} "
            f"| {row.roc_auc_small:.3f} | {unseen} | {row.milliseconds:.2f} |"
        )
    return "\n".join(lines)


def _write(folder: Path, rows: Sequence[Comparison], warning: str | None) -> None:
    contents: list[Any] = [json_safe(asdict(row)) for row in rows]
    with atomic_path(folder / "comparison.json") as temporary:
        temporary.write_text(json.dumps(contents, indent=2) + "\n")
    with atomic_path(folder / "comparison.md") as temporary:
        temporary.write_text((f"{warning}\n\n" if warning else "") + format_comparison(rows) + "\n")
