"""Truth for the frames of a recording, from a CSV file.

Two layouts are read. The synthetic corridor writes one row per frame with its name::

    frame,stamp_ns,label,hazard,distance_m,visible_fraction
    000012.jpg,400000000,5,hanging_cable,3.2,1.0

and Hazards&Robots (Zenodo record 7074958) gives ``label`` (and ``difficulty``) per frame, in
file-name order, without a name. ``label`` is 0 for a normal frame and the number of the hazard
class otherwise. Other releases of Hazards&Robots name and order their rows in other ways: a
:class:`LabelTable` finds their frames itself.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import SourceError

NORMAL = "normal"
"""Class name of label 0."""

UNKNOWN = -1
"""Label of a frame that nobody labelled; its class name is empty."""

HAZARDS_AND_ROBOTS_CLASSES = (
    NORMAL,
    "water",
    "cable",
    "cellophane",
    "defects",
    "hanging cable",
    "floor",
    "human",
    "screws",
    "boxes",
    "door",
    "cones",
    "tape",
    "trolley",
    "debris",
    "misc",
    "shard",
    "sawdust",
    "foam",
    "clutter",
)
"""Label numbers of Hazards&Robots, in order; used for a file without class names."""

_NAME_COLUMNS = (
    *("frame", "frame_name", "filename", "file", "file_name", "image", "image_name", "name"),
)
_NUMBER_COLUMNS = ("frame_id", "frame_number")
_CLASS_COLUMNS = ("hazard", "class", "class_name")
_BY_ORDER = ", rows taken in the order of the file names"


@dataclass(frozen=True)
class FrameLabels:
    """The rows of a labels file.

    Attributes:
        path: the file, for messages.
        labels: int64 [rows], 0 for a normal frame.
        classes: class name of every row, ``normal`` for label 0.
        stems: frame name of every row without its suffix; None when the file gives the frames by
            order only.
        stamps_ns: time stamp of every row in nanoseconds; None when the file has no such column.
    """

    path: Path
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    stems: tuple[str, ...] | None = None
    stamps_ns: tuple[int, ...] | None = None
    _row_of: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._row_of.update((stem, row) for row, stem in enumerate(self.stems or ()))

    def __len__(self) -> int:
        return len(self.classes)

    def rows_for(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of every frame.

        Args:
            names: frame names. A file that names its frames is searched for each name without
                its suffix, so that ``000012``, the 13th frame of a bag, finds ``000012.jpg``.
                A file without names needs the names of all frames of the recording, in order.

        Returns:
            int64 [len(names)].

        Raises:
            SourceError: a frame has no row, or the number of frames differs from that of rows.
        """
        if self.stems is None:
            if len(names) != len(self):
                raise SourceError(
                    f"{self.path} labels {len(self)} frames by order only, the recording has "
                    f"{len(names)}: give the labels of this recording, or add a column 'frame' "
                    "with file names"
                )
            return np.arange(len(names), dtype=np.int64)
        stems = [_stem(name) for name in names]
        missing = [
            name for name, stem in zip(names, stems, strict=True) if stem not in self._row_of
        ]
        if missing:
            others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
            raise SourceError(
                f"{self.path} has no row for frame {missing[0]}{others} "
                f"(its {len(self)} rows go from {self.stems[0]} to {self.stems[-1]}): "
                "give the labels of this recording"
            )
        return np.array([self._row_of[stem] for stem in stems], dtype=np.int64)

    def for_frames(self, names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Return label (int64 [N]) and class name of every frame; arguments as :meth:`rows_for`.

        Raises:
            SourceError: as :meth:`rows_for`.
        """
        rows = self.rows_for(names)
        return self.labels[rows], [self.classes[row] for row in rows]


def class_name(label: int) -> str:
    """Name a label of a file without class names, as Hazards&Robots numbers them."""
    if 0 <= label < len(HAZARDS_AND_ROBOTS_CLASSES):
        return HAZARDS_AND_ROBOTS_CLASSES[label]
    return f"class {label}"


def read_labels(path: str | Path) -> FrameLabels:
    """Read a labels CSV file.

    Needed is a column ``label``. A column ``frame`` (or ``filename``, ...) names the frames,
    ``hazard`` (or ``class``) the classes, ``stamp_ns`` gives stamps; others are ignored.

    Args:
        path: the CSV file.

    Raises:
        SourceError: no such file, no text, no ``label`` column, no row, a label or stamp that is
            not a whole number, a frame named twice, or a label with two class names.
    """
    path = Path(path)
    header, columns = _read_columns(path, [*_NAME_COLUMNS, *_CLASS_COLUMNS, "label", "stamp_ns"])
    if "label" not in columns:
        found = ", ".join(map(repr, header)) or "no header"
        raise SourceError(
            f"labels {path} have no column 'label' but {found}: give the per-frame labels "
            "(frames_labels.csv, labels.csv)"
        )
    # Numbered as in an editor: the header is line 1.
    labels = [_integer(path, line, "label", cell) for line, cell in enumerate(columns["label"], 2)]
    if not labels:
        raise SourceError(f"labels {path} have a header and no row: give the labels of a recording")
    if min(labels) < 0:
        raise SourceError(
            f"labels {path}, line {labels.index(min(labels)) + 2}: label {min(labels)} is "
            "negative: 0 is normal, hazard classes count from 1"
        )
    stamps = None
    if "stamp_ns" in columns:
        cells = enumerate(columns["stamp_ns"], 2)
        stamps = tuple(_integer(path, line, "stamp_ns", cell) for line, cell in cells)
    names, given = _first_of(_NAME_COLUMNS, columns), _first_of(_CLASS_COLUMNS, columns)
    return FrameLabels(
        path,
        np.array(labels, dtype=np.int64),
        _classes(path, labels, given or [""] * len(labels)),
        None if names is None else _stems(path, names),
        stamps,
    )


def _read_columns(path: Path, wanted: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Read the header line and the wanted columns of a CSV file (commas, semicolons or tabs).

    Only those wanted: others may be hundreds, of features.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            lines = csv.reader(stream, delimiter=max(",;\t", key=first.count))
            header = [cell.strip().lower() for cell in next(lines, [])]
            columns: dict[str, list[str]] = {name: [] for name in wanted if name in header}
            places = [(header.index(name), cells) for name, cells in columns.items()]
            for number, line in enumerate(filter(None, lines), 2):
                if len(line) < len(header):
                    raise SourceError(
                        f"labels {path}, line {number}: {len(line)} cells instead of "
                        f"{len(header)}: give the whole file"
                    )
                for place, cells in places:
                    cells.append(line[place].strip())
    except OSError as error:
        raise SourceError(
            f"labels {path} cannot be read ({error.strerror}): give a CSV file with a column "
            "'label'"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"labels {path} are no CSV text file ({error}): save it again") from error
    return header, columns


def _first_of(wanted: Sequence[str], columns: Mapping[str, list[str]]) -> list[str] | None:
    return next((columns[name] for name in wanted if name in columns), None)


def _integer(path: Path, line: int, column: str, cell: str) -> int:
    # A column that pandas wrote may hold 3 as 3.0.
    whole = re.fullmatch(r"([+-]?\d+)(\.0*)?", cell)
    if whole is None:
        raise SourceError(
            f"labels {path}, line {line}: {column} is {cell!r}, not a whole number: "
            "correct the file"
        )
    return int(whole[1])


def _stem(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).stem


def _stems(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    for line, name in enumerate(names, 2):
        stem = _stem(name)
        if not stem:
            raise SourceError(f"labels {path}, line {line}: no frame name: correct the file")
        if stem in seen:
            raise SourceError(
                f"labels {path}, line {line}: frame {name} stands on line {seen[stem]} already: "
                "leave one of them"
            )
        seen[stem] = line
    return tuple(seen)


def _classes(path: Path, labels: list[int], given: Sequence[str]) -> tuple[str, ...]:
    known: dict[int, str] = {0: NORMAL}
    for line, (cell, label) in enumerate(zip(given, labels, strict=True), 2):
        name = (cell if label else "") or class_name(label)
        if known.setdefault(label, name) != name:
            raise SourceError(
                f"labels {path}, line {line}: label {label} is called {name!r} here and "
                f"{known[label]!r} above: give every class one name"
            )
    return tuple(known[label] for label in labels)


def read_visible_shares(path: str | Path, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the share of the picture that each frame's hazard covers, 0 for a normal frame.

    Args:
        path: ``labels.csv`` of a rendered drive, with the column ``visible_fraction``.
        names: frame names, as for :meth:`FrameLabels.rows_for`.

    Raises:
        SourceError: as :func:`read_labels`, or no such column.
    """
    path = Path(path)
    rows = read_labels(path).rows_for(names)
    shares = _read_columns(path, ["visible_fraction"])[1].get("visible_fraction")
    if shares is None:
        raise SourceError(f"{path} has no column visible_fraction: give a rendered drive's labels")
    return np.array([float(shares[row] or 0) for row in rows])


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
        labels = []
        for row in order:
            cell = self.labels[row]
            label = by_name.get(cell.lower())
            labels.append(_integer(self.path, row + 2, "label", cell) if label is None else label)
        if min(labels) < 0:
            raise SourceError(f"{self.path} has the label {min(labels)}: labels start at 0")
        difficulty = None
        if self.difficulty is not None:
            cells = ((row, self.difficulty[row] or "0") for row in order)
            levels = [_integer(self.path, row + 2, "difficulty", cell) for row, cell in cells]
            difficulty = np.array(levels, np.int64)
        return np.array(labels, np.int64), difficulty

    def _order(self, files: Sequence[Path], notes: list[str]) -> list[int]:
        """Return for every frame the row that it has."""
        if self.files is not None:
            rows = {_stem(name): row for row, name in enumerate(self.files)}
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


def read_label_table(path: Path) -> LabelTable | None:
    """Read a metadata file of Hazards&Robots; None when it has no column ``label``.

    Raises:
        SourceError: it cannot be read, or has a row that is too short.
    """
    _, columns = _read_columns(path, [*_NAME_COLUMNS, *_NUMBER_COLUMNS, "label", "difficulty"])
    if "label" not in columns:
        return None
    files, numbers = _first_of(_NAME_COLUMNS, columns), _first_of(_NUMBER_COLUMNS, columns)
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
