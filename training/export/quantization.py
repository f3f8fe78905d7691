"""int8 networks; half precision is TensorRT's own (``fp16``).

Between the first and the last convolution or matrix product the numbers get smaller; what makes the
pixels floats and the score out of the network's output stays float32, and so do input and outputs.
It is static quantisation in the QDQ form: standard operators, weights per channel, ranges of values
from frames like those of the training (Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference"). On a CPU int8 may be faster.

Ranges from normal frames alone would cut off just what an anomaly stands out by: of the shipped
model, every anomaly then got one and the same score, below its float32 threshold. So extreme frames
go into the ranges too (:func:`range_images`). Rounded weights shift what a layer gives, and shifts
add up from layer to layer, so the biases are corrected (:func:`correct_biases`). What an int8
network still sees is measured by :mod:`training.evaluation.precision`.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.masking import is_of_mask
from anomaly_detector.model.session import session_options
from anomaly_detector.ordered_pool import usable_cores

MAX_RANGE_FRAMES = 256
"""Frames that the ranges of values for int8 come from; more change nothing."""

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What stands between them: each of these in float32 costs two conversions, and a convolution whose
# ReLU6 is not part of it gets the range of values before the cut, which is far wider.
_BETWEEN = ("Add", "Clip", "Concat", "Relu", "Resize")
_BATCH = 16
_CORRECTION_FRAMES = 64


def core_nodes(graph: Any) -> list[str]:
    """Name the nodes between the first and the last convolution or matrix product.

    These are the nodes that have, or are, such an operator both before and behind them. A mask's
    own product does not count.

    Args:
        graph: ``onnx.GraphProto`` in topological order, whose nodes have names.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    inputs = [[makers[name] for name in node.input if name in makers] for node in graph.node]
    heavy = [node.op_type in _HEAVY and not is_of_mask(node) for node in graph.node]
    before = list(heavy)
    for index, sources in enumerate(inputs):
        before[index] = heavy[index] or any(before[source] for source in sources)
    behind = list(heavy)
    for index in reversed(range(len(inputs))):
        if behind[index]:
            for source in inputs[index]:
                behind[source] = True
    return [
        node.name
        for node, first, last in zip(graph.node, before, behind, strict=True)
        if first and last
    ]


def to_int8(model: Any, images: NDArray[np.uint8]) -> Any:
    """Return a copy of a float32 model with a quantised network.

    Args:
        model: ``onnx.ModelProto`` of a detector.
        images: uint8 [N, H, W, 3], frames like those of the training, for :func:`range_images`.

    Raises:
        AnomalyDetectorError: the model has no convolution or matrix product.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    named, core = _named(model)
    chosen = range_images(images)

    batches = iter([chosen[i : i + _BATCH] for i in range(0, len(chosen), _BATCH)])

    class Frames(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(batches, None)
            return None if batch is None else {"image": batch}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            named,
            path,
            Frames(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_HEAVY, *_BETWEEN],
            per_channel=True,
            # Seven bits of weights: processors without VNNI add eight times eight bits in sixteen.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=core,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantised = onnx.load(path)
    quantised.ir_version = model.ir_version
    del quantised.metadata_props[:]
    correct_biases(model, quantised, images[spread(len(images), _CORRECTION_FRAMES)])
    return quantised


def correct_biases(model: Any, quantised: Any, images: NDArray[np.uint8]) -> None:
    """Correct the biases so that each convolution's channels keep their float32 means, in place.

    From front to back: the shifts of earlier layers change what later ones get (Nagel et al. 2019,
    "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721).

    Args:
        model: ``onnx.ModelProto`` in float32.
        quantised: its copy in int8.
        images: uint8 [N, H, W, 3], normal frames.
    """
    import onnx

    makers = {name: node for node in model.graph.node for name in node.output}
    dequantising = {
        node.output[0]: node for node in quantised.graph.node if node.op_type == "DequantizeLinear"
    }
    constants = {item.name: item for item in quantised.graph.initializer}
    convolutions = [
        node
        for node in quantised.graph.node
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in dequantising
    ]
    outputs = [node.output[0] for node in convolutions]
    # A ReLU became part of the convolution before it, which then has the name of its output.
    before = [
        makers[name].input[0] if makers[name].op_type in ("Clip", "Relu") else name
        for name in outputs
    ]
    for node, name, wanted in zip(
        convolutions, outputs, _channel_means(model, before, images), strict=True
    ):
        (mean,) = _channel_means(quantised, [name], images)
        bias, scale = (constants[tensor] for tensor in dequantising[node.input[2]].input[:2])
        steps = np.round((wanted - mean) / onnx.numpy_helper.to_array(scale))
        corrected = (onnx.numpy_helper.to_array(bias) + steps).astype(np.int32)
        bias.CopyFrom(onnx.numpy_helper.from_array(corrected, bias.name))


def _channel_means(
    model: Any, tensors: list[str], images: NDArray[np.uint8]
) -> list[NDArray[np.float64]]:
    """Return the mean of each channel of tensors [N, C, H, W] of a graph, float64 [C] each."""
    import onnx
    import onnxruntime

    if not tensors:
        return []
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    kind = onnx.TensorProto.FLOAT
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, kind, None) for name in tensors
    )
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(),
        session_options(usable_cores()),
        providers=["CPUExecutionProvider"],
    )
    sums = [
        [
            values.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
            for values in session.run(tensors, {"image": part})
        ]
        for part in np.array_split(images, range(_BATCH, len(images), _BATCH))
    ]
    return [np.sum(parts, axis=0) / len(images) for parts in zip(*sums, strict=True)]


def range_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the frames that int8 takes its ranges of values from.

    Args:
        images: uint8 [N, H, W, 3]; at most :data:`MAX_RANGE_FRAMES` evenly spread ones are used.

    Returns:
        These, some of them inverted, frames of one colour, and noise.
    """
    chosen = images[spread(len(images), MAX_RANGE_FRAMES)]
    inverted = 255 - images[spread(len(images), 16)]
    colours = [[level] * 3 for level in range(0, 256, 51)]
    colours += [[255 * (index >> bit & 1) for bit in range(3)] for index in range(1, 7)]
    flat = np.empty((len(colours), *images.shape[1:]), np.uint8)
    flat[:] = np.array(colours, np.uint8)[:, np.newaxis, np.newaxis]
    noise = np.random.default_rng(0).integers(0, 256, (4, *images.shape[1:]), np.uint8)
    return np.concatenate([chosen, inverted, flat, noise])


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Return at most ``wanted`` numbers below ``count``, evenly spread, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))


def _named(model: Any) -> tuple[Any, list[str]]:
    """Copy a model, give every node a name of its own, and name those of its network."""
    copy = type(model)()
    copy.CopyFrom(model)
    seen: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
    core = core_nodes(copy.graph)
    if not core:
        raise AnomalyDetectorError(
            "the network has no convolution or matrix product, so int8 gains nothing: "
            "leave --precision out"
        )
    return copy, core


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's tools from telling each node; their errors still come through."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
