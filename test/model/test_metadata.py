"""The metadata entry of a model file: what is read, what is completed, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from model_files import write_grey_difference_model

from anomaly_detector.errors import ModelError
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.fingerprint import Fingerprint
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.metadata import Calibration, ModelMetadata

METADATA = ModelMetadata(
    name="corridor",
    architecture="v5",
    scorer="reconstruction",
    score_units="squared grey levels",
    threshold=42.5,
    calibration=Calibration(
        "split-conformal", 0.01, 120, {"0.5": 20.0, "0.99": 41.0}, 60, (0.001, 0.06)
    ),
    region_of_interest=(20, 10, 80, 0),
    image_scaling=(500.0, 3500.0),
    score_maximum=100.0,
    map_scale=MapScale(1.0, 2.0, 3, follows_threshold=True),
    training_recordings=(Fingerprint("drive", 90, "0123456789ab"),),
    provenance={"seed": 3},
    metrics={"validation_loss": 12.5},
)

ADDED_LATER = {
    *("region_of_interest", "image_scaling", "training_recordings", "mask", "camera_reference"),
}


def changed(place: str, *value: Any) -> str:
    """Return the JSON text with another value at a place such as ``map_scale.low``, or none."""
    raw = inner = json.loads(METADATA.to_json())
    *parents, name = place.split(".")
    for parent in parents:
        inner = inner[int(parent) if isinstance(inner, list) else parent]
    del inner[name]
    inner.update(zip([name], value, strict=False))
    return json.dumps(raw)


def test_metadata_survives_the_model_file(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx", metadata=METADATA.to_json())
    assert read_metadata(path) == METADATA
    assert Detector(path).threshold == 42.5


def names(kind: type, prefix: str = "") -> list[str]:
    return [prefix + field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize(
    "place",
    [
        *sorted({*names(ModelMetadata)} - ADDED_LATER - {"map_scale"}),
        *names(Calibration, "calibration."),
        *names(MapScale, "map_scale."),
        *names(Fingerprint, "training_recordings.0."),
    ],
)
def test_every_field_is_needed(place: str) -> None:
    with pytest.raises(ModelError, match=f"m.onnx: metadata field '{place}' is missing: export"):
        ModelMetadata.from_json(changed(place), "m.onnx")


def test_fields_that_came_later_have_the_values_of_models_from_before() -> None:
    raw = json.loads(METADATA.to_json())
    text = json.dumps({key: value for key, value in raw.items() if key not in ADDED_LATER})
    older = ModelMetadata.from_json(text, "m.onnx")
    assert older == dataclasses.replace(
        METADATA, region_of_interest=(0, 0, 0, 0), image_scaling=None, training_recordings=()
    )


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("format_version", 1, "format version 1, this package reads 2"),
        ("format_version", 99, "format version 99, this package reads 2"),
        ("threshold", "high", "'threshold' is 'high', not a number"),
        ("threshold", True, "'threshold' is True, not a number"),
        ("threshold", math.inf, "not a finite number"),
        ("input_size", 8, "input_size is 8"),
        ("color_order", "bgr", "color_order is 'bgr'"),
        ("resize_method", "nearest/1", "resize_method is 'nearest/1'"),
        ("calibration", "x", "'calibration' is 'x', not an object"),
        ("calibration.method", 3, r"'calibration\.method' is 3, not a text"),
        ("calibration.effective_frames", 2.5, "is 2.5, not an integer"),
        ("calibration.quantiles", {"0.5": "x"}, r"'calibration\.quantiles\.0\.5' is 'x'"),
        ("calibration.false_alarm_interval", [0.1], r"_interval' is \[0\.1\], not a list of 2"),
        ("calibration.false_alarm_interval", [0.1, "x"], r"interval\.1' is 'x', not a number"),
        ("training_recordings", "x", "'training_recordings' is 'x', not a list"),
        ("training_recordings", ["x"], r"'training_recordings\.0' is 'x', not an object"),
        ("region_of_interest", [1, 2, 3], "'region_of_interest' is .*, not a list of 4"),
        ("region_of_interest", "0,0,0,0", "'region_of_interest' is '0,0,0,0', not a list"),
        ("region_of_interest", [0, 0, "5", 0], r"'region_of_interest\.2' is '5', not an integer"),
        ("region_of_interest", [0, 0, -5, 0], "region of interest has width -5"),
        ("image_scaling", [3, 2], "image scaling from 3.0 to 2.0 is no range"),
        ("map_scale.low", "1", r"'map_scale\.low' is '1', not a number"),
        ("map_scale.low", 9.0, "'map_scale': map scale from 9.0 to 2.0"),
        ("map_scale.high", math.inf, r"'map_scale\.high' is inf, not a finite number"),
        ("map_scale.window", 2, "'map_scale': map scale with window 2"),
        ("map_scale.window", True, r"'map_scale\.window' is True, not an integer"),
        ("map_scale.follows_threshold", 1, "follows_threshold' is 1, not true or false"),
    ],
)
def test_wrong_values_are_refused(place: str, value: object, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"model m\.onnx: .*{reason}.*: (export|train) ") as error:
        ModelMetadata.from_json(changed(place, value), "m.onnx")
    assert "\n" not in str(error.value)


def test_a_model_of_a_compatible_older_resize_method_is_loaded() -> None:
    metadata = ModelMetadata.from_json(changed("resize_method", "linear256-area64/1"), "m.onnx")
    assert metadata.resize_method == "linear256-area64/1"
