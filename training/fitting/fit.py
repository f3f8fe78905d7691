"""Fits networks: from frame numbers to the best weights, with checkpoints and Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, Interrupted
from training.fitting.batches import Batches, Load, Sample
from training.fitting.callbacks import (
    BestWeights,
    Checkpoints,
    Progress,
    TensorBoard,
    TimeLimit,
    cosine_rate,
)
from training.fitting.cluster.cluster import Cluster
from training.fitting.cluster.fit import fit_together
from training.fitting.optimizer import adam, jit_compile
from training.fitting.settings import FitResult, FitSettings
from training.networks.quiet_keras import keras


def fit(
    model: Any,
    load: Load,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    settings: FitSettings,
    *,
    loss: Any,
    label: str,
    progress: bool = True,
    sample: Sample | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    keep_optimizer: bool = False,
    tensorboard: Path | None = None,
    cluster: Cluster | None = None,
) -> FitResult:
    """Fit a Keras model with Adam; leaves the best weights in it.

    Args:
        model: the Keras model.
        load: gives inputs and targets for an array of frame numbers.
        train: frame numbers to train on.
        validation: frame numbers to validate on.
        settings: see there.
        loss: Keras loss, or its name.
        label: name on the progress bar.
        progress: show a progress bar on stderr.
        sample: changes the inputs of training batches; called with a generator that follows from
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
    batches = Batches(
        load, train, settings.batch_size, settings.seed, sample, cluster, settings.steps
    )
    held_out = Batches(load, validation, 4 * settings.batch_size, None, None, cluster)
    if not (keep_optimizer and model.compiled):
        model.compile(optimizer=adam(settings), loss=loss, jit_compile=jit_compile())

    def loop(callbacks: Sequence[Any], done: int) -> None:
        options = {"epochs": settings.epochs, "initial_epoch": done}
        # Keras counts the epochs of the batches anew in every fit.
        start = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: batches.set_epoch(epoch)
        )
        callbacks = [start, *callbacks]
        if cluster is not None:
            fit_together(cluster, model, batches, held_out, callbacks=callbacks, **options)
        else:
            model.fit(
                batches,
                validation_data=held_out,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
                **options,
            )

    return run_loop(
        loop, model, settings,
        label=label, frames=len(batches) * settings.batch_size, progress=progress,
        checkpoint=checkpoint, resume=resume, tensorboard=tensorboard, cluster=cluster,
    )  # fmt: skip


def run_loop(
    loop: Callable[[Sequence[Any], int], None],
    model: Any,
    settings: FitSettings,
    *,
    label: str,
    frames: int,
    progress: bool = True,
    checkpoint: Path | None = None,
    resume: bool = False,
    tensorboard: Path | None = None,
    cluster: Cluster | None = None,
) -> FitResult:
    """Run a training loop with the callbacks that the settings ask for.

    ``loop`` is called with the callbacks and the number of epochs that are done already, ``model``
    is compiled, ``frames`` are trained on in an epoch; the others are those of :func:`fit`.
    """
    if cluster is None:  # whose loop does so itself
        # Variables made within the first step would have TensorFlow trace it twice: seconds.
        model.optimizer.build(model.trainable_variables)
    result = FitResult()
    best = BestWeights(result, settings.keep_best)
    bar = Progress(label, settings.epochs, frames, not progress)
    callbacks: list[Any] = [best]
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
        callbacks.append(keras.callbacks.LearningRateScheduler(cosine_rate(settings)))
    if settings.time_limit:
        callbacks.append(TimeLimit(settings.time_limit, result))
    callbacks += [keras.callbacks.TerminateOnNaN(), bar]
    if tensorboard is not None:
        callbacks.append(TensorBoard(tensorboard))
    done, stopped = 0, False
    if checkpoint is not None:
        if resume and cluster is not None:
            cluster.hand_out(checkpoint)
        checkpoints = Checkpoints(checkpoint, result, best, stateful)
        callbacks.append(checkpoints)
        if resume and checkpoint.is_file():
            done = checkpoints.resume(model)
            stopped = checkpoints.stopped
            bar.skip(done)
    start = time.perf_counter()
    try:
        if done < settings.epochs and not stopped:
            loop(callbacks, done)
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
            raise Interrupted(
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
