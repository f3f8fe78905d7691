"""Stamps of frames: what counts as one, what stands in for a missing one, and their text."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Protocol

_SECOND_NS = 1_000_000_000

MAX_GAP_S = 3600.0
MAX_BACK_S = 1.0


class TimeLike(Protocol):
    """The fields of ``builtin_interfaces/Time``."""

    sec: int
    nanosec: int


def stamp_to_ns(stamp: TimeLike) -> int | None:
    """Return a header's stamp in nanoseconds; None when it is missing.

    Zero, negative seconds and a whole second of nanoseconds are what drivers send that do not know
    the time. Such a frame is as good as any other.
    """
    seconds, nanoseconds = int(stamp.sec), int(stamp.nanosec)
    if seconds < 0 or not 0 <= nanoseconds < _SECOND_NS:
        return None
    return seconds * _SECOND_NS + nanoseconds or None


class FrameClock:
    """Gives every frame of a stream a time, also one without a stamp.

    Such a frame gets the newest stamp and the time that has passed since that frame came, so that
    times do not jump where only some stamps are missing, and go back only where stamps do. Where
    all are missing, it is the time of arrival.
    """

    def __init__(self) -> None:
        self._stamp_ns: int | None = None
        self._offset_ns = 0
        self._time_ns = 0

    @property
    def has_stamp(self) -> bool:
        """Whether a frame had a stamp so far."""
        return self._stamp_ns is not None

    def time_ns(self, stamp_ns: int | None, arrival_ns: int) -> int:
        """Return the time of the next frame, nanoseconds.

        Args:
            stamp_ns: its stamp; None when it is missing.
            arrival_ns: when it arrived, or was recorded.
        """
        last_ns = self._stamp_ns
        if stamp_ns is not None:
            went_back = last_ns is not None and stamp_ns < last_ns
            self._time_ns = stamp_ns if went_back else max(stamp_ns, self._time_ns)
            self._stamp_ns, self._offset_ns = stamp_ns, stamp_ns - arrival_ns
        elif last_ns is not None:
            self._time_ns = max(self._time_ns, arrival_ns + self._offset_ns)
        else:
            return max(0, arrival_ns)
        return self._time_ns


class SteadyTime:
    """Counts the seconds since the first frame, without the steps of a clock that was set.

    A step is a gap of more than :data:`MAX_GAP_S`, or more than :data:`MAX_BACK_S` back in time; it
    counts nothing.

    Attributes:
        seconds: of the newest frame; None before the first.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._last_ns = 0
        self._start_ns = 0

    def add(self, time_ns: int) -> float:
        """Take the next frame's time; return its seconds."""
        if self.seconds is None:
            self._start_ns = time_ns
        elif not -MAX_BACK_S <= (time_ns - self._last_ns) / 1e9 <= MAX_GAP_S:
            self._start_ns += time_ns - self._last_ns
        self._last_ns = time_ns
        self.seconds = (time_ns - self._start_ns) / 1e9
        return self.seconds


def format_stamp(stamp_ns: int) -> str:
    """Return nanoseconds as seconds with nine decimals, without going through a float."""
    seconds, nanoseconds = divmod(abs(stamp_ns), _SECOND_NS)
    return f"{'-' if stamp_ns < 0 else ''}{seconds}.{nanoseconds:09d}"


def stamp_text(stamp_ns: int | None) -> str:
    """Return a stamp as :func:`format_stamp` does, and nothing where there is none."""
    return "" if stamp_ns is None else format_stamp(stamp_ns)


def utc_text(stamp_ns: int) -> str:
    """Return a stamp as date and time in UTC, to the second."""
    return f"{datetime.fromtimestamp(stamp_ns // _SECOND_NS, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def parse_stamp(text: str) -> int:
    """Return the nanoseconds of what :func:`format_stamp` wrote."""
    seconds, _, fraction = text.removeprefix("-").partition(".")
    stamp_ns = int(seconds) * _SECOND_NS + int(fraction)
    return -stamp_ns if text.startswith("-") else stamp_ns
