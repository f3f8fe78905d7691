"""A detector: one ONNX file, checked at load, and the scores it gives.

The file's contract: input ``image`` uint8 [N, 64, 64, 3] RGB; outputs ``score`` float32 [N],
``normalized_score`` float32 [N] and ``anomaly_map`` float32 [N, H, W]; scaling, network and scoring
are inside the graph; one metadata entry (:mod:`anomaly_detector.metadata`) says the rest.
``docs/model-format.md`` describes it all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.image import Pixels
from anomaly_detector.metadata import METADATA_KEY, ModelMetadata
from anomaly_detector.normalization import (
    NORMALIZED_OUTPUT,
    float32_threshold,
    normalization_scale,
    normalize_scores,
)
from anomaly_detector.preprocessing import INPUT_SIZE, shrink

__all__ = [
    "DEFAULT_PROVIDERS",
    "BatchScores",
    "Detection",
    "Detector",
    "default_providers",
    "read_metadata",
]

DEFAULT_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Execution providers in order of preference; those that are not installed are left out."""

# CUDA errors are printed to stderr by the library itself; they reach the user as our own.
_FATAL_ONLY = 4

_OUTPUT_RANKS = {"score": 1, NORMALIZED_OUTPUT: 1, "anomaly_map": 3}

# Far more than execution providers differ in an output between 0 and 1.
_NORMALIZED_TOLERANCE = 1e-4


class BatchScores(NamedTuple):
    """The result for N shrunk frames.

    Attributes:
        score: float32 [N], in the model's units.
        normalized_score: float32 [N], in [0, 1], 0.5 at the detector's threshold.
        anomaly_map: float32 [N, H, W].
    """

    score: NDArray[np.float32]
    normalized_score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]


@dataclass(frozen=True)
class Detection:
    """The result for one frame: what the core hands to the node.

    Attributes:
        score: anomaly score, in the model's units; higher is more anomalous.
        normalized_score: the score in [0, 1], 0.5 at the threshold, the same scale for every model
            (:mod:`anomaly_detector.normalization`).
        threshold: the threshold it was compared with.
        is_anomaly: ``score >= threshold``.
        anomaly_map: float32 [H, W], where in the frame the evidence lies; not smoothed.
        inference_ms: time in the network for this frame, milliseconds.
    """

    score: float
    normalized_score: float
    threshold: float
    is_anomaly: bool
    anomaly_map: NDArray[np.float32]
    inference_ms: float


def default_providers() -> list[str]:
    """Give the providers of :data:`DEFAULT_PROVIDERS` that the installed ONNX Runtime has."""
    available = onnxruntime.get_available_providers()
    return [name for name in DEFAULT_PROVIDERS if name in available]


class Detector:
    """Scores frames with one model file.

    Args:
        path: the ONNX file.
        providers: ONNX Runtime execution providers in order of preference; None for the default.
        intra_op_threads: threads inside one operator. More than one makes these small networks
            slower and keeps the robot's cores busy.
        threshold: overrides the model's own threshold, for the normalised score too.

    Raises:
        ModelError: the file is missing, damaged or no detector of this format.
        AnomalyDetectorError: an unknown provider or a threshold that is not finite.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        providers: Sequence[str] | None = None,
        intra_op_threads: int = 1,
        threshold: float | None = None,
    ) -> None:
        self.path = Path(path)
        if threshold is not None and not np.isfinite(threshold):
            raise AnomalyDetectorError(f"threshold is {threshold}: give a finite number")
        self._session = _open_session(self.path, providers, intra_op_threads)
        self.metadata = _checked_metadata(self._session, self.path)
        self.threshold = float(self.metadata.threshold if threshold is None else threshold)
        self.providers: list[str] = list(self._session.get_providers())
        # The graph normalises with the file's threshold only.
        self._graph_normalizes = self.threshold == self.metadata.threshold
        self._float32_threshold = float32_threshold(self.threshold)
        self._scale = normalization_scale(self.metadata, self.threshold)
        # The first run allocates and, on a GPU, compiles: not on a frame's time. It also proves
        # that the graph really yields what its signature and metadata promise.
        self._check_normalization(np.zeros((1, INPUT_SIZE, INPUT_SIZE, 3), dtype=np.uint8))

    def score_batch(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score shrunk frames: :meth:`run` without the normalised scores.

        Returns:
            Scores float32 [N] and anomaly maps float32 [N, H, W].

        Raises:
            ModelError: as for :meth:`run`.
        """
        result = self.run(images)
        return result.score, result.anomaly_map

    def run(self, images: NDArray[np.uint8]) -> BatchScores:
        """Score shrunk frames.

        Args:
            images: uint8 [N, 64, 64, 3] RGB, from :func:`anomaly_detector.preprocessing.shrink`.

        Raises:
            ModelError: the model fails, or gives NaN or infinite scores.
        """
        result = self._run_graph(images)
        if self._graph_normalizes:
            return result
        return result._replace(normalized_score=self.normalize(result.score))

    def normalize(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the normalised scores of raw ones, float32 [N], at the detector's threshold."""
        return normalize_scores(scores, self._float32_threshold, self._scale)

    def _run_graph(self, images: NDArray[np.uint8]) -> BatchScores:
        try:
            result = BatchScores(*self._session.run(BatchScores._fields, {"image": images}))
        except Exception as error:  # onnxruntime's error types have no public common base
            raise ModelError(
                f"model {self.path} fails on input of shape {images.shape} {images.dtype}: "
                f"{_one_line(error)}"
            ) from error
        shapes = [output.shape for output in result]
        if shapes[:2] != [(len(images),)] * 2 or shapes[2][:1] != (len(images),):
            raise ModelError(
                f"model {self.path} gives outputs of shapes {shapes} for {len(images)} frames: "
                "export it again with 'python -m training train'"
            )
        if not (np.isfinite(result.score).all() and np.isfinite(result.normalized_score).all()):
            raise ModelError(
                f"model {self.path} gives a score that is not finite: its weights are damaged, "
                "train it again"
            )
        return result

    def _check_normalization(self, images: NDArray[np.uint8]) -> None:
        """Refuse a file whose graph normalises with other numbers than its metadata give."""
        result = self._run_graph(images)
        wanted = normalize_scores(
            result.score,
            float32_threshold(self.metadata.threshold),
            normalization_scale(self.metadata),
        )
        difference = float(np.abs(result.normalized_score - wanted).max())
        if difference > _NORMALIZED_TOLERANCE:
            raise ModelError(
                f"model {self.path}: its normalized_score differs by {difference:.2g} from what "
                f"its metadata's threshold {self.metadata.threshold:.6g} gives: set a threshold "
                "with 'python -m anomaly_detector calibrate', not by editing the file"
            )

    def is_anomaly(self, score: float) -> bool:
        """Tell whether a score is at or above the threshold."""
        return score >= self.threshold

    def detect_shrunk(self, image: NDArray[np.uint8]) -> Detection:
        """Score one frame of uint8 [64, 64, 3] RGB."""
        start = time.perf_counter()
        result = self.run(image[np.newaxis])
        elapsed_ms = (time.perf_counter() - start) * 1e3
        score = float(result.score[0])
        return Detection(
            score=score,
            normalized_score=float(result.normalized_score[0]),
            threshold=self.threshold,
            is_anomaly=self.is_anomaly(score),
            anomaly_map=result.anomaly_map[0],
            inference_ms=elapsed_ms,
        )

    def detect(self, pixels: Pixels) -> Detection:
        """Shrink and score one camera frame of any size."""
        return self.detect_shrunk(shrink(pixels))


def read_metadata(path: str | Path) -> ModelMetadata:
    """Read the metadata of a model file, checking the file as :class:`Detector` does.

    Raises:
        ModelError: as for :class:`Detector`.
    """
    return Detector(path, providers=["CPUExecutionProvider"]).metadata


def _open_session(
    path: Path, providers: Sequence[str] | None, intra_op_threads: int
) -> onnxruntime.InferenceSession:
    available = onnxruntime.get_available_providers()
    wanted = default_providers() if providers is None else list(providers)
    unknown = [name for name in wanted if name not in available]
    if unknown or not wanted:
        raise AnomalyDetectorError(
            f"providers {wanted}: {', '.join(unknown) or 'none given'} not available, "
            f"the installed ONNX Runtime has {', '.join(available)}"
        )
    if not path.is_file():
        raise ModelError(
            f"model {path} is not a file: train one with 'python -m training train' or give the "
            "path of an .onnx file"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # A spinning thread pool burns a core between frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # From bytes: nothing but the named file is read.
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=wanted)
    except OSError as error:
        raise ModelError(f"model {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # onnxruntime's error types have no public common base
        raise ModelError(
            f"model {path} is not a whole ONNX file: copy or export it again ({_one_line(error)})"
        ) from error


def _checked_metadata(session: onnxruntime.InferenceSession, path: Path) -> ModelMetadata:
    entries = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in entries:
        raise ModelError(
            f"model {path} has no metadata entry {METADATA_KEY!r}, so it is not a detector: "
            "use a file written by 'python -m training train'"
        )
    metadata = ModelMetadata.from_json(entries[METADATA_KEY], str(path))
    inputs = {item.name: (item.type, list(item.shape)) for item in session.get_inputs()}
    outputs = {item.name: (item.type, len(item.shape)) for item in session.get_outputs()}
    image_type, image_shape = inputs.get("image", ("", []))
    if len(inputs) != 1 or image_type != "tensor(uint8)":
        problem = f"inputs are {inputs}"
    elif image_shape[1:] != [INPUT_SIZE, INPUT_SIZE, 3]:
        problem = f"input 'image' has shape {image_shape}"
    elif any(outputs.get(name) != ("tensor(float)", rank) for name, rank in _OUTPUT_RANKS.items()):
        problem = f"outputs are {outputs}"
    else:
        return metadata
    raise ModelError(
        f"model {path}: {problem}; a detector takes image uint8 [N, 64, 64, 3] and gives "
        "score and normalized_score float32 [N] and anomaly_map float32 [N, H, W]: "
        "export it again with 'python -m training train'"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
