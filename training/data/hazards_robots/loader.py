"""The Hazards&Robots data set on disk: frames, labels and difficulty of its four splits.

The releases name things differently, so folders are found by name and metadata by what is in it.
What the layouts read here are based on: the authors' published code (metadata in file-name order
with ``label`` and ``difficulty`` columns, ``frames_labels.csv`` for the test set,
``outliers_frames_labels.csv`` for the mixed one) and public scripts that read the release of 2023
(``training_mixed_frames_labels.csv`` with ``frame_id`` and ``label``, ``labels_mapping.txt`` with
names and numbers as JSON, and an archive whose folder is called ``unlabeled_set``). The numbers of
the anomaly classes differ between the two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import SourceError
from anomaly_detector.recordings import ImageFilesSource
from training.data.hazards_robots.layout import (
    DEPTH,
    SPLITS,
    FolderTree,
    assign_tables,
    find_split,
)
from training.data.labels import HAZARDS_AND_ROBOTS_CLASSES, FrameLabels, read_label_names

_NORMAL_SPLITS = ("training_set", "validation_set")


@dataclass(frozen=True)
class LabelledFrames:
    """The frames of one split.

    Attributes:
        folder: the folder that directly holds them.
        files: N image files in natural order.
        labels: int64 [N], 0 normal; None when no metadata says.
        difficulty: int64 [N]: 1 hard to see, 2 obvious, 0 for normal frames, as far as the
            authors' code tells; None when no metadata says.
        labels_from: the metadata file; None without labels.
    """

    folder: Path
    files: list[Path]
    labels: NDArray[np.int64] | None
    difficulty: NDArray[np.int64] | None
    labels_from: Path | None = None


@dataclass(frozen=True)
class HazardsRobots:
    """What a folder with the data set holds.

    Attributes:
        root: the folder.
        splits: the splits found, in the order of :data:`SPLITS`.
        label_names: class of every label.
        metadata_files: the CSV files and the label names that were used.
        notes: what was taken how, and what was left aside, one line each.
    """

    root: Path
    splits: dict[str, LabelledFrames]
    label_names: Mapping[int, str]
    metadata_files: list[Path]
    notes: list[str]

    def name_of(self, label: int) -> str:
        """Return a label's class."""
        return self.label_names.get(label, f"label {label}")


def load_hazards_robots(root: Path) -> HazardsRobots:
    """Find the splits of the data set and their labels.

    Args:
        root: the folder the archives were extracted to; splits may lie up to three levels down.

    Raises:
        SourceError: no split is found, two folders claim to be the same one, or metadata do not
            fit their frames. Says what was looked for and what was found.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is no folder: give the one the data set was extracted to")
    tree = FolderTree(root)
    notes: list[str] = []
    folders = {split: find_split(tree, split, notes) for split in SPLITS}
    found = {split: folder for split, folder in folders.items() if folder is not None}
    if not found:
        names = ", ".join(aliases[0] for aliases in SPLITS.values())
        inside = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise SourceError(
            f"{root} holds no Hazards&Robots split: looked {DEPTH} levels deep for folders "
            f"{names} (or their names in other releases) with images, found {inside}"
        )
    for split in folders.keys() - found.keys():
        notes.append(f"{split}: no folder found")
    label_names, used = _label_names(tree, notes)
    tables = assign_tables(tree, found, notes)
    splits: dict[str, LabelledFrames] = {}
    for split, folder in found.items():
        files = tree.images(folder)
        table = tables.get(split)
        if table is None:
            splits[split] = LabelledFrames(folder, files, None, None)
            meaning = "needed, its frames are all normal"
            if split not in _NORMAL_SPLITS:
                meaning = "found, so its normal and anomalous frames cannot be told apart"
            notes.append(f"{split}: no labels {meaning}")
        else:
            labels, difficulty = table.align(files, label_names, notes)
            splits[split] = LabelledFrames(folder, files, labels, difficulty, table.path)
            used.append(table.path)
            unknown = sorted(set(labels.tolist()) - label_names.keys())
            if unknown:
                notes.append(f"{split}: labels {unknown} have no name")
    return HazardsRobots(root, splits, label_names, used, sorted(notes))


def describe(dataset: HazardsRobots) -> str:
    """Explain what was found: a table of the splits, the classes and all notes."""
    lines = [f"Hazards&Robots in {dataset.root}", ""]
    lines.append(f"{'split':<20}{'frames':>8}{'normal':>8}{'anomalous':>11}  folder")
    for split, frames in dataset.splits.items():
        normal = anomalous = "?"
        if frames.labels is not None:
            normal = str(int(np.sum(frames.labels == 0)))
            anomalous = str(int(np.sum(frames.labels != 0)))
        folder = os.path.relpath(frames.folder, dataset.root)
        lines.append(f"{split:<20}{len(frames.files):>8}{normal:>8}{anomalous:>11}  {folder}")
    for split, frames in dataset.splits.items():
        if frames.labels is None:
            continue
        lines += [
            "",
            f"{split}: frames by class, labels from {_shown(frames.labels_from, dataset)}",
        ]
        for label in np.unique(frames.labels).tolist():
            rows = frames.labels == label
            line = f"  {label:>3} {dataset.name_of(label):<16}{int(rows.sum()):>8}"
            if frames.difficulty is not None and label != 0:
                levels, counts = np.unique(frames.difficulty[rows], return_counts=True)
                pairs = zip(levels.tolist(), counts.tolist(), strict=True)
                line += "  difficulty " + ", ".join(f"{level}: {count}" for level, count in pairs)
            lines.append(line)
    used = ", ".join(_shown(path, dataset) for path in dataset.metadata_files) or "none"
    lines += ["", f"metadata used: {used}"]
    lines += [f"note: {note}" for note in dataset.notes]
    return "\n".join(lines)


class HazardsRobotsSource(ImageFilesSource):
    """Some frames of one split as a recording.

    Args:
        path: the split's folder.
        files: N image files.
        labels: int64 [N]; None when they are not known.
        label_names: class of every label.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[Path],
        labels: NDArray[np.int64] | None,
        label_names: Mapping[int, str],
    ) -> None:
        super().__init__(path, files)
        self.labels = labels
        self.label_names = label_names

    @property
    def frame_labels(self) -> FrameLabels:
        """The labels in the form of a labels file.

        Raises:
            SourceError: the labels are not known.
        """
        if self.labels is None:
            raise SourceError(f"{self.path} has no labels: its metadata CSV is missing")
        classes = tuple(self.label_names[int(label)] for label in self.labels)
        return FrameLabels(self.path, self.labels, classes, tuple(f.stem for f in self.files))


def open_labelled(spec: str) -> HazardsRobotsSource:
    """Open frames of the data set.

    Args:
        spec: ``DIR#SPLIT`` or ``DIR#SPLIT:WHICH`` with ``WHICH`` being ``all``, ``normal``,
            ``anomalous`` or the name of a class. The training and validation sets hold normal
            frames only, so ``normal`` takes all of theirs when they have no labels.

    Raises:
        SourceError: see :func:`load_hazards_robots`; there is no such split, class or frame, or
            there are no labels to choose by.
    """
    # The folder's own name may hold a "#": no split's name does.
    folder, separator, rest = spec.rpartition("#")
    split, _, which = rest.partition(":")
    dataset = load_hazards_robots(Path(folder if separator else spec))
    if not separator or split not in dataset.splits:
        wanted = f"no split {split!r}" if separator else "several splits"
        raise SourceError(
            f"{dataset.root} has {wanted}: choose one of "
            + ", ".join(f"{dataset.root}#{name}" for name in dataset.splits)
        )
    frames = dataset.splits[split]
    labels = frames.labels
    if labels is None and which == "normal" and split in _NORMAL_SPLITS:
        labels = np.zeros(len(frames.files), np.int64)
    if which in ("", "all"):
        rows = np.ones(len(frames.files), bool)
    elif labels is None:
        raise SourceError(
            f"{frames.folder} has no labels to choose {which!r} by: put its metadata CSV into "
            f"{dataset.root / 'metadata'} or leave ':{which}' out"
        )
    elif which in ("normal", "anomalous"):
        rows = (labels == 0) == (which == "normal")
    else:
        numbers = [label for label, name in dataset.label_names.items() if name == which]
        if not numbers:
            raise SourceError(
                f"Hazards&Robots has no class {which!r}: choose all, normal, anomalous or one of "
                + ", ".join(dataset.label_names.values())
            )
        rows = np.isin(labels, numbers)
    files = [frames.files[row] for row in np.flatnonzero(rows)]
    if not files:
        raise SourceError(f"{frames.folder} has no frame that is {which!r}: choose another class")
    chosen = None if labels is None else labels[rows]
    return HazardsRobotsSource(frames.folder, files, chosen, dataset.label_names)


def _label_names(tree: FolderTree, notes: list[str]) -> tuple[dict[int, str], list[Path]]:
    if not tree.mappings:
        notes.append("names of the labels: those of the 2022 release, no labels_mapping.txt found")
        return dict(enumerate(HAZARDS_AND_ROBOTS_CLASSES)), []
    names = [read_label_names(path) for path in tree.mappings]
    if any(other != names[0] for other in names[1:]):
        raise SourceError(
            f"{tree.root} has label names that contradict each other "
            f"({', '.join(tree.shown(path) for path in tree.mappings)}): "
            "give the folder of one release"
        )
    return names[0], tree.mappings[:1]


def _shown(path: Path | None, dataset: HazardsRobots) -> str:
    return "none" if path is None else os.path.relpath(path, dataset.root)
