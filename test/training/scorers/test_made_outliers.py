"""Scorers on an autoencoder that learn from outliers made of a normal drive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import add_box, make_drive, options_for, preprocessed, write_images
from numpy.typing import NDArray

from anomaly_detector.model.detector import Detector
from training.cli.main import main
from training.fitting.run import TrainingResult, TrainingRun
from training.networks.autoencoders import build_autoencoder
from training.networks.backend import import_keras
from training.scorers.mlp import normalized_encoder
from training.scorers.registry import find_scorer
from training.train import export_trained, prepare

SHORT = {
    "mlp": {"exposure_epochs": 1, "exposure_steps": 3},
    "mlp-finetuned": {"exposure_epochs": 1, "exposure_steps": 3},
    "realnvp-oe": {"realnvp_epochs": 3},
}


def prepared(drive: Path, out: Path, scorer: str, **options: Any) -> TrainingRun:
    return prepare(options_for(drive, out, scorer=scorer, epochs=1, **SHORT[scorer], **options))


@pytest.fixture(scope="module")
def base(normal_drive: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    from training.scorers.autoencoder import train_autoencoder

    return train_autoencoder(prepared(normal_drive, tmp_path_factory.mktemp("a") / "m.onnx", "mlp"))


def weights(model: Any) -> list[NDArray[np.float32]]:
    return [np.array(weight) for weight in model.get_weights()]


@pytest.mark.parametrize("scorer", SHORT)
def test_a_normal_drive_alone_gives_a_detector_that_can_be_restored(
    scorer: str, base: TrainingResult, normal_drive: Path, tmp_path: Path
) -> None:
    out, again = tmp_path / "m.onnx", tmp_path / "again.onnx"
    run = prepared(normal_drive, out, scorer)
    assert base.autoencoder is not None
    before = weights(base.autoencoder.model)
    trained = find_scorer(scorer).train(run, base)
    metadata = export_trained(run, trained)
    # Other scorers may be trained on the same autoencoder.
    for old, new in zip(before, weights(base.autoencoder.model), strict=True):
        np.testing.assert_array_equal(new, old)
    own = trained.autoencoder
    assert own is not None
    changed = [
        any((a != b).any() for a, b in zip(weights(mine), weights(other), strict=True))
        for mine, other in (
            (own.encoder, base.autoencoder.encoder),
            (own.decoder, base.autoencoder.decoder),
        )
    ]
    assert changed == [scorer == "mlp-finetuned", False]
    assert metadata.calibration.method == "split-conformal"
    assert metadata.provenance["frames"]["anomalies"] == 0
    assert ("outlier_nll" in metadata.metrics) == (scorer == "realnvp-oe")
    folder = str(out.with_suffix(".training"))
    assert main(["export", "--weights", folder, "--out", str(again)]) == 0
    images = preprocessed(make_drive(4, seed=3))
    for mine, other in zip(
        Detector(out).score_batch(images), Detector(again).score_batch(images), strict=True
    ):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("architecture", ["v1", "v5", "paper"])
def test_normalizations_fold_into_the_encoder(architecture: str) -> None:
    keras = import_keras()
    from training.networks.layers import BatchNormalization

    encoder = build_autoencoder(architecture).encoder
    before = weights(encoder)
    image = keras.Input((64, 64, 3))
    latent, fold = normalized_encoder(encoder, image)
    normalized = keras.Model(image, latent)
    generator = np.random.default_rng(0)
    for layer in normalized.layers:
        if isinstance(layer, BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    images = generator.uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    expected = np.asarray(normalized(images, training=False))
    fold()
    np.testing.assert_allclose(
        np.asarray(encoder(images, training=False)), expected, rtol=1e-3, atol=1e-3 * expected.std()
    )
    assert any((a != b).any() for a, b in zip(before, weights(encoder), strict=True))


def test_normal_frames_of_a_drive_with_anomalies_count_as_normal(
    normal_drive: Path, tmp_path: Path
) -> None:
    frames = make_drive(40, seed=1)
    frames[20:30] = map(add_box, frames[20:30])
    drive = write_images(tmp_path / "drive", frames)
    rows = [f"frame_{i}.png,{int(20 <= i < 30)}" for i in range(40)]
    (drive / "labels.csv").write_text("\n".join(["frame,label", *rows]) + "\n")
    event = write_images(tmp_path / "event", frames[20:25])
    anomalies = [str(drive), str(event)]
    run = prepared(normal_drive, tmp_path / "m.onnx", "mlp", anomalies=anomalies)
    assert (run.frames.lengths, run.anomalies and run.anomalies.lengths) == ([120, 30], [10, 5])
    own = prepared(normal_drive, tmp_path / "o.onnx", "realnvp-oe", anomalies=anomalies)
    assert (own.frames.lengths, own.anomalies and own.anomalies.lengths) == ([120], [10, 5])
