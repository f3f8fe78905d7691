"""Scores over time as one picture: threshold, anomalies, alarms, events, and chosen frames.

Reports, the demo and the replay of a bag draw the same figure. It is a
:class:`matplotlib.figure.Figure` without global state. matplotlib is imported when a figure is
drawn: a robot that only scores needs none. Colours are those of Okabe and Ito, which colour-blind
readers can tell apart.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path, printable

Thumbnail = tuple[float, str, NDArray[np.uint8], NDArray[np.floating[Any]]]
"""Place on the x axis, title, frame (uint8 RGB [H, W, 3]) and its anomaly map (float [h, w])."""

TruthEvent = tuple[float, float, str]
"""Start and end on the x axis, and the name of the hazard."""

FloatArray = NDArray[np.float64]

NORMAL_COLOR = "#0072B2"
ANOMALY_COLOR = "#D55E00"
THRESHOLD_COLOR = "#222222"
MUTED_COLOR = "#667085"
CLASS_COLORS = (
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#8C6D31",
    "#7B61A8",
    "#B0413E",
    "#6B8E23",
)
STYLE: dict[str, Any] = {
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

_MAX_LINE_POINTS = 3000
_SLANTED_LABELS = 40
_LETTER_WIDTH = 0.0065
"""Of an event's name, as a share of the axes' width."""


def import_matplotlib() -> Any:
    """Import matplotlib, which only those need who draw.

    Raises:
        AnomalyDetectorError: it is not installed.
    """
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure
    except ImportError as error:
        raise AnomalyDetectorError(
            f"drawing a timeline needs the package matplotlib ({error}): pip install matplotlib, "
            "or apt install python3-matplotlib on a ROS host"
        ) from error
    return matplotlib


def timeline_figure(
    stamps_s: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    threshold: float,
    truth_events: Sequence[TruthEvent] = (),
    thumbnails: Sequence[Thumbnail] = (),
    *,
    alarms: Sequence[tuple[float, float]] = (),
    title: str = "Anomaly score during the patrol",
    x_label: str = "Time since start (s)",
    score_label: str = "Anomaly score",
) -> Any:
    """Draw the score over time with the threshold, the true hazards and chosen frames.

    Args:
        stamps_s: float [N], ascending.
        scores: float [N].
        threshold: frames at or above it are drawn as anomalous.
        truth_events: shaded and named.
        thumbnails: frames to show below, each beside its anomaly map, and lettered in the line.
        alarms: start and end of each alarm on the x axis, drawn as a band above it.
        title: of the figure.
        x_label: x label, with the unit.
        score_label: y label, with the unit; the axis is logarithmic where they ask for it.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        AnomalyDetectorError: matplotlib is missing.
        ValueError: no frame, or arrays of different length.
    """
    stamps, values = np.asarray(stamps_s, np.float64), np.asarray(scores, np.float64)
    if stamps.size == 0 or stamps.shape != values.shape or stamps.ndim != 1:
        raise ValueError(f"stamps {stamps.shape} and scores {values.shape}: give one per frame")
    columns = 3 if len(thumbnails) in (5, 6, 9) else 4
    rows = -(-len(thumbnails) // columns)
    with import_matplotlib().rc_context(STYLE):
        figure = new_figure(11, 3.6 + 1.95 * rows)
        heights = [3.4, 1.9 * rows] if rows else [3.4]
        grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
        axes = figure.add_subplot(grid[0])
        if wants_log_scale(values) and threshold > 0:
            axes.set_yscale("log")
        shown = _extremes(values)
        axes.plot(stamps[shown], values[shown], color=NORMAL_COLOR, linewidth=1.0, zorder=3)
        anomalous = shown[values[shown] >= threshold]
        axes.plot(
            stamps[anomalous],
            values[anomalous],
            ".",
            color=ANOMALY_COLOR,
            markersize=4,
            zorder=4,
            label="flagged frame",
        )
        axes.axhline(
            threshold,
            color=THRESHOLD_COLOR,
            linestyle="--",
            linewidth=1.2,
            zorder=5,
            label=f"threshold {threshold:.4g}",
        )
        axes.margins(x=0.01)
        _shade_events(axes, truth_events)
        _mark_alarms(axes, alarms)
        _letter_thumbnails(axes, stamps, values, [thumbnail[0] for thumbnail in thumbnails])
        axes.set(xlabel=x_label, ylabel=score_label)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        # In the title's line; in words that matplotlib 3.5 knows, which Humble's Ubuntu has.
        figure.legend(loc="upper right", ncol=4, fontsize=8.5, borderaxespad=0.2)
        if rows:
            # One grid for all of them: matplotlib 3.5 lays one for each row over the others.
            cells = grid[1].subgridspec(rows, columns, wspace=0.06)
            _draw_thumbnails(figure, cells, columns, thumbnails)
    return figure


def save_figure(figure: Any, target: Any, **options: Any) -> None:
    """Save a figure as matplotlib does; a recording in it may have any name."""
    for text in figure.findobj(lambda item: hasattr(item, "set_text")):
        if (shown := printable(text.get_text())) != text.get_text():
            text.set_text(shown)
    with import_matplotlib().rc_context(STYLE), warnings.catch_warnings():
        # What the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(target, **options)


def draw_timeline(path: Path, *arguments: Any, **options: Any) -> None:
    """Write a :func:`timeline_figure` of these arguments as a PNG file, whole or not at all."""
    figure = timeline_figure(*arguments, **options)
    with atomic_path(path) as temporary:
        # Otherwise the version of matplotlib is written into the file.
        save_figure(figure, temporary, dpi=110, format="png", metadata={"Software": None})


def flag_intervals(
    stamps_s: NDArray[np.floating[Any]], flags: NDArray[np.bool_]
) -> list[tuple[float, float]]:
    """Return the runs of frames whose flag is set, as start and end on the x axis.

    A run ends with the frame after it, the last one perhaps with the last frame.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    last = len(stamps_s) - 1
    return [
        (float(stamps_s[start]), float(stamps_s[min(stop, last)]))
        for start, stop in edges.reshape(-1, 2)
    ]


def top_frames(
    stamps_s: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    count: int = 6,
    apart_s: float = 1.0,
) -> list[int]:
    """Return the frames with the highest scores that show different views, in order of time.

    They are ``count`` at most, and ``apart_s`` seconds or more apart.
    """
    chosen: list[int] = []
    for index in np.argsort(-np.asarray(scores, np.float64), kind="stable").tolist():
        if len(chosen) == count:
            break
        if all(abs(stamps_s[index] - stamps_s[other]) >= apart_s for other in chosen):
            chosen.append(index)
    return sorted(chosen, key=lambda i: float(stamps_s[i]))


def heat_overlay(
    image: NDArray[np.uint8], anomaly_map: NDArray[np.floating[Any]], size: int = 192
) -> NDArray[np.uint8]:
    """Lay an anomaly map over its frame.

    The map is drawn on its own scale, from its median (clear) to its maximum (bright), so that
    maps show where the evidence lies and not how much of it there is.

    Returns:
        uint8 RGB [size, size, 3], as the frame is.
    """
    base = resized(image, size).astype(np.float32)
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
    """Return whether scores are positive and spread over more than a factor of 30."""
    return bool(scores.size and scores.min() > 0 and scores.max() > 30 * scores.min())


def resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return an RGB picture in another size, uint8 [size, size, 3]."""
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure of a size in inches, with a canvas of its own."""
    library = import_matplotlib()
    figure = library.figure.Figure(figsize=(width, height), layout="constrained")
    library.backends.backend_agg.FigureCanvasAgg(figure)
    return figure


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
    colors = {name: CLASS_COLORS[i % len(CLASS_COLORS)] for i, name in enumerate(names)}
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
        axes.fill_between([], [], [], color=MUTED_COLOR, alpha=0.3, label="true hazard")


def _mark_alarms(axes: Any, alarms: Sequence[tuple[float, float]]) -> None:
    for index, (start, end) in enumerate(alarms):
        # A line, not an area: the alarm of a single frame is to be seen too.
        axes.plot(
            [start, end],
            [0.012, 0.012],
            transform=axes.get_xaxis_transform(),
            color=ANOMALY_COLOR,
            linewidth=6,
            solid_capstyle="butt" if end > start else "projecting",
            zorder=2,
            label="alarm" if index == 0 else None,
        )


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
            bbox={"boxstyle": "circle,pad=0.18", "fc": "white", "ec": THRESHOLD_COLOR, "lw": 0.8},
            zorder=6,
        )


def _draw_thumbnails(
    figure: Any, cells: Any, columns: int, thumbnails: Sequence[Thumbnail]
) -> None:
    for index, (_, title, image, anomaly_map) in enumerate(thumbnails):
        axes = figure.add_subplot(cells[divmod(index, columns)])
        axes.set_axis_off()
        label = f"{_letter(index)}   {title}"
        axes.set_title(label, fontsize=8.5, fontweight="normal", pad=3)
        size = 192
        gap = np.full((size, 8, 3), 255, np.uint8)
        pair = [resized(image, size), gap, heat_overlay(image, anomaly_map, size)]
        axes.imshow(np.concatenate(pair, axis=1))
        for x, text in ((size / 2, "frame"), (1.5 * size + 8, "anomaly map")):
            axes.text(x, size + 5, text, ha="center", va="top", fontsize=7.5, color=MUTED_COLOR)
