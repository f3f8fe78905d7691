"""Output files and folders that appear whole or not at all.

The content is put together beside its place, written through to the disk and then renamed, so that
neither an error nor a power cut leaves a part of it. After a kill, a hidden ``.NAME.xxxxxxxx`` may
remain, which nothing reads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from anomaly_detector.errors import OutputError, as_one_line

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_WHEN_WRITING = (*_NO_ROOM, errno.EROFS, errno.EFBIG)
"""Errors that no reading gives."""

_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""Errors of file systems, such as shared folders, that know no such request."""

_MOST_LINKS = 40  # as Linux

_MOST_SYNCED = 100
"""Files that are written through one by one; more are left to one call for all disks."""


def printable(name: str) -> str:
    r"""Return a file's name or path as text that every UTF-8 file can hold.

    Bytes that are no UTF-8 are written as ``\xe9``.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends well.

    Whatever stood at ``path`` stays untouched until then, and for good when the block raises. A
    link stays, and what it leads to is replaced. What is no regular file, a device or a pipe, is
    never replaced: the content is written into it.

    Raises:
        OutputError: ``path`` is a folder, or cannot be written.
    """
    target = check_output_file(path)
    # A folder such as /dev is no place for other files.
    folder = Path(tempfile.gettempdir()) if target is None else target.parent
    temporary = folder / (_temporary_name(path) + path.suffix)
    with _errors_named(path, temporary), _folder_made(folder):
        try:
            # With these permissions, the system applies the umask.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield temporary
            if target is None:
                _write_into(path, temporary)
            else:
                sync(temporary)
                os.replace(temporary, target)
                _sync_name(folder)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends well.

    Raises:
        OutputError: ``path`` is there and not an empty folder, or cannot be written.
    """
    target = check_output_folder(path)
    # An empty folder that cannot be replaced is filled: a disk's own, or in a folder of others.
    fill = target.is_dir() and (
        os.path.ismount(target)
        or target == Path.cwd()
        or not os.access(target.parent, os.W_OK | os.X_OK)
    )
    folder = target if fill else target.parent
    temporary = folder / _temporary_name(path)
    with _errors_named(path, temporary), _folder_made(folder):
        try:
            temporary.mkdir()
            yield temporary
            _sync_all(temporary)
            if fill:
                for item in temporary.iterdir():
                    os.replace(item, target / item.name)
            else:
                os.replace(temporary, target)
            _sync_name(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_output_file(path: Path) -> Path | None:
    """Find out before the work whether a file can be written.

    Returns:
        What to replace: ``path``, or what it leads to as a link. None for what is no regular file
        and is to be written into: a device, a pipe, an open file of this process.

    Raises:
        OutputError: it is a folder or socket, a link that leads nowhere, or cannot be written.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path} is a folder: name a file")
    descriptor = _own_descriptor(path)
    if descriptor is None and (not mode or stat.S_ISREG(mode)):
        return _place(path)
    if descriptor is None and stat.S_ISSOCK(mode):
        raise OutputError(f"{path} is a socket: name a file")
    if not (os.access(path, os.W_OK) if descriptor is None else _is_open_to_write(descriptor)):
        raise OutputError(f"{path} is not open to be written: choose another place")
    return None


def check_output_folder(path: Path) -> Path:
    """Find out before the work whether a new folder can be written.

    Returns:
        ``path``, or what it leads to as a link.

    Raises:
        OutputError: it is there and not an empty folder, or cannot be written.
    """
    mode = _mode(path)
    if not mode:
        return _place(path)
    try:
        if not stat.S_ISDIR(mode) or any(path.iterdir()):
            raise _not_empty(path)
    except OSError as error:
        raise _output_error(path, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"folder {path} is not writable: choose another place")
    return path.resolve()


@contextmanager
def output_files(*paths: Path | None) -> Iterator[None]:
    """Check output files before the work, and print to stderr where one of them is stdout.

    Raises:
        OutputError: one cannot be written.
    """
    given = [path for path in paths if path is not None]
    for path in given:
        check_output_file(path)
    words = sys.stdout
    with suppress(OSError, ValueError):  # stdout is no file here
        own = os.fstat(sys.stdout.fileno())
        if any(path.exists() and os.path.samestat(path.stat(), own) for path in given):
            words = sys.stderr
    with redirect_stdout(words):
        yield


def describe_os_error(error: OSError) -> str:
    """Return an error of the system in one line, with the remedy where there is one."""
    where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
    remedy = ": make room where the output goes" if error.errno in _NO_ROOM else ""
    return f"{where}{_reason(error)}{remedy}"


def sync(path: Path) -> None:
    """Have a file or folder written to the disk: a robot's power may go at any time."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            error.filename = os.fspath(path)
            raise
    finally:
        os.close(handle)


def user_cache_folder(name: str) -> Path:
    """Return the package's folder of one kind in the user's cache; it need not exist.

    Raises:
        OutputError: the user has no home, as that of a container may not.
    """
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise OutputError(
            f"the cache has no place (user {os.getuid()} has no home): set XDG_CACHE_HOME"
        ) from error
    return base / "anomaly_detector" / name


def _mode(path: Path) -> int:
    """Return the kind of what is at a path, links followed; 0 where nothing is."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return 0
        raise _output_error(path, error) from error


def _links(path: Path) -> Iterator[Path]:
    """Yield a path and what it leads to, link by link; no more than the system follows."""
    yield path
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
        yield path


def _place(path: Path) -> Path:
    """Follow links to where a new file or folder is to lie."""
    for target in _links(path):
        if target != path and not target.parent.is_dir():
            raise OutputError(
                f"{path} is a link into the folder {target.parent}, which is not there: make it or "
                "choose another place"
            )
    if target.is_symlink():
        raise OutputError(f"{path} is a link that leads to itself: remove it")
    parent = target.absolute().parent
    there = next(place for place in (parent, *parent.parents) if os.path.lexists(place))
    if not there.is_dir():
        what = "a file" if there.exists() else "a link that leads nowhere"
        raise OutputError(
            f"folder {parent} cannot be made ({there} is {what}): choose another place for {path}"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"folder {there} is not writable: choose another place for {path}")
    return parent / target.name


def _temporary_name(path: Path) -> str:
    # A name may have 255 bytes, and a character four of them.
    return f".{path.name[:40]}.{secrets.token_hex(4)}"


@contextmanager
def _folder_made(folder: Path) -> Iterator[None]:
    """Make a folder, and take it away again when the block raises and left nothing in it."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
        raise


def _own_descriptor(path: Path) -> int | None:
    """Return the number of this process' open file that a path such as ``/dev/stdout`` means."""
    own = os.path.realpath("/proc/self/fd")
    for place in _links(path):
        if place.name.isdigit() and os.path.realpath(place.parent) == own:
            return int(place.name)
    return None


def _is_open_to_write(descriptor: int) -> bool:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False


def _write_into(path: Path, content: Path) -> None:
    """Write a file's content into a device, a pipe or an open file."""
    descriptor = _own_descriptor(path)
    sys.stdout.flush()
    try:
        # Our own, opened anew, would begin at the start of a file that others have written to.
        handle = os.open(path, os.O_WRONLY) if descriptor is None else os.dup(descriptor)
        with content.open("rb") as source, os.fdopen(handle, "wb") as sink:
            shutil.copyfileobj(source, sink)
    except BrokenPipeError:
        raise  # the reader has gone, as that of our own output may
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({_reason(error)}): choose another place"
        ) from error


@contextmanager
def _errors_named(path: Path, temporary: Path) -> Iterator[None]:
    """Turn errors of writing into one that names the output.

    An error of reading, which the block may do too, stays what it is.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            ours = error.errno in _WHEN_WRITING
        else:
            name = Path(os.fsdecode(error.filename))
            ours = temporary in (name, *name.parents) or name in temporary.parents
        if not ours:
            raise
        if error.filename2 and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _not_empty(path) from error  # another process was faster
        raise _output_error(path, error, temporary.parent) from error
    except OutputError as error:
        if str(temporary) not in str(error):
            raise
        # Of a file in the folder, whose temporary name nobody knows.
        raise OutputError(str(error).replace(str(temporary), str(path))) from error


def _output_error(path: Path, error: OSError, folder: Path | None = None) -> OutputError:
    remedy = "choose another place"
    if error.errno in _NO_ROOM:
        remedy = f"make room in {folder or path.absolute().parent} or {remedy}"
    return OutputError(f"{path} cannot be written ({_reason(error)}): {remedy}")


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    # HDF5 gives pages.
    return os.strerror(error.errno) if "\n" in reason and error.errno else as_one_line(reason)


def _not_empty(path: Path) -> OutputError:
    return OutputError(f"{path} is there and not empty: give a new folder or remove it")


def _sync_all(folder: Path) -> None:
    """Have all that is in a folder written to the disk."""
    places = [(Path(place), names) for place, _, names in os.walk(folder)]
    files = [place / name for place, names in places for name in names]
    if len(files) > _MOST_SYNCED:
        os.sync()
        return
    for file in files:
        if not file.is_symlink():
            sync(file)
    for place, _ in places:
        _sync_name(place)


def _sync_name(folder: Path) -> None:
    """Have the names in a folder written to the disk, where its file system can."""
    # What they name is whole already: this is no reason to fail.
    with suppress(OSError):
        sync(folder)
