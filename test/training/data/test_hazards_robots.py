"""The Hazards&Robots loader, on small copies of the layouts of its releases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import read_rows
from model_files import write_grey_difference_model
from numpy.typing import NDArray

from anomaly_detector.errors import SourceError
from anomaly_detector.recordings.cache import cache_frames
from training.cli.main import main
from training.data.corridor import CorridorDrive
from training.data.frames import open_frame_set
from training.data.hazards_robots.loader import (
    describe,
    load_hazards_robots,
    open_labelled,
)
from training.data.labels import HAZARDS_AND_ROBOTS_CLASSES

MIXED_LABELS = [0, 0, 7, 7, 9, 0, 2, 2]
MIXED_DIFFICULTY = [0, 0, 1, 2, 2, 0, 2, 2]
TEST_LABELS = [0, 1, 0, 0, 19, 7]
TEST_DIFFICULTY = [0, 1, 0, 0, 2, 2]
FRAMES = {"training_set": 10, "training_mixed_set": 8, "validation_set": 4, "test_set": 6}


@pytest.fixture(scope="session")
def corridor_frames() -> list[NDArray[np.uint8]]:
    """Ten frames of a synthetic corridor, uint8 [64, 64, 3] BGR."""
    drive = CorridorDrive(10, 3, width=64, height=64)
    return [np.ascontiguousarray(frame.image[..., ::-1]) for frame in drive]


@pytest.fixture(scope="session")
def splits_once(
    tmp_path_factory: pytest.TempPathFactory, corridor_frames: list[NDArray[np.uint8]]
) -> Path:
    """The four folders of frames, without metadata."""
    root = tmp_path_factory.mktemp("splits")
    first = 700
    for split, count in FRAMES.items():
        (root / split).mkdir()
        for index in range(count):
            path = root / split / f"{first + index:06d}_512_512.jpg"
            assert cv2.imwrite(str(path), corridor_frames[index])
        first += 100
    return root


@pytest.fixture
def release_2022(splits_once: Path, tmp_path: Path) -> Path:
    """Folders and CSV files named as in the authors' code, labels in file-name order."""
    root = tmp_path / "hazards"
    shutil.copytree(splits_once, root)
    (root / "training_set").rename(root / "train_set")
    (root / "training_mixed_set").rename(root / "outliers_set")
    metadata = root / "metadata"
    metadata.mkdir()
    write_csv(metadata / "frames_labels.csv", "label,difficulty", TEST_LABELS, TEST_DIFFICULTY)
    write_csv(
        metadata / "outliers_frames_labels.csv", "label,difficulty", MIXED_LABELS, MIXED_DIFFICULTY
    )
    (metadata / "train_frames_envs.csv").write_text("env\n" + "1long\n" * FRAMES["training_set"])
    return root


@pytest.fixture
def release_2023(splits_once: Path, tmp_path: Path) -> Path:
    """Archives each in a folder of its own, frame numbers, and class numbers of another order."""
    root = tmp_path / "hazards"
    for split in FRAMES:
        inner = "unlabeled_set" if split == "training_mixed_set" else split
        shutil.copytree(splits_once / split, root / split / inner)
    metadata = root / "metadata" / "metadata"
    metadata.mkdir(parents=True)
    mapping = {"normal": 0, "box": 1, "cable": 2, "human": 8, "obj_on_robot2": 20}
    (metadata / "labels_mapping.txt").write_text(json.dumps(mapping))
    numbers = list(range(800, 808))
    # Not in the order of the file names: the numbers tell.
    rows = list(zip(numbers, [0, 0, 8, 8, 1, 0, 2, 20], strict=True))[::-1]
    lines = [f"{number},corridor,{label}" for number, label in rows]
    (metadata / "training_mixed_frames_labels.csv").write_text(
        "\n".join(["frame_id,place,label", *lines])
    )
    write_csv(metadata / "test_frames_labels.csv", "label", [0, 1, 0, 0, 20, 8])
    return root


def write_csv(path: Path, header: str, *columns: Sequence[object]) -> None:
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n")


def column(root: Path, split: str, name: str = "labels") -> list[int]:
    found = getattr(load_hazards_robots(root).splits[split], name)
    return [int(value) for value in found]


def test_release_of_2022(release_2022: Path) -> None:
    dataset = load_hazards_robots(release_2022)
    assert {split: len(f.files) for split, f in dataset.splits.items()} == FRAMES
    assert column(release_2022, "test_set") == TEST_LABELS
    assert column(release_2022, "test_set", "difficulty") == TEST_DIFFICULTY
    assert column(release_2022, "training_mixed_set") == MIXED_LABELS
    assert column(release_2022, "training_mixed_set", "difficulty") == MIXED_DIFFICULTY
    assert dataset.splits["training_set"].labels is None
    assert dataset.splits["test_set"].files[0].name == "001000_512_512.jpg"
    assert dataset.name_of(7) == "human"
    assert [path.name for path in dataset.metadata_files] == [
        "outliers_frames_labels.csv",
        "frames_labels.csv",
    ]


def test_release_of_2023(release_2023: Path) -> None:
    dataset = load_hazards_robots(release_2023)
    assert {split: len(f.files) for split, f in dataset.splits.items()} == FRAMES
    assert column(release_2023, "training_mixed_set") == [0, 0, 8, 8, 1, 0, 2, 20]
    assert dataset.name_of(1) == "box"
    assert dataset.name_of(20) == "obj_on_robot2"
    assert dataset.splits["test_set"].difficulty is None
    assert dataset.splits["training_mixed_set"].folder.name == "unlabeled_set"


def test_description_explains_what_was_found(release_2022: Path) -> None:
    text = describe(load_hazards_robots(release_2022))
    assert "training_set              10       ?          ?  train_set\n" in text
    assert "training_mixed_set         8       3          5  outliers_set\n" in text
    assert "    7 human                  2  difficulty 1: 1, 2: 1\n" in text
    assert "note: training_mixed_set: taken from folder outliers_set\n" in text
    assert "note: metadata/train_frames_envs.csv: no label column, not used\n" in text
    assert "note: metadata/frames_labels.csv: names no split, taken for test_set\n" in text
    assert "no labels_mapping.txt found" in text
    assert "training_set: no labels needed, its frames are all normal" in text


def test_verb_prints_the_description(
    release_2023: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect-hazards-robots", str(release_2023)]) == 0
    assert capsys.readouterr().out == describe(load_hazards_robots(release_2023)) + "\n"


def test_too_few_labels_tell_both_numbers(release_2022: Path) -> None:
    path = release_2022 / "metadata" / "outliers_frames_labels.csv"
    write_csv(path, "label", MIXED_LABELS[:-1])
    with pytest.raises(SourceError, match=r"has 7 labels but .*outliers_set has 8 frames"):
        load_hazards_robots(release_2022)


def test_labels_that_fit_no_split_tell_all_numbers(release_2022: Path) -> None:
    write_csv(release_2022 / "metadata" / "frames_labels.csv", "label", [0] * 7)
    expected = "7 labels and fits no split .test_set has 6 frames, validation_set has 4 frames"
    with pytest.raises(SourceError, match=expected):
        load_hazards_robots(release_2022)


def test_a_folder_without_splits_tells_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "holidays").mkdir()
    expected = r"looked 3 levels deep for folders training_set, .* found holidays"
    with pytest.raises(SourceError, match=expected):
        load_hazards_robots(tmp_path)
    with pytest.raises(SourceError, match="is no folder"):
        load_hazards_robots(tmp_path / "missing")


def test_two_releases_in_one_folder_are_refused(splits_once: Path, tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        shutil.copytree(splits_once / "test_set", tmp_path / name / "test_set")
    with pytest.raises(SourceError, match=r"2 folders for test_set \(v1/test_set, v2/test_set"):
        load_hazards_robots(tmp_path)


def test_frames_in_several_folders_of_a_split_are_refused(
    splits_once: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        shutil.copytree(splits_once / "test_set", tmp_path / "test_set" / name)
    with pytest.raises(SourceError, match=r"images in 2 folders \(test_set/a, test_set/b"):
        load_hazards_robots(tmp_path)


def test_the_whole_may_lie_in_a_folder_with_a_split_name(splits_once: Path, tmp_path: Path) -> None:
    root = tmp_path / "training"
    shutil.copytree(splits_once, root)
    (root / "training_set").rename(root / "no_training_frames")
    assert list(load_hazards_robots(root).splits) == [
        "training_mixed_set",
        "validation_set",
        "test_set",
    ]


def test_an_empty_split_folder_is_noted(release_2022: Path) -> None:
    shutil.rmtree(release_2022 / "validation_set")
    (release_2022 / "validation_set").mkdir()
    dataset = load_hazards_robots(release_2022)
    assert "validation_set" not in dataset.splits
    assert "validation_set: folder validation_set holds no image" in dataset.notes
    assert "validation_set: no folder found" in dataset.notes


def test_file_names_tell_rows_whatever_their_order(release_2022: Path) -> None:
    path = release_2022 / "metadata" / "frames_labels.csv"
    names = [f"test_set/{1000 + i:06d}_512_512.jpg" for i in range(6)]
    write_csv(path, "filename,label", names[::-1], TEST_LABELS[::-1])
    assert column(release_2022, "test_set") == TEST_LABELS
    names[2] = "test_set/999999_512_512.jpg"
    write_csv(path, "filename,label", names, TEST_LABELS)
    with pytest.raises(SourceError, match=r"no row for 1 frames, 001002_512_512\.jpg the first"):
        load_hazards_robots(release_2022)


@pytest.mark.parametrize(
    ("header", "cells"),
    [("frame_id,label", range(6)), ("frame_id,label", [5] * 6), ("image,label", "abcdef")],
)
def test_foreign_numbers_and_names_fall_back_to_the_order(
    header: str, cells: Sequence[object], release_2022: Path
) -> None:
    write_csv(release_2022 / "metadata" / "frames_labels.csv", header, cells, TEST_LABELS)
    assert column(release_2022, "test_set") == TEST_LABELS
    notes = " ".join(load_hazards_robots(release_2022).notes)
    assert "rows taken in the order of the file names" in notes


def test_cells_as_other_programs_write_them(release_2022: Path) -> None:
    path = release_2022 / "metadata" / "frames_labels.csv"
    cells = ["0", " 1.0", "normal", "Normal", "19", "Human"]
    levels = ["", "1", "", "", "2.0", "2"]
    rows = [f"{label};{level}" for label, level in zip(cells, levels, strict=True)]
    path.write_bytes("\ufeffLabel;Difficulty\r\n".encode() + "\r\n".join(rows).encode())
    assert column(release_2022, "test_set") == TEST_LABELS
    assert column(release_2022, "test_set", "difficulty") == TEST_DIFFICULTY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\n0\n0\n0\nfoo\n0\n0\n", "line 5: label is 'foo', not a whole number"),
        ("label\n0\n0\n0\n1.5\n0\n0\n", "line 5: label is '1.5', not a whole number"),
        ("label\n0\n0\n0\n-1\n0\n0\n", "the label -1: labels start at 0"),
        ("label,x\n0,0\n0\n", "line 3: 1 cells instead of 2"),
        ("label\n\udcff\n", "no CSV text file"),
    ],
)
def test_cells_that_are_no_label_are_named(text: str, message: str, release_2022: Path) -> None:
    path = release_2022 / "metadata" / "frames_labels.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SourceError, match=message):
        load_hazards_robots(release_2022)


def test_two_tables_for_a_split(release_2023: Path) -> None:
    metadata = release_2023 / "metadata"
    write_csv(metadata / "test_recordings.csv", "recording,label", [1, 2], [0, 1])
    dataset = load_hazards_robots(release_2023)
    assert "metadata/test_recordings.csv: left aside for test_set" in dataset.notes
    write_csv(metadata / "test_frames_labels.csv", "label", [0] * 6)
    with pytest.raises(SourceError, match=r"test_set in .* has 2 metadata files"):
        load_hazards_robots(release_2023)


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": "b"}', '{"box": 0, "normal": 1}'])
def test_label_names_that_cannot_be_used(text: str, release_2023: Path) -> None:
    (release_2023 / "metadata" / "metadata" / "labels_mapping.txt").write_text(text)
    with pytest.raises(SourceError, match=r"labels_mapping\.txt (is no JSON|calls label 0 'box')"):
        load_hazards_robots(release_2023)


def test_selections_of_a_split(release_2022: Path) -> None:
    test = f"{release_2022}#test_set"
    everything = open_labelled(test)
    assert everything.labels is not None
    assert everything.labels.tolist() == TEST_LABELS
    assert len(open_labelled(f"{test}:normal")) == 3
    anomalous = open_labelled(f"{test}:anomalous")
    assert anomalous.labels is not None
    assert anomalous.labels.tolist() == [1, 19, 7]
    assert [file.name[:6] for file in open_labelled(f"{test}:human").files] == ["001005"]
    assert len(open_labelled(f"{release_2022}#training_set:normal")) == 10
    assert open_labelled(f"{release_2022}#training_set").labels is None


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("", "has several splits: choose one of .*#training_set, .*#test_set"),
        ("#nonsense", "has no split 'nonsense': choose one of"),
        ("#test_set:dragon", "no class 'dragon': choose all, normal, anomalous or one of normal"),
        ("#test_set:foam", "no frame that is 'foam'"),
        ("#training_set:anomalous", "has no labels to choose 'anomalous' by"),
    ],
)
def test_selections_that_cannot_be_made(rest: str, message: str, release_2022: Path) -> None:
    with pytest.raises(SourceError, match=message):
        open_labelled(f"{release_2022}{rest}")


def test_a_selection_has_a_cache_entry_of_its_own(release_2022: Path, tmp_path: Path) -> None:
    for which in ("all", "normal", "anomalous"):
        source = open_labelled(f"{release_2022}#test_set:{which}")
        assert len(cache_frames(source, tmp_path / "cache", progress=False)) == len(source)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_parts_of_the_data_set_are_trained_on_and_evaluated(
    release_2022: Path, tmp_path: Path
) -> None:
    frames = open_frame_set([f"{release_2022}#training_set"], cache=tmp_path / "cache")
    assert frames.lengths == [FRAMES["training_set"]]
    model = write_grey_difference_model(tmp_path / "grey.onnx")
    out = tmp_path / "evaluation"
    arguments = ["--model", str(model), "--data", f"{release_2022}#test_set", "--out", str(out)]
    assert main(["evaluate", *arguments, "--bootstrap", "0"]) == 0
    rows = read_rows(out / "scores.csv")
    assert [int(row["label"]) for row in rows] == TEST_LABELS
    assert [row["class"] for row in rows] == [
        HAZARDS_AND_ROBOTS_CLASSES[label] for label in TEST_LABELS
    ]
