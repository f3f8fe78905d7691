"""The plan of the review page in a real browser: events lie on the floor map where they should."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from black_box_frames import Drive, open_box, wait_until
from browser import chromium
from conftest import START_NS
from review_server import review_server

from anomaly_detector.black_box import Verdict, find_events, read_event, write_verdict
from anomaly_detector.black_box.plan import read_floor_map
from anomaly_detector.poses import Place, Pose

_CENTRES = """
const image = document.querySelector('.plan image');
const local = arguments[0].map(([x, y]) => {
  const point = new DOMPoint(x, y).matrixTransform(image.getScreenCTM());
  return [point.x, point.y];
});
const dots = Array.from(document.querySelectorAll('.plan circle'), dot => {
  const box = dot.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
});
return [local, dots];
"""
"""Where points of the map's picture are on the screen, and where the events are."""


def test_events_lie_on_the_floor_map_and_open_with_a_click(tmp_path: Path) -> None:
    pytest.importorskip("selenium", reason="selenium is not installed")

    def placed(stamp_ns: int) -> Place:
        metres = (stamp_ns - START_NS) / 1e9
        return Place(Pose(stamp_ns, "map", metres, metres / 2, 0.0, 0.0), 0.0)

    with open_box(tmp_path / "box") as box:
        drive = Drive(box, place=placed)
        for _ in range(3):
            drive.normal(3.0)
            drive.anomaly(0.2)
    events = {path.name: read_event(path) for path in find_events(tmp_path / "box")}
    write_verdict(next(iter(events.values())).path, Verdict("anomaly"))
    cv2.imwrite(str(tmp_path / "floor.pgm"), np.full((120, 200), 254, np.uint8))
    floor_file = tmp_path / "floor.yaml"
    floor_file.write_text("image: floor.pgm\nresolution: 0.1\norigin: [-2.0, -3.0, 0.3]\n")
    floor = read_floor_map(floor_file)
    with (
        review_server([tmp_path / "box"], "--map", str(floor_file)) as server,
        chromium(tmp_path / "profile") as page,
    ):
        page.get(f"{server.url}#/plan")
        wait_until(lambda: len(page.find_elements("css selector", ".plan circle")) == 3)
        kinds = [
            dot.get_attribute("class") for dot in page.find_elements("css selector", ".plan circle")
        ]
        assert sorted(kinds) == ["anomaly", "unreviewed", "unreviewed"]
        assert "3 of 3 events have a place in frame map" in page.page_source
        assert len(page.find_elements("css selector", ".plan polyline")) == 1
        # Each dot is on the pixel of the map that its pose is in.
        wanted = []
        height = floor.image.shape[0]
        for event in server.events().values():
            pose = events[event["name"]].place.pose  # type: ignore[union-attr]
            assert pose is not None
            column, row = floor.pixel(pose.x, pose.y)
            wanted.append([column * floor.resolution, (row - height) * floor.resolution])
        local, dots = page.execute_script(_CENTRES, wanted)
        np.testing.assert_allclose(sorted(dots), sorted(local), atol=1.0)
        page.execute_script(
            "document.querySelector('.plan circle.anomaly').dispatchEvent(new Event('click'))"
        )
        wait_until(lambda: "#/events/" in page.current_url)
        wait_until(lambda: bool(page.find_elements("css selector", ".facts")))
        assert "map 3." in page.find_element("css selector", ".facts").text
