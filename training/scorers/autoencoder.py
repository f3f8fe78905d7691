"""Trains an autoencoder to reproduce normal frames, and cross-validates its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import Interrupted, SourceError
from anomaly_detector.images.mask import Mask
from training.config.options import TrainOptions
from training.data.frames import FrameSet, fold_blocks
from training.fitting.fit import fit
from training.fitting.run import TrainingResult, TrainingRun
from training.fitting.settings import FitResult, FitSettings
from training.networks.augmentation import AUGMENTATIONS, Preset
from training.networks.autoencoders import (
    ARCHITECTURES,
    Autoencoder,
    NetworkSettings,
    build_autoencoder,
)
from training.networks.backend import import_keras, seed_everything
from training.networks.layers import Augment
from training.scorers.reconstruction import reconstruction_scorer

THESIS_FOLDS = 10
"""Folds of the thesis' cross-validation (5.8)."""

THESIS_FOLD_SEED = 42
"""Of their shuffling (5.8)."""


def train_autoencoder(run: TrainingRun) -> TrainingResult:
    """Train the autoencoder of a run, with its reconstruction scorer.

    Raises:
        AnomalyDetectorError: training gave nothing.
    """
    options = run.options
    seed_everything(options.seed)
    autoencoder = build(options)
    preset = AUGMENTATIONS[options.augmentation]
    model = error_model(autoencoder, preset, run.frames.mask)
    metrics: dict[str, Any] = {}
    if options.thesis_folds:
        result, metrics["thesis_folds"] = _through_thesis_folds(run, model, preset)
    else:
        result = _fit(
            run, model, preset, run.split.train, run.split.validation,
            fit_settings(options), "autoencoder", f"training {options.architecture}",
        )  # fmt: skip
    scorer = reconstruction_scorer(autoencoder)
    trained = TrainingResult.of("autoencoder", autoencoder.model, result, scorer, **metrics)
    return replace(trained, autoencoder=autoencoder)


def build(options: TrainOptions) -> Autoencoder:
    """Build the untrained autoencoder that the options ask for."""
    settings = {item.name: getattr(options, item.name) for item in fields(NetworkSettings)}
    return build_autoencoder(options.architecture, NetworkSettings(**settings))


def error_model(autoencoder: Autoencoder, preset: Preset | None, mask: Mask | None = None) -> Any:
    """Return the Keras model that is trained: from frames to the error of each reconstruction.

    Casting, augmentation and comparison are in its graph, so that a batch comes as uint8 and the
    target is the augmented image.

    Returns:
        A model on the inputs of :func:`frame_inputs` whose output, float32 [N], is the mean squared
        error over pixels and channels, 0 under the mask. It shares its weights with the
        autoencoder.
    """
    keras = import_keras()
    sample = frame_inputs(np.zeros((1, *autoencoder.model.input_shape[1:]), np.uint8), preset)
    inputs = {
        name: keras.Input(array.shape[1:], dtype=str(array.dtype), name=name)
        for name, array in sample.items()
    }
    pixels = Augment(preset.fill_mode if preset else "nearest")(inputs)
    error = keras.ops.square(autoencoder.target(pixels) - autoencoder.model(pixels))
    if mask is not None:
        error = error * (~mask.ignored[:, :, np.newaxis]).astype(np.float32)
    return keras.Model(inputs, keras.ops.mean(error, axis=(1, 2, 3)), name="error")


def frame_inputs(images: NDArray[np.uint8], preset: Preset | None) -> dict[str, NDArray[Any]]:
    """Return the inputs of :func:`error_model` for frames that stay as they are."""
    return {"image": images, **(preset.neutral(len(images)) if preset else {})}


def mean_output(_: Any, predicted: Any) -> Any:
    """Return the loss of a model whose output is the error already."""
    return import_keras().ops.mean(predicted)


def fit_settings(options: TrainOptions) -> FitSettings:
    """Return the settings of the autoencoder's training."""
    architecture = ARCHITECTURES[options.architecture]
    clipnorm, global_clipnorm = options.clipnorm, options.global_clipnorm
    if clipnorm is None and global_clipnorm is None:
        clipnorm, global_clipnorm = architecture.clipnorm, architecture.global_clipnorm
    return FitSettings(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        clipnorm=clipnorm,
        global_clipnorm=global_clipnorm,
        early_stopping_patience=options.patience(5),
        plateau_patience=options.plateau_patience,
        plateau_factor=options.plateau_factor,
        min_learning_rate=options.min_learning_rate,
        time_limit=options.time_limit,
        seed=options.seed,
    )


def _fit(
    run: TrainingRun,
    model: Any,
    preset: Preset | None,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    settings: FitSettings,
    name: str,
    label: str,
    *,
    keep_optimizer: bool = False,
) -> FitResult:
    """Fit an error model; ``name`` is that of its checkpoint and TensorBoard log."""

    def sample(generator: np.random.Generator, inputs: Any) -> dict[str, NDArray[Any]]:
        assert preset is not None
        return {**inputs, **preset.sample(generator, len(inputs["image"]))}

    result = fit(
        model,
        _loader(run.frames, preset),
        train,
        validation,
        settings,
        loss=mean_output,
        label=label,
        sample=None if preset is None else sample,
        keep_optimizer=keep_optimizer,
        **run.fit_arguments(name),
    )
    run.folder.trained(result)
    return result


def _loader(
    frames: FrameSet, preset: Preset | None
) -> Callable[[NDArray[np.int64]], tuple[dict[str, NDArray[Any]], NDArray[np.float32]]]:
    def load(
        indices: NDArray[np.int64],
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
        return frame_inputs(frames.load(indices), preset), np.zeros(len(indices), np.float32)

    return load


def mean_error(
    model: Any, frames: FrameSet, indices: NDArray[np.int64], preset: Preset | None
) -> float:
    """Return the mean squared reconstruction error of frames, without regularisation."""
    load = _loader(frames, preset)
    batches = np.array_split(indices, -(-len(indices) // 256))
    errors = [np.asarray(model(load(batch)[0], training=False)) for batch in batches]
    return float(np.concatenate(errors).mean(dtype=np.float64))


def cross_validate(run: TrainingRun) -> dict[str, Any]:
    """Train afresh for every fold of consecutive frames, and test on that fold.

    The error of a fold is that of its best epoch, which is chosen on the fold itself as in the
    final training: with few epochs a little too good, but never trained on.

    Returns:
        For the metadata: the mean squared error of each fold, their mean and their standard
        deviation.

    Raises:
        AnomalyDetectorError: training gave nothing, too few frames, or Ctrl-C.
    """
    options = run.options
    preset = AUGMENTATIONS[options.augmentation]
    errors = []
    splits = fold_blocks(run.frames.lengths, run.frames.gaps, options.folds)
    for number, fold in enumerate(splits, start=1):
        split = fold.without(run.frames.unused)
        seed_everything(options.seed)
        model = error_model(build(options), preset, run.frames.mask)
        result = _fit(
            run, model, preset, split.train, split.validation, fit_settings(options),
            f"fold_{number}", f"fold {number} of {options.folds}",
        )  # fmt: skip
        if result.stopped_by == "interrupt":
            raise Interrupted(
                f"cross-validation was interrupted in fold {number} of {options.folds}: "
                "go on with --resume"
            )
        errors.append(mean_error(model, run.frames, split.validation, preset))
    figures = _figures(errors)
    if options.progress:
        print(
            f"cross-validation, {options.folds} folds of consecutive frames, each trained afresh: "
            f"mean squared error {figures['mean']:.4g} +- {figures['deviation']:.2g}"
        )
    return figures


def _through_thesis_folds(
    run: TrainingRun, model: Any, preset: Preset | None
) -> tuple[FitResult, dict[str, Any]]:
    """Train one network through ten shuffled folds (thesis 5.8).

    Its fold errors leak: the network was trained on the frames of a fold in the other folds, and
    shuffling leaves near copies of them, their neighbours in the drive, in its own training part.
    The error on the held-out blocks, of which it never saw anything, stands beside them.
    """
    from sklearn.model_selection import KFold

    options = run.options
    train = run.split.train
    if len(train) < THESIS_FOLDS:
        raise SourceError(
            f"{len(train)} frames to train on are too few for {THESIS_FOLDS} folds: "
            "record a longer drive"
        )
    epochs = max(1, options.epochs // THESIS_FOLDS)
    total = FitResult()
    errors = []
    shuffled = KFold(THESIS_FOLDS, shuffle=True, random_state=THESIS_FOLD_SEED).split(train)
    for number, (fitted, tested) in enumerate(shuffled, start=1):
        settings = fit_settings(options)
        result = _fit(
            run, model, preset, train[fitted], train[tested],
            replace(settings, epochs=epochs, seed=options.seed + number),
            f"thesis_fold_{number}", f"thesis fold {number} of {THESIS_FOLDS}",
            # As there: compiled once, so that a learning rate that fell stays low.
            keep_optimizer=number > 1,
        )  # fmt: skip
        offset = len(total.history.get("loss", []))
        for name, values in result.history.items():
            total.history.setdefault(name, []).extend(values)
        total.seconds += result.seconds
        total.best_epoch = offset + result.best_epoch
        total.stopped_by = result.stopped_by
        errors.append(mean_error(model, run.frames, train[tested], preset))
        if result.stopped_by == "interrupt":
            break
    held_out = mean_error(model, run.frames, run.split.validation, preset)
    total.best_loss = held_out
    figures = _figures(errors) | {"held_out_error": held_out}
    if options.progress:
        print(
            f"thesis' folds, one network through {THESIS_FOLDS} shuffled folds: mean squared error "
            f"{figures['mean']:.4g} +- {figures['deviation']:.2g}, but {held_out:.4g} on blocks it "
            "never saw: the folds leak, each was trained on in the others"
        )
    return total, figures


def _figures(errors: Sequence[float]) -> dict[str, Any]:
    spread = float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0
    return {"errors": list(errors), "mean": float(np.mean(errors)), "deviation": spread}
