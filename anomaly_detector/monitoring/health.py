"""Whether a running detector is well, in one level and one sentence for diagnostics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from anomaly_detector.monitoring.statistics import WINDOW_S, StatisticsReport
from anomaly_detector.settings import Setting, setting, settings_of

Level = Literal["OK", "WARN", "ERROR", "STALE"]

_RATE_TOLERANCE = 0.8
"""An input rate below this share of the expected one is worth a warning."""

_BUSY = 0.9
"""Above this share of processing time, lost frames are lost to a lack of time."""

_MIN_LOST_SHARE = 0.02
"""Single frames are lost on any machine; a WARN for each would only teach users to ignore it."""


@dataclass(frozen=True)
class HealthLimits:
    """What counts as well.

    The field definitions carry description and range (:data:`HEALTH_SETTINGS`).
    """

    expected_rate: float = setting(
        0.0,
        "Frames a second that the camera is to send; diagnostics warn below 80 % of it. 0 when "
        "that is not known.",
        minimum=0.0,
        maximum=1000.0,
    )
    stale_timeout: float = setting(
        2.0,
        "Time without a frame after which the camera counts as stopped, seconds.",
        minimum=0.1,
        maximum=3600.0,
    )
    state_timeout: float = setting(
        0.5,
        "Time without a scored frame, or with a /clock that stands still, after which ~/state is "
        "unknown, seconds; make it several periods of the camera.",
        minimum=0.1,
        maximum=3600.0,
    )
    frozen_timeout: float = setting(
        5.0,
        "Time for which every frame shows the very same picture, after which the camera counts as "
        "frozen, seconds; 0 never. A simulated camera without noise that stands still looks the "
        "same.",
        minimum=0.0,
        maximum=3600.0,
    )
    max_failures: int = setting(
        10,
        "Failed frames in a row that turn diagnostics from WARN to ERROR.",
        minimum=1,
        maximum=10_000,
    )


HEALTH_SETTINGS: tuple[Setting, ...] = settings_of(HealthLimits)
"""The definitions of the fields of :class:`HealthLimits`, in order."""


@dataclass(frozen=True)
class Health:
    """One level and one sentence."""

    level: Level
    message: str


def assess(
    report: StatisticsReport,
    limits: HealthLimits,
    *,
    waiting_s: float,
    awake_s: float = math.inf,
    others: Sequence[str | None],
    last_error: str,
    max_rate_hz: float = 0.0,
    paused: str = "",
) -> Health:
    """Judge a detector that was activated ``waiting_s`` seconds ago.

    It has not stood still for ``awake_s``: silence before that says nothing of the camera.
    The worst finding comes first; warnings are joined, ``others`` being those from elsewhere. At
    most ``max_rate_hz`` frames a second are to be scored, 0 for all; none, for a reason, while it
    is ``paused``.
    """
    if report.consecutive_failures >= limits.max_failures:
        return Health(
            "ERROR", f"the last {report.consecutive_failures} frames failed: {last_error}"
        )
    silent_s = waiting_s if report.age_s is None else report.age_s
    if min(silent_s, awake_s) > limits.stale_timeout:
        since = "since activation" if report.age_s is None else "any more"
        return Health("STALE", f"no frame {since}, for {silent_s:.1f} s: is the camera running?")
    warnings = [*_rate_warnings(report, limits, max_rate_hz), *_frame_warnings(report, limits)]
    warnings += [other for other in others if other]
    doing = [f"paused: {paused}"] if paused else [] if warnings else ["scoring"]
    return Health("WARN" if warnings else "OK", "; ".join(doing + warnings))


def _rate_warnings(report: StatisticsReport, limits: HealthLimits, max_rate_hz: float) -> list[str]:
    warnings = []
    rate = report.input_rate
    # NaN, before the second frame, is no finding yet.
    if limits.expected_rate and rate < _RATE_TOLERANCE * limits.expected_rate:
        warnings.append(f"{rate:.1f} frames/s, expected {limits.expected_rate:g}")
    wanted = max(limits.expected_rate, 0.0 if math.isnan(rate) else rate)
    wanted = min(wanted, max_rate_hz or wanted)
    if wanted and report.processing_p99_s > 1 / wanted:
        warnings.append(
            f"slow: {report.processing_p99_s * 1e3:.1f} ms a frame (p99) leave no time for "
            f"{wanted:.1f} frames/s"
        )
    return warnings


def is_frozen(unchanged_s: float, limits: HealthLimits) -> bool:
    """Return whether a camera sends the same picture again and again, for seconds now.

    Even two frames of a camera at rest differ in some of their 12,288 preprocessed values, by the
    noise of its sensor; a driver that hangs repeats its last one.
    """
    return 0.0 < limits.frozen_timeout < unchanged_s


def _frame_warnings(report: StatisticsReport, limits: HealthLimits) -> list[str]:
    warnings = []
    if is_frozen(report.unchanged_s, limits):
        warnings.append(f"the same picture for {report.unchanged_s:.1f} s: is the camera frozen?")
    sent = report.recent_received + report.recent_dropped
    if report.recent_dropped > _MIN_LOST_SHARE * sent:
        cause = (
            "the node is too slow for the camera"
            if report.busy > _BUSY
            else "lost on the way: see 'Large images' in docs/launch.md"
        )
        warnings.append(
            f"{report.recent_dropped} of {sent} frames dropped in {WINDOW_S:g} s, {cause}"
        )
    if report.recent_failed:
        warnings.append(f"{report.recent_failed} frames failed in {WINDOW_S:g} s")
    if report.recent_without_stamp:
        warnings.append("frames have no time stamp: set it in the camera driver")
    if report.recent_from_future:
        warnings.append(
            "stamps are ahead of this node's clock: synchronise the clocks, or set use_sim_time"
        )
    return warnings
