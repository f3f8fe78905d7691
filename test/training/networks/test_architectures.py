"""The autoencoders: shapes, sizes, the trainable latent table, standardisation, export."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from anomaly_detector.errors import AnomalyDetectorError
from training.cli.architectures import architecture_rows
from training.cli.main import main
from training.export.convert import MAX_RELATIVE_DIFFERENCE, convert, parity
from training.networks.autoencoders import (
    ARCHITECTURES,
    NetworkSettings,
    build_autoencoder,
    count_macs,
)
from training.networks.backend import import_keras, seed_everything
from training.scorers.reconstruction import reconstruction_scorer
from training.scorers.registry import find_scorer


def convolutions(*channels: int) -> int:
    """Count weights and biases of 3x3 convolutions, plain or transposed."""
    return sum(9 * first * second + second for first, second in itertools.pairwise(channels))


def dense(size: int, units: int) -> int:
    return size * units + units


PARAMETERS = {
    # By hand from the listings.
    "v1": convolutions(3, 128, 256, 512, 1024) + dense(4 * 4 * 1024, 128)
    + dense(128, 16384) + convolutions(256, 512, 256, 128, 3),
    "v2": convolutions(3, 128, 256, 512, 1024) + dense(3 * 3 * 1024, 128)
    + 128 * 128 + convolutions(1024, 512, 256, 128, 64, 3),
    "v4": convolutions(3, 64, 128, 256) + dense(7 * 7 * 256, 128)
    + dense(128, 4096) + convolutions(256, 128, 64, 32, 3),
    "v5": convolutions(3, 32, 64, 128) + dense(8 * 8 * 128, 128)
    + dense(128, 8192) + convolutions(128, 64, 32, 3),
}  # fmt: skip
PARAMETERS["v3"] = PARAMETERS["v2"]


def images(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


# v3 computes what v2 does; its penalties exist in training alone.
@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"v3"}))
def test_onnx_agrees_with_keras_one_by_one_and_in_a_batch(name: str) -> None:
    seed_everything(3)
    autoencoder = build_autoencoder(name)
    assert autoencoder.encoder.output_shape == (None, 128)
    assert autoencoder.model.output_shape == (None, 64, 64, 3)
    if name in PARAMETERS:
        assert autoencoder.model.count_params() == PARAMETERS[name]
    scorer = reconstruction_scorer(autoencoder)
    frames = images(7)
    # Uniform frames, whose deviation is 0, are the hard ones for standardisation.
    frames[5], frames[6] = 0, 255
    assert 0 <= parity(scorer, convert(scorer), frames) <= MAX_RELATIVE_DIFFERENCE


def test_macs_of_v5_agree_with_a_count_by_hand() -> None:
    convolutions = 32 * 32 * 27 * 32 + 16 * 16 * 9 * 32 * 64 + 8 * 8 * 9 * 64 * 128
    transposed = 8 * 8 * 128 * 9 * 64 + 16 * 16 * 64 * 9 * 32 + 32 * 32 * 32 * 9 * 3
    dense = 8192 * 128 + 128 * 8192
    assert count_macs(build_autoencoder("v5").model) == convolutions + transposed + dense


def test_listing_of_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["architectures"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["name", "source", "parameters", "MACs"]
    assert len(lines) == 1 + len(ARCHITECTURES)
    row = next(line for line in lines if line.startswith("v5"))
    assert "2,291,843" in row
    assert "22.7 M" in row
    assert row.endswith("22")
    assert [row[0] for row in architecture_rows()] == list(ARCHITECTURES)


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_the_encoder_of_v2_and_v3_learns(name: str) -> None:
    """With the thesis' Embedding no gradient reached it, and its weights stayed as they were."""
    keras = import_keras()
    seed_everything(0)
    autoencoder = build_autoencoder(name)
    # Regularisation alone would move the weights too: plain error, no penalty.
    before = [np.array(w) for w in autoencoder.encoder.trainable_weights]
    table = np.array(autoencoder.decoder.layers[1].table)
    frames = images(4).astype(np.float32)
    for layer in autoencoder.encoder.layers + autoencoder.decoder.layers:
        if getattr(layer, "kernel_regularizer", None) is not None:
            layer.kernel_regularizer = None
            layer.kernel.regularizer = None
    autoencoder.model.compile(optimizer=keras.optimizers.SGD(1e-7), loss="mean_squared_error")
    assert autoencoder.model.losses == []
    autoencoder.model.fit(frames, frames, batch_size=4, epochs=1, verbose=0)
    for old, new in zip(before, autoencoder.encoder.trainable_weights, strict=True):
        assert not np.array_equal(old, np.array(new)), new.path
    assert not np.array_equal(table, np.array(autoencoder.decoder.layers[1].table))


def test_latent_table_scales_its_rows() -> None:
    autoencoder = build_autoencoder("v2")
    table = autoencoder.decoder.layers[1]
    latent = np.random.default_rng(0).normal(size=(2, 128)).astype(np.float32)
    expected = latent[:, :, np.newaxis] * np.array(table.table)
    np.testing.assert_allclose(np.array(table(latent)), expected, rtol=1e-6)
    limit = np.sqrt(6 / 256)
    assert 0.9 * limit < np.abs(np.array(table.table)).max() <= limit


def test_paper_compares_standardised_images() -> None:
    autoencoder = build_autoencoder("paper")
    frames = images(3).astype(np.float32)
    target = np.array(autoencoder.target(frames))
    np.testing.assert_allclose(target.mean(axis=(1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(target.std(axis=(1, 2)), 1, rtol=1e-3)
    # Neither brightness nor contrast changes the latent.
    latent = np.array(autoencoder.encoder(frames))
    np.testing.assert_allclose(np.array(autoencoder.encoder(frames * 0.5 + 20)), latent, atol=1e-3)
    assert "standard deviations" in find_scorer("reconstruction").unit_on("paper")
    assert "grey levels" in find_scorer("reconstruction").unit_on("v5")


def test_paper_pads_on_both_sides() -> None:
    """Keras' 'same' would look at no pixel to the left of the first one."""
    keras = import_keras()
    autoencoder = build_autoencoder("paper")
    layers = autoencoder.encoder.layers
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.Conv2D))
    assert layers[first - 1].padding == ((1, 1), (1, 1))
    assert layers[first].padding == "valid"
    assert layers[first].output.shape == (None, 32, 32, 128)
    slope = np.array(layers[first].activation(np.array([-1.0, 2.0], np.float32)))
    np.testing.assert_allclose(slope, [-0.01, 2.0], rtol=1e-6)


def test_settings_reach_the_layers() -> None:
    keras = import_keras()
    settings = NetworkSettings(
        dropout=0.25, l1=0.5, l2=0.125, embedding_l1=2.0, embedding_l2=3.0, initializer="he_normal"
    )
    autoencoder = build_autoencoder("v3", settings)
    layers = autoencoder.encoder.layers + autoencoder.decoder.layers
    dense = next(layer for layer in layers if isinstance(layer, keras.layers.Dense))
    assert dense.kernel_regularizer.l1 == pytest.approx(0.5)
    assert dense.kernel_regularizer.l2 == pytest.approx(0.135)
    assert isinstance(dense.kernel_initializer, keras.initializers.HeNormal)
    # Behind four convolutions and four of the decoder's five: not on the latent, not on the image.
    dropped = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in dropped] == [0.25] * 8
    assert autoencoder.decoder.layers[1].table.regularizer.l1 == pytest.approx(2.0)
    assert autoencoder.decoder.layers[1].table.regularizer.l2 == pytest.approx(3.0)


def test_no_regulariser_on_the_latent_table_by_default() -> None:
    assert build_autoencoder("v2").decoder.layers[1].table.regularizer is None
    model = build_autoencoder("v3").model
    assert model.count_params() == PARAMETERS["v3"]
    assert len(model.losses) == 3  # the last convolution, the dense layer, the first transposed one


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(AnomalyDetectorError, match="'v9' is not known: choose one of v1"):
        build_autoencoder("v9")
