"""Model files: what is accepted, what is refused and why, and the scores they give."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from model_files import grey_difference_score, write_grey_difference_model

from anomaly_detector.detector import Detector, read_metadata
from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.image import Pixels
from anomaly_detector.metadata import Calibration, ModelMetadata

METADATA = ModelMetadata(
    name="corridor",
    architecture="v5",
    scorer="reconstruction",
    score_units="squared grey levels",
    threshold=42.5,
    calibration=Calibration(
        "split-conformal", 0.01, 120, {"0.5": 20.0, "0.99": 41.0}, 60, (0.001, 0.06)
    ),
    provenance={"seed": 3},
    metrics={"validation_loss": 12.5},
)


def random_images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_scores_follow_the_formula(tmp_path: Path) -> None:
    detector = Detector(write_grey_difference_model(tmp_path / "grey.onnx"))
    images = random_images(5)
    scores, maps = detector.score_batch(images)
    expected = [grey_difference_score(image) for image in images]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert maps.shape == (5, 64, 64)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), scores, rtol=1e-5)


def test_detection_of_a_camera_frame(tmp_path: Path) -> None:
    model = write_grey_difference_model(tmp_path / "grey.onnx", threshold=100.0)
    detector = Detector(model)
    grey = detector.detect(Pixels(np.full((480, 640, 3), 128, np.uint8), "rgb"))
    assert (grey.score, grey.threshold, grey.is_anomaly) == (0.0, 100.0, False)
    bright = detector.detect(Pixels(np.full((480, 640, 3), 138, np.uint8), "rgb"))
    assert (bright.score, bright.is_anomaly) == (100.0, True)  # at the threshold is anomalous
    assert bright.inference_ms > 0
    assert (
        not Detector(model, threshold=100.5).detect_shrunk(random_images(1)[0] * 0 + 138).is_anomaly
    )


def test_missing_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a file"):
        Detector(tmp_path / "missing.onnx")
    whole = write_grey_difference_model(tmp_path / "grey.onnx").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 20):
        (tmp_path / "cut.onnx").write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            Detector(tmp_path / "cut.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelError, match="not a whole ONNX file"):
        Detector(tmp_path / "text.onnx")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"with_metadata": False}, "no metadata entry 'anomaly_detector'"),
        ({"input_height": 32}, "input 'image' has shape"),
        ({"score_output": "loss"}, "outputs are"),
        ({"metadata": "not json"}, "is not JSON"),
        ({"metadata": "[1]"}, "is a list"),
    ],
)
def test_wrong_models_are_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        Detector(write_grey_difference_model(tmp_path / "wrong.onnx", **options))
    assert "\n" not in str(error.value)
    assert "wrong.onnx" in str(error.value)


def test_model_whose_score_is_nan_is_refused(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    model = onnx.load(path)
    grey = next(item for item in model.graph.initializer if item.name == "grey")
    grey.CopyFrom(onnx.numpy_helper.from_array(np.array(np.nan, np.float32), "grey"))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="not finite"):
        Detector(path)


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    with pytest.raises(AnomalyDetectorError, match="NoSuchProvider not available"):
        Detector(path, providers=["NoSuchProvider"])
    with pytest.raises(AnomalyDetectorError, match="threshold is nan"):
        Detector(path, threshold=math.nan)


def test_metadata_survives_the_model_file(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx", metadata=METADATA.to_json())
    assert read_metadata(path) == METADATA
    assert Detector(path).threshold == 42.5


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ModelMetadata)])
def test_every_metadata_field_is_needed(field: str) -> None:
    raw = json.loads(METADATA.to_json())
    del raw[field]
    with pytest.raises(ModelError, match=f"'{field}' is missing"):
        ModelMetadata.from_json(json.dumps(raw), "m.onnx")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("format_version", 1, "format version 1, this package reads 2"),
        ("format_version", 99, "format version 99, this package reads 2"),
        ("threshold", "high", "'threshold' is 'high', not a number"),
        ("threshold", True, "'threshold' is True, not a number"),
        ("threshold", math.inf, "not a finite number"),
        ("input_size", 128, "input_size is 128"),
        ("color_order", "bgr", "color_order is 'bgr'"),
        ("resize_method", "nearest/1", "resize_method is 'nearest/1'"),
        ("calibration", {"method": 3, "frames": 0, "quantiles": {}}, "'calibration.method'"),
    ],
)
def test_wrong_metadata_is_refused(field: str, value: object, reason: str) -> None:
    raw = json.loads(METADATA.to_json()) | {field: value}
    with pytest.raises(ModelError, match=reason):
        ModelMetadata.from_json(json.dumps(raw), "m.onnx")


def test_a_model_of_a_compatible_older_resize_method_is_loaded() -> None:
    raw = json.loads(METADATA.to_json()) | {"resize_method": "linear256-area64/1"}
    metadata = ModelMetadata.from_json(json.dumps(raw), "m.onnx")
    assert metadata.resize_method == "linear256-area64/1"
