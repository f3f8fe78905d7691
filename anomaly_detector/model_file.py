"""A model file is data, not a program: what is checked before ONNX Runtime sees it.

ONNX can name other files whose contents become weights, operators of libraries that are loaded
into the process, functions of its own, loops without an end, and tensors that claim to be larger
than the memory. None of these belongs into a detector, so each is refused here with the reason.
Only the named file is read, once; ONNX Runtime gets those bytes, never the path.

What no check of a file can bound is the memory that a graph takes while it runs; the first run
happens when the detector is made. ``docs/model-format.md`` lists what is accepted.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

from anomaly_detector.errors import ModelError
from anomaly_detector.metadata import METADATA_KEY, ModelMetadata
from anomaly_detector.onnx_wire import WireError, parse
from anomaly_detector.preprocessing import INPUT_SIZE

__all__ = [
    "CONTRIB_OPERATORS",
    "MAX_ELEMENTS",
    "MAX_FILE_BYTES",
    "MAX_METADATA_BYTES",
    "MAX_NODES",
    "ModelFile",
    "TensorSignature",
    "read_metadata",
    "read_model_file",
]

MAX_FILE_BYTES: Final = 256 * 2**20
"""Our largest models have some ten MB."""

MAX_ELEMENTS: Final = 2**28
"""Of all constant tensors together; sparse ones count as if they were dense."""

MAX_NODES: Final = 10_000
MAX_RANK: Final = 16
MAX_METADATA_BYTES: Final = 2**20

MIN_IR_VERSION: Final = 3
MAX_IR_VERSION: Final = 13
MIN_OPSET: Final = 7
MAX_OPSET: Final = 25
"""Newer ones may give a known operator another meaning; we export 17."""

CONTRIB_DOMAIN: Final = "com.microsoft"
CONTRIB_OPERATORS: Final = frozenset(
    {"BiasGelu", "FusedConv", "FusedGemm", "FusedMatMul", "Gelu", "QuickGelu"}
)
"""Operators of :data:`CONTRIB_DOMAIN` that a graph optimised offline has. They are built into every
ONNX Runtime; others of that domain read files (EPContext), so the domain as such is not enough."""

_STANDARD_DOMAINS = ("", "ai.onnx")
_ENDLESS_OPERATORS = frozenset({"Loop", "Scan"})
_ORT_FORMAT = b"ORTM"

# TensorProto.DataType: name, bits of an element, and the field that holds elements which are not
# in raw_data. Four bits: two elements in a byte, in raw_data only.
_TYPES: Final[Mapping[int, tuple[str, int, str]]] = {
    1: ("float", 32, "float_data"),
    2: ("uint8", 8, "int32_data"),
    3: ("int8", 8, "int32_data"),
    4: ("uint16", 16, "int32_data"),
    5: ("int16", 16, "int32_data"),
    6: ("int32", 32, "int32_data"),
    7: ("int64", 64, "int64_data"),
    8: ("string", 0, "string_data"),
    9: ("bool", 8, "int32_data"),
    10: ("float16", 16, "int32_data"),
    11: ("double", 64, "double_data"),
    12: ("uint32", 32, "uint64_data"),
    13: ("uint64", 64, "uint64_data"),
    16: ("bfloat16", 16, "int32_data"),
    21: ("uint4", 4, ""),
    22: ("int4", 4, ""),
}
_DATA_FIELDS = (
    "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data"
)  # fmt: skip

_OUTPUT_RANKS = {"score": 1, "normalized_score": 1, "anomaly_map": 3}

_EXPORT = "export it again with 'python -m training train'"


@dataclass(frozen=True)
class TensorSignature:
    """What a graph says about one of its inputs or outputs.

    Attributes:
        type: element type as ONNX names it: ``uint8``, ``float``; ``other`` for a type that no
            detector has.
        shape: sizes, names of free dimensions (``N``), None for those left open; None for a
            tensor of any shape.
    """

    type: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        sizes = "any shape" if self.shape is None else list(self.shape)
        return f"{self.type} {sizes}"


@dataclass(frozen=True)
class ModelFile:
    """A model file that was read and checked.

    Attributes:
        path: where it was read from.
        data: its bytes.
        metadata: what the model says about itself.
        inputs: of the graph, without constants.
        outputs: of the graph.
        opset: version of the standard operators.
        nodes: number of nodes, those of subgraphs included.
        elements: number of elements of all constant tensors.
    """

    path: Path
    data: bytes = field(repr=False)
    metadata: ModelMetadata
    inputs: Mapping[str, TensorSignature]
    outputs: Mapping[str, TensorSignature]
    opset: int
    nodes: int
    elements: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def read_model_file(path: str | Path) -> ModelFile:
    """Read a model file and refuse what is no detector or more than data.

    Raises:
        ModelError: the file cannot be read, is no regular file, no whole ONNX file, refers to
            other files, has operators, functions or loops that are not accepted, is too large,
            or has wrong metadata or another signature than a detector. The message names the file,
            the thing and the remedy.
    """
    path = Path(path)
    data = _read(path)
    if data[4:8] == _ORT_FORMAT:
        # ONNX Runtime would take it for its own format, whatever else the bytes may mean.
        _refuse(path, "is in ONNX Runtime's own format, not ONNX", _EXPORT)
    try:
        model = parse(data)
    except WireError as error:
        raise ModelError(
            f"model {path} is not a whole ONNX file: copy or export it again ({error})"
        ) from error
    checker = _Checker(path)
    graph = checker.model(model)
    metadata = _metadata(path, model)
    constants = {tensor.get("name") for tensor in graph.get("initializer", [])}
    inputs = {
        name: value for name, value in _signatures(graph, "input").items() if name not in constants
    }
    outputs = _signatures(graph, "output")
    _check_signature(path, inputs, outputs)
    return ModelFile(
        path, data, metadata, inputs, outputs, checker.opset, checker.nodes, checker.elements
    )


def read_metadata(path: str | Path) -> ModelMetadata:
    """Read what a model says about itself, with all checks of its file, but without running it.

    Raises:
        ModelError: as for :func:`read_model_file`.
    """
    return read_model_file(path).metadata


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
            data = file.read(MAX_FILE_BYTES + 1)
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


class _Checker:
    """Walks a whole model, subgraphs and the tensors of attributes included.

    Args:
        path: the file, for errors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opset = 0
        self.nodes = 0
        self.elements = 0

    def model(self, model: dict[str, Any]) -> dict[str, Any]:
        """Check the model; gives its graph."""
        version = model.get("ir_version", 0)
        if not MIN_IR_VERSION <= version <= MAX_IR_VERSION:
            self._refuse(
                f"has ONNX IR version {version}, this package reads {MIN_IR_VERSION} to "
                f"{MAX_IR_VERSION}",
                "export it with another version of the package onnx",
            )
        for name, what in (
            ("functions", "functions of its own"),
            ("training_info", "graphs for training"),
        ):
            if name in model:
                self._refuse(
                    f"has {what} (ModelProto.{name}), which a detector has no use for", _EXPORT
                )
        opsets: dict[str, int] = {}
        for item in model.get("opset_import", []):
            domain = _standard(item.get("domain", ""))
            if domain in opsets:
                self._refuse(
                    f"imports the operators {_short(domain or 'ai.onnx')!r} twice", _EXPORT
                )
            opsets[domain] = item.get("version", 0)
        self.opset = opsets.get("", 0)
        if not MIN_OPSET <= self.opset <= MAX_OPSET:
            self._refuse(
                f"is for version {self.opset} of the standard operators (opset), this package "
                f"reads {MIN_OPSET} to {MAX_OPSET}",
                "export it with another opset",
            )
        if opsets.get(CONTRIB_DOMAIN, 1) != 1:
            self._refuse(
                f"is for version {opsets[CONTRIB_DOMAIN]} of {CONTRIB_DOMAIN}, not 1", _EXPORT
            )
        if "graph" not in model:
            self._refuse("has no graph", "copy or export it again")
        graph: dict[str, Any] = model["graph"]
        self._graph(graph)
        return graph

    def _graph(self, graph: dict[str, Any]) -> None:
        for tensor in graph.get("initializer", []):
            self._tensor(tensor, f"constant {_short(tensor.get('name', ''))!r}")
        for tensor in graph.get("sparse_initializer", []):
            self._sparse_tensor(tensor)
        for node in graph.get("node", []):
            self._node(node)

    def _node(self, node: dict[str, Any]) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self._refuse(f"has more than {MAX_NODES} nodes", "give a detector's .onnx file")
        operator, domain = node.get("op_type", ""), _standard(node.get("domain", ""))
        name = node.get("name") or next(iter(node.get("output", [])), "")
        place = f"{_short(operator)} {_short(name)!r}"
        if domain == CONTRIB_DOMAIN:
            if operator not in CONTRIB_OPERATORS:
                self._refuse(
                    f"has the operator {place} of {domain}, of which only "
                    f"{', '.join(sorted(CONTRIB_OPERATORS))} are accepted",
                    _EXPORT,
                )
        elif domain:
            self._refuse(
                f"has the operator {place} of the domain {_short(domain)!r}; custom operators "
                "are code and not accepted",
                "export it with standard operators only",
            )
        elif operator in _ENDLESS_OPERATORS:
            self._refuse(
                f"has the operator {place}, whose number of rounds nothing bounds",
                "export it without loops",
            )
        for attribute in node.get("attribute", []):
            where = f"attribute {_short(attribute.get('name', ''))!r} of {place}"
            for tensor in _values(attribute, "t", "tensors"):
                self._tensor(tensor, where)
            for tensor in _values(attribute, "sparse_tensor", "sparse_tensors"):
                self._sparse_tensor(tensor)
            for graph in _values(attribute, "g", "graphs"):
                self._graph(graph)

    def _sparse_tensor(self, tensor: dict[str, Any]) -> None:
        values = tensor.get("values", {})
        place = f"sparse constant {_short(values.get('name', ''))!r}"
        self._tensor(values, place)
        self._tensor(tensor.get("indices", {}), place)
        # ONNX Runtime makes it dense.
        self._count(tensor.get("dims", []), place)

    def _tensor(self, tensor: dict[str, Any], place: str) -> None:
        if tensor.get("data_location", 0) != 0 or "external_data" in tensor:
            entries = {
                item.get("key"): item.get("value") for item in tensor.get("external_data", [])
            }
            location = entries.get("location", "")
            self._refuse(
                f"keeps {place} in another file ({_short(str(location))!r}); only the model file "
                "itself is read",
                "save it as one file (onnx.save with save_as_external_data=False)",
            )
        if "segment" in tensor:
            self._refuse(f"has {place} in segments", _EXPORT)
        number = tensor.get("data_type", 0)
        if number not in _TYPES:
            self._refuse(
                f"has {place} of element type {number}, which this package does not know", _EXPORT
            )
        kind, bits, data_field = _TYPES[number]
        count = self._count(tensor.get("dims", []), place)
        present = [name for name in _DATA_FIELDS if name in tensor]
        if "raw_data" in tensor and bits and not present:
            fits = tensor["raw_data"].size == (count * bits + 7) // 8
        elif "raw_data" not in tensor and present in ([], [data_field]):
            held = tensor.get(data_field, 0)
            fits = (len(held) if isinstance(held, list) else held) == count
        else:
            fits = False
        if not fits:
            self._refuse(
                f"has {place} of {kind} {_shape(tensor.get('dims', []))} with data of another size "
                "or kind",
                "copy or export it again",
            )

    def _count(self, dims: list[int], place: str) -> int:
        if len(dims) > MAX_RANK or any(size < 0 for size in dims):
            self._refuse(f"has {place} of shape {_shape(dims)}", "copy or export it again")
        count = math.prod(dims)
        self.elements += count
        if self.elements > MAX_ELEMENTS:
            self._refuse(
                f"has constants of more than {MAX_ELEMENTS} elements, up to {place} of shape "
                f"{_shape(dims)}",
                "give a detector's .onnx file, whose weights are far smaller",
            )
        return count

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        _refuse(self.path, problem, remedy)


def _short(text: str) -> str:
    """Make a name from a file fit for a log: no line breaks, no terminal codes, not endless."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text[:81])
    return plain if len(plain) <= 80 else f"{plain[:80]}..."


def _shape(dims: list[int]) -> str:
    return str(dims) if len(dims) <= MAX_RANK else f"of {len(dims)} dimensions"


def _standard(domain: str) -> str:
    return "" if domain in _STANDARD_DOMAINS else domain


def _values(attribute: dict[str, Any], single: str, several: str) -> Iterator[dict[str, Any]]:
    if single in attribute:
        yield attribute[single]
    yield from attribute.get(several, [])


def _metadata(path: Path, model: dict[str, Any]) -> ModelMetadata:
    texts = [
        item.get("value", "")
        for item in model.get("metadata_props", [])
        if item.get("key") == METADATA_KEY
    ]
    if not texts:
        raise ModelError(
            f"model {path} has no metadata entry {METADATA_KEY!r}, so it is not a detector: "
            "use a file written by 'python -m training train'"
        )
    if len(texts) > 1:
        _refuse(path, f"has {len(texts)} metadata entries {METADATA_KEY!r}", _EXPORT)
    if len(texts[0]) > MAX_METADATA_BYTES:
        _refuse(
            path,
            f"has a metadata entry {METADATA_KEY!r} of {len(texts[0])} characters, more than "
            f"{MAX_METADATA_BYTES}",
            _EXPORT,
        )
    try:
        metadata = ModelMetadata.from_json(texts[0], str(path))
    except (ValueError, OverflowError, RecursionError) as error:
        # Numbers of thousands of digits, brackets nested a thousand deep.
        raise ModelError(
            f"model {path}: metadata entry {METADATA_KEY!r} cannot be read ({error}): {_EXPORT}"
        ) from error
    for place, value in _numbers(asdict(metadata), ""):
        if not math.isfinite(value):
            raise ModelError(
                f"model {path}: metadata field {place!r} is {value}, not a finite number: {_EXPORT}"
            )
    return metadata


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _numbers(item, f"{place}[{number}]")


def _signatures(graph: dict[str, Any], kind: str) -> dict[str, TensorSignature]:
    signatures = {}
    for item in graph.get(kind, []):
        tensor = item.get("type", {}).get("tensor_type", {})
        number = tensor.get("elem_type", 0)
        shape = None
        if "shape" in tensor:
            shape = tuple(
                _short(size["dim_param"]) if "dim_param" in size else size.get("dim_value")
                for size in tensor["shape"].get("dim", [])
            )
        name = _TYPES[number][0] if number in _TYPES else "other"
        signatures[item.get("name", "")] = TensorSignature(name, shape)
    return signatures


def _check_signature(
    path: Path, inputs: Mapping[str, TensorSignature], outputs: Mapping[str, TensorSignature]
) -> None:
    image = inputs.get("image", TensorSignature("other", None))
    if len(inputs) != 1 or image.type != "uint8":
        problem = f"inputs are {_listed(inputs)}"
    elif image.shape is None or image.shape[1:] != (INPUT_SIZE, INPUT_SIZE, 3):
        problem = f"input 'image' has shape {image}"
    elif any(
        name not in outputs
        or outputs[name].type != "float"
        or (shape := outputs[name].shape) is None
        or len(shape) != rank
        for name, rank in _OUTPUT_RANKS.items()
    ):
        problem = f"outputs are {_listed(outputs)}"
    else:
        return
    raise ModelError(
        f"model {path}: {problem}; a detector takes image uint8 [N, 64, 64, 3] and gives "
        f"score and normalized_score float32 [N] and anomaly_map float32 [N, H, W]: {_EXPORT}"
    )


def _listed(signatures: Mapping[str, TensorSignature]) -> str:
    names = [f"{_short(name)} {signature}" for name, signature in list(signatures.items())[:8]]
    return "; ".join(names) or "none"
