"""Safe extraction of zip and tar archives: whole or not at all, never outside the folder."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory

__all__ = ["archive_stem", "extract_archive"]

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def archive_stem(name: str) -> str | None:
    """Give an archive's name without its suffix; None when it is no zip or tar archive."""
    for suffix in (".zip", *_TAR_SUFFIXES):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


def extract_archive(archive: Path, folder: Path, *, progress: bool = True) -> None:
    """Extract a zip or tar archive into a new folder.

    Args:
        archive: the file.
        folder: where its content goes; it appears when everything is extracted.
        progress: show a progress bar on stderr.

    Raises:
        AnomalyDetectorError: damaged archive, a member that leads out of the folder, too little
            disk space, or ``folder`` is there and not empty.
    """
    try:
        with atomic_directory(folder) as temporary:
            if archive.name.lower().endswith(".zip"):
                _extract_zip(archive, temporary, progress)
            else:
                _extract_tar(archive, temporary, progress)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as e:
        raise AnomalyDetectorError(
            f"archive {archive} cannot be extracted ({e}): remove it and download it again"
        ) from e
    except OSError as error:
        raise AnomalyDetectorError(
            f"archive {archive} cannot be extracted to {folder} ({error.strerror or error}): "
            "make room or extract it by hand"
        ) from error


def _extract_zip(archive: Path, folder: Path, progress: bool) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            _refuse_outside(archive, member.filename)
        _check_space(archive, folder, sum(member.file_size for member in members))
        for member in tqdm(
            members, f"extracting {archive.name}", unit="file", disable=not progress
        ):
            opened.extract(member, folder)


def _extract_tar(archive: Path, folder: Path, progress: bool) -> None:
    # One pass: a compressed tar has no table of contents, so its size is not known beforehand.
    with tarfile.open(archive) as opened:
        for member in tqdm(opened, f"extracting {archive.name}", unit="file", disable=not progress):
            _refuse_outside(archive, member.name)
            _check_space(archive, folder, member.size)
            opened.extract(member, folder, filter="data")


def _refuse_outside(archive: Path, name: str) -> None:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts:
        raise AnomalyDetectorError(
            f"archive {archive} holds {name!r}, which leads out of the folder: not extracted"
        )


def _check_space(archive: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise AnomalyDetectorError(
            f"archive {archive} needs {needed / 1e9:.2f} GB to extract but {folder.parent} has "
            f"{free / 1e9:.2f} GB free: make room and run again"
        )
