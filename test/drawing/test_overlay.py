"""The overlay: a normal frame looks normal, evidence is seen where it is, the state is readable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.drawing.overlay import MAX_SIDE, STATE_COLORS, draw_overlay, hatch, state_word
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.image import ColorOrder, Image
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.model.map_scale import MapScale
from training.data.corridor import CorridorDrive

ROOT = Path(__file__).parents[2]
SCALE = MapScale(1.0, 5.0)


def gradient(height: int = 480, width: int = 640) -> NDArray[np.uint8]:
    """Make a BGR picture whose channels differ."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 255 // height, columns * 255 // width, 90 + 0 * rows]
    return np.stack(channels, axis=-1).astype(np.uint8)


def hot_map(value: float = 5.0) -> NDArray[np.float32]:
    """Make a map with one hot square, in the middle of the upper left quarter."""
    anomaly_map = np.zeros((32, 32), np.float32)
    anomaly_map[6:10, 6:10] = value
    return anomaly_map


def render(
    pixels: Image | None = None,
    anomaly_map: NDArray[np.float32] | None = None,
    normalized_score: float = 0.8,
    *,
    is_alarm: bool = False,
    score: float = 8.4,
    threshold: float = 2.1,
    scale: MapScale = SCALE,
    **options: Any,
) -> NDArray[np.uint8]:
    detection = Detection(
        score=score,
        normalized_score=normalized_score,
        threshold=threshold,
        is_anomaly=normalized_score >= 0.5,
        anomaly_map=hot_map() if anomaly_map is None else anomaly_map,
        inference_ms=1.0,
        map_scale=scale,
    )
    frame = Image(gradient(), "bgr") if pixels is None else pixels
    return draw_overlay(frame, detection, is_alarm=is_alarm, **options)


def count_color(image: NDArray[np.uint8], rgb: tuple[int, int, int]) -> int:
    return int((image == np.array(rgb[::-1], np.uint8)).all(axis=-1).sum())


def test_normal_frame_is_the_camera_picture() -> None:
    picture = gradient()
    for anomaly_map, score in ((hot_map(0.9), 0.49), (hot_map(50.0), 0.25)):
        drawn = render(Image(picture, "bgr"), anomaly_map, score)
        assert drawn.dtype == np.uint8
        assert drawn.flags.c_contiguous
        assert np.array_equal(drawn[:480], picture)


def test_heat_lies_where_the_evidence_is() -> None:
    picture = gradient()
    drawn = render(Image(picture, "bgr"))
    change = np.abs(drawn[:480].astype(int) - picture).sum(axis=-1)
    change[:8], change[-8:], change[:, :8], change[:, -8:] = 0, 0, 0, 0  # the frame of the state
    rows, columns = np.nonzero(change)
    cell_rows, cell_columns = 480 / 32, 640 / 32
    assert 4 * cell_rows <= rows.min() < 7 * cell_rows
    assert 9 * cell_rows < rows.max() <= 12 * cell_rows
    assert 4 * cell_columns <= columns.min() < 7 * cell_columns
    assert 9 * cell_columns < columns.max() <= 12 * cell_columns
    # Something of the camera shows through.
    middle = drawn[120, 150:170].astype(int)
    assert np.ptp(middle[:, 1]) > 0


def test_more_evidence_and_a_higher_score_give_more_heat() -> None:
    picture = Image(gradient(), "bgr")

    def change(value: float, score: float) -> int:
        drawn = render(picture, hot_map(value), score)
        return int(
            np.abs(drawn[115:125, 155:165].astype(int) - picture.array[115:125, 155:165]).sum()
        )

    by_map = [change(value, 0.8) for value in (0.5, 2.0, 5.0)]
    assert by_map[0] == 0
    assert by_map[0] < by_map[1] < by_map[2] == change(500.0, 0.8)
    by_score = [change(5.0, score) for score in (0.3, 0.4, 0.5, 0.9)]
    assert by_score[0] == 0
    assert by_score[0] < by_score[1] < by_score[2] == by_score[3]


def test_state_is_a_colour_and_a_word() -> None:
    assert [state_word(False, False), state_word(True, False)] == ["OK", "ANOMALY"]
    assert state_word(False, True) == state_word(True, True) == "ALARM"
    cold = np.zeros((32, 32), np.float32)
    badges = []
    for word, score in (("OK", 0.3), ("ANOMALY", 0.6), ("ALARM", 0.6)):
        drawn = render(anomaly_map=cold, normalized_score=score, is_alarm=word == "ALARM")
        strip = drawn[480:]
        counts = {name: count_color(strip, rgb) for name, rgb in STATE_COLORS.items()}
        assert max(counts, key=lambda name: counts[name]) == word
        framed = count_color(drawn[:2], STATE_COLORS[word])
        assert framed == (0 if word == "OK" else 2 * 640)
        # The letters alone, whatever the colours.
        badge = strip[8:40, 8:130].astype(int)
        badges.append(np.abs(badge - np.array(STATE_COLORS[word][::-1])).sum(axis=-1) > 200)
    assert all(mask.any() for mask in badges)
    assert not np.array_equal(badges[0], badges[1])
    assert not np.array_equal(badges[1], badges[2])


@pytest.mark.parametrize("score", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_bar_shows_the_normalized_score_beside_the_threshold(score: float) -> None:
    drawn = render(normalized_score=score)
    bar = drawn[-12]
    word = "ANOMALY" if score >= 0.5 else "OK"
    filled = count_color(bar[np.newaxis], STATE_COLORS[word])
    mark = np.flatnonzero((bar == 255).all(axis=-1))
    assert mark.size
    assert mark.mean() == pytest.approx(319.5, abs=2)
    hidden = np.count_nonzero(mark < score * 640)
    assert filled + hidden == pytest.approx(score * 640, abs=20)


def test_alarm_that_lasts_shows_the_frames_own_score() -> None:
    bar = render(normalized_score=0.3, is_alarm=True)[-12]
    assert count_color(bar[np.newaxis], STATE_COLORS["ALARM"]) == 0
    assert count_color(bar[np.newaxis], STATE_COLORS["OK"]) > 100


def test_every_order_and_padded_view_gives_the_same_picture() -> None:
    bgr = gradient()
    wanted = render(Image(bgr, "bgr"))
    alpha = np.full((480, 640, 1), 77, np.uint8)
    padded = np.zeros((480, 700, 3), np.uint8)
    padded[:, :640] = bgr
    variants: list[tuple[NDArray[np.uint8], ColorOrder]] = [
        (bgr[:, :, ::-1].copy(), "rgb"),
        (np.concatenate([bgr, alpha], axis=-1), "bgra"),
        (np.concatenate([bgr[:, :, ::-1], alpha], axis=-1), "rgba"),
        (padded[:, :640], "bgr"),
    ]
    for array, order in variants:
        array.flags.writeable = False  # as the view of a message is
        assert np.array_equal(render(Image(array, order)), wanted), order
    grey = bgr[:, :, 1]
    mono = render(Image(grey, "mono"), normalized_score=0.2)
    assert np.array_equal(mono[:480], np.repeat(grey[:, :, np.newaxis], 3, axis=-1))


@pytest.mark.parametrize(
    ("width", "height", "drawn_width", "drawn_height"),
    [
        (160, 120, 320, 240),
        (120, 160, 240, 320),
        (320, 240, 320, 240),
        (640, 480, 640, 480),
        (1080, 1920, 540, 960),
        (1920, 1080, 960, 540),
        (1, 1, 320, 320),
        (3000, 2, 960, 1),
    ],
)
def test_sizes(width: int, height: int, drawn_width: int, drawn_height: int) -> None:
    drawn = render(Image(gradient(height, width), "bgr"))
    assert drawn.shape[1] == drawn_width
    assert 39 <= drawn.shape[0] - drawn_height <= 78
    assert count_color(drawn[drawn_height:], STATE_COLORS["ANOMALY"]) > 200


def test_narrow_picture_keeps_its_words() -> None:
    drawn = render(Image(gradient(1000, 10), "bgr"))
    assert drawn.shape[1] == 200
    assert count_color(drawn[MAX_SIDE:], STATE_COLORS["ANOMALY"]) > 200


@pytest.mark.parametrize("size", [(480, 640), (200, 40), (64, 64)])
def test_note_is_a_band_at_the_top_whose_words_fit(size: tuple[int, int]) -> None:
    picture = Image(gradient(*size), "bgr")
    plain, noted = render(picture), render(picture, note="scene differs from training")
    assert plain.shape == noted.shape
    rows = np.flatnonzero((plain != noted).any(axis=(1, 2)))
    assert rows[0] == 0
    assert len(rows) == rows[-1] + 1 <= 60
    band = noted[: len(rows)]
    assert not (band[:, [0, -1]] > 200).any()
    assert (band > 200).any()  # how white thin letters are depends on OpenCV


def test_smaller_pictures_on_request() -> None:
    assert render(max_side=320).shape[1] == 320
    with pytest.raises(AnomalyDetectorError, match="max_side is 10"):
        render(max_side=10)


def test_refuses_what_is_no_map() -> None:
    for shape in ((32,), (0, 32), (1, 32, 32)):
        with pytest.raises(AnomalyDetectorError, match="anomaly map has shape"):
            render(anomaly_map=np.zeros(shape, np.float32))


def test_unusual_numbers_are_drawn() -> None:
    odd = np.full((4, 7), np.nan, np.float32)
    odd[0, 0], odd[0, 1] = np.inf, -np.inf
    drawn = render(anomaly_map=odd, normalized_score=1.0, score=1.7e38, threshold=-3.4e-12)
    assert drawn.shape[1] == 640
    picture = gradient()
    assert np.array_equal(drawn[200:470, 20:600], picture[200:470, 20:600])


@pytest.mark.parametrize("ends", [(2.0, 1.0), (1.0, 1.0), (float("nan"), 2.0), (0.0, float("inf"))])
def test_map_scale_refuses_wrong_ends(ends: tuple[float, float]) -> None:
    with pytest.raises(AnomalyDetectorError, match="map scale from"):
        MapScale(*ends)


@pytest.mark.parametrize("window", [0, 2, -1])
def test_map_scale_refuses_an_even_window(window: int) -> None:
    with pytest.raises(AnomalyDetectorError, match="give an odd number"):
        MapScale(1.0, 2.0, window)


def test_map_scale_of_a_score_in_the_maps_units_follows_the_threshold() -> None:
    scale = MapScale(4.0, 16.0, 5, follows_threshold=True)
    assert scale.at(6.0, 2.0) == MapScale(12.0, 48.0, 5, follows_threshold=True)
    for threshold in (-1.0, 0.0, 1e300):
        assert scale.at(threshold, 2.0) == scale
    assert MapScale(4.0, 16.0).at(6.0, 2.0) == MapScale(4.0, 16.0)


def test_map_without_a_unit_is_relative_to_its_highest_cell() -> None:
    scale = MapScale(0.0, None)
    cells = np.array([[0.0, 1.0], [2.0, 4.0]], np.float32)
    assert scale.strength(cells) == pytest.approx(cells / 4)
    assert not scale.strength(np.zeros((2, 2), np.float32)).any()


def test_lines_are_drawn_on_anomalous_frames_whose_map_has_a_unit() -> None:
    dark = Image(np.zeros((480, 640, 3), np.uint8), "bgr")

    def white(scale: MapScale, normalized_score: float) -> int:
        drawn = render(dark, normalized_score=normalized_score, scale=scale)
        return count_color(drawn[:480], (255, 255, 255))

    assert white(SCALE, 0.8) > 100
    assert white(SCALE, 0.49) == 0
    assert white(MapScale(0.0, None), 0.8) == 0


def test_window_averages_single_pixels_away() -> None:
    single = np.zeros((64, 64), np.float32)
    single[20, 20] = 10.0
    assert not MapScale(1.0, 4.0, window=5).strength(single).any()
    assert MapScale(1.0, 4.0).strength(single).max() == 1.0


def test_shipped_model_on_the_corridor() -> None:
    """Normal frames stay as they are; the heat of a hazard touches the hazard."""
    detector = Detector(ROOT / "models" / "corridor.onnx", providers=["CPUExecutionProvider"])

    def heat(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        pixels = Image(image, "rgb")
        result = detector.detect(pixels)
        drawn = draw_overlay(pixels, result)
        difference = np.abs(
            drawn[: image.shape[0]].astype(int) - cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        )
        inner = difference.max(axis=-1) > 0
        inner[:8], inner[-8:], inner[:, :8], inner[:, -8:] = False, False, False, False
        return np.asarray(inner)

    normal = CorridorDrive(60, 0, drive=3)
    assert not any(heat(normal[index].image).any() for index in (0, 20, 40))
    hazardous = CorridorDrive(60, 0, drive=1, hazards=("human",))
    largest = max((hazardous[index] for index in range(0, 60, 6)), key=lambda f: int(f.mask.sum()))
    assert largest.mask.sum() > 1000
    shown = heat(largest.image)
    assert (shown & largest.mask).sum() > 0.3 * largest.mask.sum()
    assert shown.mean() < 0.5


def test_boxes_are_those_of_the_regions_and_can_be_left_out() -> None:
    dark = Image(np.zeros((480, 640, 3), np.uint8), "bgr")
    with_boxes, without = render(dark), render(dark, boxes=False)
    rows, columns = np.nonzero((with_boxes != without).any(axis=-1))
    # Four cells of 20x15 pixels from the sixth on, and the line's width outside.
    assert (rows.min(), rows.max()) == (88, 151)
    assert (columns.min(), columns.max()) == (118, 201)
    assert count_color(with_boxes[90:150, 120:200], STATE_COLORS["ANOMALY"]) > 200
    assert np.array_equal(render(normalized_score=0.45), render(normalized_score=0.45, boxes=False))


@pytest.mark.parametrize("colour", [(0, 0, 0), (90, 150, 120), (160, 110, 140), (255, 255, 255)])
def test_hatching_is_seen_on_every_brightness_and_has_no_colour(
    colour: tuple[int, int, int],
) -> None:
    picture = np.full((48, 64, 3), colour, np.uint8)
    ignored = np.zeros((12, 16), bool)
    ignored[6:] = True
    hatch(picture, ignored)
    change = picture.astype(int) - np.array(colour)
    assert not change[:24].any()
    lines = change[24:][change[24:].any(axis=2)]
    assert 0.05 < len(lines) / (24 * 64) < 0.4
    assert (np.abs(lines) >= 40).all()
    assert (lines == lines[:, :1]).all()
