"""Download of a Zenodo record: resumable, checksum-verified, disk space checked first.

Made for the Hazards&Robots data set, tens of gigabytes in a few archives, over a connection that
may drop; any public record works. A file grows as ``NAME.part`` and gets its own name once it is
whole and its checksum has been verified, so a file with its own name needs no second look.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from training.data.hazards_robots.archives import archive_stem, extract_archive

API_URL = "https://zenodo.org/api"

RECORDS = {
    7074958: "release of the 2022 outlier-exposure paper, 132,838 corridor frames",
    7729764: "extended release of 2023, 324,408 corridor frames",
    7859211: "final release of 2023, of the Data in Brief paper, 324,408 corridor frames",
}
"""Hazards&Robots records, oldest first."""

DEFAULT_RECORD = 7074958

# A connection that breaks loses the chunk it was in: small enough to lose little.
_CHUNK = 1 << 16
# JPEG frames hardly shrink in an archive; the rest is what small files lose to disk blocks.
_EXTRACTION_FACTOR = 1.1
_SILENCE_S = 30.0
_LONGEST_WAIT_S = 60.0


class _Retries(Retry):
    def get_retry_after(self, response: Any) -> float | None:
        """Return what a server asks for, in seconds, within reason."""
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_WAIT_S)


RETRIES: Retry = _Retries(
    5,
    backoff_factor=1.0,
    raise_on_status=False,
    status_forcelist=(408, 425, 429, 500, 502, 503, 504),
)
"""How many failures in a row are put up with, and how long is waited between them."""


@dataclass(frozen=True)
class RecordFile:
    """One file of a record.

    Attributes:
        name: plain file name.
        size: in bytes.
        md5: 32 hexadecimal digits; None when the record gives no MD5 checksum.
        url: where its bytes are.
    """

    name: str
    size: int
    md5: str | None
    url: str


def list_record(
    record_id: int, *, api_url: str = API_URL, retries: Retry = RETRIES
) -> list[RecordFile]:
    """Ask Zenodo which files a record holds.

    Args:
        record_id: the number at the end of the record's address.
        api_url: the API's address without ``/records``.
        retries: how long to try.

    Returns:
        The files, in the record's order.

    Raises:
        AnomalyDetectorError: the record cannot be read, has no file, or a file's entry makes no
            sense.
    """
    url = f"{api_url.rstrip('/')}/records/{record_id}"
    try:
        entries = _get(url, f"record {record_id}", retries).json()["files"]
        if not isinstance(entries, list):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise AnomalyDetectorError(
            f"{url} is no record of Zenodo's API (no JSON with files): check --api-url"
        ) from error
    files = [_record_file(entry, url) for entry in entries]
    if not files:
        raise AnomalyDetectorError(
            f"record {record_id} at {url} holds no file: it may be restricted, choose another"
        )
    return files


def describe_record(files: Sequence[RecordFile]) -> str:
    """Return a table of a record's files."""
    width = max(len(file.name) for file in files)
    lines = [f"{f.name:<{width}}  {_gigabytes(f.size):>10}  md5 {f.md5 or '-'}" for f in files]
    total = _gigabytes(sum(file.size for file in files))
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
    retries: Retry = RETRIES,
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
        retries: how long to try.

    Returns:
        The downloaded files.

    Raises:
        AnomalyDetectorError: no such record, too little disk space, a checksum that does not fit,
            a server that keeps failing, or an archive that cannot be extracted.
    """
    files = list_record(record_id, api_url=api_url, retries=retries)
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
            f"{out} has {_gigabytes(free)} free but {_gigabytes(needed)} are needed"
            f"{' (with the extracted frames)' if packed else ''}: make room, choose another "
            "--out, or take less with --only or --no-extract"
        )
    if verify:
        for file in files:
            if file not in missing:
                _verify(out / file.name, file, progress)
    for file in missing:
        _download(file, out, retries, progress)
    for archive, folder in packed.items():
        extract_archive(archive, folder, progress=progress)
    return [out / file.name for file in files]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`run`."""
    known = "; ".join(f"{number}: {what}" for number, what in RECORDS.items())
    parser.add_argument("dataset", choices=["hazards-robots"], help="what to download")
    parser.add_argument("--out", type=Path, help="folder for the files (needed except for --list)")
    parser.add_argument(
        "--record", type=int, default=DEFAULT_RECORD, metavar="ID",
        help=f"Zenodo record (default %(default)s). {known}",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="show the record's files and stop")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN",
        help="only files that fit, such as 'metadata*'; may be given several times",
    )  # fmt: skip
    parser.add_argument("--no-extract", action="store_true", help="leave the archives packed")
    parser.add_argument(
        "--verify", action="store_true", help="check the checksums of files already there again"
    )
    parser.add_argument("--api-url", default=API_URL, help="API of a mirror (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the ``download`` verb.

    Returns:
        0, or 130 when stopped with Ctrl-C.

    Raises:
        AnomalyDetectorError: see :func:`download_record`; ``--out`` is missing.
    """
    if args.list:
        print(describe_record(list_record(args.record, api_url=args.api_url)))
        return 0
    if args.out is None:
        raise AnomalyDetectorError("no folder to download to: give --out DIR")
    try:
        download_record(
            args.record,
            args.out,
            api_url=args.api_url,
            only=args.only,
            extract=not args.no_extract,
            verify=args.verify,
        )
    except KeyboardInterrupt:
        print(
            f"\nstopped; what has arrived stays in {args.out}: run the same command to go on",
            file=sys.stderr,
        )
        return 130
    print(f"record {args.record} is whole in {args.out}")
    return 0


def _get(url: str, what: str, retries: Retry, start: int | None = None) -> requests.Response:
    """Send a GET; with ``start``, for the bytes from there on, which are left to be read.

    No If-Range goes with it: a record's files never change and the checksum is verified at the end,
    while a server with other entity tags on each node would send the whole file every time.

    Raises:
        AnomalyDetectorError: no answer, or one that is of no use.
    """
    # Without "identity" a server may compress, and offsets would mean something else.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=retries))
            session.mount("https://", HTTPAdapter(max_retries=retries))
            response = session.get(
                url, headers=headers, stream=start is not None, timeout=_SILENCE_S
            )
    except requests.RequestException as error:
        raise AnomalyDetectorError(
            f"{what} cannot be read from {url} ({_one_line(error)}): check --api-url and the "
            "connection, then run the same command again"
        ) from error
    if response.status_code in (200, 206, 416):
        return response
    response.close()
    raise AnomalyDetectorError(
        f"{what} cannot be read, {url} answers {response.status_code} {response.reason}: check the "
        "record number and whether it is public, or run the same command later"
    )


def _record_file(entry: Any, url: str) -> RecordFile:
    try:
        name, size = str(entry["key"]), int(entry["size"])
        kind, _, digest = str(entry.get("checksum", "")).partition(":")
        address = str(entry["links"]["self"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnomalyDetectorError(
            f"{url} lists a file without key, size or links.self ({entry!r}): check --api-url"
        ) from error
    # The name becomes a path here: it must not lead out of the folder.
    if PurePosixPath(name).name != name or "\\" in name or name[:1] in ("", ".") or size < 0:
        raise AnomalyDetectorError(
            f"{url} lists the file {name!r} of {size} bytes, which is no plain file: "
            "download it by hand"
        )
    return RecordFile(name, size, digest.lower() if kind == "md5" else None, address)


def _is_whole(out: Path, file: RecordFile) -> bool:
    """Return whether a file got its own name, which it does after verification only."""
    path = out / file.name
    if not path.exists():
        return False
    size = path.stat().st_size
    if not path.is_file() or size != file.size:
        raise AnomalyDetectorError(
            f"{path} has {size} bytes but the record's file has {file.size}: "
            "remove it or choose another --out"
        )
    return True


def _download(file: RecordFile, out: Path, retries: Retry, progress: bool) -> None:
    part = out / f"{file.name}.part"
    left, furthest = retries, _size(part)
    try:
        if furthest > file.size:
            furthest = 0
        part.open("ab" if furthest else "wb").close()
        with _bar(file, file.name, progress, furthest) as bar:
            while (have := _size(part)) < file.size:
                try:
                    _fetch_rest(file, part, have, retries, bar)
                except requests.RequestException as error:
                    reached = _size(part)
                    if reached > furthest:  # it gets on
                        left, furthest = retries, reached
                    try:
                        left = left.increment("GET", file.url, error=error)
                    except MaxRetryError:
                        raise AnomalyDetectorError(
                            f"{file.name} stopped at {reached} of {file.size} bytes "
                            f"({_one_line(error)}): run the same command to go on"
                        ) from error
                    left.sleep()
    except OSError as error:
        raise AnomalyDetectorError(
            f"{part} cannot be written ({error.strerror or error}): "
            "make room or choose another --out, then run the same command"
        ) from error
    _verify(part, file, progress)
    part.replace(out / file.name)


def _fetch_rest(file: RecordFile, part: Path, have: int, retries: Retry, bar: tqdm[Any]) -> None:
    """Get what is missing of a part file, over one connection.

    Raises:
        requests.RequestException: the connection broke; what came is in the part file.
    """
    with _get(file.url, file.name, retries, have) as response:
        given = (response.status_code, response.headers.get("Content-Range"))
        if given != (206, f"bytes {have}-{file.size - 1}/{file.size}"):
            # The server knows no ranges, or means another file: what is there is of no use.
            have = 0
        with part.open("ab" if have else "wb") as stream:
            if not have and response.status_code != 200:
                raise requests.ConnectionError(f"server answers {given[0]} to a range request")
            bar.n = have
            bar.refresh()
            for chunk in response.iter_content(_CHUNK):
                have += len(chunk)
                if have > file.size:
                    raise AnomalyDetectorError(
                        f"{file.url} sends more than the {file.size} bytes of {file.name}: "
                        "check --api-url"
                    )
                stream.write(chunk)
                bar.update(len(chunk))
    if have < file.size:
        raise requests.ConnectionError("connection closed too early")


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


def _bar(file: RecordFile, title: str, progress: bool, initial: int = 0) -> tqdm[Any]:
    return tqdm(
        total=file.size, initial=initial, desc=title, unit="B", unit_scale=True, unit_divisor=1024,
        disable=not progress,
    )  # fmt: skip


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _one_line(error: BaseException) -> str:
    return as_one_line(error) or type(error).__name__


def _gigabytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} B"
