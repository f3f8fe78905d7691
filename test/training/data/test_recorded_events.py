"""From the black box back into training."""

from __future__ import annotations

import json
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
    find_events,
    read_event,
)
from anomaly_detector.black_box.frames import EncodedPicture
from anomaly_detector.errors import SourceError
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import View, preprocess
from anomaly_detector.model.detector import Detector
from training.cli.main import main
from training.data.events import open_recorded_events
from training.data.frames import open_frame_set

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
    source = open_recorded_events(renamed)
    assert source is not None
    assert len(list(source)) == len(source) == 30
    again = open_recorded_events(event)
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
    with pytest.raises(SourceError, match="1 recorded events but no frame that was anomalous"):
        open_frame_set([str(copied)], anomalous=True)
    # No event at all: taken for what it is, a bag.
    (copied / "event.json").unlink()
    assert open_recorded_events(copied) is None


def test_training_takes_the_black_box(recorded: Path, normal_drive: Path, tmp_path: Path) -> None:
    out = tmp_path / "better.onnx"
    code = main(
        [
            *("train", "--data", str(normal_drive), "--anomalies", str(recorded)),
            *("--out", str(out), "--cache", str(tmp_path / "cache"), "--scorer", "mlp-thesis"),
            *("--epochs", "2", "--mlp-epochs", "15"),
        ]
    )
    assert code == 0
    detector = Detector(out)
    assert detector.metadata.provenance["frames"]["anomalies"] == 60
    assert detector.metadata.provenance["options"]["anomalies"] == ["box"]
    normal = [detector.detect(Image(item, "rgb")).score for item in make_drive(10, seed=3)]
    anomalous = [
        detector.detect(Image(add_box(item), "rgb")).score for item in make_drive(10, seed=4)
    ]
    assert np.median(anomalous) > np.median(normal)
