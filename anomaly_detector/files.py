"""Output files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomaly_detector.errors import AnomalyDetectorError

__all__ = ["atomic_directory", "atomic_path", "user_cache_folder", "writable_parent"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that replaces it when the block ends well.

    Whatever stood at ``path`` stays untouched until then, and for good when the block raises.

    Raises:
        AnomalyDetectorError: the folder cannot be made or written to.
    """
    parent = writable_parent(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a model or table is to be read by others, as umask allows.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` that becomes ``path`` when the block ends well.

    Raises:
        AnomalyDetectorError: ``path`` is there and not an empty folder, or cannot be made.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AnomalyDetectorError(f"{path} is there and not empty: give a new folder or remove it")
    parent = writable_parent(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=parent))
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if path.exists():
            path.rmdir()
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def writable_parent(path: Path) -> Path:
    """Give the folder that ``path`` is to lie in, made if need be.

    Raises:
        AnomalyDetectorError: it cannot be made or written to.
    """
    parent = path.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnomalyDetectorError(
            f"folder {parent} cannot be made ({error.strerror}): choose another place for {path}"
        ) from error
    if not os.access(parent, os.W_OK):
        raise AnomalyDetectorError(
            f"folder {parent} is not writable: choose another place for {path}"
        )
    return parent


def user_cache_folder(name: str) -> Path:
    """Give this package's folder of one kind in the user's cache (``XDG_CACHE_HOME`` is honoured).

    It need not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "anomaly_detector" / name
