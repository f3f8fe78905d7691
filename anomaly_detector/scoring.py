"""Offline scoring: a recording in, a table of scores out."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from anomaly_detector.detector import Detection, Detector
from anomaly_detector.files import atomic_path
from anomaly_detector.sources import Frame, FrameSource

__all__ = ["ScoreSummary", "format_score", "format_stamp", "score_frames", "write_scores"]


@dataclass(frozen=True)
class ScoreSummary:
    """What :func:`write_scores` did: frames scored, flagged and skipped."""

    scored: int
    flagged: int
    unreadable: int


def score_frames(detector: Detector, source: FrameSource) -> Iterator[tuple[Frame, Detection]]:
    """Score a recording frame by frame, exactly as the node does.

    Raises:
        SourceError: no frame is readable.
        ModelError: the model fails.
    """
    for frame in source:
        yield frame, detector.detect(frame.pixels)


def write_scores(
    detector: Detector, source: FrameSource, output: Path, *, progress: bool = True
) -> ScoreSummary:
    """Score a recording into a CSV file with the columns frame, stamp, score, is_anomaly.

    The stamp is in seconds with nine decimals, empty for a folder of images; is_anomaly is 0 or 1.
    The file appears when all frames are scored.

    Raises:
        SourceError: no frame is readable.
        ModelError: the model fails.
        AnomalyDetectorError: the output cannot be written.
    """
    scored = flagged = 0
    with atomic_path(output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "stamp", "score", "is_anomaly"])
        results = score_frames(detector, source)
        for frame, detection in tqdm(
            results, "scoring", len(source), unit="frame", disable=not progress
        ):
            writer.writerow(
                [
                    frame.name,
                    "" if frame.stamp_ns is None else format_stamp(frame.stamp_ns),
                    format_score(detection.score),
                    int(detection.is_anomaly),
                ]
            )
            scored += 1
            flagged += detection.is_anomaly
    return ScoreSummary(scored, flagged, len(source.unreadable))


def format_score(score: float) -> str:
    """Give the shortest text that reads back as the same float32."""
    return str(np.float32(score))


def format_stamp(stamp_ns: int) -> str:
    """Give nanoseconds as seconds with nine decimals, without going through a float."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"
