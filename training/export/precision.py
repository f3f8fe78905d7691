"""int8 detectors, kept only where they see as much; half precision is TensorRT's own (``fp16``).

Between the first and the last convolution or matrix product the numbers get smaller; what makes the
pixels floats and the score out of the network's output stays float32, and so do input and outputs.
It is static quantisation in the QDQ form: standard operators, weights per channel, ranges of values
from frames like those of the training (Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference"). On a CPU int8 may be faster.

Ranges from normal frames alone would cut off just what an anomaly stands out by: of the shipped
model, every anomaly then got one and the same score, below its float32 threshold. So extreme frames
go into the ranges too (:func:`range_images`).

How much accuracy is lost depends on the network. So an int8 model takes the stress test of
:mod:`training.evaluation.stress` beside the float32 model, on the same frames with the same faults,
and is not written when its mean ROC-AUC is more than :data:`MAX_AUC_LOSS` lower, or its mean recall
more than :data:`MAX_RECALL_LOSS`. Its scores are others, so its threshold is calibrated anew.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.providers import CPU
from anomaly_detector.recordings import Frame, FrameSource
from training.evaluation.faults import FAULT_SETS
from training.evaluation.stress import numbered_frames, run_stress
from training.export.convert import with_metadata

PRECISIONS = ("float32", "int8")

MAX_AUC_LOSS = 0.01
"""A variant whose mean ROC-AUC on the stress test falls by more is not written."""

MAX_RECALL_LOSS = 0.05
"""The same for the mean recall, each at its own threshold for the same false-alarm rate."""

MAX_RANGE_FRAMES = 256
"""Frames that the ranges of values for int8 come from; more change nothing."""

STRESS_SET = "full"
STRESS_SEED = 0
STRESS_FRAMES = 200
"""Frames of the stress test; each of them is tried with every fault."""

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BATCH = 16


@dataclass(frozen=True)
class StressFigures:
    """What a detector makes of the stress test.

    Attributes:
        mean_roc_auc: over the faults that count.
        mean_recall: the same, at the detector's threshold.
        frames: clean frames.
        faults: number of faults that count.
    """

    mean_roc_auc: float
    mean_recall: float
    frames: int
    faults: int


@dataclass(frozen=True)
class PrecisionResult:
    """What a variant is worth beside the float32 model, on the same frames and faults."""

    float32: StressFigures
    variant: StressFigures


class StressFrames:
    """Frames in full size, evenly spread over recordings; read anew each time, never all held.

    Args:
        sources: the recordings, in order.
        view: what the model sees of a frame.
        wanted: at most so many frames.
    """

    def __init__(self, sources: Sequence[FrameSource], view: View, wanted: int) -> None:
        self._sources = list(sources)
        self._view = view
        self._numbers = set(spread(sum(map(len, self._sources)), wanted).tolist())

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[tuple[int, Frame]]:
        """Yield the readable ones with their numbers, counted through all recordings."""
        start = 0
        for source in self._sources:
            for number, frame in numbered_frames(source, self._view):
                if start + number in self._numbers:
                    yield start + number, frame
            start += len(source)


def core_nodes(graph: Any) -> list[str]:
    """Name the nodes between the first and the last convolution or matrix product.

    These are the nodes that have, or are, such an operator both before and behind them.

    Args:
        graph: ``onnx.GraphProto`` in topological order, whose nodes have names.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    inputs = [[makers[name] for name in node.input if name in makers] for node in graph.node]
    heavy = [node.op_type in _HEAVY for node in graph.node]
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
        model: ``onnx.ModelProto`` with the outputs ``score`` and ``anomaly_map``.
        images: uint8 [N, 64, 64, 3], frames like those of the training, for :func:`range_images`.

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

    class Frames(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self._batches = iter(
                [chosen[start : start + _BATCH] for start in range(0, len(chosen), _BATCH)]
            )

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            named,
            path,
            Frames(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_HEAVY, "Relu"],
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
    return quantised


def range_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the frames that int8 takes its ranges of values from.

    Args:
        images: uint8 [N, 64, 64, 3]; at most :data:`MAX_RANGE_FRAMES` evenly spread ones are used.

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


def stress_figures(
    model: Path,
    frames: Iterable[tuple[int, Frame]],
    *,
    total: int | None = None,
    progress: bool = True,
) -> StressFigures:
    """Put a detector to the stress test.

    Args:
        model: its file.
        frames: normal frames in full size with their numbers.
        total: number of frames, for the progress bar.
        progress: show it.
    """
    with Detector(model, providers=[CPU]) as detector:
        result = run_stress(
            detector,
            frames,
            FAULT_SETS[STRESS_SET],
            STRESS_SEED,
            bootstrap=0,
            total=total,
            progress=progress,
        )
    return StressFigures(
        result.mean_roc_auc.value, result.mean_recall, result.frames, len(result.counted)
    )


def write_variant(
    variant: Any,
    metadata: ModelMetadata,
    path: Path,
    *,
    float32: Path,
    frames: StressFrames,
    range_frames: int,
    progress: bool = True,
) -> PrecisionResult:
    """Write a variant if it sees as much as the float32 model.

    Args:
        variant: ``onnx.ModelProto`` from :func:`to_int8`; not changed.
        metadata: with the variant's own threshold; precision and both figures are added to its
            provenance.
        path: where to.
        float32: file of the float32 detector.
        frames: normal frames for the stress test.
        range_frames: number of frames that int8 took its ranges of values from.
        progress: show progress bars.

    Raises:
        AnomalyDetectorError: its mean ROC-AUC is more than :data:`MAX_AUC_LOSS` lower, or its mean
            recall more than :data:`MAX_RECALL_LOSS`; nothing is written.
        ModelError: the file that was written cannot be used.
    """
    import onnx

    with atomic_path(path) as temporary:
        # Once to be measured, and again with the figures in it.
        onnx.save(with_metadata(variant, metadata), temporary)
        reference, own = (
            stress_figures(file, frames, total=len(frames), progress=progress)
            for file in (float32, temporary)
        )
        for name, now, before, limit in (
            ("ROC-AUC", own.mean_roc_auc, reference.mean_roc_auc, MAX_AUC_LOSS),
            ("recall", own.mean_recall, reference.mean_recall, MAX_RECALL_LOSS),
        ):
            # Not "loss > limit": NaN is no pass.
            if not before - now <= limit:
                raise AnomalyDetectorError(
                    f"model {path} not written: mean {name} on the stress test is {now:.4f} in "
                    f"int8, {before:.4f} in float32, more than {limit:g} lower: "
                    "keep float32 for this network"
                )
        entry = {
            "type": "int8",
            "range_frames": range_frames,
            "stress": {
                "set": STRESS_SET,
                "faults": own.faults,
                "frames": own.frames,
                "seed": STRESS_SEED,
            },
            "mean_roc_auc": {"float32": reference.mean_roc_auc, "int8": own.mean_roc_auc},
            "mean_recall": {"float32": reference.mean_recall, "int8": own.mean_recall},
        }
        noted = replace(metadata, provenance={**metadata.provenance, "precision": entry})
        onnx.save(with_metadata(variant, noted), temporary)
        Detector(temporary)
    return PrecisionResult(reference, own)


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
