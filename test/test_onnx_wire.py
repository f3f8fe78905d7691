"""The reader of ONNX bytes: it knows ONNX' own fields, and is stricter than protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from model_files import write_grey_difference_model

from anomaly_detector import onnx_wire
from anomaly_detector.onnx_wire import SCHEMA, Span, WireError, parse


def key(number: int, wire: int) -> bytes:
    assert number < 16
    return bytes([number << 3 | wire])


def chunk(number: int, data: bytes) -> bytes:
    """Encode a field of bytes; at most 127 of them."""
    assert len(data) < 128
    return key(number, 2) + bytes([len(data)]) + data


def descriptors() -> dict[str, Any]:
    """Give the message descriptors of the package onnx by name without ``onnx.``."""
    found: dict[str, Any] = {}

    def add(descriptor: Any) -> None:
        found[descriptor.full_name.removeprefix("onnx.")] = descriptor
        for nested in descriptor.nested_types:
            add(nested)

    file = onnx.ModelProto.DESCRIPTOR.file
    for message in file.message_types_by_name.values():
        add(message)
    return found


@pytest.mark.parametrize("name", list(SCHEMA))
def test_the_table_is_that_of_onnx(name: str) -> None:
    fields = descriptors()[name].fields
    types = fields[0]
    kinds = {
        types.TYPE_STRING: "text",
        types.TYPE_BYTES: "span",
        types.TYPE_INT32: "int",
        types.TYPE_INT64: "int",
        types.TYPE_ENUM: "int",
        types.TYPE_UINT64: "uint",
        types.TYPE_FLOAT: "float",
        types.TYPE_DOUBLE: "double",
    }
    wanted = {}
    for field in fields:
        kind = kinds.get(field.type) or field.message_type.full_name.removeprefix("onnx.")
        wanted[field.number] = (field.name, kind, field.is_repeated)
    assert {number: field.name for number, field in SCHEMA[name].items()} == {
        number: entry[0] for number, entry in wanted.items()
    }
    for number, field in SCHEMA[name].items():
        kind = wanted[number][1]
        # Messages that no check looks into stay bytes.
        assert field.kind == kind or (field.kind == "span" and kind not in SCHEMA)
        assert field.repeated == wanted[number][2]


def test_it_reads_what_onnx_reads(tmp_path: Path) -> None:
    path = write_grey_difference_model(tmp_path / "grey.onnx")
    data, expected = path.read_bytes(), onnx.load(path)
    model = parse(data)
    assert model["ir_version"] == expected.ir_version
    graph = model["graph"]
    assert [node["op_type"] for node in graph["node"]] == [
        node.op_type for node in expected.graph.node
    ]
    for got, wanted in zip(graph["initializer"], expected.graph.initializer, strict=True):
        assert (got["name"], got.get("dims", [])) == (wanted.name, list(wanted.dims))
        span = got["raw_data"]
        assert isinstance(span, Span)
        assert data[span.start : span.end] == wanted.raw_data
    (entry,) = model["metadata_props"]
    assert entry["value"] == expected.metadata_props[0].value


def test_packed_and_single_numbers_count_alike() -> None:
    packed = chunk(1, b"\x02\x03") + chunk(4, b"\0" * 24) + chunk(7, b"\x01\xff\x01\x02")
    tensor = parse(packed, "TensorProto")
    assert tensor == {"dims": [2, 3], "float_data": 6, "int64_data": 3}
    single = b"\x08\x02\x08\x03" + (key(4, 5) + b"\0" * 4) * 6 + b"\x38\x01" * 3
    assert parse(single, "TensorProto") == tensor
    minus_one = b"\x08" + b"\xff" * 9 + b"\x01"
    assert parse(minus_one, "TensorProto") == {"dims": [-1]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08", "ends past the end"),
        (b"\x08\xff", "ends past the end"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "longer than ten bytes"),
        (b"\x12\x05abc", "ends past the end"),
        (b"\x12\x02\xff\xfe", "is not UTF-8"),
        (b"\x0b", "is a group"),
        (b"\x0f", "is no value"),
        (b"\x0a\x01\x07", "ir_version is a length"),
        (b"\x08\x01\x08\x01", "is there twice"),
        (chunk(7, b"") + chunk(7, b""), "ModelProto.graph is there twice"),
        (b"\x20\x01", "domain is a number"),
        (b"\x00\x01", "a field 0 that ONNX does not have"),
        (key(15, 0) + b"\x01", "a field 15 that ONNX does not have"),
        (chunk(7, b"\x12\x7f"), "ends past the end"),
    ],
)
def test_damaged_bytes_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        parse(data)


def test_packed_numbers_that_end_early_are_refused() -> None:
    for data in (chunk(4, b"\0" * 7), chunk(7, b"\x01\x80"), chunk(1, b"\x80")):
        with pytest.raises(WireError, match="past the end"):
            parse(data, "TensorProto")


def test_depth_and_number_of_fields_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.ModelProto()
    graph = model.graph
    for _ in range(onnx_wire.MAX_DEPTH // 3 + 1):
        graph = graph.node.add().attribute.add().g
        graph.name = "inner"
    with pytest.raises(WireError, match="nested deeper than 32"):
        parse(model.SerializeToString())
    monkeypatch.setattr(onnx_wire, "MAX_FIELDS", 10)
    parse(b"\x42\x00" * 10)
    with pytest.raises(WireError, match="more than 10 fields"):
        parse(b"\x42\x00" * 11)
    with pytest.raises(WireError, match="more than 10 fields"):
        parse(chunk(1, b"\x01" * 11), "TensorProto")
