"""The node's answers beside what offline scoring gave for the same frames."""

from __future__ import annotations

import csv
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomaly_detector.monitoring.scene import SceneStretch, scene_stretches
from anomaly_detector.scoring.tables import format_score
from anomaly_detector.stamps import SteadyTime, parse_stamp

if TYPE_CHECKING:
    from anomaly_detector.ros.node.detection_message import DetectionRecord

SCORE_TOLERANCE = 1e-4
"""By how much scores may differ: as a share of the score, or of the normalised score's scale where
that is larger. Normalised scores may differ by this number. A GPU may give other last digits."""


@dataclass(frozen=True)
class OfflineFrame:
    """A row of ``scores.csv`` of a bag, with scores as written there.

    Its time counts from the first frame, without steps of the clock; where the stamp is missing, it
    is that of the frame before.
    """

    name: str
    stamp_ns: int | None
    time_s: float
    score: str
    is_anomaly: bool
    normalized_score: str
    alarm: bool


@dataclass(frozen=True)
class Comparison:
    """Frame by frame, what the node said and what offline scoring said.

    An answer is None where there is none. ``extra`` counts answers to no frame, or to one that was
    answered already; ``scale`` is that of the model's normalised score, in the units of the score.
    """

    frames: Sequence[OfflineFrame]
    answers: Sequence[DetectionRecord | None]
    extra: int
    scale: float = 0.0

    @property
    def answered(self) -> list[DetectionRecord]:
        """The node's answers, in the order of the frames."""
        return [answer for answer in self.answers if answer is not None]

    @property
    def missing(self) -> list[str]:
        """Names of the frames that the node did not answer."""
        return [
            frame.name
            for frame, answer in zip(self.frames, self.answers, strict=True)
            if answer is None
        ]

    @property
    def other_scores(self) -> list[str]:
        """Names of the frames with another score or normalised score, in any bit."""
        return [
            frame.name
            for frame, answer in self.pairs()
            if format_score(answer.score) != frame.score
            or format_score(answer.normalized_score) != frame.normalized_score
        ]

    @property
    def far_scores(self) -> list[str]:
        """Names of the frames whose scores differ by more than :data:`SCORE_TOLERANCE`."""
        far = []
        for frame, answer in self.pairs():
            score, normalized = _number(frame.score), _number(frame.normalized_score)
            size = max(abs(score), abs(answer.score), self.scale)
            # Not "> tolerance": NaN is no pass.
            near = abs(answer.score - score) <= SCORE_TOLERANCE * size
            if not (near and abs(answer.normalized_score - normalized) <= SCORE_TOLERANCE):
                far.append(frame.name)
        return far

    @property
    def largest_difference(self) -> tuple[float, str]:
        """The largest difference of two scores, and the frame's name; 0 without any answer."""
        differences = [(abs(a.score - _number(f.score)), f.name) for f, a in self.pairs()]
        return max(differences, key=lambda item: item[0], default=(0.0, ""))

    @property
    def scores_text(self) -> str:
        """By how much the scores differ, in words."""
        largest, name = self.largest_difference
        if not largest:
            return "the scores do not differ"
        return (
            f"scores differ by at most {largest:.3g} (frame {name}), {len(self.far_scores)} of "
            f"{len(self.answered)} by more than the tolerance of {SCORE_TOLERANCE:g}"
        )

    @property
    def other_anomalies(self) -> list[str]:
        """Names of the frames that are an anomaly in only one of the two."""
        return [f.name for f, answer in self.pairs() if answer.is_anomaly != f.is_anomaly]

    @property
    def other_alarms(self) -> list[str]:
        """Names of the frames in which the alarm is on in only one of the two."""
        return [f.name for f, answer in self.pairs() if answer.alarm != f.alarm]

    @property
    def differences(self) -> dict[str, list[str]]:
        """What differs, in words, and the names of the frames; only what does."""
        found = {
            "without an answer": self.missing,
            "with another flag": self.other_anomalies,
            "with another alarm": self.other_alarms,
            "with another score": self.other_scores,
            "with a score beyond the tolerance": self.far_scores,
        }
        return {title: names for title, names in found.items() if names}

    @property
    def scene(self) -> list[SceneStretch]:
        """Stretches in which the node said that the scene as a whole was not the training's."""
        return scene_stretches((a.scene, f.time_s, a.score) for f, a in self.pairs())

    def pairs(self) -> Iterable[tuple[OfflineFrame, DetectionRecord]]:
        """Yield the frames that were answered, each with its answer."""
        for frame, answer in zip(self.frames, self.answers, strict=True):
            if answer is not None:
                yield frame, answer


def _number(text: str) -> float:
    """Return the float32 that a text of ``format_score`` stands for."""
    return float(np.float32(text))


def read_scores(path: Path) -> list[OfflineFrame]:
    """Read a ``scores.csv`` of a recording with stamps."""
    steady = SteadyTime()
    frames = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            stamp_ns = parse_stamp(row["stamp"]) if row["stamp"] else None
            if stamp_ns is not None:
                steady.add(stamp_ns)
            frames.append(
                OfflineFrame(
                    row["frame"],
                    stamp_ns,
                    steady.seconds or 0.0,
                    row["score"],
                    row["is_anomaly"] == "1",
                    row["normalized_score"],
                    row["alarm"] == "1",
                )
            )
    return frames


def compare(
    frames: Sequence[OfflineFrame], answers: Iterable[DetectionRecord], scale: float = 0.0
) -> Comparison:
    """Match each frame with the answer of its stamp; equal and missing ones in their order."""
    by_stamp: dict[int | None, deque[DetectionRecord]] = defaultdict(deque)
    for answer in answers:
        by_stamp[answer.stamp_ns].append(answer)
    own = [
        by_stamp[frame.stamp_ns].popleft() if by_stamp[frame.stamp_ns] else None for frame in frames
    ]
    return Comparison(frames, own, sum(len(left) for left in by_stamp.values()), scale)


def frame_ranges(names: Sequence[str]) -> list[str]:
    """Return frame numbers in ascending order with stretches as ``first-last``."""
    ranges: list[list[str]] = []
    for name in names:
        if ranges and int(name) == int(ranges[-1][-1]) + 1:
            ranges[-1][1:] = [name]
        else:
            ranges.append([name])
    return ["-".join(ends) for ends in ranges]
