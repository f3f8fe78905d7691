"""A mask inside a model: what lies under it cannot matter, whatever the scorer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from conftest import add_box, make_drive, write_images
from model_files import GREY, write_grey_difference_model
from numpy.typing import NDArray

from anomaly_detector.cli.main import main
from anomaly_detector.drawing.overlay import draw_overlay
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.image import Image, RegionOfInterest
from anomaly_detector.images.preprocessing import View, preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.regions import anomaly_regions
from training.data.corridor import CorridorDrive

WIDTH, HEIGHT = 160, 120
SCREEN = (100, 20, 40, 30)
"""Of the corridor's frames: x, y, width, height."""


def corners(x: int, y: int, width: int, height: int) -> str:
    right, bottom = x + width - 1, y + height - 1
    return f"{x},{y},{right},{y},{right},{bottom},{x},{bottom}"


def with_screen(
    frame: NDArray[np.uint8], number: int, place: Sequence[int] = SCREEN
) -> NDArray[np.uint8]:
    """Return a frame with a screen that shows something else in each."""
    x, y, width, height = place
    generator = np.random.default_rng(number)
    tiles = generator.integers(0, 256, (generator.integers(1, 6), generator.integers(1, 6), 3))
    content = cv2.resize(tiles.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    cv2.putText(content, str(generator.integers(10**6)), (2, height // 2), 0, 0.3, (255,) * 3)
    frame = frame.copy()
    frame[y : y + height, x : x + width] = content
    return frame


@pytest.fixture(scope="module")
def corridor() -> list[NDArray[np.uint8]]:
    """Frames of a normal drive that the shipped model was not trained on."""
    drive = CorridorDrive(120, drive=3, hazards=(), width=WIDTH, height=HEIGHT)
    return [frame.image for frame in drive]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, corridor: list[NDArray[np.uint8]]) -> Path:
    """The shipped model with a mask over the screen, calibrated on a drive with it."""
    folder = tmp_path_factory.mktemp("masked")
    frames = [with_screen(frame, number) for number, frame in enumerate(corridor[::2])]
    drive = write_images(folder / "drive", frames)
    common = ["calibrate", "--model", "corridor", "--data", str(drive), "--output"]
    out = folder / "masked.onnx"
    assert main([*common, str(out), "--mask-polygon", corners(*SCREEN)]) == 0
    assert main([*common, str(folder / "plain.onnx")]) == 0
    return out


def test_a_screen_under_the_mask_raises_nothing_and_a_thing_beside_it_does(
    masked: Path, corridor: list[NDArray[np.uint8]]
) -> None:
    detector, plain = Detector(masked), Detector(masked.parent / "plain.onnx")
    shipped = Detector("corridor")
    x, y, _, height = SCREEN
    found = 0
    for number, frame in enumerate(corridor[1::8]):
        scores = {
            detector.detect(with_screen(frame, seed), order="rgb").score
            for seed in (number + 1000, number + 2000)
        }
        # The same to the last bit.
        assert len(scores) == 1
        assert shipped.detect(with_screen(frame, number + 1000), order="rgb").is_anomaly
        assert scores.pop() < detector.threshold
        box = with_screen(frame, number + 1000)
        cv2.rectangle(box, (x - 35, y + height), (x - 15, y + height + 25), (250, 240, 20), -1)
        cv2.rectangle(box, (x - 35, y + height), (x - 15, y + height + 25), (10, 10, 10), 2)
        result = detector.detect(box, order="rgb")
        found += result.is_anomaly
        assert result.score > detector.detect(frame, order="rgb").score
    assert found >= 0.9 * len(corridor[1::8])
    # Calibrated without a mask, the same drive gives a threshold that nothing reaches.
    assert plain.threshold > detector.threshold


def test_map_and_boxes_and_overlay_leave_out_what_is_masked(
    masked: Path, corridor: list[NDArray[np.uint8]]
) -> None:
    detector = Detector(masked)
    x, y, width, height = SCREEN
    frame = with_screen(corridor[5], 7)
    frame[: y + height // 2, : x + width // 2] = 255  # an anomaly that goes on under the mask
    result = detector.detect(frame, order="rgb")
    assert result.is_anomaly
    cells = result.anomaly_map[2 + y * 32 // HEIGHT : (y + height) * 32 // HEIGHT - 1]
    assert not cells[:, 1 + x * 32 // WIDTH : (x + width) * 32 // WIDTH].any()
    for box in anomaly_regions(result):
        right, bottom = box.x + box.width, box.y + box.height
        assert not (box.x > x and right < x + width and box.y > y and bottom < y + height)
    calm = detector.detect(corridor[5], order="rgb")
    assert not calm.is_anomaly
    pictures = (
        draw_overlay(corridor[5], each)[: 2 * HEIGHT : 2, ::2]  # enlarged to twice the size
        for each in (calm, replace(calm, ignored=None))
    )
    changed = (next(pictures) != next(pictures)).any(axis=2)
    inside = np.zeros_like(changed)
    inside[y - 6 : y + height + 6, x - 8 : x + width + 8] = True
    assert not changed[~inside].any()
    assert 0.05 < changed[y : y + height, x : x + width].mean() < 0.3


def test_the_score_is_that_of_the_frame_without_the_mask(tmp_path: Path) -> None:
    drive = write_images(tmp_path / "drive", make_drive(40))
    model = write_grey_difference_model(tmp_path / "old.onnx")
    painted = np.zeros((90, 120), np.uint8)
    painted[70:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), painted)
    arguments = ["calibrate", "--model", str(model), "--data", str(drive)]
    arguments += ["--mask", str(tmp_path / "mask.png"), "--output"]
    assert main([*arguments, str(tmp_path / "new.onnx")]) == 0
    metadata = read_metadata(tmp_path / "new.onnx")
    assert metadata.input_mask is not None
    rows = np.flatnonzero(metadata.input_mask.ignored[:, 0])
    assert rows.tolist() == list(range(rows[0], 64))
    assert rows[0] in (48, 49)
    image = preprocess(Image(add_box(make_drive(1)[0]), "rgb"))
    result = Detector(tmp_path / "new.onnx").score_batch(image[np.newaxis])
    squared = ((image.astype(np.float64) - GREY) ** 2).mean(axis=2)
    squared[rows] = 0
    np.testing.assert_allclose(result.anomaly_map[0], squared, rtol=1e-5)
    assert result.score[0] == pytest.approx(squared.mean(), rel=1e-5)
    # A second mask joins the first one.
    arguments = ["calibrate", "--model", str(tmp_path / "new.onnx"), "--data", str(drive)]
    arguments += ["--mask-polygon", "0,0,119,0,119,9,0,9", "--output"]
    assert main([*arguments, str(tmp_path / "both.onnx")]) == 0
    both = read_metadata(tmp_path / "both.onnx").input_mask
    assert both is not None
    assert both.ignored[[0, 5, 60]].all()
    assert not both.ignored[12:46].any()
    again = Detector(tmp_path / "both.onnx").score_batch(image[np.newaxis])
    squared[np.flatnonzero(both.ignored[:, 0])] = 0
    assert again.score[0] == pytest.approx(squared.mean(), rel=1e-5)


def test_a_model_without_a_mask_stays_as_it_is(tmp_path: Path) -> None:
    model = write_grey_difference_model(tmp_path / "old.onnx")
    drive = write_images(tmp_path / "drive", make_drive(40))
    common = ["--data", str(drive), "--output", str(tmp_path / "new.onnx")]
    assert main(["calibrate", "--model", str(model), *common]) == 0
    nodes = [onnx.load(file).graph.node for file in (model, tmp_path / "new.onnx")]
    assert list(nodes[0]) == list(nodes[1])
    assert read_metadata(tmp_path / "new.onnx").mask is None


def test_what_a_mask_cannot_be_put_into_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = write_images(tmp_path / "drive", make_drive(40))
    other = onnx.load(write_grey_difference_model(tmp_path / "other.onnx"))
    # A score of the map by another way.
    for node in other.graph.node:
        if node.output[0] == "score":
            node.op_type = "ReduceL2"
    onnx.save(other, tmp_path / "other.onnx")
    arguments = ["calibrate", "--data", str(drive), "--output", str(tmp_path / "new.onnx")]
    arguments += ["--mask-polygon", "0,0,50,0,50,50,0,50", "--model"]
    assert main([*arguments, str(tmp_path / "other.onnx")]) == 1
    assert "how its score comes from its map is not known" in capsys.readouterr().err
    assert not (tmp_path / "new.onnx").exists()


def test_another_region_is_no_place_for_the_mask(
    masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.onnx"
    arguments = ["calibrate", "--model", str(masked), "--data", str(masked.parent / "drive")]
    arguments += ["--region", "0,0,160,120", "--output", str(out)]
    assert main(arguments) == 1
    assert "has a mask for region 0,0,0,0, which lies elsewhere" in capsys.readouterr().err
    assert not out.exists()
    metadata = read_metadata(masked)
    warning = metadata.view_warning(View(RegionOfInterest(0, 0, 160, 120)))
    assert warning is not None
    assert "where its mask lies elsewhere" in warning


@pytest.mark.parametrize("mask", ["no base64", "aGVsbG8=", 7])
def test_a_damaged_mask_in_the_metadata_is_refused(tmp_path: Path, mask: object) -> None:
    model = write_grey_difference_model(tmp_path / "old.onnx")
    raw = json.loads(read_metadata(model).to_json())
    raw["mask"] = mask
    write_grey_difference_model(model, metadata=json.dumps(raw))
    with pytest.raises(AnomalyDetectorError, match=r"field 'mask' is .*: export") as caught:
        Detector(model)
    assert "\n" not in str(caught.value)
