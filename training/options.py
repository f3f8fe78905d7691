"""The options of a training run, declared once.

The fields of :class:`TrainOptions` are at the same time the command line's options and the keys of
a recipe file (:mod:`training.recipe`); help texts, choices and types all come from here.
"""

from __future__ import annotations

import argparse
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import check_output_file
from training.architectures import ARCHITECTURES, INITIALIZERS
from training.augmentation import AUGMENTATIONS

__all__ = [
    "AUTO_ARCHITECTURE",
    "DEVICES",
    "MLP_THRESHOLD",
    "SCORERS",
    "THESIS_THRESHOLD",
    "OptionType",
    "ScorerTraits",
    "TrainOptions",
    "add_options",
    "check_options",
    "option_types",
    "resolve_architecture",
]

THESIS_THRESHOLD = 200.0
"""Of the reconstruction score (thesis 5.14)."""

MLP_THRESHOLD = 0.5
"""Of the classifier's probability (thesis 5.17)."""

DEVICES = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class ScorerTraits:
    """What the options of a scorer have to be.

    Attributes:
        needs_anomalies: it cannot be trained without recordings of anomalies.
        takes_anomalies: it learns from recordings of anomalies when it gets them.
        threshold: its fixed threshold; None where one is calibrated on held-out normal frames.
        architecture: its own network; None for those that stand on an autoencoder.
    """

    needs_anomalies: bool = False
    takes_anomalies: bool = False
    threshold: float | None = None
    architecture: str | None = None


SCORERS: Mapping[str, ScorerTraits] = {
    "outlier-exposure": ScorerTraits(takes_anomalies=True, architecture="unet"),
    "reconstruction": ScorerTraits(),
    "reconstruction-mae": ScorerTraits(),
    "reconstruction-q99": ScorerTraits(),
    "mlp": ScorerTraits(needs_anomalies=True, takes_anomalies=True, threshold=MLP_THRESHOLD),
    "realnvp": ScorerTraits(),
    "realnvp-oe": ScorerTraits(needs_anomalies=True, takes_anomalies=True),
}
"""The first one is the default."""

AUTO_ARCHITECTURE = "auto"


def resolve_architecture(scorer: str, architecture: str) -> str:
    """Give the network that a scorer is trained with.

    Raises:
        AnomalyDetectorError: the scorer has a network of its own and another one is asked for.
    """
    own = SCORERS[scorer].architecture
    if architecture == AUTO_ARCHITECTURE:
        return own or "v5"
    if own is not None and architecture != own:
        raise AnomalyDetectorError(
            f"scorer {scorer} has a network of its own, {own}, not {architecture}: leave "
            "--architecture out or choose another --scorer"
        )
    return architecture


def _option(default: Any, help_text: str, **details: Any) -> Any:
    metadata = {"help": help_text, **details}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainOptions:
    """What to train and how.

    Each field is the option ``--name-with-dashes`` and the recipe key ``name_with_underscores``;
    its help text says what it is. ``progress`` has no option: it shows progress bars and results.
    """

    data: Sequence[str] = _option(
        MISSING, "normal drives: image folders, rosbag2 folders or files, videos", metavar="SOURCE"
    )
    out: Path = _option(MISSING, "model file to write (.onnx)", metavar="FILE")  # noqa: RUF009
    topic: str | None = _option(None, "image topic, for a bag with more than one")
    region: str | None = _option(
        None,
        "part of the frame to look at, X,Y,WIDTH,HEIGHT in pixels, 0 to the edge; the model "
        "remembers it",
    )
    architecture: str = _option(
        AUTO_ARCHITECTURE,
        "autoencoder; auto takes v5, and the scorer's own network for outlier-exposure",
        choices=(AUTO_ARCHITECTURE, *ARCHITECTURES, "unet"),
    )
    scorer: str = _option(next(iter(SCORERS)), "what makes the score", choices=tuple(SCORERS))
    anomalies: Sequence[str] = _option(
        (),
        "recordings of anomalies, or folders of the robot's black box, for scorers that learn "
        "from them",
        metavar="SOURCE",
    )
    epochs: int = _option(100, "most epochs to train the autoencoder")
    mlp_epochs: int = _option(100, "most epochs to train the mlp")
    realnvp_epochs: int = _option(500, "most epochs to train the flow of realnvp")
    exposure_epochs: int = _option(18, "epochs to train the unet of outlier-exposure")
    exposure_steps: int = _option(100, "steps of each of these epochs, of 48 frames a step")
    time_limit: float = _option(0.0, "most seconds to train each network, 0 for no limit")
    batch_size: int = _option(32, "frames a step")
    learning_rate: float = _option(1e-3, "of Adam, at the start")
    clipnorm: float | None = _option(
        None, "limit of each gradient's norm, 0 for none (default: the architecture's)"
    )
    global_clipnorm: float | None = _option(
        None,
        "limit of the norm of all gradients together, 0 for none (default: the architecture's)",
    )
    early_stopping_patience: int = _option(
        5, "epochs without a better validation loss before training stops, 0 for never"
    )
    plateau_patience: int = _option(
        4, "epochs without a better validation loss before the learning rate falls, 0 for never"
    )
    plateau_factor: float = _option(0.1, "what the learning rate is multiplied with then")
    min_learning_rate: float = _option(1e-7, "floor of the learning rate")
    dropout: float = _option(0.0, "share of values dropped after every hidden layer")
    l1: float = _option(0.0, "L1 factor of all kernels")
    l2: float = _option(0.0, "L2 factor of all kernels, on top of the architecture's own")
    embedding_l1: float = _option(0.0, "L1 factor of the code table of v2 and v3")
    embedding_l2: float = _option(0.0, "L2 factor of the code table of v2 and v3")
    initializer: str | None = _option(
        None, "start of all kernels (default: glorot_uniform)", choices=INITIALIZERS
    )
    augmentation: str = _option(
        "none", "preset of changes to training frames", choices=tuple(AUGMENTATIONS)
    )
    folds: int = _option(
        0,
        "also cross-validate the autoencoder with this many folds of consecutive frames, each "
        "trained afresh",
    )
    thesis_folds: bool = _option(
        False,
        "train the autoencoder as the thesis does (5.8): one network through ten shuffled folds, "
        "each with a tenth of the epochs",
    )
    held_out: float = _option(
        0.2, "share of the frames for validation and calibration", metavar="SHARE"
    )
    seed: int = _option(0, "makes the run repeatable")
    false_alarm_rate: float = _option(
        0.01,
        "calibrate the threshold on the held-out normal frames so that this share of normal "
        "frames is flagged",
        metavar="SHARE",
        group="threshold",
    )
    threshold: float | None = _option(
        None,
        f"a fixed threshold instead; the thesis has {THESIS_THRESHOLD:g} for reconstruction and "
        f"{MLP_THRESHOLD:g} for mlp (the default there)",
        group="threshold",
    )
    resume: bool = _option(
        False, "go on from the last checkpoint of a training that was cut off, if there is one"
    )
    tensorboard: Path | None = _option(None, "folder for TensorBoard logs", metavar="FOLDER")  # noqa: RUF009
    cluster: Sequence[str] = _option(
        (),
        "train on several machines at once: HOST:PORT of every worker, in the same order on all, "
        "or TF_CONFIG to take them from that environment variable; each needs the recordings and "
        "the same options",
        metavar="HOST:PORT",
    )
    worker: int | None = _option(
        None, "which address of --cluster this machine is, from 0; 0 writes the model"
    )
    device: str = _option("auto", "where to train", choices=DEVICES)
    cache: Path | None = _option(  # noqa: RUF009
        None, "folder for shrunk frames (default ~/.cache)", metavar="FOLDER"
    )
    progress: bool = True


@dataclass(frozen=True)
class OptionType:
    """The type of an option.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str`` or ``Path``; of the items, for a list.
        is_list: several values.
        optional: may be None.
    """

    kind: type
    is_list: bool = False
    optional: bool = False


@cache
def option_types() -> Mapping[str, OptionType]:
    """Give the type of every option, by its field's name; ``progress`` is none."""
    hints = typing.get_type_hints(TrainOptions)
    found = {}
    for item in _options():
        hint = hints[item.name]
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            found[item.name] = OptionType(parts[0], optional=True)
        elif parts:
            found[item.name] = OptionType(parts[0], is_list=True)
        else:
            found[item.name] = OptionType(hint)
    return found


def _options() -> list[Field[Any]]:
    return [item for item in fields(TrainOptions) if item.metadata]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options on a command line.

    What the user leaves out is missing from the parsed arguments, so that a recipe can say it.
    """
    groups: dict[str, Any] = {}
    for item in _options():
        details = dict(item.metadata)
        group = details.pop("group", None)
        target = parser
        if group is not None:
            if group not in groups:
                groups[group] = parser.add_mutually_exclusive_group()
            target = groups[group]
        text = details.pop("help").replace("%", "%%")
        if "default" not in text and item.default not in (MISSING, None, (), False):
            text += f" (default {item.default})"
        kind = option_types()[item.name]
        details |= {"default": argparse.SUPPRESS, "help": text}
        if kind.kind is bool:
            details["action"] = argparse.BooleanOptionalAction
        else:
            details["type"] = kind.kind
            if kind.is_list:
                details["nargs"] = "+"
        target.add_argument(_flag(item.name), **details)


def check_options(options: TrainOptions) -> None:
    """Refuse what cannot be trained, before any work.

    Raises:
        AnomalyDetectorError: an option is at fault.
    """
    for item in _options():
        choices = item.metadata.get("choices")
        value = getattr(options, item.name)
        if choices and value not in choices and not (value is None and item.default is None):
            raise AnomalyDetectorError(
                f"{item.name.replace('_', ' ')} {value!r} is not known: "
                f"choose one of {', '.join(choices)}"
            )
    _check_recordings(options)
    _check_cluster(options)
    resolve_architecture(options.scorer, options.architecture)
    if options.out.suffix != ".onnx":
        raise AnomalyDetectorError(
            f"--out {options.out} does not end with .onnx: name an ONNX file"
        )
    _check_numbers(options)
    _check_rates(options)
    if options.clipnorm and options.global_clipnorm:
        raise AnomalyDetectorError(
            f"clipnorm is {options.clipnorm:g} and global_clipnorm {options.global_clipnorm:g}: "
            "give one of them"
        )
    # Found out now rather than after an hour of training.
    check_output_file(options.out)


def _check_cluster(options: TrainOptions) -> None:
    if options.worker is not None and not options.cluster:
        raise AnomalyDetectorError(
            f"--worker {options.worker} is for training on several machines: give --cluster "
            "HOST:PORT ... too or leave it out"
        )


def _check_recordings(options: TrainOptions) -> None:
    traits = SCORERS[options.scorer]
    if not options.data:
        raise AnomalyDetectorError("nothing to train on: give --data SOURCE")
    if traits.needs_anomalies and not options.anomalies:
        raise AnomalyDetectorError(
            f"scorer {options.scorer} learns from anomalies: give --anomalies SOURCE"
        )
    if options.anomalies and not traits.takes_anomalies:
        able = next(name for name, other in SCORERS.items() if other.takes_anomalies)
        raise AnomalyDetectorError(
            f"scorer {options.scorer} uses no anomalies: leave --anomalies out or choose "
            f"--scorer {able}"
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_numbers(options: TrainOptions) -> None:
    least = {"epochs": 1, "mlp_epochs": 1, "realnvp_epochs": 1, "batch_size": 1, "seed": 0}
    least |= {"exposure_epochs": 1, "exposure_steps": 1, "folds": 0}
    least |= {"early_stopping_patience": 0, "plateau_patience": 0}
    for name, lowest in least.items():
        if getattr(options, name) < lowest:
            raise AnomalyDetectorError(
                f"{name.replace('_', ' ')} is {getattr(options, name)}: give {lowest} or more"
            )
    if options.folds == 1:
        raise AnomalyDetectorError("folds is 1: give 2 or more, or 0 for no cross-validation")
    factors = ("l1", "l2", "embedding_l1", "embedding_l2", "clipnorm", "global_clipnorm")
    for name in (*factors, "min_learning_rate", "time_limit"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value >= 0.0):
            raise AnomalyDetectorError(f"{name.replace('_', ' ')} is {value}: give 0 or more")


def _check_rates(options: TrainOptions) -> None:
    if not 0.0 < options.held_out < 0.9:
        raise AnomalyDetectorError(f"held-out share is {options.held_out}: give 0.05 to 0.5")
    if not (math.isfinite(options.learning_rate) and options.learning_rate > 0.0):
        raise AnomalyDetectorError(f"learning rate is {options.learning_rate}: give 0.001 or so")
    if not 0.0 < options.false_alarm_rate < 1.0:
        raise AnomalyDetectorError(
            f"false alarm rate is {options.false_alarm_rate}: give a share such as 0.01"
        )
    if not 0.0 <= options.dropout < 1.0:
        raise AnomalyDetectorError(f"dropout is {options.dropout}: give a share such as 0.1")
    if not 0.0 < options.plateau_factor < 1.0:
        raise AnomalyDetectorError(
            f"plateau factor is {options.plateau_factor}: give a number such as 0.1"
        )
