"""The options of a training run, declared once.

The fields of :class:`TrainOptions` are at the same time the command line's options and the keys of
a recipe file (:mod:`training.config.recipe`); help texts, choices and types all come from here.
"""

from __future__ import annotations

import argparse
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from anomaly_detector.cli.arguments import REGION_HELP, SCALING_HELP
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import check_output_file
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import RegionOfInterest, parse_region
from anomaly_detector.images.preprocessing import View
from training.fitting.augmentation import AUGMENTATIONS
from training.networks.autoencoders import ARCHITECTURES, CODE_TABLE_OPTIONS, INITIALIZERS
from training.scorers.registry import DEFAULT_SCORER, find_scorer, networks, scorers

FALSE_ALARM_RATE = 0.01
"""Share of normal frames that a calibrated threshold flags, by default."""

DEVICES = ("auto", "cpu", "gpu")


_EVERY_SCORER = frozenset(
    {
        *("data", "out", "topic", "region", "image_scaling", "scorer", "architecture"),
        *("held_out", "false_alarm_rate", "threshold", "seed", "time_limit"),
        *("resume", "tensorboard", "cluster", "worker", "device", "cache"),
    }
)

AUTO_ARCHITECTURE = "auto"


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
        MISSING, "normal drives: image folders, bags or videos", metavar="RECORDING"
    )
    out: Path = _option(MISSING, "model file to write (.onnx)", metavar="FILE")  # noqa: RUF009
    topic: str | None = _option(None, "image topic, for a bag with more than one")
    region: str | None = _option(None, f"{REGION_HELP}; the model remembers it")
    image_scaling: Sequence[float] = _option(
        (), f"{SCALING_HELP}; the model remembers them", nargs=2, metavar=("MIN", "MAX")
    )
    architecture: str = _option(
        AUTO_ARCHITECTURE,
        "autoencoder; auto takes v5, and the scorer's own network for outlier-exposure",
        choices=lambda: (AUTO_ARCHITECTURE, *ARCHITECTURES, *networks()),
    )
    scorer: str = _option(DEFAULT_SCORER, "what makes the score", choices=lambda: tuple(scorers()))
    anomalies: Sequence[str] = _option(
        (),
        "recordings of anomalies, or folders of the robot's black box, for scorers that learn "
        "from them",
        metavar="RECORDING",
    )
    epochs: int = _option(100, "most epochs to train the autoencoder", least=1)
    mlp_epochs: int = _option(100, "most epochs to train the mlp", least=1)
    realnvp_epochs: int = _option(500, "most epochs to train the flow of realnvp", least=1)
    exposure_epochs: int = _option(18, "epochs to train the unet of outlier-exposure", least=1)
    exposure_steps: int = _option(
        100, "steps of each of these epochs, of 48 frames a step", least=1
    )
    time_limit: float = _option(0.0, "most seconds to train each network, 0 for no limit", least=0)
    batch_size: int = _option(32, "frames a step, of the autoencoder and the mlp", least=1)
    learning_rate: float = _option(1e-3, "of Adam, at the start, for the autoencoder")
    clipnorm: float | None = _option(
        None,
        "limit of each gradient's norm, 0 for none (default: the architecture's)",
        least=0,
    )
    global_clipnorm: float | None = _option(
        None,
        "limit of the norm of all gradients together, 0 for none (default: the architecture's)",
        least=0,
    )
    early_stopping_patience: int | None = _option(
        None,
        "epochs without a better validation loss before the training of a network stops, 0 for "
        "never (default: 5 for the autoencoder, 20 for the mlp, 100 for the flow of realnvp)",
        least=0,
    )
    plateau_patience: int = _option(
        4,
        "epochs without a better validation loss before the learning rate of the autoencoder "
        "falls, 0 for never",
        least=0,
    )
    plateau_factor: float = _option(0.1, "what the learning rate is multiplied with then")
    min_learning_rate: float = _option(1e-7, "floor of the learning rate", least=0)
    dropout: float = _option(0.0, "share of values dropped after every hidden layer")
    l1: float = _option(0.0, "L1 factor of all kernels", least=0)
    l2: float = _option(0.0, "L2 factor of all kernels, on top of the architecture's own", least=0)
    embedding_l1: float = _option(0.0, "L1 factor of the code table of v2 and v3", least=0)
    embedding_l2: float = _option(0.0, "L2 factor of the code table of v2 and v3", least=0)
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
        least=0,
    )
    thesis_folds: bool = _option(
        False,
        "train the autoencoder as the thesis does (5.8): one network through ten shuffled folds, "
        "each with a tenth of the epochs",
    )
    held_out: float = _option(
        0.2, "share of the frames for validation and calibration", metavar="SHARE"
    )
    seed: int = _option(0, "makes the run repeatable", least=0)
    false_alarm_rate: float | None = _option(
        None,
        "calibrate the threshold on the held-out normal frames so that this share of normal "
        f"frames is flagged (default {FALSE_ALARM_RATE:g}, where no threshold is fixed)",
        metavar="SHARE",
        group="threshold",
    )
    threshold: float | None = _option(
        None,
        "a fixed threshold instead; the thesis has 200 for reconstruction and 0.5 for mlp (the "
        "default there)",
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
        None, "folder for resized frames (default ~/.cache)", metavar="FOLDER"
    )
    progress: bool = True

    def patience(self, default: int) -> int:
        """Return the epochs before a network's training stops early, 0 for never."""
        given = self.early_stopping_patience
        return default if given is None else given

    @property
    def view(self) -> View:
        """What the model is to see of a frame.

        Raises:
            AnomalyDetectorError: no region, or no range of values.
        """
        if len(self.image_scaling) not in (0, 2):
            raise AnomalyDetectorError(
                f"image scaling is {list(self.image_scaling)}: give the values for black and white"
            )
        return View(
            RegionOfInterest() if self.region is None else parse_region(self.region),
            ImageScaling(*self.image_scaling) if self.image_scaling else None,
        )


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
    """Return the type of every option, by its field's name; ``progress`` is none."""
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


def _choices(item: Field[Any]) -> Sequence[str]:
    """Return the values to choose from; those of scorers are asked for, since more may come."""
    choices: Any = item.metadata.get("choices", ())
    return choices() if callable(choices) else choices  # type: ignore[no-any-return]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options on a command line, those of some scorers only in groups of their own.

    What the user leaves out is missing from the parsed arguments, so that a recipe can say it.
    """
    groups: dict[str, Any] = {}
    for item in _options():
        details = dict(item.metadata)
        group = details.pop("group", None)
        details.pop("least", None)
        target = parser
        if group is not None:
            if group not in groups:
                groups[group] = parser.add_mutually_exclusive_group()
            target = groups[group]
        elif item.name not in _EVERY_SCORER:
            title = f"for --scorer {', '.join(_users(item.name))}"
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            target = groups[title]
        if "choices" in details:
            details["choices"] = _choices(item)
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
                details.setdefault("nargs", "+")
        target.add_argument(_flag(item.name), **details)


def _users(name: str) -> list[str]:
    """Return the scorers that use an option."""
    return [scorer for scorer, own in scorers().items() if name in own.options | _EVERY_SCORER]


def used_options(options: TrainOptions) -> frozenset[str]:
    """Return the names of the options that the scorer and its network use, given or not.

    Raises:
        AnomalyDetectorError: the architecture is not for this scorer.
    """
    used = _EVERY_SCORER | find_scorer(options.scorer).options
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
    defaults: dict[str, Any] = {i.name: i.default for i in _options() if i.name not in used}
    return replace(options, **defaults)


def fixed_threshold(options: TrainOptions) -> float | None:
    """Return the fixed threshold; None where one is to be calibrated."""
    if options.threshold is None and options.false_alarm_rate is None:
        return find_scorer(options.scorer).threshold
    return options.threshold


def check_given(options: TrainOptions, given: Collection[str]) -> None:
    """Refuse values that are no choice, and options that would do nothing.

    Args:
        options: the options.
        given: the names of those that somebody set, perhaps to their default.

    Raises:
        AnomalyDetectorError: an option is at fault.
    """
    for item in _options():
        choices = _choices(item)
        value = getattr(options, item.name)
        if choices and value not in choices and not (value is None and item.default is None):
            raise AnomalyDetectorError(
                f"{item.name.replace('_', ' ')} {value!r} is not known: "
                f"choose one of {', '.join(choices)}"
            )
    used = used_options(options)
    reasons: dict[str, list[str]] = {}
    for name in option_types():
        if name in given and name not in used:
            reasons.setdefault(_why_unused(name, options), []).append(_flag(name))
    if reasons:
        count = sum(len(flags) for flags in reasons.values())
        told = "; ".join(why.format(", ".join(flags)) for why, flags in reasons.items())
        raise AnomalyDetectorError(f"{told}: leave {'it' if count == 1 else 'them'} out")


def _why_unused(name: str, options: TrainOptions) -> str:
    """Return what does not use an option and what would, with {} in the place of its name."""
    users = _users(name)
    if options.scorer not in users:
        return f"scorer {options.scorer} does not use {{}} (for {', '.join(users)})"
    if name in CODE_TABLE_OPTIONS:
        users = [n for n, item in ARCHITECTURES.items() if name not in item.unused_options]
        architecture = resolve_architecture(options.scorer, options.architecture)
        return (
            f"scorer {options.scorer} on architecture {architecture} does not use {{}} "
            f"(for {', '.join(users)})"
        )
    return f"scorer {options.scorer} does not use {{}} with --plateau-patience 0"


def check_options(options: TrainOptions) -> None:
    """Refuse what cannot be trained, before any work.

    Raises:
        AnomalyDetectorError: an option is at fault.
    """
    values = {item.name: getattr(options, item.name) for item in _options()}
    check_given(options, [i.name for i in _options() if values[i.name] not in (i.default, [])])
    _check_recordings(options)
    _check_cluster(options)
    if options.out.suffix != ".onnx":
        raise AnomalyDetectorError(
            f"--out {options.out} does not end with .onnx: name an ONNX file"
        )
    _check_numbers(options)
    _check_rates(options)
    for one, other in (("clipnorm", "global_clipnorm"), ("threshold", "false_alarm_rate")):
        first, second = getattr(options, one), getattr(options, other)
        # A limit of 0 is none; a threshold of 0 is one.
        if second and (first or (one == "threshold" and first is not None)):
            raise AnomalyDetectorError(
                f"{one} is {first:g} and {other} {second:g}: give one of them"
            )
    # Found out now rather than after an hour of training.
    for path in (options.out, options.out.with_suffix(".history.csv")):
        check_output_file(path)


def _check_cluster(options: TrainOptions) -> None:
    if options.worker is not None and not options.cluster:
        raise AnomalyDetectorError(
            f"--worker {options.worker} is for training on several machines: give --cluster "
            "HOST:PORT ... too or leave it out"
        )


def _check_recordings(options: TrainOptions) -> None:
    if not options.data:
        raise AnomalyDetectorError("nothing to train on: give --data RECORDING")
    if find_scorer(options.scorer).needs_anomalies and not options.anomalies:
        raise AnomalyDetectorError(
            f"scorer {options.scorer} learns from anomalies: give --anomalies RECORDING"
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_numbers(options: TrainOptions) -> None:
    for item in _options():
        value, least = getattr(options, item.name), item.metadata.get("least")
        if None not in (value, least) and not (math.isfinite(value) and value >= least):
            name = item.name.replace("_", " ")
            raise AnomalyDetectorError(f"{name} is {value}: give {least} or more")
    if options.folds == 1:
        raise AnomalyDetectorError("folds is 1: give 2 or more, or 0 for no cross-validation")


def _check_rates(options: TrainOptions) -> None:
    if not 0.0 < options.held_out < 0.9:
        raise AnomalyDetectorError(f"held-out share is {options.held_out}: give 0.05 to 0.5")
    if not (math.isfinite(options.learning_rate) and options.learning_rate > 0.0):
        raise AnomalyDetectorError(f"learning rate is {options.learning_rate}: give 0.001 or so")
    if options.false_alarm_rate is not None and not 0.0 < options.false_alarm_rate < 1.0:
        raise AnomalyDetectorError(
            f"false alarm rate is {options.false_alarm_rate}: give a share such as 0.01"
        )
    if not 0.0 <= options.dropout < 1.0:
        raise AnomalyDetectorError(f"dropout is {options.dropout}: give a share such as 0.1")
    if not 0.0 < options.plateau_factor < 1.0:
        raise AnomalyDetectorError(
            f"plateau factor is {options.plateau_factor}: give a number such as 0.1"
        )
