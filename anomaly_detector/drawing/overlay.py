"""The picture that shows a person what the detector sees: ``~/overlay``.

Above: the camera picture, with a heat map where the evidence lies. Below it, so that nothing of
the camera is hidden: the state as a colour and a word, the score, and a bar with the threshold in
its middle. A normal frame looks normal: heat needs both a score that nears the threshold and cells
of the anomaly map that exceed a scale which is fixed for the model (``MapScale``); no frame is
stretched to its own extremes. Colours are those of Okabe and Ito, which colour-blind readers tell
apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.image import Image, RegionOfInterest, crop, to_bgr
from anomaly_detector.images.message import FrameLike, as_image
from anomaly_detector.model.regions import HOT, anomaly_regions

if TYPE_CHECKING:
    from anomaly_detector.model.detector import Detection

MAX_SIDE = 960
"""Default for the longer side of the camera picture in an overlay, pixels."""

STATE_COLORS = {"OK": (0, 114, 178), "ANOMALY": (230, 159, 0), "ALARM": (213, 94, 0)}
"""State to colour, RGB."""

_MIN_SIDE = 320
_MIN_WIDTH = 200

# Normalised scores between which heat fades in: the median normal frame has 0.25, the threshold
# is 0.5. The frame's score says how much evidence there is, the map only where.
_FADE_FROM, _FADE_TO = 0.35, 0.5

_OPACITY = 0.65
_OUTLINE_AT = round(255 * HOT)

_HATCH = 8
"""Distance of two lines over what is not looked at, in their thickness."""

_HATCH_CONTRAST = 60

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_STRIP = (36, 32, 30)
_INK = (255, 255, 255)
_TRACK = (92, 86, 82)

Color = tuple[int, int, int]


def state_word(is_anomaly: bool, is_alarm: bool) -> str:
    """Return the state as shown: OK, ANOMALY (of this frame) or ALARM (it persists)."""
    if is_alarm:
        return "ALARM"
    return "ANOMALY" if is_anomaly else "OK"


def draw_overlay(
    frame: FrameLike,
    detection: Detection,
    *,
    is_alarm: bool = False,
    note: str = "",
    max_side: int = MAX_SIDE,
    boxes: bool = True,
) -> NDArray[np.uint8]:
    """Draw a frame's result over it: heat map, boxes around hot regions, mask, state and score.

    Example:
        >>> frame = np.zeros((480, 640, 3), np.uint8)
        >>> result = Detector("corridor").detect(frame, order="bgr")
        >>> draw_overlay(frame, result).shape
        (555, 640, 3)

    Args:
        frame: what was given to :meth:`~anomaly_detector.model.detector.Detector.detect`.
        detection: what it returned.
        is_alarm: whether the alarm is on.
        note: a line of text at the top of the picture; empty for none.
        max_side: the longer side of larger pictures is reduced to this, pixels. Pictures below 320
            are enlarged by a whole factor, so that the words can be read.
        boxes: draw those of :func:`~anomaly_detector.model.regions.anomaly_regions`.

    Returns:
        uint8 BGR [H + strip, W, 3], C-contiguous, a new array. H and W are the picture's,
        reduced or enlarged; very narrow ones get dark bars at both sides.

    Raises:
        AnomalyDetectorError: ``max_side`` is below 64 or the map has no cell.
        ImageError: the frame is damaged, or smaller than the model's region.
    """
    anomaly_map = detection.anomaly_map
    if max_side < 64:
        raise AnomalyDetectorError(f"max_side is {max_side}: give 64 pixels or more")
    if anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise AnomalyDetectorError(
            f"anomaly map has shape {anomaly_map.shape}: give one map, [height, width]"
        )
    view, scale = detection.view, detection.map_scale
    image = as_image(frame, detection.order, scaling=view.scaling)
    picture = resized_bgr(crop(image, view.region), max_side)
    height, width = picture.shape[:2]
    if detection.ignored is not None:
        hatch(picture, detection.ignored)
    fade = (detection.normalized_score - _FADE_FROM) / (_FADE_TO - _FADE_FROM)
    if fade > 0:
        strength = min(fade, 1.0) * scale.strength(anomaly_map)
        # A sharp line would promise more than maps without a unit hold.
        _draw_heat(picture, strength, outlined=detection.is_anomaly and scale.high is not None)
    word = state_word(detection.is_anomaly, is_alarm)
    color: Color = STATE_COLORS[word][::-1]
    if boxes:
        _draw_boxes(picture, detection, color)
    canvas_width = max(width, _MIN_WIDTH)
    unit = max(13, min(26, round(canvas_width / 26)))
    strip_height = 3 * unit
    canvas = np.empty((height + strip_height, canvas_width, 3), np.uint8)
    left = (canvas_width - width) // 2
    if width < canvas_width:
        canvas[:height] = _STRIP
    canvas[:height, left : left + width] = picture
    if word != "OK":
        cv2.rectangle(
            canvas, (left, 0), (left + width - 1, height - 1), color, max(2, unit // 4), cv2.LINE_8
        )
    if note:
        _draw_note(canvas, unit, note)
    strip = canvas[height:]
    strip[:] = _STRIP
    _draw_state(strip, unit, word, color, detection.score, detection.threshold)
    # An alarm lasts a little longer than the anomaly: the bar tells of the frame alone.
    bar_color = color if detection.is_anomaly else STATE_COLORS["OK"][::-1]
    _draw_bar(strip, unit, detection.normalized_score, bar_color)
    return canvas


def resized_bgr(pixels: Image, max_side: int) -> NDArray[np.uint8]:
    """Return a copy of the frame in BGR, of a size fit for viewing."""
    array = pixels.array
    height, width = array.shape[:2]
    longer = max(height, width)
    if longer > max_side:
        size = (max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer)))
        # Area averaging of a whole camera frame costs more than all the rest.
        array = np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    elif longer < _MIN_SIDE:
        factor = min(-(-_MIN_SIDE // longer), max(1, max_side // longer))
        size = (width * factor, height * factor)
        array = np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    bgr = to_bgr(Image(array, pixels.order))
    return bgr.copy() if bgr is pixels.array else bgr


def _heat_tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return tables [1, 256, 3] from strength: what stays of the picture, and the colour added."""
    strength = np.arange(256) / 255.0
    # From vermillion to yellow: what is stronger is brighter too.
    blue, green, red = (0, 0, 40), (60, 130, 240), (230, 255, 255)
    colors = np.stack(
        [np.interp(strength, [0.0, 0.6, 1.0], channel) for channel in (blue, green, red)], axis=-1
    )
    opacity = (_OPACITY * strength**0.6)[:, np.newaxis]
    keep = np.repeat(255 * (1 - opacity), 3, axis=1)
    return (
        np.round(keep).astype(np.uint8)[np.newaxis],
        np.round(colors * opacity).astype(np.uint8)[np.newaxis],
    )


_KEEP, _ADD = _heat_tables()


def _draw_heat(
    picture: NDArray[np.uint8], strength: NDArray[np.float32], *, outlined: bool
) -> None:
    """Lay heat over a BGR picture, in place; strength is float32 [h, w] in [0, 1]."""
    small = np.round(strength * 255).astype(np.uint8)
    height, width = picture.shape[:2]
    heat = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    x, y, w, h = cv2.boundingRect(heat)
    if w == 0:
        return
    part = picture[y : y + h, x : x + w]
    levels = cv2.cvtColor(heat[y : y + h, x : x + w], cv2.COLOR_GRAY2BGR)
    kept = cv2.multiply(part, cv2.LUT(levels, _KEEP), scale=1 / 255)
    part[:] = cv2.add(kept, cv2.LUT(levels, _ADD))
    if not outlined:
        return
    # For things that have the colour of heat themselves.
    mask = (heat >= _OUTLINE_AT).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    smallest = mask.size / 4096
    outlines = [line for line in outlines if cv2.contourArea(line) >= smallest]
    thickness = _thickness(picture)
    cv2.drawContours(picture, outlines, -1, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    cv2.drawContours(picture, outlines, -1, _INK, thickness, cv2.LINE_AA)


def hatch(picture: NDArray[np.uint8], ignored: NDArray[np.bool_]) -> None:
    """Hatch what is not looked at in a picture.

    Args:
        picture: uint8 [H, W, 3], which is drawn on.
        ignored: bool [h, w] of any size.
    """
    height, width = picture.shape[:2]
    covered = cv2.resize(ignored.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    rows, columns = np.ogrid[:height, :width]
    thickness = _thickness(picture)
    lines = (covered > 0) & ((rows + columns) % (_HATCH * thickness) < thickness)
    levels = picture[lines].astype(np.int16)
    # Seen on dark and on bright things alike, in their own colour.
    is_dark = levels.mean(axis=1, keepdims=True) < 128
    picture[lines] = np.clip(levels + np.where(is_dark, _HATCH_CONTRAST, -_HATCH_CONTRAST), 0, 255)


def _draw_boxes(picture: NDArray[np.uint8], detection: Detection, color: Color) -> None:
    """Draw the hot regions' boxes, in place; the picture shows what the map covers."""
    height, width = picture.shape[:2]
    shown = replace(detection, extent=RegionOfInterest(0, 0, width, height))
    thickness = _thickness(picture)
    for box in anomaly_regions(shown):
        corners = (box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1)
        cv2.rectangle(picture, *corners, (0, 0, 0), thickness + 2, cv2.LINE_8)
        cv2.rectangle(picture, *corners, color, thickness, cv2.LINE_8)


def _thickness(picture: NDArray[np.uint8]) -> int:
    height, width, _ = picture.shape
    return max(1, round(int(max(height, width)) / 320))


def _draw_note(canvas: NDArray[np.uint8], unit: int, note: str) -> None:
    """Draw a line of text on a band at the top, as large as fits."""
    margin = unit // 3
    room = canvas.shape[1] - 2 * margin
    size = min(unit, unit * room // _text_width(note, unit))
    canvas[: size + 2 * margin] = _STRIP
    _text(canvas, note, margin, size + margin - size // 6, size, _INK)


def _draw_state(
    strip: NDArray[np.uint8], unit: int, word: str, color: Color, score: float, threshold: float
) -> None:
    """Draw the upper row of the strip: a badge with the word, and the score at the right."""
    width = strip.shape[1]
    margin = unit // 3
    top, bottom = margin, margin + round(1.35 * unit)
    badge = _text_width("ANOMALY", unit) + 2 * margin
    cv2.rectangle(strip, (margin, top), (margin + badge, bottom), color, cv2.FILLED)
    ink = (0, 0, 0) if word == "ANOMALY" else _INK
    middle = margin + (badge - _text_width(word, unit)) // 2
    _text(strip, word, middle, bottom - (bottom - top - unit) // 2 - unit // 6, unit, ink)
    room = width - badge - 4 * margin
    numbers = _number(score), _number(threshold)
    texts = ("score {}, threshold {}".format(*numbers), "{} / {}".format(*numbers))
    for size, text in ((unit, texts[0]), (round(0.8 * unit), texts[0]), (unit, texts[1])):
        if _text_width(text, size) <= room:
            x = width - margin - _text_width(text, size)
            _text(strip, text, x, bottom - (bottom - top - size) // 2 - size // 6, size, _INK)
            break


def _draw_bar(strip: NDArray[np.uint8], unit: int, normalized_score: float, color: Color) -> None:
    """Draw the lower row of the strip: the normalised score, with the threshold in the middle."""
    width = strip.shape[1]
    margin = unit // 3
    left, right = margin, width - 1 - margin
    top, bottom = strip.shape[0] - margin - unit // 2, strip.shape[0] - margin
    value = min(max(normalized_score, 0.0), 1.0)
    filled = left + round(value * (right - left))
    middle = (left + right) // 2
    cv2.rectangle(strip, (left, top), (right, bottom), _TRACK, cv2.FILLED)
    cv2.rectangle(strip, (left, top), (filled, bottom), color, cv2.FILLED)
    mark = max(1, unit // 8)
    cv2.rectangle(
        strip, (middle - mark, top - unit // 3), (middle + mark, bottom + unit // 4), _INK,
        cv2.FILLED,
    )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


# Letters of the font are 22 pixels high at scale 1: the scale is a thirtieth of their size.


def _text_width(text: str, size: int) -> int:
    (width, _), _ = cv2.getTextSize(text, _FONT, size / 30, max(1, size // 10))
    return int(width)


def _text(image: NDArray[np.uint8], text: str, x: int, y: int, size: int, color: Color) -> None:
    thickness = max(1, size // 10)
    cv2.putText(image, text, (x, y), _FONT, size / 30, color, thickness, cv2.LINE_AA)
