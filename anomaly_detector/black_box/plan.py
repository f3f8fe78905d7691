"""Recorded events on a plan: the path driven, the places of the events, and the floor map."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.black_box.events import RecordedEvent
from anomaly_detector.errors import SourceError, as_one_line
from anomaly_detector.poses import Pose

_GAP_NS = 10_000_000_000
"""Poses further apart in time are not joined: where the robot was meanwhile, nobody recorded."""


@dataclass
class Plan:
    """What is known in one frame of reference.

    Attributes:
        frame_id: its name.
        paths: stretches of the path driven, poses in the order of their stamps.
        events: place of each event's peak by the event's folder; events without are left out.
    """

    frame_id: str
    paths: list[list[Pose]] = field(default_factory=list)
    events: dict[Path, Pose] = field(default_factory=dict)


def make_plans(events: Iterable[RecordedEvent]) -> list[Plan]:
    """Return a plan for each frame of reference, that with the most events first.

    Poses of different frames are not comparable, and nothing here says how they lie to each other.
    """
    plans: dict[str, Plan] = {}
    # Each folder, as each robot, has a path of its own.
    driven: dict[tuple[str, Path], set[Pose]] = defaultdict(set)
    for event in events:
        for place in (event.place, *(frame.place for frame in event.frames)):
            if place is not None and place.pose is not None:
                plans.setdefault(place.pose.frame_id, Plan(place.pose.frame_id))
                driven[place.pose.frame_id, event.path.parent].add(place.pose)
        if event.place is not None and event.place.pose is not None:
            plans[event.place.pose.frame_id].events[event.path] = event.place.pose
    for (frame_id, _), found in driven.items():
        poses = sorted(found, key=lambda pose: pose.stamp_ns)
        cuts = [i + 1 for i, (a, b) in enumerate(pairwise(poses)) if _is_apart(a, b)]
        stretches = pairwise([0, *cuts, len(poses)])
        plans[frame_id].paths += [poses[start:end] for start, end in stretches]
    return sorted(plans.values(), key=lambda plan: -len(plan.events))


def _is_apart(first: Pose, second: Pose) -> bool:
    return second.stamp_ns - first.stamp_ns > _GAP_NS


@dataclass(frozen=True)
class FloorMap:
    """A map of ``map_server``.

    Attributes:
        image: uint8 [H, W], free space bright and walls dark.
        resolution: metres a pixel.
        origin: x, y and yaw of the lower left corner of the image in the map's frame.
    """

    image: NDArray[np.uint8]
    resolution: float
    origin: tuple[float, float, float]

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return column and row in the image of a point in the map's frame, metres."""
        dx, dy = x - self.origin[0], y - self.origin[1]
        cos, sin = math.cos(self.origin[2]), math.sin(self.origin[2])
        column = (dx * cos + dy * sin) / self.resolution
        return column, self.image.shape[0] - (dy * cos - dx * sin) / self.resolution


def read_floor_map(path: Path) -> FloorMap:
    """Read the yaml file of a ROS map, and the pgm or png file that it names.

    Raises:
        SourceError: one of them is missing or damaged.
    """
    # Imported here: the node reads no maps.
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it has no names")
        file = path.parent / str(content["image"])
        resolution = float(content["resolution"])
        x, y, *yaw = (float(value) for value in content["origin"])
        numbers = resolution, x, y, *yaw
        if not (resolution > 0.0 and len(yaw) <= 1 and all(map(math.isfinite, numbers))):
            raise ValueError(f"resolution {resolution:g} or origin is not as in a map")
        negate = bool(int(content.get("negate", 0)))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, yaml.YAMLError) as error:
        raise SourceError(
            f"map {path} cannot be read ({as_one_line(error)}): give the yaml file that map_saver "
            "writes"
        ) from error
    data = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if data is None:
        raise SourceError(
            f"map {path} names the image {file}, which is missing or no picture: copy it there"
        )
    image = np.asarray(255 - data if negate else data, np.uint8)
    return FloorMap(image, resolution, (x, y, yaw[0] if yaw else 0.0))
