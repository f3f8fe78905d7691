"""A model file with other metadata; needs the package ``onnx``, which running a model does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.files import atomic_path
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.masking import add_mask
from anomaly_detector.model.metadata import METADATA_KEY, ModelMetadata
from anomaly_detector.model.normalization import (
    float32_threshold,
    import_onnx,
    normalization_scale,
    replace_normalization,
)

NO_WEIGHTS: Mapping[str, NDArray[np.float32]] = MappingProxyType({})


def write_with_metadata(
    model: Path,
    metadata: ModelMetadata,
    output: Path,
    weights: Mapping[str, NDArray[np.float32]] = NO_WEIGHTS,
) -> None:
    """Write a copy of a model file with other metadata, and the parts that follow from it.

    The file is written beside its place, loaded as the robot would load it, and only then renamed;
    ``output`` may be ``model``.

    Args:
        model: the file to copy.
        metadata: of the copy.
        output: file to write.
        weights: names of constants of the graph to their new values, of the same shapes.

    Raises:
        AnomalyDetectorError: the package onnx is missing, the model lacks a constant, or the new
            file cannot be used; nothing is written.
    """
    onnx = import_onnx()
    proto = onnx.load_model_from_string(model.read_bytes())
    replace_normalization(
        proto, float32_threshold(metadata.threshold), normalization_scale(metadata), str(model)
    )
    if metadata.input_mask is not None:
        add_mask(proto, metadata.input_mask, str(model))
    for item in proto.graph.initializer:
        if item.name in weights:
            item.CopyFrom(onnx.numpy_helper.from_array(weights[item.name], item.name))
    entries = {item.key: item.value for item in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**entries, METADATA_KEY: metadata.to_json()})
    with atomic_path(output) as temporary:
        onnx.save(proto, temporary)
        Detector(temporary)
