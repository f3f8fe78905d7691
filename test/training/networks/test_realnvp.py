"""Real-NVP: a true density, outlier exposure that does what it says, and training that can fail."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from training.networks.realnvp import AffineCoupling, RealNVP, exposure_loss
from training.scorers.realnvp import RealNVPSettings, fit_realnvp

FloatArray = NDArray[np.float32]


def make_latents(count: int, size: int = 128, seed: int = 0) -> FloatArray:
    """Make correlated latents with the magnitudes of a thesis autoencoder."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(0, 100, (8, size))
    latents = generator.normal(size=(count, 8)) @ mixing + generator.normal(0, 20, (count, size))
    return (latents + 500).astype(np.float32)


def randomised(flow: RealNVP, latents: FloatArray) -> RealNVP:
    """Return all weights of the couplings values far from those at the start."""
    generator = np.random.default_rng(5)
    for weight in flow.trainable_variables:
        weight.assign(generator.normal(0, 0.3 / np.sqrt(flow.size / 2), weight.shape))
    flow.whitening.adapt(latents)
    return flow


@pytest.mark.parametrize("size", [2, 5, 128])
def test_flow_is_invertible_and_its_log_determinant_true(size: int) -> None:
    latents = make_latents(200, size)
    flow = randomised(RealNVP(size), latents)
    x = latents[:2]
    z, log_det = (np.asarray(value, np.float64) for value in flow.forward(x))
    spread = latents.std(axis=0).max()
    np.testing.assert_allclose(flow.inverse(z.astype(np.float32)), x, atol=1e-4 * spread)
    # The flow is not the fixed layer alone.
    fixed = np.asarray(flow.whitening.forward(x)[0])
    assert np.abs(z - fixed).max() > 0.05
    # Central differences along the whitened axes, so that rounding matters little. The kinks of
    # relu and rounding are what is left.
    step = 0.003
    steps = step * np.asarray(flow.whitening.inverse_matrix, np.float64)
    for latent, expected in zip(x, log_det, strict=True):
        above = np.asarray(flow.forward((latent + steps).astype(np.float32))[0], np.float64)
        below = np.asarray(flow.forward((latent - steps).astype(np.float32))[0], np.float64)
        jacobian = np.linalg.solve(steps, 0.5 * (above - below))
        sign, value = np.linalg.slogdet(jacobian)
        assert sign == 1
        assert value == pytest.approx(expected, abs=0.01 * size)


def test_mask_alternates_and_keeps_half() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 6)).astype(np.float32)
    for parity in (0, 1):
        coupling = AffineCoupling(6, parity, 16, seed=1)
        for weight in coupling.trainable_variables:
            weight.assign(generator.normal(size=weight.shape))
        y = np.asarray(coupling.forward(x)[0])
        np.testing.assert_array_equal(y[:, parity::2], x[:, parity::2])
        assert (y[:, 1 - parity :: 2] != x[:, 1 - parity :: 2]).all()
        # Scale and shift depend on what is kept alone.
        other = x.copy()
        other[:, 1 - parity :: 2] += 1
        ratio = np.asarray(coupling.forward(other)[0]) - y
        log_scale = np.log(ratio[:, 1 - parity :: 2])
        np.testing.assert_allclose(log_scale.sum(axis=1), coupling.forward(x)[1], rtol=1e-4)
        assert np.abs(log_scale).max() <= 1.0 + 1e-5
    flow = RealNVP(6)
    assert [c.forward(x)[0].shape for c in flow.couplings] == [(3, 6)] * 4
    assert len(flow.trainable_variables) == 4 * 2 * 4


def test_density_integrates_to_one() -> None:
    """In two dimensions, on a grid; the standardisation counts in it."""
    latents = make_latents(300, 2)
    flow = randomised(RealNVP(2), latents)
    centre, spread = latents.mean(axis=0), latents.std(axis=0)
    sides = [np.linspace(m - 12 * s, m + 12 * s, 400) for m, s in zip(centre, spread, strict=True)]
    grid = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2).astype(np.float32)
    density = np.exp(-np.asarray(flow.nll(grid), np.float64))
    cell = np.prod([side[1] - side[0] for side in sides])
    assert density.sum() * cell == pytest.approx(1.0, abs=0.01)


def test_density_of_bent_latents_is_found() -> None:
    """The true entropy is the least that any density can reach; whitening alone stays above."""
    generator = np.random.default_rng(0)

    def bent(z: NDArray[np.float64]) -> FloatArray:
        return np.stack([30 * z[:, 0], 10 * z[:, 1] + 20 * z[:, 0] ** 2], -1).astype(np.float32)

    latents = bent(generator.normal(size=(2000, 2)))
    settings = RealNVPSettings(epochs=80, batch_size=250, learning_rate=3e-3)
    flow, result = fit_realnvp(latents[:1500], latents[1500:], settings=settings, progress=False)
    entropy = np.log(2 * np.pi * np.e) + np.log(30 * 10)
    gaussian = np.log(2 * np.pi * np.e) + 0.5 * np.linalg.slogdet(np.cov(latents.T))[1]
    held_out = np.asarray(flow.nll(latents[1500:])).mean()
    assert held_out == pytest.approx(result.best_loss, rel=1e-5)
    assert entropy - 0.15 < held_out < (entropy + gaussian) / 2
    samples = np.asarray(flow.inverse(generator.normal(size=(4000, 2)).astype(np.float32)))
    assert np.corrcoef(samples[:, 0] ** 2, samples[:, 1])[0, 1] > 0.6


def test_gradient_is_that_of_the_nll() -> None:
    import tensorflow

    latents = make_latents(200)
    flow = randomised(RealNVP(128), latents)
    x = tensorflow.constant(np.concatenate([latents[:4], 10 * latents[:1]]))
    with tensorflow.GradientTape() as tape:
        tape.watch(x)
        expected_nll = flow.nll(x)
    expected = tape.gradient(expected_nll, x).numpy()
    nll, gradient = flow.nll_and_gradient(x)
    np.testing.assert_allclose(nll, expected_nll, rtol=1e-6)
    scale = np.abs(expected).max(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient / scale, expected / scale, atol=1e-5)


def test_loss_is_the_papers() -> None:
    nll = np.array([10.0, 30.0, 20.0, 40.0, 150.0, 60.0], np.float32)
    labels = np.array([0, 0, 0, 0, 1, 1], np.float32)
    # The first normal latents meet the outliers from the end: 10 with 60, 30 with 150.
    hinge = np.mean([max(0, 100 + 10 - 60), max(0, 100 + 30 - 150)])
    loss = exposure_loss(100.0, 0.5)
    assert float(loss(labels, nll)) == pytest.approx(25.0 + 0.5 * hinge)
    assert float(loss(labels[:4], nll[:4])) == pytest.approx(25.0)


def test_outlier_exposure_pushes_few_outliers_away() -> None:
    """Outliers within the normal latents' spread, off in one direction that normal frames share."""
    normal = make_latents(600)
    offset = np.zeros(128, np.float32)
    offset[:40] = 25
    outliers = make_latents(5, seed=1) + offset
    others = make_latents(100, seed=2) + offset
    settings = RealNVPSettings(epochs=30, couplings=2)
    gaps = []
    for known in (None, outliers):
        flow, result = fit_realnvp(
            normal[:400], normal[400:], outliers=known, settings=settings, progress=False
        )
        validation = np.asarray(flow.nll(normal[400:])).mean()
        # Best epoch by the normal latents alone, whatever the loss counts besides.
        assert validation == pytest.approx(result.best_loss, rel=1e-5)
        assert result.best_loss == min(result.history["val_loss"])
        gaps.append(np.asarray(flow.nll(others)).mean() - validation)
    assert gaps[1] > gaps[0] + 5


def test_same_seed_same_flow() -> None:
    latents = make_latents(120)
    nll = []
    for seed in (3, 3, 4):  # the order of the latents too: a batch is a part of them
        settings = RealNVPSettings(epochs=2, batch_size=50, couplings=1, seed=seed)
        flow, _ = fit_realnvp(
            latents[:100],
            latents[100:],
            outliers=latents[:3] + 99,
            settings=settings,
            progress=False,
        )
        nll.append(np.asarray(flow.nll(latents)))
    np.testing.assert_allclose(nll[0], nll[1], rtol=1e-6)
    assert not np.allclose(nll[0], nll[2], rtol=1e-6)


def test_saved_weights_give_the_same_flow(tmp_path: Path) -> None:
    latents = make_latents(60)
    flow = randomised(RealNVP(128), latents)
    flow.save_weights(tmp_path / "realnvp.weights.h5")
    again = RealNVP(128, seed=7)
    again.load_weights(tmp_path / "realnvp.weights.h5")
    np.testing.assert_array_equal(again.nll(latents), flow.nll(latents))


def test_plateau_and_early_stopping() -> None:
    latents = make_latents(60)
    settings = RealNVPSettings(
        epochs=500, couplings=1, plateau_patience=3, early_stopping_patience=12
    )
    _, result = fit_realnvp(latents[:40], latents[40:], settings=settings, progress=False)
    assert result.stopped_by == "early-stopping"
    assert len(result.history["val_loss"]) == result.best_epoch + 12
    # The rate has become so small that the training loss stands still.
    losses = result.history["loss"]
    assert abs(losses[-1] - losses[-2]) < 0.05 * abs(losses[1] - losses[0])


class Interrupting(np.ndarray[Any, Any]):
    """Latents that send SIGINT when a step takes of them for the given time."""

    left = 0

    def __getitem__(self, key: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return np.asarray(super().__getitem__(key))


@pytest.mark.parametrize("epochs", [0, 4])
def test_ctrl_c_keeps_the_best_flow_so_far(epochs: int, capsys: pytest.CaptureFixture[str]) -> None:
    latents = make_latents(100)
    outliers = latents[:5].view(Interrupting)
    outliers.left = epochs + 1  # a step takes of them, and an epoch is one step
    settings = RealNVPSettings(epochs=100_000, couplings=1)

    def fit() -> Any:
        return fit_realnvp(
            latents[:80], latents[80:], outliers=outliers, settings=settings, progress=False
        )

    if epochs == 0:
        with pytest.raises(AnomalyDetectorError, match="interrupted in its first epoch"):
            fit()
        return
    flow, result = fit()
    assert (result.stopped_by, len(result.history["loss"])) == ("interrupt", epochs)
    assert "Interrupted: keeping the best model so far, epoch" in capsys.readouterr().err
    nll = np.asarray(flow.nll(latents[80:])).mean()
    assert nll == pytest.approx(min(result.history["val_loss"]), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"learning_rate": 1e30, "couplings": 1}, "diverged in epoch .*lower its learning rate"),
        ({"outlier_share": 0.0}, "outlier share is 0.0"),
    ],
)
def test_wrong_settings_are_told(changes: dict[str, Any], reason: str) -> None:
    latents = make_latents(40)
    with pytest.raises(AnomalyDetectorError, match=reason):
        fit_realnvp(latents[:30], latents[30:], settings=RealNVPSettings(**changes), progress=False)


def test_wrong_latents_are_told() -> None:
    latents = make_latents(40)
    broken = latents.copy()
    broken[3, 7] = np.nan
    cases: list[tuple[FloatArray, FloatArray, FloatArray | None, str]] = [
        (latents[:5], latents[5:], None, "5 normal training latents are too few"),
        (latents, latents[:0], None, "0 normal validation latents are too few"),
        (latents, latents, latents[:0], "0 outlier latents are too few"),
        (broken, latents, None, "1 of 40 normal training latents are not finite, number 3"),
        (latents, latents, latents[:, :64], r"outlier latents have shape \(40, 64\)"),
        (np.ones_like(latents), latents, None, "all 40 normal latents are the same"),
    ]
    for train, validation, outliers, reason in cases:
        with pytest.raises(AnomalyDetectorError, match=reason):
            fit_realnvp(train, validation, outliers=outliers, progress=False)


def test_position_that_hardly_varies_does_not_explode() -> None:
    latents = make_latents(200)
    latents[:, 5] = 3.0
    flow = RealNVP(128)
    flow.whitening.adapt(latents)
    other = latents[:1].copy()
    other[:, 5] += 1e-4
    np.testing.assert_allclose(flow.nll(other), flow.nll(latents[:1]), rtol=1e-4)
