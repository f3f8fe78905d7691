"""The training loop of several workers: as ``Model.fit`` does, each on its share of every batch.

Keras 3's own ``fit`` fails under ``MultiWorkerMirroredStrategy``; its optimizer, losses, callbacks
and ``evaluate`` do not, and are what this loop is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anomaly_detector.ordered_pool import map_in_order
from training.fitting.batches import Batches
from training.fitting.cluster.cluster import Cluster, translated_errors
from training.networks.backend import import_tensorflow
from training.networks.quiet_keras import keras


def fit_together(
    cluster: Cluster,
    model: Any,
    train: Batches,
    validation: Batches,
    *,
    epochs: int,
    initial_epoch: int,
    callbacks: Sequence[Any],
) -> None:
    """Train a compiled model on all workers.

    Args:
        cluster: the workers.
        model: the Keras model, with the same weights everywhere.
        train: batches to train on.
        validation: batches to validate on.
        epochs: number of the last epoch.
        initial_epoch: epochs done before.
        callbacks: Keras callbacks; each worker calls its own, with the losses of all. The chief's
            say when to stop.

    Raises:
        AnomalyDetectorError: a worker is gone.
    """
    step = _step_function(cluster, model)
    calls = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs)
    model.stop_training = False
    with translated_errors():
        calls.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            calls.on_epoch_begin(epoch)
            loss = _epoch(step, cluster, model, train, calls)
            cluster.synchronize(model)
            calls.on_epoch_end(
                epoch, {"loss": loss, "val_loss": _validate(cluster, model, validation)}
            )
            (stop, *_) = cluster.gather([float(model.stop_training)])
            model.stop_training = bool(stop[0])
            if model.stop_training:
                break
        calls.on_train_end()


def _step_function(cluster: Cluster, model: Any) -> Callable[..., Any]:
    tensorflow = import_tensorflow()
    variables = model.trainable_variables
    model.optimizer.build(variables)

    def replica(inputs: Any, targets: Any, weight: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            predicted = model(inputs, training=True)
            # The mean over shares of unlike size is that over the frames.
            loss = weight * model.compute_loss(inputs, targets, predicted, training=True)
        return cluster.mean([*tape.gradient(loss, variables), loss])

    def step(inputs: Any, targets: Any, weight: Any) -> Any:
        *gradients, loss = cluster.run(replica, inputs, targets, weight)
        model.optimizer.apply(gradients, variables)
        return loss

    compiled: Callable[..., Any] = tensorflow.function(step, autograph=False, reduce_retracing=True)
    return compiled


def _epoch(
    step: Callable[..., Any], cluster: Cluster, model: Any, batches: Batches, calls: Any
) -> float:
    """Train on all batches once; return the mean loss of their frames."""
    losses: list[float] = []
    # The next batch is made while this one is trained on.
    for index, (inputs, targets) in enumerate(
        map_in_order(batches.__getitem__, range(len(batches)), threads=1, waiting=2)
    ):
        own, everyone = batches.sizes(index)
        weight = np.float32(own * cluster.size / everyone)
        losses.append(float(step(_tensors(inputs), _tensors(targets), weight)))
        calls.on_train_batch_end(index, {"loss": losses[-1]})
        if model.stop_training:  # the loss is not finite
            break
    return float(np.average(losses, weights=[batches.sizes(i)[1] for i in range(len(losses))]))


def _validate(cluster: Cluster, model: Any, batches: Batches) -> float:
    """Return the mean loss of all workers' frames."""
    own = model.evaluate(batches, verbose=0, return_dict=True)["loss"]
    frames = sum(batches.sizes(index)[0] for index in range(len(batches)))
    losses, counts = cluster.gather([own, frames]).T
    return float(np.average(losses, weights=counts))


def _tensors(values: Any) -> Any:
    """Convert arrays as ``fit`` does: floats to the backend's precision."""
    tensorflow = import_tensorflow()

    def convert(array: Any) -> Any:
        tensor = tensorflow.convert_to_tensor(array)
        return (
            tensorflow.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor
        )

    return keras.tree.map_structure(convert, values)
