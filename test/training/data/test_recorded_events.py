"""From the black box back into training."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from black_box_frames import Drive, event_json, events_in
from conftest import add_box, make_drive

from anomaly_detector.black_box import (
    BLACK_BOX_FORMATS,
    BlackBox,
    BlackBoxSettings,
    Verdict,
    find_events,
    read_event,
    write_verdict,
)
from anomaly_detector.black_box.frames import EncodedPicture
from anomaly_detector.errors import SourceError
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import View, preprocess
from anomaly_detector.model.detector import Detector
from training.cli.main import main
from training.data.events import open_recorded_anomalies
from training.data.frames import open_events, open_frame_set, weighed

NORMAL = make_drive(40)
BOXES = [add_box(item) for item in make_drive(40, seed=1)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A black box' folder with one event of each format; a box is in view in all frames of both.

    The score dips below the threshold in the middle of the alarm, which stays on (hysteresis).
    """
    folder = tmp_path_factory.mktemp("recorded") / "box"
    for format_name in BLACK_BOX_FORMATS:
        settings = BlackBoxSettings(str(folder), format_name, max_rate_hz=20.0)
        with BlackBox(settings, model="m") as box:
            drive = Drive(box)
            drive.feed([0.4] * 10, lambda number: Image(NORMAL[number], "rgb"))
            drive.feed([1.5] * 30, lambda number: Image(BOXES[number], "rgb"))
            drive.feed([0.4] * 10, lambda number: Image(NORMAL[number - 40], "rgb"))
    for event in events_in(folder):
        write_verdict(event, Verdict("anomaly"))
    return folder


@pytest.fixture(scope="module")
def judged(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same and four false alarms: judged normal, in part so, unsure, and not yet judged."""
    folder = tmp_path_factory.mktemp("judged") / "box"
    shutil.copytree(recorded, folder)
    settings = BlackBoxSettings(
        str(folder), "jpeg", seconds_before=0.0, seconds_after=0.0, max_rate_hz=20.0
    )
    with BlackBox(settings, model="m") as box:
        drive = Drive(box)
        for _ in range(4):
            drive.feed([1.5] * 20 + [0.4], lambda number: Image(NORMAL[number % 40], "rgb"))
    verdicts = [Verdict("normal"), Verdict("normal", frames=(5, 9)), Verdict("unsure")]
    for event, verdict in zip(events_in(folder)[2:], verdicts, strict=False):
        write_verdict(event, verdict)
    return folder


def test_only_anomalous_frames_during_the_alarm_are_taken(recorded: Path, tmp_path: Path) -> None:
    copied = tmp_path / "box"
    shutil.copytree(recorded, copied)
    for event in events_in(copied):
        # As hysteresis leaves it: during the alarm, but not anomalous; and the other way round.
        content = event_json(event)
        content["frames"][15]["is_anomaly"] = False
        content["frames"][5]["is_anomaly"] = True
        (event / "event.json").write_text(json.dumps(content))
    (anomalies,) = open_frame_set(
        [str(copied)], anomalous=True, cache=tmp_path / "cache", progress=False
    ).parts
    expected = [n for n in range(10, 40) if n != 15]
    events = [read_event(path) for path in find_events(copied)]
    assert [event.format for event in events] == list(BLACK_BOX_FORMATS)
    assert list(anomalies.names) == [
        f"{event.path.name}/{event.frames[n].name}" for event in events for n in expected
    ]
    assert list(anomalies.stamps_ns) == [e.frames[n].stamp_ns for e in events for n in expected]
    for index, number in enumerate(expected * 2):
        truth = preprocess(Image(BOXES[number], "rgb")).astype(int)
        assert np.abs(anomalies.images[index].astype(int) - truth).mean() < 3
    assert list(anomalies.unreadable) == []


def test_16_bit_pictures_of_an_event_are_scaled_as_the_model_says(tmp_path: Path) -> None:
    """A depth camera's own PNG is kept byte by byte; what reads it has to scale it."""
    millimetres = [np.full((48, 64), value, np.uint16) for value in (1000, 2000)]
    pictures = [cv2.imencode(".png", frame)[1].tobytes() for frame in millimetres]
    for format_name in BLACK_BOX_FORMATS:
        settings = BlackBoxSettings(str(tmp_path / "box"), format_name, max_rate_hz=20.0)
        with BlackBox(settings, model="m") as box:
            drive = Drive(box)
            drive.feed(
                [1.5] * 20, lambda number: EncodedPicture("16UC1; png", pictures[number % 2])
            )
    for event in events_in(tmp_path / "box"):
        write_verdict(event, Verdict("anomaly"))
    view = View(scaling=ImageScaling(0, 2550))
    (part,) = open_frame_set(
        [str(tmp_path / "box")],
        anomalous=True,
        view=view,
        cache=tmp_path / "cache",
        progress=False,
    ).parts
    greys = part.images.reshape(len(part), -1)
    assert len(part) == 40
    np.testing.assert_array_equal(greys.min(axis=1), greys.max(axis=1))
    assert sorted(greys[:, 0].tolist()) == [100] * 20 + [200] * 20


@pytest.mark.parametrize("index", [0, 1], ids=BLACK_BOX_FORMATS)
def test_single_event(index: int, recorded: Path, tmp_path: Path) -> None:
    event = events_in(recorded)[index]
    frames = open_frame_set([str(event)], anomalous=True, cache=tmp_path / "cache", progress=False)
    assert len(frames) == 30
    renamed = tmp_path / "door left open"
    shutil.copytree(event, renamed)
    source = open_recorded_anomalies(renamed)
    assert source is not None
    assert len(list(source)) == len(source) == 30
    again = open_recorded_anomalies(event)
    assert again is not None
    assert source.identity != again.identity


def test_damaged_picture_is_left_out(recorded: Path, tmp_path: Path) -> None:
    copied = tmp_path / "box"
    shutil.copytree(recorded, copied)
    pictures = sorted(events_in(copied)[1].glob("*.jpg"))
    pictures[20].write_bytes(b"no picture")
    pictures[21].unlink()
    with pytest.raises(SourceError, match=f"{pictures[21].name} is missing: copy the event again"):
        open_frame_set([str(copied)], anomalous=True, cache=tmp_path / "cache", progress=False)
    pictures[21].write_bytes(b"")
    frames = open_frame_set([str(copied)], anomalous=True, cache=tmp_path / "cache", progress=False)
    assert len(frames) == 58
    assert [item.name.split("/")[1] for item in frames.parts[0].unreadable] == [
        pictures[20].name,
        pictures[21].name,
    ]


def test_events_that_cannot_be_used_are_named(recorded: Path, tmp_path: Path) -> None:
    copied = tmp_path / "event"
    shutil.copytree(events_in(recorded)[0], copied)
    content = event_json(copied)

    def rewrite(**changes: object) -> None:
        (copied / "event.json").write_text(json.dumps(content | changes))

    rewrite(version=2)
    with pytest.raises(SourceError, match="version 2, this package reads 1"):
        open_frame_set([str(copied)], anomalous=True)
    rewrite(frames=[{"name": "000000"}])
    with pytest.raises(SourceError, match=r"event\.json cannot be read \('stamp_ns'\)"):
        open_frame_set([str(copied)], anomalous=True)
    rewrite(frames=[row | {"phase": "after"} for row in content["frames"]])
    with pytest.raises(SourceError, match="1 recorded events but no frame judged an anomaly"):
        open_frame_set([str(copied)], anomalous=True)
    # No event at all: taken for what it is, a bag.
    (copied / "event.json").unlink()
    assert open_recorded_anomalies(copied) is None
    # One that was judged and is now half there, and one that is being written.
    with pytest.raises(SourceError, match=r"event was judged, and its event\.json is missing or"):
        open_recorded_anomalies(tmp_path)
    (copied / "review.json").unlink()
    assert open_recorded_anomalies(tmp_path) is None


def test_events_are_sorted_by_what_people_said(judged: Path, tmp_path: Path) -> None:
    def opened(drive_frames: int) -> tuple[list[str], list[str], str]:
        found = open_events([str(judged)], drive_frames, cache=tmp_path, progress=False)
        assert found.normal is not None
        assert found.anomalies is not None
        names = [list(frames.parts[0].names) for frames in (found.normal, found.anomalies)]
        return names[0], names[1], str(found)

    events = [read_event(path) for path in find_events(judged)]
    lengths = [len(event.frames) for event in events]
    assert lengths[2:] == [20, 20, 20, 20]
    both = [f"{events[2].path.name}/{frame.name}" for frame in events[2].frames]
    both += [f"{events[3].path.name}/{frame.name}" for frame in events[3].frames[5:10]]
    normal, anomalies, text = opened(100)
    assert normal == both
    assert len(anomalies) == 60
    assert text == (
        "events: 2 judged normal (25 frames), 2 judged anomaly (60 frames); "
        "left out: 1 unsure, 1 unreviewed"
    )
    # No more than a fifth of all normal frames, from all over the events; anomalies are all taken.
    normal, anomalies, _ = opened(20)
    assert len(anomalies) == 60
    assert normal == both[4::5]


def test_frames_that_the_verdict_on_an_anomaly_names_are_taken(
    recorded: Path, tmp_path: Path
) -> None:
    event = tmp_path / "event"
    shutil.copytree(events_in(recorded)[1], event)
    write_verdict(event, Verdict("anomaly", frames=(8, 12)))
    source = open_recorded_anomalies(event)
    assert source is not None
    frames = read_event(event).frames[8:13]
    assert [item.name for item in source] == [f"event/{frame.name}" for frame in frames]


def test_a_sample_that_was_an_anomaly_is_learned_as_one(judged: Path, tmp_path: Path) -> None:
    sample = shutil.copytree(events_in(judged)[-1], tmp_path / "sample")
    content = event_json(sample)
    row = content["frames"][7] | {"phase": "sample", "is_anomaly": False}
    (sample / "event.json").write_text(json.dumps(content | {"frames": [row]}))
    # Nobody takes it for an anomaly before.
    with pytest.raises(SourceError, match="no frame judged an anomaly"):
        open_recorded_anomalies(sample)
    write_verdict(sample, Verdict("anomaly"))
    source = open_recorded_anomalies(sample)
    assert source is not None
    assert [item.name for item in source] == [f"sample/{row['name']}"]


def test_few_frames_of_events_count_and_many_do_not_drown_the_drive() -> None:
    for drive, own, times in ((400, 50, 2), (400, 3, 10), (400, 100, 1), (8, 100, 1), (40, 0, 1)):
        numbers = np.arange(drive + own)
        expected = [*range(drive), *np.repeat(numbers[drive:], times)]
        assert weighed(numbers, drive).tolist() == expected


def test_what_nobody_judged_is_refused_and_the_error_names_review(
    judged: Path, normal_drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unjudged = shutil.copytree(events_in(judged)[-1], tmp_path / "event")
    damaged = shutil.copytree(unjudged, tmp_path / "damaged")
    (damaged / "review.json").write_text("{")
    out = tmp_path / "out.onnx"
    review = "judge them with python -m anomaly_detector review"
    for option, folder, reason in (
        ("--anomalies", judged, f"1 events that nobody has judged, .*{review} {judged}"),
        ("--events", unjudged, f"none of 1 events is judged normal or an anomaly: {review}"),
        ("--events", damaged, "review.json cannot be read"),
        ("--events", out.parent / "none", "holds no recorded event"),
    ):
        arguments = ["train", "--data", str(normal_drive), option, str(folder), "--out", str(out)]
        assert main([*arguments, "--cache", str(tmp_path / "cache")]) == 1
        error = [line for line in capsys.readouterr().err.splitlines() if "frame/s" not in line]
        assert re.search(f"^error: .*{reason}", error[-1])
    assert not out.exists()
    # Judged normal, they are no anomalies.
    write_verdict(unjudged, Verdict("normal"))
    with pytest.raises(SourceError, match="no frame judged an anomaly"):
        open_frame_set([str(unjudged)], anomalous=True)


def test_training_takes_the_events(
    judged: Path, normal_drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "better.onnx"
    code = main(
        [
            *("train", "--data", str(normal_drive), "--events", str(judged)),
            *("--out", str(out), "--cache", str(tmp_path / "cache"), "--scorer", "mlp-thesis"),
            *("--epochs", "2", "--mlp-epochs", "15"),
        ]
    )
    assert code == 0
    assert "2 judged normal (25 frames), 2 judged anomaly (60 frames)" in capsys.readouterr().out
    detector = Detector(out)
    entry = detector.metadata.provenance
    # Of the drive 24 frames are held out, of the events 4.
    frames = entry["frames"]
    assert (frames["recorded"], frames["anomalies"]) == (145, 60)
    assert (frames["validation"], frames["calibration"]) == (14, 14)
    assert frames["train"] <= 117
    assert entry["options"]["events"] == ["box"]
    assert entry["events"] == {"anomaly": 2, "normal": 2, "unsure": 1, "unreviewed": 1}
    names = [item.name for item in detector.metadata.training_recordings]
    assert names == ["drive", "box", "box"]
    normal = [detector.detect(Image(item, "rgb")).score for item in make_drive(10, seed=3)]
    anomalous = [
        detector.detect(Image(add_box(item), "rgb")).score for item in make_drive(10, seed=4)
    ]
    assert np.median(anomalous) > np.median(normal)
