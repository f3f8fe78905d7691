"""Figures for reports, as :class:`matplotlib.figure.Figure` objects without global state.

Every function makes its own figure; none touches ``pyplot``. :func:`figure_uri` and
:func:`image_uri` turn figures and pictures into ``data:`` URIs for a self-contained HTML file.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from anomaly_detector.drawing.page import data_uri
from anomaly_detector.drawing.timeline import (
    ANOMALY_COLOR,
    CLASS_COLORS,
    MUTED_COLOR,
    NORMAL_COLOR,
    STYLE,
    THRESHOLD_COLOR,
    FloatArray,
    new_figure,
    save_figure,
    wants_log_scale,
)

if TYPE_CHECKING:  # it imports scikit-learn, which takes seconds
    from training.evaluation.metrics import Curve

_MARKERS = ("o", "^", "s")


def roc_figure(pooled: tuple[str, Curve], classes: Sequence[tuple[str, Curve]] = ()) -> Figure:
    """Draw the pooled ROC curve and, thin, those of the classes; each with its label."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _square_axes("ROC curve", "False-alarm rate", "Recall (hazards flagged)")
        axes.plot([0, 1], [0, 1], "--", color=MUTED_COLOR, linewidth=1, label="chance")
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
    with matplotlib.rc_context(STYLE):
        figure, axes = _square_axes(
            "Precision-recall curve", "Recall (hazards flagged)", "Precision"
        )
        axes.axhline(
            chance, linestyle="--", color=MUTED_COLOR, linewidth=1, label="chance (pooled)"
        )
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
        groups: name and scores, float [n]; the first is of normal frames.
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
    with matplotlib.rc_context(STYLE):
        figure: Figure = new_figure(9.6, 3.5)
        axes = figure.add_subplot()
        for name, scores in filled:
            color = NORMAL_COLOR if name == groups[0][0] else ANOMALY_COLOR
            weights = np.full(scores.size, 100 / scores.size)
            label = f"{name} ({scores.size} frames)"
            axes.hist(scores, edges.tolist(), weights=weights, color=color, alpha=0.55, label=label)
        for index, (name, value) in enumerate(thresholds):
            style = ("--", ":", "-.")[index % 3]
            label = f"{name}: {value:.4g}"
            axes.axvline(value, color=THRESHOLD_COLOR, linestyle=style, linewidth=1.4, label=label)
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
    with matplotlib.rc_context(STYLE):
        figure: Figure = new_figure(9.6, 5.2)
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(groups):
            normal = first_is_normal and index == 0
            number = index - first_is_normal
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=10 if normal else 18,
                c=MUTED_COLOR if normal else CLASS_COLORS[number % len(CLASS_COLORS)],
                marker="o" if normal else _MARKERS[number // len(CLASS_COLORS) % len(_MARKERS)],
                alpha=0.35 if normal else 0.75,
                linewidths=0,
                label=name,
                zorder=2 + index,
            )
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        figure.legend(loc="outside right upper", fontsize=8.5, markerscale=1.6)
    return figure


def figure_uri(figure: Figure, *, vector: bool = True) -> str:
    """Return a figure as a ``data:`` URI: SVG with letters as outlines, or PNG."""
    buffer = io.BytesIO()
    if vector:
        save_figure(figure, buffer, format="svg", metadata={"Date": None})
    else:
        save_figure(figure, buffer, format="png", dpi=110)
    return data_uri("image/svg+xml" if vector else "image/png", buffer.getvalue())


def _square_axes(title: str, x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = new_figure(4.9, 4.6)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_aspect("equal")
    return figure, axes


def _draw_curves(
    axes: Any, pooled: tuple[str, Curve], classes: Sequence[tuple[str, Curve]]
) -> None:
    # With more curves than colours, a legend helps nobody: they become a grey bundle.
    colored = len(classes) <= len(CLASS_COLORS)
    for index, (label, curve) in enumerate(classes):
        color = CLASS_COLORS[index] if colored else "#b8bec9"
        name = label if colored else ("classes" if index == 0 else None)
        axes.plot(curve.x, curve.y, color=color, linewidth=1.1, label=name)
    label, curve = pooled
    axes.plot(curve.x, curve.y, color=ANOMALY_COLOR, linewidth=2.2, label=label)
