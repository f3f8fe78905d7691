"""Small ONNX detectors made operator by operator, for tests that need no training.

The score is the mean squared difference of the image from a constant grey, a formula that a test
can compute by itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from anomaly_detector.errors import ModelError
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


def write_grey_difference_model(
    path: Path,
    *,
    threshold: float = 1000.0,
    name: str = "grey_difference",
    metadata: str | None = None,
    with_metadata: bool = True,
    input_height: int = 64,
    score_output: str = "score",
    slow_steps: int = 0,
) -> Path:
    """Write a detector; the options make it deliberately wrong in one point.

    ``slow_steps`` makes loading slow: so many products of large constant matrices, which ONNX
    Runtime computes while it optimises the graph; about 0.1 s each.
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "grey"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["squared"]),
        helper.make_node("ReduceMean", ["squared", "channel_axis"], ["anomaly_map"], keepdims=0),
        helper.make_node("ReduceMean", ["anomaly_map", "pixel_axes"], [score_output], keepdims=0),
    ]
    if slow_steps:
        nodes[-1].output[0] = "fast_score"
        nodes += [
            helper.make_node("ConstantOfShape", ["slow_shape"], ["slow_0"]),
            *(
                helper.make_node("MatMul", [f"slow_{step}"] * 2, [f"slow_{step + 1}"])
                for step in range(slow_steps)
            ),
            helper.make_node("ReduceMean", [f"slow_{slow_steps}"], ["zero"], keepdims=0),
            helper.make_node("Add", ["fast_score", "zero"], [score_output]),
        ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", input_height, 64, 3])],
        [
            helper.make_tensor_value_info(score_output, TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info(
                "anomaly_map", TensorProto.FLOAT, ["N", input_height, 64]
            ),
        ],
        [
            numpy_helper.from_array(np.array(GREY, np.float32), "grey"),
            numpy_helper.from_array(np.array([3], np.int64), "channel_axis"),
            numpy_helper.from_array(np.array([1, 2], np.int64), "pixel_axes"),
            *(
                [numpy_helper.from_array(np.array([1500, 1500], np.int64), "slow_shape")]
                if slow_steps
                else []
            ),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    own = ModelMetadata(
        name=name,
        architecture="grey",
        scorer="reconstruction",
        score_units="squared grey levels (0..255)",
        threshold=threshold,
        calibration=Calibration("fixed"),
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
