"""Download of a Zenodo record: resumable, verified, disk space checked first.

Made for the Hazards&Robots data set, tens of gigabytes in a few archives, over a connection that
may drop; any public record works. A file grows as ``NAME.part`` and gets its own name once it is
whole and its checksum has been verified, so a file with its own name needs no second look.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError, describe_error
from training.data.hazards_robots.archives import archive_stem, extract_archive

API_URL = "https://zenodo.org/api"

ATTEMPTS = 6
"""How many failures in a row are put up with."""

PAUSE_S = 1.0
"""Wait after a first failure; it doubles with each one more."""

_PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
# A connection that breaks loses the chunk it was in: small enough to lose little.
_CHUNK = 1 << 16
# JPEG frames hardly shrink in an archive; the rest is what small files lose to disk blocks.
_EXTRACTION_FACTOR = 1.1
_SILENCE_S = 30.0


class _Broken(Exception):
    """A failure of server or connection that may pass."""


@dataclass(frozen=True)
class RecordFile:
    """One file of a record: plain name, size in bytes, MD5 (None if not given), address."""

    name: str
    size: int
    md5: str | None
    url: str


def list_record(record_id: int, *, api_url: str = API_URL) -> list[RecordFile]:
    """Ask Zenodo which files a record holds; arguments as for :func:`download_record`.

    Raises:
        AnomalyDetectorError: the record cannot be read, has no file, or a file's entry makes no
            sense.
    """
    url = f"{api_url.rstrip('/')}/records/{record_id}"

    def read() -> bytes:
        with _answer(url) as response:
            return _read(response)

    try:
        entries = json.loads(_patiently(f"record {record_id}", read))["files"]
        files = [_record_file(entry, url) for entry in list(entries)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnomalyDetectorError(
            f"{url} is no record of Zenodo's API (no JSON with files of key, size and links.self): "
            "check --api-url"
        ) from error
    if not files:
        raise AnomalyDetectorError(
            f"record {record_id} at {url} holds no file: it may be restricted, choose another"
        )
    return files


def describe_record(files: Sequence[RecordFile]) -> str:
    """Return a table of a record's files."""
    width = max(len(file.name) for file in files)
    lines = [f"{f.name:<{width}}  {_bytes(f.size):>10}  md5 {f.md5 or '-'}" for f in files]
    total = _bytes(sum(file.size for file in files))
    return "\n".join([*lines, f"{'total':<{width}}  {total:>10}"])


def download_record(
    record_id: int,
    out: Path,
    *,
    api_url: str = API_URL,
    only: Sequence[str] = (),
    extract: bool = True,
    verify: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Download a record's files into a folder and extract its archives.

    Call it again after any failure: whole files are kept and begun ones are gone on with.

    Args:
        record_id: the number at the end of the record's address.
        out: the folder; made when missing. ``NAME.zip`` is extracted into ``out/NAME``.
        api_url: the API's address without ``/records``.
        only: file name patterns (``*.zip``); empty for all files.
        extract: extract zip and tar archives.
        verify: read the files that are there already again and compare their checksums.
        progress: show progress bars on stderr.

    Returns:
        The downloaded files.

    Raises:
        AnomalyDetectorError: no such record, too little disk space, a checksum that does not fit,
            a server that keeps failing, or an archive that cannot be extracted.
    """
    files = list_record(record_id, api_url=api_url)
    if only:
        names = ", ".join(file.name for file in files)
        files = [f for f in files if any(fnmatch.fnmatchcase(f.name, p) for p in only)]
        if not files:
            raise AnomalyDetectorError(
                f"no file of record {record_id} fits {', '.join(only)}: it holds {names}"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnomalyDetectorError(
            f"folder {out} cannot be made ({error.strerror}): choose another --out"
        ) from error
    missing = [file for file in files if not _is_whole(out, file)]
    packed = {
        out / file.name: out / stem
        for file in files
        if extract and (stem := archive_stem(file.name)) and not (out / stem).is_dir()
    }
    needed = sum(max(0, file.size - _size(out / f"{file.name}.part")) for file in missing)
    needed += sum(round(f.size * _EXTRACTION_FACTOR) for f in files if out / f.name in packed)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise AnomalyDetectorError(
            f"{out} has {_bytes(free)} free but {_bytes(needed)} are needed"
            f"{' (with the extracted frames)' if packed else ''}: make room, choose another "
            "--out, or take less with --only or --no-extract"
        )
    for file in files:
        if file in missing:
            _download(file, out, progress)
        elif verify:
            _verify(out / file.name, file, progress)
    for archive, folder in packed.items():
        extract_archive(archive, folder, progress=progress)
    return [out / file.name for file in files]


def _record_file(entry: Any, url: str) -> RecordFile:
    name, size, address = str(entry["key"]), int(entry["size"]), str(entry["links"]["self"])
    kind, _, digest = str(entry.get("checksum", "")).partition(":")
    # The name becomes a path here: it must not lead out of the folder.
    if PurePosixPath(name).name != name or "\\" in name or name[:1] in ("", ".") or size < 0:
        raise AnomalyDetectorError(
            f"{url} lists the file {name!r} of {size} bytes, which is no plain file: "
            "download it by hand"
        )
    return RecordFile(name, size, digest.lower() if kind == "md5" else None, address)


def _patiently(what: str, work: Callable[[], Any], reached: Callable[[], int] = lambda: 0) -> Any:
    """Do the work again after failures that may pass; getting on counts as a fresh start."""
    failures, furthest = 0, reached()
    while True:
        try:
            return work()
        except _Broken as error:
            if (now := reached()) > furthest:
                failures, furthest = 0, now
            failures += 1
            if failures == ATTEMPTS:
                raise AnomalyDetectorError(
                    f"{what} cannot be read to its end ({error}): check --api-url and the "
                    "connection, then run the same command to go on"
                ) from error
            time.sleep(PAUSE_S * 2 ** (failures - 1))


def _answer(url: str, start: int = 0) -> HTTPResponse | HTTPError:
    """Send a GET, for the bytes from ``start`` on.

    No If-Range goes with it: a record's files never change and the checksum is verified at the end,
    while a server with other entity tags on each node would send the whole file every time.
    """
    if not url.startswith(("http://", "https://")):
        raise AnomalyDetectorError(f"{url} is no address of a web server: check --api-url")
    # Without "identity" a server may compress, and offsets would mean something else.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_SILENCE_S)
        return response
    except HTTPError as error:
        if error.code == 416:
            return error
        if error.code in _PASSING_STATUSES:
            raise _Broken(describe_error(error)) from error
        raise AnomalyDetectorError(
            f"{url} answers {error.code} {error.reason}: check the record number and whether it is "
            "public"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _Broken(describe_error(error)) from error


def _read(response: HTTPResponse | HTTPError, most: int = -1) -> bytes:
    try:
        return response.read(most)
    except (OSError, HTTPException) as error:
        raise _Broken(describe_error(error)) from error


def _is_whole(out: Path, file: RecordFile) -> bool:
    """Return whether a file got its own name, which it does after verification only."""
    path = out / file.name
    if path.exists() and (not path.is_file() or _size(path) != file.size):
        raise AnomalyDetectorError(
            f"{path} has {path.stat().st_size} bytes but the record's file has {file.size}: "
            "remove it or choose another --out"
        )
    return path.exists()


def _download(file: RecordFile, out: Path, progress: bool) -> None:
    part = out / f"{file.name}.part"
    try:
        if _size(part) > file.size:
            part.unlink()
        part.touch()
        if _size(part) < file.size:
            with _bar(file, file.name, progress) as bar:
                _patiently(file.name, lambda: _fetch_rest(file, part, bar), lambda: _size(part))
    except OSError as error:
        raise AnomalyDetectorError(
            f"{part} cannot be written ({error.strerror or error}): "
            "make room or choose another --out, then run the same command"
        ) from error
    _verify(part, file, progress)
    part.replace(out / file.name)


def _fetch_rest(file: RecordFile, part: Path, bar: tqdm[Any]) -> None:
    """Get what is missing of a part file, over one connection; what came stays if that breaks."""
    have = _size(part)
    with _answer(file.url, have) as response:
        expected = f"bytes {have}-{file.size - 1}/{file.size}"
        if (response.status, response.headers.get("Content-Range")) != (206, expected):
            # The server knows no ranges, or means another file: what is there is of no use.
            have = 0
        with part.open("ab" if have else "wb") as stream:
            if not have and response.status != 200:
                raise _Broken(f"server answers {response.status} to a range request")
            bar.n = have
            bar.refresh()
            while chunk := _read(response, min(_CHUNK, file.size - have)):
                have += stream.write(chunk)
                bar.update(len(chunk))
    if have < file.size:
        raise _Broken(f"connection closed at {have} of {file.size} bytes")


def _verify(path: Path, file: RecordFile, progress: bool) -> None:
    if file.md5 is None:
        print(f"warning: the record gives no MD5 of {file.name}: not verified", file=sys.stderr)
        return
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream, _bar(file, f"verifying {file.name}", progress) as bar:
        while block := stream.read(_CHUNK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != file.md5:
        remedy = f"remove {path}, then"
        if path.suffix == ".part":
            path.unlink()
            remedy = "the part file was deleted,"
        raise AnomalyDetectorError(
            f"{file.name} has MD5 {digest.hexdigest()} but the record says {file.md5}: "
            f"{remedy} run the same command to download it again"
        )


def _bar(file: RecordFile, title: str, progress: bool) -> tqdm[Any]:
    return tqdm(
        total=file.size, desc=title, unit="B", unit_scale=True, unit_divisor=1024,
        disable=not progress,
    )  # fmt: skip


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _bytes(size: int) -> str:
    return f"{tqdm.format_sizeof(size)}B"
