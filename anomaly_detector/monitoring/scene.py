"""Whether the scene as a whole is that of the training, judged from the stream of scores.

A model of Monday flags every frame on Friday when chairs and light have changed. That is one
finding, not an alarm without end. :class:`SceneWatch` tells it from a single event:

- The unit is a second of the stream, with the median of its scores. It is *out of range* above
  the calibrated 95 % quantile, and *flagged* at the threshold (or at the 99 % quantile, where that
  is higher).
- A second counts when the picture has moved since the last one that counted. A robot that stands
  before a box sees one place, however long it waits. Until the first second in range since the
  start, every second counts.
- The scene *differs* when of the last 60 seconds that count (30 are enough) half are out of range
  (so their median is), or a quarter are flagged, and no single event explains it: the longest
  stretch of such seconds is nine tenths of all, or the others have that share without it, too.
- It is *as trained* again when less than a quarter are out of range and an eighth flagged.
- A picture with hardly any edges for ten seconds, out of range, is a *blank picture*: a lens that
  is covered, smeared or out of focus, or darkness. Such seconds say nothing about the scene.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.images.preprocessing import INPUT_SIZE
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.stamps import format_stamp

SceneWord = Literal["unknown", "as trained", "differs", "blank picture"]

ADVICE = (
    "if lens and model are the right ones, record a minute of normal driving and run 'python -m "
    "anomaly_detector adapt' ('python -m anomaly_detector calibrate' without the model's training "
    "folder)"
)

_SECOND_NS = 1_000_000_000
_WINDOW = 60
_LEAST = 30
_OUT_SHARE, _FLAGGED_SHARE = 0.5, 0.25
_WHOLE = 0.9
_BRIDGED = 2
"""Seconds in between that do not end a stretch: an event flickers."""

_STILL = 3.0
"""Grey levels by which the 64x64 pictures of a standing camera differ at most, on average. Slow
robots in a dim place had 5 from one second to the next, standing ones up to 2.5."""

_BLANK_SECONDS = 10
_MIN_EDGES = 10.0
"""Variance of the Laplacian of the 64x64 grey picture, whose values are 0 to 255. Noise alone has
this much; the least of six places was 30, in a dim room."""
_BLANK_SHARE = 0.1
"""Fewer edges than this share of what seconds in range had are hardly any."""

_MAX_SCORES = 512  # of one second: a clock that stands must not fill the memory


@dataclass(frozen=True)
class SceneState:
    """The scene at one moment.

    Attributes:
        word: ``unknown`` before there is enough to say, and for models without quantiles.
        since_ns: stamp from which on it differs, or the picture is blank, nanoseconds.
        seconds: length of that so far.
        median: score of the last 60 seconds that count; None before there are enough.
        flagged: share of them that is flagged.
        quantile: the calibrated 95 % quantile of the scores; None where the model has none.
        edges: variance of the Laplacian, of a blank picture.
    """

    word: SceneWord = "unknown"
    since_ns: int | None = None
    seconds: float = 0.0
    median: float | None = None
    flagged: float = 0.0
    quantile: float | None = None
    edges: float = 0.0

    @property
    def note(self) -> str:
        """The finding in a few words; empty when there is none."""
        return scene_note(self.word)

    @property
    def warning(self) -> str | None:
        """The finding in one line, with what to do; None when there is none."""
        if self.since_ns is None:
            return None
        since = f"since {format_stamp(self.since_ns)} ({self.seconds:.0f} s)"
        if self.word == "blank picture":
            return (
                f"the picture has hardly any edges {since}, sharpness {self.edges:.3g}: is the "
                "lens covered, smeared or out of focus, or is it dark?"
            )
        return (
            f"the scene differs from training as a whole {since}: median score {self.median:.4g}, "
            f"where 95 % of the calibration frames had less than {self.quantile:.4g}; "
            f"{self.flagged:.0%} flagged: {ADVICE}"
        )


def scene_note(word: str) -> str:
    """Return a finding in a few words; empty for words that are none."""
    return {
        "differs": "scene differs from training",
        "blank picture": "hardly any edges: is the lens covered?",
    }.get(word, "")


@dataclass(frozen=True)
class _Second:
    start_ns: int
    score: float
    is_out: bool
    is_flagged: bool


class SceneWatch:
    """Watches the scores of one model on one stream. Not for use from several threads at a time.

    A jump of time does no harm: only the order of frames and the change of seconds count.

    Args:
        metadata: of the model; without quantiles in its calibration nothing is said.

    Attributes:
        state: the newest.
    """

    def __init__(self, metadata: ModelMetadata) -> None:
        quantiles = metadata.calibration.quantiles
        self._quantile = quantiles.get("0.95")
        self._flagged_at = max(metadata.threshold, quantiles.get("0.99", metadata.threshold))
        self.state = SceneState(quantile=self._quantile)
        self._start_ns: int | None = None
        self._scores: deque[float] = deque(maxlen=_MAX_SCORES)
        self._image: NDArray[np.uint8] | None = None
        self._window: deque[_Second] = deque(maxlen=_WINDOW)
        self._view: NDArray[np.float32] | None = None  # of the last second that counted
        self._usual_edges: deque[float] = deque(maxlen=_WINDOW)  # of seconds in range
        self._blank_since_ns = self._blank_seconds = 0

    def update(self, time_ns: int | None, score: float, image: NDArray[np.uint8]) -> SceneState:
        """Take the next frame into account.

        Args:
            time_ns: its stamp, nanoseconds; nothing is said of frames without one.
            score: in the model's units.
            image: what the network saw, uint8 [H, W, 3] RGB.
        """
        if self._quantile is None or time_ns is None:
            return self.state
        start_ns = self._start_ns
        if start_ns is None or time_ns // _SECOND_NS != start_ns // _SECOND_NS:
            if start_ns is not None and self._image is not None:
                self._judge(self._quantile, start_ns, median(self._scores), self._image)
            self._start_ns = time_ns
            self._scores.clear()
        self._scores.append(score)
        self._image = image
        return self.state

    def _judge(
        self, quantile: float, start_ns: int, score: float, image: NDArray[np.uint8]
    ) -> None:
        """Take a second that is over into account."""
        is_out = score > quantile
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        # The size that the limits are for.
        grey = cv2.resize(grey, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
        edges = float(cv2.Laplacian(grey, cv2.CV_32F).var())
        if is_out and edges < max(_MIN_EDGES, _BLANK_SHARE * self._median_edges()):
            self._see_blank(start_ns, edges)
            return
        self._blank_seconds = 0
        if self.state.word == "blank picture":
            self.state = SceneState(quantile=quantile)
        if not is_out:
            self._usual_edges.append(edges)
        view = grey - np.float32(grey.mean())  # not the exposure
        is_still = self._view is not None and np.abs(view - self._view).mean() < _STILL
        if is_still and self._usual_edges:
            return
        self._view = view
        self._window.append(_Second(start_ns, score, is_out, score >= self._flagged_at))
        if len(self._window) >= _LEAST:
            self._conclude(quantile, start_ns)

    def _median_edges(self) -> float:
        enough = len(self._usual_edges) >= _BLANK_SECONDS
        return median(self._usual_edges) if enough else 0.0

    def _see_blank(self, start_ns: int, edges: float) -> None:
        if not self._blank_seconds:
            self._blank_since_ns = start_ns
        self._blank_seconds += 1
        if self._blank_seconds >= _BLANK_SECONDS:
            self._set("blank picture", start_ns, self._blank_since_ns, edges=edges)

    def _conclude(self, quantile: float, start_ns: int) -> None:
        window = list(self._window)
        marks = (
            ([second.is_out for second in window], _OUT_SHARE),
            ([second.is_flagged for second in window], _FLAGGED_SHARE),
        )
        if self.state.word == "differs":
            differs = any(_share(mark) >= least / 2 for mark, least in marks)
            since_ns = self.state.since_ns
        else:
            found = [pair for pair in marks if _is_spread(*pair)]
            differs = bool(found)
            since_ns = window[_change(*found[0])].start_ns if found else None
        self._set(
            "differs" if differs else "as trained",
            start_ns,
            since_ns if differs else None,
            median=median(second.score for second in window),
            flagged=_share(marks[1][0]),
        )

    def _set(self, word: SceneWord, now_ns: int, since_ns: int | None, **values: float) -> None:
        if since_ns is not None:
            since_ns = min(since_ns, now_ns)  # a bag that loops
        seconds = 0.0 if since_ns is None else (now_ns - since_ns) / _SECOND_NS
        self.state = SceneState(word, since_ns, seconds, quantile=self._quantile, **values)


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


def _is_spread(marks: Sequence[bool], least: float) -> bool:
    """Return whether this share of the seconds is marked, and not by a single event."""
    if _share(marks) < least:
        return False
    begin = end = first = last = 0
    for index in (index for index, mark in enumerate(marks) if mark):
        if index - last > _BRIDGED + 1 or not marks[first]:
            first = index
        last = index
        if last + 1 - first > end - begin:
            begin, end = first, last + 1
    rest = [*marks[:begin], *marks[end:]]
    return end - begin >= _WHOLE * len(marks) or _share(rest) >= least


def _change(marks: Sequence[bool], least: float) -> int:
    """Return the index from which on the marks are most above a share: the largest sum of them."""
    sums = np.cumsum([mark - least for mark in reversed(marks)])
    return len(marks) - 1 - int(np.argmax(sums))


@dataclass(frozen=True)
class SceneStretch:
    """A stretch of a recording in which it was said that the scene is not that of the training.

    Attributes:
        word: of :class:`SceneState`, with a note.
        start_s: its first frame, seconds since the first of the recording. ``end_s`` is its last.
        scores: of its frames.
    """

    word: str
    start_s: float
    end_s: float
    scores: Sequence[float]

    @property
    def text(self) -> str:
        """The stretch in one line, with what to do."""
        advice = f": {ADVICE}" if self.word == "differs" else ""
        return (
            f"{scene_note(self.word)}, said from {self.start_s:.1f} s to {self.end_s:.1f} s, "
            f"median score {median(self.scores):.4g}{advice}"
        )


def scene_stretches(frames: Iterable[tuple[str, float, float]]) -> list[SceneStretch]:
    """Return the stretches of a recording, from the word, seconds and score of each frame."""
    stretches = []
    for word, group in itertools.groupby(frames, key=lambda frame: frame[0]):
        if scene_note(word):
            _, seconds, scores = zip(*group, strict=True)
            stretches.append(SceneStretch(word, seconds[0], seconds[-1], list(scores)))
    return stretches
