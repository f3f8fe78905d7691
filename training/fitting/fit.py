"""Fits networks: batches from a frame set, progress, history, checkpoints, and Ctrl-C.

Import :mod:`training.fitting.backend` and call ``import_keras`` before this module: its own import
of Keras is not a quiet one.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError, OutputError
from training.fitting.backend import import_tensorflow
from training.fitting.checkpoint import Checkpoint
from training.fitting.cluster.cluster import Cluster
from training.fitting.cluster.fit import fit_together

Take: TypeAlias = Callable[[NDArray[np.int64]], tuple[Any, Any]]
"""From frame numbers to inputs and targets."""

Draw: TypeAlias = Callable[[np.random.Generator, Any], Any]
"""From a generator and a batch's inputs to what is trained on instead."""


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    The defaults are the thesis' (5.8 to 5.10): EarlyStopping with patience 5 that restores the
    best weights, ReduceLROnPlateau with factor 0.1, patience 4 and a floor of 1e-7.

    Attributes:
        epochs: upper limit.
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
        seed: of the order of the frames and of what is drawn for them.
    """

    epochs: int = 100
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


class _Batches(keras.utils.PyDataset):
    """Shuffled batches; an epoch's order and draws follow from the seed and its number alone.

    Of several workers each takes its share of every batch.
    """

    def __init__(
        self,
        take: Take,
        indices: NDArray[np.int64],
        batch_size: int,
        seed: int | None,
        draw: Draw | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        super().__init__()
        self._worker, self._workers = (cluster.index, cluster.size) if cluster else (0, 1)
        self._take = take
        self._indices = indices
        self._batch_size = batch_size
        self._seed = seed
        self._draw = draw
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = self._indices
        if self._seed is not None:
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._indices)

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        # Sorted: neighbouring frames of a memory-mapped file are read together.
        inputs, targets = self._take(self._share(np.sort(self._batch(index))))
        if self._draw is not None:
            chance = [self._seed or 0, self._epoch, index]
            if self._workers > 1:
                chance.append(self._worker)
            inputs = self._draw(np.random.default_rng(chance), inputs)
        return inputs, targets

    def sizes(self, index: int) -> tuple[int, int]:
        """Return the number of this worker's frames of a batch and that of all workers'."""
        batch = self._batch(index)
        return len(self._share(batch)), max(len(batch), self._workers)

    def _batch(self, index: int) -> NDArray[np.int64]:
        return self._order[index * self._batch_size :][: self._batch_size]

    def _share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        # A loss of no frames is no number: in a batch of too few, some go to several workers.
        return np.resize(batch, max(len(batch), self._workers))[self._worker :: self._workers]


class _EpochStart(keras.callbacks.Callback):
    """Tells the batches which epoch it is: Keras counts anew in every fit."""

    def __init__(self, batches: _Batches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._batches.set_epoch(epoch)


class _BestWeights(keras.callbacks.Callback):
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


class _TimeLimit(keras.callbacks.Callback):
    """Ends the training with the epoch in which the time runs out."""

    def __init__(self, seconds: float, result: FitResult) -> None:
        super().__init__()
        self._deadline = time.perf_counter() + seconds
        self._result = result

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if time.perf_counter() > self._deadline:
            self.model.stop_training = True
            self._result.stopped_by = "time-limit"


def _cosine_rate(settings: FitSettings) -> Callable[[int, float], float]:
    """Return the learning rate of an epoch, counted from 0."""
    rising = max(1, settings.epochs // 20)

    def rate(epoch: int, _: float) -> float:
        if epoch < rising:
            return settings.learning_rate * (epoch + 1) / (rising + 1)
        share = (epoch - rising) / max(1, settings.epochs - rising)
        return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)

    return rate


class _Progress(keras.callbacks.Callback):
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


class _TensorBoard(keras.callbacks.Callback):
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


def tensorboard_log(folder: Path) -> keras.callbacks.Callback:
    """Return the callback that writes losses and learning rate of every epoch for TensorBoard."""
    return _TensorBoard(folder)


class _Checkpoints(keras.callbacks.Callback):
    """Writes a checkpoint after every epoch, and starts a training from one.

    It has to come after the callbacks whose state it keeps.
    """

    def __init__(
        self,
        path: Path,
        result: FitResult,
        best: _BestWeights,
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


class FusedAdam(keras.optimizers.Adam):
    """Adam with TensorFlow's one-pass kernel: the same formula, a third of the time on a CPU."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move a variable by one step, as Keras' Adam does."""
        tensorflow = import_tensorflow()
        index = self._get_variable_index(variable)
        step = tensorflow.cast(self.iterations + 1, variable.dtype)
        tensorflow.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tensorflow.pow(tensorflow.cast(self.beta_1, variable.dtype), step),
            beta2_power=tensorflow.pow(tensorflow.cast(self.beta_2, variable.dtype), step),
            lr=tensorflow.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def adam(settings: FitSettings) -> Any:
    """Return the optimizer: Adam with the settings' rate, clipping and weight decay."""
    fused = keras.backend.backend() == "tensorflow"
    optimizer = (FusedAdam if fused else keras.optimizers.Adam)(
        settings.learning_rate,
        clipnorm=settings.clipnorm or None,
        global_clipnorm=settings.global_clipnorm or None,
        weight_decay=settings.weight_decay or None,
    )
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _jit_compile() -> bool | str:
    """XLA pays on a GPU; on a CPU its convolutions are slower than oneDNN's."""
    if keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu"):
        return False
    return "auto"


def fit(
    model: Any,
    take: Take,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    settings: FitSettings,
    *,
    loss: Any,
    label: str,
    progress: bool = True,
    draw: Draw | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    keep_optimizer: bool = False,
    tensorboard: Path | None = None,
    cluster: Cluster | None = None,
) -> FitResult:
    """Fit a Keras model with Adam; leaves the best weights in it.

    Args:
        model: the Keras model.
        take: gives inputs and targets for an array of frame numbers.
        train: frame numbers to train on.
        validation: frame numbers to validate on.
        settings: see there.
        loss: Keras loss, or its name.
        label: name on the progress bar.
        progress: show a progress bar on stderr.
        draw: changes the inputs of training batches; called with a generator that follows from
            seed, epoch and batch.
        checkpoint: file to keep the state in, written after every epoch.
        resume: go on from that file, if it is there, to the same end as a run in one go.
        keep_optimizer: go on with the model's optimizer and its learning rate, if it has one.
        tensorboard: folder for TensorBoard logs.
        cluster: workers that train together, each with the same arguments; the batches are
            theirs together.

    Raises:
        AnomalyDetectorError: the loss became NaN, Ctrl-C came before the first epoch's end, the
            checkpoint cannot be used, or another worker is gone.
    """
    result = FitResult()
    best = _BestWeights(result, settings.keep_best)
    bar = _Progress(label, settings.epochs, len(train), not progress)
    batches = _Batches(take, train, settings.batch_size, settings.seed, draw, cluster)
    if not (keep_optimizer and model.compiled):
        model.compile(optimizer=adam(settings), loss=loss, jit_compile=_jit_compile())
    callbacks: list[Any] = [_EpochStart(batches), best]
    stateful: dict[str, tuple[Any, tuple[str, ...]]] = {}
    if settings.early_stopping_patience:
        stopping = keras.callbacks.EarlyStopping(
            "val_loss", patience=settings.early_stopping_patience
        )
        callbacks.append(stopping)
        stateful["early_stopping"] = (stopping, ("best", "best_epoch", "wait"))
    if settings.plateau_patience:
        plateau = keras.callbacks.ReduceLROnPlateau(
            "val_loss",
            factor=settings.plateau_factor,
            patience=settings.plateau_patience,
            min_lr=settings.min_learning_rate,
        )
        callbacks.append(plateau)
        stateful["plateau"] = (plateau, ("best", "wait", "cooldown_counter"))
    if settings.cosine:
        callbacks.append(keras.callbacks.LearningRateScheduler(_cosine_rate(settings)))
    if settings.time_limit:
        callbacks.append(_TimeLimit(settings.time_limit, result))
    callbacks += [keras.callbacks.TerminateOnNaN(), bar]
    if tensorboard is not None:
        callbacks.append(tensorboard_log(tensorboard))
    done = 0
    stopped = False
    if checkpoint is not None:
        if resume and cluster is not None:
            cluster.hand_out(checkpoint)
        checkpoints = _Checkpoints(checkpoint, result, best, stateful)
        callbacks.append(checkpoints)
        if resume and checkpoint.is_file():
            done = checkpoints.resume(model)
            stopped = checkpoints.stopped
            bar.skip(done)
    start = time.perf_counter()
    try:
        if done < settings.epochs and not stopped:
            held_out = _Batches(take, validation, 4 * settings.batch_size, None, None, cluster)
            if cluster is not None:
                fit_together(
                    cluster,
                    model,
                    batches,
                    held_out,
                    epochs=settings.epochs,
                    initial_epoch=done,
                    callbacks=callbacks,
                )
            else:
                model.fit(
                    batches,
                    validation_data=held_out,
                    epochs=settings.epochs,
                    initial_epoch=done,
                    shuffle=False,
                    verbose=0,
                    callbacks=callbacks,
                )
    except KeyboardInterrupt:
        if cluster is not None and not cluster.is_chief:
            raise  # the others cannot go on, and this one writes no model
        result.stopped_by = "interrupt"
    finally:
        bar.close()
    result.seconds += time.perf_counter() - start
    _finish(result, best.restore(model), settings, label)
    return result


def _finish(result: FitResult, restored: bool, settings: FitSettings, label: str) -> None:
    """Report how the training ended, or raise when it gave nothing."""
    epochs = len(result.history.get("loss", []))
    if not restored:
        if result.stopped_by == "interrupt":
            raise AnomalyDetectorError(
                f"{label} was interrupted in its first epoch: nothing learned, nothing written"
            )
        raise AnomalyDetectorError(
            f"{label} diverged, its loss is not finite: try another --seed, or for an autoencoder "
            f"a lower --learning-rate (it is {settings.learning_rate:g})"
        )
    if result.stopped_by == "interrupt":
        print(
            f"Interrupted: keeping the best model so far, epoch {result.best_epoch} of {epochs} "
            f"with validation loss {result.best_loss:.4g}.",
            file=sys.stderr,
        )
    elif epochs < settings.epochs and result.stopped_by == "epochs":
        result.stopped_by = "early-stopping"
