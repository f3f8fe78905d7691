"""A model file is data, not a program: what is checked before a frame is scored.

Only the named file is read, once; ONNX Runtime gets those bytes, never the path. It refuses damaged
files and operators that it does not know. Two things that it follows are refused here: tensors kept
in other files, which it opens from the working directory even for a model of bytes (1.20 takes
addresses in its own memory, too), and compiled models (``EPContext``), which OpenVINO reads from
other files and TensorRT runs.

What no check of a file can bound is the memory and time that a graph takes; the first run happens
when the detector is made. ``docs/model-format.md`` lists what is accepted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

from anomaly_detector.errors import ModelError
from anomaly_detector.model.metadata import METADATA_KEY, ModelMetadata
from anomaly_detector.model.shipped import resolve_model

MAX_FILE_BYTES: Final = 256 * 2**20
"""Our largest models have some ten MB."""

MAX_METADATA_BYTES: Final = 2**20

_EXPORT = "export it again with 'python -m training train'"

# A name lies in one piece in the file. One of eight letters has its length before it; protobuf
# reads lengths that end with a needless zero, too.
_REFUSED = (
    (
        (b"\x08location", b"\0location"),
        "keeps a tensor in another file; only the model file itself is read",
        "save it as one file (onnx.save with save_as_external_data=False)",
    ),
    ((b"EPContext",), "holds a model compiled for one device (EPContext)", _EXPORT),
)

_OUTPUT_RANKS = {"score": 1, "normalized_score": 1, "anomaly_map": 3}


@dataclass(frozen=True)
class ModelFile:
    """A model file that was read and checked.

    Attributes:
        path: where it was read from.
        data: its bytes.
        metadata: what the model says about itself.
    """

    path: Path
    data: bytes = field(repr=False)
    metadata: ModelMetadata

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def read_model_file(path: str | Path) -> ModelFile:
    """Read a model file and refuse what is no detector or more than data.

    Raises:
        ModelError: the file cannot be read, is no regular file, is too large, refers to other
            files, is refused by ONNX Runtime, or has wrong metadata or another signature than a
            detector. The message names the file, the thing and the remedy.
    """
    # Here, for a command's --help need not wait for it.
    import onnxruntime

    from anomaly_detector.model.providers import CPU, one_line
    from anomaly_detector.model.session import session_options

    path = Path(path)
    data = _read(path)
    for words, problem, remedy in _REFUSED:
        if any(word in data for word in words):
            _refuse(path, problem, remedy)
    options = session_options()
    # This session never runs: what only makes runs faster is left out.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[CPU], enable_fallback=0)
        texts = session.get_modelmeta().custom_metadata_map
        inputs, outputs = session.get_inputs(), session.get_outputs()
    except Exception as error:  # onnxruntime's error types have no public common base
        raise ModelError(
            f"model {path} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: copy or "
            f"export it again ({one_line(error)})"
        ) from error
    metadata = _metadata(path, texts.get(METADATA_KEY))
    _check_signature(path, inputs, outputs, metadata.input_size)
    return ModelFile(path, data, metadata)


def read_metadata(name_or_path: str | Path) -> ModelMetadata:
    """Return what a model says about itself; its file is checked, but not run.

    Example:
        >>> read_metadata("corridor").score_units
        'log-odds that the frame is not a normal one'

    Args:
        name_or_path: a model file, or the name of a shipped model.

    Raises:
        ModelError: as for :func:`read_model_file`.
    """
    return read_model_file(resolve_model(name_or_path)).metadata


def _refuse(path: Path, problem: str, remedy: str) -> NoReturn:
    raise ModelError(f"model {path} {problem}: {remedy}")


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        _check_regular(path, mode)
        # Not blocking, and looked at again: it may be another file by now.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            _check_regular(path, status.st_mode)
            data = file.read(min(status.st_size, MAX_FILE_BYTES) + 1)
    except FileNotFoundError as error:
        raise ModelError(
            f"model {path} is not a file: train one with 'python -m training train' or give the "
            "path of an .onnx file"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"model {path} cannot be read ({reason}): check the path and its permissions"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        _refuse(
            path,
            f"has more than {MAX_FILE_BYTES // 2**20} MB ({status.st_size} bytes)",
            "give a detector's .onnx file, whose weights are far smaller",
        )
    if not data:
        _refuse(path, "is an empty file", "copy or export it again")
    return data


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    kind = kinds.get(stat.S_IFMT(mode), "something else")
    raise ModelError(f"model {path} is not a file but {kind}: give the path of an .onnx file")


def _metadata(path: Path, text: str | None) -> ModelMetadata:
    if text is None:
        raise ModelError(
            f"model {path} has no metadata entry {METADATA_KEY!r}, so it is not a detector: "
            "use a file written by 'python -m training train'"
        )
    if len(text) > MAX_METADATA_BYTES:
        _refuse(
            path,
            f"has a metadata entry {METADATA_KEY!r} of {len(text)} characters, more than "
            f"{MAX_METADATA_BYTES}",
            _EXPORT,
        )
    try:
        return ModelMetadata.from_json(text, str(path))
    except (ValueError, OverflowError, RecursionError) as error:
        # Numbers of thousands of digits, brackets nested a thousand deep.
        raise ModelError(
            f"model {path}: metadata entry {METADATA_KEY!r} cannot be read ({error}): {_EXPORT}"
        ) from error


def _check_signature(path: Path, inputs: Any, outputs: Any, size: int) -> None:
    ranks = {item.name: len(item.shape) for item in outputs if item.type == "tensor(float)"}
    if [(item.name, item.type) for item in inputs] != [("image", "tensor(uint8)")]:
        problem = f"inputs are {_listed(inputs)}"
    elif inputs[0].shape[1:] != [size, size, 3]:
        problem = f"input 'image' has shape {inputs[0].shape}"
    elif any(ranks.get(name) != rank for name, rank in _OUTPUT_RANKS.items()):
        problem = f"outputs are {_listed(outputs)}"
    else:
        return
    raise ModelError(
        f"model {path}: {problem}; a detector takes image uint8 [N, {size}, {size}, 3] and gives "
        f"score and normalized_score float32 [N] and anomaly_map float32 [N, H, W]: {_EXPORT}"
    )


def _listed(items: Any) -> str:
    texts = [f"{item.name!r} {item.type} {item.shape}" for item in items[:8]]
    return "; ".join(texts)[:300] or "none"
