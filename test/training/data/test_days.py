"""Days of several drives: which there are, and thresholds from those that are held out in turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_scorer import SCORER

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.recordings.cache import CachedFrames
from training.config.options import TrainOptions
from training.data.days import MOST_DAYS, days_of
from training.data.frames import FrameSet
from training.fitting.run import TrainingResult, TrainingRun
from training.fitting.run_folder import RunFolder
from training.scorers import registry
from training.train import train

HOUR = 3600 * 10**9


def drives(*hours: float | None) -> FrameSet:
    """Return drives of three frames that begin at these hours; None for one without stamps."""
    images = np.zeros((3, 64, 64, 3), np.uint8)
    parts = []
    for hour in hours:
        stamps = (
            [None] * 3 if hour is None else [round((hour + i / 4) * HOUR) + 1 for i in range(3)]
        )
        parts.append(CachedFrames(Path("drive"), images, ["0", "1", "2"], stamps, []))
    return FrameSet(parts)


@pytest.mark.parametrize(
    ("hours", "days", "each"),
    [
        ([8], [], []),
        ([8, 9, 13], [], [[0], [1], [2]]),
        ([32, 8, 9, 33], [[1, 2], [0, 3]], [[1, 2], [0, 3]]),
        ([8, 32, None], [], [[0], [1], [2]]),
        ([None, None], [], [[0], [1]]),
        ([0, 24, 48, 72, 96, 120], [[0, 1], [2, 3], [4], [5]], [[0, 1], [2, 3], [4], [5]]),
    ],
)
def test_days_are_hours_apart(
    hours: list[float | None], days: list[list[int]], each: list[list[int]]
) -> None:
    frames = drives(*hours)
    assert days_of(frames, len(hours)) == days
    assert days_of(frames, len(hours), each=True) == each
    assert len(days) <= MOST_DAYS


def test_recordings_of_anomalies_are_no_day() -> None:
    assert days_of(drives(8, 32), 1) == []


def write_drive(folder: Path, brightness: int) -> str:
    folder.mkdir()
    noise = np.random.default_rng(brightness).integers(0, 20, (40, 64, 64, 3), np.uint8)
    for number, picture in enumerate(noise):
        # Each frame has a colour of its own: 40 different scores.
        cv2.imwrite(str(folder / f"{number:02}.png"), picture + np.uint8(brightness + number // 4))
    return str(folder)


def test_threshold_comes_from_days_that_are_held_out_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    registry.register(SCORER)
    data = [write_drive(tmp_path / name, level) for name, level in (("mon", 40), ("tue", 100))]
    options = TrainOptions(data, tmp_path / "days.onnx", scorer="colour", cache=tmp_path / "c")
    blocks = train(options)
    assert blocks.calibration.method == "split-conformal"
    assert "and no other day" in capsys.readouterr().out
    days = train(TrainOptions(**{**vars(options), "hold_out": "days"}))
    told = capsys.readouterr()
    assert "Holding out mon (1 of 2)" in told.err
    assert "The threshold covers other days as different as these are." in told.out
    assert days.calibration.method == "held-out-days"
    assert days.calibration.frames == 80
    # Each day's colour is 60 grey levels from the other's, and 30 from the mean of both.
    assert blocks.threshold == pytest.approx(35, abs=6)
    assert days.threshold == pytest.approx(65, abs=6)


def test_interrupted_training_without_a_day_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: TrainingRun, base: None) -> TrainingResult:
        result = SCORER.train(run, base)
        return replace(result, provenance={"colour": {"stopped_by": "interrupt"}})

    monkeypatch.setattr(registry, "_registered", {})
    registry.register(replace(SCORER, train=interrupted))
    data = [write_drive(tmp_path / name, level) for name, level in (("mon", 40), ("tue", 100))]
    out = tmp_path / "m.onnx"
    options = TrainOptions(data, out, scorer="colour", hold_out="days", cache=tmp_path / "c")
    with pytest.raises(AnomalyDetectorError, match=r"without mon was interrupted.*--resume"):
        train(options)
    assert not out.exists()


def test_trainings_of_one_run_have_checkpoints_of_their_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, resume=True)
    part = folder.part("without_1")
    own, other = (f.checkpoint("exposure") for f in (folder, part))
    assert other["resume"]
    assert own["checkpoint"] != other["checkpoint"]
    other["checkpoint"].touch()
    folder.remove_checkpoints()
    assert not other["checkpoint"].exists()
