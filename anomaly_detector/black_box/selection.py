"""Which frames are recorded, and to which event they belong.

This is what runs in the caller's thread: a few comparisons a frame, and a copy of the few frames
that are taken. The commands it gives are carried out by the recorder's own thread.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from anomaly_detector.black_box.events import ALARM
from anomaly_detector.black_box.frames import BlackBoxFrame, Phase
from anomaly_detector.black_box.settings import BlackBoxSettings
from anomaly_detector.poses import Place


@dataclass(frozen=True)
class Take:
    """Record a frame; it shares no buffer with the caller."""

    frame: BlackBoxFrame
    phase: Phase


@dataclass(frozen=True)
class Sample:
    """Record a normal frame as an event of its own; it shares no buffer with the caller."""

    frame: BlackBoxFrame


@dataclass(frozen=True)
class Save:
    """Record the frames of the last seconds as an event of their own."""

    threshold: float
    has_stamps: bool


@dataclass(frozen=True)
class OpenEvent:
    """Begin an event with the frames since ``since_ns``; or go on with ``part`` of one."""

    since_ns: int
    start_ns: int
    part: int
    threshold: float
    has_stamps: bool


@dataclass
class CloseEvent:
    """An event, or one part of it: while it is recorded, and the command when it is complete.

    Attributes:
        start_ns: time of its first frame with the alarm on.
        part: 1 for the first part of an event.
        end_ns: time of its last frame with the alarm on.
        peak_ns: time of the frame with the highest score among them, the first of equals.
        peak_score: its raw score.
        peak_normalized_score: its normalised score.
        peak_place: where it was taken.
        alarm_frames: number of frames with the alarm on, recorded or not.
        alarms: how often the alarm was raised.
        numbers: of these alarms, counted by the caller.
        repeat_of: number of the alarm that they repeat; None when one of them repeats none.
        continues: the alarm was still on when this part was cut.
        is_on: the alarm is on.
        kind: of event.
        spare: the peak frame, as long as it has not been taken.
    """

    start_ns: int
    part: int
    end_ns: int
    peak_ns: int
    peak_score: float = -math.inf
    peak_normalized_score: float = 0.0
    peak_place: Place | None = None
    alarm_frames: int = 0
    alarms: int = 1
    numbers: set[int] = field(default_factory=set)
    repeat_of: int | None = None
    continues: bool = False
    is_on: bool = True
    kind: str = ALARM
    spare: Take | None = None

    def see(self, frame: BlackBoxFrame, is_taken: bool) -> None:
        """Count a frame with the alarm on, and keep it if it is the peak and not taken."""
        self.end_ns = frame.time_ns
        self.alarm_frames += 1
        self.numbers.add(frame.alarm.number)
        self.repeat_of = frame.alarm.repeat_of if self.alarm_frames == 1 or self.repeat_of else None
        score = frame.detection.score
        if score > self.peak_score or self.alarm_frames == 1:
            self.peak_ns = frame.time_ns
            self.peak_score = -math.inf if math.isnan(score) else score
            self.peak_normalized_score = frame.detection.normalized_score
            self.peak_place = frame.place
            self.spare = None if is_taken else Take(frame.detached(), "during")


@dataclass(frozen=True)
class Forget:
    """Leave the frames before this one: time jumped back."""


Command = Take | Sample | Save | OpenEvent | CloseEvent | Forget


class EventSelection:
    """Decides frame by frame what to record.

    Frames are taken on a grid of times, so that the rate is that of the settings and not the next
    divisor of the camera's. An alarm opens an event; it is closed when the time after the alarm
    has passed, time jumps back, or :meth:`finish` is called. A part that is full is closed and the
    next begins: it may be twice as long and takes half the frames a second, so that an alarm that
    stays on for a day fills neither the disk nor thousands of folders.

    Args:
        settings: times and rate.
    """

    def __init__(self, settings: BlackBoxSettings) -> None:
        self._before_ns = _nanoseconds(settings.seconds_before)
        self._after_ns = _nanoseconds(settings.seconds_after)
        self._part_ns = _nanoseconds(settings.max_event_seconds)
        self._period_ns = _nanoseconds(1.0 / settings.max_rate_hz)
        self._event: CloseEvent | None = None
        self._last_ns: int | None = None
        self._had_stamp = False
        self._threshold = 0.0
        # Whether frames have been taken for an event to come.
        self._has_before = False
        self._grid_ns: int | None = None
        self._samples = _SampleTimes(settings.sample_rate)
        self.refused = 0

    @property
    def is_recording(self) -> bool:
        """Whether an event is open."""
        return self._event is not None

    def add(self, frame: BlackBoxFrame, has_room: bool = True) -> list[Command]:
        """Return what this frame leads to, in order; mostly nothing.

        Args:
            frame: the next frame.
            has_room: whether its picture can be taken; it is counted in ``refused`` otherwise.
        """
        commands: list[Command] = []
        now = frame.time_ns
        if self._last_ns is not None and (
            now < self._last_ns or frame.has_stamp != self._had_stamp
        ):
            commands += self.finish()
            commands.append(Forget())
            self._grid_ns = None
            self._has_before = False
            self._samples.forget()
        self._samples.pass_to(now)
        self._last_ns, self._had_stamp = now, frame.has_stamp
        self._threshold = frame.detection.threshold
        is_on = frame.decision.is_alarm
        self._follow_alarm(now, is_on, frame, commands)
        event = self._event
        is_taken = self._is_due(now, event.part if event is not None and is_on else 1)
        if is_taken and not has_room:
            self.refused += 1
            is_taken = False
        if event is not None and is_on:
            event.see(frame, is_taken)
        if is_taken:
            phase: Phase = "before" if event is None else "during" if is_on else "after"
            frame = frame.detached()
            commands.append(Take(frame, phase))
            self._has_before = self._has_before or phase == "before"
        is_normal = event is None and not frame.detection.is_anomaly
        if self._samples.is_due and is_normal and has_room:
            self._samples.is_due = False
            commands.append(Sample(frame if is_taken else frame.detached()))
        return commands

    def _follow_alarm(
        self, now: int, is_on: bool, frame: BlackBoxFrame, commands: list[Command]
    ) -> None:
        event = self._event
        if event is not None and not (event.is_on and is_on):
            if now - event.end_ns > self._after_ns:
                commands += self.finish()
                event = None
            elif is_on:
                event.alarms += 1
        part = 1
        if event is not None and is_on:
            # 1, 2, 4, ... times the length of the first part.
            if now - event.start_ns >= self._part_ns << (event.part - 1):
                part = event.part + 1
                commands += self.finish(continues=True)
                event = None
            else:
                event.is_on = True
        if event is None and is_on:
            self._event = CloseEvent(now, part, now, now)
            since = now - self._before_ns
            threshold = frame.detection.threshold
            commands.append(OpenEvent(since, now, part, threshold, frame.has_stamp))
            self._has_before = False
        elif event is not None:
            event.is_on = is_on

    def _is_due(self, now: int, part: int) -> bool:
        period = self._period_ns << (part - 1)
        if self._grid_ns is None:
            self._grid_ns = now
            return True
        if now - self._grid_ns < period:
            return False
        following = self._grid_ns + period
        # After a gap the grid starts anew: frames are not made up for.
        self._grid_ns = following if now - following < period else now
        return True

    def save(self) -> Save | None:
        """Return the command that saves the frames taken for an event to come; None without any."""
        return Save(self._threshold, self._had_stamp) if self._has_before else None

    def finish(self, *, continues: bool = False) -> list[Command]:
        """Close the open event, if any.

        Args:
            continues: its alarm is still on and a next part follows.
        """
        event, self._event = self._event, None
        if event is None:
            return []
        event.continues = continues
        return [event] if event.spare is None else [event.spare, event]


class _SampleTimes:
    """Gives one random time in each period; it depends on the period alone, also of a bag.

    Attributes:
        is_due: such a time has passed, and nothing was taken since.
    """

    def __init__(self, per_minute: float) -> None:
        self._period_ns = _nanoseconds(60.0 / per_minute) if per_minute else 0
        self.forget()

    def forget(self) -> None:
        """Begin anew: time jumped back."""
        self.is_due = False
        self._period = -1
        self._due_ns: int | None = None

    def pass_to(self, now: int) -> None:
        """Let time pass to a frame's."""
        if not self._period_ns:
            return
        period = now // self._period_ns
        if period != self._period:
            is_first, self._period = self._period < 0, period
            share = random.Random(period).random()
            due = round((period + share) * self._period_ns)
            # What lay before the first frame has passed nobody.
            self._due_ns = None if is_first and due < now else due
        if self._due_ns is not None and now >= self._due_ns:
            self.is_due, self._due_ns = True, None


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
