"""Files of pictures to pixels: JPEG, PNG, TIFF, BMP, PNM and WebP.

A picture is whole or an error. OpenCV fills what is missing of a JPEG with grey and says so on
stderr alone, so ``simplejpeg`` decodes JPEG: the same libjpeg-turbo, the same pixels to the last
bit, but its warnings are errors. Of a PNG the check sums are compared. OpenCV decodes the rest;
its limit of pixels is set in the package's ``__init__``.

A JPEG whose coded data was altered but still reads as codes is not found out: the format has no
check sum.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, ImageError, as_one_line
from anomaly_detector.images.encodings import ImageScaling, scale_to_8_bits, shorten
from anomaly_detector.images.image import MAX_PIXELS, Image, check_size

DECODE_METHOD = "reduced-jpeg/2"
"""Name and version of how pictures are decoded; change the version when a pixel changes, or what is
read at all."""

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = (b"BM", b"II*\0", b"MM\0*", b"RIFF", *(b"P%d" % digit for digit in range(1, 7)))

# A JPEG is decoded so small only where the resize still averages several pixels into one.
_LEAST_REDUCED_SIDE = 192
_LEAST_REDUCED_EXACT = 128

# In coded data 0xFF is a marker unless it is stuffed, filling, or begins a restart.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
# A JPEG has some dozens of segments. The limits keep a damaged file from costing more than a good
# one.
_MAX_JPEG_SEGMENTS = 5_000
# libjpeg's words.
_END_MISSING = "Premature end of JPEG file"
_LOSS = re.compile(f"{_END_MISSING}|Corrupt JPEG data(?!.*extraneous bytes before marker)")

# Deflate cannot pack more than 1032 bytes into one: a PNG that asks for more is a bomb.
_MAX_DEFLATE_RATIO = 1032
# A PNG writer makes chunks of 8 KB and more: the largest frame has a few thousand.
_MAX_PNG_CHUNKS = 20_000
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class _Damaged(Exception):
    """Says what is wrong with a picture's bytes, in a few words."""


def byte_buffer(data: Any, name: str) -> NDArray[np.uint8]:
    """Return a message's data as uint8 [N], without a copy.

    Raises:
        ImageError: it is no bytes.
    """
    try:
        return np.frombuffer(data, dtype=np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise ImageError(
            f"{name} data is {shorten(type(data).__name__)}, not bytes: the message is damaged",
            reason="data",
        ) from error


def decode_encoded_bytes(
    data: Any, name: str, *, scaling: ImageScaling | None = None, reduced: bool = False
) -> Image:
    """Decode the bytes of an image file: JPEG, PNG, TIFF, BMP, PNM or WebP.

    A file that asks for a giant picture costs nothing. A JPEG or PNG of which a part is missing is
    refused, a PNG with a wrong check sum as well; a JPEG may lack its end marker. Rotation tags are
    ignored: a robot's camera frame is used as it was recorded.

    Args:
        data: bytes, bytearray, array or uint8 array with a whole file.
        name: what to call it in an error.
        scaling: range of values of a 16-bit grey PNG; None for the upper 8 of its bits. Others
            are not changed by it.
        reduced: whether the picture is only wanted for the model's input: a JPEG that is large
            enough is then decoded at 1/2, 1/4 or 1/8 of its size, which costs less and is as close
            to area averaging. Its size on both sides must be a multiple of that.

    Returns:
        BGR pixels, uint8 [H, W, 3]; ``mono`` [H, W] for a 16-bit grey PNG with a scaling.

    Raises:
        ImageError: it is empty, damaged, of another format or too large.
        AnomalyDetectorError: ``simplejpeg`` is missing, and it is a JPEG.
    """
    buffer = byte_buffer(data, name)
    if buffer.size == 0:
        raise ImageError(f"{name} is empty: no picture in it", reason="data")
    start = buffer[:8].tobytes()
    if not start.startswith((_JPEG, _PNG, *_OTHERS)):
        raise ImageError(
            f"{name} with {buffer.size} bytes cannot be decoded: "
            "not a JPEG, PNG, TIFF, BMP, PNM or WebP picture",
            reason="decode",
        )
    kind = "JPEG" if start.startswith(_JPEG) else "PNG"
    try:
        if start.startswith(_JPEG):
            return _decode_jpeg(buffer, name, reduced=reduced)
        is_grey16 = start.startswith(_PNG) and _check_png(buffer.data, name)
    except (_Damaged, struct.error, LookupError, ValueError) as error:
        what = str(error) if isinstance(error, _Damaged) else "its header is cut short"
        raise ImageError(
            f"{name} with {buffer.size} bytes cannot be decoded: "
            f"not a whole {kind} picture, {what}",
            reason="decode",
        ) from error
    if scaling is not None and is_grey16:
        values = _imdecode(buffer, cv2.IMREAD_UNCHANGED, name)
        if values.ndim == 2 and values.dtype == np.uint16:  # no transparency added to it
            return scale_to_8_bits(values, "mono", scaling)
    return _decode_others(buffer, name)


def _decode_jpeg(buffer: NDArray[np.uint8], name: str, *, reduced: bool) -> Image:
    try:
        import simplejpeg
    except ImportError as error:
        raise AnomalyDetectorError(
            f"{name} is a JPEG, which needs simplejpeg ({error}): pip install simplejpeg"
        ) from error
    if not _has_all_scans(buffer.data):
        raise _Damaged("it ends before its pixels")
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(buffer, strict=False)
    except (ValueError, KeyError):  # a kind that TurboJPEG has no name for
        colors = ""
    if colors not in ("YCbCr", "Gray", "RGB"):
        return _decode_others(buffer, name)
    check_size(width, height, name)
    scale = _reduction(width, height) if reduced else 1
    size = {"min_width": width // scale, "min_height": height // scale} if scale > 1 else {}

    def decode(data: Any, *, strict: bool) -> Image:
        return Image(simplejpeg.decode_jpeg(data, "BGR", strict=strict, **size), "bgr", scale)

    try:
        try:
            return decode(buffer, strict=True)
        except ValueError as error:
            if _END_MISSING not in str(error):
                raise
        return decode(_with_end(buffer), strict=True)
    except ValueError as error:
        if _LOSS.match(str(error)):
            raise _Damaged(as_one_line(error)) from error
    # What common cameras get wrong: some bytes too many or another word, but no pixel is lost.
    try:
        return decode(_with_end(buffer), strict=False)
    except ValueError:  # a warning all the same, before the first pixel
        return _decode_others(buffer, name)


def _decode_others(buffer: NDArray[np.uint8], name: str) -> Image:
    return Image(np.asarray(_imdecode(buffer, cv2.IMREAD_COLOR, name), np.uint8), "bgr")


def _with_end(buffer: NDArray[np.uint8]) -> bytes:
    """Return a JPEG with an end marker, in place of the zeros of a buffer that was not filled."""
    data = buffer.tobytes()
    if data.endswith(bytes(9)):  # coded data ends in one zero, if any; more of them are codes, too
        data = data.rstrip(b"\0") + b"\0"
    return data + b"\xff\xd9"


def _has_all_scans(data: memoryview) -> bool:
    """Return whether a JPEG's scans give every coefficient of every component to its last bit.

    Most pictures have one scan that gives all. Progressive ones have several, and libjpeg takes
    it for a blurred picture when the last ones are missing.
    """
    missing: dict[int, int] = {}
    is_progressive = False
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None or found[1] == b"\xd9":
            return False
        marker, position = found[1][0], found.end()
        if marker in (0x01, 0xD8):
            continue
        (length,) = struct.unpack_from(">H", data, position)
        segment = data[position + 2 : position + length]
        position += length
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            is_progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
            missing = {segment[6 + 3 * index]: 2**64 - 1 for index in range(segment[5])}
        elif marker == 0xDA:  # start of scan
            count = segment[0]
            first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
            for component in segment[1 : 1 + 2 * count : 2]:
                if not is_progressive:
                    missing[component] = 0
                elif bits & 0xF == 0:
                    missing[component] &= ~(2 ** (last + 1) - 2**first)
            if not any(missing.values()):
                return True
    raise _Damaged(f"it has more than {_MAX_JPEG_SEGMENTS} segments")


def _check_png(data: memoryview, name: str) -> bool:
    """Make sure that a PNG is whole; return whether it has one 16-bit channel: depth, infrared."""
    length, kind, width, height, depth, color = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13 or color not in _PNG_CHANNELS:
        raise _Damaged("it does not start with a right IHDR chunk")
    check_size(width, height, name)
    if width * height * _PNG_CHANNELS[color] * depth > 8 * _MAX_DEFLATE_RATIO * len(data):
        raise _Damaged(f"so few bytes cannot hold {width}x{height} pixels")
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise _Damaged("its end is missing")
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise _Damaged("a checksum is wrong")
        if kind == b"IEND":
            return bool(color == 0 and depth == 16)
        position = end + 4
    raise _Damaged(f"it has more than {_MAX_PNG_CHUNKS} chunks")


def _reduction(width: int, height: int) -> int:
    for scale in (8, 4, 2):
        # Not a multiple: the last column would stand for fewer pixels and move all the others.
        if width % scale or height % scale:
            continue
        small_width, small_height = width // scale, height // scale
        least = min(small_width, small_height)
        if least >= _LEAST_REDUCED_SIDE:
            return scale
        if least >= _LEAST_REDUCED_EXACT and small_width % 64 == 0 and small_height % 64 == 0:
            return scale
    return 1


def _imdecode(buffer: NDArray[np.uint8], flags: int, name: str) -> NDArray[Any]:
    try:
        array = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise ImageError(
                f"{name} asks for more than {MAX_PIXELS} pixels: its header is damaged",
                reason="size",
            ) from error
        raise ImageError(
            f"{name} cannot be decoded: {shorten(error, 200)}", reason="decode"
        ) from error
    if array is None:
        raise ImageError(
            f"{name} with {buffer.size} bytes cannot be decoded: its pixels are damaged or of a "
            "kind that OpenCV does not read",
            reason="decode",
        )
    check_size(array.shape[1], array.shape[0], name)
    return np.asarray(array)
