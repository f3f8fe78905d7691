"""Size and completeness of a compressed picture, read before it is decoded.

OpenCV allocates what a header asks for, and versions before 5 give a half grey picture for a
truncated file without a word. Both are caught here: the size is known, and a JPEG is known to go on
to its end marker and a PNG to its last chunk with right checksums, before OpenCV sees the bytes.

A JPEG whose coded data was altered but still reads as codes is not found out: the format has no
checksum.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import ImageError
from anomaly_detector.pixels import MAX_PIXELS

__all__ = ["PictureHeader", "read_header"]

PictureFormat = Literal["jpeg", "png", "bmp", "pnm", "tiff", "webp"]

# Deflate cannot pack more than 1032 bytes into one: a PNG that asks for more is a bomb.
_MAX_DEFLATE_RATIO = 1032
# A PNG writer makes chunks of 8 KB and more, so the largest frame has a few thousand; a JPEG has
# some dozens of segments. The limits keep a damaged file from costing more than a good one.
_MAX_PNG_CHUNKS = 20_000
_MAX_JPEG_SEGMENTS = 5_000

# In coded data 0xFF is a marker unless it is stuffed, filling, or begins a restart marker.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_SIGNATURES: tuple[tuple[PictureFormat, bytes], ...] = (
    ("jpeg", b"\xff\xd8\xff"),
    ("png", b"\x89PNG\r\n\x1a\n"),
    ("bmp", b"BM"),
    ("tiff", b"II*\0"),
    ("tiff", b"MM\0*"),
    ("webp", b"RIFF"),
    *(("pnm", b"P%d" % digit) for digit in range(1, 7)),
)


@dataclass(frozen=True)
class PictureHeader:
    """What the header of a compressed picture says.

    Attributes:
        format: of the file.
        width: in pixels.
        height: in pixels.
        is_grey16: whether it is a PNG with one 16-bit channel: depth or infrared.
    """

    format: PictureFormat
    width: int
    height: int
    is_grey16: bool = False


class _Damaged(Exception):
    """Says what is wrong with a picture's bytes, in a few words."""


def read_header(buffer: NDArray[np.uint8], name: str) -> PictureHeader:
    """Read a picture's header and make sure that a JPEG or PNG is whole.

    Args:
        buffer: uint8 [N], the whole file.
        name: what to call it in an error.

    Raises:
        ImageError: an unknown format, a damaged header, or a JPEG or PNG that is cut short or
            damaged.
    """
    start = buffer[:32].tobytes()
    kind = next((kind for kind, signature in _SIGNATURES if start.startswith(signature)), None)
    if kind is None:
        raise ImageError(
            f"{name} with {buffer.size} bytes cannot be decoded: "
            "not a JPEG, PNG, TIFF, BMP, PNM or WebP picture",
            reason="decode",
        )
    try:
        return _READERS[kind](buffer.data)
    except (_Damaged, struct.error, IndexError) as error:
        what = str(error) if isinstance(error, _Damaged) else "its header is cut short"
        raise ImageError(
            f"{name} with {buffer.size} bytes cannot be decoded: "
            f"not a whole {kind.upper()} picture, {what}",
            reason="decode",
        ) from error


def _jpeg(data: memoryview) -> PictureHeader:
    size: tuple[int, int] | None = None
    has_scan = False
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        if data[position] != 0xFF:
            raise _Damaged("a marker is missing")
        if data[position + 1] == 0xFF:  # filling
            position += 1
            continue
        marker = int(data[position + 1])
        position += 2
        if marker == 0xD9:  # end of image
            if size is None or not has_scan:
                raise _Damaged("it ends before its pixels")
            return PictureHeader("jpeg", *size)
        if marker == 0x01:
            continue
        if not (0xC0 <= marker <= 0xCF or 0xDA <= marker <= 0xEF or marker in (0xDB, 0xFE)):
            raise _Damaged(f"it has an unknown marker {marker:#04x}")
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2:
            raise _Damaged("a segment has no length")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = (width, height)
        position += length
        if marker == 0xDA:  # start of scan: coded data up to the next marker
            has_scan = True
            found = _JPEG_MARKER.search(data, position)
            if found is None:
                raise _Damaged("its end is missing")
            position = found.start()
    raise _Damaged(f"it has more than {_MAX_JPEG_SEGMENTS} segments")


def _png(data: memoryview) -> PictureHeader:
    length, kind, width, height, depth, color = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13 or color not in _PNG_CHANNELS:
        raise _Damaged("it does not start with a right IHDR chunk")
    bits = width * height * _PNG_CHANNELS[color] * depth
    # Larger ones are refused for their size, which tells more.
    if width * height <= MAX_PIXELS and bits > 8 * _MAX_DEFLATE_RATIO * len(data):
        raise _Damaged(f"so few bytes cannot hold {width:.4g}x{height:.4g} pixels")
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise _Damaged("its end is missing")
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise _Damaged("a checksum is wrong")
        if kind == b"IEND":
            return PictureHeader("png", width, height, is_grey16=color == 0 and depth == 16)
        position = end + 4
    raise _Damaged(f"it has more than {_MAX_PNG_CHUNKS} chunks")


# Channels of each PNG colour type.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _bmp(data: memoryview) -> PictureHeader:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return PictureHeader("bmp", width, abs(height))


def _pnm(data: memoryview) -> PictureHeader:
    # Comments may stand between the numbers.
    match = re.match(
        rb"P[1-6](?:\s+#[^\n]*)*\s+(\d{1,9})(?:\s+#[^\n]*)*\s+(\d{1,9})", data[:4096].tobytes()
    )
    if match is None:
        raise _Damaged("it has no size")
    return PictureHeader("pnm", int(match[1]), int(match[2]))


def _tiff(data: memoryview) -> PictureHeader:
    order = "<" if data[0] == ord("I") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    found: dict[int, int] = {}
    for index in range(min(count, 1000)):
        entry = directory + 2 + 12 * index
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):
            code = order + ("H" if kind == 3 else "I")
            (found[tag],) = struct.unpack_from(code, data, entry + 8)
    if len(found) != 2:
        raise _Damaged("it has no size")
    return PictureHeader("tiff", found[256], found[257])


def _webp(data: memoryview) -> PictureHeader:
    size, kind, chunk = struct.unpack_from("<I4s4s", data, 4)
    if kind != b"WEBP" or size + 8 > len(data):
        raise _Damaged("its end is missing")
    if chunk == b"VP8X":
        low, high, low2, high2 = struct.unpack_from("<HBHB", data, 24)
        return PictureHeader("webp", 1 + low + (high << 16), 1 + low2 + (high2 << 16))
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return PictureHeader("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return PictureHeader("webp", width & 0x3FFF, height & 0x3FFF)
    raise _Damaged("it has no size")


_READERS: dict[PictureFormat, Callable[[memoryview], PictureHeader]] = {
    "jpeg": _jpeg,
    "png": _png,
    "bmp": _bmp,
    "pnm": _pnm,
    "tiff": _tiff,
    "webp": _webp,
}
