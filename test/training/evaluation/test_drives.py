"""The benchmark of days takes the right frames and counts them right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_images
from model_files import write_grey_difference_model

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detector
from benchmarks.drives import STRESS_FAULTS, TWINS, has_twin, measure, tables
from benchmarks.places import Drive, read_drive
from benchmarks.unseen_faults import UNSEEN_FAULTS


def drive(folder: Path, levels: list[int], labels: list[str]) -> Drive:
    frames = [np.full((60, 80, 3), level, np.uint8) for level in levels]
    write_images(folder, frames)
    files = tuple(folder / f"frame_{index}.png" for index in range(len(frames)))
    return Drive("usi_track", "run1", files, tuple(labels), None)


def test_laps_of_the_donkeycar(tmp_path: Path) -> None:
    images = tmp_path / "donkeycar_track/images"
    images.mkdir(parents=True)
    for number in range(1000):
        (images / f"{number}_cam_image_array_.jpg").touch()
    first, second = (
        read_drive(tmp_path, "donkeycar_track", name, tmp_path) for name in ("lap1", "lap2")
    )
    numbers = [int(file.name.partition("_")[0]) for file in first.files]
    assert numbers == list(range(520))
    assert len(first.numbers()) == 520
    kept = [int(second.files[index].name.partition("_")[0]) for index in second.numbers()]
    assert kept == [*range(520, 844), *range(890, 1000)]


def test_drives_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match=r"run2 is not there: .* --shared"):
        read_drive(tmp_path, "usi_track", "run2", tmp_path)


@pytest.mark.parametrize(
    ("rate", "counts"), [(5.0, [100, 300, 500]), (8.0, [160, 480, 500]), (None, [83, 250, 500])]
)
def test_frames_of_the_first_seconds(rate: float | None, counts: list[int]) -> None:
    files = tuple(Path(f"{number}.jpg") for number in range(1000))
    own = Drive("usi_track", "run1", files, ("normal",) * 1000, rate)
    assert [own.frames_of(seconds) for seconds in (20, 60, 120)] == counts


def test_things_and_normal_frames_are_counted_apart(tmp_path: Path) -> None:
    # Scores are squared differences from 128: 10,000, then 0, 2,500, 0, 100, and 400 and 10,000.
    levels = [228, 128, 178, 128, 138, 255, 148, 28]
    labels = ["normal"] * 5 + ["", "hand", "hand"]
    own = drive(tmp_path / "frames", levels, labels)
    with Detector(write_grey_difference_model(tmp_path / "grey.onnx", threshold=1000)) as detector:
        result = measure(detector, own, 1, 3)
    assert result["normal_frames"] == 4
    assert result["normal_flagged"] == 0.25
    assert result["normal_median_score"] == 50
    assert result["things"] == {"hand": {"frames": 2, "roc_auc": 7 / 8, "recall": 0.5}}
    assert result["faults"] == {}


def test_faults_are_put_on_normal_frames(tmp_path: Path) -> None:
    own = drive(tmp_path / "frames", [255, 128, 128, 255, 128], ["", *["normal"] * 2, "", "normal"])
    with Detector(write_grey_difference_model(tmp_path / "grey.onnx", threshold=1000)) as detector:
        faults = measure(detector, own, 0, 2)["faults"]
    assert list(faults) == [fault.name for fault in (*STRESS_FAULTS, *UNSEEN_FAULTS)]
    known = {"family": "stress", "twin": True}
    assert faults["black"] == known | {"roc_auc": 1.0, "recall": 1.0}
    assert faults["blur_2"] == known | {"roc_auc": 0.5, "recall": 0.0}
    assert faults["negative"] == {"family": "unseen", "twin": False, "roc_auc": 1.0, "recall": 0.0}


def test_twins_are_faults_of_the_stress_test_alone() -> None:
    names = [fault.name for fault in STRESS_FAULTS]
    for prefix in (prefix for own in TWINS.values() for prefix in own):
        assert [name for name in names if name.startswith(prefix)], prefix
    assert not [fault.name for fault in UNSEEN_FAULTS if has_twin(fault.name, None)]
    without = {name for name in names if not has_twin(name, None)}
    others = {"cable_loop", "lens_drops", "cover_hand", "cover_tape", "torn_frame", "lost_blocks"}
    assert without == others
    assert not has_twin("object_6", "local")
    assert has_twin("object_6", "global")


def test_table_of_means() -> None:
    def row(seed: int, flagged: float, areas: tuple[float, float], recall: float) -> dict[str, Any]:
        faults = {
            name: {"family": family, "twin": twin, "roc_auc": area, "recall": recall}
            for name, family, twin, area in (
                ("dark", "stress", True, areas[0]),
                ("lens_drops", "stress", False, areas[1]),
                ("rain", "unseen", False, 0.9),
            )
        }
        own = {"place": "usi_track", "train": ["run1"], "variant": "v", "test_frames": 9}
        own |= {"way": "calibrate", "seconds": 60, "seed": seed, "things": {}}
        return own | {"normal_flagged": flagged, "faults": faults}

    lines = list(tables([row(0, 0.1, (1.0, 0.5), 0.2), row(1, 0.2, (0.6, 0.7), 0.4)]))
    cells = "15.0% | 0.700 | 0.550 (lens_drops) | 0.300 | 0.900 | 0.900 (rain) | 0.300"
    assert f"| usi_track | calibrate 60 s | 2 | {cells} | 0.800 | 0.750 |" in lines
    assert f"| all places | calibrate 60 s | 2 | {cells} | 0.800 | 0.750 |" in lines
