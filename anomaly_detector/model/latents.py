"""Latents: the 128-vectors that the encoder inside a detector file gives.

Every model with an encoder that training writes has a tensor ``code`` inside its graph, so no Keras
is needed; the package ``onnx`` is.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import ModelError, as_one_line
from anomaly_detector.images.preprocessing import WHOLE_FRAME, View
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.normalization import import_onnx

_TENSOR = "code"


class LatentEncoder:
    """The encoder inside a detector file.

    Args:
        path: the model file.
        view: overrides the model's, as for :class:`~anomaly_detector.model.detector.Detector`.
        graph: what computes the latents alone, where it was taken out of the file before.

    Attributes:
        path: the model file.
        model: its ``name``, ``architecture`` and ``sha256``.
        view: what it sees of a frame.
        size: length of a latent.

    Raises:
        ModelError: no usable detector, or one without a tensor ``code``.
    """

    def __init__(
        self, path: str | Path, view: View = WHOLE_FRAME, graph: bytes | None = None
    ) -> None:
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
        graph = graph or _encoder(content)
        if graph is None:
            raise ModelError(
                f"model {path} has no tensor {_TENSOR!r} in its graph, so its latents cannot be "
                "read: train one whose scorer stands on an autoencoder, such as --scorer "
                "reconstruction, with this version"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
            side = metadata.input_size
            self.size = self.encode(np.zeros((1, side, side, 3), np.uint8)).shape[1]
        except Exception as error:  # onnxruntime's error types have no public common base
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"model {path}: its tensor {_TENSOR!r} cannot be computed "
                f"({as_one_line(error)[:200]}): train the model again"
            ) from error

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the latents, float32 [N, size], of preprocessed frames, uint8 [N, S, S, 3].

        Raises:
            ModelError: the tensor is not one finite vector per frame.
        """
        latents: NDArray[np.float32] = self._session.run([_TENSOR], {"image": images})[0]
        if latents.ndim != 2 or len(latents) != len(images) or not np.isfinite(latents).all():
            raise ModelError(
                f"model {self.path}: tensor {_TENSOR!r} of {len(images)} frames has shape "
                f"{latents.shape} or is not finite: train the model again"
            )
        return latents


def find_encoder(path: str | Path) -> LatentEncoder | None:
    """Return the encoder inside a detector file; None for one without a tensor ``code``.

    Raises:
        ModelError: as for :class:`LatentEncoder`.
    """
    graph = _encoder(Path(path).read_bytes())
    return None if graph is None else LatentEncoder(path, graph=graph)


def _encoder(content: bytes) -> bytes | None:
    """Return a model with the one output ``code``; ONNX Runtime drops what the output needs not."""
    onnx = import_onnx()

    model = onnx.load_model_from_string(content)
    if not any(_TENSOR in node.output for node in model.graph.node):
        return None
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(_TENSOR, onnx.TensorProto.FLOAT, None)
    )
    result: bytes = model.SerializeToString()
    return result
