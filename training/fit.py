"""Fits networks: batches from a frame set, progress, history, and what Ctrl-C leaves behind.

Import :mod:`training.backend` and call ``import_keras`` before this module: its own import of Keras
is not a quiet one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError

__all__ = ["FitResult", "FitSettings", "fit"]


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    The defaults are the thesis' (5.8 to 5.10): EarlyStopping with patience 5 that restores the
    best weights, ReduceLROnPlateau with factor 0.1, patience 4 and a floor of 1e-7.

    Attributes:
        epochs: upper limit.
        batch_size: frames a step.
        learning_rate: of Adam, at the start.
        clipnorm: limit of each gradient's norm; None for no limit.
        early_stopping_patience: epochs without a better validation loss before stopping.
        plateau_patience: epochs without a better validation loss before the rate is reduced.
        plateau_factor: what the rate is multiplied with then.
        min_learning_rate: floor of the rate.
        seed: of the order of the frames.
    """

    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3
    clipnorm: float | None = None
    early_stopping_patience: int = 5
    plateau_patience: int = 4
    plateau_factor: float = 0.1
    min_learning_rate: float = 1e-7
    seed: int = 0


@dataclass
class FitResult:
    """What fitting gave; the model holds the best weights.

    Attributes:
        history: per epoch, name of a quantity to its values.
        best_epoch: number of the best epoch, from 1.
        best_loss: its validation loss.
        seconds: time it took.
        stopped_by: ``epochs``, ``early-stopping`` or ``interrupt``.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    stopped_by: str = "epochs"


class _Batches(keras.utils.PyDataset):
    """Shuffled batches, drawn anew for every epoch from the seed and the epoch's number."""

    def __init__(
        self,
        take: Callable[[NDArray[np.int64]], tuple[Any, Any]],
        indices: NDArray[np.int64],
        batch_size: int,
        seed: int | None,
    ) -> None:
        super().__init__()
        self._take = take
        self._indices = indices
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self.on_epoch_begin()

    def on_epoch_begin(self) -> None:
        self._epoch += 1
        if self._seed is not None:
            generator = np.random.default_rng((self._seed, self._epoch))
            self._order = generator.permutation(self._indices)
        else:
            self._order = self._indices

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        start = index * self._batch_size
        # Sorted: neighbouring frames of a memory-mapped file are read together.
        return self._take(np.sort(self._order[start : start + self._batch_size]))


class _BestWeights(keras.callbacks.Callback):
    """Keeps the best weights at hand at every moment, so that Ctrl-C loses none of them."""

    def __init__(self, result: FitResult) -> None:
        super().__init__()
        self._result = result
        self._weights: list[Any] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        for name, value in logs.items():
            self._result.history.setdefault(name, []).append(float(value))
        loss = float(logs["val_loss"])
        if loss < self._result.best_loss:
            self._result.best_loss = loss
            self._result.best_epoch = epoch + 1
            self._weights = self.model.get_weights()

    def restore(self) -> bool:
        if self._weights is None:
            return False
        self.model.set_weights(self._weights)
        return True


class _Progress(keras.callbacks.Callback):
    def __init__(self, label: str, epochs: int, frames: int, disable: bool) -> None:
        super().__init__()
        self._bar = tqdm(total=epochs, desc=label, unit="epoch", disable=disable)
        self._frames = frames
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        rate = self._frames / (time.perf_counter() - self._start)
        self._bar.set_postfix_str(
            f"loss {logs['loss']:.4g}, validation {logs['val_loss']:.4g}, {rate:.0f} frames/s"
        )
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


def fit(
    model: Any,
    take: Callable[[NDArray[np.int64]], tuple[Any, Any]],
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    settings: FitSettings,
    *,
    loss: str,
    label: str,
    progress: bool = True,
) -> FitResult:
    """Fit a Keras model with Adam; leaves the best weights in it.

    Args:
        model: the Keras model.
        take: gives inputs and targets for an array of frame numbers.
        train: frame numbers to train on.
        validation: frame numbers to validate on.
        settings: see there.
        loss: name of the Keras loss.
        label: name on the progress bar.
        progress: show a progress bar on stderr.

    Raises:
        AnomalyDetectorError: the loss became NaN, or Ctrl-C came before the first epoch's end.
    """
    result = FitResult()
    best = _BestWeights(result)
    bar = _Progress(label, settings.epochs, len(train), not progress)
    optimizer = keras.optimizers.Adam(settings.learning_rate, clipnorm=settings.clipnorm)
    model.compile(optimizer=optimizer, loss=loss)
    start = time.perf_counter()
    try:
        model.fit(
            _Batches(take, train, settings.batch_size, settings.seed),
            validation_data=_Batches(take, validation, 4 * settings.batch_size, None),
            epochs=settings.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[
                best,
                keras.callbacks.EarlyStopping(
                    "val_loss", patience=settings.early_stopping_patience
                ),
                keras.callbacks.ReduceLROnPlateau(
                    "val_loss",
                    factor=settings.plateau_factor,
                    patience=settings.plateau_patience,
                    min_lr=settings.min_learning_rate,
                ),
                keras.callbacks.TerminateOnNaN(),
                bar,
            ],
        )
    except KeyboardInterrupt:
        result.stopped_by = "interrupt"
    finally:
        bar.close()
    result.seconds = time.perf_counter() - start
    epochs = len(result.history.get("loss", []))
    if not best.restore():
        if result.stopped_by == "interrupt":
            raise AnomalyDetectorError(
                f"{label} was interrupted in its first epoch: nothing learned, nothing written"
            )
        raise AnomalyDetectorError(
            f"{label} diverged, its loss is not finite: lower --learning-rate "
            f"(it is {settings.learning_rate:g})"
        )
    if result.stopped_by == "interrupt":
        print(
            f"Interrupted: keeping the best model so far, epoch {result.best_epoch} of {epochs} "
            f"with validation loss {result.best_loss:.4g}.",
            file=sys.stderr,
        )
    elif epochs < settings.epochs:
        result.stopped_by = "early-stopping"
    return result
