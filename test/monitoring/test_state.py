"""The state of a detector: which of the circumstances is said, and from when on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anomaly_detector.monitoring.health import HealthLimits
from anomaly_detector.monitoring.state import REASONS, Circumstances, Verdict, judge

LIMITS = HealthLimits(state_timeout=0.5, frozen_timeout=5.0)
WELL = Circumstances(
    lifecycle="active",
    error="",
    clock_stopped_s=0.0,
    verdict=Verdict(is_anomaly=False, is_alarm=False, stamp_ns=1, at_s=10.0),
    now_s=10.1,
    silent_s=0.1,
    busy_s=0.0,
    failures=0,
    failure="",
    unchanged_s=0.0,
    paused="",
    is_disabled=False,
    period_s=0.0,
    scene="as trained",
    is_loading=False,
)
ALARM = replace(WELL, verdict=Verdict(is_anomaly=False, is_alarm=True, stamp_ns=1, at_s=10.0))
LATE = replace(ALARM, now_s=10.6)
UNKNOWN = [
    (replace(ALARM, lifecycle="inactive", error="no model"), "not active", "inactive, no model"),
    (replace(ALARM, clock_stopped_s=0.6), "clock stopped", "/clock has not moved for 0.6 s"),
    (replace(ALARM, paused="turning"), "paused", "turning"),
    (replace(ALARM, paused="off", is_disabled=True, silent_s=9.0), "paused", "off"),
    (replace(LATE, paused="turning", silent_s=0.6), "no frames", "for 0.6 s"),
    (replace(LATE, silent_s=0.6), "no frames", "for 0.6 s"),
    (replace(LATE, silent_s=0.6, period_s=1.0), "no frames", "for 0.6 s"),
    (replace(WELL, verdict=None), "no frames", "none scored yet"),
    (replace(LATE, failures=3, failure="odd size"), "frames failed", "odd size"),
    (replace(LATE, silent_s=0.6, failures=3), "no frames", "for 0.6 s"),
    (replace(LATE, silent_s=0.6, busy_s=0.6), "not scoring", "one frame has taken 0.6 s so far"),
    (LATE, "not scoring", "no result for 0.6 s"),
    (replace(ALARM, unchanged_s=5.1), "frozen camera", "the same picture for 5.1 s"),
    (replace(ALARM, scene="differs"), "scene differs", ""),
    (replace(ALARM, scene="blank picture"), "blank picture", ""),
    (replace(ALARM, is_loading=True), "model being changed", ""),
]


@pytest.mark.parametrize(("seen", "reason", "detail"), UNKNOWN)
def test_what_makes_it_unknown_outranks_an_alarm(
    seen: Circumstances, reason: str, detail: str
) -> None:
    state = judge(seen, LIMITS)
    assert (state.word, state.reason, state.detail) == ("unknown", reason, detail)
    assert state.text == ": ".join(filter(None, ("unknown", reason, detail)))


def test_every_reason_is_documented_and_said() -> None:
    assert {reason for _, reason, _ in UNKNOWN} == set(REASONS)


def test_newest_frame_and_alarm_are_said_up_to_the_time_limit() -> None:
    assert judge(WELL, LIMITS).text == "ok"
    assert judge(ALARM, LIMITS).text == "alarm"
    anomaly = Verdict(is_anomaly=True, is_alarm=False, stamp_ns=1, at_s=10.0)
    for now_s, word in ((10.0, "anomaly"), (10.5, "anomaly"), (10.51, "unknown")):
        seen = replace(WELL, verdict=anomaly, now_s=now_s, scene="unknown")
        assert judge(seen, LIMITS).word == word
    # At two frames a second, the newest is half a second old before the next comes.
    assert judge(replace(LATE, period_s=0.5), LIMITS).word == "alarm"
    # A single frame that fails is no reason.
    assert judge(replace(WELL, failures=1, failure="odd size"), LIMITS).word == "ok"
    assert judge(replace(WELL, unchanged_s=99.0), HealthLimits(frozen_timeout=0.0)).word == "ok"
