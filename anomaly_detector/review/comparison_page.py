"""The page and the file of a comparison of two models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomaly_detector.drawing.page import (
    Card,
    KeyFigure,
    Page,
    Picture,
    Section,
    Table,
    data_uri,
    write_page,
)
from anomaly_detector.files import atomic_path
from anomaly_detector.review.comparison import By, Comparison, Finding, Kind, Rate

_GROUPS: Sequence[tuple[str, By, tuple[Kind, ...], str]] = (
    ("True events lost", "old", ("anomaly",), "The old model alarms, the new one does not."),
    ("True events found anew", "new", ("anomaly",), "Only the new model alarms."),
    ("True events that both miss", "neither", ("anomaly",), "Judged an anomaly; no alarm now."),
    ("False alarms that came", "new", ("normal", "drive"), "Only the new model alarms."),
    ("False alarms that went", "old", ("normal", "drive"), "Only the old model alarms."),
    ("True events that both find", "both", ("anomaly",), ""),
    ("False alarms of both", "both", ("normal", "drive"), ""),
)

_ONE: Sequence[By] = ("old", "new")


def write_comparison(
    comparison: Comparison,
    page: Path,
    table: Path,
    more: Sequence[Section] = (),
    figures: Mapping[str, Any] | None = None,
) -> None:
    """Write the HTML page, and all figures as JSON.

    Args:
        comparison: the result.
        page: the page's file.
        table: the JSON file.
        more: further sections.
        figures: further entries of the JSON file.

    Raises:
        AnomalyDetectorError: a file cannot be written, or jinja2 is missing.
    """
    contents = comparison.to_dict() | dict(figures or {})
    with atomic_path(table) as temporary:
        text = json.dumps(contents, indent=2, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
    write_page(comparison_page(comparison, more), page)


def comparison_page(comparison: Comparison, more: Sequence[Section] = ()) -> Page:
    """Arrange a comparison as a page."""
    groups = [_group(title, text, comparison.of(by, *kinds)) for title, by, kinds, text in _GROUPS]
    return Page(
        f"{comparison.new.file} in place of {comparison.old.file}",
        comparison.verdict,
        [_summary(comparison), *more, *(group for group in groups if group)],
        f"Failed: {' and '.join(comparison.failures)}." if comparison.failures else None,
    )


def _summary(comparison: Comparison) -> Section:
    counts, keys = comparison.counts, []
    if counts:
        note = f"of {counts['anomaly']} judged anomalies"
        lost, found = (len(comparison.of(by, "anomaly")) for by in _ONE)
        keys = [
            KeyFigure("True events lost", str(lost), note, lost > 0),
            KeyFigure("True events found anew", str(found), note),
        ]
    note = "judged events and stretches of normal drives"
    went, came = (len(comparison.of(by, "normal", "drive")) for by in _ONE)
    keys += [
        KeyFigure("False alarms that went", str(went), note),
        KeyFigure("False alarms that came", str(came), note),
    ]
    tables = []
    if comparison.old.rate and comparison.new.rate:
        tables.append(_rates(comparison, comparison.old.rate, comparison.new.rate))
    text = [
        "Both models have scored every frame anew, each with its own view and threshold. An event "
        "counts for a model when the alarm is on in a frame that its verdict is for. In each pair "
        "of pictures the left one is the old model's, the right one the new model's."
    ]
    if left_out := counts["unsure"] + counts["unreviewed"]:
        text.append(f"{left_out} events are unsure or unreviewed, and left out.")
    if silent := len(comparison.of("neither", "normal")):
        text.append(f"{silent} events judged normal raise no alarm in either model now.")
    return Section("Summary", text, key_figures=keys, tables=tables, notes=comparison.notes)


def _rates(comparison: Comparison, old: Rate, new: Rate) -> Table:
    sides = ((comparison.old, old), (comparison.new, new))
    rows = [
        (
            side.file,
            f"{rate.value:.2%}",
            "{:.2%} to {:.2%}".format(*rate.interval),
            f"{rate.flagged} of {rate.frames}",
            str(rate.effective),
            f"{side.threshold:.6g}",
            f"{side.input_size}x{side.input_size}",
        )
        for side, rate in sides
    ]
    columns = (
        "model", "false-alarm rate", "95 % interval", "flagged", "independent frames",
        "threshold", "input",
    )  # fmt: skip
    caption = (
        f"Normal frames of {', '.join(comparison.drives)}; a rate of the new model above "
        f"{old.interval[1]:.2%} fails"
    )
    bad = [1] if new.value > old.interval[1] else []
    return Table(columns, rows, caption, bad_rows=bad)


def _group(title: str, text: str, items: Sequence[Finding]) -> Section | None:
    if not items:
        return None
    notes = []
    if missing := sum(not item.pictures for item in items):
        notes.append(f"{missing} more have no picture here; the JSON file lists them.")
    cards = [_card(item) for item in items if item.pictures]
    return Section(f"{title}: {len(items)}", [text] if text else [], gallery=cards, notes=notes)


def _card(item: Finding) -> Card:
    frames = f", {item.frames} frames" if item.frames > 1 else ""
    lines = [
        f"frame {item.frame.rpartition('/')[2]}{frames}",
        f"normalised score {item.old:.2f} before, {item.new:.2f} now",
        *([f"note: {item.note}"] if item.note else []),
    ]
    pictures = [
        Picture(data_uri("image/jpeg", data), f"{item.frame} with the {which} model's overlay")
        for which, data in zip(("old", "new"), item.pictures, strict=False)
    ]
    return Card(item.case, lines, pictures)
