"""Which options of training a scorer uses, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, replace
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import check_output_file
from anomaly_detector.model.shipped import check_model_output, resolve_model
from training.config.options import (
    AUTO_ARCHITECTURE,
    TrainOptions,
    check_numbers,
    option_fields,
    option_types,
)
from training.config.recipe import read_recipe
from training.networks.autoencoders import ARCHITECTURES, LATENT_TABLE_OPTIONS
from training.scorers.registry import find_scorer, networks, scorers

EVERY_SCORER = frozenset(
    {
        *("data", "exclude", "events", "replaces", "out", "topic"),
        *("region", "image_scaling", "mask", "mask_polygon"),
        *("scorer", "architecture"),
        *("held_out", "hold_out", "false_alarm_rate", "threshold", "seed", "time_limit"),
        *("resume", "tensorboard", "cluster", "worker", "device", "cache"),
    }
)
"""Options that every scorer uses."""

_EXCLUSIVE = (("clipnorm", "global_clipnorm"), ("threshold", "false_alarm_rate"))


def resolve_architecture(scorer: str, architecture: str) -> str:
    """Return the network that a scorer is trained with.

    Raises:
        AnomalyDetectorError: the network is another one than the scorer's own, or that of another
            scorer.
    """
    own = find_scorer(scorer).architecture
    if architecture == AUTO_ARCHITECTURE:
        return own or "v5"
    if own is not None and architecture != own:
        raise AnomalyDetectorError(
            f"scorer {scorer} has a network of its own, {own}, not {architecture}: leave "
            "--architecture out or choose another --scorer"
        )
    if own is None and architecture not in ARCHITECTURES:
        raise AnomalyDetectorError(
            f"scorer {scorer} stands on an autoencoder, and {architecture} is none: leave "
            f"--architecture out or choose one of {', '.join(ARCHITECTURES)}"
        )
    return architecture


def choices(item: Field[Any]) -> Sequence[str]:
    """Return the values that an option can be chosen from; none for one of any value."""
    if item.name == "scorer":
        return tuple(scorers())
    if item.name == "architecture":
        return (AUTO_ARCHITECTURE, *ARCHITECTURES, *networks())
    return tuple(item.metadata.get("choices", ()))


def flag(name: str) -> str:
    """Return an option as it is written on the command line."""
    return "--" + name.replace("_", "-")


def users(name: str) -> list[str]:
    """Return the scorers that use an option."""
    return [scorer for scorer, own in scorers().items() if name in own.options | EVERY_SCORER]


def used_options(options: TrainOptions) -> frozenset[str]:
    """Return the names of the options that the scorer and its network use, given or not.

    Raises:
        AnomalyDetectorError: the architecture is not for this scorer.
    """
    used = EVERY_SCORER | find_scorer(options.scorer).options
    architecture = resolve_architecture(options.scorer, options.architecture)
    if architecture in ARCHITECTURES:
        used -= ARCHITECTURES[architecture].unused_options
    if options.plateau_patience == 0:
        used -= {"plateau_factor", "min_learning_rate"}
    return used


def without_unused(options: TrainOptions) -> TrainOptions:
    """Return the options with the default in the place of every one that would do nothing.

    Raises:
        AnomalyDetectorError: the architecture is not for this scorer.
    """
    used = used_options(options)
    defaults: dict[str, Any] = {i.name: i.default for i in option_fields() if i.name not in used}
    return replace(options, **defaults)


def fixed_threshold(options: TrainOptions) -> float | None:
    """Return the fixed threshold; None where one is to be calibrated."""
    if options.threshold is None and options.false_alarm_rate is None:
        return find_scorer(options.scorer).threshold
    return options.threshold


def resolve_options(arguments: Mapping[str, Any], recipe: Path | None = None) -> TrainOptions:
    """Join the command line, a recipe and the defaults, in this order of precedence.

    Args:
        arguments: the options given on the command line, by field name.
        recipe: the recipe file.

    Raises:
        AnomalyDetectorError: the recipe is at fault, neither gives what is required, or one gives
            an option that the scorer does not use.
    """
    given = {} if recipe is None else read_recipe(recipe)
    # Of two options that exclude each other the command line's counts.
    for pair in _EXCLUSIVE:
        for one, other in (pair, pair[::-1]):
            # A limit of 0 is none, and leaves the other one in force.
            if arguments.get(one) or (one == "threshold" and one in arguments):
                given.pop(other, None)
    if arguments.get("plateau_patience") == 0:
        # The rate never falls.
        for name in ("plateau_factor", "min_learning_rate"):
            given.pop(name, None)
    given |= arguments
    for item in option_fields():
        if item.default is MISSING and item.name not in given:
            raise AnomalyDetectorError(
                f"option {item.name!r} is missing: give --{item.name} or put it into a recipe"
            )
    options = TrainOptions(**given)
    _check_given(options, given)
    return options


def _check_given(options: TrainOptions, given: Collection[str]) -> None:
    """Refuse values that are no choice, and given options that would do nothing."""
    for item in option_fields():
        known, value = choices(item), getattr(options, item.name)
        if known and value not in known and not (value is None and item.default is None):
            raise AnomalyDetectorError(
                f"{item.name.replace('_', ' ')} {value!r} is not known: "
                f"choose one of {', '.join(known)}"
            )
    used = used_options(options)
    reasons: dict[str, list[str]] = {}
    for name in option_types():
        if name in given and name not in used:
            reasons.setdefault(_why_unused(name, options), []).append(flag(name))
    if reasons:
        count = sum(map(len, reasons.values()))
        told = "; ".join(why.format(", ".join(flags)) for why, flags in reasons.items())
        raise AnomalyDetectorError(f"{told}: leave {'it' if count == 1 else 'them'} out")


def _why_unused(name: str, options: TrainOptions) -> str:
    """Return what does not use an option and what would, with {} in the place of its name."""
    known = users(name)
    if options.scorer not in known:
        return f"scorer {options.scorer} does not use {{}} (for {', '.join(known)})"
    if name in LATENT_TABLE_OPTIONS:
        known = [n for n, item in ARCHITECTURES.items() if name not in item.unused_options]
        architecture = resolve_architecture(options.scorer, options.architecture)
        return (
            f"scorer {options.scorer} on architecture {architecture} does not use {{}} "
            f"(for {', '.join(known)})"
        )
    return f"scorer {options.scorer} does not use {{}} with --plateau-patience 0"


def check_options(options: TrainOptions) -> None:
    """Refuse what cannot be trained, before any work.

    Raises:
        AnomalyDetectorError: an option is at fault.
    """
    values = {item.name: getattr(options, item.name) for item in option_fields()}
    defaults = {item.name: item.default for item in option_fields()}
    _check_given(options, [n for n, v in values.items() if v not in (defaults[n], [])])
    if not options.data:
        raise AnomalyDetectorError("nothing to train on: give --data RECORDING")
    if find_scorer(options.scorer).needs_anomalies and not (options.anomalies or options.events):
        raise AnomalyDetectorError(
            f"scorer {options.scorer} learns from anomalies: give --anomalies RECORDING"
        )
    if options.replaces is not None:
        if not options.events:
            raise AnomalyDetectorError(
                f"--replaces {options.replaces} compares on judged events: give --events FOLDER"
            )
        if resolve_model(options.replaces).resolve() == options.out.resolve():
            raise AnomalyDetectorError(
                f"--out {options.out} is the model that it replaces: name another file, so that "
                "there is a way back"
            )
    if options.worker is not None and not options.cluster:
        raise AnomalyDetectorError(
            f"--worker {options.worker} is for training on several machines: give --cluster "
            "HOST:PORT ... too or leave it out"
        )
    check_model_output(options.out)  # found out now rather than after an hour of training
    check_output_file(options.out.with_suffix(".history.csv"))
    check_numbers(options)
    for one, other in _EXCLUSIVE:
        first, second = values[one], values[other]
        # A limit of 0 is none; a threshold of 0 is one.
        if second and (first or (one == "threshold" and first is not None)):
            raise AnomalyDetectorError(
                f"{one} is {first:g} and {other} {second:g}: give one of them"
            )
