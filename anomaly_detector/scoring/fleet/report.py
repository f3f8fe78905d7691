"""The report on a job: CSV, JSON, a page to read, and a table for the terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from anomaly_detector.drawing.page import (
    Cell,
    Curve,
    KeyFigure,
    Link,
    Page,
    Section,
    Table,
    write_page,
)
from anomaly_detector.files import atomic_path
from anomaly_detector.scoring.fleet.results import ResultFolder, SourceResult

_COLUMNS = tuple(item.name for item in fields(SourceResult))

_HEADS = ("recording", "status", "frames", "flagged", "alarms", "unreadable", "duration", "peak")

_COUNTS = ("frames", "flagged", "alarms", "unreadable")

_BINS = 240


def write_summaries(
    folder: ResultFolder, results: Sequence[SourceResult], job: Mapping[str, Any]
) -> None:
    """Write ``summary.csv``, ``summary.json`` and ``report.html``.

    Args:
        folder: the job's folder.
        results: one of each recording, in the job's order.
        job: what else is to be reported: ``model``, ``threshold``, options.

    Raises:
        AnomalyDetectorError: the folder cannot be written to, or jinja2 is missing.
    """
    with (
        atomic_path(folder.path / "summary.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(result) for result in results)
    document = {**job, "totals": _totals(results), "recordings": [asdict(r) for r in results]}
    with atomic_path(folder.path / "summary.json") as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    write_page(_page(folder, results, job), folder.path / "report.html")


def summary_table(results: Sequence[SourceResult]) -> str:
    """Return the summary as lines of aligned columns, the totals last."""
    totals = _totals(results)
    last = (f"{totals['recordings']} recordings", "", *(str(totals[name]) for name in _COUNTS))
    rows = [_HEADS, *(_cells(result) for result in results), (*last, "", "")]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _totals(results: Sequence[SourceResult]) -> dict[str, int]:
    failed = sum(result.status == "failed" for result in results)
    counts = {name: sum(getattr(result, name) for result in results) for name in _COUNTS}
    return {"recordings": len(results), "failed": failed, **counts}


def _cells(result: SourceResult) -> tuple[str, ...]:
    return (
        result.name,
        result.status,
        *(str(getattr(result, name)) for name in _COUNTS),
        "" if result.duration_s is None else f"{result.duration_s:.1f} s",
        "" if result.peak_score is None else f"{result.peak_score:.4g}",
    )


def _page(folder: ResultFolder, results: Sequence[SourceResult], job: Mapping[str, Any]) -> Page:
    totals = _totals(results)
    count, failed, unreadable = totals["recordings"], totals["failed"], totals["unreadable"]
    keys = [
        KeyFigure("recordings scored", str(count - failed), f"{failed} failed", failed > 0),
        KeyFigure(
            "frames scored", str(totals["frames"]), f"{unreadable} unreadable", unreadable > 0
        ),
        KeyFigure("frames flagged", str(totals["flagged"]), "score at or above the threshold"),
        KeyFigure("alarms", str(totals["alarms"]), "decision over time"),
    ]
    recordings = Table(
        [*_HEADS, "score over time"],
        [_row(folder, result) for result in results],
        text_columns=2,
        last_is_text=True,
        bad_rows=[index for index, r in enumerate(results) if r.status == "failed"],
    )
    note = (
        "A name leads to the scores of each frame, a number of alarms to these. The curve is the "
        "highest normalized score of each stretch, from 0 to 1; the dashed line is the threshold, "
        "0.5."
    )
    files = [
        (Link("summary.csv", "summary.csv"), "the same as a table"),
        (Link("summary.json", "summary.json"), "the same with all options"),
    ]
    remarks = {
        "Skipped": [(r.name, r.skipped) for r in results if r.skipped],
        "The scene as a whole": [(r.name, r.scene) for r in results if r.scene],
    }
    settings = [
        (name.replace("_", " "), "not given" if value is None else str(value))
        for name, value in job.items()
    ]
    sections = [
        Section("Summary", key_figures=keys),
        Section("Recordings", tables=[recordings], notes=[note]),
        *(
            Section(title, tables=[Table(("recording", "what"), rows, text_columns=2)])
            for title, rows in remarks.items()
            if rows
        ),
        Section(
            "Settings",
            tables=[
                Table(("what", "value"), settings, text_columns=2),
                Table(("file beside this page", "content"), files, text_columns=2),
            ],
        ),
    ]
    return Page(
        f"Anomaly scores of {count} recording{'s' if count != 1 else ''}",
        f"Model {job['model']}, threshold {job['threshold']:.6g}",
        sections,
    )


def _row(folder: ResultFolder, result: SourceResult) -> list[Cell]:
    cells: dict[str, Cell] = dict(zip(_HEADS, _cells(result), strict=True))
    if result.status != "scored":
        return [*cells.values(), result.error]
    scores = folder.scores(result.name)
    cells["recording"] = Link(scores.name, result.name)
    if result.alarms:
        cells["alarms"] = Link(folder.events(result.name).name, str(result.alarms))
    return [*cells.values(), _curve(scores)]


def _curve(table: Path) -> Cell:
    with table.open(newline="", encoding="utf-8") as file:
        scores = [float(row["normalized_score"]) for row in csv.DictReader(file)]
    if not scores:
        return ""
    size = -(-len(scores) // _BINS)
    peaks = [max(scores[start : start + size]) for start in range(0, len(scores), size)]
    return Curve(peaks, 0.5, f"normalized score over time, at most {max(peaks):.2f}")
