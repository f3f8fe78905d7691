"""Decoder and heads of an exported detector, computed and trained in numpy.

The encoder stays as it is, so ONNX Runtime computes its features once and no network library is
needed: a robot's computer has neither TensorFlow nor the time. What is trained are the layers that
:func:`training.scorers.outlier_exposure.network.build_exposure_network` puts behind the encoder,
with the batch normalisation that export has folded into their weights.

Arrays are [N, rows, columns, channels], as in Keras; kernels [9 * channels, filters].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.scorers.outlier_exposure.batches import (
    ANOMALOUS_CELL,
    DROPOUT,
    EXPOSURE_BATCH,
    HIGHEST_CELLS,
    MAP_LOSS,
)

Array: TypeAlias = NDArray[Any]
Weights: TypeAlias = Mapping[str, Array]
Features: TypeAlias = Sequence[Array]
"""The encoder's features, fine to coarse."""

LEVELS = ("eighth", "quarter", "half")
"""Of the decoder, coarse to fine."""


def score(log_odds: Array, frame: Array, kept: NDArray[np.bool_] | None = None) -> Array:
    """Return the score [N] of maps [N, R, C] and frames [N]: see :mod:`training.scorers`.

    Args:
        log_odds: of maps.
        frame: log-odds of frames.
        kept: bool [R, C], cells that a mask leaves; None for all.
    """
    cells = (log_odds if kept is None else log_odds[:, kept]).reshape(len(log_odds), -1)
    highest = np.partition(cells, -HIGHEST_CELLS, axis=1)[:, -HIGHEST_CELLS:]
    return np.asarray(np.logaddexp(frame, highest.mean(axis=1)))


def _columns(x: Array, stride: int = 1) -> Array:
    """Return the 3x3 neighbourhoods of a picture, [N * rows * columns, 9 * channels]."""
    # What TensorFlow pads for "same": of an even size and stride 2, the far side alone.
    sides = (1, 1) if stride == 1 else (0, 1)
    padded = np.pad(x, ((0, 0), sides, sides, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    rows, columns = x.shape[1] // stride, x.shape[2] // stride
    windows = windows[:, ::stride, ::stride][:, :rows, :columns]
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(-1, 9 * x.shape[3])


def _convolution_input(gradient: Array, kernel: Array) -> Array:
    """Return the gradient of a 3x3 convolution's input; of stride 1."""
    filters = kernel.shape[1]
    turned = kernel.reshape(3, 3, -1, filters)[::-1, ::-1].transpose(0, 1, 3, 2)
    turned = turned.reshape(9 * filters, -1)
    return np.asarray((_columns(gradient) @ turned).reshape(*gradient.shape[:3], -1))


def _pixels(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _enlarged(x: Array) -> Array:
    return x.repeat(2, axis=1).repeat(2, axis=2)


def _reduced(x: Array) -> Array:
    """Return the sum of every 2x2 pixels, the gradient of :func:`_enlarged`."""
    count, rows, columns, channels = x.shape
    return np.asarray(x.reshape(count, rows // 2, 2, columns // 2, 2, channels).sum(axis=(2, 4)))


def answers(
    weights: Weights, features: Features, keep: Array | None = None
) -> tuple[Array, Array, dict[str, Array]]:
    """Return the log-odds of maps [N, R, C] and frames [N], and what the gradients need.

    Args:
        weights: of the decoder.
        features: of the encoder.
        keep: factors of the dropout, [N, inputs of the whole frame's layer].
    """
    count = len(features[0])
    known: dict[str, Array] = {}

    def layer(name: str, columns: Array, shape: Sequence[int]) -> Array:
        known[f"{name} columns"] = columns
        y = columns @ weights[f"{name} kernel"] + weights[f"{name} bias"]
        known[name] = np.maximum(y, 0).reshape(count, *shape, -1)
        return known[name]

    size = features[-1].shape[1] // 2
    x = layer("sixteenth", _columns(features[-1], 2), (size, size))
    flat = x.reshape(count, -1)
    for level, skip in zip(LEVELS, reversed(features), strict=True):
        known[f"{level} coarse"] = x
        coarse = (_pixels(x) @ weights[f"{level} coarse kernel"]).reshape(*x.shape[:3], -1)
        x = layer(f"{level} merge", _columns(_enlarged(coarse) + skip), skip.shape[1:3])
    known["map columns"] = _columns(x)
    log_odds = known["map columns"] @ weights["map kernel"] + weights["map bias"]
    eighth, quarter, half = (known[f"{level} merge"] for level in LEVELS)
    roll = _pixels(eighth) @ weights["roll kernel"] + weights["roll bias"]
    known["roll"] = roll = roll.reshape(eighth.shape[:3])
    whole = layer("whole", flat if keep is None else flat * keep, ())
    cells = quarter.reshape(count, -1, quarter.shape[-1])
    known["highest"] = cells.argmax(axis=1)[:, np.newaxis]
    evidence = (
        whole,
        roll.mean(axis=(1, 2))[:, np.newaxis],
        eighth.mean(axis=(1, 2)),
        np.take_along_axis(cells, known["highest"], axis=1)[:, 0],
        half.mean(axis=(1, 2)),
    )
    known["widths"] = np.cumsum([part.shape[1] for part in evidence[:-1]])
    hidden = layer("evidence", np.concatenate(evidence, axis=1), ())
    frame = hidden @ weights["frame kernel"] + weights["frame bias"]
    return log_odds.reshape(x.shape[:3]), frame[:, 0], known


def gradients(
    weights: Weights,
    features: Features,
    targets: Mapping[str, Array],
    keep: Array | None = None,
    kept: NDArray[np.bool_] | None = None,
) -> tuple[float, dict[str, Array]]:
    """Return the mean loss of a batch and its gradients.

    The loss is that of :func:`training.scorers.outlier_exposure.network.loss_model`.

    Args:
        weights: of the decoder.
        features: of the encoder.
        targets: from :func:`training.scorers.outlier_exposure.batches.make_batch`.
        keep: factors of the dropout.
        kept: bool [R, C], cells that a mask leaves; None for all.
    """
    log_odds, frame, known = answers(weights, features, keep)
    count = len(frame)
    found: dict[str, Array] = {}

    def layer(name: str, gradient: Array, columns: Array | None = None) -> None:
        """Keep the gradients of a layer's weights."""
        columns = known[f"{name} columns"] if columns is None else columns
        found[f"{name} kernel"] = columns.T @ _pixels(gradient)
        if f"{name} bias" in weights:
            found[f"{name} bias"] = _pixels(gradient).sum(axis=0)

    wanted = targets["map"]
    of_cells = (1 + ANOMALOUS_CELL * wanted) * targets["map_weight"][:, np.newaxis, np.newaxis]
    of_cells = of_cells * (MAP_LOSS / wanted[0].size)
    if kept is not None:
        of_cells = of_cells * kept
    roll_error = known["roll"] - targets["roll"][:, np.newaxis, np.newaxis]
    of_roll = targets["roll_weight"][:, np.newaxis, np.newaxis] / roll_error[0].size
    loss = (_cross_entropy(wanted, log_odds) * of_cells).sum()
    loss += _cross_entropy(targets["frame"], frame).sum() + (roll_error**2 * of_roll).sum()

    to_frame = ((_sigmoid(frame) - targets["frame"]) / count)[:, np.newaxis]
    layer("frame", to_frame, known["evidence"])
    hidden = to_frame @ weights["frame kernel"].T * (known["evidence"] > 0)
    layer("evidence", hidden)
    evidence = hidden @ weights["evidence kernel"].T
    whole, roll, eighth, highest, half = np.split(evidence, known["widths"], axis=1)
    whole = whole * (known["whole"] > 0)
    layer("whole", whole)
    flat = whole @ weights["whole kernel"].T
    sixteenth = (flat if keep is None else flat * keep).reshape(known["sixteenth"].shape)

    to_roll = 2 * roll_error * of_roll / count + (roll / roll_error[0].size)[..., np.newaxis]
    to_roll = to_roll[..., np.newaxis]
    layer("roll", to_roll, _pixels(known["eighth merge"]))
    cells = known["quarter merge"].reshape(count, -1, highest.shape[1])
    quarter = np.zeros_like(cells)
    np.put_along_axis(quarter, known["highest"], highest[:, np.newaxis], axis=1)
    beside = {
        "eighth": _pooled(eighth, known["eighth merge"]) + to_roll * weights["roll kernel"][:, 0],
        "quarter": quarter.reshape(known["quarter merge"].shape),
        "half": _pooled(half, known["half merge"]),
    }
    to_map = ((_sigmoid(log_odds) - wanted) * of_cells / count)[..., np.newaxis]
    layer("map", to_map)
    below = _convolution_input(to_map, weights["map kernel"])
    for level in reversed(LEVELS):
        gradient = (below + beside[level]) * (known[f"{level} merge"] > 0)
        layer(f"{level} merge", gradient)
        coarse = _reduced(_convolution_input(gradient, weights[f"{level} merge kernel"]))
        x = known[f"{level} coarse"]
        layer(f"{level} coarse", coarse, _pixels(x))
        below = (_pixels(coarse) @ weights[f"{level} coarse kernel"].T).reshape(x.shape)
    layer("sixteenth", (below + sixteenth) * (known["sixteenth"] > 0))
    return float(loss) / count, found


def _pooled(gradient: Array, x: Array) -> Array:
    """Return the gradient of a global average's input."""
    return np.asarray(
        gradient[:, np.newaxis, np.newaxis] / (x.shape[1] * x.shape[2]) + np.zeros_like(x)
    )


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def _cross_entropy(target: Array, log_odds: Array) -> Array:
    return np.asarray(np.logaddexp(0, log_odds) - log_odds * target)


class Optimizer:
    """Adam with warm-up, cosine decay and clipped gradients, as in training.

    Args:
        weights: to start from.
        steps: in all.
        learning_rate: highest.

    Attributes:
        weights: as trained so far.
        step: number of steps done.
    """

    def __init__(self, weights: Weights, steps: int, learning_rate: float = 1e-3) -> None:
        self.weights = {name: array.copy() for name, array in weights.items()}
        self.step = 0
        self._steps, self._rate = steps, learning_rate
        self._moments = [{name: np.zeros_like(a) for name, a in weights.items()} for _ in range(2)]

    def apply(self, found: Weights) -> None:
        """Take a step against some gradients."""
        warm_up = min(1.0, (self.step + 1) / (0.05 * self._steps))
        rate = self._rate * warm_up * 0.5 * (1 + math.cos(math.pi * self.step / self._steps))
        self.step += 1
        norm = math.sqrt(sum(float(np.vdot(item, item)) for item in found.values()))
        first, second = self._moments
        for name, array in self.weights.items():
            gradient = found[name] * min(1.0, 1.0 / max(norm, 1e-12))
            first[name] += 0.1 * (gradient - first[name])
            second[name] += 0.001 * (gradient**2 - second[name])
            mean = first[name] / (1 - 0.9**self.step)
            size = np.sqrt(second[name] / (1 - 0.999**self.step)) + 1e-7
            array -= (rate * mean / size).astype(array.dtype)

    @property
    def state(self) -> dict[str, Sequence[Array]]:
        """All that the next steps depend on, beside ``step``."""
        names = ("weights", "first", "second")
        parts = (self.weights, *self._moments)
        return {name: list(part.values()) for name, part in zip(names, parts, strict=True)}

    def restore(self, state: Mapping[str, Sequence[Array]], step: int) -> None:
        """Go on from a state."""
        self.step = step
        for mine, saved in zip(self.state.values(), state.values(), strict=True):
            for array, value in zip(mine, saved, strict=True):
                array[...] = value


def steps(
    optimizer: Optimizer,
    features: Features,
    targets: Mapping[str, Array],
    rows: NDArray[np.int64],
    seed: int,
    count: int,
    kept: NDArray[np.bool_] | None = None,
) -> Iterator[float]:
    """Train for the steps that are left of some, and yield the loss of each.

    Args:
        optimizer: goes on from its step.
        features: of many frames.
        targets: of the same.
        rows: numbers of those to train on.
        seed: makes it repeatable; what a step samples does not depend on the steps before.
        count: of steps in all.
        kept: cells that a mask leaves; None for all.
    """
    inputs = optimizer.weights["whole kernel"].shape[0]
    while optimizer.step < count:
        generator = np.random.default_rng((seed, optimizer.step))
        chosen = generator.choice(rows, EXPOSURE_BATCH, replace=len(rows) < EXPOSURE_BATCH)
        keep = (generator.random((EXPOSURE_BATCH, inputs)) >= DROPOUT).astype(np.float32)
        loss, found = gradients(
            optimizer.weights,
            [item[chosen].astype(np.float32) for item in features],
            {name: item[chosen] for name, item in targets.items()},
            keep / np.float32(1 - DROPOUT),
            kept,
        )
        optimizer.apply(found)
        yield loss
