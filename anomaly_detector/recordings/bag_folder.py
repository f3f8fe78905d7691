"""The files of a bag, by the names in its folder and in ``metadata.yaml``."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePath

from anomaly_detector.errors import SourceError
from anomaly_detector.recordings.base import UnreadableFrame, natural_key

BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag's folder or file, by its name and contents."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_bag_files(path))
    return path.is_file() and bool(bag_suffix(path))


def bag_suffix(path: PurePath) -> str:
    """Return the suffix that gives a bag's format, in small letters; nothing for other files."""
    suffix = PurePath(_bare_name(path)).suffix.lower()
    return suffix if suffix in BAG_SUFFIXES else ""


def bag_contents(path: Path) -> tuple[list[Path], list[UnreadableFrame], Counter[tuple[str, str]]]:
    """Return a bag's files in order, what is known to be missing, and the stated counts.

    Raises:
        SourceError: the folder holds several bags.
    """
    if not path.is_dir():
        return [path], [], Counter()
    present = _bag_files(path)
    try:
        named, stated = _read_metadata(path / "metadata.yaml")
    except Exception as error:  # whatever is in it
        problem = "empty or damaged: whether a file is missing is not known"
        if isinstance(error, FileNotFoundError):
            problem = "missing: whether a file is missing, too, is not known"
            if len({re.sub(r"_\d+$", "", PurePath(_bare_name(file)).stem) for file in present}) > 1:
                names = ", ".join(file.name for file in present)
                raise SourceError(
                    f"{path} holds {names} but no metadata.yaml: give them one by one, or as "
                    f"'{path}/*'"
                ) from None
        return present, [UnreadableFrame("metadata.yaml", problem, 0)], Counter()
    by_name = {_bare_name(file): file for file in present}
    known = [by_name.pop(name) for name in map(_bare_name, named) if name in by_name]
    others = list(by_name.values())
    if known:
        # Of another format may be what somebody converted.
        others = [file for file in others if bag_suffix(file) == bag_suffix(known[0])]
    found = {_bare_name(file) for file in known}
    missing = [name for name in named if _bare_name(name) not in found]
    files = _in_order([*known, *others]) if missing else [*known, *others]
    if len(missing) <= len(others):  # they were renamed
        missing = []
    reason = "missing, but named in metadata.yaml"
    return files, [UnreadableFrame(name.name, reason, 0) for name in missing], stated


def _read_metadata(path: Path) -> tuple[list[PurePath], Counter[tuple[str, str]]]:
    """Return the files that a bag's metadata names, and how many messages it counts on topics."""
    import yaml

    # That of libyaml is ten times as fast; a Python without it has the other one.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    information = yaml.load(path.read_bytes(), loader)["rosbag2_bagfile_information"]
    named = [PurePath(str(name)) for name in information["relative_file_paths"]]
    stated: Counter[tuple[str, str]] = Counter()
    for entry in information.get("topics_with_message_count") or ():
        topic = entry["topic_metadata"]
        stated[topic["name"], topic["type"]] += int(entry["message_count"])
    return named, stated


def _in_order(files: list[Path]) -> list[Path]:
    return sorted(files, key=lambda file: natural_key(file.name))


def _bag_files(folder: Path) -> list[Path]:
    """Return the bag files in a folder, in natural order; of a packed one only what it was."""
    files = {f.name: f for f in folder.iterdir() if bag_suffix(f) and f.is_file()}
    kept = [f for f in files.values() if _bare_name(f) == f.name or _bare_name(f) not in files]
    return _in_order(kept)


def _bare_name(path: PurePath) -> str:
    """Return a bag file's name without what says that it is packed or was not closed."""
    return re.sub(r"\.(zstd?|active)$", "", path.name, flags=re.IGNORECASE)
