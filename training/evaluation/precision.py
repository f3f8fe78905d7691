"""int8 detectors are kept only where they see as much as in float32.

How much accuracy is lost depends on the network. So an int8 model takes the stress test beside the
float32 model, on the same frames with the same faults, and is not written when its mean ROC-AUC is
more than :data:`MAX_AUC_LOSS` lower, or its mean recall more than :data:`MAX_RECALL_LOSS`. Its
scores are others, so its threshold is calibrated anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from anomaly_detector.images.preprocessing import View
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.editing import write_with_metadata
from anomaly_detector.model.metadata import ModelMetadata
from anomaly_detector.model.providers import CPU
from anomaly_detector.recordings import Frame, FrameSource
from training.evaluation.faults import FAULT_SETS
from training.evaluation.stress import StressResult, numbered_frames, run_stress
from training.export.quantization import spread

PRECISIONS = ("float32", "int8")

MAX_AUC_LOSS = 0.01
"""A variant whose mean ROC-AUC on the stress test falls by more is not written."""

MAX_RECALL_LOSS = 0.05
"""The same for the mean recall, each at its own threshold for the same false-alarm rate."""

STRESS_FRAMES = 200
"""Frames of the stress test; each of them is tried with every fault."""

_SET = "full"
_SEED = 0


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


def write_variant(
    variant: Any,
    metadata: ModelMetadata,
    path: Path,
    *,
    float32: Path,
    frames: StressFrames,
    range_frames: int,
    progress: bool = True,
) -> tuple[StressResult, StressResult]:
    """Write a variant if it sees as much as the float32 model, on the same frames and faults.

    Args:
        variant: ``onnx.ModelProto`` from :func:`training.export.quantization.to_int8`.
        metadata: with the variant's own threshold; precision and both figures are added to its
            provenance.
        path: where to.
        float32: file of the float32 detector.
        frames: normal frames for the stress test.
        range_frames: number of frames that int8 took its ranges of values from.
        progress: show progress bars.

    Returns:
        The stress tests of the float32 model and of the variant.

    Raises:
        AnomalyDetectorError: its mean ROC-AUC is more than :data:`MAX_AUC_LOSS` lower, or its mean
            recall more than :data:`MAX_RECALL_LOSS`; nothing is written.
        ModelError: the file that was written cannot be used.
    """
    import onnx

    with atomic_path(path) as temporary:
        # Once to be measured, and again with the figures in it.
        onnx.save(variant, temporary)
        write_with_metadata(temporary, metadata, temporary)
        reference, own = (_stress(file, frames, progress) for file in (float32, temporary))
        figures = {
            "mean_roc_auc": {
                "float32": reference.mean_roc_auc.value,
                "int8": own.mean_roc_auc.value,
            },
            "mean_recall": {"float32": reference.mean_recall, "int8": own.mean_recall},
        }
        for name, key, limit in (
            ("ROC-AUC", "mean_roc_auc", MAX_AUC_LOSS),
            ("recall", "mean_recall", MAX_RECALL_LOSS),
        ):
            before, now = figures[key].values()
            # Not "loss > limit": NaN is no pass.
            if not before - now <= limit:
                raise AnomalyDetectorError(
                    f"model {path} not written: mean {name} on the stress test is {now:.4f} in "
                    f"int8, {before:.4f} in float32, more than {limit:g} lower: "
                    "keep float32 for this network"
                )
        test = {"set": _SET, "faults": len(own.counted), "frames": own.frames, "seed": _SEED}
        entry = {"type": "int8", "range_frames": range_frames, "stress": test, **figures}
        noted = replace(metadata, provenance={**metadata.provenance, "precision": entry})
        write_with_metadata(temporary, noted, temporary)
    return reference, own


def _stress(model: Path, frames: StressFrames, progress: bool) -> StressResult:
    with Detector(model, providers=[CPU]) as detector:
        return run_stress(
            detector, frames, FAULT_SETS[_SET], _SEED,
            bootstrap=0, total=len(frames), progress=progress,
        )  # fmt: skip
