"""What happens after every epoch: history, progress, limits, TensorBoard, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError, OutputError
from training.fitting.checkpoint import Checkpoint
from training.fitting.settings import FitResult, FitSettings
from training.networks.backend import import_tensorflow
from training.networks.quiet_keras import keras


class BestWeights(keras.callbacks.Callback):
    """Keeps the best or newest weights at hand at every moment, so that Ctrl-C loses none."""

    def __init__(self, result: FitResult, keep_best: bool) -> None:
        super().__init__()
        self._result = result
        self._keep_best = keep_best
        self.weights: list[Any] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        for name, value in logs.items():
            self._result.history.setdefault(name, []).append(float(value))
        self._result.trained = True
        loss = float(logs["val_loss"])
        if loss < self._result.best_loss or (not self._keep_best and math.isfinite(loss)):
            self._result.best_loss = loss
            self._result.best_epoch = epoch + 1
            self.weights = self.model.get_weights()

    def restore(self, model: Any) -> bool:
        if self.weights is None:
            return False
        model.set_weights(self.weights)
        return True


class TimeLimit(keras.callbacks.Callback):
    """Ends the training with the epoch in which the time runs out."""

    def __init__(self, seconds: float, result: FitResult) -> None:
        super().__init__()
        self._deadline = time.perf_counter() + seconds
        self._result = result

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if time.perf_counter() > self._deadline:
            self.model.stop_training = True
            self._result.stopped_by = "time-limit"


def cosine_rate(settings: FitSettings) -> Callable[[int, float], float]:
    """Return the learning rate of an epoch, counted from 0."""
    rising = max(1, settings.epochs // 20)

    def rate(epoch: int, _: float) -> float:
        if epoch < rising:
            return settings.learning_rate * (epoch + 1) / (rising + 1)
        share = (epoch - rising) / max(1, settings.epochs - rising)
        return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)

    return rate


class Progress(keras.callbacks.Callback):
    """Shows epochs, losses and speed on stderr."""

    def __init__(self, label: str, epochs: int, frames: int, disable: bool) -> None:
        super().__init__()
        self._bar = tqdm(total=epochs, desc=label, unit="epoch", disable=disable)
        self._frames = frames
        self._start = 0.0

    def skip(self, epochs: int) -> None:
        self._bar.update(epochs)

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


class TensorBoard(keras.callbacks.Callback):
    """Writes the losses as TensorBoard scalars.

    Keras' own callback needs the package tensorboard for writing; TensorFlow alone is enough.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        with self._errors_told():
            self._writer = import_tensorflow().summary.create_file_writer(str(self._folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        tensorflow = import_tensorflow()
        metadata = tensorflow.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "scalars"
        values = dict(logs or {}) | {"learning_rate": float(self.model.optimizer.learning_rate)}
        with self._errors_told(), self._writer.as_default():
            for name, value in values.items():
                tensor = tensorflow.constant(value, "float32")
                tensorflow.summary.write(name, tensor, step=epoch + 1, metadata=metadata)
            self._writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        with self._errors_told():
            self._writer.close()

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except import_tensorflow().errors.OpError as error:
            # "{{function_node ...}} FILE; REASON", and what was tried on further lines.
            reason = error.message.splitlines()[0].rpartition("}} ")[2]
            raise OutputError(
                f"TensorBoard log {self._folder} cannot be written ({reason}): make room, choose "
                "another folder or leave --tensorboard out"
            ) from error


class Checkpoints(keras.callbacks.Callback):
    """Writes a checkpoint after every epoch, and starts a training from one.

    It has to come after the callbacks whose state it keeps.
    """

    def __init__(
        self,
        path: Path,
        result: FitResult,
        best: BestWeights,
        stateful: dict[str, tuple[Any, tuple[str, ...]]],
    ) -> None:
        super().__init__()
        self._path = path
        self._result = result
        self._best = best
        self._stateful = stateful
        self._resumed: Checkpoint | None = None
        self._start = time.perf_counter()

    def resume(self, model: Any) -> int:
        """Bring model and result to the checkpoint's state; return the epochs it has behind it.

        Raises:
            AnomalyDetectorError: the checkpoint is damaged or of another network.
        """
        state = Checkpoint.read(self._path)
        model.optimizer.build(model.trainable_variables)
        for name, variables in self._variables(model).items():
            arrays = state.arrays[name]
            if [v.shape for v in variables] != [a.shape for a in arrays]:
                raise AnomalyDetectorError(
                    f"checkpoint {self._path} is of another network: leave --resume out to train "
                    "afresh"
                )
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)
        self._best.weights = list(state.arrays["best"])
        for name, value in state.values["result"].items():
            setattr(self._result, name, value)
        self._resumed = state
        return int(state.values["epochs"])

    @property
    def stopped(self) -> bool:
        """The training that the checkpoint is of had come to its end by itself."""
        return self._resumed is not None and bool(self._resumed.values["stopped"])

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self._resumed is not None:
            for name, (callback, attributes) in self._stateful.items():
                for attribute in attributes:
                    setattr(callback, attribute, self._resumed.values[name][attribute])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._best.weights is None:
            return
        result = self._result
        arrays = {
            name: [np.asarray(v) for v in variables]
            for name, variables in self._variables(self.model).items()
        }
        values = {
            "epochs": epoch + 1,
            "stopped": bool(self.model.stop_training),
            "result": {
                "history": result.history,
                "best_epoch": result.best_epoch,
                "best_loss": result.best_loss,
                "seconds": result.seconds + time.perf_counter() - self._start,
            },
        }
        for name, (callback, attributes) in self._stateful.items():
            values[name] = {attribute: getattr(callback, attribute) for attribute in attributes}
        Checkpoint(arrays | {"best": self._best.weights}, values).write(self._path)

    def _variables(self, model: Any) -> dict[str, list[Any]]:
        # The model's include the states of its random generators (dropout).
        return {"model": model.variables, "optimizer": model.optimizer.variables}
