"""Scored frames for tests of the black box, and what it has recorded of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import START_NS
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmFilter, AlarmSettings, AlarmState
from anomaly_detector.black_box import (
    BLACK_BOX_FORMATS,
    BlackBox,
    BlackBoxFrame,
    BlackBoxSettings,
    EncodedPicture,
)
from anomaly_detector.images.image import Image
from anomaly_detector.model.detector import Detection
from anomaly_detector.poses import Place

both_formats = pytest.mark.parametrize("format_name", BLACK_BOX_FORMATS)

DEADLINE_S = 30.0
THRESHOLD = 1.0
FPS = 20


def picture(number: int) -> NDArray[np.uint8]:
    """Make a grey picture [48, 64, 3] whose brightness tells its number modulo 200."""
    return np.full((48, 64, 3), 20 + number % 200, np.uint8)


def number_of(image: NDArray[np.uint8]) -> int:
    """Return the number of a decoded :func:`picture`, modulo 200."""
    return round(float(image.mean())) - 20


def jpeg(size: int = 0) -> bytes:
    """Make a JPEG file, filled up to a size behind its end."""
    _, data = cv2.imencode(".jpg", picture(0))
    return bytes(data).ljust(size, b"\0")


def detection(score: float) -> Detection:
    return Detection(
        score, min(score / 2, 1.0), THRESHOLD, score >= THRESHOLD, np.zeros((2, 2), np.float32), 1.0
    )


def frame(
    image: Image | EncodedPicture,
    score: float,
    decision: AlarmState,
    stamp_ns: int | None,
    arrival_ns: int = 0,
    place: Place | None = None,
) -> BlackBoxFrame:
    return BlackBoxFrame(image, detection(score), decision, stamp_ns, arrival_ns, "camera", place)


class Box(BlackBox):
    """Waits at its end for a disk that others keep busy for longer than a node would."""

    def __exit__(self, *_: object) -> None:
        assert self.close(DEADLINE_S)


def open_box(folder: Path, format_name: str = "jpeg", **options: Any) -> BlackBox:
    """Open a black box that records 2 s before and 1 s after an alarm, but for other options.

    It takes no samples.
    """
    settings = {"seconds_before": 2.0, "seconds_after": 1.0, "sample_rate": 0.0} | options
    return Box(BlackBoxSettings(str(folder), format_name, **settings), model="corridor")


class Drive:
    """Feeds a black box with frames as a node would, the alarm being the flag of the frame.

    Args:
        box: the black box.
        fps: frames a second of the stamps; they are fed as fast as the box takes them.
        start_ns: stamp of the first frame.
        place: where the frame of a stamp was taken; None without poses.
    """

    def __init__(
        self,
        box: BlackBox,
        fps: float = FPS,
        start_ns: int = START_NS,
        place: Callable[[int], Place] | None = None,
    ) -> None:
        self.box = box
        self._place = place
        self.period_ns = round(1e9 / fps)
        self.now_ns = start_ns
        self.fed: list[tuple[int, float]] = []
        self._decisions = AlarmFilter(AlarmSettings(mode="off"))

    def feed(
        self, scores: Iterable[float], make: Callable[[int], Image | EncodedPicture] | None = None
    ) -> None:
        """Add one frame a score, of :func:`picture` with the numbers of the frames."""
        for score in scores:
            image = Image(picture(len(self.fed)), "rgb") if make is None else make(len(self.fed))
            state = self._decisions.update(detection(score), stamp_ns=self.now_ns)
            wait_until(lambda: self.box.statistics.frames_waiting < 8)
            place = None if self._place is None else self._place(self.now_ns)
            self.box.add(frame(image, score, state, self.now_ns, place=place))
            self.fed.append((self.now_ns, score))
            self.now_ns += self.period_ns

    def normal(self, seconds: float, **options: Any) -> None:
        """Add normal frames; options as in :meth:`feed`."""
        self.feed([0.5] * round(seconds * 1e9 / self.period_ns), **options)

    def anomaly(self, seconds: float, score: float = 1.5, **options: Any) -> None:
        """Add anomalous frames; options as in :meth:`feed`."""
        self.feed([score] * round(seconds * 1e9 / self.period_ns), **options)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "deadline passed"
        time.sleep(0.002)


def events_in(folder: Path) -> list[Path]:
    """Return the events' folders, by number."""
    return sorted(folder.glob("event_*"), key=lambda path: path.name[-6:])


def event_json(path: Path) -> dict[str, Any]:
    """Read event.json strictly: NaN and Infinity are no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path}")

    content = json.loads((path / "event.json").read_text(), parse_constant=refuse)
    assert isinstance(content, dict)
    return content
