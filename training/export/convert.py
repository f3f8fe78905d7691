"""From a Keras scoring function to the one file that is the detector."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from anomaly_detector.images.mask import Mask
from anomaly_detector.images.preprocessing import INPUT_SIZE
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.masking import add_mask
from anomaly_detector.model.metadata import METADATA_KEY, ModelMetadata
from anomaly_detector.model.normalization import (
    add_normalized_score,
    float32_threshold,
    normalization_scale,
)
from training.fitting.run import ScoringFunction
from training.networks.backend import import_tensorflow

MAX_RELATIVE_DIFFERENCE = 1e-3
"""A file whose outputs differ more than this from Keras is not written."""

# ONNX Runtime 1.23, the newest for Python 3.10 on a Jetson, reads these and newer ones.
_OPSET = 17
_IR_VERSION = 8

_OUTPUTS = ("score", "anomaly_map")
_CODE = "code"


def convert(scorer: ScoringFunction, size: int = INPUT_SIZE) -> Any:
    """Convert a scoring function to an ``onnx.ModelProto``.

    The encoder's vector, if the scorer gives one, becomes no output but a tensor named ``code``
    inside the graph, where :class:`anomaly_detector.model.latents.LatentEncoder` finds it.

    Args:
        scorer: the Keras scoring function.
        size: height and width of its input.
    """
    tensorflow = import_tensorflow()
    import onnx

    # Else tf2onnx copies the graph, weights and all, before each of its optimizers, to go on from
    # the copy if one of them fails: gigabytes for a network of 60 MB.
    os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf2onnx

    # tf2onnx reports every rewritten operator.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = tensorflow.TensorSpec((None, size, size, 3), "uint8", name="image")

    @tensorflow.function(input_signature=[signature], autograph=False)  # type: ignore[untyped-decorator,unused-ignore]
    def function(image: Any) -> dict[str, Any]:
        outputs = scorer(image)
        return {
            # identity: an output that is also used inside the graph would lose its name.
            name: tensorflow.identity(outputs[name], name=name)
            for name in (*_OUTPUTS, _CODE)
            if name in outputs
        }

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=[signature], opset=_OPSET
        )
    model.ir_version = _IR_VERSION
    _modernize_resize(model.graph)
    _forget_unused_domains(model)
    _hide_output(model.graph, _CODE)
    for output in model.graph.output:
        # The batch dimension is free; tf2onnx names it after a node.
        output.type.tensor_type.shape.dim[0].dim_param = "N"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model, full_check=True)
    # Both libraries' graphs hold the weights, and are cycles: many megabytes, but so few objects
    # that Python would not look for them soon.
    gc.collect()
    return model


def _modernize_resize(graph: Any) -> None:
    """Write the enlarging of feature maps with attributes that ONNX still has.

    TensorFlow's rule of the nearest neighbour, ``tf_half_pixel_for_nn``, was taken out of ONNX. For
    whole factors, and no others are used here, ``asymmetric`` and ``floor`` choose the same pixels.
    """
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Resize" else ():
            if attribute.s == b"tf_half_pixel_for_nn":
                attribute.s = b"asymmetric"


def _forget_unused_domains(model: Any) -> None:
    """Leave out operator sets that no node needs: tf2onnx names one that some runtimes lack."""
    used = {node.domain for node in model.graph.node}
    kept = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _hide_output(graph: Any, name: str) -> None:
    """Make an output, if there is one of this name, an inner tensor of the same name.

    Where the output is a mere copy, the tensor that it copies gets its name: nothing would keep
    the copy in the graph.
    """
    output = next((item for item in graph.output if item.name == name), None)
    if output is None:
        return
    maker = next(node for node in graph.node if name in node.output)
    if maker.op_type == "Identity":
        original = maker.input[0]
        graph.node.remove(maker)
        for node in graph.node:
            for names in (node.input, node.output):
                for index, other in enumerate(names):
                    if other == original:
                        names[index] = name
    graph.output.remove(output)


def parity(scorer: ScoringFunction, model: Any, images: NDArray[np.uint8]) -> float:
    """Compare ONNX Runtime with Keras, one frame at a time and all at once.

    Args:
        scorer: the Keras scoring function.
        model: its ONNX conversion.
        images: uint8 [N, H, W, 3].

    Returns:
        The largest relative difference: of each score to its own value, and of each pixel of a
        map to the frame's largest.
    """
    session = _session(model)
    worst = 0.0
    for batch in (images, images[:1]):
        expected = {k: np.asarray(v) for k, v in scorer(batch).items()}
        got = dict(zip(_OUTPUTS, session.run(list(_OUTPUTS), {"image": batch}), strict=True))
        for name in _OUTPUTS:
            if got[name].shape != expected[name].shape:
                return float("inf")
            axes = tuple(range(1, expected[name].ndim))
            scale = np.maximum(np.abs(expected[name]).max(axis=axes, keepdims=True), 1e-6)
            difference = float((np.abs(got[name] - expected[name]) / scale).max())
            # NaN compares as no difference; it is the largest one.
            worst = max(worst, difference) if np.isfinite(difference) else float("inf")
    return worst


def score_images(
    model: Any, images: NDArray[np.uint8], batch_size: int = 64
) -> NDArray[np.float32]:
    """Score frames with a converted model, float32 [N]."""
    session = _session(model)
    batches = [
        session.run(["score"], {"image": images[start : start + batch_size]})[0]
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(batches)


def _session(model: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def masked(model: Any, mask: Mask | None) -> Any:
    """Return a copy of a converted model with a mask; without one the model itself."""
    import onnx

    if mask is None:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    add_mask(copy, mask, "of this training")
    return copy


def with_metadata(model: Any, metadata: ModelMetadata) -> Any:
    """Return a copy of a converted model with what its metadata say, checked.

    Args:
        model: ``onnx.ModelProto``; not changed.
        metadata: gives the mask, and threshold and scale of the normalised score; goes into the
            copy.
    """
    import onnx

    final = onnx.ModelProto()
    final.CopyFrom(masked(model, metadata.input_mask))
    add_normalized_score(
        final, float32_threshold(metadata.threshold), normalization_scale(metadata)
    )
    onnx.helper.set_model_props(final, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(final, full_check=True)
    return final


def write_detector(
    model: Any,
    metadata: ModelMetadata,
    path: Path,
    *,
    scorer: ScoringFunction,
    images: NDArray[np.uint8],
) -> float:
    """Add the normalised score, check a model against Keras and write it with its metadata.

    The file is written beside its place, loaded as the robot would load it, and only then renamed.
    The robot's loading checks the normalised score against the metadata.

    Args:
        model: ``onnx.ModelProto`` from :func:`convert`; not changed.
        metadata: goes into the file.
        path: where to.
        scorer: the Keras scoring function that the model came from.
        images: uint8 [N, H, W, 3]; both are compared on four of them, noise, black and white.

    Returns:
        The largest relative difference found.

    Raises:
        AnomalyDetectorError: they differ by more than :data:`MAX_RELATIVE_DIFFERENCE`.
        ModelError: the file that was written cannot be used.
    """
    import onnx

    final = with_metadata(model, metadata)
    real = images[np.linspace(0, len(images) - 1, 4).astype(int)]
    noise = np.random.default_rng(0).integers(0, 256, (1, *images.shape[1:]), np.uint8)
    black = np.zeros_like(noise)
    # The mask comes after what Keras knows of.
    difference = parity(scorer, model, np.concatenate([real, noise, black, 255 - black]))
    if not difference <= MAX_RELATIVE_DIFFERENCE:
        raise AnomalyDetectorError(
            f"model {path} not written: ONNX Runtime and Keras differ by {difference:.2g} "
            f"relative, more than {MAX_RELATIVE_DIFFERENCE:g}: "
            "check the versions of tf2onnx and onnxruntime"
        )
    with atomic_path(path) as temporary:
        onnx.save(final, temporary)
        Detector(temporary)
    return difference
