"""The options of a training, declared once.

The fields of :class:`TrainOptions` are the command line's options and the keys of a recipe file
(:mod:`training.config.recipe`); help texts, choices, types and limits all come from here. Which of
them a scorer uses says :mod:`training.scorers.options`.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from anomaly_detector.cli.arguments import MASK_HELP, POLYGON_HELP, REGION_HELP, SCALING_HELP
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import RegionOfInterest, parse_region
from anomaly_detector.images.mask import MaskSource
from anomaly_detector.images.preprocessing import View
from training.networks.augmentation import AUGMENTATIONS
from training.networks.autoencoders import INITIALIZERS

FALSE_ALARM_RATE = 0.01
"""Share of normal frames that a calibrated threshold flags, by default."""

DEFAULT_SCORER = "outlier-exposure-pretrained"
AUTO_ARCHITECTURE = "auto"
DEVICES = ("auto", "cpu", "gpu")


def _option(default: Any, help_text: str, **details: Any) -> Any:
    """Declare an option; of the details, the limits and ``group`` are ours, the rest argparse's.

    A value is at least ``least``, more than ``above`` and less than ``below``; ``example`` is what
    to give instead of a wrong one.
    """
    return field(default=default, metadata={"help": help_text, **details})


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
    exclude: Sequence[str] = _option(
        (),
        "frames of the normal drives that are used for nothing, numbers from 0, both ends "
        "included; with several drives NAME:A-B",
        metavar="A-B",
    )
    topic: str | None = _option(None, "image topic, for a bag with more than one")
    region: str | None = _option(None, f"{REGION_HELP}; the model remembers it")
    image_scaling: Sequence[float] = _option(
        (), f"{SCALING_HELP}; the model remembers them", nargs=2, metavar=("MIN", "MAX")
    )
    mask: Path | None = _option(None, f"{MASK_HELP}; the model remembers it", metavar="FILE")  # noqa: RUF009
    mask_polygon: Sequence[str] = _option((), POLYGON_HELP, metavar="CORNERS")
    architecture: str = _option(
        AUTO_ARCHITECTURE,
        "autoencoder; auto takes v5, and its own network for a scorer that has one",
    )
    scorer: str = _option(DEFAULT_SCORER, "what makes the score")
    anomalies: Sequence[str] = _option(
        (),
        "recordings of anomalies, or folders of the robot's black box whose events are all judged, "
        "for scorers that learn from them",
        metavar="RECORDING",
    )
    events: Sequence[str] = _option(
        (),
        "folders of the robot's black box: events judged normal join the normal frames, as a fifth "
        "of them at most (few are repeated, up to ten times), those judged anomalies the anomalies",
        metavar="FOLDER",
    )
    replaces: str | None = _option(
        None,
        "model file, or name of a shipped model, that the new one is to replace: both are compared "
        "on --events and on held-out frames, as compare-models does; exit code 1 when the new one "
        "is worse, though its file is kept",
        metavar="FILE",
    )
    epochs: int = _option(100, "most epochs to train the autoencoder", least=1)
    mlp_epochs: int = _option(100, "most epochs to train the mlp of mlp-thesis", least=1)
    realnvp_epochs: int = _option(500, "most epochs to train the flow of realnvp", least=1)
    exposure_epochs: int | None = _option(
        None,
        "epochs to train on outliers made of the drive (default: 18, or 10 on the pretrained "
        "encoder)",
        least=1,
    )
    exposure_steps: int = _option(
        100, "steps of each of these epochs, of 48 frames a step", least=1
    )
    time_limit: float = _option(0.0, "most seconds to train each network, 0 for no limit", least=0)
    batch_size: int = _option(
        32, "frames a step, of the autoencoder and the mlp of mlp-thesis", least=1
    )
    learning_rate: float = _option(
        1e-3, "of Adam, at the start, for the autoencoder", above=0, example="0.001 or so"
    )
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
        "never (default: 5 for the autoencoder, 20 for mlp-thesis, 100 for the flow of realnvp)",
        least=0,
    )
    plateau_patience: int = _option(
        4,
        "epochs without a better validation loss before the learning rate of the autoencoder "
        "falls, 0 for never",
        least=0,
    )
    plateau_factor: float = _option(
        0.1, "what the learning rate is multiplied with then",
        above=0, below=1, example="a number such as 0.1",
    )  # fmt: skip
    min_learning_rate: float = _option(1e-7, "floor of the learning rate", least=0)
    dropout: float = _option(
        0.0, "share of values dropped after every hidden layer",
        least=0, below=1, example="a share such as 0.1",
    )  # fmt: skip
    l1: float = _option(0.0, "L1 factor of all kernels", least=0)
    l2: float = _option(0.0, "L2 factor of all kernels, on top of the architecture's own", least=0)
    embedding_l1: float = _option(0.0, "L1 factor of the latent table of v2 and v3", least=0)
    embedding_l2: float = _option(0.0, "L2 factor of the latent table of v2 and v3", least=0)
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
        0.2, "share of the frames for validation and calibration", metavar="SHARE",
        above=0, below=0.9, example="0.05 to 0.5",
    )  # fmt: skip
    hold_out: str = _option(
        "auto",
        "what the threshold comes from: blocks of each drive; days, each held out in turn, which "
        "takes as many further trainings; auto: days where the stamps of the drives tell of some",
        choices=("auto", "blocks", "days"),
    )
    seed: int = _option(
        0, "makes the run repeatable", least=0, below=2**32, example="0 to 4294967295"
    )
    false_alarm_rate: float | None = _option(
        None,
        "calibrate the threshold on the held-out normal frames so that this share of normal "
        f"frames is flagged (default {FALSE_ALARM_RATE:g}, where no threshold is fixed)",
        metavar="SHARE",
        group="threshold",
        above=0,
        below=1,
        example="a share such as 0.01",
    )
    threshold: float | None = _option(
        None,
        "a fixed threshold instead; the thesis has 200 for reconstruction and 0.5 for mlp-thesis "
        "(the default there)",
        group="threshold",
        above=-math.inf,
        example="a finite number",
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
    device: str = _option("auto", "where to train; gpu is experimental", choices=DEVICES)
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

    @property
    def mask_source(self) -> MaskSource:
        """What the model is not to look at."""
        return MaskSource(self.mask, self.mask_polygon)


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


def option_fields() -> list[Field[Any]]:
    """Return the fields that are options; ``progress`` is none."""
    return [item for item in fields(TrainOptions) if item.metadata]


@cache
def option_types() -> Mapping[str, OptionType]:
    """Return the type of every option, by its field's name."""
    hints = typing.get_type_hints(TrainOptions)
    found = {}
    for item in option_fields():
        hint = hints[item.name]
        kind, *none = typing.get_args(hint) or (hint,)
        found[item.name] = OptionType(kind, typing.get_origin(hint) is Sequence, bool(none))
    return found


def check_numbers(options: TrainOptions) -> None:
    """Refuse numbers outside of their limits.

    Raises:
        AnomalyDetectorError: a number is at fault.
    """
    for item in option_fields():
        value, limits = getattr(options, item.name), item.metadata
        if value is None or not {"least", "above"} & limits.keys():
            continue
        least = limits.get("least", -math.inf)
        if not (
            math.isfinite(value)
            and value >= least
            and limits.get("above", -math.inf) < value < limits.get("below", math.inf)
        ):
            example = limits.get("example", f"{least} or more")
            raise AnomalyDetectorError(f"{item.name.replace('_', ' ')} is {value}: give {example}")
    if options.folds == 1:
        raise AnomalyDetectorError("folds is 1: give 2 or more, or 0 for no cross-validation")
