"""Download of a Zenodo record: resumable, checksum-verified, disk space checked first.

Made for the Hazards&Robots data set, tens of gigabytes in a few archives, over a connection that
may drop; any public record works. A file grows as ``NAME.part`` and gets its own name once it is
whole and its checksum has been verified, so a file with its own name needs no second look.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from training.archives import archive_stem, extract_archive

__all__ = [
    "API_URL",
    "RECORDS",
    "RecordFile",
    "RetryPolicy",
    "add_arguments",
    "describe_record",
    "download_record",
    "list_record",
    "run",
]

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
# Less than this between two dropped connections does not count as getting on.
_PROGRESS_BYTES = 1 << 20
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


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


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try.

    Attributes:
        attempts: failures in a row, without getting on in between, before giving up.
        first_wait_s: wait after the first failure, in seconds; doubled after each further one.
        longest_wait_s: upper limit of a wait, in seconds, also of what a server asks for.
        timeout_s: longest silence of the server, in seconds.
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    timeout_s: float = 30.0

    def wait(self, failures: int, response: requests.Response | None = None) -> None:
        """Wait after a failure; a server's ``Retry-After`` in seconds is honoured."""
        seconds = self.first_wait_s * 2 ** (failures - 1)
        asked = response.headers.get("Retry-After", "") if response is not None else ""
        if asked.isdigit():
            seconds = max(seconds, float(asked))
        time.sleep(min(seconds, self.longest_wait_s))


class _DroppedError(Exception):
    """The server or the way to it failed in a manner worth another try."""

    def __init__(self, reason: str, response: requests.Response | None = None) -> None:
        super().__init__(reason)
        self.response = response


def list_record(
    record_id: int, *, api_url: str = API_URL, policy: RetryPolicy | None = None
) -> list[RecordFile]:
    """Ask Zenodo which files a record holds.

    Args:
        record_id: the number at the end of the record's address.
        api_url: the API's address without ``/records``.
        policy: how long to try; None for the defaults.

    Returns:
        The files, in the record's order.

    Raises:
        AnomalyDetectorError: the record cannot be read, has no file, or a file's entry makes no
            sense.
    """
    policy = policy or RetryPolicy()
    url = f"{api_url.rstrip('/')}/records/{record_id}"
    failures = 0
    while True:
        try:
            with _get(url, {"Accept": "application/json"}, policy) as response:
                entries = _json(response)["files"]
            break
        except _DroppedError as error:
            failures += 1
            if failures >= policy.attempts:
                raise AnomalyDetectorError(
                    f"record {record_id} cannot be read from {url} ({error}): "
                    "check the connection and run the same command again"
                ) from error
            policy.wait(failures, error.response)
        except (ValueError, KeyError, TypeError) as error:
            raise AnomalyDetectorError(
                f"{url} is no record of Zenodo's API (no JSON with files): check --api-url"
            ) from error
    if not isinstance(entries, list):
        raise AnomalyDetectorError(f"{url} is no record of Zenodo's API: check --api-url")
    files = [_record_file(entry, url) for entry in entries]
    if not files:
        raise AnomalyDetectorError(
            f"record {record_id} at {url} holds no file: it may be restricted, choose another"
        )
    return files


def describe_record(files: Sequence[RecordFile]) -> str:
    """Give a table of a record's files."""
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
    policy: RetryPolicy | None = None,
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
        policy: how long to try; None for the defaults.

    Returns:
        The downloaded files.

    Raises:
        AnomalyDetectorError: no such record, too little disk space, a checksum that does not fit,
            a server that keeps failing, or an archive that cannot be extracted.
    """
    policy = policy or RetryPolicy()
    files = list_record(record_id, api_url=api_url, policy=policy)
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
    _check_space(out, files, missing, extract)
    if verify:
        for file in files:
            if file not in missing:
                _verify(out / file.name, file, progress)
    for file in missing:
        _download(file, out, policy, progress)
    if extract:
        for file in files:
            stem = archive_stem(file.name)
            if stem is not None and not (out / stem).is_dir():
                extract_archive(out / file.name, out / stem, progress=progress)
    return [out / file.name for file in files]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`run`."""
    known = "; ".join(f"{number}: {what}" for number, what in RECORDS.items())
    parser.add_argument("dataset", choices=["hazards-robots"], help="what to download")
    parser.add_argument("--out", type=Path, help="folder for the files (needed except for --list)")
    parser.add_argument(
        "--record",
        type=int,
        default=DEFAULT_RECORD,
        metavar="ID",
        help=f"Zenodo record (default %(default)s). {known}",
    )
    parser.add_argument("--list", action="store_true", help="show the record's files and stop")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only files that fit, such as 'metadata*'; may be given several times",
    )
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


def _get(url: str, headers: dict[str, str], policy: RetryPolicy) -> requests.Response:
    """Open a streamed GET; the caller closes the response.

    Raises:
        _DroppedError: worth another try.
        AnomalyDetectorError: an answer that will not change.
    """
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=policy.timeout_s)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise AnomalyDetectorError(f"{url} is no http address: check --api-url") from error
    except requests.exceptions.MissingSchema as error:
        raise AnomalyDetectorError(f"{url} has no http:// or https://: check --api-url") from error
    except requests.RequestException as error:
        raise _DroppedError(_one_line(error)) from error
    if response.status_code in (200, 206, 416):
        return response
    response.close()
    status = f"{response.status_code} {response.reason}"
    if response.status_code in _RETRIED_STATUS:
        raise _DroppedError(f"server says {status}", response)
    raise AnomalyDetectorError(
        f"{url} answers {status}: check the record number and whether it is public"
    )


def _json(response: requests.Response) -> Any:
    try:
        body = response.content
    except requests.RequestException as error:
        raise _DroppedError(_one_line(error)) from error
    return json.loads(body)


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
    """Tell whether a file got its own name, which it does after verification only."""
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


def _check_space(
    out: Path, files: Sequence[RecordFile], missing: Sequence[RecordFile], extract: bool
) -> None:
    needed = 0
    for file in missing:
        part = _part(out, file)
        needed += file.size - (min(part.stat().st_size, file.size) if part.is_file() else 0)
    if extract:
        for file in files:
            stem = archive_stem(file.name)
            if stem is not None and not (out / stem).is_dir():
                needed += round(file.size * _EXTRACTION_FACTOR)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise AnomalyDetectorError(
            f"{out} has {_gigabytes(free)} free but {_gigabytes(needed)} are needed"
            f"{' (with the extracted frames)' if extract else ''}: make room, choose another "
            "--out, or take less with --only or --no-extract"
        )


def _part(out: Path, file: RecordFile) -> Path:
    return out / f"{file.name}.part"


def _download(file: RecordFile, out: Path, policy: RetryPolicy, progress: bool) -> None:
    part = _part(out, file)
    failures, furthest = 0, _size(part)
    with tqdm(
        total=file.size,
        initial=min(furthest, file.size),
        desc=file.name,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=not progress,
    ) as bar:
        while True:
            try:
                _fetch_rest(file, part, policy, bar)
                break
            except _DroppedError as error:
                reached = _size(part)
                if reached >= furthest + _PROGRESS_BYTES:
                    failures = 0
                furthest = max(furthest, reached)
                failures += 1
                if failures >= policy.attempts:
                    raise AnomalyDetectorError(
                        f"{file.name} stopped at {reached} of {file.size} bytes after "
                        f"{failures} failures ({error}): run the same command to go on"
                    ) from error
                policy.wait(failures, error.response)
            except OSError as error:
                raise AnomalyDetectorError(
                    f"{part} cannot be written ({error.strerror or error}): "
                    "make room or choose another --out, then run the same command"
                ) from error
    try:
        _verify(part, file, progress)
    except AnomalyDetectorError:
        part.unlink()
        raise
    part.replace(out / file.name)


def _fetch_rest(file: RecordFile, part: Path, policy: RetryPolicy, bar: tqdm[Any]) -> None:
    """Get what is missing of a part file, over one connection.

    No If-Range goes with the request: a record's files never change and the checksum is verified
    at the end, while a server with weak entity tags, or other ones on each node, would answer it
    with the whole file every time.

    Raises:
        _DroppedError: the connection broke; what came is in the part file.
    """
    have = _size(part)
    if have > file.size:
        part.unlink()
        have = 0
    if have == file.size:
        part.touch()
        return
    # Without "identity" a server may compress, and offsets would mean something else.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _get(file.url, headers, policy) as response:
        if response.status_code == 416 or (have and not _continues(response, have, file.size)):
            # The server knows no ranges, or means another file: what is there is of no use.
            have = 0
            if response.status_code != 200:
                part.unlink(missing_ok=True)
                raise _DroppedError(f"server answers {response.status_code} to a range request")
        bar.n = have
        bar.refresh()
        with part.open("ab" if have else "wb") as stream:
            try:
                for chunk in response.iter_content(_CHUNK):
                    stream.write(chunk[: file.size - have])
                    bar.update(min(len(chunk), file.size - have))
                    have += len(chunk)
                    if have > file.size:
                        raise AnomalyDetectorError(
                            f"{file.url} sends more than the {file.size} bytes of {file.name}: "
                            "check --api-url"
                        )
            except requests.RequestException as error:
                raise _DroppedError(_one_line(error)) from error
    if have < file.size:
        raise _DroppedError(f"connection closed at {have} of {file.size} bytes")


def _continues(response: requests.Response, have: int, size: int) -> bool:
    """Tell whether an answer to a range request goes on where the part file ends."""
    expected = f"bytes {have}-{size - 1}/{size}"
    return response.status_code == 206 and response.headers.get("Content-Range") == expected


def _verify(path: Path, file: RecordFile, progress: bool) -> None:
    if file.md5 is None:
        print(f"warning: the record gives no MD5 of {file.name}: not verified", file=sys.stderr)
        return
    digest = hashlib.md5(usedforsecurity=False)
    with (
        path.open("rb") as stream,
        tqdm(
            total=file.size,
            desc=f"verifying {file.name}",
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not progress,
        ) as bar,
    ):
        while block := stream.read(_CHUNK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != file.md5:
        deleted = path.suffix == ".part"
        raise AnomalyDetectorError(
            f"{file.name} has MD5 {digest.hexdigest()} but the record says {file.md5}: "
            + ("the part file was deleted, " if deleted else f"remove {path}, then ")
            + "run the same command to download it again"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _one_line(error: BaseException) -> str:
    return as_one_line(error) or type(error).__name__


def _gigabytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} B"
