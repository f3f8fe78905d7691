"""What a scorer is to training and export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anomaly_detector.images.preprocessing import INPUT_SIZE
from anomaly_detector.model.map_scale import MapScale
from training.fitting.run import ScoringFunction, TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.networks.autoencoders import ARCHITECTURES

AUTOENCODER_OPTIONS = frozenset(
    {
        *("epochs", "batch_size", "learning_rate", "clipnorm", "global_clipnorm"),
        *("early_stopping_patience", "plateau_patience", "plateau_factor", "min_learning_rate"),
        *("dropout", "l1", "l2", "embedding_l1", "embedding_l2", "initializer"),
        *("augmentation", "folds", "thesis_folds"),
    }
)
"""Options of training that every scorer on an autoencoder uses."""


@dataclass(frozen=True)
class Scorer:
    """What makes the score, and all that training, export and the robot have to know of it.

    Attributes:
        name: of ``--scorer`` and in the metadata.
        description: what it is, for the training guide (``make docs``).
        unit: of the score, in words.
        train: from the run and the trained autoencoder, or None when the scorer has a network of
            its own.
        restore: from an autoencoder that has its weights, or None, and the folder with the others.
        options: names of the :class:`training.config.options.TrainOptions` that it uses, beside
            those that every scorer uses; any other one that is given with it is an error.
        needs_anomalies: it cannot be trained without recordings of anomalies.
        normal_of_anomalies: what the recordings of anomalies show of normal frames, by their
            labels, is trained on like the normal drives. Else it could learn which drive a frame
            is from.
        threshold: its fixed threshold; None where one is calibrated on held-out normal frames.
        architecture: name of its own network; None for those that stand on an autoencoder.
        chooses_epoch: the weights of the epoch with the best validation loss are kept.
        standardized_unit: unit on networks that reconstruct the standardised image, where it is
            another one.
        maximum: the largest possible score; None where it has no upper end.
        input_size: height and width of the frames that its network takes.
        map_scale: which values of its maps are shown as heat, from the threshold and the scale of
            the normalised score. Without one heat is relative to the frame's highest cell: maps of
            gradient times activation show directions and have no unit.
        adapts: its models can be adapted: training keeps a sample of what it has seen.
    """

    name: str
    description: str
    unit: str
    train: Callable[[TrainingRun, Any], TrainingResult]
    restore: Callable[[Any, RunFolder], ScoringFunction]
    options: frozenset[str] = AUTOENCODER_OPTIONS
    needs_anomalies: bool = False
    normal_of_anomalies: bool = False
    threshold: float | None = None
    architecture: str | None = None
    chooses_epoch: bool = True
    standardized_unit: str | None = None
    maximum: float | None = None
    input_size: int = INPUT_SIZE
    map_scale: Callable[[float, float], MapScale] = lambda threshold, scale: MapScale(0.0, None)
    adapts: bool = False

    @property
    def needs_autoencoder(self) -> bool:
        """It stands on an autoencoder."""
        return self.architecture is None

    def unit_on(self, architecture: str) -> str:
        """Return the unit of the score on an architecture, in words."""
        if self.standardized_unit is None or not ARCHITECTURES[architecture].standardized:
            return self.unit
        return self.standardized_unit
