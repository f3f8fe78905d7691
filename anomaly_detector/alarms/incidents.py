"""Incidents: alarms at the same place and of the same look are one, not forty.

An alarm repeats an earlier one when the robot is near the place of that one and what the anomaly
map points at looks the same. It is raised anew when it has grown or changed, and in any case when
enough hours have passed: nothing is muted for ever. Without a known place every alarm is raised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.alarms.alarm_filter import AlarmState, Scores
from anomaly_detector.poses import Place, Pose
from anomaly_detector.settings import Setting, setting, settings_of
from anomaly_detector.stamps import utc_text

ALIKE = 0.8
"""Looks whose :func:`likeness` is at least this are the same."""

_BINS = 6
_BRIGHTNESS = 110.0


@dataclass(frozen=True)
class IncidentSettings:
    """When an alarm is a repeat, and how long a place is snoozed.

    Raises:
        AnomalyDetectorError: a value out of its range.
    """

    repeat_hours: float = setting(
        8.0,
        "An alarm at the place and of the look of one that was raised less than this ago is a "
        "repeat, hours; 0 raises every alarm. It needs pose_topic.",
        minimum=0.0,
        maximum=168.0,
    )
    repeat_radius: float = setting(
        1.0, "Poses no further apart than this are one place, metres.", minimum=0.0, maximum=100.0
    )
    snooze_minutes: float = setting(
        60.0, "Time for which ~/snooze snoozes a place.", minimum=1.0, maximum=1440.0
    )

    def __post_init__(self) -> None:
        for definition in INCIDENT_SETTINGS:
            definition.check(getattr(self, definition.name))


INCIDENT_SETTINGS: tuple[Setting, ...] = settings_of(IncidentSettings)
"""The definitions of the fields of :class:`IncidentSettings`, in order."""


class Mapped(Scores, Protocol):
    """The scores of one frame, and where their evidence lies, as in a ``Detection``."""

    @property
    def anomaly_map(self) -> NDArray[np.float32]:
        """Where the evidence lies."""


@dataclass(frozen=True)
class AlarmReport:
    """What is known of the alarm at one frame.

    Attributes:
        number: of the alarm that is on, from 1; 0 for none.
        repeat_of: number of the alarm that it repeats; None for one that is raised.
        is_raised_anew: with this frame it has grown or changed and is no repeat any more.
        snoozed_until_ns: its place is snoozed until then; None for one that is not.
        place: of its peak so far.
    """

    number: int = 0
    repeat_of: int | None = None
    is_raised_anew: bool = False
    snoozed_until_ns: int | None = None
    place: Place | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether nobody is to be called for it."""
        return self.repeat_of is not None or self.snoozed_until_ns is not None


_NO_ALARM = AlarmReport()


@dataclass
class _Incident:
    """A raised alarm: its number and time, what was seen from where, and how strong it was."""

    number: int
    raised_ns: int
    views: list[tuple[Pose, NDArray[np.float32]]] = field(default_factory=list)
    excess: float = 0.0


@dataclass(frozen=True)
class Snooze:
    """A place that is snoozed between two times, nanoseconds; both ends included."""

    pose: Pose
    since_ns: int
    until_ns: int

    def __str__(self) -> str:
        pose = self.pose
        return f"{pose.frame_id} {pose.x:.2f} {pose.y:.2f} until {utc_text(self.until_ns)}"


class IncidentWatch:
    """Follows the alarms of one camera.

    Attributes:
        settings: when an alarm is a repeat; may be replaced at any time.
        alarms: counts all.
        repeats: counts those that were repeats to their end, or are so far.
    """

    def __init__(self, settings: IncidentSettings) -> None:
        self.settings = settings
        self.alarms = self.repeats = 0
        self._snoozes: list[Snooze] = []
        self._incidents: list[_Incident] = []
        self._now_ns = 0
        # Of the alarm that is on.
        self._incident: _Incident | None = None
        self._repeat_of: int | None = None
        # Of the newest alarm.
        self._peak_score = 0.0
        self._place: Place | None = None

    def update(
        self,
        state: AlarmState,
        result: Mapped,
        image: NDArray[np.uint8],
        place: Place | None,
        time_ns: int,
    ) -> AlarmReport:
        """Take the next frame into account.

        Args:
            state: the alarm filter's.
            result: its scores and map.
            image: what the network saw, uint8 [H, W, 3] RGB.
            place: where it was taken; None without poses.
            time_ns: its time.
        """
        self._now_ns = time_ns
        if not state.is_alarm:
            return _NO_ALARM
        if state.started:
            self.alarms += 1
            self._incident = self._repeat_of = None
        is_anew = False
        if state.started or result.score > self._peak_score:
            self._peak_score, self._place = result.score, place
            if self.settings.repeat_hours and place is not None and place.pose is not None:
                look = describe_look(image, result.anomaly_map)
                is_anew = self._see(state.started, place.pose, look, result.normalized_score)
        return AlarmReport(
            self.alarms, self._repeat_of, is_anew, self._snoozed_until(), self._place
        )

    def _see(
        self, started: bool, pose: Pose, look: NDArray[np.float32], normalized_score: float
    ) -> bool:
        """Look at the first frame or a new peak of an alarm; return whether it is raised anew."""
        # How far above the threshold, in distances of the threshold from the median normal score.
        excess = 0.5 / max(1e-6, 1.0 - normalized_score) - 1.0
        known = self._incident
        is_anew = False
        if started:
            known = self._found(pose, look)
            if known is not None:
                self._repeat_of = known.number
                self.repeats += 1
        elif self._repeat_of is not None and known is not None:
            has_grown = excess >= max(2.0 * known.excess, known.excess + 0.5)
            if has_grown or not self._shows(known, pose, look):
                is_anew, known, self._repeat_of = True, None, None
                self.repeats -= 1
        if self._repeat_of is None:
            if known is None:
                known = _Incident(self.alarms, self._now_ns)
                self._incidents.append(known)
            # The first frame and the peak: on its way the robot sees more of it.
            known.views[1:] = [(pose, look)]
            known.excess = max(known.excess, excess)
        self._incident = known
        return is_anew

    @property
    def snoozes(self) -> list[Snooze]:
        """The snoozes that have not ended, as of the newest frame."""
        now = self._now_ns
        # Before its beginning, time has jumped back: nothing is snoozed for longer than stated.
        self._snoozes = [item for item in self._snoozes if item.since_ns <= now <= item.until_ns]
        return self._snoozes

    def snooze(self) -> Snooze | None:
        """Snooze the place of the newest alarm; None where there is none, or it is not known."""
        if self._place is None or self._place.pose is None:
            return None
        until_ns = self._now_ns + round(self.settings.snooze_minutes * 60e9)
        snooze = Snooze(self._place.pose, self._now_ns, until_ns)
        self._snoozes = [*self.snoozes, snooze]
        return snooze

    def end_snoozes(self) -> int:
        """End all snoozes; return their number."""
        count, self._snoozes = len(self.snoozes), []
        return count

    def _snoozed_until(self) -> int | None:
        if not self._snoozes or self._place is None or self._place.pose is None:
            return None
        pose = self._place.pose
        near = [item.until_ns for item in self.snoozes if self._is_near(item.pose, pose)]
        return max(near, default=None)

    def _found(self, pose: Pose, look: NDArray[np.float32]) -> _Incident | None:
        hours_ns = self.settings.repeat_hours * 3600e9
        self._incidents = [
            item for item in self._incidents if 0 <= self._now_ns - item.raised_ns <= hours_ns
        ]
        # The newest first: what has grown is known as large.
        known = reversed(self._incidents)
        return next((item for item in known if self._shows(item, pose, look)), None)

    def _shows(self, incident: _Incident, pose: Pose, look: NDArray[np.float32]) -> bool:
        return any(
            self._is_near(view, pose) and likeness(seen, look) >= ALIKE
            for view, seen in incident.views
        )

    def _is_near(self, first: Pose, second: Pose) -> bool:
        distance = math.dist((first.x, first.y, first.z), (second.x, second.y, second.z))
        return first.frame_id == second.frame_id and distance <= self.settings.repeat_radius


def describe_look(
    image: NDArray[np.uint8], anomaly_map: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what the anomaly map points at, as a histogram of colours, float32 [216].

    Counted are the pixels where the map, less its median, is above half its highest value, each by
    that value; all of them where the map is the same everywhere. The picture is brought to one mean
    brightness first, and a pixel is shared among the eight bins around its colour, so that light
    and noise change little. Where in the picture it lies does not matter: the robot does not come
    back to the same centimetre.

    Args:
        image: what the network saw, uint8 [H, W, 3] RGB.
        anomaly_map: float32 [H, W].
    """
    height, width = image.shape[:2]
    weights = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)
    weights = weights - np.median(weights)
    if weights.max() <= 0.0:
        weights = np.ones_like(weights)
    chosen = weights > 0.5 * weights.max()
    values = image[chosen] * (_BRIGHTNESS / max(1.0, float(image.mean())))
    position = np.clip(values * (_BINS / 256.0) - 0.5, 0.0, _BINS - 1.001)
    low = position.astype(np.intp)
    high = position - low
    bins = np.zeros(_BINS**3)
    for corner in np.ndindex(2, 2, 2):
        share = weights[chosen] * np.where(corner, high, 1.0 - high).prod(axis=1)
        index = np.ravel_multi_index(tuple((low + corner).T), (_BINS,) * 3)
        bins += np.bincount(index, share, _BINS**3)
    return np.asarray(bins / max(1e-12, bins.sum()), np.float32)


def likeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return how much two looks have in common, from 0 to 1: Bhattacharyya's coefficient."""
    return float(np.sqrt(first * second).sum())
