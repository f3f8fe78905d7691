"""Scores over time: what is drawn, and which frames and spans are chosen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex

from anomaly_detector.drawing.timeline import (
    ANOMALY_COLOR,
    draw_timeline,
    flag_intervals,
    timeline_figure,
    top_frames,
)
from anomaly_detector.errors import AnomalyDetectorError

STAMPS = np.arange(100) / 10
SCORES = np.sin(STAMPS)


def test_top_frames_are_the_highest_that_lie_apart() -> None:
    scores = np.zeros(100)
    scores[[10, 11, 12, 50, 90]] = [3.0, 5.0, 4.0, 2.0, 4.5]
    assert top_frames(STAMPS, scores, 3) == [11, 50, 90]
    assert top_frames(STAMPS, scores, 2) == [11, 90]
    assert top_frames(STAMPS, scores, 3, apart_s=0.05) == [11, 12, 90]
    assert top_frames(STAMPS, scores, 0) == []
    assert top_frames(STAMPS[:1], scores[:1]) == [0]
    # Of equal scores the first.
    assert top_frames(STAMPS, np.ones(100), 2) == [0, 10]


def test_flag_intervals() -> None:
    flags = np.zeros(100, bool)
    flags[[0, 1, 40, 99]] = True
    assert flag_intervals(STAMPS, flags) == [(0.0, 0.2), (4.0, 4.1), (9.9, 9.9)]
    assert flag_intervals(STAMPS, ~np.zeros(100, bool)) == [(0.0, 9.9)]
    assert flag_intervals(STAMPS, np.zeros(100, bool)) == []


def test_alarms_are_drawn_where_they_were() -> None:
    figure = timeline_figure(STAMPS, SCORES, 0.5, alarms=[(1.0, 2.5), (7.0, 7.0)])
    axes = figure.axes[0]
    spans = [
        tuple(map(float, line.get_xdata()))
        for line in axes.lines
        if len(line.get_xdata()) == 2 and to_hex(line.get_color()) == ANOMALY_COLOR.lower()
    ]
    assert spans == [(1.0, 2.5), (7.0, 7.0)]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels.count("alarm") == 1
    plain = timeline_figure(STAMPS, SCORES, 0.5)
    assert "alarm" not in [text.get_text() for text in plain.legends[0].get_texts()]


def test_writes_a_picture_with_thumbnails_of_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "timeline.png"
    wide, tall = np.full((60, 120, 3), 9, np.uint8), np.full((120, 60, 3), 9, np.uint8)
    thumbnails = [(1.0, "wide", wide, np.eye(4)), (2.0, "tall", tall, np.eye(4))]
    draw_timeline(path, STAMPS, SCORES, 0.5, thumbnails=thumbnails)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[1] == 1210
    draw_timeline(path, STAMPS, SCORES, 0.5)
    alone = cv2.imread(str(path))
    assert alone is not None
    assert alone.shape[0] < picture.shape[0]
    assert [item.name for item in tmp_path.iterdir()] == ["timeline.png"]
    figure = timeline_figure(STAMPS, SCORES, 0.5, thumbnails=thumbnails)
    assert {"A", "B"} <= {text.get_text() for text in figure.axes[0].texts}
    assert [axes.get_title() for axes in figure.axes[1:]] == ["A   wide", "B   tall"]


def test_nothing_is_written_when_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one per frame"):
        draw_timeline(tmp_path / "timeline.png", STAMPS[:0], SCORES[:0], 0.5)
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_is_imported_when_a_figure_is_drawn_and_its_lack_is_told() -> None:
    code = (
        "import sys, numpy as np, anomaly_detector.drawing.timeline as t; "
        "assert 'matplotlib' not in sys.modules; "
        "sys.modules['matplotlib'] = None; "
        "t.timeline_figure(np.arange(3.0), np.arange(3.0), 1.0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert AnomalyDetectorError.__name__ in last
    assert "pip install matplotlib" in last
