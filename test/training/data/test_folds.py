"""Cross-validation by blocks of frames, the thesis' shuffled folds, and what is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import make_drive, write_images

from anomaly_detector.errors import SourceError
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.metadata import ModelMetadata
from training.config.options import TrainOptions
from training.data.frames import fold_blocks
from training.networks.backend import import_keras
from training.train import train


def test_folds_are_blocks_that_hold_out_every_frame_once() -> None:
    splits = fold_blocks([101, 50], [3, 3], 5)
    held = np.concatenate([split.validation for split in splits])
    np.testing.assert_array_equal(np.sort(held), np.arange(151))
    for split in splits:
        # One run of frames of each recording, which may touch at their common end.
        assert 1 <= 1 + np.count_nonzero(np.diff(split.validation) > 1) <= 2
        assert np.intersect1d(split.train, split.validation).size == 0
        for start, end in ((0, 101), (101, 151)):
            train_part = split.train[(split.train >= start) & (split.train < end)]
            held_part = split.validation[(split.validation >= start) & (split.validation < end)]
            assert np.abs(train_part[:, np.newaxis] - held_part).min() == 4


def test_too_short_a_drive_for_the_folds() -> None:
    with pytest.raises(SourceError, match="has 9 frames, too few for 5 folds"):
        fold_blocks([100, 9], [10, 10], 5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelMetadata, str]:
    """A model trained in both ways of folding, its metadata and what was printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("folds")
    drive = write_images(folder / "drive", make_drive(60))
    out = folder / "folds.onnx"
    printed = io.StringIO()
    options = TrainOptions(
        [str(drive)],
        out,
        scorer="reconstruction",
        folds=2,
        thesis_folds=True,
        epochs=10,
        early_stopping_patience=1,
        tensorboard=folder / "logs",
        cache=folder / "cache",
    )
    with contextlib.redirect_stdout(printed):
        metadata = train(options)
    return out, metadata, printed.getvalue()


def test_both_ways_of_folding_are_reported(trained: tuple[Path, ModelMetadata, str]) -> None:
    out, metadata, printed = trained
    assert Detector(out).metadata.metrics == metadata.metrics
    validation = metadata.metrics["cross_validation"]
    assert len(validation["errors"]) == 2
    assert validation["mean"] == pytest.approx(np.mean(validation["errors"]))
    assert validation["deviation"] == pytest.approx(np.std(validation["errors"], ddof=1))
    thesis = metadata.metrics["thesis_folds"]
    assert len(thesis["errors"]) == 10
    assert thesis["held_out_error"] == pytest.approx(metadata.metrics["validation_loss"])
    # One network learns on and on; a fresh one each time would stay near the first error.
    assert thesis["errors"][-1] < 0.7 * thesis["errors"][0]
    assert "2 folds of consecutive frames, each trained afresh" in printed
    assert "the folds leak" in printed
    assert metadata.provenance["autoencoder"]["epochs"] == 10


def test_recipe_is_in_the_metadata(trained: tuple[Path, ModelMetadata, str]) -> None:
    provenance = Detector(trained[0]).metadata.provenance
    recipe = provenance["recipe"]
    assert recipe["folds"] == 2
    assert recipe["thesis_folds"] is True
    assert recipe["learning_rate"] == 1e-3
    assert recipe["augmentation"] == "none"
    assert provenance["options"] == {"data": ["drive"], "anomalies": [], "topic": None}


def test_tensorboard_logs(trained: tuple[Path, ModelMetadata, str]) -> None:
    import_keras()
    import tensorflow

    folder = trained[0].parent / "logs"
    runs = {path.name for path in folder.iterdir()}
    assert runs == {"fold_1", "fold_2", *(f"thesis_fold_{i}" for i in range(1, 11))}
    (file,) = (folder / "fold_1").iterdir()
    found: dict[str, list[int]] = {}
    for record in tensorflow.data.TFRecordDataset(str(file)):
        event = tensorflow.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(event.step)
            assert np.isfinite(tensorflow.make_ndarray(value.tensor))
    assert set(found) == {"loss", "val_loss", "learning_rate"}
    assert found["loss"] == list(range(1, len(found["loss"]) + 1))
