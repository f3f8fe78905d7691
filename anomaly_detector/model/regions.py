"""Boxes around what the anomaly map points at, in pixels of the camera's frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from anomaly_detector.model.detector import Detection

HOT = 0.25
"""A cell is hot from this share of the map's scale on (:class:`MapScale
<anomaly_detector.model.map_scale.MapScale>`), where the overlay draws its outline. Where heat
starts, boxes take in the surroundings; where it is full, they cut things off:
``python -m benchmarks.regions`` compares."""


@dataclass(frozen=True)
class AnomalyRegion:
    """One connected hot region of an anomaly map, as a box in the camera's frame.

    Example:
        >>> box = AnomalyRegion(x=40, y=30, width=20, height=10, score=0.8)
        >>> np.zeros((480, 640))[box.rows, box.columns].shape
        (10, 20)

    Attributes:
        x: first column, pixels.
        y: first row.
        width: number of columns.
        height: number of rows.
        score: in [0, 1]: that of the hottest region is the frame's normalised score, that of
            another is less by the share of its heat.
    """

    x: int
    y: int
    width: int
    height: int
    score: float

    @property
    def rows(self) -> slice:
        """The rows of an array that shows the whole frame."""
        return slice(self.y, self.y + self.height)

    @property
    def columns(self) -> slice:
        """The columns likewise."""
        return slice(self.x, self.x + self.width)

    @property
    def center(self) -> tuple[float, float]:
        """Its middle in pixels, where 0, 0 is the upper left corner of the first one."""
        return self.x + self.width / 2, self.y + self.height / 2


def anomaly_regions(detection: Detection, *, hot: float = HOT) -> list[AnomalyRegion]:
    """Return a box around each connected hot region of an anomalous frame, the hottest first.

    Example:
        >>> result = Detector("corridor").detect(np.zeros((480, 640), np.uint8))
        >>> all(0 < box.score <= result.normalized_score for box in anomaly_regions(result))
        True

    The frame's score says whether there is an anomaly, the map only where. So there is none in a
    frame that is not anomalous; none where the score comes from the frame as a whole, with no hot
    cell; and none of maps that have no unit, which point at the evidence less well.

    Args:
        detection: a result; ``extent`` says where in the camera's frame its map lies.
        hot: heat from which a cell belongs to a region, above 0 up to 1.
    """
    if not detection.is_anomaly or detection.map_scale.high is None:
        return []
    heat = detection.map_scale.strength(detection.anomaly_map)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((heat >= hot).astype(np.uint8))
    extent = detection.extent
    rows, columns = heat.shape
    # Of a result that was made by hand, the map is the frame.
    across, down = (extent.width or columns) / columns, (extent.height or rows) / rows
    regions = []
    for label, (column, row, width, height, _) in enumerate(boxes.tolist()):
        if label == 0:  # the background
            continue
        inside = np.s_[row : row + height, column : column + width]
        share = float(heat[inside][labels[inside] == label].max()) / float(heat.max())
        left, top = math.floor(column * across), math.floor(row * down)
        regions.append(
            AnomalyRegion(
                extent.x + left,
                extent.y + top,
                math.ceil((column + width) * across) - left,
                math.ceil((row + height) * down) - top,
                detection.normalized_score * share,
            )
        )
    return sorted(regions, key=lambda region: -region.score)
