"""Codes: the 128-vectors that an encoder gives, to train scorers on and as a file for analysis.

The file's encoder is taken out of the exported detector: every model with an encoder that
:mod:`training.export.convert` writes has a tensor ``code`` inside its graph, so no Keras is needed.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import ModelError, as_one_line
from anomaly_detector.files import atomic_path
from anomaly_detector.images.preprocessing import INPUT_SIZE, WHOLE_FRAME, View
from anomaly_detector.model.detector import Detector
from training.data.frames import FrameSet
from training.networks.autoencoders import Autoencoder

UNKNOWN_LABEL = -1
"""Label of a frame that nobody labelled; its class name is empty."""

_CODE_TENSOR = "code"
_BATCH = 256


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


class CodeModel:
    """The encoder inside a detector file.

    Args:
        path: the model file.
        view: overrides the model's, as for :class:`~anomaly_detector.model.detector.Detector`.

    Attributes:
        path: the model file.
        model: its ``name``, ``architecture`` and ``sha256``.
        view: what it sees of a frame.
        size: length of a code.

    Raises:
        ModelError: no usable detector, or one without a tensor ``code``.
    """

    def __init__(self, path: str | Path, view: View = WHOLE_FRAME) -> None:
        import onnxruntime

        # Whatever is wrong with the file is said as the robot would say it.
        detector = Detector(path, providers=["CPUExecutionProvider"], view=view)
        metadata, self.view = detector.metadata, detector.view
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
        """Return the codes, float32 [N, size], of shrunk frames, uint8 [N, 64, 64, 3].

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


def encode_frames(autoencoder: Autoencoder, frames: FrameSet) -> NDArray[np.float32]:
    """Return the codes of all frames, float32 [N, 128]."""
    codes = [
        np.asarray(autoencoder.encoder(frames.take(batch).astype(np.float32), training=False))
        for batch in np.array_split(np.arange(len(frames)), -(-len(frames) // _BATCH))
    ]
    return np.concatenate(codes)


def has_code(path: str | Path) -> bool:
    """Return whether a detector file has a tensor ``code``."""
    return _encoder(Path(path).read_bytes()) is not None


def _encoder(content: bytes) -> bytes | None:
    """Return a model with the one output ``code``; ONNX Runtime drops what the output needs not."""
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
