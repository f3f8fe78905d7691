"""``python -m training train``: a recorded drive in, a detector out."""

from __future__ import annotations

import argparse
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from anomaly_detector.cli.compare_models import conclude
from anomaly_detector.drawing.page import import_jinja2
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.shipped import resolve_model
from training.config.options import option_fields, option_types
from training.evaluation.replacement import compare_to_old, held_out_drives
from training.fitting.run import TrainingRun
from training.scorers.options import EVERY_SCORER, choices, flag, resolve_options, users
from training.train import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--recipe", type=Path, metavar="FILE",
        help="YAML file with options, which those given here overrule; for example "
        "training/config/recipes/v5.yaml",
    )  # fmt: skip
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a training; those of some scorers only in groups of their own.

    What the user leaves out is missing from the parsed arguments, so that a recipe can say it.
    """
    groups: dict[str, Any] = {}
    for item in option_fields():
        details = {
            name: value
            for name, value in item.metadata.items()
            if name not in ("group", "least", "above", "below", "example")
        }
        target = parser
        if "group" in item.metadata:
            group = item.metadata["group"]
            if group not in groups:
                groups[group] = parser.add_mutually_exclusive_group()
            target = groups[group]
        elif item.name not in EVERY_SCORER:
            title = f"for --scorer {', '.join(users(item.name))}"
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            target = groups[title]
        if choices(item):
            details["choices"] = choices(item)
        text = details["help"].replace("%", "%%")
        if "default" not in text and item.default not in (MISSING, None, (), False):
            text += f" (default {item.default})"
        kind = option_types()[item.name]
        details |= {"default": argparse.SUPPRESS, "help": text}
        if kind.kind is bool:
            details["action"] = argparse.BooleanOptionalAction
        else:
            details["type"] = kind.kind
            if kind.is_list:
                details.setdefault("nargs", "+")
        target.add_argument(flag(item.name), **details)


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code: 1 when the model is worse than the old one."""
    given = vars(arguments)
    recipe = given.pop("recipe")
    options = resolve_options(given, recipe)
    trained: list[TrainingRun] = []
    if options.replaces is None:
        train(options)
        return 0
    # Found out now rather than after an hour of training.
    import_jinja2()
    old = resolve_model(options.replaces)
    metadata = read_metadata(old)
    train(options, trained.append)
    if not trained:  # a machine of a cluster that writes no model
        return 0
    drives, notes = held_out_drives(trained[0], metadata)
    events = trained[0].options.events
    return conclude(*compare_to_old(old, options.out, events, drives, notes))
