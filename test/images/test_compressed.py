"""Compressed pictures: reduced scale, headers read first, files cut short, random damage."""

from __future__ import annotations

import array
import resource
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.errors import IMAGE_ERROR_REASONS, AnomalyDetectorError, ImageError
from anomaly_detector.images.compressed import decode_encoded_bytes
from anomaly_detector.images.encodings import ENCODINGS, ImageScaling
from anomaly_detector.images.image import MAX_PIXELS, Image, RegionOfInterest, crop, to_rgb
from anomaly_detector.images.message import decode_compressed, decode_image
from anomaly_detector.images.preprocessing import preprocess

JPEG_KINDS: dict[str, list[int]] = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restart markers": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
}


def smooth_picture(width: int, height: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(picture, np.uint8)


def encoded(suffix: str, picture: NDArray[Any], options: Sequence[int] = ()) -> bytes:
    _, data = cv2.imencode(suffix, picture, list(options))
    return bytes(data.tobytes())


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, pixels: bytes, color: int = 2, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width: int, height: int) -> bytes:
    fields = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1)]
    fields += [(278, height), (279, 100)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    directory = struct.pack("<H", len(fields)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + directory


def webp(width: int, height: int) -> bytes:
    data = bytearray(encoded(".webp", smooth_picture(64, 64), [cv2.IMWRITE_WEBP_QUALITY, 80]))
    place = data.index(b"VP8 ") + 14
    data[place : place + 4] = struct.pack("<HH", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((160, 120), 1),
        ((320, 240), 1),
        ((512, 512), 4),
        ((640, 480), 2),
        ((641, 479), 1),
        ((848, 480), 2),
        ((1024, 768), 4),
        ((1280, 720), 2),
        ((1920, 1080), 4),
        ((1080, 1920), 4),
        ((3840, 2160), 8),
    ],
)
def test_jpeg_at_reduced_scale_stays_close_to_area_averaging(
    size: tuple[int, int], scale: int
) -> None:
    data = encoded(".jpg", smooth_picture(*size), [cv2.IMWRITE_JPEG_QUALITY, 90])
    full = decode_encoded_bytes(data, "frame")
    assert full.array.shape == (size[1], size[0], 3)
    assert full.scale == 1
    reduced = decode_encoded_bytes(data, "frame", reduced=True)
    assert reduced.scale == scale
    assert reduced.array.shape == (size[1] // scale, size[0] // scale, 3)
    area = cv2.resize(full.array, (64, 64), interpolation=cv2.INTER_AREA)[..., ::-1].astype(int)
    difference = np.abs(preprocess(reduced).astype(int) - area)
    assert difference.mean() <= 0.3
    assert difference.max() <= 8


def test_only_jpeg_is_decoded_at_reduced_scale() -> None:
    picture = smooth_picture(640, 480)
    for suffix in (".png", ".bmp", ".tiff"):
        decoded = decode_encoded_bytes(encoded(suffix, picture), "frame", reduced=True)
        np.testing.assert_array_equal(decoded.array, picture)


def test_a_region_is_not_cut_from_a_reduced_frame() -> None:
    data = encoded(".jpg", smooth_picture(640, 480))
    with pytest.raises(ImageError, match="at full size") as error:
        crop(decode_encoded_bytes(data, "frame", reduced=True), RegionOfInterest(x=2))
    assert error.value.reason == "roi"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".ppm", ".pgm", ".tiff", ".webp"])
def test_sizes_are_read_right(suffix: str) -> None:
    picture = smooth_picture(50, 30)
    sent = picture[..., 0] if suffix == ".pgm" else picture
    decoded = decode_encoded_bytes(encoded(suffix, sent), "frame")
    assert decoded.array.shape == (30, 50, 3)


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("reduced", [False, True])
def test_jpeg_that_is_cut_short_is_refused(
    kind: str, reduced: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(".jpg", smooth_picture(640, 480), JPEG_KINDS[kind])
    for cut in (2, 3, 10, 30, 200, len(data) // 4, len(data) // 2, len(data) - 20):
        # Half a picture is no picture, even with an end marker or zeros behind it.
        for rest in (b"", b"\xff\xd9", bytes(len(data) - cut)):
            with pytest.raises(ImageError, match=r"not a (whole )?JPEG|are damaged") as error:
                decode_encoded_bytes(data[:cut] + rest, "frame", reduced=reduced)
            assert error.value.reason == "decode"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("reduced", [False, True])
def test_jpeg_that_loses_no_pixel_is_good(
    kind: str, reduced: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(".jpg", smooth_picture(640, 480), JPEG_KINDS[kind])
    flags = cv2.IMREAD_REDUCED_COLOR_2 if reduced else cv2.IMREAD_COLOR
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    unusual = {
        "whole": data,
        "rubbish after the end": data + b"rubbish" * 20,
        "no end marker": data[:-2],
        "half an end marker": data[:-1],
        "zeros in place of the end marker": data[:-2] + bytes(100),
        "bytes too many, as some webcams send": data[:-2] + b"\x12\x34\xff\xd9",
        "a word of the scan's that libjpeg does not like": data.replace(
            b"\x03\x11\x00\x3f\x00", b"\x03\x11\x00\x3e\x00"
        ),
    }
    for name, sent in unusual.items():
        decoded = decode_encoded_bytes(sent, "frame", reduced=reduced)
        np.testing.assert_array_equal(decoded.array, whole, err_msg=name)
    assert capfd.readouterr().err == ""


def test_missing_decoder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(AnomalyDetectorError, match="pip install simplejpeg"):
        decode_encoded_bytes(encoded(".jpg", smooth_picture(64, 64)), "frame")
    decode_encoded_bytes(encoded(".png", smooth_picture(64, 64)), "frame")


def test_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    data = encoded(".jpg", smooth_picture(320, 240), JPEG_KINDS["progressive"])
    for scan in range(2, data.count(b"\xff\xda")):
        scans = data.split(b"\xff\xda")[: scan + 1]
        # What stands before the next scan are its tables.
        cut = len(b"\xff\xda".join(scans))
        tables = scans[-1].rfind(b"\xff\xc4")
        cut -= len(scans[-1]) - tables if tables >= 0 else 0
        for rest in (b"", b"\xff\xd9"):
            with pytest.raises(ImageError, match="not a whole JPEG picture, it ends before"):
                decode_encoded_bytes(data[:cut] + rest, "frame")


def test_jpeg_decodes_as_opencv_does() -> None:
    picture = smooth_picture(328, 248)
    factors = {
        name: [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, name)]
        for name in dir(cv2)
        if name.startswith("IMWRITE_JPEG_SAMPLING_FACTOR_")
    }
    assert len(factors) >= 5
    for name, options in factors.items():
        data = encoded(".jpg", picture, options)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        decoded = decode_encoded_bytes(data, "frame")
        np.testing.assert_array_equal(decoded.array, expected, err_msg=name)
    grey = encoded(".jpg", picture[..., 0])
    expected = cv2.imdecode(np.frombuffer(grey, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_encoded_bytes(grey, "frame").array, expected)


@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_flat_jpeg_is_whole(level: int) -> None:
    flat = np.full((480, 640, 3), level, np.uint8)
    data = encoded(".jpg", flat)
    assert np.ptp(decode_encoded_bytes(data, "frame").array) == 0
    with pytest.raises(ImageError, match="premature end"):
        decode_encoded_bytes(data[: len(data) * 3 // 4] + b"\xff\xd9", "frame")


def test_png_that_is_cut_short_or_damaged_is_refused() -> None:
    data = encoded(".png", smooth_picture(320, 240))
    for cut in (8, 20, 33, len(data) // 2, len(data) - 12, len(data) - 1):
        with pytest.raises(ImageError, match="not a whole PNG") as error:
            decode_encoded_bytes(data[:cut], "frame")
        assert error.value.reason == "decode"
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match="a checksum is wrong"):
        decode_encoded_bytes(damaged, "frame")


def test_giant_pictures_are_refused_before_they_are_decoded() -> None:
    jpeg = bytearray(encoded(".jpg", smooth_picture(64, 64)))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65000, 65000)
    rows = zlib.compress(bytes(1000))
    giants = {
        "jpeg": bytes(jpeg),
        "png": png(1_000_000, 1_000_000, rows),
        "bomb": png(6000, 6000, rows),
        "bmp": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, 60000, -60000, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(100),
        "pnm": b"P6 60000 60000 255\n" + bytes(100),
        "tiff": tiff(30000, 30000),
        "webp": webp(16000, 16000),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, data in giants.items():
        with pytest.raises(ImageError, match=f"more than {MAX_PIXELS}|cannot hold") as error:
            decode_compressed(SimpleNamespace(format=name, data=data))
        assert error.value.reason == ("decode" if name == "bomb" else "size")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000  # kilobytes; the smallest of these pictures would take 108,000


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images_keep_their_colors(suffix: str) -> None:
    sent = encoded(suffix, np.full((6, 8, 3), (240, 20, 10), np.uint8))
    decoded = decode_compressed(SimpleNamespace(format=suffix, data=sent))
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


def test_depth_in_a_png_needs_a_scaling() -> None:
    depth = np.linspace(0, 8000, 24 * 32).reshape(24, 32).astype(np.uint16)
    sent = SimpleNamespace(format="16UC1; png compressed ", data=encoded(".png", depth))
    with pytest.raises(ImageError, match="give --image-scaling MIN MAX") as error:
        decode_compressed(sent)
    assert error.value.reason == "depth"
    decoded = decode_compressed(sent, scaling=ImageScaling(0, 8000))
    assert decoded.order == "mono"
    np.testing.assert_allclose(decoded.array, np.rint(depth * (255 / 8000)), atol=1)


def refusal(decode: Callable[[], Image]) -> ImageError | None:
    """Decode and preprocess; return the error if it is one that a node can log and count."""
    try:
        pixels = decode()
    except ImageError as error:
        text = str(error)
        if not (text.isprintable() and len(text) < 700):
            raise
        return error
    assert preprocess(pixels).shape == (64, 64, 3)
    return None


def test_random_raw_messages_give_a_result_or_an_image_error() -> None:
    rng = np.random.default_rng(0)
    names = [*ENCODINGS, "", "yuv", "8UC7", "größe", "x" * 1000, "\udcff", "rgb8\0", "RGB8"]
    sizes = [0, 1, 2, 3, 4, 7, 8, 64, 65535, 65536, 2**31, 2**32 - 1, -1]
    data_kinds: list[Any] = [None, 5, "text", [1, 2], object(), b"", memoryview(b"abcd")]
    wrong: list[Any] = [None, "x", float("nan"), float("inf"), 2**70]
    counts = dict.fromkeys(IMAGE_ERROR_REASONS, 0)
    good = 0
    for _ in range(15000):
        encoding = names[rng.integers(len(names))]
        known = ENCODINGS.get(encoding)
        height, width = (int(size) for size in rng.integers(1, 20, 2) * 2)
        step = width * (known.pixel_bytes if known else 3) + int(rng.integers(0, 3))
        rows = height * (known.rows_per_2 if known else 2) // 2
        size = rows * step
        fields: dict[str, Any] = {"height": height, "width": width, "step": step}
        for field in fields:
            if rng.random() < 0.12:
                pool = sizes if rng.random() < 0.8 else wrong
                fields[field] = pool[rng.integers(len(pool))]
        if rng.random() < 0.15:
            size = max(0, size + int(rng.integers(-20, 20)))
        data: Any = array.array("B", rng.integers(0, 256, size, np.uint8).tobytes())
        if rng.random() < 0.03:
            data = data_kinds[rng.integers(len(data_kinds))]
        sent = SimpleNamespace(
            encoding=encoding, data=data, is_bigendian=int(rng.integers(0, 256)), **fields
        )
        scaling = ImageScaling(0, 1000) if rng.random() < 0.5 else None
        error = refusal(partial(decode_image, sent, scaling=scaling))
        if error is None:
            good += 1
        else:
            counts[error.reason] += 1
    assert good > 1000
    for reason in ("encoding", "size", "step", "data", "depth"):
        assert counts[reason] > 50, counts


def test_random_compressed_messages_give_a_result_or_an_image_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    picture = smooth_picture(96, 64)
    whole = [encoded(".jpg", picture, options) for options in JPEG_KINDS.values()]
    whole += [encoded(suffix, picture) for suffix in (".png", ".bmp", ".ppm", ".tiff", ".webp")]
    whole.append(encoded(".png", picture[..., 0].astype(np.uint16) * 9))
    kinds = ["jpeg", "png", "", "16UC1; png", "bgr8; jpeg compressed bgr8", "größe\n", "x" * 1000]
    reasons = set()
    for _ in range(8000):
        data = bytearray(whole[rng.integers(len(whole))])
        for _ in range(rng.integers(0, 4)):
            position = int(rng.integers(len(data) if rng.random() < 0.5 else min(60, len(data))))
            damage = int(rng.integers(4))
            if damage == 0:
                data[position] = int(rng.integers(256))
            elif damage == 1:
                del data[position + 1 :]
            elif damage == 2:
                data[position : position + 8] = rng.integers(0, 256, 8, np.uint8).tobytes()
            else:
                data[position:position] = b"\xff" * int(rng.integers(1, 9))
        sent = SimpleNamespace(format=kinds[rng.integers(len(kinds))], data=bytes(data))
        scaling = ImageScaling(0, 1000) if rng.random() < 0.5 else None
        reduced = bool(rng.integers(2))
        error = refusal(partial(decode_compressed, sent, scaling=scaling, reduced=reduced))
        if error is not None:
            reasons.add(error.reason)
    assert {"decode", "size", "depth"} <= reasons
    capfd.readouterr()  # what the decoders' C libraries print
