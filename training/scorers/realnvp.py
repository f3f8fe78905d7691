"""Scorers ``realnvp`` and ``realnvp-oe``: how unlikely the latent is, given those of normal frames.

With outlier exposure (``-oe``) the flow is trained on latents of anomalies too, or of outliers made
of the normal drive where none are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from training.fitting.run import ScoringFunction, TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.fitting.settings import FitResult, FitSettings
from training.networks.autoencoders import LATENT_SIZE, Autoencoder
from training.networks.backend import import_keras
from training.scorers.base import AUTOENCODER_OPTIONS, Scorer
from training.scorers.latents import encode_frames, encode_images, explained_encoder

if TYPE_CHECKING:
    from training.networks.realnvp import RealNVP

_UNIT = "negative log-likelihood of the latent, nats"
_OPTIONS = AUTOENCODER_OPTIONS | {"realnvp_epochs"}
_MADE_SHARE, _MOST_MADE = 8, 8192
"""Made frames for each training frame, half of them normal, half outliers; and the most of them."""

_LEAST_LATENTS = 10
_LEAST_RATE = 1e-7


@dataclass(frozen=True)
class RealNVPSettings:
    """How a flow is fitted; the defaults are the paper's (section IV and its published code).

    Attributes:
        epochs: upper limit; the epoch with the best validation loss is kept.
        batch_size: normal latents a step; less when there are fewer.
        learning_rate: of Adam, at the start.
        plateau_patience: epochs without a better validation loss before the rate is divided by 10.
        early_stopping_patience: epochs without a better validation loss before stopping; 0 for the
            paper's way, which is to run all epochs.
        couplings: number of affine couplings.
        margin: gamma of outlier exposure, nats.
        outlier_weight: lambda of outlier exposure.
        outlier_share: outliers in a step, as a share of its normal latents.
        time_limit: seconds after which the epoch under way is the last; 0 for none.
        seed: of the weights, the order of the latents and the choice of outliers.
    """

    epochs: int = 500
    batch_size: int = 2048
    learning_rate: float = 1e-3
    plateau_patience: int = 10
    early_stopping_patience: int = 0
    couplings: int = 4
    margin: float = 100.0
    outlier_weight: float = 1.0
    outlier_share: float = 0.1
    time_limit: float = 0.0
    seed: int = 0


def realnvp_scorer(autoencoder: Autoencoder, flow: RealNVP) -> ScoringFunction:
    """Score by the negative log-likelihood of the latent (paper, section IV).

    The anomaly map is made as that of :func:`training.scorers.mlp.mlp_scorer`, from the gradient of
    the negative log-likelihood: where the last feature map would have to change for the frame to
    become more likely. It shows directions and not exact shares, because the likelihood is not
    piecewise linear in the latent.

    Raises:
        AnomalyDetectorError: the encoder's latent layer is not linear.
    """
    ops = import_keras().ops
    features_and_latent, share_of_cells = explained_encoder(autoencoder)

    def score(image: Any) -> dict[str, Any]:
        features, latent = features_and_latent(ops.cast(image, "float32"), training=False)
        nll, gradient = flow.nll_and_gradient(latent)
        return {"score": nll, "anomaly_map": share_of_cells(gradient, features), "code": latent}

    return score


def fit_realnvp(
    train: NDArray[np.float32],
    validation: NDArray[np.float32],
    *,
    outliers: NDArray[np.float32] | None = None,
    settings: RealNVPSettings = RealNVPSettings(),
    label: str = "training realnvp",
    **arguments: Any,
) -> tuple[RealNVP, FitResult]:
    """Fit a flow to latents of normal frames; it holds the weights of the best epoch.

    The best epoch is the one with the smallest negative log-likelihood of the normal validation
    latents, with outlier exposure too (paper, section IV).

    Args:
        train: latents of normal frames, float32 [N, size].
        validation: latents of other normal frames, float32 [M, size].
        outliers: latents of anomalous frames for outlier exposure, float32 [K, size]; K may be far
            below the number that a step wants: they are sampled again. None for plain Real-NVP.
        settings: see there.
        label: name on the progress bar.
        **arguments: further ones of :func:`training.fitting.fit.run_loop`.

    Raises:
        AnomalyDetectorError: too few latents, a latent that is not finite, training diverged, or
            Ctrl-C before the first epoch's end.
    """
    keras = import_keras()
    from training.fitting.fit import run_loop
    from training.networks.realnvp import RealNVP, exposure_loss

    if not 0.0 < settings.outlier_share <= 1.0:
        raise AnomalyDetectorError(
            f"outlier share is {settings.outlier_share}: give a share such as 0.1"
        )
    size = train.shape[-1]
    _check_latents("normal training", train, size, _LEAST_LATENTS)
    _check_latents("normal validation", validation, size)
    if outliers is not None:
        _check_latents("outlier", outliers, size)
    flow = RealNVP(size, couplings=settings.couplings, seed=settings.seed)
    flow.whitening.adapt(train)
    # XLA would compile for seconds what runs in milliseconds.
    flow.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=exposure_loss(settings.margin, settings.outlier_weight),
        jit_compile=False,
    )

    def loop(callbacks: Sequence[Any], done: int) -> None:
        # Steps take milliseconds, far less than Keras' own loop needs around each epoch.
        calls = keras.callbacks.CallbackList(callbacks, model=flow, epochs=settings.epochs)
        calls.on_train_begin()
        losses = _epochs(flow, train, validation, outliers, settings)
        for epoch in range(done, settings.epochs):
            calls.on_epoch_begin(epoch)
            train_loss, validation_loss = next(losses)
            if not np.isfinite(train_loss + validation_loss):
                raise AnomalyDetectorError(
                    f"{label} diverged in epoch {epoch + 1}, its loss is not finite: "
                    f"lower its learning rate (it is {settings.learning_rate:g})"
                )
            calls.on_epoch_end(epoch, {"loss": train_loss, "val_loss": validation_loss})
            if flow.stop_training:
                break
        calls.on_train_end()

    result = run_loop(
        loop,
        flow,
        FitSettings(
            epochs=settings.epochs,
            early_stopping_patience=settings.early_stopping_patience,
            plateau_patience=0,
            time_limit=settings.time_limit,
        ),
        label=label,
        frames=len(train),
        **arguments,
    )
    return flow, result


def _epochs(
    flow: RealNVP,
    train: NDArray[np.float32],
    validation: NDArray[np.float32],
    outliers: NDArray[np.float32] | None,
    settings: RealNVPSettings,
) -> Iterator[tuple[float, float]]:
    """Run the epochs; yield training and validation loss after each."""
    generator = np.random.default_rng(settings.seed)
    rate = settings.learning_rate
    least, waited = float("inf"), 0
    while True:
        losses = []
        for indices in _batches(generator.permutation(len(train)), settings.batch_size):
            latents, labels = train[indices], np.zeros(len(indices), np.float32)
            if outliers is not None:
                count = max(1, round(settings.outlier_share * len(indices)))
                # Few outliers are sampled more than once.
                few = count > len(outliers)
                chosen = outliers[generator.choice(len(outliers), count, replace=few)]
                latents = np.concatenate([latents, chosen])
                labels = np.concatenate([labels, np.ones(count, np.float32)])
            flow.reset_metrics()
            losses.append(len(indices) * float(flow.train_on_batch(latents, labels)))
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


def _check_latents(name: str, latents: NDArray[np.float32], size: int, least: int = 1) -> None:
    if latents.ndim != 2 or latents.shape[1] != size:
        raise AnomalyDetectorError(
            f"{name} latents have shape {latents.shape}, not [N, {size}]: "
            "take all latents from the same model"
        )
    if len(latents) < least:
        raise AnomalyDetectorError(
            f"{len(latents)} {name} latents are too few, at least {least} are needed: "
            "give more or longer recordings"
        )
    bad = np.flatnonzero(~np.isfinite(latents).all(axis=1))
    if bad.size:
        raise AnomalyDetectorError(
            f"{bad.size} of {len(latents)} {name} latents are not finite, number {bad[0]} the "
            "first: train the autoencoder again"
        )


def train(run: TrainingRun, base: TrainingResult, *, exposure: bool = False) -> TrainingResult:
    """Train the flow on top of a trained autoencoder (paper, section IV).

    Args:
        run: the run.
        base: the trained autoencoder.
        exposure: all anomalies of the run are outliers for exposure. Without any, outliers are made
            of the normal frames, and the flow learns varied normal frames too.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    options, split = run.options, run.split
    autoencoder = base.autoencoder
    assert autoencoder is not None  # this scorer stands on one
    latents = encode_frames(autoencoder, run.frames)
    normal, outliers = latents[split.train], None
    if run.anomalies is not None:
        outliers = encode_frames(autoencoder, run.anomalies)
    elif exposure:
        from training.scorers.outlier_exposure.training import made_frames  # it imports Keras

        count = min(_MADE_SHARE * len(split.train), _MOST_MADE)
        varied, made = (encode_images(autoencoder, i) for i in made_frames(run, count))
        normal, outliers = np.concatenate([normal, varied]), made
    settings = RealNVPSettings(
        epochs=options.realnvp_epochs,
        early_stopping_patience=options.patience(100),
        time_limit=options.time_limit,
        seed=options.seed,
    )
    logs = options.tensorboard
    flow, fitted = fit_realnvp(
        normal,
        latents[split.validation],
        outliers=outliers,
        settings=settings,
        label=f"training {options.scorer}",
        progress=options.progress,
        tensorboard=None if logs is None else logs / "realnvp",
    )
    run.folder.trained(fitted)
    metrics = {}
    if outliers is not None:
        metrics["outlier_nll"] = float(np.median(np.asarray(flow.nll(outliers), np.float64)))
    scorer = realnvp_scorer(autoencoder, flow)
    result = TrainingResult.of("realnvp", flow, fitted, scorer, base=base, **metrics)
    result.provenance["realnvp"]["settings"] = asdict(settings)
    return result


def _restore(autoencoder: Autoencoder, folder: RunFolder) -> ScoringFunction:
    from training.networks.realnvp import RealNVP

    flow = RealNVP(LATENT_SIZE)
    folder.load_weights("realnvp", flow)
    return realnvp_scorer(autoencoder, flow)


SCORERS = (
    Scorer(
        "realnvp",
        "negative log-likelihood of the latent under a Real-NVP (paper, section IV)",
        _UNIT,
        train,
        _restore,
        _OPTIONS,
    ),
    Scorer(
        "realnvp-oe",
        "the same, trained with outlier exposure",
        _UNIT,
        partial(train, exposure=True),
        _restore,
        _OPTIONS | {"anomalies"},
    ),
)
