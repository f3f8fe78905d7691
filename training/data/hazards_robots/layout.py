"""Where the splits of Hazards&Robots and their metadata lie below a folder.

The releases name their folders and CSV files differently, and archives may be extracted with or
without a folder of their own: splits are found by any of their names, metadata by their content.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from anomaly_detector.errors import SourceError
from anomaly_detector.recordings import IMAGE_SUFFIXES, natural_key
from training.data.labels import LabelTable, read_label_table

SPLITS: dict[str, tuple[str, ...]] = {
    "training_set": ("training_set", "train_set", "training", "train"),
    "training_mixed_set": (
        "training_mixed_set",
        "train_mixed_set",
        "mixed_set",
        "outliers_set",
        "outlier_set",
        "unlabeled_set",
    ),
    "validation_set": ("validation_set", "val_set", "validation", "val"),
    "test_set": ("test_set", "testing_set", "testing", "test"),
}
"""Splits and the folder names that are taken for them, the most trusted name first."""

DEPTH = 3
# In this order: "training_mixed_frames_labels" is of the mixed set, not of the training set.
_METADATA_WORDS = {
    "training_mixed_set": ("mixed", "outlier", "unlabeled"),
    "validation_set": ("val",),
    "test_set": ("test",),
    "training_set": ("train",),
}


class FolderTree:
    """The folders and metadata files below a root, listed once.

    Attributes:
        root: the root.
        folders: every folder down to the depth searched, itself included, to whether it directly
            holds images; nearest first.
        tables: CSV files, in natural order.
        mappings: files with names of labels.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[Path, bool] = {}
        self._images: dict[Path, list[Path]] = {}
        tables: list[Path] = []
        mappings: list[Path] = []
        level = [root]
        for depth in range(DEPTH + 1):
            deeper: list[Path] = []
            for folder in level:
                self.folders[folder] = False
                with os.scandir(folder) as entries:
                    for entry in entries:
                        suffix = _suffix(entry.name)
                        if suffix in IMAGE_SUFFIXES:
                            self.folders[folder] = True
                        elif suffix == ".csv":
                            tables.append(folder / entry.name)
                        elif entry.name.lower() in ("labels_mapping.txt", "labels_mapping.json"):
                            mappings.append(folder / entry.name)
                        elif not entry.name.startswith((".", "__MACOSX")) and entry.is_dir():
                            deeper.append(folder / entry.name)
            level = sorted(deeper) if depth < DEPTH else []
        self.tables = sorted(tables, key=lambda path: natural_key(str(path)))
        self.mappings = sorted(mappings)

    def images(self, folder: Path) -> list[Path]:
        """Return the images directly in a folder, in natural order; listed once."""
        if folder not in self._images:
            names = [n for n in os.listdir(folder) if _suffix(n) in IMAGE_SUFFIXES]
            self._images[folder] = [folder / name for name in sorted(names, key=natural_key)]
        return self._images[folder]

    def shown(self, path: Path) -> str:
        """Return a path relative to the root."""
        return os.path.relpath(path, self.root)


def find_split(tree: FolderTree, split: str, notes: list[str]) -> Path | None:
    """Find the folder that directly holds a split's frames.

    Args:
        tree: where to look.
        split: a key of :data:`SPLITS`.
        notes: lines are added when another release's name was taken or a folder has no image.

    Returns:
        The folder; None when there is none.

    Raises:
        SourceError: several folders could be meant.
    """
    for alias in SPLITS[split]:
        named = [folder for folder in tree.folders if folder.name.lower() == alias]
        filled: list[Path] = []
        for folder in named:
            # An archive's folder may hold another one, of the same or of some other name.
            inner = [f for f, images in tree.folders.items() if images and f.is_relative_to(folder)]
            if len(inner) > 1 and folder == tree.root:
                continue  # The user's own folder of all splits may be called "training".
            if len(inner) > 1:
                raise SourceError(
                    f"{folder} has images in {len(inner)} folders "
                    f"({', '.join(tree.shown(f) for f in inner[:4])}): leave one of them there"
                )
            filled += [f for f in inner if f not in filled]
        if len(filled) > 1:
            raise SourceError(
                f"{tree.root} has {len(filled)} folders for {split} "
                f"({', '.join(tree.shown(f) for f in filled)}): give the folder of one release"
            )
        if filled:
            if alias != split:
                notes.append(f"{split}: taken from folder {tree.shown(filled[0])}")
            return filled[0]
        if named:
            notes.append(f"{split}: folder {tree.shown(named[0])} holds no image")
    return None


def assign_tables(
    tree: FolderTree, found: Mapping[str, Path], notes: list[str]
) -> dict[str, LabelTable]:
    """Return the metadata of each split that has any."""
    named: dict[str, list[LabelTable]] = {}
    unnamed: list[LabelTable] = []
    for path in tree.tables:
        table = read_label_table(path)
        if table is None:
            notes.append(f"{tree.shown(path)}: no label column, not used")
            continue
        split = _split_in_name(path, tree.root, found)
        if split is None:
            unnamed.append(table)
        elif split not in found:
            notes.append(f"{tree.shown(path)}: labels of {split}, which has no frames here")
        else:
            named.setdefault(split, []).append(table)
    assigned = {
        split: _choose(tree, split, tables, len(tree.images(found[split])), notes)
        for split, tables in named.items()
    }
    for table in unnamed:
        split = _split_of_unnamed(tree, table, found, assigned)
        notes.append(f"{tree.shown(table.path)}: names no split, taken for {split}")
        assigned[split] = table
    return assigned


def _choose(
    tree: FolderTree, split: str, tables: list[LabelTable], frames: int, notes: list[str]
) -> LabelTable:
    """Choose between the tables that carry a split's name: by their length, then by their name."""
    fitting = [table for table in tables if len(table) == frames] or tables
    fitting = [table for table in fitting if "frames_labels" in table.path.stem] or fitting
    if len(fitting) > 1:
        raise SourceError(
            f"{split} in {tree.root} has {len(fitting)} metadata files "
            f"({', '.join(tree.shown(table.path) for table in fitting)}): leave one of them there"
        )
    notes += [f"{tree.shown(t.path)}: left aside for {split}" for t in tables if t not in fitting]
    return fitting[0]


def _split_in_name(path: Path, root: Path, found: Mapping[str, Path]) -> str | None:
    for split, folder in found.items():
        if folder in path.parents:
            return split
    relative = path.relative_to(root)
    for part in (relative.stem, *(parent.name for parent in relative.parents)):
        for split, words in _METADATA_WORDS.items():
            if any(word in part.lower() for word in words):
                return split
    return None


def _split_of_unnamed(
    tree: FolderTree, table: LabelTable, found: Mapping[str, Path], taken: Mapping[str, LabelTable]
) -> str:
    # The authors' frames_labels.csv is of the test set; other releases are told by their length.
    order = ("test_set", "training_mixed_set", "validation_set", "training_set")
    free = [split for split in order if split in found and split not in taken]
    counts = {split: len(tree.images(found[split])) for split in free}
    for split in free:
        if counts[split] == len(table):
            return split
    frames = ", ".join(f"{split} has {count} frames" for split, count in counts.items())
    raise SourceError(
        f"{tree.shown(table.path)} in {tree.root} has {len(table)} labels and fits no split "
        f"({frames or 'all have metadata of their own'}): "
        "is everything extracted, from one release?"
    )


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
