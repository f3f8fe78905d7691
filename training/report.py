"""One self-contained HTML file from sections of text, tables, figures and galleries.

A report is data (:class:`Report`), so that any part of the project can add sections to it; the
template turns it into HTML with every text escaped. Nothing is loaded from anywhere: pictures are
``data:`` URIs and the page's own content security policy forbids all else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray

from anomaly_detector.files import atomic_path
from anomaly_detector.metadata import ModelMetadata
from training.figures import heat_overlay, image_uri, png_uri, svg_uri

__all__ = [
    "Card",
    "KeyFigure",
    "Picture",
    "Report",
    "ReportSection",
    "Table",
    "frame_card",
    "model_card_section",
    "render_report",
    "write_report",
]

_TEMPLATES = Path(__file__).parent / "templates"
_THUMBNAIL_SIZE = 160


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        uri: ``data:`` URI.
        alt: what it shows, for readers who cannot see it.
        caption: text below; may be empty.
        wide: takes the whole width of the page; others stand side by side.
    """

    uri: str
    alt: str
    caption: str = ""
    wide: bool = False

    @classmethod
    def from_figure(
        cls,
        figure: Figure,
        alt: str,
        caption: str = "",
        *,
        wide: bool = False,
        vector: bool = True,
    ) -> Picture:
        """Take a matplotlib figure, as SVG or (with photographs in it) as PNG."""
        return cls(svg_uri(figure) if vector else png_uri(figure), alt, caption, wide)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        columns: the header.
        rows: as many cells each.
        caption: text above; may be empty.
        text_columns: number of leading columns that hold words and are aligned left; the others
            hold numbers and are aligned right.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: int = 1


@dataclass(frozen=True)
class KeyFigure:
    """A number to be seen first: name, value as text and a note below."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Card:
    """An entry of a gallery: pictures side by side with a title and lines of text below."""

    title: str
    lines: Sequence[str]
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class ReportSection:
    """A section of a report; its parts are shown in the order of the attributes.

    Attributes:
        title: heading; sections of one report need different ones.
        text: paragraphs.
        key_figures: numbers in large type.
        pictures: figures.
        tables: tables.
        gallery: small pictures in a grid.
        notes: paragraphs in small type at the end.
    """

    title: str
    text: Sequence[str] = ()
    key_figures: Sequence[KeyFigure] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    gallery: Sequence[Card] = ()
    notes: Sequence[str] = ()

    @property
    def anchor(self) -> str:
        """The section's id in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


@dataclass(frozen=True)
class Report:
    """A whole page: title, a line below it, sections, and a warning above them all."""

    title: str
    subtitle: str
    sections: Sequence[ReportSection]
    warning: str | None = None


def render_report(report: Report) -> str:
    """Give a report as HTML text.

    Raises:
        ValueError: a table's row has not as many cells as its header.
    """
    for section in report.sections:
        for table in section.tables:
            for row in table.rows:
                if len(row) != len(table.columns):
                    raise ValueError(f"table in {section.title!r}: row {row} for {table.columns}")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        # Frame names and paths are data that anybody may have chosen.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(report=report) + "\n"


def write_report(report: Report, path: Path) -> None:
    """Write a report; the file appears whole or not at all.

    Raises:
        AnomalyDetectorError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(render_report(report), encoding="utf-8", errors="backslashreplace")


def frame_card(
    title: str,
    lines: Sequence[str],
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.floating[Any]],
) -> Card:
    """Make a gallery entry of a frame (uint8 RGB [H, W, 3]) and its anomaly map (float [h, w])."""
    overlay = heat_overlay(image, anomaly_map, _THUMBNAIL_SIZE)
    return Card(
        title,
        lines,
        (
            Picture(image_uri(image, _THUMBNAIL_SIZE), f"Frame {title}"),
            Picture(image_uri(overlay), f"Anomaly map of frame {title}"),
        ),
    )


def model_card_section(metadata: ModelMetadata, file_name: str) -> ReportSection:
    """Show what a model file says about itself."""
    calibration = metadata.calibration
    source = calibration.method
    if calibration.false_alarm_rate is not None:
        source += (
            f", wanted false-alarm rate {calibration.false_alarm_rate:.2%} "
            f"from {calibration.frames} held-out normal frames"
        )
    quantiles = ", ".join(f"{p}: {value:.4g}" for p, value in calibration.quantiles.items())
    rows = [
        ("File", file_name),
        ("Name", metadata.name),
        ("Architecture", metadata.architecture),
        ("Scorer", metadata.scorer),
        ("Score unit", metadata.score_units),
        ("Threshold", f"{metadata.threshold:.6g}"),
        ("Calibration", source),
        ("Calibration score quantiles", quantiles or "none"),
        (
            "Input",
            f"{metadata.input_size}x{metadata.input_size} {metadata.color_order}, "
            f"shrunk by {metadata.resize_method}",
        ),
        ("Format version", str(metadata.format_version)),
    ]
    tables = [Table(("Field", "Value"), rows, text_columns=2)]
    for caption, mapping in (
        ("Training figures", metadata.metrics),
        ("Provenance", metadata.provenance),
    ):
        if mapping:
            cells = list(_flattened(mapping))
            tables.append(Table(("Field", "Value"), cells, caption, text_columns=2))
    return ReportSection("Model card", tables=tables)


def _flattened(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Give nested fields as ``outer.inner`` rows."""
    rows: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += _flattened(value, f"{name}.")
        elif isinstance(value, float):
            rows.append((name, f"{value:.6g}"))
        else:
            rows.append((name, value if isinstance(value, str) else json.dumps(value)))
    return rows
