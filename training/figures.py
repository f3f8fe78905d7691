"""Figures for reports, as :class:`matplotlib.figure.Figure` objects without global state.

Every function makes its own figure; none touches ``pyplot``. :func:`svg_uri`, :func:`png_uri` and
:func:`image_uri` turn figures and pictures into ``data:`` URIs for a self-contained HTML file.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.metrics import Curve

__all__ = [
    "Thumbnail",
    "TruthEvent",
    "heat_overlay",
    "histogram_figure",
    "image_uri",
    "png_uri",
    "pr_figure",
    "roc_figure",
    "scatter_figure",
    "svg_uri",
    "timeline_figure",
    "wants_log_scale",
]

Thumbnail = tuple[str, NDArray[np.uint8], NDArray[np.floating[Any]]]
"""Title, frame (uint8 RGB [H, W, 3]) and its anomaly map (float [h, w])."""

TruthEvent = tuple[float, float, str]
"""Start and end on the x axis, and the name of the hazard."""

FloatArray = NDArray[np.float64]

NORMAL_COLOR = "#0072B2"
ANOMALY_COLOR = "#D55E00"
_THRESHOLD_COLOR = "#222222"
_MUTED = "#667085"
_CLASS_COLORS = (
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#8C6D31",
    "#7B61A8",
    "#B0413E",
    "#6B8E23",
)
_STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#98a2b3",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7ec",
    "legend.frameon": False,
    # The same figure gives the same bytes.
    "svg.hashsalt": "anomaly_detector",
}

_MARKERS = ("o", "^", "s")
_MAX_LINE_POINTS = 3000
_SLANTED_LABELS = 40
_LETTER_WIDTH = 0.0065
"""Of an event's name, as a share of the axes' width."""


def roc_figure(pooled: tuple[str, Curve], classes: Sequence[tuple[str, Curve]] = ()) -> Figure:
    """Draw the pooled ROC curve and, thin, those of the classes; each with its label."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _square_axes("ROC curve", "False-alarm rate", "Recall (hazards flagged)")
        axes.plot([0, 1], [0, 1], "--", color=_MUTED, linewidth=1, label="chance")
        _draw_curves(axes, pooled, classes)
        axes.legend(loc="lower right", fontsize=8)
    return figure


def pr_figure(
    pooled: tuple[str, Curve], classes: Sequence[tuple[str, Curve]] = (), chance: float = 0.0
) -> Figure:
    """Draw the pooled precision-recall curve and, thin, those of the classes.

    Args:
        pooled: label and curve.
        classes: labels and curves.
        chance: precision of random flags: the share of anomalous frames.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _square_axes(
            "Precision-recall curve", "Recall (hazards flagged)", "Precision"
        )
        axes.axhline(chance, linestyle="--", color=_MUTED, linewidth=1, label="chance (pooled)")
        _draw_curves(axes, pooled, classes)
        axes.legend(loc="best", fontsize=8)
    return figure


def histogram_figure(
    groups: Sequence[tuple[str, FloatArray]],
    thresholds: Sequence[tuple[str, float]],
    score_label: str = "Anomaly score",
) -> Figure:
    """Draw score histograms of groups of frames, each as a share of its group.

    Args:
        groups: name and scores, float [n]; the first is drawn in the colour of normal frames.
        thresholds: name and value, drawn as vertical lines.
        score_label: x label, with the unit.
    """
    filled = [(name, scores) for name, scores in groups if scores.size]
    everything = np.concatenate([scores for _, scores in filled])
    marks = [value for _, value in thresholds]
    log = wants_log_scale(everything) and min(marks, default=1.0) > 0
    low, high = min(everything.min(), *marks), max(everything.max(), *marks)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.geomspace(low, high, 61) if log else np.linspace(low, high, 61)
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(9.6, 3.5)
        axes = figure.add_subplot()
        for index, (name, scores) in enumerate(filled):
            color = NORMAL_COLOR if name == groups[0][0] else _series_color(index)
            weights = np.full(scores.size, 100 / scores.size)
            label = f"{name} ({scores.size} frames)"
            axes.hist(scores, edges.tolist(), weights=weights, color=color, alpha=0.55, label=label)
        for index, (name, value) in enumerate(thresholds):
            style = ("--", ":", "-.")[index % 3]
            label = f"{name}: {value:.4g}"
            axes.axvline(value, color=_THRESHOLD_COLOR, linestyle=style, linewidth=1.4, label=label)
        if log:
            axes.set_xscale("log")
        axes.set(title="Scores", xlabel=score_label, ylabel="Share of its frames (%)")
        axes.legend(loc="best", fontsize=8.5)
    return figure


def scatter_figure(
    groups: Sequence[tuple[str, FloatArray]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    first_is_normal: bool = True,
) -> Figure:
    """Draw groups of points, each in its colour and, beyond eight of them, with its marker.

    Args:
        groups: name and points, float [n, 2]; later groups are drawn over earlier ones.
        title: of the figure.
        x_label: x label.
        y_label: y label.
        first_is_normal: draw the first group small and grey: blue would look like a class.
    """
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(9.6, 5.2)
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(groups):
            normal = first_is_normal and index == 0
            number = index - first_is_normal
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=10 if normal else 18,
                c=_MUTED if normal else _CLASS_COLORS[number % len(_CLASS_COLORS)],
                marker="o" if normal else _MARKERS[number // len(_CLASS_COLORS) % len(_MARKERS)],
                alpha=0.35 if normal else 0.75,
                linewidths=0,
                label=name,
                zorder=2 + index,
            )
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        figure.legend(loc="outside right upper", fontsize=8.5, markerscale=1.6)
    return figure


def timeline_figure(
    stamps_s: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    threshold: float,
    truth_events: Sequence[TruthEvent] = (),
    thumbnails: Sequence[Thumbnail] = (),
    *,
    title: str = "Anomaly score during the patrol",
    x_label: str = "Time since start (s)",
    score_label: str = "Anomaly score",
    thumbnail_stamps_s: Sequence[float] | None = None,
    log_scale: bool | None = None,
) -> Figure:
    """Draw the score over time with the threshold, the true hazards and chosen frames.

    Args:
        stamps_s: float [N], ascending.
        scores: float [N].
        threshold: frames at or above it are drawn as flagged.
        truth_events: shaded and named.
        thumbnails: frames to show below, each beside its anomaly map.
        title: of the figure.
        x_label: x label, with the unit.
        score_label: y label, with the unit.
        thumbnail_stamps_s: where the thumbnails lie on the x axis; they are then lettered, in
            the line and in their titles.
        log_scale: logarithmic scores; None decides by :func:`wants_log_scale`.

    Raises:
        ValueError: no frame, or arrays or thumbnail stamps of different length.
    """
    stamps, values = np.asarray(stamps_s, np.float64), np.asarray(scores, np.float64)
    if stamps.size == 0 or stamps.shape != values.shape or stamps.ndim != 1:
        raise ValueError(f"stamps {stamps.shape} and scores {values.shape}: give one per frame")
    if thumbnail_stamps_s is not None and len(thumbnail_stamps_s) != len(thumbnails):
        raise ValueError(f"{len(thumbnails)} thumbnails, {len(thumbnail_stamps_s)} stamps for them")
    columns = 3 if len(thumbnails) in (5, 6, 9) else 4
    rows = -(-len(thumbnails) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(11, 3.6 + 1.95 * rows)
        grid = figure.add_gridspec(1 + rows, 1, height_ratios=[3.4] + [1.9] * rows)
        axes = figure.add_subplot(grid[0])
        log = wants_log_scale(values) if log_scale is None else log_scale
        if log and threshold > 0:
            axes.set_yscale("log")
        shown = _extremes(values)
        axes.plot(stamps[shown], values[shown], color=NORMAL_COLOR, linewidth=1.0, zorder=3)
        flagged = shown[values[shown] >= threshold]
        axes.plot(
            stamps[flagged],
            values[flagged],
            ".",
            color=ANOMALY_COLOR,
            markersize=4,
            zorder=4,
            label="flagged frame",
        )
        axes.axhline(
            threshold,
            color=_THRESHOLD_COLOR,
            linestyle="--",
            linewidth=1.2,
            zorder=5,
            label=f"threshold {threshold:.4g}",
        )
        axes.margins(x=0.01)
        _shade_events(axes, truth_events)
        _letter_thumbnails(axes, stamps, values, thumbnail_stamps_s or ())
        axes.set(xlabel=x_label, ylabel=score_label)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.legend(loc="outside upper right", ncols=4, fontsize=8.5)
        lettered = thumbnail_stamps_s is not None
        _draw_thumbnails(figure, grid, columns, thumbnails, lettered)
    return figure


def heat_overlay(
    image: NDArray[np.uint8], anomaly_map: NDArray[np.floating[Any]], size: int = 192
) -> NDArray[np.uint8]:
    """Lay an anomaly map over its frame.

    The map is drawn on its own scale, from its median (clear) to its maximum (bright), so that
    maps show where the evidence lies and not how much of it there is.

    Args:
        image: uint8 RGB [H, W, 3].
        anomaly_map: float [h, w].
        size: height and width of the result, pixels.

    Returns:
        uint8 RGB [size, size, 3].
    """
    base = _resized(image, size).astype(np.float32)
    grey = base.mean(axis=2, keepdims=True).repeat(3, axis=2)
    heat = cv2.resize(
        np.asarray(anomaly_map, np.float32), (size, size), interpolation=cv2.INTER_LINEAR
    )
    low, high = float(np.median(heat)), float(heat.max())
    strength = np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)
    colors = cv2.applyColorMap(np.asarray(strength * 255, np.uint8), cv2.COLORMAP_INFERNO)
    rgb = cv2.cvtColor(colors, cv2.COLOR_BGR2RGB).astype(np.float32)
    alpha = (0.15 + 0.8 * np.sqrt(strength))[:, :, np.newaxis]
    return np.asarray(np.clip((1 - alpha) * 0.8 * grey + alpha * rgb, 0, 255), np.uint8)


def wants_log_scale(scores: FloatArray) -> bool:
    """Tell whether scores are positive and spread over more than a factor of 30."""
    return bool(scores.size and scores.min() > 0 and scores.max() > 30 * scores.min())


def svg_uri(figure: Figure) -> str:
    """Give a figure as an SVG ``data:`` URI; letters are drawn as outlines."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _uri("image/svg+xml", buffer.getvalue())


def png_uri(figure: Figure, dpi: int = 110) -> str:
    """Give a figure as a PNG ``data:`` URI."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=dpi)
    return _uri("image/png", buffer.getvalue())


def image_uri(image: NDArray[np.uint8], size: int | None = None) -> str:
    """Give an RGB picture as a PNG ``data:`` URI.

    Args:
        image: uint8 RGB [H, W, 3].
        size: height and width to enlarge it to, pixels; None keeps them.
    """
    shown = image if size is None else _resized(image, size)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
    return _uri("image/png", encoded.tobytes())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _square_axes(title: str, x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = _new_figure(4.9, 4.6)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_aspect("equal")
    return figure, axes


def _series_color(index: int) -> str:
    return ANOMALY_COLOR if index <= 1 else _CLASS_COLORS[(index - 2) % len(_CLASS_COLORS)]


def _draw_curves(
    axes: Any, pooled: tuple[str, Curve], classes: Sequence[tuple[str, Curve]]
) -> None:
    # With more curves than colours, a legend helps nobody: they become a grey bundle.
    colored = len(classes) <= len(_CLASS_COLORS)
    for index, (label, curve) in enumerate(classes):
        color = _CLASS_COLORS[index] if colored else "#b8bec9"
        name = label if colored else ("classes" if index == 0 else None)
        axes.plot(curve.x, curve.y, color=color, linewidth=1.1, label=name)
    label, curve = pooled
    axes.plot(curve.x, curve.y, color=ANOMALY_COLOR, linewidth=2.2, label=label)


def _extremes(values: FloatArray) -> NDArray[np.int64]:
    """Choose the frames to draw of a long recording: lowest and highest of every short stretch."""
    if values.size <= _MAX_LINE_POINTS:
        return np.arange(values.size, dtype=np.int64)
    edges = np.linspace(0, values.size, _MAX_LINE_POINTS // 2 + 1).astype(np.int64)
    picks = [
        pick
        for a, b in itertools.pairwise(edges)
        for pick in (a + values[a:b].argmin(), a + values[a:b].argmax())
    ]
    return np.unique(np.array(picks, dtype=np.int64))


def _shade_events(axes: Any, events: Sequence[TruthEvent]) -> None:
    names = list(dict.fromkeys(name for _, _, name in events))
    colors = {name: _CLASS_COLORS[i % len(_CLASS_COLORS)] for i, name in enumerate(names)}
    low, high = axes.get_xlim()
    places = sorted(((start + end) / 2, len(name)) for start, end, name in events)
    # Short events in a row leave no room for level words; very many leave none at all.
    crowded = any(
        (b - a) / (high - low) < _LETTER_WIDTH * (m + n + 2) / 2
        for (a, m), (b, n) in itertools.pairwise(places)
    )
    slant = {"rotation": 35, "ha": "left"} if crowded else {"ha": "center"}
    for start, end, name in events:
        axes.axvspan(start, end, color=colors[name], alpha=0.25, linewidth=0, zorder=1)
        if len(events) <= _SLANTED_LABELS:
            axes.annotate(
                name,
                ((start + end) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                va="bottom",
                rotation_mode="anchor",
                fontsize=8,
                color="#344054",
                **slant,
            )
    if len(events) > _SLANTED_LABELS:
        for name in names:
            axes.fill_between([], [], [], color=colors[name], alpha=0.35, label=name)
    elif events:
        axes.fill_between([], [], [], color=_MUTED, alpha=0.3, label="true hazard")


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _letter_thumbnails(
    axes: Any, stamps: FloatArray, values: FloatArray, where: Sequence[float]
) -> None:
    for index, stamp in enumerate(where):
        nearest = int(np.abs(stamps - stamp).argmin())
        axes.annotate(
            _letter(index),
            (stamps[nearest], values[nearest]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold",
            bbox={"boxstyle": "circle,pad=0.18", "fc": "white", "ec": _THRESHOLD_COLOR, "lw": 0.8},
            zorder=6,
        )


def _draw_thumbnails(
    figure: Figure, grid: Any, columns: int, thumbnails: Sequence[Thumbnail], lettered: bool
) -> None:
    for index, (title, image, anomaly_map) in enumerate(thumbnails):
        row, column = divmod(index, columns)
        if column == 0:
            cells = grid[1 + row].subgridspec(1, columns, wspace=0.06)
        axes = figure.add_subplot(cells[column])
        size = 192
        gap = np.full((size, 8, 3), 255, np.uint8)
        pair = [_resized(image, size), gap, heat_overlay(image, anomaly_map, size)]
        axes.imshow(np.concatenate(pair, axis=1))
        axes.set_axis_off()
        label = f"{_letter(index)}   {title}" if lettered else title
        axes.set_title(label, fontsize=8.5, fontweight="normal", pad=3)
        for x, text in ((size / 2, "frame"), (1.5 * size + 8, "anomaly map")):
            axes.text(x, size + 5, text, ha="center", va="top", fontsize=7.5, color=_MUTED)
