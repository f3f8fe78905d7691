"""What the benchmarks share: command line and report, files of frames, memory."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.benchmarking.camera import parse_size
from anomaly_detector.benchmarking.machine import machine
from anomaly_detector.cli.arguments import add_exclude
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from anomaly_detector.model.shipped import resolve_model

_OPTIONS: dict[str, dict[str, Any]] = {
    "--model": {
        "type": resolve_model,
        "default": "corridor",
        "help": "model file, or name of a shipped one (%(default)s)",
    },
    "--size": {"type": parse_size, "default": "640x480", "metavar": "WIDTHxHEIGHT"},
    "--hz": {"type": float, "default": 30.0, "help": "of the camera (%(default)s)"},
    "--topic": {"help": "image topic, for bags with several"},
    "--seed": {"type": int, "default": 0},
    "--json": {"type": Path, "metavar": "FILE", "help": "write the figures there too"},
}


def options(doc: str | None, *names: str) -> argparse.ArgumentParser:
    """Return a parser with ``--json`` and other shared options.

    Args:
        doc: docstring of the benchmark.
        names: the shared options that it takes.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in (*names, "--json"):
        if name == "--exclude":
            add_exclude(parser, "frames of the test drive to leave out")
        else:
            parser.add_argument(name, **_OPTIONS[name])
    return parser


def row_options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser for a benchmark that keeps a row of each measurement of the drives."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shared", type=Path, default=Path("../shared/data"), help="the data (%(default)s)")
    add("--out", type=Path, required=True, metavar="FOLDER", help="for rows, models and frames")
    return parser


def end_children_on_sigterm() -> None:
    """Have SIGTERM end this process and those that it started, as Ctrl-C in a terminal does."""

    def end(number: int, _: Any) -> None:
        for child in multiprocessing.active_children():
            child.kill()  # one that is forked has this handler, too
        # One that is just being started is in nobody's hands yet.
        for children in Path("/proc/self/task").glob("*/children"):
            for pid in children.read_text(encoding="utf-8").split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], tuple[Mapping[str, Any], bool]],
) -> int:
    """Parse the command line, measure, and write ``--json``.

    Args:
        parser: from :func:`options`.
        measure: prints and returns the figures, and whether every bar is met.

    Returns:
        The exit code: 1 for an error in one line, or a missed bar.
    """
    end_children_on_sigterm()
    try:
        arguments = parser.parse_args()
        where = machine()
        figures, is_met = measure(arguments)
        if arguments.json is not None:
            with atomic_path(arguments.json) as temporary:
                report = json.dumps({"machine": where, **figures}, indent=2)
                temporary.write_text(report + "\n", encoding="utf-8")
    except AnomalyDetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if is_met else 1


def resumable(measure: Callable[[], int]) -> int:
    """Measure what goes on where it was stopped, and return the exit code.

    It is that of ``measure``, 1 for an error in one line, or 130 for Ctrl-C.
    """
    end_children_on_sigterm()
    try:
        return measure()
    except AnomalyDetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return 130


def judge(bars: Mapping[str, bool]) -> bool:
    """Print whether each bar is met; return whether all are."""
    for text, is_met in bars.items():
        print(f"{'ok    ' if is_met else 'MISSED'} {text}")
    return all(bars.values())


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table, each row as soon as it is measured."""
    print(f"| {' | '.join(head)} |\n|---" + "|---:" * (len(head) - 1) + "|", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def measure_durations(run: Callable[[], object], seconds: float) -> list[float]:
    """Call a function again and again; return the duration of each call, seconds."""
    durations = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run()
        durations.append(time.perf_counter() - start)
    return durations


def write_jpegs(
    folder: Path, pictures: Iterable[NDArray[np.uint8]], count: int, quality: int = 95
) -> None:
    """Make a folder of JPEG files, no two alike.

    Args:
        folder: must not exist.
        pictures: uint8 BGR [H, W, 3]; they repeat until there are enough files.
        count: number of files.
        quality: of JPEG.
    """
    encoded = []
    for picture in pictures:
        done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        encoded.append(data.tobytes())
    folder.mkdir()
    for index in range(count):
        # Bytes after a JPEG's end marker are ignored: files that differ, without encoding each.
        data_of_frame = encoded[index % len(encoded)] + index.to_bytes(4, "big")
        (folder / f"{index:06d}.jpg").write_bytes(data_of_frame)


def anonymous_mib() -> float:
    """Return the memory that this process really holds on to, MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


@contextmanager
def peak_anonymous_mib(interval_s: float = 0.02) -> Iterator[list[float]]:
    """Sample :func:`anonymous_mib` during the block; the one-item list holds the peak."""
    peak = [anonymous_mib()]
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(interval_s):
            peak[0] = max(peak[0], anonymous_mib())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
