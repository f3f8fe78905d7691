"""``python -m training download``: fetch the Hazards&Robots data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from anomaly_detector.errors import AnomalyDetectorError
from training.data.hazards_robots.download import (
    API_URL,
    describe_record,
    download_record,
    list_record,
)

_RECORDS = {
    7074958: "release of the 2022 outlier-exposure paper, 132,838 corridor frames",
    7729764: "extended release of 2023, 324,408 corridor frames",
    7859211: "final release of 2023, of the Data in Brief paper, 324,408 corridor frames",
}
"""Hazards&Robots records, oldest first."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    known = "; ".join(f"{number}: {what}" for number, what in _RECORDS.items())
    parser.add_argument("dataset", choices=["hazards-robots"], help="what to download")
    parser.add_argument("--out", type=Path, help="folder for the files (needed except for --list)")
    parser.add_argument(
        "--record", type=int, default=min(_RECORDS), metavar="ID",
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
    """Run the command line and return the exit code: 130 when stopped with Ctrl-C.

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
