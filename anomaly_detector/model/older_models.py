"""What model files from before ``score_maximum`` and ``map_scale`` do not say of their scorer.

This is the one place of the robot side that knows scorers by name. Newer files say these things
themselves, so a new scorer adds nothing here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.normalization import normalization_scale

if TYPE_CHECKING:
    from anomaly_detector.model.metadata import ModelMetadata


def completed(metadata: ModelMetadata) -> ModelMetadata:
    """Return the metadata of an older file with what the training of its time knew."""
    if metadata.scorer == "mlp":
        return replace(metadata, score_maximum=1.0)
    threshold = metadata.threshold
    if metadata.scorer.startswith("reconstruction") and threshold > 0:
        low = threshold if metadata.scorer.endswith("q99") else 2.0 * threshold
        return replace(metadata, map_scale=MapScale(low, 4.0 * low, 5, follows_threshold=True))
    if metadata.scorer == "outlier-exposure":
        scale = float(normalization_scale(metadata))
        low, high = np.logaddexp(0.0, [threshold, threshold + scale])
        limits = MapScale(min(0.5 * float(low), math.log(2.0)), min(float(high), math.log(20.0)))
        return replace(metadata, map_scale=limits)
    return metadata
