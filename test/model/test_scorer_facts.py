"""The robot learns from a model's metadata what its scorer is like, and knows none by name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_files import write_grey_difference_model

from anomaly_detector.cli.main import main
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.metadata import Calibration, ModelMetadata
from anomaly_detector.model.normalization import normalize_for
from training.scorers.registry import scorers, with_scorer_facts

ROOT = Path(__file__).parents[2]


def metadata(scorer: str, threshold: float = 2.0, **changes: object) -> ModelMetadata:
    own = ModelMetadata(
        name="m",
        architecture="a",
        scorer=scorer,
        score_units="units",
        threshold=threshold,
        calibration=Calibration("fixed", quantiles={"0.5": threshold - 2.0}),
    )
    return replace(own, **changes)  # type: ignore[arg-type]


def older(text: str) -> str:
    """Return metadata as they were written before the robot learned of scorers from them."""
    raw = json.loads(text)
    return json.dumps({k: v for k, v in raw.items() if k not in ("score_maximum", "map_scale")})


EXPECTED = {
    "reconstruction": MapScale(4.0, 16.0, 5, follows_threshold=True),
    "reconstruction-mae": MapScale(4.0, 16.0, 5, follows_threshold=True),
    "reconstruction-q99": MapScale(2.0, 8.0, 5, follows_threshold=True),
    "mlp": MapScale(0.0, None),
    "mlp-finetuned": MapScale(0.0, None),
    "mlp-thesis": MapScale(0.0, None),
    "realnvp": MapScale(0.0, None),
    "realnvp-oe": MapScale(0.0, None),
    # Capped: a cell of even odds is hot whatever the threshold, one of 19 to 1 as hot as can be.
    "outlier-exposure": MapScale(np.log(2.0), np.log(20.0)),
    "outlier-exposure-pretrained": MapScale(np.log(2.0), np.log(20.0)),
}
WITHOUT_OLDER_FILES = ("outlier-exposure-pretrained", "mlp-finetuned", "mlp-thesis")


@pytest.mark.parametrize("scorer", list(scorers()))
def test_training_writes_them_and_older_files_are_completed_alike(scorer: str) -> None:
    written = with_scorer_facts(metadata(scorer))
    assert written.score_maximum == (1.0 if scorer.startswith("mlp") else None)
    assert written.map_scale == EXPECTED[scorer]
    assert ModelMetadata.from_json(written.to_json(), "m.onnx") == written
    if scorer not in WITHOUT_OLDER_FILES:
        completed = ModelMetadata.from_json(older(written.to_json()), "m.onnx")
        assert completed == written


@pytest.mark.parametrize("older_file", [False, True])
def test_odds_below_the_caps_follow_the_threshold_and_the_scale(older_file: bool) -> None:
    written = with_scorer_facts(metadata("outlier-exposure", -2.0))
    if older_file:
        written = ModelMetadata.from_json(older(written.to_json()), "m.onnx")
    assert written.map_scale.low == pytest.approx(0.5 * np.log1p(np.exp(-2.0)))
    assert written.map_scale.high == pytest.approx(np.log1p(np.exp(0.0)))


def test_errors_without_a_positive_threshold_have_no_scale() -> None:
    assert with_scorer_facts(metadata("reconstruction", 0.0)).map_scale == MapScale(0.0, None)


def test_scorer_that_nobody_has_heard_of(tmp_path: Path) -> None:
    """Its scale and the end of its score are those of the file, not those of another scorer."""
    scale = MapScale(1.5, 2.5, 3)
    text = metadata("of-tomorrow", 0.5, score_maximum=1.0, map_scale=scale).to_json()
    path = write_grey_difference_model(tmp_path / "new.onnx", metadata=text)
    detector = Detector(path)
    assert detector.map_scale == scale
    # The end of the score, 1.0, is three scales above the threshold: 1 - 0.5 / (1 + 3).
    assert normalize_for(detector.metadata, np.array([0.5, 1.0], np.float32)).tolist() == [
        0.5,
        0.875,
    ]


def test_map_scale_of_the_threshold_in_use(model: Path, tmp_path: Path) -> None:
    detector = Detector(model)
    assert detector.map_scale == MapScale(2000.0, 8000.0, 5, follows_threshold=True)
    detector.set_threshold(500.0)
    assert (detector.map_scale.low, detector.map_scale.high) == (1000.0, 4000.0)


def test_older_file_scores_the_same_and_is_completed_by_calibrate(
    model: Path, normal_drive: Path, tmp_path: Path
) -> None:
    text = older(read_metadata(model).to_json())
    path = write_grey_difference_model(tmp_path / "older.onnx", metadata=text)
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    results = [Detector(file).score_batch(images) for file in (path, model)]
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert Detector(path).map_scale == Detector(model).map_scale
    out = tmp_path / "new.onnx"
    command = ["calibrate", "--model", str(path), "--data", str(normal_drive)]
    assert main([*command, "--output", str(out)]) == 0
    new = read_metadata(out)
    assert new.map_scale.low == pytest.approx(2 * new.threshold)


def test_robot_side_knows_no_scorer_by_name() -> None:
    names = "|".join(map(re.escape, scorers()))
    for file in (ROOT / "anomaly_detector").rglob("*.py"):
        if file.name != "older_models.py":
            found = re.search(rf"""["'](?:{names})["']""", file.read_text(encoding="utf-8"))
            assert found is None, f"{file} names the scorer {found and found[0]}"


def test_shipped_model_says_it_itself() -> None:
    text = read_metadata(ROOT / "models" / "corridor.onnx").to_json()
    raw = (ROOT / "models" / "corridor.onnx").read_bytes()
    assert b'"map_scale"' in raw
    shipped = ModelMetadata.from_json(text, "corridor.onnx")
    assert shipped.map_scale == with_scorer_facts(shipped).map_scale
