"""Real-NVP on codes: how unlikely is a code, given those of normal frames?

A normalizing flow (Dinh, Sohl-Dickstein and Bengio 2017, arXiv 1605.08803) in the form of the
paper's section IV (Mantegazza et al. 2022, arXiv 2209.09786): four affine couplings whose mask of
odd and even positions is flipped each time, a standard normal prior, and the negative
log-likelihood as the score. With outlier exposure, codes of known anomalies are pushed at least a
margin above the normal ones.

Import :mod:`training.fitting.backend` and call ``import_keras`` before this module, as for
:mod:`training.fitting.fit`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError
from training.fitting.fit import FitResult, tensorboard_log

PullBack = Callable[[Any], Any]
"""From the gradient with respect to a layer's output to that with respect to its input."""

_LEAST_CODES = 10
_LEAST_RATE = 1e-7


@dataclass(frozen=True)
class RealNVPSettings:
    """How a flow is fitted; the defaults are the paper's (section IV and its published code).

    Attributes:
        epochs: upper limit; the epoch with the best validation loss is kept.
        batch_size: normal codes a step; less when there are fewer.
        learning_rate: of Adam, at the start.
        plateau_patience: epochs without a better validation loss before the rate is divided by 10.
        early_stopping_patience: epochs without a better validation loss before stopping; None for
            the paper's way, which is to run all epochs.
        couplings: number of affine couplings.
        hidden: width of the hidden layer of the s and t networks.
        whitening: remove the correlations of the codes before the first coupling; False scales
            each position only. The paper does neither.
        margin: gamma of outlier exposure, nats.
        outlier_weight: lambda of outlier exposure.
        outlier_share: outliers in a step, as a share of its normal codes.
        time_limit: seconds after which the epoch under way is the last; 0 for none.
        seed: of the weights, the order of the codes and the choice of outliers.
    """

    epochs: int = 500
    batch_size: int = 2048
    learning_rate: float = 1e-3
    plateau_patience: int = 10
    early_stopping_patience: int | None = None
    couplings: int = 4
    hidden: int = 128
    whitening: bool = True
    margin: float = 100.0
    outlier_weight: float = 1.0
    outlier_share: float = 0.1
    time_limit: float = 0.0
    seed: int = 0


class Whitening(keras.layers.Layer):
    """A fixed affine layer in front of the couplings: ``(x - mean) W``.

    The scale of a coupling is bounded by its tanh, so that four of them cannot bring codes that
    reach thousands (pixels enter the thesis' networks as 0..255) to a unit normal: W divides each
    position by its standard deviation, or with ``full`` removes the correlations of positions too.

    Args:
        size: length of a code.
    """

    def __init__(self, size: int) -> None:
        super().__init__(trainable=False, name="whitening")
        self.mean = self.add_weight(shape=(size,), initializer="zeros", name="mean")
        for name in ("matrix", "inverse_matrix"):
            weight = self.add_weight(shape=(size, size), initializer="identity", name=name)
            setattr(self, name, weight)
        self.log_det = self.add_weight(shape=(), initializer="zeros", name="log_det")
        self.built = True

    def adapt(self, codes: NDArray[np.float32], *, full: bool) -> None:
        """Take mean and W from codes, float32 [N, size].

        A position that hardly varies would turn rounding into evidence: no deviation is taken
        below a thousandth of the largest. With ``full``, W is the symmetric inverse square root of
        the covariance, which is shrunk as Ledoit and Wolf (2004) do, since N may be below what 128
        positions need. Symmetric: a position stays as near to itself as it can.

        Raises:
            AnomalyDetectorError: the codes are all the same.
        """
        deviation = codes.std(axis=0, dtype=np.float64)
        largest = float(deviation.max())
        if not largest > 0.0:
            raise AnomalyDetectorError(
                f"all {len(codes)} normal codes are the same: the autoencoder has collapsed, "
                "train it again with another architecture or a lower --learning-rate"
            )
        mean = codes.mean(axis=0, dtype=np.float64)
        deviation = np.maximum(deviation, 1e-3 * largest)
        values, vectors = np.ones(len(mean)), np.eye(len(mean))
        if full:
            from sklearn.covariance import ledoit_wolf

            covariance, _ = ledoit_wolf((codes - mean) / deviation, assume_centered=True)
            values, vectors = np.linalg.eigh(covariance)
            values = np.maximum(values, 1e-6 * values.max())
        self.mean.assign(mean)
        self.matrix.assign((vectors / np.sqrt(values)) @ vectors.T / deviation[:, np.newaxis])
        self.inverse_matrix.assign((vectors * np.sqrt(values)) @ vectors.T * deviation)
        self.log_det.assign(-np.sum(np.log(deviation)) - 0.5 * np.sum(np.log(values)))

    def forward(self, x: Any) -> tuple[Any, Any, PullBack]:
        """Return output [N, size], log-determinant (one for all) and pull-back."""

        def pull_back(gradient: Any) -> Any:
            return ops.matmul(gradient, ops.transpose(self.matrix))

        return ops.matmul(x - self.mean, self.matrix), self.log_det, pull_back

    def inverse(self, y: Any) -> Any:
        """Undo :meth:`forward`."""
        return ops.matmul(y, self.inverse_matrix) + self.mean


class AffineCoupling(keras.layers.Layer):
    """Half of the positions are scaled and shifted as the other half says.

    ``y = m x + (1 - m) (x exp(s(m x)) + t(m x))``; the log-determinant is the sum of
    ``(1 - m) s``. Both networks have one hidden layer (relu); s ends in a tanh. Their last layers
    start at zero, so that an untrained coupling is the identity.

    Args:
        size: length of a code.
        parity: 0 keeps the even positions and changes the odd ones, 1 the other way round.
        hidden: width of the hidden layers.
        seed: of the weights.
    """

    def __init__(self, size: int, parity: int, hidden: int, seed: int) -> None:
        super().__init__(name=f"coupling_{seed}")
        self._kept = (np.arange(size) % 2 == parity).astype(np.float32)
        self._changed = 1.0 - self._kept
        self.scale = _TwoLayers(size, hidden, "tanh", 2 * seed, "scale")
        self.shift = _TwoLayers(size, hidden, None, 2 * seed + 1, "shift")
        self.built = True

    def forward(self, x: Any) -> tuple[Any, Any, PullBack]:
        """Return output [N, size], log-determinant [N] and pull-back.

        The pull-back is for a loss from which the log-determinant is subtracted, as it is from the
        negative log-likelihood.
        """
        kept = x * self._kept
        s, pull_back_s = self.scale.forward(kept)
        t, pull_back_t = self.shift.forward(kept)
        s, t = s * self._changed, t * self._changed
        # Where x is kept, s and t are 0.
        scaled = x * ops.exp(s)

        def pull_back(gradient: Any) -> Any:
            changed = gradient * self._changed
            through_s = pull_back_s((changed * scaled - 1.0) * self._changed)
            through_t = pull_back_t(changed)
            return gradient * ops.exp(s) + (through_s + through_t) * self._kept

        return scaled + t, ops.sum(s, axis=-1), pull_back

    def inverse(self, y: Any) -> Any:
        """Undo :meth:`forward`: what was kept says how the rest was changed."""
        kept = y * self._kept
        s, _ = self.scale.forward(kept)
        t, _ = self.shift.forward(kept)
        return kept + (y - t) * ops.exp(-s) * self._changed


class _TwoLayers(keras.layers.Layer):
    """Dense relu, then Dense with another activation (tanh or none)."""

    def __init__(
        self, size: int, hidden: int, activation: str | None, seed: int, name: str
    ) -> None:
        super().__init__(name=name)
        self._is_tanh = activation == "tanh"
        initializer = keras.initializers.GlorotUniform(seed=seed)
        self.hidden = keras.layers.Dense(
            hidden, activation="relu", kernel_initializer=initializer, name="hidden"
        )
        self.out = keras.layers.Dense(
            size, activation=activation, kernel_initializer="zeros", name="out"
        )
        self.hidden.build((None, size))
        self.out.build((None, hidden))
        self.built = True

    def forward(self, x: Any) -> tuple[Any, PullBack]:
        hidden = self.hidden(x)
        out = self.out(hidden)

        def pull_back(gradient: Any) -> Any:
            if self._is_tanh:
                gradient = gradient * (1.0 - ops.square(out))
            gradient = ops.matmul(gradient, ops.transpose(self.out.kernel))
            gradient = gradient * ops.cast(hidden > 0, "float32")
            return ops.matmul(gradient, ops.transpose(self.hidden.kernel))

        return out, pull_back


class RealNVP(keras.Model):
    """A density of codes.

    Called on codes, float32 [N, size], it gives their negative log-likelihood, float32 [N], in
    nats. The whitening counts in the log-determinant, so that it is the density of the plain
    codes and integrates to 1.

    Args:
        size: length of a code.
        couplings: number of affine couplings.
        hidden: width of the hidden layers of their networks.
        seed: of the weights.
    """

    def __init__(self, size: int, *, couplings: int = 4, hidden: int = 128, seed: int = 0) -> None:
        super().__init__(name="realnvp")
        self.size = size
        self.whitening = Whitening(size)
        seeds = np.random.SeedSequence(seed).generate_state(couplings)
        self.couplings = [
            AffineCoupling(size, index % 2, hidden, int(seeds[index]) // 4)
            for index in range(couplings)
        ]
        self.built = True

    def call(self, x: Any) -> Any:
        """Return the negative log-likelihood [N] of codes [N, size]."""
        return self.nll(x)

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return z [N, size] and log|det dz/dx| [N] of codes [N, size]."""
        z, log_det, _ = self._forward(x)
        return z, log_det

    def inverse(self, z: Any) -> Any:
        """Return the embeddings of z, both [N, size]; of standard normal z, samples."""
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return self.whitening.inverse(z)

    def nll(self, x: Any) -> Any:
        """Return the negative log-likelihood [N] of codes [N, size], nats."""
        z, log_det = self.forward(x)
        return self._prior(z) - log_det

    def nll_and_gradient(self, x: Any) -> tuple[Any, Any]:
        """Return the negative log-likelihood [N] and its gradient [N, size] with respect to codes.

        The gradient is written out, since an ONNX graph has no automatic differentiation.
        """
        z, log_det, pull_back = self._forward(x)
        return self._prior(z) - log_det, pull_back(z)

    def _prior(self, z: Any) -> Any:
        """Return -log of the standard normal density."""
        return 0.5 * ops.sum(ops.square(z), axis=-1) + 0.5 * self.size * math.log(2.0 * math.pi)

    def _forward(self, x: Any) -> tuple[Any, Any, PullBack]:
        log_det: Any = 0.0
        steps: list[PullBack] = []
        layers: list[Any] = [self.whitening, *self.couplings]
        for layer in layers:
            x, own, step = layer.forward(x)
            log_det = log_det + own
            steps.append(step)

        def pull_back(gradient: Any) -> Any:
            for step in reversed(steps):
                gradient = step(gradient)
            return gradient

        return x, log_det, pull_back


def exposure_loss(margin: float, weight: float) -> Callable[[Any, Any], Any]:
    """Return the loss of a batch of normal codes followed by at most as many outliers.

    ``mean(NLL(normal)) + weight * mean(max(0, margin + NLL(normal_i) - NLL(outlier_i)))`` (paper,
    section IV, after Hendrycks et al. 2019). The batch is flipped to pair its first normal codes
    with its outliers: normal codes are to come in random order. Without outliers, the second term
    is 0.

    Args:
        margin: gamma, nats.
        weight: lambda.

    Returns:
        A Keras loss: y_true [N] is 1 for an outlier and 0 for a normal code, y_pred [N] its
        negative log-likelihood.
    """

    def loss(y_true: Any, y_pred: Any) -> Any:
        is_outlier = ops.cast(y_true, "float32")
        is_normal = 1.0 - is_outlier
        likelihood = ops.sum(is_normal * y_pred) / ops.sum(is_normal)
        hinge = ops.relu(margin + y_pred - ops.flip(y_pred, axis=0)) * ops.flip(is_outlier, axis=0)
        return likelihood + weight * ops.sum(hinge) / ops.maximum(ops.sum(is_outlier), 1.0)

    return loss


def fit_realnvp(
    train: NDArray[np.float32],
    validation: NDArray[np.float32],
    *,
    outliers: NDArray[np.float32] | None = None,
    settings: RealNVPSettings | None = None,
    label: str = "training realnvp",
    progress: bool = True,
    tensorboard: Path | None = None,
) -> tuple[RealNVP, FitResult]:
    """Fit a flow to codes of normal frames; it holds the weights of the best epoch.

    The best epoch is the one with the smallest negative log-likelihood of the normal validation
    codes, with outlier exposure too (paper, section IV). Ctrl-C ends training early and keeps the
    best epoch so far.

    Args:
        train: codes of normal frames, float32 [N, size].
        validation: codes of other normal frames, float32 [M, size].
        outliers: codes of anomalous frames for outlier exposure, float32 [K, size]; K may be far
            below the number that a step wants: they are drawn again. None for plain Real-NVP.
        settings: see there; None for the paper's.
        label: name on the progress bar.
        progress: show a progress bar on stderr.
        tensorboard: folder for TensorBoard logs.

    Raises:
        AnomalyDetectorError: too few codes, a code that is not finite, training diverged, or
            Ctrl-C before the first epoch's end.
    """
    settings = settings or RealNVPSettings()
    if settings.outlier_share > 1.0 or settings.outlier_share <= 0.0:
        raise AnomalyDetectorError(
            f"outlier share is {settings.outlier_share}: give a share such as 0.1"
        )
    for name, codes, least in (
        ("normal training", train, _LEAST_CODES),
        ("normal validation", validation, 1),
        ("outlier", outliers, 1),
    ):
        if codes is not None:
            _check_codes(name, codes, train.shape[-1], least)
    flow = RealNVP(
        train.shape[1], couplings=settings.couplings, hidden=settings.hidden, seed=settings.seed
    )
    flow.whitening.adapt(train, full=settings.whitening)
    loss = exposure_loss(settings.margin, settings.outlier_weight)
    # XLA would compile for seconds what runs in milliseconds.
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    flow.compile(optimizer=optimizer, loss=loss, jit_compile=False)
    result = FitResult()
    best: list[Any] = []
    board = None if tensorboard is None else tensorboard_log(tensorboard)
    if board is not None:
        board.set_model(flow)
        board.on_train_begin()
    start = time.perf_counter()
    bar = tqdm(total=settings.epochs, desc=label, unit="epoch", disable=not progress)
    try:
        for train_loss, validation_loss in _epochs(flow, train, validation, outliers, settings):
            result.history.setdefault("loss", []).append(train_loss)
            result.history.setdefault("val_loss", []).append(validation_loss)
            epoch = len(result.history["loss"])
            if validation_loss < result.best_loss:
                result.best_loss, result.best_epoch = validation_loss, epoch
                best = flow.get_weights()
            bar.set_postfix_str(f"loss {train_loss:.5g}, validation {validation_loss:.5g}")
            bar.update()
            if board is not None:
                board.on_epoch_end(epoch - 1, {"loss": train_loss, "val_loss": validation_loss})
            if not np.isfinite(train_loss + validation_loss):
                break
            if epoch - result.best_epoch == settings.early_stopping_patience:
                result.stopped_by = "early-stopping"
                break
            if 0.0 < settings.time_limit < time.perf_counter() - start:
                result.stopped_by = "time-limit"
                break
    except KeyboardInterrupt:
        result.stopped_by = "interrupt"
    finally:
        bar.close()
        if board is not None:
            board.on_train_end()
    result.seconds = time.perf_counter() - start
    result.trained = bool(best)
    if not best and result.stopped_by == "interrupt":
        raise AnomalyDetectorError(
            f"{label} was interrupted in its first epoch: nothing learned, nothing written"
        )
    if result.stopped_by != "interrupt" and not np.isfinite(result.history["val_loss"][-1]):
        raise AnomalyDetectorError(
            f"{label} diverged in epoch {len(result.history['loss'])}, its loss is not finite: "
            f"lower its learning rate (it is {settings.learning_rate:g})"
        )
    flow.set_weights(best)
    if result.stopped_by == "interrupt":
        print(
            f"Interrupted: keeping the best flow so far, epoch {result.best_epoch} of "
            f"{len(result.history['loss'])} with validation loss {result.best_loss:.5g}.",
            file=sys.stderr,
        )
    return flow, result


def _epochs(
    flow: RealNVP,
    train: NDArray[np.float32],
    validation: NDArray[np.float32],
    outliers: NDArray[np.float32] | None,
    settings: RealNVPSettings,
) -> Iterator[tuple[float, float]]:
    """Run the epochs; return training and validation loss after each.

    Steps take milliseconds, far less than Keras' own loop needs around each epoch.
    """
    generator = np.random.default_rng(settings.seed)
    rate = settings.learning_rate
    least, waited = float("inf"), 0
    for _ in range(settings.epochs):
        losses = []
        for indices in _batches(generator.permutation(len(train)), settings.batch_size):
            codes, labels = train[indices], np.zeros(len(indices), np.float32)
            if outliers is not None:
                count = max(1, round(settings.outlier_share * len(indices)))
                # Few outliers are drawn more than once.
                few = count > len(outliers)
                chosen = outliers[generator.choice(len(outliers), count, replace=few)]
                codes = np.concatenate([codes, chosen])
                labels = np.concatenate([labels, np.ones(count, np.float32)])
            flow.reset_metrics()
            losses.append(len(indices) * float(flow.train_on_batch(codes, labels)))
        nll = [
            flow.predict_on_batch(validation[indices])
            for indices in _batches(np.arange(len(validation)), settings.batch_size)
        ]
        loss = float(np.mean(np.concatenate(nll), dtype=np.float64))
        yield sum(losses) / len(train), loss
        least, waited = (loss, 0) if loss < least else (least, waited + 1)
        if waited > settings.plateau_patience:
            rate, waited = max(0.1 * rate, _LEAST_RATE), 0
            flow.optimizer.learning_rate.assign(rate)


def _batches(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut into batches of at most ``size`` and nearly equal length."""
    return np.array_split(order, -(-len(order) // size))


def _check_codes(name: str, codes: NDArray[np.float32], size: int, least: int) -> None:
    if codes.ndim != 2 or codes.shape[1] != size:
        raise AnomalyDetectorError(
            f"{name} codes have shape {codes.shape}, not [N, {size}]: "
            "take all codes from the same model"
        )
    if len(codes) < least:
        raise AnomalyDetectorError(
            f"{len(codes)} {name} codes are too few, at least {least} are needed: "
            "give more or longer recordings"
        )
    bad = np.flatnonzero(~np.isfinite(codes).all(axis=1))
    if bad.size:
        raise AnomalyDetectorError(
            f"{bad.size} of {len(codes)} {name} codes are not finite, number {bad[0]} the first: "
            "train the autoencoder again"
        )
