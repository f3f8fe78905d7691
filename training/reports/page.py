"""Parts of reports on models: figures, frames with their anomaly maps, the model card."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from anomaly_detector.drawing.page import (
    THUMBNAIL_SIZE,
    Card,
    Picture,
    Section,
    Table,
    frame_picture,
    image_uri,
)
from anomaly_detector.drawing.timeline import heat_overlay
from anomaly_detector.model.metadata import ModelMetadata
from training.reports.figures import figure_uri

if TYPE_CHECKING:  # it imports scikit-learn, which takes seconds
    from training.evaluation.metrics import Interval


def figure_picture(
    figure: Figure, alt: str, caption: str = "", *, wide: bool = False, vector: bool = True
) -> Picture:
    """Return a matplotlib figure as a picture: SVG or (with photographs in it) PNG."""
    return Picture(figure_uri(figure, vector=vector), alt, caption, wide)


def frame_card(
    title: str,
    lines: Sequence[str],
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.floating[Any]],
) -> Card:
    """Make a gallery entry of a frame (uint8 RGB [H, W, 3]) and its anomaly map (float [h, w])."""
    overlay = heat_overlay(image, anomaly_map, THUMBNAIL_SIZE)
    return Card(
        title,
        lines,
        (
            frame_picture(image, f"Frame {title}"),
            Picture(image_uri(overlay), f"Anomaly map of frame {title}"),
        ),
    )


def number_text(value: float, missing: str = "n/a") -> str:
    """Return a figure of merit as text; NaN is missing."""
    return missing if math.isnan(value) else f"{value:.3f}"


def percent_text(value: float, missing: str = "n/a") -> str:
    """Return a share in percent; NaN is missing."""
    return missing if math.isnan(value) else f"{100 * value:.1f} %"


def interval_text(interval: Interval, narrow: bool) -> str:
    """Return a figure of merit with its interval, and a mark if that is too narrow."""
    return f"{interval}{' *' if narrow and not math.isnan(interval.low) else ''}"


def range_text(interval: Interval) -> str:
    """Return the interval alone, to be followed by more text; empty without one."""
    if math.isnan(interval.low):
        return ""
    return f"95 %: {interval.low:.3f} to {interval.high:.3f}; "


def flag_text(score: float, threshold: float) -> str:
    """Return a frame's score and whether the threshold flags it."""
    return f"score {score:.4g}, {'flagged' if score >= threshold else 'not flagged'}"


def table_of(
    rows: Sequence[Mapping[str, str]], caption: str = "", *, text_columns: int = 1
) -> Table:
    """Make a table of rows, at least one, that name the column of each cell."""
    return Table(tuple(rows[0]), [tuple(row.values()) for row in rows], caption, text_columns)


def model_card_section(metadata: ModelMetadata, file_name: str) -> Section:
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
            f"resized by {metadata.resize_method}",
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
    return Section("Model card", tables=tables)


def _flattened(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested fields as ``outer.inner`` rows."""
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
