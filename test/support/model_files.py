"""Small ONNX detectors made operator by operator, for tests that need no training.

The score is the mean squared difference of the image from a constant grey, a formula that a test
can compute by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
from numpy.typing import NDArray
from onnx import TensorProto, helper

from anomaly_detector.alarms.calibration import score_quantiles
from anomaly_detector.errors import ModelError
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.metadata import METADATA_KEY, Calibration, ModelMetadata
from anomaly_detector.model.normalization import (
    add_normalized_score,
    float32_threshold,
    normalization_scale,
)

GREY = 128.0


def grey_difference_score(image: NDArray[np.uint8]) -> float:
    """Compute the score of one uint8 [64, 64, 3] image with numpy."""
    return float(np.mean((image.astype(np.float64) - GREY) ** 2))


def write_calibrated_model(path: Path, normal: Sequence[NDArray[np.uint8]]) -> Path:
    """Write a detector with the score quantiles of normal pictures, uint8 [64, 64, 3] each."""
    scores = np.array([grey_difference_score(picture) for picture in normal], np.float32)
    calibration = Calibration("split-conformal", quantiles=score_quantiles(scores))
    write_grey_difference_model(path)
    metadata = replace(read_metadata(path), calibration=calibration)
    return write_grey_difference_model(path, metadata=metadata.to_json())


def write_grey_difference_model(
    path: Path,
    *,
    threshold: float = 1000.0,
    name: str = "grey_difference",
    metadata: str | None = None,
    with_metadata: bool = True,
    input_size: int = 64,
    input_height: int | None = None,
    score_output: str = "score",
    slow_steps: int = 0,
) -> Path:
    """Write a detector; the options make it deliberately wrong in one point.

    ``slow_steps`` makes loading slow: so many products of large constant matrices, which ONNX
    Runtime computes while it optimises the graph; about 0.1 s each.
    """
    input_height = input_size if input_height is None else input_height
    fast_score, slow = score_output, ""
    if slow_steps:
        fast_score = "fast_score"
        products = "\n".join(f"m{i + 1} = MatMul (m{i}, m{i})" for i in range(slow_steps))
        slow = f"""
            m0 = ConstantOfShape (shape)
            {products}
            zero = ReduceMean <keepdims = 0> (m{slow_steps})
            {score_output} = Add (fast_score, zero)"""
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 18]>
        detector (uint8[N, {input_height}, {input_size}, 3] image)
            => (float[N] {score_output}, float[N, {input_height}, {input_size}] anomaly_map)
        <float grey = {{{GREY}}}, int64[1] channel_axis = {{3}}, int64[2] pixel_axes = {{1, 2}},
         int64[2] shape = {{1500, 1500}}>
        {{
            pixels = Cast <to = {TensorProto.FLOAT}> (image)
            difference = Sub (pixels, grey)
            squared = Mul (difference, difference)
            anomaly_map = ReduceMean <keepdims = 0> (squared, channel_axis)
            {fast_score} = ReduceMean <keepdims = 0> (anomaly_map, pixel_axes)
            {slow}
        }}""")
    own = ModelMetadata(
        name=name,
        architecture="grey",
        scorer="reconstruction",
        score_units="squared grey levels (0..255)",
        threshold=threshold,
        calibration=Calibration("fixed"),
        input_size=input_size,
        # As training gives it for the mean of squared errors.
        map_scale=MapScale(2 * threshold, 8 * threshold, 5, follows_threshold=True)
        if threshold > 0
        else MapScale(0.0, None),
    )
    text = own.to_json() if metadata is None else metadata
    try:
        used = ModelMetadata.from_json(text, str(path))
    except ModelError:  # deliberately wrong
        used = own
    if score_output == "score":
        add_normalized_score(model, float32_threshold(used.threshold), normalization_scale(used))
    if with_metadata:
        helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, path)
    return path
