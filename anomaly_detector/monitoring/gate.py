"""Which frames are scored: a rate at most, and none while detection is paused."""

from __future__ import annotations

from dataclasses import dataclass

from anomaly_detector.poses import PoseTrack
from anomaly_detector.settings import Setting, setting, settings_of

_EARLY = 0.25
"""Share of the period by which a frame may come early: no camera is quite even."""


@dataclass(frozen=True)
class GateSettings:
    """Which frames are scored.

    The field definitions carry description and range (:data:`GATE_SETTINGS`).
    """

    max_rate_hz: float = setting(
        0.0,
        "Frames scored a second at most; those beyond are skipped before they are decoded, and "
        "counted. 0 for no limit.",
        minimum=0.0,
        maximum=1000.0,
    )
    enable_topic: str = setting(
        "",
        "Topic of std_msgs/Bool that pauses detection while the newest message is false; empty "
        "for none. Before the first message detection is on.",
    )
    max_turn_rate: float = setting(
        0.0,
        "Pause detection while the robot turns faster than this, by the poses of pose_topic, "
        "radians a second; 0 never pauses.",
        minimum=0.0,
        maximum=100.0,
    )


GATE_SETTINGS: tuple[Setting, ...] = settings_of(GateSettings)
"""The definitions of the fields of :class:`GateSettings`, in order."""


class FrameGate:
    """Decides on the frames of one stream.

    Attributes:
        settings: :meth:`use` replaces them.
        is_enabled: what the enable topic says.
    """

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self.is_enabled = True
        self._due = 0.0

    def use(self, settings: GateSettings) -> None:
        """Take other settings; another rate begins anew."""
        if settings.max_rate_hz != self.settings.max_rate_hz:
            self._due = 0.0
        self.settings = settings

    def is_due(self, now: float) -> bool:
        """Return whether a frame that comes at a time, seconds, is within the rate; it counts.

        The average keeps the rate; single gaps are as even as those of the camera.
        """
        rate = self.settings.max_rate_hz
        if not rate:
            return True
        period = 1.0 / rate
        if now < self._due - _EARLY * period:
            return False
        # One that is late does not delay those after it; a gap is not made up for.
        self._due = (now if now - self._due > period else self._due) + period
        return True

    def pause_reason(self, time_ns: int, poses: PoseTrack | None) -> str:
        """Return why a frame of this time is not scored, in words; empty when it is."""
        if not self.is_enabled:
            return f"{self.settings.enable_topic} is false"
        limit = self.settings.max_turn_rate
        if limit and poses is not None:
            rate = poses.turn_rate(time_ns)
            if rate is not None and abs(rate) > limit:
                return f"turning at {abs(rate):.2g} rad/s"
        return ""
