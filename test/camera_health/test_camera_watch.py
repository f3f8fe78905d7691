"""What ails a camera: each cause with onset and strength, none on another day; the reference."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_images
from drives import Picture, drive_past_wall
from model_files import write_grey_difference_model

from anomaly_detector.camera_health.reference import CameraReference
from anomaly_detector.camera_health.roll import roll_of
from anomaly_detector.camera_health.watch import (
    CAUSES,
    WITHOUT_REFERENCE,
    CameraState,
    CameraWatch,
    camera_stretches,
)
from anomaly_detector.cli.main import main
from anomaly_detector.errors import ModelError
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.metadata import ModelMetadata

PERIOD_NS = 200_000_000
NORMAL = drive_past_wall(200)
OTHER_DAY = drive_past_wall(200, seed=1)


def as_picture(values: object) -> Picture:
    return np.asarray(np.clip(np.rint(np.asarray(values, np.float64)), 0, 255), np.uint8)


def with_spots(picture: Picture) -> Picture:
    spotted: Picture = picture.copy()
    for place, radius in (((18, 20), 6), ((45, 30), 5), ((30, 48), 6)):
        cv2.circle(spotted, place, radius, (95, 85, 70), -1)
    return spotted


def with_cloth(picture: Picture) -> Picture:
    covered: Picture = picture.copy()
    covered[:, :24] = (140, 120, 110)
    return covered


def rolled(picture: Picture) -> Picture:
    turn = cv2.getRotationMatrix2D((31.5, 31.5), 12, 1.25)
    return np.asarray(cv2.warpAffine(picture, turn, (64, 64)), np.uint8)


def covered_whole(picture: Picture) -> Picture:
    noise = np.random.default_rng(int(picture[0, 0, 0])).normal(0, 1, picture.shape)
    return as_picture(np.linspace(25, 35, 64)[:, np.newaxis, np.newaxis] + noise)


SICK: dict[str, Callable[[Picture], Picture]] = {
    "dark": lambda picture: as_picture(picture * 0.3),
    "overexposed": lambda picture: as_picture(picture * 2.5),
    "blurred": lambda picture: np.asarray(cv2.GaussianBlur(picture, (0, 0), 2.0), np.uint8),
    "covered": with_cloth,
    "dirt": with_spots,
    "tilted": rolled,
}


@pytest.fixture(scope="module")
def reference() -> CameraReference:
    reference = CameraReference.of([NORMAL])
    assert reference is not None
    return reference


def watched(
    watch: CameraWatch, pictures: Sequence[Picture], start_ns: int = 0
) -> list[CameraState]:
    """Return the states at five frames a second."""
    return [watch.update(start_ns + i * PERIOD_NS, image) for i, image in enumerate(pictures)]


def test_nothing_ails_the_camera_on_another_day(reference: CameraReference) -> None:
    assert {state.cause for state in watched(CameraWatch(reference), OTHER_DAY)} == {""}


@pytest.mark.parametrize("cause", SICK)
def test_cause_has_onset_and_strength_and_ends(reference: CameraReference, cause: str) -> None:
    watch = CameraWatch(reference)
    watched(watch, OTHER_DAY[:100])
    begin_ns = 100 * PERIOD_NS
    states = watched(watch, [SICK[cause](picture) for picture in OTHER_DAY], begin_ns)
    assert states[-1].cause == cause
    assert {state.cause for state in states} <= {"", cause, "dirt"}  # part of a cover enters first
    since_ns = states[-1].since_ns
    assert since_ns is not None
    assert begin_ns <= since_ns < begin_ns + 100 * PERIOD_NS
    assert 0.1 < states[-1].strength <= 1.0
    assert CAUSES[cause].remedy in states[-1].text
    states = watched(watch, OTHER_DAY, begin_ns + 200 * PERIOD_NS)
    assert states[-1] == CameraState()


@pytest.mark.parametrize("way", [(0, 4), (0, -4), (5, 0)])
def test_camera_that_points_a_little_elsewhere_is_not_tilted(
    reference: CameraReference, way: tuple[int, int]
) -> None:
    move = np.array([[1, 0, way[0]], [0, 1, way[1]]], np.float32)

    def moved(picture: Picture) -> Picture:
        result = cv2.warpAffine(picture, move, (64, 64), borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(result, np.uint8)

    states = watched(CameraWatch(reference), [moved(picture) for picture in OTHER_DAY])
    assert "tilted" not in {state.cause for state in states}
    states = watched(CameraWatch(reference), [moved(rolled(picture)) for picture in OTHER_DAY])
    assert states[-1].cause == "tilted"


def test_views_that_are_as_much_like_the_training_s_turned_either_way_are_not_rolled() -> None:
    angles = np.arange(-24, 25, 4)
    rolled_8 = 0.4 - 0.004 * np.abs(angles - 8.0)
    unlike = 0.2 + 0.0014 * np.abs(angles) - 0.001 * (angles < 0)
    # Shifted as well; at no other shift are they as much alike.
    for likeness, degrees, gain in ((rolled_8, 8, 0.064 / 3), (unlike, 24, 0.001 / 3)):
        shifted = np.stack([likeness - 0.1, likeness, likeness - 0.05], axis=1)
        assert roll_of(shifted) == pytest.approx((degrees, gain))


def test_whole_cover_is_no_darkness(reference: CameraReference) -> None:
    states = watched(CameraWatch(reference), [covered_whole(picture) for picture in OTHER_DAY])
    assert states[-1].cause == "covered"


def test_spots_are_not_judged_while_the_robot_stands(reference: CameraReference) -> None:
    watch = CameraWatch(reference)
    watched(watch, OTHER_DAY[:80])
    generator = np.random.default_rng(0)
    spotted = with_spots(OTHER_DAY[80])
    noisy = [as_picture(spotted + generator.normal(0, 1.5, spotted.shape)) for _ in range(100)]
    assert {state.cause for state in watched(watch, noisy, 80 * PERIOD_NS)} == {""}


def test_hand_before_a_camera_that_stands_in_training_too() -> None:
    generator = np.random.default_rng(0)

    def still(scene: Picture, count: int) -> list[Picture]:
        return [as_picture(scene + generator.normal(0, 1.5, scene.shape)) for _ in range(count)]

    reference = CameraReference.of([still(NORMAL[0], 60)])
    assert reference is not None
    assert not reference.has_moved
    watch = CameraWatch(reference)
    assert {state.cause for state in watched(watch, still(NORMAL[0], 60))} == {""}
    states = watched(watch, still(with_cloth(NORMAL[0]), 30), 60 * PERIOD_NS)
    assert states[-1].cause == "covered"
    assert states[-1].strength == pytest.approx(24 / 64, abs=0.15)


def test_frozen_is_said_at_once_since_the_picture_came(reference: CameraReference) -> None:
    watch = CameraWatch(reference)
    state = watch.update(10_000_000_000, NORMAL[0], frozen_s=5.5)
    assert state == CameraState("frozen", 4_500_000_000, 1.0)
    assert watch.update(10_100_000_000, NORMAL[1]) == CameraState()


def test_frames_that_follow_too_soon_are_not_looked_at(reference: CameraReference) -> None:
    watch = CameraWatch(reference)
    dark = SICK["dark"]
    # Four frames looked at, one too few.
    states = [watch.update(i * 10_000_000, dark(NORMAL[i])) for i in range(70)]
    assert {state.cause for state in states} == {""}
    # A bag that loops begins anew.
    states = watched(watch, [dark(picture) for picture in NORMAL[:5]])
    assert states[-1].cause == "dark"


def test_without_a_reference_only_what_is_plain_is_said() -> None:
    assert WITHOUT_REFERENCE == ("frozen", "dark", "overexposed", "covered")
    for name, sicken in SICK.items():
        states = watched(CameraWatch(None), [sicken(picture) for picture in OTHER_DAY])
        assert {state.cause for state in states} <= {"", name}
    for level, cause in ((0, "dark"), (255, "overexposed"), (120, "covered")):
        states = watched(CameraWatch(None), [np.full((64, 64, 3), level, np.uint8)] * 10)
        assert states[-1].cause == cause


def test_reference_travels_in_the_model_and_joins_another(
    tmp_path: Path, reference: CameraReference
) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    metadata = replace(read_metadata(path), camera_reference=reference)
    write_grey_difference_model(path, metadata=metadata.to_json())
    assert Detector(path).camera_reference == reference
    low, usual, high = reference.figures["bright"]
    assert low < usual < high
    brighter = CameraReference.of([[as_picture(picture * 1.2) for picture in NORMAL[:150]]])
    joined = reference.merged(brighter)
    assert joined.frames == 350
    assert joined.figures["bright"][0] == low
    assert joined.figures["bright"][2] > high
    assert reference.merged(None) == reference
    assert CameraReference.of([NORMAL[:10]]) is None  # too few to tell


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("maps", "no base64!", "'camera_reference': has arrays that cannot be read"),
        ("views", "eJxLTEoGAAJNASc=", "'camera_reference': has arrays that cannot be read"),
        ("figures", {}, "'camera_reference': has no figure bright"),
        ("frames", "many", r"'camera_reference\.frames' is 'many', not an integer"),
    ],
)
def test_damaged_references_are_refused(
    tmp_path: Path, reference: CameraReference, field: str, value: object, reason: str
) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    raw = json.loads(replace(read_metadata(path), camera_reference=reference).to_json())
    raw["camera_reference"][field] = value
    with pytest.raises(ModelError, match=reason):
        ModelMetadata.from_json(json.dumps(raw), "m.onnx")


def test_calibrate_writes_it_and_score_says_what_it_sees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_grey_difference_model(tmp_path / "grey.onnx")
    drive = write_images(tmp_path / "drive", NORMAL)
    out = tmp_path / "new.onnx"
    command = ["calibrate", "--model", str(model), "--data", str(drive), "--output", str(out)]
    assert main(command) == 0
    assert read_metadata(out).camera_reference is not None
    foggy = write_images(tmp_path / "foggy", [SICK["blurred"](picture) for picture in OTHER_DAY])
    capsys.readouterr()
    table = str(tmp_path / "scores.csv")
    command = ["score", "--model", str(out), "--input", str(foggy), "--output", table, "--fps", "5"]
    assert main(command) == 0
    assert "warning: camera blurred, said from " in capsys.readouterr().err


def test_stretches_have_start_end_and_greatest_strength() -> None:
    states = [CameraState(), CameraState("dirt", 1, 0.2), CameraState("dirt", 1, 0.4)]
    (stretch,) = camera_stretches(zip(states, (0.0, 1.0, 2.0), strict=True))
    assert (stretch.cause, stretch.start_s, stretch.end_s) == ("dirt", 1.0, 2.0)
    assert stretch.text == (
        "camera dirt, said from 1.0 s to 2.0 s, strength up to 0.40: clean the lens"
    )
