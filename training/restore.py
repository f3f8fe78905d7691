"""An encoder back from the exported model, so that a new scorer can be put on its codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import ModelError
from anomaly_detector.preprocessing import INPUT_SIZE
from training.architectures import ARCHITECTURES, Autoencoder, build_autoencoder
from training.codes import CodeModel

__all__ = ["restore_encoder"]

_MAX_RELATIVE_DIFFERENCE = 1e-3


def restore_encoder(path: str | Path) -> Autoencoder:
    """Build the autoencoder of a model file with the file's encoder.

    The file of a classifier or a flow holds no decoder: that of the result is untrained, and only
    scorers on codes can use it. The weights are read from the ONNX graph in the order of its
    operators, and the restored encoder is compared with the file's on noise.

    Args:
        path: a file written by ``python -m training train``.

    Raises:
        ModelError: no usable detector, no code in it, an unknown architecture, or weights that do
            not fit it.
    """
    model = CodeModel(path)
    architecture = model.model["architecture"]
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"model {path} is of architecture {architecture!r}, which this version cannot build: "
            f"it knows {', '.join(ARCHITECTURES)}"
        )
    autoencoder = build_autoencoder(architecture)
    layers = [layer for layer in autoencoder.encoder.layers if hasattr(layer, "kernel")]
    found = _kernels(path)
    shapes = [kernel.array.shape for kernel in found]
    if shapes != [tuple(layer.kernel.shape) for layer in layers]:
        raise ModelError(
            f"model {path}: the kernels of its encoder are {shapes}, not those of architecture "
            f"{architecture!r}: it was trained with another version, train it again"
        )
    for layer, kernel in zip(layers, found, strict=True):
        layer.kernel.assign(kernel.array)
        # A bias of zeros is left out of the file.
        layer.bias.assign(np.zeros(layer.bias.shape) if kernel.bias is None else kernel.bias)
    noise = np.random.default_rng(0).integers(0, 256, (4, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    expected = model.encode(noise)
    got = np.asarray(autoencoder.encoder(noise.astype(np.float32), training=False))
    difference = float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-6))
    if not difference <= _MAX_RELATIVE_DIFFERENCE:
        raise ModelError(
            f"model {path}: the encoder restored from it gives other codes ({difference:.2g} "
            f"relative): architecture {architecture!r} has changed since, train it again"
        )
    return autoencoder


@dataclass
class _Kernel:
    """A layer's weights, in Keras' order of axes."""

    array: NDArray[np.float32]
    bias: NDArray[np.float32] | None = None
    outputs: set[str] = field(default_factory=set)


def _kernels(path: str | Path) -> list[_Kernel]:
    """Give the weights on the way from the image to the code, in order."""
    import onnx

    graph = onnx.load(path).graph
    wanted, nodes = {"code"}, []
    # ONNX keeps operators in an order in which each comes after those it needs.
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            nodes.append(node)
    constants: dict[str, Any] = {
        item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer
    }
    kernels: list[_Kernel] = []
    for node in reversed(nodes):
        given = [constants[name] for name in node.input if name in constants]
        if node.op_type == "Conv" and given:
            kernels.append(_Kernel(given[0].transpose(2, 3, 1, 0), *given[1:]))
        elif node.op_type in ("MatMul", "Gemm") and given:
            kernels.append(_Kernel(given[0], *given[1:]))
        elif node.op_type == "Add" and kernels and given and set(node.input) & kernels[-1].outputs:
            kernels[-1].bias = given[0].reshape(-1)
            continue
        else:
            continue
        kernels[-1].outputs.update(node.output)
    return kernels
