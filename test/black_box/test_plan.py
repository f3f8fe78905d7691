"""Events on a plan, and floor maps as map_server has them."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from black_box_frames import Drive, open_box
from conftest import START_NS

from anomaly_detector.black_box import find_events, read_event
from anomaly_detector.black_box.plan import make_plans, read_floor_map
from anomaly_detector.errors import SourceError
from anomaly_detector.poses import Place, Pose


def test_plan_has_the_path_and_the_place_of_each_event(tmp_path: Path) -> None:
    def placed(stamp_ns: int) -> Place:
        metres = (stamp_ns - START_NS) / 1e9
        if metres > 99:
            return Place(Pose(stamp_ns, "odom", 0.0, 0.0, 0.0, 0.0), 0.0)
        return Place(Pose(stamp_ns, "map", metres, 2.0, 0.0, 0.0), 0.0)

    with open_box(tmp_path) as box:
        drive = Drive(box, place=placed)
        for _ in range(2):  # two events with the path between them, then a gap
            drive.normal(3.0)
            drive.feed([1.5, 1.9, 1.5, 1.5])
        drive.normal(40.0)
        drive.feed([1.5] * 4)
        drive.normal(60.0)
        drive.feed([1.5] * 4)
    events = [read_event(path) for path in find_events(tmp_path)]
    plans = make_plans(events)
    assert [plan.frame_id for plan in plans] == ["map", "odom"]
    plan = plans[0]
    assert list(plan.events) == [event.path for event in events[:3]]
    assert plan.events[events[0].path].x == pytest.approx(3.05)
    assert [len(path) for path in plan.paths] == [
        len({f.stamp_ns for event in events[:2] for f in event.frames}),
        len(events[2].frames),
    ]
    for path in plan.paths:
        assert [pose.stamp_ns for pose in path] == sorted(pose.stamp_ns for pose in path)
    assert make_plans([]) == []


@pytest.mark.parametrize("suffix", [".pgm", ".png"])
def test_floor_map_places_points_on_its_picture(tmp_path: Path, suffix: str) -> None:
    picture = np.full((40, 60), 254, np.uint8)
    picture[10, 20] = 0  # row 10 from above: between 29 and 30 rows from below
    cv2.imwrite(str(tmp_path / f"floor{suffix}"), picture)
    text = f"image: floor{suffix}\nresolution: 0.05\norigin: [-1.0, -0.5, 0]\nnegate: 0\n"
    (tmp_path / "floor.yaml").write_text(text + "occupied_thresh: 0.65\nfree_thresh: 0.196\n")
    floor = read_floor_map(tmp_path / "floor.yaml")
    np.testing.assert_array_equal(floor.image, picture)
    assert floor.pixel(-1.0, -0.5) == (0.0, 40.0)  # the lower left corner
    column, row = floor.pixel(-1.0 + 20.5 * 0.05, -0.5 + 29.5 * 0.05)
    assert floor.image[int(row), int(column)] == 0
    # Turned about its origin, and with black for free.
    turned = text.replace(", 0]", f", {math.pi / 2}]").replace("negate: 0", "negate: 1")
    (tmp_path / "turned.yaml").write_text(turned)
    floor = read_floor_map(tmp_path / "turned.yaml")
    assert floor.pixel(-1.0, -0.5 + 0.5) == pytest.approx((10.0, 40.0))
    assert floor.image[10, 20] == 255


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image: floor.pgm", "KeyError|resolution"),
        ("image: floor.pgm\nresolution: 0\norigin: [0, 0, 0]", "resolution 0"),
        ("image: floor.pgm\nresolution: 0.05\norigin: [0, 0, 0]", "missing or no picture"),
        ("- a list", "cannot be read"),
    ],
)
def test_map_that_is_none_is_an_error(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "floor.yaml").write_text(text)
    with pytest.raises(SourceError, match=reason) as error:
        read_floor_map(tmp_path / "floor.yaml")
    assert "\n" not in str(error.value)
