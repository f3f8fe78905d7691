"""Labels files: both layouts, and what is wrong with damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_detector.errors import SourceError
from training.data.labels import class_name, read_labels

CORRIDOR = (
    "frame,stamp_ns,label,hazard,distance_m,visible_fraction\n"
    "000000.jpg,1700000000000000000,0,normal,,0.00000\n"
    "000001.jpg,1700000000050000000,5,hanging_cable,3.2,0.01\n"
    "000002.jpg,1700000000100000000,2,cable,1.0,0.02\n"
)


def _write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_corridor_layout_by_file_name_in_any_order(tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path, CORRIDOR))
    numbers, classes = labels.for_frames(["000002.jpg", "000000.jpg"])
    assert numbers.tolist() == [2, 0]
    assert classes == ["cable", "normal"]
    # Nanoseconds since 1970 do not fit a float: they must come through to the last digit.
    assert labels.stamps_ns is not None
    assert labels.stamps_ns[1] == 1700000000050000000


def test_bag_frame_numbers_find_file_names(tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path, CORRIDOR))
    assert labels.for_frames(["000000", "000001"])[1] == ["normal", "hanging_cable"]


def test_layout_without_names_goes_by_order(tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path, "label,difficulty\n0,0\n7,2\n23,1\n"))
    numbers, classes = labels.for_frames(["a.jpg", "b.jpg", "c.jpg"])
    assert numbers.tolist() == [0, 7, 23]
    assert classes == ["normal", "human", "class 23"]
    assert labels.stamps_ns is None
    with pytest.raises(SourceError, match=r"labels 3 frames by order only, the recording has 2"):
        labels.for_frames(["a.jpg", "b.jpg"])


def test_index_column_of_pandas_and_byte_order_mark_are_ignored(tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path, "\ufeff,label\n0,1\n1,0\n"))
    assert labels.stems is None
    assert labels.classes == ("water", "normal")


def test_missing_frames_are_counted(tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path, CORRIDOR))
    with pytest.raises(SourceError, match=r"no row for frame 000007\.jpg and 1 others .* 000000"):
        labels.for_frames(["000001.jpg", "000007.jpg", "000008.jpg"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,hazard\na.jpg,\n", r"have no column 'label' but 'frame', 'hazard'"),
        ("", r"have no column 'label' but no header"),
        ("label\n", r"a header and no row"),
        ("label\n0\nwater\n", r"line 3: label is 'water', not a whole number"),
        ("label\n0\n1.5\n", r"line 3: label is '1\.5', not a whole number"),
        ("label\n0\n-1\n", r"line 3: label -1 is negative"),
        ("frame,label\na.jpg\n", r"line 2: 1 cells instead of 2"),
        ("frame,label\na.jpg,\n", r"line 2: label is '', not a whole number"),
        ("frame,label\na.jpg,0\na.png,1\n", r"line 3: frame a\.png stands on line 2 already"),
        ("frame,label\n,0\n", r"line 2: no frame name"),
        ("label,hazard\n1,water\n1,cable\n", r"line 3: label 1 is called 'cable' here and 'water'"),
        ("stamp_ns,label\nnow,0\n", r"line 2: stamp_ns is 'now', not a whole number"),
    ],
)
def test_damaged_files_say_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read_labels(_write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be read \(No such file"):
        read_labels(tmp_path / "missing.csv")
    picture = tmp_path / "picture.csv"
    picture.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(SourceError, match="are no CSV text file"):
        read_labels(picture)


def test_class_names_of_hazards_and_robots() -> None:
    names = [class_name(label) for label in (0, 1, 5, 19, 20)]
    assert names == ["normal", "water", "hanging cable", "clutter", "class 20"]
