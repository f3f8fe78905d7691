"""The terminal view: what it says of a node's messages, and that it comes and goes cleanly."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rich.console import Console
from ros_harness import DEADLINE_S, ROOT, image_message, noise, ros_client, running, running_node

from anomaly_detector.monitoring.state import DetectorState
from anomaly_detector.ros.node.detection_message import DetectionRecord
from anomaly_detector.ros.tools.watch_view import (
    WatchState,
    render_watch,
    score_columns,
    watch_line,
)

WATCH = [sys.executable, "-m", "anomaly_detector", "watch"]
DIAGNOSTICS = {
    "State": "active",
    "Frames received": "310",
    "Frames scored": "300",
    "Frames dropped": "7",
    "Frames failed": "3",
    "Input rate (Hz)": "29.7",
    "Expected rate (Hz)": "30.0",
    "Processing time p50 (ms)": "1.9",
    "Processing time p99 (ms)": "4.2",
    "Queueing delay p50 (ms)": "0.8",
    "Model": "corridor",
    "Execution provider wanted": "CUDAExecutionProvider",
    "Execution provider": "CPUExecutionProvider",
    "Last error": "image has size 0x0",
}


def record(normalized_score: float = 0.25, alarm: bool = False) -> DetectionRecord:
    return DetectionRecord(
        stamp_ns=5,
        frame_id="camera",
        score=10 * normalized_score,
        normalized_score=normalized_score,
        threshold=5.0,
        is_anomaly=normalized_score >= 0.5,
        alarm=alarm,
        model="corridor",
        inference_ms=1.25,
    )


def drawn(state: WatchState, now_s: float, width: int = 100, *, unicode: bool = True) -> str:
    console = Console(file=io.StringIO(), width=width, height=30, record=True)
    console.print(render_watch(state, now_s, width, "/robot/anomaly_detector", unicode=unicode))
    return console.export_text()


def graph(text: str) -> list[str]:
    lines = text.splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("60 s ago"))
    return lines[end - 6 : end]


def test_states() -> None:
    state = WatchState()
    assert state.state(0.0) == "WAITING"
    assert "no detection yet" in state.trouble(0.0)
    for score, alarm, word in ((0.2, False, "OK"), (0.6, False, "ANOMALY"), (0.2, True, "ALARM")):
        state.add_detection(record(score, alarm), 10.0)
        assert state.state(10.5) == word
        assert state.trouble(10.5) == ""
    assert state.state(13.0) == "STALE"
    assert "no detection for 3.0 s" in state.trouble(13.0)
    state.add_detection(record(), 14.0)
    assert state.state(14.0) == "OK"


def test_what_the_node_says_of_its_state_outranks_the_last_detection() -> None:
    state = WatchState()
    state.add_detection(record(), 1.0)
    state.node_state = DetectorState("ok")
    assert state.state(1.1) == "OK"
    state.node_state = DetectorState("unknown", "clock stopped", "/clock has not moved for 1.0 s")
    assert state.state(1.1) == "UNKNOWN"
    assert "unknown: clock stopped: /clock has not moved" in watch_line(state, 1.1)
    assert "unknown: clock stopped" in drawn(state, 1.1)


def test_says_whether_the_node_or_its_images_are_missing() -> None:
    state = WatchState()
    assert "is the node active, and the camera running?" in state.trouble(0.0)
    state.is_there = False
    assert state.trouble(0.0) == "no such node: is it running, and with this ROS_DOMAIN_ID?"
    state.others = ["/front/anomaly_detector", "/rear/anomaly_detector"]
    assert "there is /front/anomaly_detector, /rear/anomaly_detector" in state.trouble(0.0)
    state.is_there = True
    assert "is the node active" in state.trouble(0.0)
    state.add_detection(record(), 1.0)
    assert state.trouble(4.0) == "no detection for 3.0 s: camera or node has stopped"
    state.is_there = False
    assert state.trouble(4.0) == "no detection for 3.0 s: the node has ended"
    state.is_there = True
    state.node_state = DetectorState("unknown", "no state", "for 3.0 s")
    assert state.trouble(4.0).endswith("s: the node has ended, hangs, or cannot be reached")


def test_rate_follows_the_stream_and_falls_when_it_stops() -> None:
    state = WatchState()
    assert state.scored_hz(0.0) == 0.0
    for index in range(300):
        state.add_detection(record(), index / 30)
    assert state.scored_hz(299 / 30) == pytest.approx(30, rel=0.02)
    assert state.scored_hz(299 / 30 + 0.02) == pytest.approx(30, rel=0.02)
    assert 5 < state.scored_hz(299 / 30 + 3) < 15
    assert state.scored_hz(299 / 30 + 6) == 0.0


def test_history_is_bounded_by_the_window() -> None:
    state = WatchState(window_s=10.0)
    for index in range(1000):
        state.add_detection(record(), index / 10)
    assert len(state.history(99.9)) == pytest.approx(100, abs=1)
    assert len(state._history) <= 102


def test_columns_hold_the_highest_score_of_their_time() -> None:
    state = WatchState(window_s=10.0)
    for at, score in ((0.5, 0.9), (2.1, 0.3), (2.2, 0.6), (2.9, 0.1), (9.99, 0.2)):
        state.add_detection(record(score), at)
    columns = score_columns(state, 10.0, 10)
    assert [i for i, column in enumerate(columns) if column is not None] == [0, 2, 9]
    assert columns[0] == (0.9, "ANOMALY")
    assert columns[2] == (0.6, "ANOMALY")
    assert columns[9] == (0.2, "OK")


def test_alarm_is_remembered() -> None:
    state = WatchState()
    assert "no alarm" in state.event(0.0)
    for at, score, alarm in ((1.0, 0.6, True), (2.0, 0.9, True), (3.0, 0.6, True)):
        state.add_detection(record(score, alarm), at)
    assert state.event(3.0) == "alarm for 2.0 s, peak score 9"
    state.add_detection(record(), 4.0)
    assert state.event(13.0) == "alarm 10 s ago, lasted 2.0 s, peak score 9"
    state.add_detection(record(0.7, True), 20.0)
    assert state.event(20.0) == "alarm for 0.0 s, peak score 7"


def test_view_without_and_with_diagnostics() -> None:
    state = WatchState()
    state.add_detection(record(0.6, alarm=True), 1.0)
    text = drawn(state, 1.0)
    assert text.splitlines()[0].strip() == "/robot/anomaly_detector"
    assert re.search(r"ALARM +score 6, threshold 5, normalized 0\.60", text)
    assert "nothing of it on /diagnostics" in text
    state.add_diagnostics("7 frames dropped", DIAGNOSTICS, 1.0)
    text = drawn(state, 1.5)
    for part in (
        "input 29.7 Hz of 30.0 Hz expected",
        "received 310, scored 300, dropped 7, failed 3",
        "network 1.2 ms, processing p50 1.9 ms, p99 4.2 ms, queueing p50 0.8 ms",
        "CPUExecutionProvider, wanted CUDAExecutionProvider",
        "active: 7 frames dropped",
        "image has size 0x0",
        "model",
    ):
        assert part in text
    # Old news are no news.
    state.add_detection(record(), 20.0)
    assert "nothing of it on /diagnostics" in drawn(state, 20.0)


def test_another_scene_is_said_in_line_and_view() -> None:
    state = WatchState()
    state.add_detection(dataclasses.replace(record(0.9), scene="as trained"), 1.0)
    assert state.scene(1.0) == ""
    state.add_detection(dataclasses.replace(record(0.9), scene="differs"), 1.0)
    assert state.scene(1.0) == "scene differs from training"
    level = {"Scene median score": "9", "Calibrated 95 % quantile": "3.1"}
    state.add_diagnostics("", DIAGNOSTICS | level, 1.0)
    text = "scene differs from training: median score 9, calibrated 95 % quantile 3.1"
    assert watch_line(state, 1.0).endswith(f"  {text}")
    assert text in drawn(state, 1.0)


def test_diagnostics_with_other_keys_are_shown_as_far_as_they_go() -> None:
    state = WatchState()
    state.add_diagnostics("", {"State": "inactive"}, 1.0)
    text = drawn(state, 1.0)
    assert "WAITING" in text
    assert "inactive" in text
    assert "received -, scored -" in text


def test_what_the_node_does_not_know_is_left_out() -> None:
    state = WatchState()
    unknown = {"Expected rate (Hz)": "unknown", "Queueing delay p50 (ms)": "unknown"}
    state.add_diagnostics("", DIAGNOSTICS | unknown | {"Frames dropped": "unknown"}, 1.0)
    text = drawn(state, 1.0)
    assert "unknown" not in text
    assert "input 29.7 Hz, scored" in text
    assert "p99 4.2 ms\n" in re.sub(" +\n", "\n", text)
    assert "dropped -, failed 3" in text


def test_graph_rises_above_the_threshold_line_for_anomalies_only() -> None:
    state = WatchState()
    state.add_detection(record(0.25), 10.0)
    state.add_detection(record(0.5), 40.0)
    state.add_detection(record(1.0), 69.9)
    for unicode, blocks, line in ((True, "▁▂▃▄▅▆▇█", "─"), (False, "#", "-")):
        rows = graph(drawn(state, 70.0, unicode=unicode))
        assert rows[2].rstrip().endswith("threshold")
        heights = {}
        for column in range(88):
            heights[column] = [row.ljust(100)[column] in blocks for row in rows]
        filled = {c: h for c, h in heights.items() if any(h)}
        assert list(filled) == [0, 44, 87] or list(filled) == [0, 43, 87]
        low, at_threshold, high = filled.values()
        assert not any(low[:3])
        assert low[5]
        assert at_threshold[2]
        assert not any(at_threshold[:2])
        assert all(high)
        assert line * 40 in rows[2]


@pytest.mark.parametrize("width", [20, 80, 250])
def test_view_fits_the_width(width: int) -> None:
    state = WatchState()
    state.add_detection(record(), 1.0)
    state.add_diagnostics("all is well " * 20, DIAGNOSTICS, 1.0)
    assert all(len(line) <= width for line in drawn(state, 1.0, width).splitlines())


def test_line_says_state_score_and_rates() -> None:
    state = WatchState()
    assert watch_line(state, 0.0).startswith("WAITING")
    state.add_detection(record(0.6), 1.0)
    state.add_diagnostics("", DIAGNOSTICS, 1.0)
    line = watch_line(state, 1.0)
    assert line.startswith("ANOMALY  score 6 threshold 5 normalized 0.60  scored 0.0 Hz")
    assert "input 29.7 Hz dropped 7  model corridor" in line
    assert "\n" not in line


def test_watches_a_real_node(model: Path) -> None:
    with (
        running_node(model=model) as node,
        ros_client() as client,
        running(WATCH) as watch,
    ):
        node.wait_for_line("waiting for")
        watch.wait_for_line("unknown: no frames: for")
        status = client.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        values = [KeyValue(key=k, value=v) for k, v in DIAGNOSTICS.items()]
        mine = DiagnosticStatus(name="anomaly_detector: detector", values=values)
        others = [
            DiagnosticStatus(name=name, values=[KeyValue(key="Frames dropped", value="999")])
            for name in ("other: detector", "/robot2/anomaly_detector: detector")
        ]

        def seen() -> bool:
            status.publish(DiagnosticArray(status=[*others, mine, *others]))
            lines = "model grey_difference", "dropped 7"
            return bool(client.detections) and all(x in watch.output for x in lines)

        message = client.stamp(image_message(noise(1), "rgb8"))
        client.publish_until(message, seen, "a line about the node")
        score = client.detections[-1].status[0].values[0].value
        assert f"score {float(score):.4g} threshold 1000" in watch.output
        assert "999" not in watch.output
        node.kill()
        watch.wait_for_line("UNKNOWN")
        # With or without what follows it: the middleware may not know yet that the node is gone.
        watch.wait_for_line("the node has ended")
        watch.send_signal(signal.SIGTERM)
        assert watch.wait() == 0
        assert "Traceback" not in watch.output
        # No escape sequences where nobody can draw.
        assert "\x1b" not in watch.output


@pytest.mark.parametrize(
    ("ending", "encoding", "columns"),
    [("q", "utf-8", 80), ("ctrl-c", "ascii", 30), ("sigterm", "utf-8", 80)],
)
def test_draws_in_a_terminal_and_gives_it_back(ending: str, encoding: str, columns: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = os.environ | {
        "TERM": "xterm-256color",
        "NO_COLOR": "1",
        "PYTHONIOENCODING": encoding,
    }
    process = subprocess.Popen(
        WATCH,
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    output = ""
    deadline = time.monotonic() + DEADLINE_S
    asked = False
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.2)[0]:
            continue
        try:
            output += os.read(ours, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        if "q quits" in output and not asked:
            asked = True
            if ending == "sigterm":
                process.send_signal(signal.SIGTERM)
            else:
                os.write(ours, b"q" if ending == "q" else b"\x03")
    try:
        assert process.wait(DEADLINE_S) == 0, output
    finally:
        process.kill()
        os.close(ours)
    assert "WAITING" in output
    assert "Traceback" not in output
    assert output.isascii() == (encoding == "ascii")
    # The alternate screen is entered and left; without colours.
    assert output.rindex("\x1b[?1049l") > output.index("\x1b[?1049h")
    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|38;|48;)[0-9;]*m", output)


def test_names_the_nodes_there_are_when_the_one_watched_is_not(model: Path) -> None:
    with (
        running_node("-r", "__ns:=/rear", model=model) as node,
        running([*WATCH, "--node", "/front/anomaly_detector"]) as watch,
    ):
        node.wait_for_line("waiting for")
        watch.wait_for_line("no such node; there is /rear/anomaly_detector: choose with --node")
        watch.send_signal(signal.SIGTERM)
        assert watch.wait() == 0


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--node", "no good"], "--node is 'no good'"), (["--window", "0"], "--window is 0")],
)
def test_wrong_arguments_are_reported_in_one_line(arguments: list[str], message: str) -> None:
    result = subprocess.run([*WATCH, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_ros_it_says_what_is_missing() -> None:
    code = (
        "import sys; sys.modules['rclpy'] = None; from anomaly_detector.cli.main import main; "
        "sys.exit(main(['watch']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "watching needs ROS 2" in result.stderr
