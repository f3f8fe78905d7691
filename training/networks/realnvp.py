"""Real-NVP on latents: how unlikely is a latent, given those of normal frames?

A normalizing flow (Dinh, Sohl-Dickstein and Bengio 2017, arXiv 1605.08803) in the form of the
paper's section IV (Mantegazza et al. 2022, arXiv 2209.09786): four affine couplings whose mask of
odd and even positions is flipped each time, a standard normal prior, and the negative
log-likelihood as the score. With outlier exposure, latents of known anomalies are pushed at least a
margin above the normal ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from training.networks.quiet_keras import keras

ops = keras.ops

PullBack = Callable[[Any], Any]
"""From the gradient with respect to a layer's output to that with respect to its input."""


class Whitening(keras.layers.Layer):
    """A fixed affine layer in front of the couplings: ``(x - mean) W``.

    The scale of a coupling is bounded by its tanh, so that four of them cannot bring latents that
    reach thousands (pixels enter the thesis' networks as 0..255) to a unit normal. The paper does
    not whiten.

    Args:
        size: length of a latent.
    """

    def __init__(self, size: int) -> None:
        super().__init__(trainable=False, name="whitening")
        self.mean = self.add_weight(shape=(size,), initializer="zeros", name="mean")
        for name in ("matrix", "inverse_matrix"):
            weight = self.add_weight(shape=(size, size), initializer="identity", name=name)
            setattr(self, name, weight)
        self.log_det = self.add_weight(shape=(), initializer="zeros", name="log_det")
        self.built = True

    def adapt(self, latents: NDArray[np.float32]) -> None:
        """Compute mean and W from latents, float32 [N, size].

        A position that hardly varies would turn rounding into evidence: no deviation is taken
        below a thousandth of the largest. W is the symmetric inverse square root of the
        covariance, which is shrunk as Ledoit and Wolf (2004) do, since N may be below what 128
        positions need. Symmetric: a position stays as near to itself as it can.

        Raises:
            AnomalyDetectorError: the latents are all the same.
        """
        from sklearn.covariance import ledoit_wolf

        deviation = latents.std(axis=0, dtype=np.float64)
        largest = float(deviation.max())
        if not largest > 0.0:
            raise AnomalyDetectorError(
                f"all {len(latents)} normal latents are the same: the autoencoder has collapsed, "
                "train it again with another architecture or a lower --learning-rate"
            )
        mean = latents.mean(axis=0, dtype=np.float64)
        deviation = np.maximum(deviation, 1e-3 * largest)
        covariance, _ = ledoit_wolf((latents - mean) / deviation, assume_centered=True)
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
        size: length of a latent.
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
    """A density of latents.

    Called on latents, float32 [N, size], it gives their negative log-likelihood, float32 [N], in
    nats. The whitening counts in the log-determinant, so that it is the density of the plain
    latents and integrates to 1.

    Args:
        size: length of a latent.
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
        """Return the negative log-likelihood [N] of latents [N, size]."""
        return self.nll(x)

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return z [N, size] and log|det dz/dx| [N] of latents [N, size]."""
        z, log_det, _ = self._forward(x)
        return z, log_det

    def inverse(self, z: Any) -> Any:
        """Return the embeddings of z, both [N, size]; of standard normal z, samples."""
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return self.whitening.inverse(z)

    def nll(self, x: Any) -> Any:
        """Return the negative log-likelihood [N] of latents [N, size], nats."""
        z, log_det = self.forward(x)
        return self._prior(z) - log_det

    def nll_and_gradient(self, x: Any) -> tuple[Any, Any]:
        """Return the negative log-likelihood [N] and its gradient [N, size] by the latents.

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
    """Return the loss of a batch of normal latents followed by at most as many outliers.

    ``mean(NLL(normal)) + weight * mean(max(0, margin + NLL(normal_i) - NLL(outlier_i)))`` (paper,
    section IV, after Hendrycks et al. 2019). The batch is flipped to pair its first normal latents
    with its outliers: normal latents are to come in random order. Without outliers, the second term
    is 0.

    Args:
        margin: gamma, nats.
        weight: lambda.

    Returns:
        A Keras loss: y_true [N] is 1 for an outlier and 0 for a normal latent, y_pred [N] its
        negative log-likelihood.
    """

    def loss(y_true: Any, y_pred: Any) -> Any:
        is_outlier = ops.cast(y_true, "float32")
        is_normal = 1.0 - is_outlier
        likelihood = ops.sum(is_normal * y_pred) / ops.sum(is_normal)
        hinge = ops.relu(margin + y_pred - ops.flip(y_pred, axis=0)) * ops.flip(is_outlier, axis=0)
        return likelihood + weight * ops.sum(hinge) / ops.maximum(ops.sum(is_outlier), 1.0)

    return loss
