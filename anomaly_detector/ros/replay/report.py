"""The report of a replay: one HTML page with the node's own pictures of what it saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

import anomaly_detector
from anomaly_detector.drawing.overlay import state_word
from anomaly_detector.drawing.page import (
    Card,
    KeyFigure,
    Page,
    Picture,
    Section,
    Table,
    data_uri,
    write_page,
)
from anomaly_detector.monitoring.scene import ADVICE, scene_note
from anomaly_detector.monitoring.state import STATE_PERIOD_S
from anomaly_detector.recordings import UnreadableFrame, deserialize, open_bag
from anomaly_detector.ros.replay.comparison import SCORE_TOLERANCE, frame_ranges
from anomaly_detector.ros.replay.picture import Answered, bag_name, top_answers
from anomaly_detector.ros.replay.session import ReplayResult
from anomaly_detector.scoring.tables import format_score
from anomaly_detector.stamps import parse_stamp, stamp_to_ns

if TYPE_CHECKING:
    from anomaly_detector.ros.node.event_message import EventRecord

_MAX_ALARMS_SHOWN = 24

_Overlays: TypeAlias = "dict[int | None, bytes]"
"""Stamps, and the JPEG of each."""


def write_replay_report(path: Path, result: ReplayResult, folder: Path) -> None:
    """Write the report of a replay into an HTML file.

    The folder has its ``timeline.png`` (without one the page has none) and the bag ``results``.
    """
    alarms = [event for event in result.events if event.kind == "end"]
    top = top_answers(list(result.comparison.pairs()))
    wanted = {frame.stamp_ns for frame, _ in top}
    wanted |= {parse_stamp(event.peak_stamp) for event in alarms[:_MAX_ALARMS_SHOWN]}
    overlays = _overlays(folder / "results", result.options.node_name, wanted)
    metadata = result.detector.metadata
    sections = [
        Section(
            "Summary",
            [_verdict(result)],
            key_figures=_keys(result),
            pictures=_timeline(folder / "timeline.png"),
        ),
        *_scene(result),
        _alarms(result, alarms, overlays),
        *_highest(top, overlays),
        *_states(result),
        *_frames_apart(result),
        _how(result),
    ]
    subtitle = (
        f"What the detector node said of {result.source.topic}, with the model {metadata.name} "
        f"({metadata.architecture}, {metadata.scorer}) at threshold {result.detector.threshold:.6g}"
    )
    write_page(Page(f"Replay of {bag_name(result)}", subtitle, sections, result.warning), path)


def _timeline(file: Path) -> list[Picture]:
    if not file.is_file():
        return []
    return [
        Picture(
            data_uri("image/png", file.read_bytes()),
            "Anomaly score over time, with threshold, alarms and the highest frames",
            "Blue: the score of each frame. Orange dots: frames at or above the threshold "
            "(dashed). Orange bar at the bottom: the alarm is on. The lettered frames are those "
            "with the highest scores, each beside the map of where the evidence lies (on its own "
            "scale).",
            wide=True,
        )
    ]


def _verdict(result: ReplayResult) -> str:
    comparison = result.comparison
    if result.is_complete and result.is_equal and not comparison.other_scores:
        return (
            "The node answered every frame, and score, flag and alarm of each are those of offline "
            "scoring, to the last bit."
        )
    if result.is_complete and result.is_equal:
        return (
            "The node answered every frame with the flag and alarm of offline scoring; "
            f"{comparison.scores_text}."
        )
    if result.is_equal:
        return (
            f"The node left {len(comparison.missing)} frames out; the flags of the others are "
            f"those of offline scoring, {comparison.scores_text}."
        )
    return f"The node and offline scoring differ, {comparison.scores_text}: see the frames below."


def _keys(result: ReplayResult) -> list[KeyFigure]:
    comparison = result.comparison
    answered = comparison.answered
    largest, _ = comparison.largest_difference
    anomalies = sum(answer.is_anomaly for answer in answered)
    alarms = sum(event.kind == "start" for event in result.events)
    same = len(answered) - len(comparison.other_anomalies)
    share = f"{anomalies / len(answered):.1%} of the frames" if answered else ""
    keys = [
        KeyFigure(
            "Frames answered",
            f"{len(answered)} of {len(comparison.frames)}",
            f"{result.sent} sent in {result.duration_s:.1f} s",
            not result.is_complete,
        ),
        KeyFigure(
            "Same score as offline",
            f"{len(answered) - len(comparison.far_scores)} of {len(answered)}",
            f"within {SCORE_TOLERANCE:g}; largest difference {largest:.3g}",
            bool(comparison.far_scores),
        ),
        KeyFigure(
            "Same flag as offline",
            f"{same} of {len(answered)}",
            "frame by frame",
            bool(comparison.other_anomalies),
        ),
        KeyFigure("Anomalous frames", str(anomalies), share),
        KeyFigure("Alarms", str(alarms), "several anomalous frames, or a very high score"),
    ]
    if result.latencies_ms:
        middle, high = np.percentile(result.latencies_ms, [50, 99])
        note = f"median, from image to answer; 99th percentile {high:.1f} ms, on this machine"
        keys.append(KeyFigure("Latency", f"{middle:.1f} ms", note))
    return keys


def _scene(result: ReplayResult) -> Iterable[Section]:
    rows = [
        [scene_note(s.word), f"{s.start_s:.1f}", f"{s.end_s:.1f}", format_score(median(s.scores))]
        for s in result.comparison.scene
    ]
    if rows:
        quantile = result.detector.metadata.calibration.quantiles["0.95"]
        text = (
            "This is not one event: the scores as a whole left the range of the calibration, in "
            f"which 95 % of the frames had less than {quantile:.4g}. What to do: {ADVICE}."
        )
        columns = ["finding", "said from (s)", "to (s)", "median score"]
        yield Section("The scene as a whole", [text], tables=[Table(columns, rows)])


def _alarms(result: ReplayResult, alarms: Sequence[EventRecord], overlays: _Overlays) -> Section:
    if not alarms:
        return Section("Alarms", ["No alarm was raised."])
    times = {
        frame.stamp_ns: frame.time_s
        for frame in reversed(result.comparison.frames)
        if frame.stamp_ns is not None
    }
    # Of a frame without a stamp, the node gives a time of its own.
    start = min(times, default=0)

    def seconds(stamp: str) -> float:
        stamp_ns = parse_stamp(stamp)
        return times.get(stamp_ns, (stamp_ns - start) / 1e9)

    rows = []
    cards: list[Card] = []
    for event in alarms:
        begin, end = (seconds(text) for text in (event.start_stamp, event.end_stamp))
        peak = f"{event.peak_normalized_score:.2f}"
        rows.append(
            [
                str(event.number),
                f"{begin:.2f}",
                f"{end - begin:.2f}",
                str(event.frames),
                f"{seconds(event.peak_stamp):.2f}",
                format_score(event.peak_score),
                peak,
            ]
        )
        picture = overlays.get(parse_stamp(event.peak_stamp))
        if picture is not None and len(cards) < _MAX_ALARMS_SHOWN:
            text = f"from {begin:.1f} s to {end:.1f} s, normalized score up to {peak}"
            cards.append(_card(picture, f"Alarm {event.number}", text))
    columns = [
        "alarm",
        "start (s)",
        "duration (s)",
        "frames",
        "peak at (s)",
        "peak score",
        "peak, normalized",
    ]
    shown = len(cards)
    text = (
        "Times count from the first frame. The pictures are the node's own overlays of the frame "
        "with the highest score of each alarm."
        + (f" The first {shown} are shown." if shown < len(alarms) and shown else "")
    )
    return Section("Alarms", [text], gallery=cards, tables=[Table(columns, rows, text_columns=0)])


def _highest(top: Answered, overlays: _Overlays) -> Iterable[Section]:
    cards = [
        _card(
            overlays[frame.stamp_ns],
            f"{frame.time_s:.2f} s: {state_word(answer.is_anomaly, answer.alarm)}",
            f"score {answer.score:.6g}, normalized {answer.normalized_score:.2f}",
        )
        for frame, answer in top
        if frame.stamp_ns in overlays
    ]
    if cards:
        yield Section("Frames with the highest scores", gallery=cards)


def _states(result: ReplayResult) -> Iterable[Section]:
    rows = [
        [word, reason, f"{count * STATE_PERIOD_S:.1f}"]
        for (word, reason), count in sorted(result.states.items(), key=lambda item: -item[1])
    ]
    if rows:
        text = "What ~/state said from the first frame to the last answer, in real time."
        table = Table(["state", "reason", "seconds"], rows, text_columns=2)
        yield Section("State", [text], tables=[table])


def _card(jpeg: bytes, title: str, line: str) -> Card:
    return Card(title, [line], [Picture(data_uri("image/jpeg", jpeg), title)])


def _frames_apart(result: ReplayResult) -> Iterable[Section]:
    for title, names in result.comparison.differences.items():
        text = f"{len(names)} frames: {', '.join(frame_ranges(names))}"
        yield Section(f"Frames {title}", [text])
    if result.unreadable:
        yield Section("Unreadable", result.unreadable)


def _how(result: ReplayResult) -> Section:
    options = result.options
    metadata = result.detector.metadata
    qos = "best effort, newest frame only" if options.newest_only else "reliable, frames in line"
    alarm = ", ".join(f"{name} {value}" for name, value in vars(options.alarm).items())
    rows = [
        ("Bag", f"{result.source.path}, topic {result.source.topic}"),
        ("Speed", f"{options.rate:g} times real time, subscription {qos}"),
        ("Model", f"{metadata.name}, file {options.model}"),
        ("Score unit", metadata.score_units),
        ("Threshold", f"{result.detector.threshold!r}, normalized 0.5"),
        ("Execution provider", result.detector.providers[0]),
        ("Alarm filter", alarm),
        ("Written by", f"anomaly_detector {anomaly_detector.__version__}"),
    ]
    files = [
        ("scores.csv", "one row a frame, as 'python -m anomaly_detector score' writes it"),
        ("events.csv", "one row an alarm"),
        ("timeline.png", "the picture above"),
        ("results", "rosbag2 of the node's topics: for Foxglove and 'ros2 bag play'"),
    ]
    return Section(
        "How it was made",
        tables=[
            Table(("what", "value"), rows, text_columns=2),
            Table(("file beside this page", "content"), files, text_columns=2),
        ],
    )


def _overlays(bag: Path, node: str, stamps: set[int | None]) -> _Overlays:
    """Return the recorded overlays of some frames: stamp in nanoseconds to JPEG."""
    found: _Overlays = {}
    with open_bag(bag) as reader:
        for item in reader.messages(f"{node}/overlay/compressed"):
            if isinstance(item, UnreadableFrame):
                continue
            message = deserialize(item)
            stamp_ns = stamp_to_ns(message.header.stamp)
            if stamp_ns is not None and stamp_ns in stamps:
                found[stamp_ns] = bytes(message.data)
    return found
