"""Codes: the 128-vectors that a model's encoder gives, as a file for training and analysis.

The thesis encodes all frames once and trains on the vectors (5.16). Here the encoder is taken out
of the exported detector: every model written by :mod:`training.export` has a tensor ``code`` inside
its graph, so no Keras and no training checkpoint are needed.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.detector import Detector
from anomaly_detector.errors import ModelError, SourceError, as_one_line
from anomaly_detector.files import atomic_path
from anomaly_detector.preprocessing import INPUT_SIZE

__all__ = [
    "UNKNOWN_LABEL",
    "CodeModel",
    "Codes",
    "FrameTable",
    "TrainingCodes",
    "has_code",
    "load_codes",
    "training_codes",
    "write_codes",
]

UNKNOWN_LABEL = -1
"""Label of a frame that nobody labelled; its class name is empty."""

_CODE_TENSOR = "code"
_ARRAYS: Mapping[str, tuple[type[np.generic], int]] = {
    "codes": (np.float32, 2),
    "recordings": (np.int64, 1),
    "names": (np.str_, 1),
    "stamps_ns": (np.int64, 1),
    "has_stamp": (np.bool_, 1),
    "labels": (np.int64, 1),
    "classes": (np.str_, 1),
}


@dataclass(frozen=True)
class FrameTable:
    """N frames with their truth, without their codes.

    Attributes:
        recordings: int64 [N], number of each frame's recording, ascending from 0.
        names: frame names.
        stamps_ns: stamps in nanoseconds, None where the recording has none.
        labels: int64 [N]: 0 normal, 1 and more hazard classes, :data:`UNKNOWN_LABEL`.
        classes: class names, empty for unknown.
    """

    recordings: NDArray[np.int64]
    names: list[str]
    stamps_ns: list[int | None]
    labels: NDArray[np.int64]
    classes: list[str]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Codes:
    """The codes of N frames; a file written by ``python -m training encode``.

    Attributes:
        codes: float32 [N, size].
        frames: the frames.
        model: ``name``, ``architecture`` and ``sha256`` of the model file that made the codes.
    """

    codes: NDArray[np.float32]
    frames: FrameTable
    model: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True)
class TrainingCodes:
    """What a classifier or a flow on codes is trained with.

    Attributes:
        normal: float32 [N, size].
        normal_lengths: frames of each recording, for :func:`training.datasets.split_blocks`.
        anomalous: float32 [K, size]; K may be 0.
        anomalous_lengths: the same for these.
        model: what made them, as :attr:`Codes.model`; empty for an encoder that has no file yet.
    """

    normal: NDArray[np.float32]
    normal_lengths: list[int]
    anomalous: NDArray[np.float32]
    anomalous_lengths: list[int]
    model: Mapping[str, str] = field(default_factory=dict)


class CodeModel:
    """The encoder inside a detector file.

    Args:
        path: the model file.

    Raises:
        ModelError: no usable detector, or one without a tensor ``code``.
    """

    def __init__(self, path: str | Path) -> None:
        import onnxruntime

        # Whatever is wrong with the file is said as the robot would say it.
        metadata = Detector(path, providers=["CPUExecutionProvider"]).metadata
        self.path = Path(path)
        content = self.path.read_bytes()
        self.model = {
            "name": metadata.name,
            "architecture": metadata.architecture,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        encoder = _encoder(content)
        if encoder is None:
            raise ModelError(
                f"model {path} has no tensor {_CODE_TENSOR!r} in its graph, so its codes cannot be "
                "read: train it again with this version of 'python -m training train'"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                encoder, options, providers=["CPUExecutionProvider"]
            )
            self.size = self.encode(np.zeros((1, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)).shape[1]
        except Exception as error:  # onnxruntime's error types have no public common base
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"model {path}: its tensor {_CODE_TENSOR!r} cannot be computed "
                f"({as_one_line(error)[:200]}): train the model again"
            ) from error

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Give the codes, float32 [N, size], of shrunk frames, uint8 [N, 64, 64, 3].

        Raises:
            ModelError: the tensor is not one finite vector per frame.
        """
        codes: NDArray[np.float32] = self._session.run([_CODE_TENSOR], {"image": images})[0]
        if codes.ndim != 2 or len(codes) != len(images) or not np.isfinite(codes).all():
            raise ModelError(
                f"model {self.path}: tensor {_CODE_TENSOR!r} of {len(images)} frames has shape "
                f"{codes.shape} or is not finite: train the model again"
            )
        return codes


def has_code(path: str | Path) -> bool:
    """Tell whether a detector file has a tensor ``code``."""
    return _encoder(Path(path).read_bytes()) is not None


def _encoder(content: bytes) -> bytes | None:
    """Give a model with the one output ``code``; ONNX Runtime drops what the output needs not."""
    import onnx

    model = onnx.load_from_string(content)
    if not any(_CODE_TENSOR in node.output for node in model.graph.node):
        return None
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(_CODE_TENSOR, onnx.TensorProto.FLOAT, None)
    )
    result: bytes = model.SerializeToString()
    return result


def write_codes(
    path: Path, frames: FrameTable, model: CodeModel, batches: Iterable[NDArray[np.float32]]
) -> None:
    """Write a codes file; the codes stream through and are never in memory as a whole.

    Args:
        path: ends with ``.npz``.
        frames: N frames.
        model: what made the codes.
        batches: codes, float32 [n, size] each, N rows in all.

    Raises:
        AnomalyDetectorError: the file cannot be written.
        ValueError: the batches are not N rows.
    """
    arrays = {
        "recordings": frames.recordings.astype(np.int64),
        "names": np.array(frames.names, np.str_),
        "stamps_ns": np.array([stamp or 0 for stamp in frames.stamps_ns], np.int64),
        "has_stamp": np.array([stamp is not None for stamp in frames.stamps_ns], np.bool_),
        "labels": frames.labels.astype(np.int64),
        "classes": np.array(frames.classes, np.str_),
        "model": np.array(json.dumps(model.model, sort_keys=True)),
    }
    rows = 0
    # numpy.savez wants whole arrays; an .npz file is a ZIP file of .npy files.
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("codes.npy", "w", force_zip64=True) as member:
            shape = (len(frames), model.size)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for batch in batches:
                member.write(np.ascontiguousarray(batch, "<f4").tobytes())
                rows += len(batch)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        if rows != len(frames):
            raise ValueError(f"{rows} codes for {len(frames)} frames")


def load_codes(path: str | Path) -> Codes:
    """Read a codes file.

    Raises:
        SourceError: no such file, no codes file, or a damaged one.
    """
    remedy = "write it with 'python -m training encode'"
    if not Path(path).is_file():
        raise SourceError(f"codes {path} is not a file: {remedy}")
    try:
        # Opened here: numpy leaves a file open that it cannot read.
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*_ARRAYS, "model")}
        model = {str(key): str(value) for key, value in json.loads(str(arrays["model"])).items()}
    except KeyError as error:
        raise SourceError(f"codes {path} has no array {error}: {remedy}") from error
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"codes {path} is no whole codes file ({error}): {remedy}") from error
    count = len(arrays["codes"]) if arrays["codes"].ndim else 0
    for name, (kind, rank) in _ARRAYS.items():
        array = arrays[name]
        if not np.issubdtype(array.dtype, kind) or array.ndim != rank or len(array) != count:
            raise SourceError(
                f"codes {path}: array {name} is {array.dtype} {array.shape} where "
                f"{count} {kind.__name__} are wanted: {remedy}"
            )
    steps = np.diff(arrays["recordings"], prepend=-1)
    problem = ""
    if count == 0:
        problem = "has no frame"
    elif not np.isfinite(arrays["codes"]).all():
        problem = "has codes that are not finite"
    elif arrays["labels"].min() < UNKNOWN_LABEL:
        problem = f"has the label {arrays['labels'].min()}"
    elif steps[0] != 1 or steps.min() < 0 or steps.max() > 1:
        problem = "has recordings that are not numbered in order"
    elif "sha256" not in model:
        problem = "does not say which model made it"
    if problem:
        raise SourceError(f"codes {path} {problem}: {remedy}")
    stamps = zip(arrays["stamps_ns"].tolist(), arrays["has_stamp"].tolist(), strict=True)
    frames = FrameTable(
        arrays["recordings"],
        arrays["names"].tolist(),
        [stamp if known else None for stamp, known in stamps],
        arrays["labels"],
        arrays["classes"].tolist(),
    )
    return Codes(arrays["codes"], frames, model)


def training_codes(
    codes: str | Path, anomaly_codes: str | Path | None = None, *, model: CodeModel | None = None
) -> TrainingCodes:
    """Read the codes to train a classifier or a flow with.

    From the first file come the frames labelled normal and those that nobody labelled, and as
    anomalies those labelled with a hazard. From the second come anomalies only: all frames but
    those labelled normal.

    Args:
        codes: codes file of normal drives.
        anomaly_codes: codes file of anomalies.
        model: if given, the files have to come from this very model.

    Raises:
        SourceError: a file is at fault, files of different models, or no normal code.
    """
    first = load_codes(codes)
    others = [load_codes(anomaly_codes)] if anomaly_codes is not None else []
    expected = first.model["sha256"] if model is None else model.model["sha256"]
    for path, part in zip((codes, anomaly_codes), (first, *others), strict=False):
        if part.model["sha256"] != expected:
            wanted = f"model {model.path}" if model else f"the model of {codes}"
            raise SourceError(
                f"codes {path} were made by another model ({part.model.get('name', '?')}) than "
                f"{wanted}: encode the frames again"
            )
    normal = first.frames.labels <= 0
    if not normal.any():
        raise SourceError(
            f"codes {codes}: all {len(first)} frames are labelled with hazards: "
            "give codes of normal drives, these with --anomaly-codes"
        )
    parts = [
        (first, first.frames.labels > 0),
        *((part, part.frames.labels != 0) for part in others),
    ]
    return TrainingCodes(
        first.codes[normal],
        _lengths(first, normal),
        np.concatenate([part.codes[chosen] for part, chosen in parts]),
        [length for part, chosen in parts for length in _lengths(part, chosen)],
        first.model if model is None else model.model,
    )


def _lengths(codes: Codes, chosen: NDArray[np.bool_]) -> list[int]:
    """Count the chosen frames of each recording that has any."""
    counts: NDArray[Any] = np.bincount(codes.frames.recordings[chosen])
    return [int(count) for count in counts if count]
