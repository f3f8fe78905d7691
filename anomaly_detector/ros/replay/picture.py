"""The timeline of a replay: the node's scores and alarms, and the frames with the highest ones."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.drawing.timeline import (
    Thumbnail,
    TruthEvent,
    draw_timeline,
    flag_intervals,
    top_frames,
)
from anomaly_detector.files import printable
from anomaly_detector.images.image import Image, to_rgb
from anomaly_detector.ros.replay.session import ReplayResult

if TYPE_CHECKING:
    from anomaly_detector.ros.node.detection_message import DetectionRecord
    from anomaly_detector.ros.replay.comparison import OfflineFrame

Answered: TypeAlias = "Sequence[tuple[OfflineFrame, DetectionRecord]]"


def bag_name(result: ReplayResult) -> str:
    """Return the bag's name with that of the folder it lies in: many bags are named ``bag``."""
    return printable("/".join(result.source.path.absolute().parts[-2:]))


def top_answers(answered: Answered) -> Answered:
    """Return the frames with the highest scores, with their answers."""
    return [answered[index] for index in top_frames(*_times_and_scores(answered))]


def _times_and_scores(answered: Answered) -> tuple[NDArray[Any], NDArray[Any]]:
    times = np.array([frame.time_s for frame, _ in answered])
    return times, np.array([answer.score for _, answer in answered])


def draw_replay(path: Path, result: ReplayResult, truth: Sequence[TruthEvent] = ()) -> bool:
    """Draw the node's scores over time into a PNG; return whether there was anything to draw.

    ``truth`` are start and end of true hazards, seconds since the first frame, and their names.
    """
    # A bag that jumps back in time is drawn in the order of its stamps.
    answered = sorted(result.comparison.pairs(), key=lambda pair: pair[0].time_s)
    if not answered:
        return False
    top = {pair[0].name: pair for pair in top_answers(answered)}
    seconds, scores = _times_and_scores(answered)
    thumbnails: list[Thumbnail] = []
    result.source.view = result.detector.view
    for frame in result.source:
        if (pair := top.pop(frame.name, None)) is not None:
            second = pair[0].time_s
            anomaly_map = result.detector.detect(frame).anomaly_map
            title = f"{second:.1f} s, score {pair[1].score:.4g}"
            thumbnails.append((second, title, _thumbnail(frame.pixels), anomaly_map))
    draw_timeline(
        path,
        seconds,
        scores,
        result.detector.threshold,
        truth,
        thumbnails,
        alarms=flag_intervals(seconds, np.array([answer.alarm for _, answer in answered])),
        title=f"Replay of {bag_name(result)}: what the node said",
        score_label=textwrap.fill(f"Anomaly score ({result.detector.metadata.score_units})", 38),
    )
    return True


def _thumbnail(pixels: Image) -> NDArray[np.uint8]:
    """Return a small RGB copy for a thumbnail, uint8 [192, 192, 3]."""
    rgb = to_rgb(pixels)
    return np.asarray(cv2.resize(rgb, (192, 192), interpolation=cv2.INTER_AREA), np.uint8)
