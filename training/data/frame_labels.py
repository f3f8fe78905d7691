"""Label tables: CSV files that say for every frame what it shows."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import SourceError

_FILE_COLUMNS = ("file", "filename", "file_name", "frame", "frame_name", "image", "image_name")
_NUMBER_COLUMNS = ("frame_id", "frame_number")
_BY_ORDER = ", rows taken in the order of the file names"


@dataclass(frozen=True)
class LabelTable:
    """The rows of one metadata file.

    Attributes:
        path: the file.
        labels: N label cells as they stand, numbers or class names.
        difficulty: N cells; None without the column.
        files: N file names; None without such a column.
        numbers: N frame numbers; None without such a column.
    """

    path: Path
    labels: list[str]
    difficulty: list[str] | None
    files: list[str] | None
    numbers: list[str] | None

    def __len__(self) -> int:
        return len(self.labels)

    def align(
        self, files: Sequence[Path], names: Mapping[int, str], notes: list[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Return the label and difficulty of each frame.

        Rows find their frames by file name or frame number where the table has them, and else
        stand in the order of the file names, as the authors' code takes them.

        Args:
            files: N image files in natural order.
            names: class of every label, for tables that give names instead of numbers.
            notes: lines are added when rows could not be told to frames by name or number.

        Returns:
            Labels, int64 [N], and difficulty, int64 [N] or None.

        Raises:
            SourceError: not as many rows as frames, frames without a row, or a cell that is
                neither a number nor a class.
        """
        if len(self) != len(files):
            raise SourceError(
                f"{self.path} has {len(self)} labels but {files[0].parent} has {len(files)} "
                "frames: is everything extracted, from one release?"
            )
        order = self._order(files, notes)
        by_name = {name.lower(): label for label, name in names.items()}
        labels = [self._number(row, self.labels[row], by_name) for row in order]
        if min(labels) < 0:
            raise SourceError(f"{self.path} has the label {min(labels)}: labels start at 0")
        difficulty = None
        if self.difficulty is not None:
            cells = self.difficulty
            levels = [self._number(row, cells[row] or "0", {}) for row in order]
            difficulty = np.array(levels, np.int64)
        return np.array(labels, np.int64), difficulty

    def _order(self, files: Sequence[Path], notes: list[str]) -> list[int]:
        """Return for every frame the row that it has."""
        if self.files is not None:
            rows = {Path(name.replace("\\", "/")).stem: i for i, name in enumerate(self.files)}
            missing = [file.name for file in files if file.stem not in rows]
            if not missing:
                return [rows[file.stem] for file in files]
            if len(missing) < len(files):
                raise SourceError(
                    f"{self.path} has no row for {len(missing)} frames, {missing[0]} the first: "
                    "is it the metadata of this release?"
                )
            notes.append(f"{self.path.name}: its file names are not those of the frames{_BY_ORDER}")
        elif self.numbers is not None:
            by_number = {number: row for row, number in enumerate(map(_leading, self.numbers))}
            wanted = [_leading(file.name) for file in files]
            if None not in wanted and set(wanted) == set(by_number) and len(by_number) == len(self):
                return [by_number[number] for number in wanted]
            notes.append(f"{self.path.name}: its numbers are not those of the frames{_BY_ORDER}")
        if sorted(file.name for file in files) != [file.name for file in files]:
            notes.append(f"{self.path.name}: frames taken as 2 before 10, not as 10 before 2")
        return list(range(len(files)))

    def _number(self, row: int, cell: str, by_name: Mapping[str, int]) -> int:
        if cell.lower() in by_name:
            return by_name[cell.lower()]
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        # A column that pandas wrote may hold 3 as 3.0.
        if not value.is_integer():
            raise SourceError(
                f"{self.path} has {cell!r} in row {row + 2}, which is no label: correct the row"
            )
        return int(value)


def read_label_table(path: Path) -> LabelTable | None:
    """Read a metadata file.

    Args:
        path: a CSV file with a header line, separated by commas, semicolons or tabs.

    Returns:
        Its rows; None when it has no column ``label``.

    Raises:
        SourceError: it cannot be read, or its rows are of different lengths.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            separator = max(",;\t", key=first.count)
            lines = csv.reader(stream, delimiter=separator)
            header = [cell.strip().lower() for cell in next(lines, [])]
            if "label" not in header:
                return None
            # Only these: other columns may be hundreds, of features.
            wanted = [*_FILE_COLUMNS, *_NUMBER_COLUMNS, "label", "difficulty"]
            columns: dict[str, list[str]] = {name: [] for name in wanted if name in header}
            places = [(header.index(name), cells) for name, cells in columns.items()]
            for row, line in enumerate(filter(None, lines), 2):
                if len(line) != len(header):
                    raise SourceError(
                        f"{path} has {len(line)} cells instead of {len(header)} in row {row}: "
                        "download it again"
                    )
                for place, cells in places:
                    cells.append(line[place].strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read ({error}): download it again") from error

    def first_of(names: Sequence[str]) -> list[str] | None:
        return next((columns[name] for name in names if name in columns), None)

    files, numbers = first_of(_FILE_COLUMNS), first_of(_NUMBER_COLUMNS)
    if files is not None and all(cell.isdigit() for cell in files):
        files, numbers = None, files
    return LabelTable(path, columns["label"], columns.get("difficulty"), files, numbers)


def read_label_names(path: Path) -> dict[int, str]:
    """Read the names of the labels.

    Args:
        path: a JSON object of names and numbers, either way round.

    Returns:
        Label to class name; 0 is always ``normal``.

    Raises:
        SourceError: it cannot be read, or gives normal frames another number than 0.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        pairs = [
            (int(value), str(key)) if not str(key).isdigit() else (int(key), str(value))
            for key, value in content.items()
        ]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path} is no JSON object of label names and numbers: download it again"
        ) from error
    names = dict(pairs)
    if names.setdefault(0, "normal").lower() not in ("normal", "ok", "no anomaly", "no_anomaly"):
        raise SourceError(
            f"{path} calls label 0 {names[0]!r}, but 0 stands for normal frames: "
            "correct it or remove the file"
        )
    names[0] = "normal"
    return dict(sorted(names.items()))


def _leading(name: str) -> int | None:
    digits = re.match(r"\d+", name)
    return int(digits[0]) if digits else None
