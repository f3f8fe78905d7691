"""What a detector knows at this moment: ok, anomaly, alarm, or unknown with the reason.

Silence is no answer here: each state is judged anew from the clock, and what is not known is
``unknown``. The rule for whoever acts on it: no fresh state is not ok.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from anomaly_detector.monitoring.health import HealthLimits, is_frozen

StateWord = Literal["ok", "anomaly", "alarm", "unknown"]

STATE_PERIOD_S = 0.1
"""Time between two states that a node publishes."""

REASONS = {
    "not active": "the lifecycle state is another than active, or the node recovers from an error",
    "clock stopped": "with use_sim_time, /clock has not moved for `state_timeout`, or never came",
    "paused": "`enable_topic` says so, or the robot turns faster than `max_turn_rate`",
    "no frames": "no frame has come for `state_timeout`, or none since activation",
    "frames failed": "frames come, but none could be used for `state_timeout`",
    "not scoring": "frames come, but no result for `state_timeout`: the node is too slow, or hangs",
    "frozen camera": "every frame has shown the same picture for longer than `frozen_timeout`",
    "scene differs": "the scene as a whole is not that of the training",
    "blank picture": "the picture has hardly any edges, and the scores are out of range",
    "model being changed": "the model that the parameters name is being loaded; the one before "
    "goes on scoring",
}
"""Why the state is unknown; the first that holds is said."""

_PERIODS = 2.5
"""Periods of the greatest rate without a scored frame that are no finding yet."""

SCENE_REASONS = {"differs": "scene differs", "blank picture": "blank picture"}
"""Word of a :class:`~anomaly_detector.monitoring.scene.SceneState` to reason."""


@dataclass(frozen=True)
class Verdict:
    """What the newest scored frame led to.

    Attributes:
        is_anomaly: whether the frame is anomalous.
        is_alarm: whether the alarm is on.
        stamp_ns: of the frame, nanoseconds.
        at_s: when it was scored, seconds of a monotonic clock.
        alarm_number: of the alarm that is on, from 1; 0 for none.
        is_quiet: whether nobody is to be called for that alarm: a repeat, or at a snoozed place.
    """

    is_anomaly: bool
    is_alarm: bool
    stamp_ns: int
    at_s: float
    alarm_number: int = 0
    is_quiet: bool = False


@dataclass(frozen=True)
class DetectorState:
    """The state at one moment; ``reason`` is a key of :data:`REASONS` when it is unknown.

    ``detail`` says more of the reason, in words for people.
    """

    word: StateWord
    reason: str = ""
    detail: str = ""

    @property
    def text(self) -> str:
        """The state in one line."""
        return ": ".join(filter(None, (self.word, self.reason, self.detail)))


@dataclass(frozen=True)
class Circumstances:
    """All that the state is judged from; durations in seconds.

    Attributes:
        lifecycle: word of the lifecycle state.
        error: what keeps it from being active; empty as a rule.
        clock_stopped_s: time for which the node's clock has stood still; 0 for one that runs.
        verdict: None before the first frame of a stretch.
        now_s: on the clock of the verdict.
        silent_s: since the newest frame came, or since frames were waited for.
        busy_s: for which the newest frame has been worked on; 0 when that is done.
        failures: failed frames since the last scored one, the newest with ``failure``.
        unchanged_s: time for which every frame has shown the same picture.
        paused: why frames are not scored; empty when they are.
        is_disabled: whether that holds also when no frames come.
        period_s: between two scored frames, as the greatest rate asks for; 0 without one.
        scene: word of :class:`~anomaly_detector.monitoring.scene.SceneState`.
        is_loading: whether another model is to take over.
    """

    lifecycle: str
    error: str
    clock_stopped_s: float
    verdict: Verdict | None
    now_s: float
    silent_s: float
    busy_s: float
    failures: int
    failure: str
    unchanged_s: float
    paused: str
    is_disabled: bool
    period_s: float
    scene: str
    is_loading: bool


def judge(seen: Circumstances, limits: HealthLimits) -> DetectorState:
    """Return the state; whatever makes it unknown outranks an alarm, which may be an old one."""
    if seen.lifecycle != "active":
        return _unknown("not active", ", ".join(filter(None, (seen.lifecycle, seen.error))))
    if seen.clock_stopped_s > limits.state_timeout:
        return _unknown("clock stopped", f"/clock has not moved for {seen.clock_stopped_s:.1f} s")
    if seen.paused and (seen.is_disabled or seen.silent_s <= limits.state_timeout):
        return _unknown("paused", seen.paused)
    verdict = seen.verdict
    # At a low rate results are rare, but the frames that are skipped come all the same.
    timeout_s = max(limits.state_timeout, _PERIODS * seen.period_s)
    is_silent = seen.silent_s > limits.state_timeout
    if verdict is None or is_silent or seen.now_s - verdict.at_s > timeout_s:
        return _without_result(seen, limits)
    if is_frozen(seen.unchanged_s, limits):
        return _unknown("frozen camera", f"the same picture for {seen.unchanged_s:.1f} s")
    if seen.scene in SCENE_REASONS:
        return _unknown(SCENE_REASONS[seen.scene])
    if seen.is_loading:
        return _unknown("model being changed")
    if verdict.is_alarm:
        return DetectorState("alarm")
    return DetectorState("anomaly" if verdict.is_anomaly else "ok")


def _without_result(seen: Circumstances, limits: HealthLimits) -> DetectorState:
    if seen.busy_s > limits.state_timeout:
        return _unknown("not scoring", f"one frame has taken {seen.busy_s:.1f} s so far")
    if seen.silent_s > limits.state_timeout:
        return _unknown("no frames", f"for {seen.silent_s:.1f} s")
    if seen.failures:
        return _unknown("frames failed", seen.failure)
    if seen.verdict is None:
        return _unknown("no frames", "none scored yet")
    return _unknown("not scoring", f"no result for {seen.now_s - seen.verdict.at_s:.1f} s")


def _unknown(reason: str, detail: str = "") -> DetectorState:
    assert reason in REASONS
    return DetectorState("unknown", reason, detail)
