"""How a network is fitted, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    The defaults are the thesis' (5.8 to 5.10): EarlyStopping with patience 5 that restores the
    best weights, ReduceLROnPlateau with factor 0.1, patience 4 and a floor of 1e-7.

    Attributes:
        epochs: upper limit.
        steps: of an epoch, no more than all frames give; None for all.
        batch_size: frames a step.
        learning_rate: of Adam, at the start.
        clipnorm: limit of each gradient's norm; None or 0 for no limit.
        global_clipnorm: limit of the norm of all gradients together; likewise.
        weight_decay: of kernels, not of biases and normalisations: what each step takes from them,
            in units of the learning rate (decoupled, Loshchilov and Hutter 2019); 0 for none.
        early_stopping_patience: epochs without a better validation loss before stopping; 0 never.
        plateau_patience: epochs without a better validation loss before the rate is reduced; 0
            never.
        plateau_factor: what the rate is multiplied with then.
        min_learning_rate: floor of the rate.
        cosine: let the rate rise over the first twentieth of the epochs and then fall as a cosine
            to a hundredth, whatever the validation loss does.
        keep_best: leave the weights of the epoch with the best validation loss in the model; else
            those of the last epoch.
        time_limit: seconds after which the epoch under way is the last; 0 for none.
        seed: of the order of the frames and of what is sampled for them.
    """

    epochs: int = 100
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    weight_decay: float = 0.0
    early_stopping_patience: int = 5
    plateau_patience: int = 4
    plateau_factor: float = 0.1
    min_learning_rate: float = 1e-7
    cosine: bool = False
    keep_best: bool = True
    time_limit: float = 0.0
    seed: int = 0


@dataclass
class FitResult:
    """What fitting gave; the model holds the best weights.

    Attributes:
        history: per epoch, name of a quantity to its values.
        best_epoch: number of the epoch whose weights are kept, from 1.
        best_loss: its validation loss.
        seconds: time it took, that of the runs before a resumed one included.
        stopped_by: ``epochs``, ``early-stopping``, ``time-limit`` or ``interrupt``.
        trained: at least one epoch was trained now, and not all taken from a checkpoint.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    stopped_by: str = "epochs"
    trained: bool = False

    def summary(self) -> dict[str, Any]:
        """Return the course of the training in figures, for a model's provenance."""
        return {
            "epochs": len(self.history["loss"]),
            "best_epoch": self.best_epoch,
            "stopped_by": self.stopped_by,
            "seconds": round(self.seconds, 1),
        }
