"""The normalised score: the raw score on a scale that is the same for every model.

It lies in [0, 1], never falls when the raw score rises, and is 0.5 exactly at the threshold. With
``u = (score - threshold) / scale`` it is ``0.5 / (1 + |u|)`` below the threshold and
``1 - 0.5 / (1 + |u|)`` from there on (the softsign function, moved to [0, 1]). The scale is the
distance from the median normal score to the threshold, so the median normal frame gets 0.25, and a
frame as far above the threshold as the median lies below it gets 0.75.

Each step of this form is monotone in floating point too, since IEEE operations round monotonically;
``u / (1 + |u|)`` would not be. A score below the threshold never reaches 0.5, however close it is:
``normalized_score >= 0.5`` and ``score >= threshold`` always say the same.

The graph of a model file computes it as its output :data:`NORMALIZED_OUTPUT`, with the two numbers
as constants of fixed names. :func:`normalize_scores` is the same in numpy, bit for bit, for a
threshold that differs from the file's. Editing a graph needs the package ``onnx``; reading and
running one does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, ModelError

if TYPE_CHECKING:  # which needs this module for older files
    from anomaly_detector.model.metadata import ModelMetadata

NORMALIZED_OUTPUT = "normalized_score"
THRESHOLD_CONSTANT = "calibration_threshold"
SCALE_CONSTANT = "calibration_scale"

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_BELOW_HALF = np.nextafter(_HALF, np.float32(0.0))


def check_threshold(threshold: float | None) -> None:
    """Refuse a threshold that no score can be compared with; None is that of the model.

    Raises:
        AnomalyDetectorError: it is not finite.
    """
    if threshold is not None and not np.isfinite(threshold):
        raise AnomalyDetectorError(f"threshold is {threshold}: give a finite number")


def float32_threshold(threshold: float) -> np.float32:
    """Return the smallest float32 that is not below a threshold.

    Scores are float32, so ``score >= threshold`` says the same with either number.
    """
    with np.errstate(over="ignore"):
        rounded: np.float32 = np.float32(threshold)
    # float(): numpy 2 would round the threshold for the comparison.
    if float(rounded) < threshold:
        rounded = np.nextafter(rounded, np.float32(np.inf))
    return rounded


def normalization_scale(metadata: ModelMetadata, threshold: float | None = None) -> np.float32:
    """Return the scale of the normalised score, in the units of the raw score.

    It is the distance from the median normal score to the threshold, with three exceptions: it is
    at least half the interquartile range of the normal scores (a threshold that was set by hand
    may lie in their midst); for a score with an upper end it is at most a third of the way from the
    threshold to that end, so that the end gets 0.875; and without quantiles it is the threshold's
    own size. ``threshold`` may stand in for the model's.

    Returns:
        A positive normal float32.
    """
    threshold = metadata.threshold if threshold is None else threshold
    quantiles = metadata.calibration.quantiles
    if "0.5" in quantiles:
        scale = abs(threshold - quantiles["0.5"])
        if "0.25" in quantiles and "0.75" in quantiles:
            scale = max(scale, (quantiles["0.75"] - quantiles["0.25"]) / 2)
    else:
        scale = abs(threshold) or 1.0
    maximum = metadata.score_maximum
    if maximum is not None and maximum > threshold:
        scale = min(scale, (maximum - threshold) / 3)
    # Equal scores (a covered lens) leave no distance at all, on which the next frame would be 0 or
    # 1: a few steps of float32 are the least.
    scale = max(scale, 1e-6 * abs(threshold), 1e-30)
    rounded: np.float32 = np.float32(min(scale, float(np.finfo(np.float32).max)))
    return rounded


def normalize_scores(
    scores: NDArray[np.float32], threshold: np.float32, scale: np.float32
) -> NDArray[np.float32]:
    """Return the normalised scores, float32 [N] in [0, 1], of finite ones.

    The threshold is from :func:`float32_threshold`, the scale from :func:`normalization_scale`.
    """
    with np.errstate(over="ignore"):
        distance = np.abs((scores - threshold) / scale)
    below = _HALF / (_ONE + distance)
    normalized: NDArray[np.float32] = np.where(
        scores >= threshold, _ONE - below, np.minimum(below, _BELOW_HALF)
    )
    return normalized


def normalize_for(
    metadata: ModelMetadata, scores: NDArray[np.float32], threshold: float | None = None
) -> NDArray[np.float32]:
    """Return a model's normalised scores, float32 [N], at its own or another threshold."""
    value = float32_threshold(metadata.threshold if threshold is None else threshold)
    return normalize_scores(scores, value, normalization_scale(metadata, threshold))


def add_normalized_score(model: Any, threshold: np.float32, scale: np.float32) -> None:
    """Add the output ``normalized_score`` to an ``onnx.ModelProto`` that has ``score``, in place.

    Raises:
        AnomalyDetectorError: the package onnx is missing.
    """
    onnx = import_onnx()
    prefix = f"{NORMALIZED_OUTPUT}/"
    constants = {
        THRESHOLD_CONSTANT: threshold,
        SCALE_CONSTANT: scale,
        f"{prefix}half": _HALF,
        f"{prefix}one": _ONE,
        f"{prefix}below_half": _BELOW_HALF,
    }
    for name, value in constants.items():
        model.graph.initializer.append(_float_constant(onnx, name, value))
    for operator, inputs, output in (
        ("Sub", ("score", THRESHOLD_CONSTANT), f"{prefix}difference"),
        ("Div", (f"{prefix}difference", SCALE_CONSTANT), f"{prefix}u"),
        ("Abs", (f"{prefix}u",), f"{prefix}distance"),
        ("Add", (f"{prefix}distance", f"{prefix}one"), f"{prefix}denominator"),
        ("Div", (f"{prefix}half", f"{prefix}denominator"), f"{prefix}small"),
        ("Sub", (f"{prefix}one", f"{prefix}small"), f"{prefix}above"),
        ("Min", (f"{prefix}small", f"{prefix}below_half"), f"{prefix}below"),
        ("GreaterOrEqual", ("score", THRESHOLD_CONSTANT), f"{prefix}is_anomaly"),
        ("Where", (f"{prefix}is_anomaly", f"{prefix}above", f"{prefix}below"), NORMALIZED_OUTPUT),
    ):
        model.graph.node.append(
            onnx.helper.make_node(operator, list(inputs), [output], name=f"{output}_node")
        )
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(NORMALIZED_OUTPUT, onnx.TensorProto.FLOAT, ["N"])
    )


def replace_normalization(
    model: Any, threshold: np.float32, scale: np.float32, source: str
) -> None:
    """Change the two constants of :func:`add_normalized_score`, in place.

    Raises:
        ModelError: the graph lacks one of the constants.
        AnomalyDetectorError: the package onnx is missing.
    """
    onnx = import_onnx()
    for name, value in ((THRESHOLD_CONSTANT, threshold), (SCALE_CONSTANT, scale)):
        found = [item for item in model.graph.initializer if item.name == name]
        if len(found) != 1:
            raise ModelError(
                f"model {source} has {len(found)} constants {name!r} instead of one: "
                "export it again with 'python -m training train'"
            )
        found[0].CopyFrom(_float_constant(onnx, name, value))


def import_onnx() -> Any:
    """Import the package onnx, which only those need who change a model file or read its graph.

    Raises:
        AnomalyDetectorError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise AnomalyDetectorError(
            f"changing a model file or reading its graph needs the package onnx ({error}): "
            "pip install onnx"
        ) from error
    return onnx


def _float_constant(onnx: Any, name: str, value: np.float32) -> Any:
    return onnx.numpy_helper.from_array(np.array(value, np.float32), name)
