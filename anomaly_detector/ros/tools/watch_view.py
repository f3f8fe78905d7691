"""What ``python -m anomaly_detector watch`` shows, without ROS and without a terminal.

:class:`WatchState` takes what the node publishes; :func:`render_watch` gives the full view as
something that the package ``rich`` can print, :func:`watch_line` one plain line.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anomaly_detector.drawing.overlay import STATE_COLORS, state_word
from anomaly_detector.monitoring.scene import scene_note
from anomaly_detector.monitoring.state import SCENE_REASONS, DetectorState

if TYPE_CHECKING:
    from anomaly_detector.ros.node.detection_message import DetectionRecord

STALE_S = 2.0
"""Without a detection for longer than this, the view says so and no longer gives a state."""

_RATE_WINDOW_S = 5.0
_DIAGNOSTICS_STALE_S = 5.0
_GRAPH_ROWS = 6
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_STALE_COLOR = (128, 128, 128)
_UNKNOWN = "-"
# What the node's diagnostics have for it.
_UNKNOWN_VALUE = "unknown"


@dataclass
class _Alarm:
    """An alarm seen here: when it came and went, in seconds of the clock given, and its peak."""

    start_s: float
    last_s: float
    peak: float
    is_on: bool = True


@dataclass
class WatchState:
    """What is known of a node from its messages, and when the newest ones came.

    ``is_there`` is None while nobody knows; ``others`` are the full names of the other detectors.
    ``node_state`` is what its ``~/state`` says, or its silence; None where none has ever come.
    """

    window_s: float = 60.0
    detection: DetectionRecord | None = None
    detection_s: float = -math.inf
    diagnostics: Mapping[str, str] = field(default_factory=dict)
    diagnostics_message: str = ""
    diagnostics_s: float = -math.inf
    node_state: DetectorState | None = None
    is_there: bool | None = None
    others: Sequence[str] = ()
    _history: deque[tuple[float, float, str]] = field(default_factory=deque)
    _alarm: _Alarm | None = None

    def add_detection(self, detection: DetectionRecord, now_s: float) -> None:
        """Take a ``~/detection`` that came at ``now_s``, seconds of a steady clock."""
        self.detection, self.detection_s = detection, now_s
        word = state_word(detection.is_anomaly, detection.alarm)
        self._history.append((now_s, detection.normalized_score, word))
        while self._history[0][0] < now_s - max(self.window_s, _RATE_WINDOW_S):
            self._history.popleft()
        alarm = self._alarm
        if not detection.alarm:
            if alarm is not None:
                alarm.is_on = False
        elif alarm is None or not alarm.is_on:
            self._alarm = _Alarm(now_s, now_s, detection.score)
        else:
            alarm.last_s = now_s
            alarm.peak = max(alarm.peak, detection.score)

    def add_diagnostics(self, message: str, values: Mapping[str, str], now_s: float) -> None:
        """Take the node's status from ``/diagnostics``."""
        self.diagnostics, self.diagnostics_message = dict(values), message
        self.diagnostics_s = now_s

    def history(self, now_s: float) -> list[tuple[float, float, str]]:
        """Return age in seconds, normalised score and state of the detections in the window."""
        return [
            (now_s - at, score, word)
            for at, score, word in self._history
            if now_s - at <= self.window_s
        ]

    def scored_hz(self, now_s: float) -> float:
        """Return the rate of detections over the last five seconds, or since the first one."""
        ages = [now_s - at for at, _, _ in self._history if now_s - at <= _RATE_WINDOW_S]
        if len(ages) < 2:
            return 0.0
        # The first of n frames opens the first of n - 1 gaps; silence since the last one counts.
        return (len(ages) - 1) / max(ages[0] - min(ages[-1], ages[0] / len(ages)), 1e-3)

    def state(self, now_s: float) -> str:
        """Return OK, ANOMALY, ALARM, or UNKNOWN where the node says so.

        STALE when detections stopped, WAITING before the first.
        """
        if self.node_state is not None and self.node_state.word == "unknown":
            return "UNKNOWN"
        if self.detection is None:
            return "WAITING"
        if now_s - self.detection_s > STALE_S:
            return "STALE"
        return state_word(self.detection.is_anomaly, self.detection.alarm)

    def trouble(self, now_s: float) -> str:
        """Say why there is no state, or what is wrong with the messages; empty as a rule."""
        # Of the scene there is more to say, and of a node that says nothing.
        known = self.node_state
        if known is not None and known.reason not in ("", "no state", *SCENE_REASONS.values()):
            return known.text
        if self.detection is None and self.is_there is False:
            if self.others:
                return f"no such node; there is {', '.join(self.others)}: choose with --node"
            return "no such node: is it running, and with this ROS_DOMAIN_ID?"
        if self.detection is None:
            return "no detection yet: is the node active, and the camera running?"
        silence = now_s - self.detection_s
        if silence > STALE_S:
            return f"no detection for {silence:.1f} s: {self._stopped()}"
        return ""

    def _stopped(self) -> str:
        if self.is_there is False:
            return "the node has ended"
        # The middleware goes on naming a killed node until its lease is over, and at times longer.
        if self.node_state is not None and self.node_state.reason == "no state":
            return "the node has ended, hangs, or cannot be reached"
        return "camera or node has stopped"

    def value(self, key: str, now_s: float) -> str:
        """Return a value of the diagnostics; ``-`` when it is missing, unknown or old."""
        if now_s - self.diagnostics_s > _DIAGNOSTICS_STALE_S:
            return _UNKNOWN
        text = self.diagnostics.get(key, "")
        return _UNKNOWN if text in ("", _UNKNOWN_VALUE) else text

    def scene(self, now_s: float) -> str:
        """Describe a scene that is not that of the training; empty for one that is, or unknown."""
        note = "" if self.detection is None else scene_note(self.detection.scene)
        if not note or self.value("Scene median score", now_s) == _UNKNOWN:
            return note
        return (
            f"{note}: median score {self.value('Scene median score', now_s)}, calibrated 95 % "
            f"quantile {self.value('Calibrated 95 % quantile', now_s)}"
        )

    def event(self, now_s: float) -> str:
        """Describe the newest alarm seen since the start."""
        alarm = self._alarm
        if alarm is None:
            return "no alarm since this view was opened"
        length = alarm.last_s - alarm.start_s
        if alarm.is_on:
            return f"alarm for {length:.1f} s, peak score {alarm.peak:.4g}"
        return (
            f"alarm {now_s - alarm.last_s:.0f} s ago, lasted {length:.1f} s, peak score "
            f"{alarm.peak:.4g}"
        )


def score_columns(state: WatchState, now_s: float, columns: int) -> list[tuple[float, str] | None]:
    """Return the highest normalised score of each stretch of the window, with its state.

    The oldest comes first; None stands where no detection came.
    """
    result: list[tuple[float, str] | None] = [None] * columns
    for age, score, word in state.history(now_s):
        index = columns - 1 - min(columns - 1, int(age / state.window_s * columns))
        known = result[index]
        if known is None or score >= known[0]:
            result[index] = (score, word)
    return result


def watch_line(state: WatchState, now_s: float) -> str:
    """Return the state in one line, for logs and terminals that cannot draw."""
    parts = [f"{state.state(now_s):<7}"]
    detection = state.detection
    if detection is not None:
        parts.append(
            f"score {detection.score:.4g} threshold {detection.threshold:.4g} normalized "
            f"{detection.normalized_score:.2f}"
        )
    parts.append(
        f"scored {state.scored_hz(now_s):.1f} Hz input {state.value('Input rate (Hz)', now_s)} Hz "
        f"dropped {state.value('Frames dropped', now_s)}"
    )
    if detection is not None:
        parts.append(f"model {detection.model}")
    findings = [state.trouble(now_s), state.scene(now_s)]
    return "  ".join([*parts, *filter(None, findings)])


def render_watch(
    state: WatchState, now_s: float, width: int, node: str = "", *, unicode: bool = True
) -> Any:
    """Return the full view, as a ``rich`` renderable for a terminal of this width.

    ``now_s`` is of the clock that the state was filled with. Without ``unicode`` the terminal
    cannot show block characters.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    word = state.state(now_s)
    detection = state.detection
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f" {word:^9} ", _badge_style(word))
    if detection is not None:
        dim = "dim" if word == "STALE" else ""
        head.append(
            f"  score {detection.score:.4g}, threshold {detection.threshold:.4g}, normalized "
            f"{detection.normalized_score:.2f}",
            dim,
        )
    trouble = state.trouble(now_s) or state.scene(now_s)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(state, now_s):
        table.add_row(name, value)
    return Group(
        Text(f"{node}", "bold", no_wrap=True, overflow="ellipsis"),
        head,
        Text(trouble, "bold", no_wrap=True, overflow="ellipsis"),
        _graph(state, now_s, max(10, width - 12), unicode),
        Text(""),
        table,
        Text("q quits", "dim"),
    )


def _rows(state: WatchState, now_s: float) -> list[tuple[str, str]]:
    def value(key: str) -> str:
        return state.value(key, now_s)

    detection = state.detection
    known = now_s - state.diagnostics_s <= _DIAGNOSTICS_STALE_S
    rates = [f"scored {state.scored_hz(now_s):.1f} Hz"]
    latency = [] if detection is None else [f"network {detection.inference_ms:.1f} ms"]
    rows = []
    if known:
        expected = value("Expected rate (Hz)")
        of_expected = "" if expected == _UNKNOWN else f" of {expected} Hz expected"
        rates.insert(0, f"input {value('Input rate (Hz)')} Hz{of_expected}")
        latency.append(
            f"processing p50 {value('Processing time p50 (ms)')} ms, p99 "
            f"{value('Processing time p99 (ms)')} ms"
        )
        # Not known without stamps, or where the camera's clock is not the robot's.
        queueing = value("Queueing delay p50 (ms)")
        latency += [] if queueing == _UNKNOWN else [f"queueing p50 {queueing} ms"]
        rows.append(
            (
                "frames",
                f"received {value('Frames received')}, scored {value('Frames scored')}, dropped "
                f"{value('Frames dropped')}, failed {value('Frames failed')}",
            )
        )
        wanted, got = value("Execution provider wanted"), value("Execution provider")
        rows.append(("provider", got if wanted in (got, _UNKNOWN) else f"{got}, wanted {wanted}"))
    rows += [
        ("rates", ", ".join(rates)),
        ("latency", ", ".join(latency) or _UNKNOWN),
        ("model", value("Model") if detection is None else detection.model),
        ("last alarm", state.event(now_s)),
    ]
    if known:
        message = f": {state.diagnostics_message}" if state.diagnostics_message else ""
        rows.append(("node", f"{value('State')}{message}"))
        if value("Last error") != _UNKNOWN:
            rows.append(("last error", value("Last error")))
    else:
        rows.append(("node", "nothing of it on /diagnostics"))
    return rows


def _graph(state: WatchState, now_s: float, columns: int, unicode: bool) -> Any:
    """Draw normalised scores as bars of six rows; the threshold is the line in the middle."""
    from rich.text import Text

    bars = score_columns(state, now_s, columns)
    text = Text(no_wrap=True, overflow="crop")
    full, line = ("█", "─") if unicode else ("#", "-")
    threshold_row = _GRAPH_ROWS // 2
    for row in reversed(range(_GRAPH_ROWS)):
        # The threshold lies between two rows; the line takes the lowest one above it.
        is_threshold = row == threshold_row
        for bar in bars:
            filled = 0.0 if bar is None else min(max(bar[0] * _GRAPH_ROWS - row, 0.0), 1.0)
            eighths = round(filled * 8)
            if bar is not None and bar[1] != "OK" and is_threshold:
                eighths = max(eighths, 1)
            if bar is None or eighths == 0:
                text.append(line if is_threshold else " ", "dim")
            elif unicode:
                text.append(_EIGHTHS[eighths], _color(bar[1]))
            else:
                text.append(full if eighths >= 4 or is_threshold else " ", _color(bar[1]))
        text.append(" threshold" if is_threshold else "", "dim")
        text.append("\n")
    left, right = f"{state.window_s:.0f} s ago", "now"
    text.append(left + right.rjust(columns - len(left)), "dim")
    return text


def _color(word: str) -> str:
    red, green, blue = STATE_COLORS.get(word, _STALE_COLOR)
    return f"rgb({red},{green},{blue})"


def _badge_style(word: str) -> str:
    ink = "black" if word == "ANOMALY" else "white"
    # Reverse as well would undo the colours; bold is what remains without colour.
    return f"bold {ink} on {_color(word)}"
