"""A new model against an old one: what it loses, gains and refuses, on real events and drives.

The old model sees the whole frame, the new one the left half in another size; either's score is
``(grey - 128) ** 2`` over what it sees, and a frame is anomalous from 1000 on.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from black_box_frames import Drive, event_json, events_in, open_box
from conftest import START_NS, make_drive, write_images
from model_files import write_grey_difference_model
from numpy.typing import NDArray

from anomaly_detector.black_box import Verdict, write_verdict
from anomaly_detector.cli.main import main
from anomaly_detector.images.image import Image, RegionOfInterest
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.editing import write_with_metadata
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.fingerprint import fingerprints
from anomaly_detector.recordings import open_source

PLAIN, RIGHT, LEFT, BOTH, WEAK = (128, 128), (128, 240), (168, 128), (240, 240), (128, 150)
"""Greys of both halves: flagged by neither, the old, the new, both, and neither model."""

EVENTS = [
    (BOTH, "anomaly"), (RIGHT, "anomaly"), (LEFT, "anomaly"), (WEAK, "anomaly"),
    (BOTH, "normal"), (RIGHT, "normal"), (LEFT, "normal"), (WEAK, "normal"),
    (RIGHT, "unsure"), (RIGHT, "unreviewed"),
]  # fmt: skip


def halves(greys: tuple[int, int], noise: int = 0) -> NDArray[np.uint8]:
    """Return a frame, of which so many of 48 rows are a little brighter."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32], frame[:, 32:] = greys
    frame[:noise] += 3
    return frame


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models, a box of judged events, and normal drives with noise."""
    folder = tmp_path_factory.mktemp("compared")
    write_grey_difference_model(folder / "old.onnx")
    half = View(RegionOfInterest(0, 0, 32, 0), size=32)
    metadata = replace(read_metadata(folder / "old.onnx").with_view(half), name="half")
    write_grey_difference_model(folder / "new.onnx", metadata=metadata.to_json(), input_size=32)
    for number, (greys, _) in enumerate(EVENTS):
        with open_box(folder / "box", "mcap" if number % 2 else "jpeg", max_rate_hz=20.0) as box:
            drive = Drive(box, start_ns=START_NS + number * 10**12)
            drive.normal(0.5, make=lambda _: Image(halves(PLAIN), "rgb"))
            drive.anomaly(0.8, make=lambda _, greys=greys: Image(halves(greys), "rgb"))
    for event, (_, verdict) in zip(events_in(folder / "box"), EVENTS, strict=True):
        if verdict != "unreviewed":
            write_verdict(event, Verdict(verdict, note="the door" if verdict == "normal" else ""))
    noise = np.random.default_rng(0).integers(0, 48, 120)
    drive_of(folder / "quiet", [PLAIN] * 120, noise)
    # Two stretches of each kind, of which the alarm filter lets the short ones pass.
    stretches = [PLAIN] * 120
    for start, length, kind in ((20, 15, RIGHT), (50, 3, LEFT), (60, 15, LEFT), (90, 15, BOTH)):
        stretches[start : start + length] = [kind] * length
    drive_of(folder / "stretches", stretches, noise)
    flicker = np.random.default_rng(1).random(120) < 0.4
    drive_of(folder / "flicker", [LEFT if bright else PLAIN for bright in flicker], noise)
    return folder


def drive_of(
    path: Path, greys: Sequence[tuple[int, int]], noise: Sequence[int] | NDArray[np.int64]
) -> Path:
    frames = [halves(pair, int(n)) for pair, n in zip(greys, noise, strict=True)]
    return write_images(path, frames)


Options: TypeAlias = Sequence[str | Path]


def command(
    place: Path, out: Path, *options: str | Path, old: str = "old", new: str = "new"
) -> int:
    models = ["--old", str(place / f"{old}.onnx"), "--new", str(place / f"{new}.onnx")]
    return main(["compare-models", *models, "--out", str(out), *map(str, options)])


def result(out: Path) -> dict[str, Any]:
    content = json.loads((out / "comparison.json").read_text())
    assert isinstance(content, dict)
    return content


def test_what_a_new_model_changes(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drives: Options = ["--normal", place / "quiet", place / "stretches"]
    assert command(place, tmp_path / "out", "--events", place / "box", *drives) == 1
    printed = capsys.readouterr()
    assert "events: 4 judged anomaly, 4 normal; left out: 1 unsure, 1 unreviewed" in printed.out
    line = printed.out.splitlines()[-2]
    assert line.startswith(
        "failed: new.onnx may not replace old.onnx, it loses 1 true event; true events: 1 kept, "
        "1 lost, 1 new, 1 missed by both; false alarms: 2 kept, 2 gone, 2 new; false-alarm rate "
    )
    found = result(tmp_path / "out")
    by = ["both", "old", "new", "neither"]
    events = [item for item in found["findings"] if item["kind"] != "drive"]
    assert [(item["kind"], item["by"]) for item in events] == [
        (kind, one) for kind in ("anomaly", "normal") for one in by
    ]
    names = [f"box/{event.name}" for event in events_in(place / "box")[:8]]
    assert [item["case"] for item in events] == names
    assert [item["note"] for item in events] == [""] * 4 + ["the door"] * 4
    # Not those before the alarm. What is just above the threshold takes six frames to raise one.
    frames = {item["by"]: item["frames"] for item in events}
    assert frames == {"both": 16, "old": 16, "new": 11, "neither": 0}
    lost = events[1]
    assert lost["old"] > 0.5 > lost["new"]
    stretches = [item for item in found["findings"] if item["kind"] == "drive"]
    assert [(item["case"], item["by"]) for item in stretches] == [
        ("stretches", one) for one in ("old", "new", "both")
    ]
    first = [int(re.findall(r"\d+", item["frame"])[0]) for item in stretches]
    assert all(20 <= a < 35 or 60 <= a < 75 or 90 <= a < 105 for a in first)
    rates = [found[side]["rate"] for side in ("old", "new")]
    # By each model's own eyes, frame by frame.
    for side, rate in zip(("old", "new"), rates, strict=True):
        detector = Detector(place / f"{side}.onnx")
        flags = [
            detection.is_anomaly
            for name in ("quiet", "stretches")
            for _, detection in detector.stream(open_source(place / name))
        ]
        assert (rate["frames"], rate["flagged"]) == (240, sum(flags))
        low, high = rate["interval_95"]
        assert low < sum(flags) / 240 < high
        assert 2 <= rate["effective"] < 240
    assert [found["old"]["input_size"], found["new"]["input_size"]] == [64, 32]
    assert found["failures"] == ["it loses 1 true event"]
    page = (tmp_path / "out" / "report.html").read_text()
    for title in (
        "True events lost: 1", "True events found anew: 1", "True events that both miss: 1",
        "False alarms that came: 2", "False alarms that went: 2", "True events that both find: 1",
        "False alarms of both: 2",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    # A pair each; the silent normal event has none.
    assert page.count('src="data:image/jpeg') == 2 * 10
    assert "note: the door" in page
    assert f"model {place}" not in page


def test_exit_codes_follow_lost_events_and_the_rate(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "box"
    shutil.copytree(place / "box", copied)
    write_verdict(events_in(copied)[1], Verdict("unsure"))
    events: Options = ["--events", copied]
    assert command(place, tmp_path / "a", *events, "--normal", place / "stretches") == 0
    assert "passed: new.onnx may replace old.onnx; true events: 1 kept, 0 lost" in (
        capsys.readouterr().out
    )
    assert command(place, tmp_path / "b", *events, "--normal", place / "flicker") == 1
    assert result(tmp_path / "b")["failures"] == [
        "its false-alarm rate is worse beyond the interval of the old one's"
    ]
    # The other way round the rate is better; a drive alone will do.
    swapped = {"old": "new", "new": "old"}
    assert command(place, tmp_path / "c", "--normal", place / "flicker", **swapped) == 0
    # One that flags a little more than the old one, within what the drive can tell.
    capsys.readouterr()
    assert command(place, tmp_path / "d", "--normal", place / "stretches", **swapped) == 0
    assert "The normal frames are worth" in capsys.readouterr().err


def test_verdicts_on_some_frames_and_on_samples_count_for_these(
    place: Path, tmp_path: Path
) -> None:
    box = tmp_path / "box"
    part = shutil.copytree(events_in(place / "box")[5], box / "part")
    write_verdict(part, Verdict("normal", frames=(0, 9)))  # before the alarm
    sample = shutil.copytree(events_in(place / "box")[6], box / "sample")
    content = event_json(sample)
    row = content["frames"][15] | {"phase": "sample", "is_anomaly": False}
    fields = {"frames": [row], "event_kind": "sample", "alarm_frames": 0}
    (sample / "event.json").write_text(json.dumps(content | fields))
    # A filter that no single frame passes.
    options = ["--immediate-level", "1", "--raise-frames", "9"]
    assert command(place, tmp_path / "out", "--events", box, *options) == 0
    findings = {item["case"]: item["by"] for item in result(tmp_path / "out")["findings"]}
    assert findings == {"box/part": "neither", "box/sample": "new"}


def test_a_model_on_frames_that_it_was_trained_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = Detector(place / "old.onnx"), Detector(place / "new.onnx")

    def seen(detector: Detector, name: str, path: Path) -> Path:
        images = np.stack([image.array for image in map(detector.prepare, open_source(path))])
        known = fingerprints([(name, images)])
        metadata = replace(read_metadata(detector.path), training_recordings=known)
        write_with_metadata(detector.path, metadata, tmp_path / f"{name}.onnx")
        return tmp_path / f"{name}.onnx"

    drive = write_images(tmp_path / "drive", make_drive(30))
    models = {"old": str(seen(old, "monday", drive))[:-5], "new": "new"}
    other: Options = ["--normal", place / "stretches"]
    assert command(place, tmp_path / "out", *other, "--normal", drive, **models) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"error: {drive}: model grey_difference was trained on it (as monday), and its "
        "false alarms there say nothing: give a drive that neither model was trained on"
    )
    assert not (tmp_path / "out").exists()
    assert command(place, tmp_path / "other", *other, **models) == 0
    assert "new.onnx does not say what it was trained on" in capsys.readouterr().err
    # Events are learned on purpose: that is said, and no error.
    event = events_in(place / "box")[7]
    learned = seen(new, "judged", event)
    box = tmp_path / "box"
    shutil.copytree(event, box / event.name)
    models["new"] = str(learned)[:-5]
    assert command(place, tmp_path / "events", "--events", box, **models) == 0
    assert "judged.onnx was trained on events of box" in capsys.readouterr().err
    assert "judged.onnx was trained on events of box" in result(tmp_path / "events")["notes"][0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "nothing to compare on: give --events FOLDER, --normal DRIVE"),
        (["--events", "quiet"], "quiet holds no recorded event"),
        (["--events", "nowhere"], "nowhere holds no recorded event"),
        (["--normal", "nowhere"], "nowhere does not exist"),
        (["--events", "unjudged"], "none of 1 events is judged normal or an anomaly"),
        (["--events", "damaged"], "review.json cannot be read"),
        (["--events", "half"], "is missing: copy the event again"),
        (["--normal", "quiet", "--new", "old.onnx"], "are the same file"),
        (["--normal", "quiet", "--new", "gone.onnx"], "gone.onnx"),
        (["--normal", "quiet", "--raise-frames", "11"], "make the window longer"),
        (["--normal", "quiet", "--decision", "seconds"], "has no time stamp"),
        (["--normal", "quiet", "--out", "quiet"], "is there and not empty"),
        (["--normal", "small"], "small has no readable frame"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    place: Path,
    tmp_path: Path,
    options: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("old.onnx", "new.onnx", "quiet"):
        (tmp_path / name).symlink_to(place / name)
    events = events_in(place / "box")
    for name, number in (("unjudged", 9), ("damaged", 0), ("half", 0)):
        shutil.copytree(events[number], tmp_path / name / events[number].name)
    (tmp_path / "damaged" / events[0].name / "review.json").write_text("{")
    next((tmp_path / "half" / events[0].name).glob("*.jpg")).unlink()
    # The region of the new model does not lie inside.
    write_images(tmp_path / "small", [np.full((20, 20, 3), 128, np.uint8)] * 3)
    monkeypatch.chdir(tmp_path)
    models = ["--old", "old.onnx", "--new", "new.onnx", "--out", "out"]
    assert main(["compare-models", *models, *options]) == 1
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert error.startswith("error: ")
    assert reason in error
    assert "may replace" not in captured.out
    assert not (tmp_path / "out").exists()
