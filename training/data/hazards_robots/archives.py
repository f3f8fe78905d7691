"""Safe extraction of zip and tar archives: whole or not at all, never outside the folder."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_directory

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def archive_stem(name: str) -> str | None:
    """Return an archive's name without its suffix; None when it is no zip or tar archive."""
    for suffix in _SUFFIXES:
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
    bar = {"desc": f"extracting {archive.name}", "unit": "file", "disable": not progress}
    try:
        with atomic_directory(folder) as temporary:
            if archive.name.lower().endswith(".zip"):
                with zipfile.ZipFile(archive) as opened:
                    members = opened.infolist()
                    for item in members:
                        _refuse_outside(archive, item.filename)
                    for item in tqdm(members, **bar):
                        opened.extract(item, temporary)
            else:
                with tarfile.open(archive) as opened:
                    for member in tqdm(opened, **bar):
                        _refuse_outside(archive, member.name)
                        opened.extract(member, temporary, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as e:
        raise AnomalyDetectorError(
            f"archive {archive} cannot be extracted ({e}): remove it and download it again"
        ) from e
    except OSError as error:
        raise AnomalyDetectorError(
            f"archive {archive} cannot be extracted to {folder} ({error.strerror or error}): "
            "make room or extract it by hand"
        ) from error


def _refuse_outside(archive: Path, name: str) -> None:
    path = PureWindowsPath(name)  # reads both kinds of slash
    if path.anchor or ".." in path.parts:
        raise AnomalyDetectorError(
            f"archive {archive} holds {name!r}, which leads out of the folder: not extracted"
        )
