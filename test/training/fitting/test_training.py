"""Training and export: the split, both scorers, parity with Keras, and what interrupts leave."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    add_box,
    make_drive,
    options_for,
    preprocessed,
    read_rows,
    write_bag,
    write_images,
)
from model_files import write_grey_difference_model
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.model.detector import Detector
from training.cli.main import main
from training.data.frames import open_frame_set, split_anomalies, split_blocks
from training.export.convert import convert, write_detector
from training.fitting.run import TrainingResult
from training.networks.autoencoders import build_autoencoder
from training.networks.backend import seed_everything
from training.scorers.outlier_exposure.training import validation_frames
from training.scorers.reconstruction import reconstruction_scorer
from training.scorers.registry import find_scorer
from training.train import choose_threshold, export_trained, prepare, train

ROOT = Path(__file__).parents[3]


def test_blocks_are_consecutive_and_apart_from_the_training_frames() -> None:
    split = split_blocks([500, 300], [10, 4])
    np.testing.assert_array_equal(split.validation, split.calibration)
    assert len(split.calibration) == 160
    assert 4 <= len(runs(split.calibration)) <= 10
    assert all(len(run) >= 12 for run in runs(split.calibration))
    assert split.gaps == [10, 4]
    for (start, end), gap in zip([(0, 500), (500, 800)], split.gaps, strict=True):
        train_part = split.train[(split.train >= start) & (split.train < end)]
        held_part = split.calibration[(split.calibration >= start) & (split.calibration < end)]
        assert np.abs(train_part[:, np.newaxis] - held_part).min() == gap + 1


def runs(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)


@pytest.mark.parametrize("seed", range(20))
def test_the_epoch_is_chosen_on_other_frames_than_those_of_the_threshold(seed: int) -> None:
    split = split_blocks([500, 30, 1000], [10, 10, 30], seed=seed, choose_epoch=True)
    assert split.gaps == [10, 1, 20]  # at most half a block
    assert (len(split.validation), len(split.calibration)) == (40 + 3 + 80, 60 + 3 + 120)
    parts = (split.train, split.validation, split.calibration)
    for start, end, gap in ((0, 500, 10), (500, 530, 1), (530, 1530, 20)):
        own = [part[(part >= start) & (part < end)] for part in parts]
        for index, part in enumerate(own):
            for other in own[:index]:
                assert np.abs(part[:, np.newaxis] - other).min() > gap


def test_split_of_short_drives_and_of_a_too_short_one() -> None:
    split = split_blocks([30], [10])
    assert len(split.calibration) == 6
    assert len(split.train) >= 18
    with pytest.raises(SourceError, match="has 3 frames, too few"):
        split_blocks([3], [10])
    # Beside a longer one it is trained on.
    split = split_blocks([3, 30, 4], [10, 10, 10])
    assert {0, 1, 2, 33, 34, 35, 36} < set(split.train.tolist())
    assert len(split.calibration) == 6
    split = split_blocks([5], [10], choose_epoch=True)
    assert [len(part) for part in (split.train, split.validation, split.calibration)] == [3, 1, 1]


def test_anomalies_are_held_out_however_short_their_events_are() -> None:
    split = split_anomalies([100, 2], [5, 5], 0.2)
    assert len(split.validation) == 20
    assert {100, 101} < set(split.train.tolist())
    split = split_anomalies([4, 3, 2, 1, 4, 4], [5] * 6, 0.2)
    assert split.validation.tolist() == [10, 11, 12, 13]  # the fifth event
    assert split.train.tolist() == [*range(10), *range(14, 18)]
    split = split_anomalies([3], [5], 0.2)
    assert (split.train.tolist(), split.validation.tolist()) == ([0, 1], [2])
    split = split_anomalies([1], [5], 0.2)
    assert (split.train.tolist(), split.validation.tolist()) == ([0], [0])


def test_the_gap_is_a_second_where_there_are_stamps(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", make_drive(30))  # 20 Hz
    frames = open_frame_set([str(bag)], cache=tmp_path / "cache", progress=False)
    assert frames.gaps == [20]


def test_the_gap_without_stamps_is_where_frames_are_no_longer_alike(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    places = generator.integers(0, 256, (30, 64, 64, 3), np.uint8)
    mixed = [
        np.asarray(places[i] * (1 - t) + places[i + 1] * t, np.uint8)
        for i in range(29)
        for t in np.arange(6) / 6
    ]
    for name, pictures in (
        ("unlike", list(places)),
        ("slow", mixed),
        ("standing", [places[0]] * 9),
    ):
        write_images(tmp_path / name, pictures)
    frames = open_frame_set(
        [str(tmp_path / name) for name in ("unlike", "slow", "standing")],
        cache=tmp_path / "cache",
        progress=False,
    )
    unlike, slow, standing = frames.gaps
    assert unlike == 1
    assert 4 <= slow <= 7
    assert standing == 1


def test_a_threshold_from_too_few_frames_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    scores = np.random.default_rng(0).permutation(400).astype(np.float32)
    assert choose_threshold(scores, None, 0.01)[0] < 399
    assert choose_threshold(scores[:12], 7.0, 0.01)[0] == 7.0
    assert capsys.readouterr().err == ""
    threshold, calibration = choose_threshold(scores[:12], None, 0.01)
    assert threshold > scores[:12].max()
    assert capsys.readouterr().err.startswith(
        f"warning: {calibration.effective_frames} independent frames are too few for a "
        "false-alarm rate of 0.01, which takes 99"
    )


def test_validation_of_the_default_scorer_is_from_all_recordings_and_blocks() -> None:
    split = split_blocks([5000] * 3, [20] * 3)
    numbers = validation_frames(split)
    assert len(numbers) == 384
    blocks = runs(split.validation)
    assert len(blocks) == 15
    for block in blocks:
        assert np.isin(numbers, block).sum() >= 20
    # Of few frames each is taken equally often.
    few = validation_frames(split_blocks([100], [20]))
    counts = np.unique(few, return_counts=True)[1]
    assert (len(few), len(counts), counts.max() - counts.min()) == (384, 20, 1)


def test_trained_model_finds_the_box(trained_model: Path) -> None:
    detector = Detector(trained_model)
    normal = make_drive(30, seed=2)
    normal_scores = detector.score_batch(preprocessed(normal)).score
    box_scores, _, maps = detector.score_batch(preprocessed([add_box(frame) for frame in normal]))
    assert np.median(box_scores) > np.quantile(normal_scores, 0.9)
    # The error is largest in the box, rows 28..53 and columns 26..45 after resizing.
    assert maps.mean(axis=0)[28:53, 26:45].mean() > 2 * maps.mean(axis=0)[:20].mean()


def test_metadata_tells_how_the_model_was_made(trained_model: Path) -> None:
    metadata = Detector(trained_model).metadata
    assert (metadata.name, metadata.architecture, metadata.scorer) == (
        "tiny",
        "v5",
        "reconstruction",
    )
    assert metadata.calibration.method == "split-conformal"
    assert metadata.calibration.frames == 12
    frames = metadata.provenance["frames"]
    assert (frames["recorded"], frames["validation"], frames["calibration"]) == (120, 12, 12)
    (gap,) = metadata.provenance["gaps"]
    assert (gap["basis"], gap["seconds"]) == ("autocorrelation", None)
    assert 1 <= gap["frames"] <= 6
    assert frames["train"] < 120 - 24
    assert metadata.provenance["autoencoder"]["epochs"] == 3
    assert metadata.provenance["options"]["data"] == ["drive"]
    assert metadata.metrics["validation_loss"] > 0


def test_history_is_saved(trained_model: Path) -> None:
    rows = read_rows(trained_model.with_suffix(".history.csv"))
    losses = [float(r["value"]) for r in rows if r["quantity"] == "val_loss"]
    assert len(losses) == 3
    assert min(losses) == pytest.approx(
        Detector(trained_model).metadata.metrics["validation_loss"], rel=1e-6
    )


def test_same_seed_gives_the_same_model(trained_model: Path, normal_drive: Path) -> None:
    folder = trained_model.parent
    images = preprocessed(make_drive(4, seed=5))
    scores = []
    for seed in (0, 1):
        out = folder / f"seed_{seed}.onnx"
        train(options_for(normal_drive, out, scorer="reconstruction", epochs=3, seed=seed))
        scores.append(Detector(out).score_batch(images)[0])
    expected = Detector(trained_model).score_batch(images)[0]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-3)
    assert not np.allclose(scores[1], expected, rtol=1e-3)


def test_mlp_is_trained_on_anomalies(
    trained_model: Path,
    normal_drive: Path,
    anomalous_drive: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = trained_model.parent / "mlp.onnx"
    code = main(
        [
            *("train", "--data", str(normal_drive), "--anomalies", str(anomalous_drive)),
            *("--scorer", "mlp-thesis", "--out", str(out), "--epochs", "2", "--mlp-epochs", "30"),
            *("--cache", str(trained_model.parent / "cache")),
        ]
    )
    assert code == 0
    assert "v5 + mlp-thesis, threshold 0.5 (fixed" in capsys.readouterr().out
    detector = Detector(out)
    assert detector.metadata.metrics["validation_accuracy"] > 0.8
    normal = make_drive(20, seed=2)
    scores, _, maps = detector.score_batch(
        preprocessed(normal + [add_box(frame) for frame in normal])
    )
    assert scores[20:].mean() > scores[:20].mean() + 0.2
    assert maps.shape == (40, 8, 8)


@pytest.fixture(scope="module")
def autoencoder(normal_drive: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    from training.scorers.autoencoder import train_autoencoder

    out = tmp_path_factory.mktemp("base") / "base.onnx"
    return train_autoencoder(
        prepare(options_for(normal_drive, out, scorer="reconstruction", epochs=1))
    )


@pytest.mark.parametrize("frames", [1, 3])
def test_mlp_is_trained_on_an_event_of_few_frames(
    normal_drive: Path, autoencoder: TrainingResult, frames: int, tmp_path: Path
) -> None:
    pictures = [add_box(frame) for frame in make_drive(frames, seed=1)]
    anomalies = write_images(tmp_path / "event", pictures)
    options = options_for(
        normal_drive, tmp_path / "mlp.onnx",
        scorer="mlp-thesis", anomalies=[str(anomalies)], epochs=1, mlp_epochs=2,
    )  # fmt: skip
    run = prepare(options)
    metadata = export_trained(run, find_scorer("mlp-thesis").train(run, autoencoder))
    assert metadata.provenance["frames"]["anomalies"] == frames
    assert Detector(options.out).metadata.scorer == "mlp-thesis"


def test_model_that_differs_from_keras_is_not_written(tmp_path: Path) -> None:
    import onnx

    seed_everything(0)
    autoencoder = build_autoencoder("v5")
    scorer = reconstruction_scorer(autoencoder)
    model = convert(scorer)
    weights = max(model.graph.initializer, key=lambda item: len(item.raw_data))
    values = onnx.numpy_helper.to_array(weights) * np.float32(1.5)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    images = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), np.uint8)
    metadata = Detector(write_grey_difference_model(tmp_path / "grey.onnx")).metadata
    with pytest.raises(AnomalyDetectorError, match="not written: ONNX Runtime and Keras differ"):
        write_detector(model, metadata, tmp_path / "new.onnx", scorer=scorer, images=images)
    assert [file.name for file in tmp_path.iterdir()] == ["grey.onnx"]


def test_wrong_recordings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "models" / "model.onnx"
    assert main(["train", "--data", str(tmp_path / "no"), "--out", str(out)]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert not out.exists()


def test_ctrl_c_keeps_the_best_model_so_far(tmp_path: Path) -> None:
    drive = write_images(tmp_path / "drive", make_drive(60))
    out = tmp_path / "model.onnx"
    command = [sys.executable, "-m", "training", "train", "--data", str(drive), "--out", str(out)]
    # So small a rate that it improves in every epoch and never stops early.
    command += ["--epochs", "100000", "--learning-rate", "1e-6", "--cache", str(tmp_path / "c")]
    command += ["--scorer", "reconstruction"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        deadline = time.monotonic() + 120
        seen = ""
        while "validation" not in seen and time.monotonic() < deadline:
            seen += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, rest
    assert "Interrupted: keeping the best model so far" in rest
    assert Detector(out).metadata.provenance["autoencoder"]["stopped_by"] == "interrupt"


def test_normal_frames_of_a_labelled_drive_are_no_anomalies(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "hazards", make_drive(6))
    rows = "\n".join(f"frame_{index}.png,{int(index in (2, 4))}" for index in range(6))
    (folder / "labels.csv").write_text(f"frame,label\n{rows}\n")
    anomalies = open_frame_set(
        [str(folder)], anomalous=True, cache=tmp_path / "cache", progress=False
    )
    assert list(anomalies.parts[0].names) == ["frame_2.png", "frame_4.png"]
    (folder / "labels.csv").write_text(f"frame,label\n{rows.replace(',1', ',0')}\n")
    with pytest.raises(SourceError, match="labels every frame as normal"):
        open_frame_set([str(folder)], anomalous=True, cache=tmp_path / "cache", progress=False)
