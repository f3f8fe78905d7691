"""A drive is compared with those before: faults of the camera are refused, another day is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.drawing.page import render_page
from anomaly_detector.errors import AnomalyDetectorError
from training.adaptation.changes import LIMITS, compare, stand_out
from training.reports.changes import changes_page

Images = NDArray[np.uint8]


def drive(place: int, frames: int = 60, start: float = 0.0, noise: int = 0) -> Images:
    """Return a drive past a wall of edges and textures, uint8 [N, 64, 64, 3]."""
    rng = np.random.default_rng(place)
    wall = np.full((64, 1064, 3), 60, np.float32)
    for cells, swing in ((12, 90), (60, 60), (266, 50)):
        patches = rng.random((max(2, cells // 12), cells, 3), np.float32)
        wall += swing * cv2.resize(patches, (1064, 64), interpolation=cv2.INTER_NEAREST)
    wall[32 * place :] *= 0.5  # a floor, in place 1
    lefts = np.linspace(start, 1000 - start, frames).astype(int)
    seen = np.stack([wall[:, left : left + 64] for left in lefts])
    seen += np.random.default_rng(noise).normal(0, 3, seen.shape)
    return as_images(seen)


def as_images(values: NDArray[np.floating[Any]]) -> Images:
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def _each(images: Images, function: Callable[[Images], Any]) -> Images:
    return np.asarray([function(image) for image in images], np.uint8)


def turned(images: Images, degrees: float) -> Images:
    turn = cv2.getRotationMatrix2D((31.5, 31.5), degrees, 1.2)
    return _each(images, lambda image: cv2.warpAffine(image, turn, (64, 64)))


def covered(images: Images) -> Images:
    result = np.array(images)
    result[:, :, :32] = 25
    return result


def blurred(images: Images, sigma: float) -> Images:
    return _each(images, lambda image: cv2.GaussianBlur(image, (0, 0), sigma))


def smeared(images: Images) -> Images:
    result = np.array(images)
    result[:, 32:] = blurred(images, 4)[:, 32:]
    return result


FAULTS: dict[str, tuple[str, Callable[[Images], Images]]] = {
    "blurred": ("blur", lambda images: blurred(images, 1)),
    "dimmed": ("exposure", lambda images: as_images(images * 0.5)),
    "brighter": ("exposure", lambda images: as_images(images * 1.8)),
    "foggy": ("contrast", lambda images: as_images(images * 0.5 + 60)),
    "tinted": ("colour", lambda images: as_images(images * [1.3, 0.9, 0.6])),
    "tilted": ("roll", lambda images: turned(images, 8)),
    "half covered": ("cover", covered),
    "smeared": ("cover", smeared),
    "of another place": ("place", lambda images: drive(2, len(images))),
}
PAST = drive(1)
TODAY = drive(1, 50, start=40, noise=1)


@pytest.mark.parametrize(("name", "fault"), FAULTS.values(), ids=list(FAULTS))
def test_a_drive_with_a_fault_is_refused_until_the_change_is_accepted(
    name: str, fault: Callable[[Images], Images]
) -> None:
    changes = compare(PAST, fault(TODAY))
    found = [change.name for change in changes.outside]
    assert name in found
    with pytest.raises(AnomalyDetectorError, match=f"--accept-change .*{name}") as error:
        changes.refused([other for other in LIMITS if other != name])
    assert "\n" not in str(error.value)
    assert [item["name"] for item in changes.refused(found)] == found


@pytest.mark.parametrize(
    "today",
    [
        TODAY,
        as_images(TODAY * 0.85),
        as_images(TODAY * 1.15),
        as_images(TODAY + np.random.default_rng(2).normal(0, 6, TODAY.shape)),
        drive(1, 100, noise=3)[:50],
    ],
    ids=["same speed", "darker", "lighter", "noisier", "slower, half of the way"],
)
def test_another_day_is_not_refused(today: Images) -> None:
    changes = compare(PAST, today)
    assert not changes.outside
    assert changes.refused() == []
    assert [change.name for change in changes.changes] == list(LIMITS)


def test_frames_are_matched_to_those_of_the_same_place() -> None:
    changes = compare(PAST, PAST[::2])
    assert (changes.matches == np.arange(0, len(PAST), 2)).all()
    assert changes.similarity == pytest.approx(1, abs=1e-3)


def test_too_few_frames_and_unknown_changes_are_errors() -> None:
    with pytest.raises(AnomalyDetectorError, match="the past has 0 frames"):
        compare(PAST[:0], TODAY)
    with pytest.raises(AnomalyDetectorError, match="today's drive has 9 frames"):
        compare(PAST, TODAY[:9])
    with pytest.raises(AnomalyDetectorError, match=r"--accept-change fog is unknown: .*blur"):
        compare(PAST, TODAY).refused(["fog"])


def test_a_stretch_with_something_in_the_way_stands_out() -> None:
    today = TODAY.copy()
    today[20:25, 30:60, 20:40] = (200, 30, 30)
    assert stand_out(PAST, TODAY) == []
    ((first, last),) = stand_out(PAST, today)
    assert 18 <= first <= 20
    assert 24 <= last <= 26


def test_a_drive_that_differs_all_along_has_no_stretch_that_stands_out() -> None:
    assert stand_out(PAST, covered(TODAY)) == []


def test_a_page_says_what_is_refused_what_is_accepted_and_what_is_left_out() -> None:
    today = blurred(covered(TODAY), 1)
    changes = compare(PAST, today)
    page = changes_page(changes, PAST, today, [(20, 24)], ["blur"])
    text = render_page(page)
    rows = {row[0]: row for table in page.sections[0].tables for row in table.rows}
    blur = next(change for change in changes.changes if change.name == "blur")
    assert rows["blur"][2:] == (
        *(f"{blur.past:.3g}", f"{blur.today:.3g}", blur.limit_text, "accepted"),
    )
    assert rows["cover"][-1] == "refused"
    assert rows["colour"][-1] == "as before"
    assert page.warning is not None
    assert "--accept-change" in page.warning
    assert "cover" in page.warning.split("--accept-change")[1]
    assert "blur" not in page.warning.split("--accept-change")[1]
    assert "Frames 20 to 24" in text
    assert len(re.findall("Known frame", text)) == 12


def test_a_page_of_a_drive_as_before_warns_of_nothing() -> None:
    changes = compare(PAST, TODAY)
    page = changes_page(changes, PAST, TODAY, [], ["blur"])
    assert page.warning is None
    assert page.sections[0].key_figures[0].value == "may be learnt"
    assert {row[-1] for table in page.sections[0].tables for row in table.rows} == {"as before"}
    assert "No stretch" in render_page(page)
