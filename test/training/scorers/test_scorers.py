"""Scorers: each score by hand, maps against automatic differentiation, ONNX against Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import make_drive, preprocessed
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.mask import Mask
from training.export.convert import MAX_RELATIVE_DIFFERENCE, convert, masked, parity
from training.fitting.run import ScoringFunction, TrainingResult
from training.networks.autoencoders import Autoencoder, build_autoencoder
from training.networks.backend import import_keras, seed_everything
from training.scorers.mlp import build_mlp, mlp_scorer
from training.scorers.realnvp import realnvp_scorer
from training.scorers.reconstruction import reconstruction_scorer
from training.scorers.registry import find_scorer

RECONSTRUCTION = {"reconstruction": "mse", "reconstruction-mae": "mae", "reconstruction-q99": "q99"}


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    seed_everything(3)
    return build_autoencoder("v5")


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Five frames of a drive, noise and black."""
    drive = list(preprocessed(make_drive(5)))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return np.stack([*drive, noise, np.zeros_like(noise)])


@pytest.fixture(scope="module")
def flow(autoencoder: Autoencoder) -> Any:
    """A Real-NVP with arbitrary weights, on the scale of the codes."""
    from training.networks.realnvp import RealNVP

    drive = preprocessed(make_drive(60, seed=4))
    latents = np.asarray(autoencoder.encoder(drive.astype(np.float32)))
    flow = RealNVP(latents.shape[1], seed=1)
    generator = np.random.default_rng(5)
    for weight in flow.trainable_variables:
        weight.assign(generator.normal(0, 0.03, weight.shape))
    flow.whitening.adapt(latents)
    return flow


def scorer_named(name: str, autoencoder: Autoencoder, flow: Any) -> ScoringFunction:
    if name in RECONSTRUCTION:
        return reconstruction_scorer(autoencoder, RECONSTRUCTION[name])
    if name == "mlp":
        seed_everything(4)
        return mlp_scorer(autoencoder, build_mlp())
    return realnvp_scorer(autoencoder, flow)


def check_mask(name: str, model: Any, images: NDArray[np.uint8]) -> None:
    """Check that nothing under a mask reaches score and map, and what they are made of."""
    import onnxruntime

    covered = np.zeros((64, 64), bool)
    covered[40:] = True
    mask = Mask(covered)
    plain, own = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
        for each in (model, masked(model, mask))
    )
    changed = images.copy()
    changed[:, covered] = 255 - images[:, covered]
    outputs = ["score", "anomaly_map"]
    score, cells = own.run(outputs, {"image": images})
    for got, wanted in zip(own.run(outputs, {"image": changed}), (score, cells), strict=True):
        np.testing.assert_array_equal(got, wanted)
    seen_score, seen = plain.run(outputs, {"image": mask.filled(images)})
    kept = ~mask.cells(*cells.shape[1:])
    np.testing.assert_allclose(cells, seen * kept, rtol=1e-3, atol=1e-3 * seen.max())
    if RECONSTRUCTION.get(name) in ("mse", "mae"):
        np.testing.assert_allclose(score, (seen * kept).mean(axis=(1, 2)), rtol=1e-3)
    elif name in RECONSTRUCTION:
        expected = np.quantile((seen * kept).reshape(len(images), -1), 0.99, axis=1)
        np.testing.assert_allclose(score, expected, rtol=1e-3)
    else:  # not made of the map
        np.testing.assert_allclose(score, seen_score, rtol=1e-3)
    assert not np.array_equal(own.run(["score"], {"image": images[:, ::-1]})[0], score)


@pytest.mark.parametrize("name", [*RECONSTRUCTION, "mlp", "realnvp"])
def test_onnx_agrees_with_keras_for_any_batch(
    name: str, autoencoder: Autoencoder, flow: Any, images: NDArray[np.uint8]
) -> None:
    import onnx
    import onnxruntime

    scorer = scorer_named(name, autoencoder, flow)
    model = convert(scorer)
    # Seven frames at once, and each alone.
    for batch in (images, *images[:, np.newaxis]):
        assert 0 <= parity(scorer, model, batch) <= MAX_RELATIVE_DIFFERENCE
    assert sorted(output.name for output in model.graph.output) == ["anomaly_map", "score"]
    # The latent is inside, once, and on the way to the score.
    assert sum("code" in node.output for node in model.graph.node) == 1
    assert any("code" in node.input for node in model.graph.node)
    check_mask(name, model, images)
    model.graph.output.append(onnx.helper.make_tensor_value_info("code", 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    latents = session.run(["code"], {"image": images})[0]
    expected = np.asarray(autoencoder.encoder(images.astype(np.float32)))
    np.testing.assert_allclose(latents, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("architecture", ["v5", "paper"])
def test_reconstruction_scores_by_hand(architecture: str, images: NDArray[np.uint8]) -> None:
    seed_everything(1)
    autoencoder = build_autoencoder(architecture)
    pixels = images[:2].astype(np.float32)
    difference = np.asarray(autoencoder.target(pixels) - autoencoder.model(pixels), np.float64)
    squared = np.square(difference).mean(axis=-1)
    expected = {
        "mse": (squared.mean(axis=(1, 2)), squared),
        "mae": (np.abs(difference).mean(axis=(1, 2, 3)), np.abs(difference).mean(axis=-1)),
        "q99": (np.quantile(squared, 0.99, axis=(1, 2)), squared),
    }
    for statistic, (scores, maps) in expected.items():
        got = reconstruction_scorer(autoencoder, statistic)(images[:2])
        np.testing.assert_allclose(got["score"], scores, rtol=1e-5)
        np.testing.assert_allclose(got["anomaly_map"], maps, rtol=1e-3, atol=1e-5 * maps.max())


def test_quantile_notices_a_small_hazard_that_the_mean_hardly_does(
    autoencoder: Autoencoder, images: NDArray[np.uint8]
) -> None:
    """A spot of 1.6 % of the frame, much more wrong than the rest."""

    def scores(statistic: str, image: NDArray[np.uint8]) -> float:
        spotted = image.copy()
        spotted[20:28, 20:28] = 255 - spotted[20:28, 20:28] // 4
        both = reconstruction_scorer(perfect, statistic)(np.stack([image, spotted]))
        plain, with_spot = np.asarray(both["score"])
        return float(with_spot / plain)

    # A network whose error is the distance to mid-grey: what is scored matters here, not by whom.
    perfect = Autoencoder(
        "v5", autoencoder.encoder, lambda latent, training: 128.0, None, lambda pixels: pixels
    )
    frame = np.full((64, 64, 3), 120, np.uint8)
    assert scores("q99", frame) > 10 * scores("mse", frame) > 10
    assert scores("mse", frame) > scores("mae", frame) > 1


@pytest.mark.parametrize("name", ["mlp", "realnvp"])
def test_maps_are_the_share_of_each_cell(
    name: str, autoencoder: Autoencoder, flow: Any, images: NDArray[np.uint8]
) -> None:
    """The map is the positive part of gradient times feature: checked by TensorFlow's gradient."""
    import keras
    import tensorflow

    images = images[:6]  # the features of a black frame are 0
    seed_everything(4)
    mlp = build_mlp()  # as that of the scorer
    encoder = autoencoder.encoder
    to_features = keras.Model(encoder.inputs[0], encoder.layers[-2].input)
    features = to_features(images.astype(np.float32))
    with tensorflow.GradientTape() as tape:
        tape.watch(features)
        latent = encoder.layers[-1](tensorflow.reshape(features, (len(images), -1)))
        if name == "realnvp":
            score = evidence = flow.nll(latent)
        else:
            first, second, last = mlp.layers
            logit = second(first(latent)) @ last.kernel + last.bias
            score, evidence = mlp(latent)[:, 0], logit[:, 0]
    gradient = tape.gradient(evidence, features)
    expected = np.maximum(np.sum(gradient * features, axis=-1), 0)
    assert np.unique(expected > 0).size == 2
    got = scorer_named(name, autoencoder, flow)(images)
    np.testing.assert_allclose(got["score"], score, rtol=1e-5)
    scale = expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(got["anomaly_map"] / scale, expected / scale, atol=1e-3)


def test_units_are_those_of_the_reconstructed_image() -> None:
    for name in RECONSTRUCTION:
        assert "grey levels (0..255)" in find_scorer(name).unit_on("v5")
        assert "standard deviations of the image's channels" in find_scorer(name).unit_on("paper")
    assert find_scorer("realnvp").unit_on("paper") == "negative log-likelihood of the latent, nats"


def test_what_cannot_be_scored_is_told(autoencoder: Autoencoder, flow: Any) -> None:
    with pytest.raises(AnomalyDetectorError, match=r"statistic 'max' .* choose one of mse, mae"):
        reconstruction_scorer(autoencoder, "max")
    keras = import_keras()
    image = keras.Input((64, 64, 3))
    latent = keras.layers.Dense(128, activation="relu")(keras.layers.Flatten()(image))
    bent = Autoencoder("bent", keras.Model(image, latent), None, None, lambda pixels: pixels)
    with pytest.raises(AnomalyDetectorError, match="'bent' has no anomaly map"):
        realnvp_scorer(bent, flow)


def test_scorers_on_one_autoencoder_stay_their_own() -> None:
    """A comparison trains the autoencoder once: each scorer must bring its own statistic."""
    base = TrainingResult(build_autoencoder("v5"), lambda image: {}, {}, {}, {}, {})
    nothing: Any = None  # these scorers ask nothing of the run
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    scores = [
        float(np.asarray(find_scorer(name).train(nothing, base).scorer(image)["score"])[0])
        for name in RECONSTRUCTION
    ]
    assert len(set(scores)) == len(RECONSTRUCTION) == 3
