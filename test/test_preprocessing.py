"""The one shrink: size, colours, and how close it is to true area averaging."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.image import ColorOrder, Pixels
from anomaly_detector.preprocessing import shrink


def smooth_picture(height: int, width: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(picture, np.uint8)


@pytest.mark.parametrize(
    "size", [(480, 640), (512, 512), (720, 1280), (1080, 1920), (640, 480), (120, 160), (65, 63)]
)
def test_shrink_is_close_to_area_averaging(size: tuple[int, int]) -> None:
    picture = smooth_picture(*size)
    area = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    difference = np.abs(shrink(Pixels(picture, "rgb")).astype(int) - area)
    assert difference.mean() <= 0.3
    assert difference.max() <= 8


def test_a_frame_of_the_right_size_is_not_changed() -> None:
    picture = smooth_picture(64, 64)
    np.testing.assert_array_equal(shrink(Pixels(picture, "rgb")), picture)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_frames_give_an_input_too(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 50, np.uint8)
    np.testing.assert_array_equal(shrink(Pixels(picture, "rgb")), 50)


@pytest.mark.parametrize("order", ["bgr", "rgba", "bgra", "mono"])
def test_channel_order_is_fixed(order: ColorOrder) -> None:
    rgb = smooth_picture(300, 400)
    array = {
        "bgr": rgb[..., ::-1],
        "rgba": np.dstack([rgb, rgb[..., 0]]),
        "bgra": np.dstack([rgb[..., ::-1], rgb[..., 0]]),
        "mono": rgb[..., 1],
    }[order]
    expected = np.dstack([rgb[..., 1]] * 3) if order == "mono" else rgb
    result = shrink(Pixels(np.ascontiguousarray(array), order))
    assert result.flags.c_contiguous
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, shrink(Pixels(np.ascontiguousarray(expected), "rgb")))
