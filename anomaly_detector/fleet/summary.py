"""A job's summary: CSV, JSON, a page to read, and a table for the terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anomaly_detector.files import atomic_path
from anomaly_detector.fleet.results import ResultFolder, SourceResult

__all__ = ["summary_table", "write_summaries"]

_COLUMNS = tuple(item.name for item in fields(SourceResult))

_HEADS = ("recording", "status", "frames", "flagged", "alarms", "unreadable", "duration", "peak")

_COUNTS = ("frames", "flagged", "alarms", "unreadable")

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
.alarm { background: #e6001a22; } .failed { background: #8883; }
svg { display: block; width: 100%; height: 2rem; } dt { font-weight: 600; }
"""

_BINS = 240


def write_summaries(
    folder: ResultFolder, results: Sequence[SourceResult], job: Mapping[str, Any]
) -> None:
    """Write ``summary.csv``, ``summary.json`` and ``report.html``.

    Args:
        folder: the job's folder.
        results: one of each recording, in the job's order.
        job: what else is to be told: model, threshold, options.

    Raises:
        AnomalyDetectorError: the folder cannot be written to.
    """
    with (
        atomic_path(folder.path / "summary.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(result) for result in results)
    document = {**job, "totals": _totals(results), "recordings": [asdict(r) for r in results]}
    with atomic_path(folder.path / "summary.json") as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with atomic_path(folder.path / "report.html") as temporary:
        temporary.write_text(_page(folder, results, job), encoding="utf-8")


def summary_table(results: Sequence[SourceResult]) -> str:
    """Give the summary as lines of aligned columns, the totals last."""
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


def _page(folder: ResultFolder, results: Sequence[SourceResult], job: Mapping[str, Any]) -> str:
    """Give one HTML page that loads nothing from anywhere."""
    totals = _totals(results)
    facts = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in {**totals, **job}.items()
    )
    heads = "".join(f"<th>{escape(head)}</th>" for head in _HEADS)
    rows = "".join(_row(folder, result) for result in results)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>Anomaly scores of {len(results)} recordings</title><style>{_STYLE}</style>"
        f"<h1>Anomaly scores of {len(results)} recordings</h1><table><thead><tr>{heads}</tr>"
        f"</thead><tbody>{rows}</tbody></table>"
        "<p>The curve below a recording is the highest normalized score of each stretch of it, "
        f"from 0 to 1; the line is the threshold, 0.5.</p><dl>{facts}</dl></html>\n"
    )


def _row(folder: ResultFolder, result: SourceResult) -> str:
    kind = "failed" if result.status == "failed" else "alarm" if result.alarms else ""
    cells = [escape(cell) for cell in _cells(result)]
    if result.status == "scored":
        table = folder.scores(result.name)
        cells[0] = f'<a href="{quote(table.name)}">{cells[0]}</a>'
        detail = _curve(table)
    else:
        detail = escape(result.error)
    line = "".join(f"<td>{cell}</td>" for cell in cells)
    return (
        f'<tr class="{kind}">{line}</tr>'
        f'<tr class="{kind}"><td colspan="{len(cells)}">{detail}</td></tr>'
    )


def _curve(table: Path) -> str:
    with table.open(newline="", encoding="utf-8") as file:
        scores = [float(row["normalized_score"]) for row in csv.DictReader(file)]
    size = max(1, -(-len(scores) // _BINS))
    peaks = [max(scores[start : start + size]) for start in range(0, len(scores), size)]
    points = " ".join(f"{index},{100 - 100 * peak:.0f}" for index, peak in enumerate(peaks))
    return (
        f'<svg viewBox="0 0 {max(1, len(peaks) - 1)} 100" preserveAspectRatio="none" '
        'role="img" aria-label="normalized score over time">'
        '<path d="M0 50H9999" stroke="#e6001a" vector-effect="non-scaling-stroke"/>'
        f'<polyline points="{points}" fill="none" stroke="currentColor" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )
