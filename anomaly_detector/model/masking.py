"""Puts a mask into a model's graph, so that nobody who runs the model can forget it.

The network sees under the mask what lies around it (:class:`anomaly_detector.images.mask.Mask`), so
what the camera shows there cannot reach the score, whatever the scorer and however far its layers
see. And the evidence that the network still finds there counts for nothing: the cells of the map
are 0, and so they are where the map becomes the score. Needs the package ``onnx``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import ModelError
from anomaly_detector.images.mask import Mask
from anomaly_detector.model.normalization import import_onnx

_PREFIX = "mask/"
_EDGE, _WEIGHTS, _SOURCES, _CELLS = (
    f"{_PREFIX}{name}" for name in ("edge", "weights", "sources", "cells")
)

_NOTHING = -1e4
"""Log-odds or error of a cell that is never among the highest; half precision has it too."""

_CELL_BY_CELL = frozenset(
    ("Max", "Min", "Add", "Sub", "Mul", "Div", "Abs", "Neg", "Exp", "Log", "Relu", "Softplus")
)
_SHAPING = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten"})
_JOINING = {"ReduceMean": 0.0, "ReduceSum": 0.0, "ReduceMax": _NOTHING, "TopK": _NOTHING}
"""Operators that make a number out of all cells, and what a cell is that adds nothing."""


def add_mask(model: Any, mask: Mask, source: str) -> None:
    """Put a mask into an ``onnx.ModelProto``, in place, or another one in its place.

    Args:
        model: of a detector.
        mask: of the size of its input.
        source: the model, for errors.

    Raises:
        ModelError: how the score comes from the map is not known; nothing is changed.
        AnomalyDetectorError: the package onnx is missing.
    """
    onnx = import_onnx()
    graph = model.graph
    # A pixel of the input, or one of those that are computed, which come behind all of these.
    sources = np.arange(mask.ignored.size)
    sources[mask.ignored.ravel()] = mask.ignored.size + np.arange(mask.ignored.sum())
    constants = {
        _EDGE: np.flatnonzero(mask.edge),
        _WEIGHTS: mask.weights,
        _SOURCES: sources,
        _CELLS: ~mask.cells(*_map_size(model))[np.newaxis],
    }
    old = [item for item in graph.initializer if item.name in constants]
    if not old:
        _insert(onnx, graph, len(mask.ignored), source)
    for item in old:
        graph.initializer.remove(item)
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))


def is_of_mask(node: Any) -> bool:
    """Return whether a node of a graph was put there by :func:`add_mask`."""
    return str(node.name).startswith(_PREFIX)


def mask_cells(model: Any) -> NDArray[np.bool_] | None:
    """Return the cells of the map, bool [H, W], that the mask in a model leaves; None for all."""
    onnx = import_onnx()
    for item in model.graph.initializer:
        if item.name == _CELLS:
            cells: NDArray[np.bool_] = onnx.numpy_helper.to_array(item)[0]
            return cells
    return None


def _map_size(model: Any) -> tuple[int, int]:
    """Return rows and columns of the map."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    size = session.get_inputs()[0].shape[1]
    image: NDArray[np.uint8] = np.zeros((1, size, size, 3), np.uint8)
    rows, columns = session.run(["anomaly_map"], {"image": image})[0].shape[1:]
    return rows, columns


def _insert(onnx: Any, graph: Any, size: int, source: str) -> None:
    casts = [node for node in graph.node if "image" in node.input]
    try:
        joining = list(_joining(graph))
        if not all(node.op_type == "Cast" for node in casts):
            raise ValueError("what its input becomes")
    except ValueError as error:
        raise ModelError(
            f"model {source}: {error} is not known, so no mask can be put into it: leave the mask "
            "out"
        ) from error
    nodes = list(graph.node)

    def place(index: int, operator: str, inputs: list[str], output: str, **more: int) -> None:
        made = onnx.helper.make_node(operator, inputs, [output], name=f"{output}_node", **more)
        nodes.insert(index, made)

    def constant(name: str, value: Any) -> str:
        tensor = onnx.numpy_helper.from_array(np.array(value), f"{_PREFIX}{name}")
        graph.initializer.append(tensor)
        return str(tensor.name)

    row = constant("row", np.array([0, size * size, 3], np.int64))
    square = constant("square", np.array([0, size, size, 3], np.int64))
    for number, node in enumerate(casts):
        seen, index = node.output[0], nodes.index(node)
        camera, pixels, edge, mean, inside, both, chosen = (
            f"{_PREFIX}{name}_{number}"
            for name in ("camera", "pixels", "edge", "mean", "inside", "both", "chosen")
        )
        node.output[0] = camera
        for step, (operator, inputs, output, more) in enumerate(
            (
                ("Reshape", [camera, row], pixels, {}),
                ("Gather", [pixels, _EDGE], edge, {"axis": 1}),
                ("MatMul", [_WEIGHTS, edge], mean, {}),
                ("Round", [mean], inside, {}),
                ("Concat", [pixels, inside], both, {"axis": 1}),
                ("Gather", [both, _SOURCES], chosen, {"axis": 1}),
                ("Reshape", [chosen, square], seen, {}),
            ),
            start=index + 1,
        ):
            place(step, operator, inputs, output, **more)
    whole = f"{_PREFIX}whole_map"
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == "anomaly_map":
                    names[index] = whole
    for number, (node, is_flat) in enumerate(joining):
        cells, kept = _CELLS, f"{_PREFIX}evidence_{number}"
        if is_flat:
            cells = f"{_PREFIX}flat_cells_{number}"
            flat = constant(f"flat_{number}", np.array([1, -1], np.int64))
            place(nodes.index(node), "Reshape", [_CELLS, flat], cells)
        least = constant(f"nothing_{number}", np.float32(_JOINING[node.op_type]))
        place(nodes.index(node), "Where", [cells, node.input[0], least], kept)
        node.input[0] = kept
    zero = constant("zero", np.float32(0))
    place(len(nodes), "Where", [_CELLS, whole, zero], "anomaly_map")
    nodes = copy.deepcopy(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def _joining(graph: Any) -> Iterator[tuple[Any, bool]]:
    """Yield the nodes by which the map becomes the score, and whether they see the cells in a row.

    Raises:
        ValueError: one is of another kind.
    """
    makers = {name: node for node in graph.node for name in node.output}
    of_score = _before("score", makers)
    # The map, and what it is made of cell by cell.
    of_map, waiting = set(), ["anomaly_map"]
    while waiting:
        name = waiting.pop()
        if name in makers and name not in of_map:
            of_map.add(name)
            node = makers[name]
            if node.op_type in _SHAPING:
                waiting.append(node.input[0])
            elif node.op_type in _CELL_BY_CELL:
                waiting += node.input
    ahead = [(name, False) for name in of_map]
    while ahead:
        name, is_flat = ahead.pop()
        for node in graph.node:
            if name not in node.input or not of_score.intersection(node.output):
                continue
            if node.op_type in _JOINING and name == node.input[0]:
                yield node, is_flat
            elif node.op_type in _SHAPING and not of_map.intersection(node.output):
                ahead.append((node.output[0], is_flat or node.op_type in ("Reshape", "Flatten")))
            elif not of_map.intersection(node.output):
                raise ValueError("how its score comes from its map")


def _before(name: str, makers: dict[str, Any]) -> set[str]:
    """Return the tensors that one is made of, itself included."""
    found, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name in makers and name not in found:
            found.add(name)
            waiting += makers[name].input
    return found
