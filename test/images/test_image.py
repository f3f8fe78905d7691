"""Camera messages to pixels: encodings, padded steps and damaged messages."""

from __future__ import annotations

import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.errors import ImageError
from anomaly_detector.images.image import to_rgb
from anomaly_detector.images.message import decode_compressed, decode_image

HEIGHT, WIDTH = 6, 8
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (90, 90, 90)}


def message(encoding: str, rows: NDArray[np.uint8], padding: int = 0) -> SimpleNamespace:
    """Make an image message from rows of bytes, with ``padding`` bytes of rubbish after each."""
    rows = rows.reshape(len(rows), -1)
    padded = np.full((rows.shape[0], rows.shape[1] + padding), 213, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return SimpleNamespace(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=0,
        step=padded.shape[1],
        data=array.array("B", padded.tobytes()),
    )


def picture(color: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), color, np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("color", COLORS.values(), ids=COLORS)
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "8UC3"])
def test_color_encodings_keep_their_colors(
    encoding: str, color: tuple[int, int, int], padding: int
) -> None:
    rgb = picture(color)
    rgb[0, 0] = (1, 2, 3)
    alpha = np.full((HEIGHT, WIDTH, 1), 7, np.uint8)
    sent = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "8UC3": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], axis=2),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], axis=2),
    }[encoding]
    decoded = decode_image(message(encoding, np.ascontiguousarray(sent), padding))
    np.testing.assert_array_equal(to_rgb(decoded), rgb)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_encodings_with_a_padded_step(encoding: str) -> None:
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    decoded = decode_image(message(encoding, grey, padding=3))
    np.testing.assert_array_equal(decoded.array, grey)
    np.testing.assert_array_equal(to_rgb(decoded), np.dstack([grey] * 3))


def test_common_encodings_are_views_of_the_message() -> None:
    data = message("rgb8", picture((1, 2, 3)), padding=4)
    decoded = decode_image(data)
    data.data[0] = 77
    assert decoded.array[0, 0, 0] == 77


def test_mono16_is_scaled_to_eight_bits() -> None:
    values = np.full((HEIGHT, WIDTH), 128 * 257, "<u2")
    decoded = decode_image(message("mono16", values.view(np.uint8), padding=2))
    np.testing.assert_array_equal(decoded.array, 128)


def test_yuv422_keeps_grey() -> None:
    uyvy = np.tile(np.array([128, 100], np.uint8), (HEIGHT, WIDTH))
    decoded = to_rgb(decode_image(message("yuv422", uyvy)))
    assert decoded.shape == (HEIGHT, WIDTH, 3)
    assert np.ptp(decoded) <= 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoding": "theora"}, "encoding 'theora' is not supported"),
        ({"encoding": ""}, "encoding '' is not supported"),
        ({"encoding": "32FC1"}, "32FC1 is depth or infrared, .* give --image-scaling MIN MAX"),
        ({"step": WIDTH * 3 - 1}, "step is 23 bytes but a row of 8 rgb8 pixels has 24"),
        ({"step": 0}, "step is 0 bytes"),
        ({"height": HEIGHT + 1}, "was cut short"),
        ({"height": 0}, "size 8x0"),
        ({"width": 0}, "size 0x6"),
        ({"height": 2**31, "width": 2**31}, "header is damaged"),
        ({"data": array.array("B")}, "data has 0 bytes"),
        ({"data": array.array("B", bytes(1000))}, "data has 1000 bytes"),
    ],
)
def test_damaged_messages_are_refused(change: dict[str, object], reason: str) -> None:
    damaged = message("rgb8", picture((1, 2, 3)))
    vars(damaged).update(change)
    with pytest.raises(ImageError, match=reason) as error:
        decode_image(damaged)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images_keep_their_colors(suffix: str) -> None:
    _, data = cv2.imencode(suffix, picture((10, 20, 240))[..., ::-1])
    decoded = decode_compressed(SimpleNamespace(format=suffix, data=data.tobytes()))
    difference = to_rgb(decoded).astype(int) - (10, 20, 240)
    assert np.abs(difference).max() <= (4 if suffix == ".jpg" else 0)


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        ("jpeg", b"", "is empty"),
        ("jpeg", b"no picture", "not a JPEG, PNG"),
        ("png", b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        ("16UC1; compressedDepth png", b"x", "depth is not a camera picture"),
        ("16UC1; png compressed ", b"x", "depth or infrared"),
    ],
)
def test_damaged_compressed_images_are_refused(kind: str, data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_compressed(SimpleNamespace(format=kind, data=data))
