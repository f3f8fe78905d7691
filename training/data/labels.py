"""Truth for the frames of a recording, from a CSV file.

Two layouts are read. The synthetic corridor writes one row per frame with its name::

    frame,stamp_ns,label,hazard,distance_m,visible_fraction
    000012.jpg,400000000,5,hanging_cable,3.2,1.0

and Hazards&Robots (Zenodo record 7074958) gives ``label`` (and ``difficulty``) per frame, in
file-name order, without a name. ``label`` is 0 for a normal frame and the number of the hazard
class otherwise.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import SourceError

NORMAL = "normal"
"""Class name of label 0."""

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

_NAME_COLUMNS = ("frame", "frame_name", "filename", "file", "image", "name")
_CLASS_COLUMNS = ("hazard", "class", "class_name")
_LABEL_COLUMN = "label"
_STAMP_COLUMN = "stamp_ns"


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

    def stamps_for_frames(self, names: Sequence[str]) -> list[int | None]:
        """Return the file's stamp of every frame in nanoseconds, None where the file has none.

        Raises:
            SourceError: as :meth:`rows_for`.
        """
        rows = self.rows_for(names)
        return [None if self.stamps_ns is None else self.stamps_ns[row] for row in rows]


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
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Cells past the header's end would otherwise land under the key None.
            reader = csv.DictReader(file, restkey="", restval="")
            header = [column.strip() for column in reader.fieldnames or []]
            reader.fieldnames = header
            rows = list(reader)
    except OSError as error:
        raise SourceError(
            f"labels {path} cannot be read ({error.strerror}): give a CSV file with a column "
            f"{_LABEL_COLUMN!r}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(
            f"labels {path} is not a CSV text file ({error}): save it again"
        ) from error
    if _LABEL_COLUMN not in header:
        raise SourceError(
            f"labels {path} has no column {_LABEL_COLUMN!r}, it has "
            f"{', '.join(repr(column) for column in header) or 'no header'}: "
            "give the per-frame labels (frames_labels.csv, labels.csv)"
        )
    if not rows:
        raise SourceError(f"labels {path} has a header and no row: give the labels of a recording")
    labels = [
        _integer(row[_LABEL_COLUMN], path, number, _LABEL_COLUMN) for number, row in _numbered(rows)
    ]
    negative = [number for number, label in enumerate(labels, 2) if label < 0]
    if negative:
        raise SourceError(
            f"labels {path}, line {negative[0]}: label {labels[negative[0] - 2]} is negative: "
            "0 is normal, hazard classes count from 1"
        )
    stamps = None
    if _STAMP_COLUMN in header:
        stamps = tuple(
            _integer(row[_STAMP_COLUMN], path, number, _STAMP_COLUMN)
            for number, row in _numbered(rows)
        )
    name_column = _first_of(_NAME_COLUMNS, header)
    class_column = _first_of(_CLASS_COLUMNS, header)
    return FrameLabels(
        path,
        np.array(labels, dtype=np.int64),
        _classes(rows, labels, class_column, path),
        None if name_column is None else _stems(rows, name_column, path),
        stamps,
    )


def _numbered(rows: list[dict[str, str]]) -> list[tuple[int, dict[str, str]]]:
    """Number the rows as an editor does: the header is line 1."""
    return list(enumerate(rows, 2))


def _first_of(wanted: Sequence[str], header: Sequence[str]) -> str | None:
    return next((column for column in wanted if column in header), None)


def _integer(text: str, path: Path, line: int, column: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise SourceError(
            f"labels {path}, line {line}: {column} is {text!r}, not a whole number: "
            "correct the file"
        ) from error


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _stems(rows: list[dict[str, str]], column: str, path: Path) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    for number, row in _numbered(rows):
        stem = _stem(row[column].strip())
        if not stem:
            raise SourceError(f"labels {path}, line {number}: no frame name: correct the file")
        if stem in seen:
            raise SourceError(
                f"labels {path}, line {number}: frame {row[column]} stands on line {seen[stem]} "
                "already: leave one of them"
            )
        seen[stem] = number
    return tuple(seen)


def _classes(
    rows: list[dict[str, str]], labels: list[int], column: str | None, path: Path
) -> tuple[str, ...]:
    known: dict[int, str] = {0: NORMAL}
    for (number, row), label in zip(_numbered(rows), labels, strict=True):
        given = row[column].strip() if column is not None and label else ""
        name = given or class_name(label)
        if known.setdefault(label, name) != name:
            raise SourceError(
                f"labels {path}, line {number}: label {label} is called {name!r} here and "
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
    rows = read_labels(path).rows_for(names)
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    if not table or "visible_fraction" not in table[0]:
        raise SourceError(f"{path} has no column visible_fraction: give a rendered drive's labels")
    return np.array([float(table[row]["visible_fraction"] or 0) for row in rows])
