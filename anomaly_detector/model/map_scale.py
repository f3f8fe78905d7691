"""Which values of an anomaly map are shown as heat."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError


@dataclass(frozen=True)
class MapScale:
    """Which values of an anomaly map are shown: the same for all frames of a model.

    Attributes:
        low: cells up to this value stay clear, in the units of the map.
        high: cells from this value on get the full heat; None for maps that have no unit of
            their own, where it is the frame's highest cell.
        window: cells are first averaged over a square of this many of them, an odd number.
        follows_threshold: the map is in the units of the score, so that another threshold moves
            both ends in proportion.

    Raises:
        AnomalyDetectorError: ends that are no range, or a window that is not odd.
    """

    low: float
    high: float | None
    window: int = 1
    follows_threshold: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.low) or not (
            self.high is None or (math.isfinite(self.high) and self.high > self.low)
        ):
            raise AnomalyDetectorError(
                f"map scale from {self.low} to {self.high}: give two finite numbers, the smaller "
                "one first"
            )
        if self.window < 1 or self.window % 2 == 0:
            raise AnomalyDetectorError(f"map scale with window {self.window}: give an odd number")

    def at(self, threshold: float, own: float) -> MapScale:
        """Return the scale for another threshold than the model's own."""
        if not (self.follows_threshold and own > 0 and 0 < threshold < 1e30 * own):
            return self
        factor = threshold / own
        high = None if self.high is None else self.high * factor
        return replace(self, low=self.low * factor, high=high)

    def strength(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the heat of each cell, float32 [H, W] in [0, 1]; 0 for cells that are NaN."""
        cells = np.nan_to_num(np.ascontiguousarray(anomaly_map, np.float32), nan=self.low)
        if self.window > 1:
            cells = np.asarray(cv2.blur(cells, (self.window, self.window)), np.float32)
        high = self.high
        if high is None:
            high = max(float(cells.max(initial=self.low)), self.low + 1e-6)
        strength: NDArray[np.float32] = np.clip((cells - self.low) / (high - self.low), 0.0, 1.0)
        return strength
