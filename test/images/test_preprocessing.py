"""The one preprocessing: size, colours, and how close it is to true area averaging."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.images.image import ColorOrder, Image
from anomaly_detector.images.preprocessing import preprocess


def smooth_picture(height: int, width: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(picture, np.uint8)


@pytest.mark.parametrize(
    "size",
    [
        *[(480, 640), (512, 512), (720, 1280), (1080, 1920), (640, 480), (120, 160), (65, 63)],
        *[(240, 320), (480, 848), (768, 1024), (1280, 720), (1920, 1080), (1079, 1917), (333, 517)],
        *[(400, 150), (1201, 701), (2160, 3840)],
    ],
)
def test_result_is_close_to_area_averaging(size: tuple[int, int]) -> None:
    picture = smooth_picture(*size)
    for side in (64, 128):
        area = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(int)
        difference = np.abs(preprocess(Image(picture, "rgb"), side).astype(int) - area)
        assert difference.mean() <= 0.3
        assert difference.max() <= 8


def test_a_frame_of_the_right_size_is_not_changed() -> None:
    picture = smooth_picture(64, 64)
    np.testing.assert_array_equal(preprocess(Image(picture, "rgb")), picture)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_frames_give_an_input_too(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 50, np.uint8)
    np.testing.assert_array_equal(preprocess(Image(picture, "rgb")), 50)


def test_noise_is_averaged_away() -> None:
    noise = np.random.default_rng(0).integers(96, 160, (480, 640, 3), np.uint8)
    area = cv2.resize(noise, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    sampled = cv2.resize(noise, (64, 64), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(sampled - area).mean() > 7  # what a resize without averaging gives
    assert np.abs(preprocess(Image(noise, "rgb")).astype(int) - area).mean() < 3.5


@pytest.mark.parametrize("size", [(720, 1280), (480, 640), (600, 1024), (1079, 1917), (240, 320)])
def test_resize_does_not_move_the_picture(size: tuple[int, int]) -> None:
    ramp = np.linspace(20, 220, size[0])[:, None, None] + np.zeros((1, size[1], 3))
    picture = ramp.round().astype(np.uint8)
    for picked in (picture, picture[::-1]):
        area = cv2.resize(picked.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
        shifted = preprocess(Image(np.ascontiguousarray(picked), "rgb")) - area
        # One output row is three grey levels: a tenth of a row would be 0.3.
        assert np.abs(shifted[1:-1].mean()) < 0.15


@pytest.mark.parametrize("size", [(300, 400), (720, 1280), (480, 848), (1079, 1917), (120, 160)])
@pytest.mark.parametrize("order", ["bgr", "rgba", "bgra", "mono"])
def test_channel_order_is_fixed(order: ColorOrder, size: tuple[int, int]) -> None:
    rgb = smooth_picture(*size)
    array = {
        "bgr": rgb[..., ::-1],
        "rgba": np.dstack([rgb, rgb[..., 0]]),
        "bgra": np.dstack([rgb[..., ::-1], rgb[..., 0]]),
        "mono": rgb[..., 1],
    }[order]
    expected = np.dstack([rgb[..., 1]] * 3) if order == "mono" else rgb
    result = preprocess(Image(np.ascontiguousarray(array), order))
    assert result.flags.c_contiguous
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, preprocess(Image(np.ascontiguousarray(expected), "rgb")))
