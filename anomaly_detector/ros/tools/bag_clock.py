"""The time of a bag that is played: when each frame is due, and what /clock says meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from anomaly_detector.ros.tools.played_frames import MAX_GAP_S


class BagClock:
    """Waits for the time of each frame, and publishes the time of the bag meanwhile.

    Between two frames the time runs evenly, however fast the bag is played, and never passes that
    of the next frame. It jumps when the bag starts again, and where the recorder's clock was set.
    """

    def __init__(self, publish: Callable[[int], None] | None = None, period_s: float = 1.0) -> None:
        self._publish = publish
        self._period_s = period_s
        self._last_ns: int | None = None

    def publish(self, time_ns: int) -> None:
        """Publish a time, nanoseconds."""
        if self._publish is not None:
            self._publish(time_ns)

    def wait(self, due: float, frame_ns: int, stop: threading.Event) -> bool:
        """Wait until a frame is due by ``time.monotonic()``; return whether ``stop`` is set."""
        begin = time.monotonic()
        while self._publish is not None and (left := due - time.monotonic()) > 0:
            self._publish(self._time_at(frame_ns, due - begin, left))
            if stop.wait(min(left, self._period_s)):
                return True
        if stop.wait(min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX)):
            return True
        self.publish(frame_ns)
        self._last_ns = frame_ns
        return False

    def _time_at(self, frame_ns: int, whole_s: float, left_s: float) -> int:
        """Return the bag's time when ``left_s`` of the ``whole_s`` before a frame are left."""
        last_ns = self._last_ns
        if last_ns is not None and 0 <= frame_ns - last_ns <= MAX_GAP_S * 1e9:
            return frame_ns - round((frame_ns - last_ns) * min(1.0, left_s / whole_s))
        if last_ns is not None and left_s > whole_s / 2:
            # Time jumps in the middle between the two frames, far from both.
            return last_ns + round((whole_s - left_s) * 1e9)
        return max(0, frame_ns - round(left_s * 1e9))
