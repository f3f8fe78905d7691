"""``score --events-dir``: the black box's events, of a recording."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from black_box_frames import event_json
from conftest import PERIOD_NS, START_NS, write_bag, write_images
from rosbags.highlevel import AnyReader

from anomaly_detector.black_box import find_events, read_event
from anomaly_detector.black_box.verdicts import Verdict, write_verdict
from anomaly_detector.cli.main import main
from anomaly_detector.errors import SourceError
from anomaly_detector.recordings import open_source

GREY = np.full((48, 64, 3), 128, np.uint8)
BLACK = np.zeros((48, 64, 3), np.uint8)
FRAMES = [GREY] * 40 + [BLACK] * 5 + [GREY] * 100 + [BLACK] * 5 + [GREY] * 5


def score(model: Path, tmp_path: Path, *sources: Path, options: tuple[str, ...] = ()) -> int:
    """Score recordings with ``--events-dir events``."""
    output = ["--output", str(tmp_path / "scores.csv")]
    if len(sources) > 1:
        output = ["--output-dir", str(tmp_path / "out"), "--workers", "1"]
    command = ["score", "--model", str(model), "--input", *map(str, sources), *output]
    return main([*command, "--events-dir", str(tmp_path / "events"), *options])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_cameras_own_jpegs_are_kept_byte_by_byte(model: Path, tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / "bag", FRAMES, compressed=True, storage=storage)
    assert score(model, tmp_path, bag) == 0
    first, second = (read_event(path) for path in find_events(tmp_path / "events"))
    # The alarm is on for nine frames more, and three seconds are recorded after it.
    for event, number, end in ((first, 40, 45 + 9 + 60), (second, 145, 154)):
        phases = [frame.phase for frame in event.frames]
        start = START_NS + number * PERIOD_NS
        assert event_json(event.path)["start_stamp_ns"] == start
        assert phases == sorted(phases, key=["before", "during", "after"].index)
        last = (event.frames[-1].stamp_ns - START_NS) // PERIOD_NS
        assert end - 4 < last <= end  # at 5 of 20 Hz
        assert len(event.anomalous_frames) >= 1
    assert first.frames[0].stamp_ns == START_NS
    assert first.path.name == "event_20231114T221322Z_000001"
    content = event_json(first.path)
    assert (content["stamps"], content["model"]) == ("header", "grey_difference")
    sent, kept = jpegs(bag), jpegs(first.path)
    assert kept == {frame.stamp_ns: sent[frame.stamp_ns] for frame in first.frames}


def jpegs(bag: Path) -> dict[int, bytes]:
    """Return the camera's pictures by their times."""
    with AnyReader([bag]) as reader:
        messages = [
            (time_ns, cast(Any, reader.deserialize(raw, connection.msgtype)))
            for connection, time_ns, raw in reader.messages()
            if connection.msgtype.endswith("CompressedImage")
        ]
    return {time_ns: bytes(message.data) for time_ns, message in messages}


def test_events_are_replaced_until_somebody_has_judged_one(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "bag", FRAMES)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "events").symlink_to("elsewhere")
    for _ in range(2):
        assert score(model, tmp_path, bag) == 0
        assert "events: 2 events" in capsys.readouterr().out
        events = find_events(tmp_path / "events")
        assert [path.name[-6:] for path in events] == ["000001", "000002"]
    write_verdict(events[1], Verdict("normal"))
    (tmp_path / "scores.csv").unlink()
    assert score(model, tmp_path, bag) == 1
    assert f"{events[1]} has been reviewed: name another folder" in capsys.readouterr().err
    assert not (tmp_path / "scores.csv").exists()
    assert find_events(tmp_path / "events") == events


@pytest.mark.parametrize("name", ["score", "stamp_ns", "topic"])
def test_values_of_another_kind_are_named(model: Path, tmp_path: Path, name: str) -> None:
    assert score(model, tmp_path, write_bag(tmp_path / "bag", FRAMES[:60])) == 0
    (event,) = find_events(tmp_path / "events")
    wrong = {"score": ["NaN", '"1.5"', "[]"], "stamp_ns": ["Infinity", "1e30"], "topic": ["{}"]}
    text = (event / "event.json").read_text()
    for value in wrong[name]:
        damaged = re.sub(rf'"{name}": [^,\n]+(?=,)', f'"{name}": {value}', text)
        (event / "event.json").write_text(damaged)
        with pytest.raises(SourceError, match=r"event\.json cannot be read"):
            read_event(event)


def test_folder_with_other_things_is_left_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "thesis.tex").write_text("mine")
    assert score(model, tmp_path, write_bag(tmp_path / "bag", FRAMES)) == 1
    assert "holds other things than events: name a new folder" in capsys.readouterr().err
    assert (tmp_path / "events" / "thesis.tex").read_text() == "mine"


def test_images_need_a_rate(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "drive", FRAMES[35:50])
    assert score(model, tmp_path, folder) == 1
    assert "has no time stamp" in capsys.readouterr().err
    assert not (tmp_path / "events").exists()
    assert score(model, tmp_path, folder, options=("--fps", "20")) == 0
    (event,) = find_events(tmp_path / "events")
    stamps = [frame.stamp_ns // 1_000_000 for frame in read_event(event).frames]
    assert stamps == [0, 200, 250, 400, 600]
    shown = [int(frame.pixels.array.mean()) for frame in open_source(event)]
    assert shown == [128, 128, 0, 0, 128]


def test_fleet_gives_each_recording_a_folder_and_keeps_what_is_finished(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = [
        write_bag(tmp_path / name, frames)
        for name, frames in (("one", FRAMES[:60]), ("two", FRAMES), ("quiet", FRAMES[:30]))
    ]
    assert score(model, tmp_path, *bags) == 0
    counts = {path.name: len(find_events(path)) for path in (tmp_path / "events").iterdir()}
    assert counts == {"one": 1, "two": 2, "quiet": 0}
    (event,) = find_events(tmp_path / "events" / "one")
    write_verdict(event, Verdict("anomaly"))
    capsys.readouterr()
    assert score(model, tmp_path, *bags) == 0
    assert "3 recordings kept" in capsys.readouterr().out
    # What people said is never replaced by a run with other settings.
    assert score(model, tmp_path, *bags, options=("--threshold", "500")) == 1
    assert f"{event} has been reviewed" in capsys.readouterr().err
    assert find_events(tmp_path / "events" / "one") == [event]
