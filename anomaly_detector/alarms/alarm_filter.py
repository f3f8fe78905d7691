"""From anomalous frames to alarms: k of the last n frames, an immediate level, hysteresis.

Single frames flicker: at a false-alarm rate of 1 % and 30 frames a second some frame is anomalous
every few seconds. :class:`AlarmFilter` raises the alarm when several of the last frames are
anomalous, or at once when one is far above the threshold, and clears it when the score has stayed
clearly below the threshold for a while. The node and offline scoring use this one class.

The defaults were chosen on simulated normal scores (autoregressive, 30 frames a second, 1 % of the
frames anomalous, correlated over 0 to 1 s): 6 of 10 frames gave at most 1.0 false alarms a minute
where single frames gave 5 to 18, and costs 0.17 s before an alarm.
``docs/threshold-and-alarms.md`` has the table.
"""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.settings import Setting, setting, settings_of

ALARM_MODES = ("off", "frames", "seconds")

_MAX_FRAMES = 10_000
_MAX_SECONDS = 3600.0


@dataclass(frozen=True)
class AlarmSettings:
    """When an alarm is raised and cleared.

    Example:
        >>> alarms = AlarmFilter(AlarmSettings(raise_frames=3, raise_window_frames=5))

    Raises:
        AnomalyDetectorError: a value out of its range, or a window shorter than what is to
            happen in it.
    """

    mode: str = setting(
        "frames",
        "off: the alarm is the flag of the single frame. frames or seconds: raise and clear after "
        "a number of frames, or a time.",
        choices=ALARM_MODES,
    )
    raise_frames: int = setting(
        6,
        "Mode frames: raise the alarm when this many of the last raise_window_frames frames are "
        "anomalous.",
        minimum=1,
        maximum=_MAX_FRAMES,
    )
    raise_window_frames: int = setting(
        10, "Mode frames: the number of last frames looked at.", minimum=1, maximum=_MAX_FRAMES
    )
    clear_frames: int = setting(
        10,
        "Mode frames: clear the alarm after this many frames in a row below clear_level.",
        minimum=1,
        maximum=_MAX_FRAMES,
    )
    raise_seconds: float = setting(
        0.2,
        "Mode seconds: raise the alarm when frames were anomalous for this much of the last "
        "raise_window_seconds.",
        minimum=0.0,
        maximum=_MAX_SECONDS,
    )
    raise_window_seconds: float = setting(
        0.4,
        "Mode seconds: the time looked at; make it several frame periods. A longer gap between "
        "two frames starts it afresh.",
        minimum=0.001,
        maximum=_MAX_SECONDS,
    )
    clear_seconds: float = setting(
        0.4,
        "Mode seconds: clear the alarm after this time below clear_level.",
        minimum=0.0,
        maximum=_MAX_SECONDS,
    )
    immediate_level: float = setting(
        0.75,
        "Raise the alarm at once when the normalized score of one frame reaches this level; 0.75 "
        "is as far above the threshold as the median normal frame lies below it, 1.0 is never.",
        minimum=0.5,
        maximum=1.0,
    )
    clear_level: float = setting(
        0.45,
        "A frame counts towards clearing when its normalized score is below this level; 0.5 is "
        "the threshold.",
        minimum=0.0,
        maximum=0.5,
    )

    def __post_init__(self) -> None:
        for option in ALARM_OPTIONS:
            option.check(getattr(self, option.name))
        for count, window in (
            ("raise_frames", "raise_window_frames"),
            ("raise_seconds", "raise_window_seconds"),
        ):
            if getattr(self, count) > getattr(self, window):
                raise AnomalyDetectorError(
                    f"{count} is {getattr(self, count)}, more than {window}, which is "
                    f"{getattr(self, window)}: make the window longer"
                )


ALARM_OPTIONS: tuple[Setting, ...] = settings_of(AlarmSettings)
"""The definitions of its fields, in order: command line and node take theirs from them."""


@dataclass
class AlarmEvent:
    """One alarm from its first to its last frame.

    Attributes:
        start_frame: name of the frame that raised it.
        start_stamp_ns: stamp of that frame, nanoseconds; None where frames have none.
        end_frame: name of the last frame with the alarm on.
        end_stamp_ns: stamp of that frame.
        frames: number of frames with the alarm on.
        peak_frame: name of the frame with the highest score among them, the first of equals.
        peak_stamp_ns: stamp of that frame.
        peak_score: its raw score.
        peak_normalized_score: its normalised score.
    """

    start_frame: str
    start_stamp_ns: int | None
    end_frame: str
    end_stamp_ns: int | None
    frames: int
    peak_frame: str
    peak_stamp_ns: int | None
    peak_score: float
    peak_normalized_score: float


@dataclass(frozen=True)
class AlarmState:
    """What one frame led to.

    Attributes:
        is_alarm: whether the alarm is on in this frame.
        started: whether this frame raised it.
        ended: the alarm that was on until the frame before, if this frame cleared it or time
            jumped back.
    """

    is_alarm: bool
    started: bool
    ended: AlarmEvent | None


class Scores(Protocol):
    """The scores of one frame."""

    @property
    def score(self) -> float:
        """In the model's units, for the event's peak."""

    @property
    def normalized_score(self) -> float:
        """In [0, 1], 0.5 at the threshold."""


class Scored(Scores, Protocol):
    """The result for one frame: a ``Detection`` or a ``ScoredFrame``."""

    @property
    def is_anomaly(self) -> bool:
        """Whether the score is at or above the threshold."""


class AlarmFilter:
    """Decides frame by frame whether the alarm is on.

    Example:
        >>> detector, alarms = Detector("corridor"), AlarmFilter()
        >>> black = detector.detect(np.zeros((480, 640, 3), np.uint8), order="bgr")
        >>> [alarms.update(black, stamp_ns=n).is_alarm for n in range(10)][-1]
        True

    An anomalous frame raises the alarm when its normalised score reaches the immediate level or
    when enough of the window is anomalous. In seconds an anomalous frame counts until the next
    frame comes, so that one frame after a gap proves nothing. The alarm is cleared by the last of
    enough frames in a row below the clear level, and the window then starts empty.

    When stamps jump back (a bag that loops, a simulation that restarts), everything starts
    afresh.

    Args:
        settings: when to raise and clear; None for the defaults.
    """

    def __init__(self, settings: AlarmSettings | None = None) -> None:
        self.settings = AlarmSettings() if settings is None else settings
        self._event: AlarmEvent | None = None
        self._last_stamp_ns: int | None = None
        self._forget()

    def _forget(self) -> None:
        # Anomalous or not, of the last frames; or (start, end) of anomalous stretches.
        self._anomalies: deque[bool] = deque(maxlen=self.settings.raise_window_frames)
        self._stretches: deque[tuple[int, int]] = deque()
        self._last_is_anomaly = False
        self._frames_below = 0
        self._below_since_ns: int | None = None

    def update(self, result: Scored, *, stamp_ns: int | None = None, name: str = "") -> AlarmState:
        """Take the next frame into account.

        Args:
            result: its scores, and whether it is anomalous.
            stamp_ns: its stamp, nanoseconds.
            name: of the frame, for events.

        Raises:
            AnomalyDetectorError: no stamp, though the mode is seconds.
        """
        if stamp_ns is None and self.settings.mode == "seconds":
            raise AnomalyDetectorError(
                f"frame {name or 'without a name'} has no time stamp, so that nothing can be "
                "decided in seconds: decide in frames, or give the rate of an image folder (--fps)"
            )
        ended, last_ns = None, self._last_stamp_ns
        if last_ns is not None and stamp_ns is not None and stamp_ns < last_ns:
            ended = self.finish()
        event = self._event
        is_alarm = self._decide(result.normalized_score, result.is_anomaly, stamp_ns)
        self._last_stamp_ns = stamp_ns
        self._last_is_anomaly = result.is_anomaly
        if not is_alarm:
            ended, self._event = event or ended, None
            return AlarmState(False, False, ended)
        if event is None:
            scores = result.score, result.normalized_score
            self._event = AlarmEvent(name, stamp_ns, name, stamp_ns, 1, name, stamp_ns, *scores)
            return AlarmState(True, True, ended)
        event.end_frame, event.end_stamp_ns = name, stamp_ns
        event.frames += 1
        if result.score > event.peak_score:
            event.peak_frame, event.peak_stamp_ns = name, stamp_ns
            event.peak_score, event.peak_normalized_score = result.score, result.normalized_score
        return AlarmState(True, False, None)

    def finish(self) -> AlarmEvent | None:
        """End the recording: give the alarm that is still on, and start afresh."""
        event, self._event, self._last_stamp_ns = self._event, None, None
        self._forget()
        return event

    def _decide(self, normalized_score: float, is_anomaly: bool, stamp_ns: int | None) -> bool:
        settings = self.settings
        if settings.mode == "off":
            return is_anomaly
        if self._event is not None:
            if not self._is_clear(normalized_score < settings.clear_level, stamp_ns):
                return True
            self._forget()
            return False
        is_immediate = settings.immediate_level < 1.0 and (
            normalized_score >= settings.immediate_level
        )
        is_confirmed = self._is_confirmed(is_anomaly, stamp_ns)
        if not (is_anomaly and (is_immediate or is_confirmed)):
            return False
        self._forget()
        return True

    def _is_confirmed(self, is_anomaly: bool, stamp_ns: int | None) -> bool:
        """Return whether enough of the window up to this frame is anomalous."""
        settings = self.settings
        if settings.mode == "frames" or stamp_ns is None:
            self._anomalies.append(is_anomaly)
            return sum(self._anomalies) >= settings.raise_frames
        window_ns = _nanoseconds(settings.raise_window_seconds)
        last = self._last_stamp_ns
        if last is not None and stamp_ns - last > window_ns:
            self._stretches.clear()
        elif last is not None and self._last_is_anomaly:
            self._stretches.append((last, stamp_ns))
        start = stamp_ns - window_ns
        while self._stretches and self._stretches[0][1] <= start:
            self._stretches.popleft()
        anomalous_ns = sum(end - max(begin, start) for begin, end in self._stretches)
        return anomalous_ns >= _nanoseconds(settings.raise_seconds)

    def _is_clear(self, is_below: bool, stamp_ns: int | None) -> bool:
        """Return whether this frame completes a run of frames below the clear level."""
        if not is_below:
            self._frames_below = 0
            self._below_since_ns = None
            return False
        self._frames_below += 1
        if self.settings.mode == "frames" or stamp_ns is None:
            return self._frames_below >= self.settings.clear_frames
        if self._below_since_ns is None:
            self._below_since_ns = stamp_ns
        return stamp_ns - self._below_since_ns >= _nanoseconds(self.settings.clear_seconds)


def add_alarm_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one option a field of :class:`AlarmSettings`; ``mode`` is ``--decision``."""
    group = parser.add_argument_group("alarm filter", "when anomalous frames become an alarm")
    for option in ALARM_OPTIONS:
        flag = "--decision" if option.name == "mode" else f"--{option.name.replace('_', '-')}"
        text = f"{option.description} (default {option.default})".replace("_", "-")
        if option.choices:
            group.add_argument(flag, dest=option.name, choices=option.choices, help=text)
        else:
            group.add_argument(
                flag, dest=option.name, type=type(option.default), help=text,
                metavar="N" if isinstance(option.default, int) else "X",
            )  # fmt: skip


def alarm_settings(
    arguments: argparse.Namespace, own: AlarmSettings | None = None
) -> AlarmSettings:
    """Return the settings that a command line with :func:`add_alarm_arguments` has.

    Args:
        arguments: of the command line.
        own: values of what no option gives; None for the defaults.

    Raises:
        AnomalyDetectorError: a value out of range.
    """
    values = {option.name: getattr(arguments, option.name) for option in ALARM_OPTIONS}
    given = {name: value for name, value in values.items() if value is not None}
    return replace(AlarmSettings() if own is None else own, **given)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
