"""Counts and times of a stream of frames, for diagnostics.

Plain Python without ROS: the node tells what happened to each frame, and asks once a second for
what the last seconds looked like.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

WINDOW_S = 10.0
"""Rates, times and recent counts are those of this many last seconds."""

# At 400 frames a second the window is somewhat shorter than that; memory stays bounded.
_MAX_SAMPLES = 4096

_MAX_PUBLISHERS = 64


@dataclass(frozen=True)
class StatisticsReport:
    """What a stream of frames looked like.

    Attributes:
        received: frames that reached the node since the start.
        scored: of these, frames that were scored.
        dropped: frames that were sent but never reached the node's callback, because newer ones
            took their place or the transport lost them; None when the middleware does not number
            its messages.
        failed: frames that could not be used, by reason.
        skipped: frames that were not to be scored.
        without_stamp: frames whose stamp is missing: zero, or no time.
        from_future: frames whose stamp is ahead of the clock.
        repeated: frames that show the very same picture as the one before.
        recent_dropped: dropped in the window.
        recent_gaps: frames received in the window that others were dropped just before.
        recent_failed: failed in the window.
        recent_received: received in the window.
        recent_without_stamp: without a stamp in the window.
        recent_from_future: from the future in the window.
        consecutive_failures: failed frames since the last scored one.
        input_rate: frames a second that were sent to the node, dropped ones included; NaN before
            the second frame.
        age_s: seconds since the last frame was received; None before the first.
        unchanged_s: seconds from the first frame with the newest picture to the last; 0 when that
            came once.
        processing_p50_s: median time from message to published result, seconds; NaN without any.
        processing_p99_s: 99th percentile of the same.
        queueing_p50_s: median time from the frame's stamp to the node's callback; NaN without any.
        queueing_p99_s: 99th percentile of the same.
        busy: share of the window that was spent processing, 0..1.
    """

    received: int
    scored: int
    dropped: int | None
    failed: Mapping[str, int]
    skipped: int
    without_stamp: int
    from_future: int
    repeated: int
    recent_dropped: int
    recent_gaps: int
    recent_failed: int
    recent_received: int
    recent_without_stamp: int
    recent_from_future: int
    consecutive_failures: int
    input_rate: float
    age_s: float | None
    unchanged_s: float
    processing_p50_s: float
    processing_p99_s: float
    queueing_p50_s: float
    queueing_p99_s: float
    busy: float


class _Window:
    """Values with their times, forgotten after :data:`WINDOW_S`."""

    def __init__(self) -> None:
        self._items: deque[tuple[float, float]] = deque(maxlen=_MAX_SAMPLES)

    def add(self, now: float, value: float) -> None:
        self._items.append((now, value))

    def values(self, now: float) -> list[float]:
        while self._items and self._items[0][0] < now - WINDOW_S:
            self._items.popleft()
        return [value for _, value in self._items]

    def span(self) -> float:
        """Seconds from the oldest value to the newest."""
        return self._items[-1][0] - self._items[0][0] if self._items else 0.0


@dataclass
class FrameStatistics:
    """Keeps count of a stream of frames. One thread writes; another may read a single number.

    All times are of a monotonic clock, seconds; ``last`` is that of the newest frame, and
    ``unchanged_s`` as in the report.
    """

    received: int = 0
    scored: int = 0
    dropped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    without_stamp: int = 0
    from_future: int = 0
    repeated: int = 0
    consecutive_failures: int = 0
    counts_drops: bool = False
    unchanged_s: float = 0.0
    last: float | None = None
    _picture: bytes = b""
    _picture_since: float = 0.0
    _recent: defaultdict[str, _Window] = field(default_factory=lambda: defaultdict(_Window))

    def start(self) -> None:
        """Begin a new stretch of input: what came before says nothing about rates and age."""
        self.last = None
        self.forget_picture()
        self.consecutive_failures = 0
        self._recent.clear()

    def receive(self, now: float, dropped: int | None) -> float | None:
        """Count a frame that has arrived; return the seconds since the one before, if any.

        ``dropped`` frames were sent in between and never arrived; None where that is not known.
        """
        gap = None if self.last is None else now - self.last
        self.last = now
        self.received += 1
        self._recent["arrivals"].add(now, 1 + (dropped or 0))
        if dropped is not None:
            self.counts_drops = True
            self.dropped += dropped
            if dropped:
                self._recent["drops"].add(now, dropped)
        return gap

    def score(self, now: float, processing_s: float, queueing_s: float | None) -> None:
        """Count a frame whose result has been published.

        It took ``processing_s`` from the message in hand to the published result, and
        ``queueing_s`` from its stamp to the callback; None where that says nothing.
        """
        self.scored += 1
        self.consecutive_failures = 0
        self._recent["processing"].add(now, processing_s)
        if queueing_s is not None:
            self._recent["queueing"].add(now, queueing_s)

    def fail(self, now: float, reason: str) -> None:
        """Count a frame that could not be used; the reason is a word such as ``encoding``."""
        self.failed[reason] += 1
        self.consecutive_failures += 1
        self._recent["failures"].add(now, 1)

    def forget_picture(self) -> None:
        """Begin anew with the time for which the picture has not changed."""
        self._picture, self.unchanged_s = b"", 0.0

    def miss_stamp(self, now: float) -> None:
        """Count a frame whose stamp is missing."""
        self.without_stamp += 1
        self._recent["without_stamp"].add(now, 1)

    def see_future(self, now: float) -> None:
        """Count a frame with a stamp ahead of the clock."""
        self.from_future += 1
        self._recent["from_future"].add(now, 1)

    def see_picture(self, now: float, picture: bytes) -> None:
        """Notice whether a frame's preprocessed pixels are those of the one before."""
        if picture == self._picture:
            self.repeated += 1
            self.unchanged_s = now - self._picture_since
        else:
            self._picture, self._picture_since, self.unchanged_s = picture, now, 0.0

    def report(self, now: float) -> StatisticsReport:
        """Say what the last :data:`WINDOW_S` seconds looked like."""
        processing, queueing, arrivals, drops, failures, without_stamp, from_future = (
            self._recent[name].values(now)
            for name in (
                *("processing", "queueing", "arrivals", "drops", "failures"),
                *("without_stamp", "from_future"),
            )
        )
        span = self._recent["arrivals"].span()
        # The first frame opens the span; those dropped before it belong to the time before.
        rate = sum(arrivals[1:]) / span if len(arrivals) > 1 and span > 0 else math.nan
        return StatisticsReport(
            received=self.received,
            scored=self.scored,
            dropped=self.dropped if self.counts_drops or not self.received else None,
            failed=dict(self.failed),
            skipped=self.skipped,
            without_stamp=self.without_stamp,
            from_future=self.from_future,
            repeated=self.repeated,
            recent_dropped=int(sum(drops)),
            recent_gaps=len(drops),
            recent_failed=len(failures),
            recent_received=len(arrivals),
            recent_without_stamp=len(without_stamp),
            recent_from_future=len(from_future),
            consecutive_failures=self.consecutive_failures,
            input_rate=rate,
            age_s=None if self.last is None else now - self.last,
            unchanged_s=self.unchanged_s,
            processing_p50_s=_percentile(processing, 50),
            processing_p99_s=_percentile(processing, 99),
            queueing_p50_s=_percentile(queueing, 50),
            queueing_p99_s=_percentile(queueing, 99),
            busy=min(1.0, sum(processing) / span) if span > 0 else 0.0,
        )


def _percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else math.nan


class SequenceGaps:
    """Counts messages that were sent but never arrived, from the numbers publishers give them.

    A publisher that starts anew, or another one, begins a new sequence; what was sent before its
    first message arrived does not count.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}

    def missing(self, publisher: bytes, number: int | None) -> int | None:
        """Return how many messages of a publisher are missing just before one of this number.

        None where the middleware gives no numbers.
        """
        if number is None:
            return None
        last = self._last.pop(publisher, None)
        # Newest last: the oldest publisher is the one to forget.
        self._last[publisher] = number
        if len(self._last) > _MAX_PUBLISHERS:
            del self._last[next(iter(self._last))]
        return 0 if last is None or number <= last else number - last - 1

    def clear(self) -> None:
        """Forget every publisher: the subscription is a new one."""
        self._last.clear()
