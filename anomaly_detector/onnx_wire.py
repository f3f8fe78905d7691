"""Reads an ONNX file's structure from its bytes: names, shapes and sizes, no weights.

A model file comes from elsewhere. It is looked at here before ONNX Runtime gets it, so this reader
has to see exactly what ONNX Runtime's own parser sees. It is therefore stricter than protobuf: a
field that the table below does not know, a field of another wire type, or a second value where one
belongs (protobuf merges the two) is an error, and no exporter writes such files. Weights are
stepped over, not copied; depth and number of fields are bounded, so that a small file cannot become
a large structure.

The wire format is described at https://protobuf.dev/programming-guides/encoding/; the fields are
those of ``onnx/onnx-ml.proto``, and a test compares them with the package ``onnx``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

__all__ = ["MAX_DEPTH", "MAX_FIELDS", "SCHEMA", "Field", "Span", "WireError", "parse"]

MAX_DEPTH: Final = 32
"""Messages inside messages: a graph in a node's attribute takes three of them."""

MAX_FIELDS: Final = 1_000_000
"""Fields of the whole file; our largest models have some ten thousand."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRE_NAMES = {0: "a number", 1: "8 bytes", 2: "a length", 3: "a group", 4: "a group", 5: "4 bytes"}


class WireError(ValueError):
    """The bytes are no ONNX message; says why in a few words."""


class Span(NamedTuple):
    """Where a value lies in the file: bytes ``[start, end)``."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        name: as ``onnx-ml.proto`` calls it.
        kind: ``text``, ``span`` (bytes, left where they are), ``int`` (int32, int64 or enum),
            ``uint``, ``float``, ``double``, or the name of a message.
        repeated: it gives a list.
        counted: of a repeated number only the count is wanted: it gives an integer.
    """

    name: str
    kind: str
    repeated: bool = False
    counted: bool = False


def _message(**fields: str) -> dict[int, Field]:
    """Read ``name="NUMBER KIND"``; ``*`` after the kind: repeated, ``#``: repeated and counted."""
    message = {}
    for name, description in fields.items():
        number, kind = description.split()
        message[int(number)] = Field(
            name, kind.rstrip("*#"), repeated=kind[-1] in "*#", counted=kind[-1] == "#"
        )
    return message


SCHEMA: Final[dict[str, dict[int, Field]]] = {
    "ModelProto": _message(
        ir_version="1 int",
        opset_import="8 OperatorSetIdProto*",
        producer_name="2 text",
        producer_version="3 text",
        domain="4 text",
        model_version="5 int",
        doc_string="6 text",
        graph="7 GraphProto",
        metadata_props="14 StringStringEntryProto*",
        training_info="20 span*",
        functions="25 span*",
        configuration="26 span*",
    ),
    "GraphProto": _message(
        node="1 NodeProto*",
        name="2 text",
        initializer="5 TensorProto*",
        sparse_initializer="15 SparseTensorProto*",
        doc_string="10 text",
        input="11 ValueInfoProto*",
        output="12 ValueInfoProto*",
        value_info="13 ValueInfoProto*",
        quantization_annotation="14 TensorAnnotation*",
        metadata_props="16 StringStringEntryProto*",
    ),
    "NodeProto": _message(
        input="1 text*",
        output="2 text*",
        name="3 text",
        op_type="4 text",
        domain="7 text",
        overload="8 text",
        attribute="5 AttributeProto*",
        doc_string="6 text",
        metadata_props="9 StringStringEntryProto*",
        device_configurations="10 span*",
    ),
    "AttributeProto": _message(
        name="1 text",
        ref_attr_name="21 text",
        doc_string="13 text",
        type="20 int",
        f="2 float",
        i="3 int",
        s="4 span",
        t="5 TensorProto",
        g="6 GraphProto",
        sparse_tensor="22 SparseTensorProto",
        tp="14 TypeProto",
        floats="7 float#",
        ints="8 int#",
        strings="9 span*",
        tensors="10 TensorProto*",
        graphs="11 GraphProto*",
        sparse_tensors="23 SparseTensorProto*",
        type_protos="15 TypeProto*",
    ),
    "TensorProto": _message(
        dims="1 int*",
        data_type="2 int",
        segment="3 span",
        float_data="4 float#",
        int32_data="5 int#",
        string_data="6 span*",
        int64_data="7 int#",
        name="8 text",
        doc_string="12 text",
        raw_data="9 span",
        external_data="13 StringStringEntryProto*",
        data_location="14 int",
        double_data="10 double#",
        uint64_data="11 uint#",
        metadata_props="16 StringStringEntryProto*",
    ),
    "SparseTensorProto": _message(values="1 TensorProto", indices="2 TensorProto", dims="3 int*"),
    "ValueInfoProto": _message(
        name="1 text",
        type="2 TypeProto",
        doc_string="3 text",
        metadata_props="4 StringStringEntryProto*",
    ),
    "TypeProto": _message(
        tensor_type="1 TypeProto.Tensor",
        sequence_type="4 span",
        map_type="5 span",
        optional_type="9 span",
        sparse_tensor_type="8 span",
        opaque_type="7 span",
        denotation="6 text",
    ),
    "TypeProto.Tensor": _message(elem_type="1 int", shape="2 TensorShapeProto"),
    "TensorShapeProto": _message(dim="1 TensorShapeProto.Dimension*"),
    "TensorShapeProto.Dimension": _message(
        dim_value="1 int", dim_param="2 text", denotation="3 text"
    ),
    "TensorAnnotation": _message(
        tensor_name="1 text", quant_parameter_tensor_names="2 StringStringEntryProto*"
    ),
    "StringStringEntryProto": _message(key="1 text", value="2 text"),
    "OperatorSetIdProto": _message(domain="1 text", version="2 int"),
}
"""Message to field number to field. Messages that no check looks into are spans."""

_NUMBER_WIRES = {"int": _VARINT, "uint": _VARINT, "float": _FIXED32, "double": _FIXED64}
_FIXED_SIZES = {_FIXED32: 4, _FIXED64: 8}


def parse(data: bytes, message: str = "ModelProto") -> dict[str, Any]:
    """Read a message.

    Args:
        data: the whole file.
        message: one of :data:`SCHEMA`.

    Returns:
        Field name to value: str, int, :class:`Span`, a dict for a message, a list of these for a
        repeated field, the number of values for a counted one, and a :class:`Span` for a single
        float. Fields that the file lacks are missing.

    Raises:
        WireError: the bytes are not such a message, or too deep or too many.
    """
    return _Parser(data).message(0, len(data), message, 0)


class _Parser:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = 0

    def message(self, position: int, end: int, name: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise WireError(f"messages nested deeper than {MAX_DEPTH}")
        data, schema = self._data, SCHEMA[name]
        values: dict[str, Any] = {}
        while position < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise WireError(f"more than {MAX_FIELDS} fields")
            tag, position = self._varint(position, end)
            wire = tag & 7
            field = schema.get(tag >> 3)
            if field is None:
                raise WireError(f"{name} with a field {tag >> 3} that ONNX does not have")
            start = position
            if wire == _LENGTH:
                size, start = self._varint(position, end)
                position = start + size
            elif wire == _VARINT:
                number, position = self._varint(position, end)
            elif wire in _FIXED_SIZES:
                position += _FIXED_SIZES[wire]
            if position > end:
                raise WireError(f"{name}.{field.name} ends past the end")
            kind = field.kind
            wanted = _NUMBER_WIRES.get(kind, _LENGTH)
            if wire != wanted and not (wire == _LENGTH and field.repeated):
                raise WireError(f"{name}.{field.name} is {_WIRE_NAMES.get(wire, 'no value')}")
            value: Any
            if field.counted:
                count = self._count(start, position, wanted) if wire == _LENGTH else 1
                values[field.name] = values.get(field.name, 0) + count
                continue
            if kind == "text":
                try:
                    value = data[start:position].decode()
                except UnicodeDecodeError as error:
                    raise WireError(f"{name}.{field.name} is not UTF-8") from error
            elif kind in ("int", "uint"):
                if wire == _LENGTH:
                    values.setdefault(field.name, []).extend(self._integers(start, position))
                    continue
                value = _signed(number)
            elif kind in SCHEMA:
                value = self.message(start, position, kind, depth + 1)
            else:
                value = Span(start, position)
            if field.repeated:
                values.setdefault(field.name, []).append(value)
            elif field.name in values:
                raise WireError(f"{name}.{field.name} is there twice")
            else:
                values[field.name] = value
        return values

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        data, value, shift = self._data, 0, 0
        while position < end:
            byte = data[position]
            position += 1
            if byte < 0x80:
                return value | byte << shift, position
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift >= 70:
                raise WireError("a number longer than ten bytes")
        raise WireError("a number ends past the end")

    def _integers(self, position: int, end: int) -> list[int]:
        values = []
        while position < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise WireError(f"more than {MAX_FIELDS} fields")
            value, position = self._varint(position, end)
            values.append(_signed(value))
        return values

    def _count(self, start: int, end: int, wire: int) -> int:
        """Count packed numbers."""
        size = end - start
        if wire == _VARINT:
            packed = np.frombuffer(self._data, np.uint8, size, start)
            if size and packed[-1] >= 0x80:
                raise WireError("packed numbers end past the end")
            return int(np.count_nonzero(packed < 0x80))
        if size % _FIXED_SIZES[wire]:
            raise WireError("packed numbers end past the end")
        return size // _FIXED_SIZES[wire]


def _signed(value: int) -> int:
    """Give the int64 that ten bytes of varint mean."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value
