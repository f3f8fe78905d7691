"""Which events go when there is no room, and the samples of normal frames."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from black_box_frames import (
    THRESHOLD,
    Drive,
    both_formats,
    event_json,
    events_in,
    jpeg,
    number_of,
    open_box,
    wait_until,
)
from conftest import START_NS

from anomaly_detector.black_box import BlackBox, EncodedPicture, find_events, read_event
from anomaly_detector.black_box.store import EventStore
from anomaly_detector.black_box.verdicts import REVIEW_FILE, Verdict, write_verdict
from anomaly_detector.recordings import open_source

LONG_AGO_NS = 1_600_000_000_000_000_000


def record(box: BlackBox, drive: Drive, image: EncodedPicture | None = None) -> None:
    written = box.statistics.events_written
    make = None if image is None else lambda _: image
    drive.anomaly(0.5, make=make)
    drive.normal(2.0, make=make)
    wait_until(lambda: box.statistics.events_written == written + 1)


def removal_order(folder: Path, *, is_sample: bool = False) -> tuple[list[str], tuple[int, int]]:
    """Make room for more and more bytes.

    Returns:
        The names as they go; and the number of those that nobody had looked at, and to be kept.
    """
    store = EventStore(folder, 10**9)
    store.open()
    gone = []
    while store.bytes_on_disk:
        before = {path.name for path in find_events(folder)}
        if not store.make_room(store.max_bytes - store.bytes_on_disk + 1, is_sample=is_sample):
            break
        gone += sorted(before - {path.name for path in find_events(folder)})
    assert store.removed == len(gone)
    store.close()
    return gone, (store.removed_unreviewed, store.removed_kept)


@pytest.fixture
def judged(tmp_path: Path) -> dict[str, str]:
    """Record an event for each verdict; return their names by what they are."""
    whats = ["anomaly", "kept", "unreviewed", "normal", "unsure", "damaged", "late normal", "taken"]
    whats.append("repeat")
    with open_box(tmp_path, sample_rate=60.0) as box:
        drive = Drive(box)
        for _ in whats:
            record(box, drive)
    events = [path for path in find_events(tmp_path) if read_event(path).kind == "alarm"]
    paths = dict(zip(whats, events, strict=True))
    for what in ("anomaly", "normal", "unsure"):
        write_verdict(paths[what], Verdict(what))
    write_verdict(paths["kept"], Verdict("normal", keep=True))
    write_verdict(paths["late normal"], Verdict("normal"))
    write_verdict(paths["taken"], Verdict("anomaly"))
    write_verdict(paths["taken"], Verdict("unreviewed"))
    (paths["damaged"] / REVIEW_FILE).write_text("{")
    content = event_json(paths["repeat"]) | {"repeat_of": paths["unreviewed"].name}
    (paths["repeat"] / "event.json").write_text(json.dumps(content))
    assert read_event(paths["repeat"]).repeat_of == paths["unreviewed"].name
    names = {path.name: what for what, path in paths.items()}
    return {path.name: names.get(path.name, "sample") for path in find_events(tmp_path)}


def test_normal_goes_first_and_anomalies_last(tmp_path: Path, judged: dict[str, str]) -> None:
    samples = [name for name, what in judged.items() if what == "sample"]
    assert len(samples) > 3
    write_verdict(tmp_path / samples[0], Verdict("anomaly"))  # a miss: as rare as an alarm
    write_verdict(tmp_path / samples[1], Verdict("normal"))
    order, counts = removal_order(tmp_path)
    assert order[: len(samples) - 1] == samples[1:]
    assert [judged[name] for name in order[len(samples) - 1 :]] == [
        "normal", "late normal", "repeat", "unreviewed", "taken", "unsure", *sorted_by_number(
            judged, {"anomaly", "damaged"}, samples[0]
        ), "kept",
    ]  # fmt: skip
    assert counts == (3, 1)
    assert find_events(tmp_path) == []


def sorted_by_number(judged: dict[str, str], whats: set[str], sample: str) -> list[str]:
    """Return what anomalies are, oldest first."""
    names = [name for name, what in judged.items() if what in whats or name == sample]
    return [judged[name] for name in sorted(names, key=lambda name: name[-6:])]


def test_samples_make_room_for_samples_only(tmp_path: Path, judged: dict[str, str]) -> None:
    gone, counts = removal_order(tmp_path, is_sample=True)
    assert [judged[name] for name in gone] == ["sample"] * len(gone)
    assert len(find_events(tmp_path)) == len(judged) - len(gone) == 9
    assert counts == (0, 0)


def test_verdict_given_while_the_box_is_open_counts(tmp_path: Path) -> None:
    picture = EncodedPicture("jpeg", jpeg(30_000))
    with open_box(tmp_path, max_megabytes=1.0, seconds_before=0.0) as box:
        drive = Drive(box)
        for _ in range(8):  # of 240 kB
            record(box, drive, picture)
            if box.statistics.events_written == 1:
                (first,) = find_events(tmp_path)
                write_verdict(first, Verdict("anomaly"))
        assert box.statistics.events_lost == box.statistics.events_removed >= 3
    assert first in find_events(tmp_path)


@both_formats
def test_samples_are_normal_frames_one_a_period(format_name: str, tmp_path: Path) -> None:
    with open_box(tmp_path, format_name, sample_rate=30.0) as box:  # one in 2 s
        drive = Drive(box)
        drive.normal(20.0)
        drive.anomaly(1.0)
        drive.normal(20.0)
    events = [read_event(path) for path in find_events(tmp_path)]
    samples = [event for event in events if event.kind == "sample"]
    assert box.statistics.samples_written == len(samples)
    assert box.statistics.events_written == len(events) - len(samples) == 1
    assert 17 <= len(samples) <= 21
    (alarm,) = [event for event in events if event.kind == "alarm"]
    span = {frame.stamp_ns for frame in alarm.frames if frame.phase != "before"}
    stamps = []
    for event in samples:
        (frame,) = event.frames
        stamps.append(frame.stamp_ns)
        assert (frame.phase, frame.is_anomaly) == ("sample", False)
        assert event.anomalous_frames == []
        content = event_json(event.path)
        assert content["event_kind"] == "sample"
        assert content["start_stamp_ns"] == content["end_stamp_ns"] == frame.stamp_ns
        assert content["peak"]["frame"] == frame.name
        assert (content["alarms"], content["threshold"]) == (0, THRESHOLD)
        (shown,) = open_source(event.path)
        assert number_of(shown.pixels.array) == (frame.stamp_ns - START_NS) // 50_000_000 % 200
    assert not span & set(stamps)
    # At random times, of different periods.
    assert len({stamp // 10**9 // 2 for stamp in stamps}) >= len(stamps) - 1
    assert len({later - first for first, later in pairwise(stamps)}) > 5


def test_samples_depend_on_the_stamps_alone(tmp_path: Path) -> None:
    """So a bag gives those that the robot took, and a node started twice takes none twice."""
    for name, seconds in (("whole", [12.0]), ("parts", [5.3, 6.7])):
        drive_ns = LONG_AGO_NS
        for part in seconds:
            with open_box(tmp_path / name, sample_rate=30.0) as box:
                drive = Drive(box, start_ns=drive_ns)
                drive.normal(part)
                drive_ns = drive.now_ns
    whole, parts = (
        [read_event(path).frames[0].stamp_ns for path in find_events(tmp_path / name)]
        for name in ("whole", "parts")
    )
    assert len(whole) >= 5
    assert set(parts) <= set(whole)
    assert len(parts) == len(set(parts)) >= len(whole) - 1


def test_camera_slower_than_the_rate_is_sampled_too_and_zero_takes_none(tmp_path: Path) -> None:
    for name, rate in (("some", 60.0), ("none", 0.0)):
        with open_box(tmp_path / name, sample_rate=rate) as box:
            Drive(box, fps=2.0).normal(10.0)
    assert len(events_in(tmp_path / "some")) >= 7
    assert events_in(tmp_path / "none") == []
