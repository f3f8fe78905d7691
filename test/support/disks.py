"""File systems of a test's own, which may be full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a file system of its own in memory; needs to be root."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def null_device(path: Path) -> Path:
    """Make a device that takes everything, as ``/dev/null``; needs to be root."""
    if os.geteuid() or subprocess.run(["mknod", path, "c", "1", "3"]).returncode:
        pytest.skip("no permission to make a device")
    return path


def leave_free(disk: Path, free: int) -> None:
    """Fill a disk with one file until only so many bytes, in whole blocks, are free."""
    state = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - free)
