"""Messages to pixels: colours, byte order, padding, depth with a scaling, damaged messages."""

from __future__ import annotations

import array
import pickle
from types import SimpleNamespace
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rosbags.image import image_to_cvimage

from anomaly_detector.errors import (
    IMAGE_ERROR_REASONS,
    AnomalyDetectorError,
    ImageError,
    ImageErrorReason,
)
from anomaly_detector.images.encodings import ENCODINGS, ImageScaling
from anomaly_detector.images.image import RegionOfInterest, crop, to_rgb
from anomaly_detector.images.message import decode_image

HEIGHT, WIDTH = 12, 18
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (90, 90, 90)}


def message(
    encoding: str, rows: NDArray[Any], padding: int = 0, is_bigendian: int = 0, height: int = HEIGHT
) -> SimpleNamespace:
    """Make an image message from rows of values, with bytes of rubbish after each row."""
    raw = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    padded = np.full((len(raw), raw.shape[1] + padding), 213, np.uint8)
    padded[:, : raw.shape[1]] = raw
    if encoding == "nv24":  # a row of U and V is one of two rows, with the padding at its end
        pairs = padded[height:].reshape(height, -1)
        pairs[:, : 2 * WIDTH] = raw[height:].reshape(height, -1)
        pairs[:, 2 * WIDTH :] = 213
    return SimpleNamespace(
        height=height,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=padded.shape[1],
        data=array.array("B", padded.tobytes()),
    )


def yuv(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert to BT.601 with the limited range, by the standard's own formula."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64) / 255, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [16 + 219 * luma, 128 + 112 * (blue - luma) / 0.886, 128 + 112 * (red - luma) / 0.701]
    return np.asarray(np.rint(np.stack(planes, axis=-1)), np.uint8)


def encode(encoding: str, rgb: NDArray[np.uint8]) -> Any:
    """Return the rows of a picture of one colour in an encoding, as a camera sends them."""
    alpha = np.full((HEIGHT, WIDTH, 1), 7, np.uint8)
    bgr = rgb[..., ::-1]
    if encoding in ("rgb8", "bgr8", "8UC3"):
        return rgb if encoding == "rgb8" else bgr
    if encoding in ("rgba8", "bgra8", "8UC4"):
        return np.concatenate([rgb if encoding == "rgba8" else bgr, alpha], axis=2)
    if encoding in ("rgb16", "bgr16", "rgba16", "bgra16"):
        eight = {"rgb16": "rgb8", "bgr16": "bgr8", "rgba16": "rgba8", "bgra16": "bgra8"}[encoding]
        return encode(eight, rgb).astype("<u2") * 257
    if encoding.startswith("bayer_"):
        pattern = encoding.removeprefix("bayer_").rstrip("0123456789")
        mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
        for index, letter in enumerate(pattern):
            row, column = divmod(index, 2)
            mosaic[row::2, column::2] = rgb[row::2, column::2, "rgb".index(letter)]
        return mosaic if encoding.endswith("8") else mosaic.astype("<u2") * 257
    luma, u, v = np.moveaxis(yuv(rgb), -1, 0)
    if encoding in ("uyvy", "yuv422", "yuyv", "yuv422_yuy2"):
        chroma = np.where(np.arange(WIDTH) % 2 == 0, u, v)
        pair = (luma, chroma) if encoding.startswith(("yuyv", "yuv422_yuy2")) else (chroma, luma)
        return np.stack(pair, axis=-1)
    first, second = (v, u) if encoding == "nv21" else (u, v)
    pairs = np.stack([first, second], axis=-1)
    if encoding == "nv24":
        return np.concatenate([luma, pairs.reshape(2 * HEIGHT, WIDTH)])
    return np.concatenate([luma, pairs[::2, ::2].reshape(HEIGHT // 2, WIDTH)])


COLOR_ENCODINGS = [name for name, encoding in ENCODINGS.items() if encoding.order != "mono"]


@pytest.mark.parametrize("padding", [0, 6], ids=["tight", "padded"])
@pytest.mark.parametrize("color", COLORS.values(), ids=COLORS)
@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
def test_colors(encoding: str, color: tuple[int, int, int], padding: int) -> None:
    rgb = np.full((HEIGHT, WIDTH, 3), color, np.uint8)
    decoded = to_rgb(decode_image(message(encoding, encode(encoding, rgb), padding)))
    assert decoded.shape == (HEIGHT, WIDTH, 3)
    # YUV of 8 bits cannot say every colour exactly.
    tolerance = 4 if ENCODINGS[encoding].kind.startswith("yuv") else 0
    assert np.abs(decoded.astype(int) - color).max() <= tolerance


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_encodings_with_a_padded_step(encoding: str) -> None:
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    decoded = decode_image(message(encoding, grey, padding=3))
    np.testing.assert_array_equal(decoded.array, grey)
    np.testing.assert_array_equal(to_rgb(decoded), np.dstack([grey] * 3))


def test_common_encodings_are_views_of_the_message() -> None:
    sent = message("rgb8", np.zeros((HEIGHT, WIDTH, 3), np.uint8), padding=4)
    decoded = decode_image(sent)
    sent.data[0] = 77
    assert decoded.array[0, 0, 0] == 77


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoding": "theora"}, "encoding 'theora' is not supported"),
        ({"encoding": ""}, "encoding '' is not supported"),
        ({"encoding": "32FC1"}, "32FC1 is depth or infrared, .* give --image-scaling MIN MAX"),
        ({"step": WIDTH * 3 - 1}, "step is 53 bytes but a row of 18 rgb8 pixels has 54"),
        ({"step": 0}, "step is 0 bytes"),
        ({"height": HEIGHT + 1}, "was cut short"),
        ({"height": 0}, "size 18x0"),
        ({"width": 0}, "size 0x12"),
        ({"height": 2**31, "width": 2**31}, "header is damaged"),
        ({"data": array.array("B")}, "data has 0 bytes"),
        ({"data": array.array("B", bytes(1000))}, "data has 1000 bytes"),
    ],
)
def test_damaged_messages_are_refused(change: dict[str, object], reason: str) -> None:
    damaged = message("rgb8", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    vars(damaged).update(change)
    with pytest.raises(ImageError, match=reason) as error:
        decode_image(damaged)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "encoding", [name for name in COLOR_ENCODINGS if name not in ("8UC3", "8UC4", "nv24")]
)
def test_colors_agree_with_rosbags_image(encoding: str) -> None:
    smooth = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    rgb = np.asarray(cv2.resize(smooth, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.uint8)
    sent = message(encoding, encode(encoding, rgb))
    ours = to_rgb(decode_image(sent)).astype(int)
    if encoding in ("nv12", "nv21"):
        sent.height = HEIGHT * 3 // 2  # rosbags-image counts the rows of both planes
        np.testing.assert_array_equal(to_rgb(decode_image(sent)), ours)
    sent.is_bigendian = False
    theirs = image_to_cvimage(sent, "bgr8")[..., ::-1].astype(int)  # type: ignore[arg-type]
    assert np.abs(ours - theirs).max() <= 1  # it cuts 16 bits off where we round


@pytest.mark.parametrize(
    "encoding", ["mono16", "rgb16", "bgra16", "bayer_rggb16", "16UC1", "32FC1"]
)
@pytest.mark.parametrize("padding", [0, 3])
def test_big_endian(encoding: str, padding: int) -> None:
    shape = (HEIGHT, WIDTH, {"rgb16": 3, "bgra16": 4}.get(encoding, 1))
    values = np.random.default_rng(2).integers(0, 65536, shape).astype("<u2")
    rows = values.astype("<f4") if encoding == "32FC1" else values
    scaling = ImageScaling(100, 60000)
    little = decode_image(message(encoding, rows, padding), scaling=scaling)
    swapped = rows.byteswap()
    big = decode_image(message(encoding, swapped, padding, is_bigendian=1), scaling=scaling)
    np.testing.assert_array_equal(little.array, big.array)
    assert np.ptp(little.array) > 200


def test_sixteen_bits_are_rounded_to_eight() -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype("<u2")
    decoded = decode_image(message("mono16", values, padding=2))
    assert decoded.order == "mono"
    np.testing.assert_allclose(decoded.array, np.rint(values / 257.0), atol=1)
    assert (decoded.array.min(), decoded.array.max()) == (0, 255)
    # A camera of 12 bits.
    twelve = decode_image(message("mono16", values // 16), scaling=ImageScaling(0, 4095))
    np.testing.assert_allclose(twelve.array, np.rint(values // 16 * (255 / 4095)), atol=1)


def test_depth_needs_a_scaling_and_gets_it() -> None:
    millimetres = np.linspace(0, 8000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype("<u2")
    with pytest.raises(ImageError, match="give --image-scaling MIN MAX") as error:
        decode_image(message("16UC1", millimetres))
    assert error.value.reason == "depth"
    expected = np.rint((np.clip(millimetres, 500, 4000) - 500.0) * (255 / 3500))
    decoded = decode_image(message("16UC1", millimetres), scaling=ImageScaling(500, 4000))
    np.testing.assert_allclose(decoded.array, expected, atol=1)
    metres = (millimetres / 1000).astype("<f4")
    decoded = decode_image(message("32FC1", metres, 5), scaling=ImageScaling(0.5, 4.0))
    np.testing.assert_allclose(decoded.array, expected, atol=1)
    assert decoded.invalid == 0


@pytest.mark.parametrize("bounds", [(0.5, 2.25), (-5, 5), (60000, 80000), (-9, -3), (70000, 70001)])
def test_any_range_of_values_will_do(bounds: tuple[float, float]) -> None:
    values = np.concatenate([np.arange(100), 65535 - np.arange(HEIGHT * WIDTH - 100)])
    rows = values.reshape(HEIGHT, WIDTH).astype("<u2")
    low, high = bounds
    decoded = decode_image(message("16UC1", rows), scaling=ImageScaling(low, high))
    expected = np.rint((np.clip(rows.astype(float), low, high) - low) * (255 / (high - low)))
    np.testing.assert_allclose(decoded.array, expected, atol=1)


def test_pixels_without_a_value_become_black_and_are_counted() -> None:
    metres = np.full((HEIGHT, WIDTH), 2.0, "<f4")
    metres[0, :4] = (np.nan, np.inf, -np.inf, 3e38)
    decoded = decode_image(message("32FC1", metres), scaling=ImageScaling(1.0, 3.0))
    assert decoded.invalid == 3
    assert decoded.array[0, :5].tolist() == [0, 0, 0, 255, 128]
    metres[:] = np.nan
    with pytest.raises(ImageError, match="no finite value") as error:
        decode_image(message("32FC1", metres), scaling=ImageScaling(1.0, 3.0))
    assert error.value.reason == "depth"


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (0, np.inf), (np.nan, 1), (0, 1e38)])
def test_senseless_scalings_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(AnomalyDetectorError, match="no range"):
        ImageScaling(*bounds)


@pytest.mark.parametrize("encoding", ["uyvy", "yuyv", "nv12", "nv21", "bayer_rggb8"])
def test_odd_sizes_are_refused_where_the_encoding_has_none(encoding: str) -> None:
    rows = np.zeros((HEIGHT * ENCODINGS[encoding].rows_per_2 // 2, 2 * WIDTH), np.uint8)
    sent = message(encoding, rows)
    sent.width = WIDTH - 1
    with pytest.raises(ImageError, match="set an even size") as error:
        decode_image(sent)
    assert error.value.reason == "size"


def test_a_given_converter_takes_bayer_and_yuv() -> None:
    calls = []

    def convert(sent: Any, target: str) -> NDArray[np.uint8]:
        calls.append((sent.encoding, target))
        shape = (HEIGHT, WIDTH) if target == "mono8" else (HEIGHT, WIDTH, 3)
        return np.full(shape, 9, np.uint8)

    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for encoding in ("bayer_rggb8", "yuyv", "rgb16"):
        decoded = decode_image(message(encoding, encode(encoding, rgb)), convert=convert)
        assert decoded.order == "bgr"
        assert (decoded.array == 9).all()
    decode_image(message("mono16", np.zeros((HEIGHT, WIDTH), "<u2")), convert=convert)
    # Views need no converter, and no converter knows our scaling.
    decode_image(message("rgb8", rgb), convert=convert)
    scaling = ImageScaling(0, 9)
    decode_image(
        message("mono16", np.zeros((HEIGHT, WIDTH), "<u2")), convert=convert, scaling=scaling
    )
    assert calls == [
        ("bayer_rggb8", "bgr8"),
        ("yuyv", "bgr8"),
        ("rgb16", "bgr8"),
        ("mono16", "mono8"),
    ]


def test_a_failing_converter_does_not_lose_the_frame() -> None:
    rgb = np.full((HEIGHT, WIDTH, 3), (255, 0, 0), np.uint8)
    sent = message("bayer_rggb8", encode("bayer_rggb8", rgb))
    calls = []

    def broken(sent: Any, target: str) -> Any:
        calls.append(target)
        raise RuntimeError("not this encoding")

    for convert in (broken, lambda sent, target: np.zeros((3, 3)), lambda sent, target: None):
        np.testing.assert_array_equal(to_rgb(decode_image(sent, convert=convert)), rgb)
    assert calls == ["bgr8"]


@pytest.mark.parametrize("encoding", ["bild-größe", "\udc80", "x" * 10_000_000, "a\nb", ""])
def test_strange_encodings_give_one_short_line(encoding: str) -> None:
    sent = message("rgb8", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    sent.encoding = encoding
    with pytest.raises(ImageError, match="is not supported") as error:
        decode_image(sent)
    text = str(error.value)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 500
    assert error.value.reason == "encoding"


def test_the_reason_survives_a_copy_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(ImageError("one line", reason="step")))
    assert (str(error), error.reason) == ("one line", "step")


@pytest.mark.parametrize(
    ("roi", "rows", "columns"),
    [
        (RegionOfInterest(), slice(0, HEIGHT), slice(0, WIDTH)),
        (RegionOfInterest(3, 2, 5, 4), slice(2, 6), slice(3, 8)),
        (RegionOfInterest(x=4), slice(0, HEIGHT), slice(4, WIDTH)),
        (RegionOfInterest(y=5, height=HEIGHT - 5), slice(5, HEIGHT), slice(0, WIDTH)),
    ],
)
def test_crop_is_a_view(roi: RegionOfInterest, rows: slice, columns: slice) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    pixels = decode_image(message("rgb8", rgb, padding=4))
    cut = crop(pixels, roi)
    np.testing.assert_array_equal(cut.array, rgb[rows, columns])
    assert np.shares_memory(cut.array, pixels.array)


@pytest.mark.parametrize(
    "roi",
    [RegionOfInterest(x=WIDTH), RegionOfInterest(y=HEIGHT), RegionOfInterest(1, 0, WIDTH, 0)],
)
def test_a_region_outside_the_frame_is_refused(roi: RegionOfInterest) -> None:
    pixels = decode_image(message("rgb8", np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    with pytest.raises(ImageError, match="not inside the frame of 18x12") as error:
        crop(pixels, roi)
    assert error.value.reason == "roi"


def test_a_region_with_a_negative_side_is_refused() -> None:
    with pytest.raises(AnomalyDetectorError, match="has width -1"):
        RegionOfInterest(0, 0, -1, 0)


def test_reasons_are_listed() -> None:
    assert set(get_args(ImageErrorReason)) == set(IMAGE_ERROR_REASONS)
