"""Outputs appear whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory, atomic_path


def test_file_replaces_the_old_one_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "scores.csv"
    with atomic_path(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    with atomic_path(target) as temporary:
        temporary.write_text("second")
        assert target.read_text() == "first"
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


def fail_halfway(write: Callable[[Path], AbstractContextManager[Path]], target: Path) -> None:
    with write(target) as temporary:
        file = temporary / "frame.png" if temporary.is_dir() else temporary
        file.write_text("half")
        raise RuntimeError("on purpose")


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "scores.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="on purpose"):
        fail_halfway(atomic_path, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "drive"
    with pytest.raises(RuntimeError, match="on purpose"):
        fail_halfway(atomic_directory, target)
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(target) as temporary:
        (temporary / "frame.png").write_text("whole")
    assert [file.name for file in target.iterdir()] == ["frame.png"]


def test_folder_with_contents_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "mine.txt").write_text("keep")
    with (
        pytest.raises(AnomalyDetectorError, match="not empty"),
        atomic_directory(tmp_path / "drive"),
    ):
        pass
    assert (tmp_path / "drive" / "mine.txt").read_text() == "keep"


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(AnomalyDetectorError, match="cannot be made"),
        atomic_path(tmp_path / "file" / "scores.csv"),
    ):
        pass
