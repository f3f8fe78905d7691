"""Layers of our own against Keras' and against plain formulas."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from training.networks.backend import import_keras, seed_everything

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def layers() -> Any:
    import_keras()
    return importlib.import_module("training.networks.layers")


def test_fused_batch_normalization_is_that_of_keras(layers: Any) -> None:
    keras = import_keras()
    inputs = RANDOM.normal(3, 2, (6, 8, 8, 5)).astype(np.float32)
    ours, theirs = (
        layers.BatchNormalization(momentum=0.9),
        keras.layers.BatchNormalization(momentum=0.9),
    )
    for layer in (ours, theirs):
        layer.build(inputs.shape)
        layer.gamma.assign(np.arange(1, 6, dtype=np.float32))
        layer.beta.assign(np.arange(5, dtype=np.float32))
    for training in (True, True, False):
        got, wanted = (np.asarray(layer(inputs, training=training)) for layer in (ours, theirs))
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=5e-3)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    # 384 values a channel: Bessel's correction is 1/383 of the new part.
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=2 / 383)


def test_coord_conv_is_a_convolution_of_row_and_column(layers: Any) -> None:
    keras = import_keras()
    seed_everything(1)
    layer = layers.CoordConv(64)
    features = RANDOM.normal(0, 1, (2, 32, 32, 4)).astype(np.float32)
    added = np.asarray(layer(features)) - features
    np.testing.assert_allclose(added[0], added[1], atol=1e-6)
    axis = np.linspace(-1, 1, 64, dtype=np.float32)
    place = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)[np.newaxis]
    convolution = keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)
    convolution.build(place.shape)
    convolution.kernel.assign(layer.kernel)
    np.testing.assert_allclose(added[0], np.asarray(convolution(place))[0], atol=1e-5)
    assert np.ptp(added[0], axis=(0, 1)).min() > 0.1
