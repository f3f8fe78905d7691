"""The decoder of a model file: finds its layers in the graph, and computes what goes into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import ModelError, as_one_line
from anomaly_detector.model.masking import is_of_mask, mask_cells
from anomaly_detector.model.normalization import import_onnx
from anomaly_detector.model.session import session_options
from anomaly_detector.ordered_pool import usable_cores
from training.adaptation.decoder import LEVELS, Array, Weights, answers, score
from training.scorers.outlier_exposure.batches import EXPOSURE_BATCH

_MOST_DIFFERENCE = 1e-3


class Decoder:
    """Decoder and heads of a detector file.

    Args:
        path: the model file.

    Attributes:
        weights: name to float32 array, as in the file.
        kept: bool [R, C], the cells that the model's mask leaves; None for all.

    Raises:
        ModelError: the file's graph does not end in such a decoder.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        onnx = import_onnx()
        proto = onnx.load_model_from_string(path.read_bytes())
        try:
            graph = _Graph(proto.graph)
            self._tensors, inputs = graph.find_layers()
            self.kept = mask_cells(proto)
            self._arrays = {name: graph.constant(tensor) for name, tensor in self._tensors.items()}
            self.weights: Weights = {
                name: np.ascontiguousarray(_as_kernel(array).astype(np.float32))
                for name, array in self._arrays.items()
            }
            outputs = [*inputs, "score"]
            del proto.graph.output[:]
            for name in outputs:
                kind = onnx.TensorProto.FLOAT
                proto.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
            self._session = onnxruntime.InferenceSession(
                proto.SerializeToString(),
                session_options(usable_cores()),
                providers=["CPUExecutionProvider"],
            )
            self._outputs = outputs
            self._check(proto.graph.input[0])
        except Exception as error:  # of whatever kind: the graph is another one
            raise ModelError(
                f"model {path} does not end in a decoder that can adapt "
                f"({as_one_line(error)[:200]}): train a model with this version"
            ) from error

    def _check(self, image: Any) -> None:
        """Compare with the file itself."""
        height, width, channels = (item.dim_value for item in image.type.tensor_type.shape.dim[1:])
        noise = np.random.default_rng(0).integers(0, 256, (2, height, width, channels), np.uint8)
        *features, expected = self._session.run(self._outputs, {"image": noise})
        seen = [_channels_last(item) for item in features]
        got = score(*answers(self.weights, seen)[:2], self.kept)
        if not np.allclose(got, expected, _MOST_DIFFERENCE, _MOST_DIFFERENCE):
            raise ValueError(f"its score is {expected[0]:.4g}, not {got[0]:.4g}")

    def features(self, images: NDArray[np.uint8]) -> list[Array]:
        """Return what the encoder sees in frames, uint8 [N, S, S, 3]; float32 arrays."""
        features: list[Array] = self._session.run(self._outputs[:-1], {"image": images})
        return [_channels_last(item) for item in features]

    def scores(self, weights: Weights, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the scores of frames, uint8 [N, S, S, 3], with other weights; float32 [N]."""
        parts = [
            score(*answers(weights, self.features(batch))[:2], self.kept)
            for batch in np.array_split(images, range(EXPOSURE_BATCH, len(images), EXPOSURE_BATCH))
            if len(batch)
        ]
        return np.concatenate([np.zeros(0), *parts]).astype(np.float32)

    def tensors(self, weights: Weights) -> dict[str, NDArray[np.float32]]:
        """Return weights as the file has them: name of a tensor to its array."""
        return {
            tensor: _as_tensor(weights[name], self._arrays[name].shape)
            for name, tensor in self._tensors.items()
        }


class _Graph:
    """Looks up nodes and constants of an ONNX graph."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._nodes = list(graph.node)
        self._producer = {name: node for node in graph.node for name in node.output}
        self._constants = {item.name: item for item in graph.initializer}
        self._array = numpy_helper.to_array

    def constant(self, name: str) -> Array:
        return np.asarray(self._array(self._constants[name]))

    def producer(self, name: str, *kinds: str) -> Any:
        """Return the node that makes a tensor, seen through changes of layout."""
        node = self._producer[name]
        while node.op_type in ("Transpose", "Squeeze"):
            node = self._producer[node.input[0]]
        if node.op_type not in kinds:
            raise ValueError(f"{name} is made by {node.op_type}, not {' or '.join(kinds)}")
        return node

    def find_layers(self) -> tuple[dict[str, str], list[str]]:
        """Return the names of the weights' tensors and of the decoder's inputs, fine to coarse."""
        dense = [node for node in self._nodes if node.op_type == "MatMul" and not is_of_mask(node)]
        tensors: dict[str, str] = {}
        for name, node in zip(("whole", "evidence", "frame"), dense, strict=True):
            bias = self._only_user(node.output[0]).input[1]
            tensors |= {f"{name} kernel": node.input[1], f"{name} bias": bias}

        def add(name: str, node: Any) -> None:
            parts = zip((f"{name} kernel", f"{name} bias"), node.input[1:], strict=False)
            tensors.update(parts)

        (to_map,) = (
            node for node in self._nodes
            if node.op_type == "Reshape" and "/map" in node.output[0]
        )  # fmt: skip
        convolution = self.producer(to_map.input[0], "Conv")
        add("map", convolution)
        inputs = []
        for level in reversed(LEVELS):
            relu = self.producer(convolution.input[0], "Relu")
            merged = self.producer(relu.input[0], "Conv")
            add(f"{level} merge", merged)
            enlarged, skip = self.producer(merged.input[0], "Add").input
            resize = self.producer(enlarged, "Resize")
            convolution = self.producer(resize.input[0], "Conv")
            add(f"{level} coarse", convolution)
            inputs.append(skip)
        relu = self.producer(convolution.input[0], "Relu")
        sixteenth = self.producer(relu.input[0], "Conv")
        add("sixteenth", sixteenth)
        if sixteenth.input[0] != inputs[-1]:
            raise ValueError("its coarsest features have another source")
        roll_mean = self.producer(dense[1].input[0], "Concat").input[1]
        roll = self.producer(self.producer(roll_mean, "GlobalAveragePool").input[0], "Conv")
        add("roll", roll)
        return tensors, inputs

    def _only_user(self, name: str) -> Any:
        (node,) = (node for node in self._nodes if name in node.input)
        return node


def _channels_last(array: Array) -> Array:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def _as_kernel(array: Array) -> Array:
    """Return a tensor of the file as this module computes with it."""
    if array.ndim == 4:
        return np.asarray(array.transpose(2, 3, 1, 0).reshape(-1, len(array)))
    return array if array.ndim == 2 else array.reshape(-1)


def _as_tensor(weights: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if len(shape) == 4:
        filters, channels, rows, columns = shape
        weights = weights.reshape(rows, columns, channels, filters).transpose(3, 2, 0, 1)
    return np.ascontiguousarray(weights.reshape(shape), np.float32)
