"""An encoder restored from its exported file, and files that it cannot be restored from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from anomaly_detector.detector import Detector
from anomaly_detector.errors import ModelError
from anomaly_detector.metadata import METADATA_KEY, Calibration, ModelMetadata
from training.architectures import build_autoencoder
from training.backend import seed_everything
from training.codes import CodeModel
from training.export import convert, parity, write_detector
from training.restore import restore_encoder
from training.scorers import build_mlp, mlp_scorer


def test_a_new_scorer_on_the_codes_of_a_file(trained_model: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (5, 64, 64, 3), np.uint8)
    autoencoder = restore_encoder(trained_model)
    scorer = mlp_scorer(autoencoder, build_mlp())
    expected = CodeModel(trained_model).encode(images)
    got = np.asarray(scorer(images)["code"])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert parity(scorer, convert(scorer), images) < 1e-3


@pytest.mark.parametrize("architecture", ["v4", "paper"])
def test_every_kind_of_encoder_and_the_file_of_a_classifier(
    architecture: str, tmp_path: Path
) -> None:
    seed_everything(0)
    autoencoder = build_autoencoder(architecture)
    generator = np.random.default_rng(0)
    for layer in autoencoder.encoder.layers:
        if hasattr(layer, "bias"):
            layer.bias.assign(generator.normal(size=layer.bias.shape))
    metadata = ModelMetadata("m", architecture, "mlp", "p", 0.5, Calibration("fixed"))
    scorer = mlp_scorer(autoencoder, build_mlp())
    images = generator.integers(0, 256, (7, 64, 64, 3), np.uint8)
    write_detector(convert(scorer), metadata, tmp_path / "m.onnx", scorer=scorer, images=images)
    pixels = images.astype(np.float32)
    expected = np.asarray(autoencoder.encoder(pixels))
    got = np.asarray(restore_encoder(tmp_path / "m.onnx").encoder(pixels))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("v6", "of architecture 'v6', which this version cannot build"),
        ("v4", "not those of architecture 'v4'"),
    ],
)
def test_other_architectures_are_told(
    trained_model: Path, tmp_path: Path, architecture: str, reason: str
) -> None:
    metadata = dataclasses.replace(Detector(trained_model).metadata, architecture=architecture)
    model = onnx.load(trained_model)
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=reason):
        restore_encoder(tmp_path / "other.onnx")


def test_encoder_that_computes_something_else_is_refused(
    trained_model: Path, tmp_path: Path
) -> None:
    """The same kernels, but another slope between them."""
    model = onnx.load(trained_model)
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            node.attribute[0].f = 0.5
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="gives other codes"):
        restore_encoder(tmp_path / "other.onnx")
