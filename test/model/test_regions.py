"""Boxes around hot regions: where they lie in the camera's frame, and what they say of hazards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_encoded_bag
from model_files import GREY, write_grey_difference_model

from anomaly_detector.images.image import Image, RegionOfInterest
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.detector import Detection, Detector
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.regions import AnomalyRegion, anomaly_regions
from benchmarks.regions import intersection_over_union, overlap
from training.data.corridor import CorridorDrive

REGION = RegionOfInterest(100, 40, 512, 384)


def hand_made(score: float = 0.8) -> Detection:
    """A map [4, 8] with a hot cell in a corner and two warm ones that touch at theirs."""
    cells = np.zeros((4, 8), np.float32)
    cells[0, 0], cells[2, 4], cells[3, 5], cells[1, 7] = 5.0, 3.0, 2.0, 1.9
    extent = RegionOfInterest(10, 20, 80, 60)
    return Detection(
        1.0, score, 0.5, score >= 0.5, cells, 1.0, map_scale=MapScale(1.0, 5.0), extent=extent
    )


def test_one_box_a_connected_region_the_hottest_first() -> None:
    assert anomaly_regions(hand_made()) == [
        AnomalyRegion(10, 20, 10, 15, 0.8),
        AnomalyRegion(50, 50, 20, 30, 0.4),
    ]
    assert len(anomaly_regions(hand_made(), hot=0.2)) == 3
    uneven = replace(hand_made(), extent=RegionOfInterest(0, 0, 83, 41))
    # Every pixel that a cell covers is inside.
    assert [(r.x, r.y, r.width, r.height) for r in anomaly_regions(uneven)] == [
        (0, 0, 11, 11),
        (41, 20, 22, 21),
    ]


def test_no_box_without_an_anomaly_or_a_unit() -> None:
    assert anomaly_regions(hand_made(0.49)) == []
    cold = replace(hand_made(), anomaly_map=np.full((4, 8), np.nan, np.float32))
    assert anomaly_regions(cold) == []
    assert anomaly_regions(replace(hand_made(), map_scale=MapScale(0.0, None))) == []


@pytest.mark.parametrize("region", [RegionOfInterest(), REGION])
def test_boxes_lie_in_the_cameras_frame_whatever_way_it_comes(
    region: RegionOfInterest, tmp_path: Path
) -> None:
    model = write_grey_difference_model(tmp_path / "grey.onnx", threshold=50.0)
    frame = np.full((480, 640), int(GREY), np.uint8)
    thing = 200, 150, 120, 90
    frame[150:240, 200:320] = 250
    jpeg = np.asarray(cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))[1])
    with Detector(model, view=View(region)) as detector:
        bag = write_encoded_bag(tmp_path / "bag", [frame], "mono8")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "frame.jpg").write_bytes(jpeg.tobytes())
        results = {
            "array": detector.detect(frame),
            "prepared": detector.detect(detector.prepare(frame)),
            "part": detector.detect(next(detector.stream(bag))[0]),
            "bag": next(detector.stream(bag))[1],
            "jpeg": next(detector.stream(tmp_path / "folder"))[1],
        }
        cells = (region.size if region.width else (640, 480))[0] / 64
    for way, result in results.items():
        (box,) = anomaly_regions(result)
        found = np.array([box.x, box.y, box.x + box.width, box.y + box.height])
        wanted = np.array([thing[0], thing[1], thing[0] + thing[2], thing[1] + thing[3]])
        # The map is smoothed over 5x5 cells.
        assert np.abs(found - wanted).max() <= 3 * cells, way
        assert box.score == result.normalized_score
        assert (frame[box.rows, box.columns] == 250).any()


def test_boxes_enclose_hazards_of_a_drive_that_the_model_does_not_know() -> None:
    overlaps = []
    with Detector("corridor") as detector:
        for hazard in ("foam", "human", "misc"):
            drive = CorridorDrive(120, drive=9, hazards=(hazard,), width=320, height=240)
            (event,) = drive.events
            for frame in drive[event.start + 4 : event.stop : 12]:
                result = detector.detect(Image(frame.image, "rgb"))
                if frame.mask.any() and result.is_anomaly:
                    x, y, width, height = cv2.boundingRect(frame.mask.astype(np.uint8))
                    overlaps.append(overlap(result, (x, y, width, height)))
    assert len(overlaps) >= 8
    assert np.median(overlaps) > 0.5


def test_intersection_over_union_of_boxes() -> None:
    assert intersection_over_union((0, 0, 4, 4), (2, 0, 4, 4)) == pytest.approx(8 / 24)
    assert intersection_over_union((0, 0, 4, 4), (4, 4, 2, 2)) == 0.0
    assert intersection_over_union((3, 5, 7, 2), (3, 5, 7, 2)) == 1.0
