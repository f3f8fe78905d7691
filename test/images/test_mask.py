"""Masks as a person gives them: files and polygons, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.image import Image, RegionOfInterest
from anomaly_detector.images.mask import Mask, MaskSource
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View, preprocess

WIDTH, HEIGHT = 320, 240


def painted(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Return a mask with the lower eighth white."""
    picture = np.zeros((height, width), np.uint8)
    picture[height - height // 8 :] = 255
    return picture


def write(path: Path, picture: NDArray[np.uint8]) -> Path:
    assert cv2.imwrite(str(path), picture)
    return path


def ignored(source: MaskSource, view: View = WHOLE_FRAME) -> NDArray[np.bool_]:
    return source.ignored(WIDTH, HEIGHT, view)


@pytest.mark.parametrize("size", [64, 128])
def test_a_file_of_any_size_is_what_its_polygon_is(tmp_path: Path, size: int) -> None:
    view = View(size=size)
    small = MaskSource(write(tmp_path / "small.png", painted(120, 160)))
    large = MaskSource(write(tmp_path / "large.png", np.dstack([painted(480, 640)] * 3)))
    corners = MaskSource(polygons=["0,210,319,210,319,239,0,239"])
    edge = size * 7 // 8
    for source in (small, large, corners):
        found = ignored(source, view)
        assert found[edge - 1 :].all()  # one pixel more
        assert not found[: edge - 2].any()
        np.testing.assert_array_equal(found, ignored(small, view))


def test_a_mask_follows_the_region(tmp_path: Path) -> None:
    view = View(RegionOfInterest(160, 120, 160, 120))
    file = MaskSource(write(tmp_path / "mask.png", painted()))
    assert ignored(file, view)[47:].all()
    assert not ignored(file, view)[:46].any()
    both = ignored(MaskSource(file.file, ["160,120,200,120,200,160,160,160"]), view)
    assert both[0, 0]
    assert both[47:].all()
    assert not both[30, 30]


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("frame", [(240, 320), (480, 640), (1080, 1920), (125, 161)])
def test_no_pixel_beside_the_mask_has_anything_of_what_is_under_it(
    size: int, frame: tuple[int, int]
) -> None:
    height, width = frame
    left, top = width // 3 + 1, height // 4 + 1
    right, bottom = left + width // 5, top + height // 6
    corners = f"{left},{top},{right},{top},{right},{bottom},{left},{bottom}"
    view = View(size=size)
    covered = MaskSource(polygons=[corners]).ignored(width, height, view)
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 256, (height, width, 3), np.uint8)
    changed = scene.copy()
    changed[top : bottom + 1, left : right + 1] = 255 - scene[top : bottom + 1, left : right + 1]
    before, after = (preprocess(Image(each, "rgb"), size) for each in (scene, changed))
    assert (before[covered] != after[covered]).any()
    np.testing.assert_array_equal(before[~covered], after[~covered])
    assert covered.mean() < 2.5 / 30


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (painted(240, 240), "has 240x240 pixels, the camera's frame 320x240: give one of the"),
        (np.full((240, 320), 255, np.uint8), "leaves 0% of what the model looks at"),
        (np.zeros((240, 320), np.uint8), "covers nothing of what the model looks at"),
        (painted() // 2, "grey values such as 127: paint white"),
        (np.dstack([painted(), painted() * 0, painted()]), "has colours: paint white"),
    ],
)
def test_a_picture_that_is_no_mask_is_refused(
    tmp_path: Path, picture: NDArray[np.uint8], message: str
) -> None:
    file = write(tmp_path / "mask.png", picture)
    with pytest.raises(AnomalyDetectorError) as caught:
        ignored(MaskSource(file))
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"mask {file} ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "mask.png"
    text.write_text("white where nothing matters")
    with pytest.raises(AnomalyDetectorError, match=r"mask .*mask\.png .*: .*give a PNG file"):
        ignored(MaskSource(text))
    with pytest.raises(AnomalyDetectorError, match=r"cannot be read .*: give a PNG file"):
        ignored(MaskSource(tmp_path / "none.png"))
    with pytest.raises(AnomalyDetectorError, match=r"cannot be read .*: give a PNG file"):
        ignored(MaskSource(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4", "is not X,Y,X,Y,X,Y"),
        ("1,2,3,4,5", "is not X,Y,X,Y,X,Y"),
        ("a,b,c,d,e,f", "is not X,Y,X,Y,X,Y"),
        ("0,0,10,0,10,241", "is not inside the camera's frame of 320x240"),
        ("-1,0,10,0,10,10", "is not inside the camera's frame of 320x240"),
        ("0,0,320,0,320,240,0,240", "leaves 0%"),
    ],
)
def test_a_polygon_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(AnomalyDetectorError, match=message) as caught:
        ignored(MaskSource(polygons=[text]))
    assert "\n" not in str(caught.value)


def test_text_and_mask_are_the_same() -> None:
    covered = np.random.default_rng(1).random((64, 64)) < 0.3
    mask = Mask(covered)
    np.testing.assert_array_equal(Mask.from_text(mask.to_text(), 64).ignored, covered)
    for text, size in ((mask.to_text(), 128), ("no base64!", 64), ("aGVsbG8=", 64)):
        with pytest.raises(AnomalyDetectorError, match="no grey PNG of"):
            Mask.from_text(text, size)
    with pytest.raises(AnomalyDetectorError, match="covers all or nothing"):
        Mask.from_text(Mask(np.ones((64, 64), bool)).to_text(), 64)


def test_it_is_filled_with_what_lies_around_it() -> None:
    covered = np.zeros((64, 64), bool)
    covered[20:40, 30:50] = True
    covered[0:5] = True
    mask = Mask(covered)
    assert mask.edge.sum() == 4 * 20 + 4 + 64
    np.testing.assert_allclose(mask.weights.sum(axis=1), 1, rtol=1e-5)
    rows, columns = np.mgrid[0:64, 0:64]
    ramp = np.stack([rows * 3, columns * 3, np.full_like(rows, 200)], -1).astype(np.uint8)
    frames = np.stack([ramp, 255 - ramp])
    filled = mask.filled(frames)
    np.testing.assert_array_equal(filled[:, ~covered], frames[:, ~covered])
    # A plane is continued but for a bend, and a colour as it is.
    difference = filled.astype(int) - frames
    assert np.abs(difference[:, 20:40, 30:50]).max() < 20
    assert not difference[..., 2].any()
    by_hand = 1 / ((rows - 30) ** 2 + (columns - 40) ** 2)[mask.edge]
    expected = by_hand @ ramp[mask.edge].astype(float) / by_hand.sum()
    np.testing.assert_allclose(filled[0, 30, 40], expected, atol=0.51)
    # What is under it does not matter.
    other = frames.copy()
    other[:, covered] = 7
    np.testing.assert_array_equal(mask.filled(other), filled)
    np.testing.assert_array_equal(mask.filled(frames.astype(np.float32)), filled)
