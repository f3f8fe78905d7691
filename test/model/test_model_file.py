"""A model file is data: what is refused, and that no other file is read."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from model_files import write_grey_difference_model
from onnx import TensorProto, helper, numpy_helper

from anomaly_detector.cli.main import main
from anomaly_detector.errors import ModelError
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import MAX_FILE_BYTES, read_metadata, read_model_file
from anomaly_detector.model.metadata import METADATA_KEY

IN_OPEN = 0x20


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return write_grey_difference_model(tmp_path / "grey.onnx")


def edit(path: Path, change: Callable[[Any], object]) -> Path:
    """Change a model file in place, by its ``onnx.ModelProto``."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path: Path) -> str:
    """Return the error; the same with and without a session, one line, naming the file."""
    with pytest.raises(ModelError) as error:
        read_model_file(path)
    with pytest.raises(ModelError) as same:
        Detector(path)
    text = str(error.value)
    assert str(same.value) == text
    assert text.startswith(f"model {path}")
    assert text.isprintable()
    assert len(text) < 700
    return text


@contextlib.contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """Collect the names of the files in a folder that anything opens, by inotify."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if handle < 0 or libc.inotify_add_watch(handle, os.fsencode(folder), IN_OPEN) < 0:
        pytest.skip(f"no inotify here: {os.strerror(ctypes.get_errno())}")
    names: list[str] = []
    try:
        yield names
        with contextlib.suppress(BlockingIOError):
            while data := os.read(handle, 65536):
                while data:
                    length = struct.unpack_from("iIII", data)[3]
                    names.append(data[16 : 16 + length].rstrip(b"\0").decode())
                    data = data[16 + length :]
    finally:
        os.close(handle)


def external(path: Path) -> Path:
    """Move the constant ``grey`` into a real data file beside the model."""

    def move(model: Any) -> None:
        tensor = next(item for item in model.graph.initializer if item.name == "grey")
        (path.parent / "weights.bin").write_bytes(numpy_helper.to_array(tensor).tobytes())
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")

    return edit(path, move)


def test_what_is_read(grey: Path) -> None:
    file = read_model_file(grey)
    assert file.data == grey.read_bytes()
    assert file.metadata.threshold == 1000.0
    assert len(file.digest) == 64
    assert str(file).count("\\x") == 0  # no weights in a log


def test_shipped_models_are_accepted() -> None:
    shipped = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))
    assert shipped
    for path in shipped:
        assert read_model_file(path).metadata.name == path.stem


def test_external_data_is_refused_and_no_other_file_opened(
    grey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external(grey)
    monkeypatch.chdir(path.parent)
    with opened_files(path.parent) as by_others:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    assert "weights.bin" in by_others  # even for bytes, and the watch sees it
    with opened_files(path.parent) as opened:
        text = refusal(path)
    assert set(opened) == {"grey.onnx"}
    assert "a tensor in another file; only the model file itself is read" in text
    assert "save it as one file" in text


def test_external_data_are_found_in_unusual_encodings(grey: Path) -> None:
    def part(number: int, content: bytes) -> bytes:
        """Encode a field whose length has a needless second byte."""
        return bytes([number << 3 | 2, len(content) | 0x80, 0]) + content

    entry = part(1, b"location") + part(2, b"weights.bin")
    tensor = b"\x08\x02\x10\x01" + part(8, b"more") + part(13, entry) + b"\x70\x01"
    grey.write_bytes(grey.read_bytes() + part(7, part(5, tensor)))
    read = onnx.load(grey, load_external_data=False).graph.initializer[-1]
    assert (read.name, read.external_data[0].key) == ("more", "location")
    assert "in another file" in refusal(grey)


def test_only_the_named_file_is_opened(grey: Path) -> None:
    (grey.parent / "weights.bin").write_bytes(b"\0" * 100)
    with opened_files(grey.parent) as opened:
        Detector(grey)
    assert set(opened) == {"grey.onnx"}


def outside(tensor: Any) -> Any:
    """Return a tensor that lies elsewhere."""
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def small(name: str = "value") -> Any:
    return numpy_helper.from_array(np.zeros(2, np.float32), name)


def constant_node(**attributes: Any) -> Any:
    return helper.make_node("Constant", [], ["unused"], "maker", **attributes)


def subgraph(node_or_tensor: Any) -> Any:
    graph = helper.make_graph([], "inner", [], [])
    kind = graph.node if isinstance(node_or_tensor, onnx.NodeProto) else graph.initializer
    kind.append(node_or_tensor)
    return helper.make_node("If", ["image"], ["unused"], "branch", then_branch=graph)


def sparse(tensor: Any) -> Any:
    indices = numpy_helper.from_array(np.array([0, 1], np.int64), "indices")
    return helper.make_sparse_tensor(tensor, indices, [4])


EXTERNAL = {
    "initializer": lambda m: outside(m.graph.initializer[0]),
    "only_entries": lambda m: m.graph.initializer[0].external_data.add(key="location", value="x"),
    "sparse": lambda m: m.graph.sparse_initializer.append(sparse(outside(small()))),
    "constant": lambda m: m.graph.node.append(constant_node(value=outside(small()))),
    "sparse_constant": lambda m: m.graph.node.append(
        constant_node(sparse_value=sparse(outside(small())))
    ),
    "subgraph": lambda m: m.graph.node.append(subgraph(outside(small()))),
    "deep": lambda m: m.graph.node.append(
        subgraph(subgraph(constant_node(value=outside(small()))))
    ),
    "list": lambda m: m.graph.node.append(
        helper.make_node("Odd", [], ["unused"], tensors=[small(), outside(small())])
    ),
    # An address in the process' own memory, for ONNX Runtime.
    "memory": lambda m: m.graph.initializer[0].external_data.add(
        key="location", value="*/_ORT_MEM_ADDR_/*"
    ),
}


@pytest.mark.parametrize("place", list(EXTERNAL))
def test_tensors_elsewhere_are_found_wherever_they_hide(grey: Path, place: str) -> None:
    assert "in another file" in refusal(edit(grey, EXTERNAL[place]))


def custom_node(domain: str, operator: str = "Run") -> Any:
    return helper.make_node(operator, ["image"], ["unused"], "payload", domain=domain)


def set_opset(version: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.opset_import[0].version = version

    return change


def set_dims(*dims: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = next(item for item in model.graph.initializer if item.name == "grey")
        tensor.dims[:] = dims

    return change


def set_type(kind: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.graph.initializer[0].data_type = kind

    return change


def large_sparse(model: Any) -> None:
    tensor = sparse(small())
    tensor.dims[:] = [1 << 20, 1 << 20]
    model.graph.sparse_initializer.append(tensor)


RUNTIME = "cannot be loaded by ONNX Runtime"
REFUSED = {
    "custom": (lambda m: m.graph.node.append(custom_node("com.example")), RUNTIME),
    "custom_in_subgraph": (
        lambda m: m.graph.node.append(subgraph(custom_node("com.example"))),
        RUNTIME,
    ),
    "extensions": (lambda m: m.graph.node.append(custom_node("ai.onnx.contrib")), RUNTIME),
    "other_model": (
        lambda m: m.graph.node.append(custom_node("com.microsoft", "EPContext")),
        r"a model compiled for one device \(EPContext\)",
    ),
    "opset_new": (set_opset(99), RUNTIME),
    "opset_old": (set_opset(1), RUNTIME),
    "opset_none": (lambda m: m.ClearField("opset_import"), RUNTIME),
    "contrib_version": (
        lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 2)),
        RUNTIME,
    ),
    "ir_version": (lambda m: setattr(m, "ir_version", 99), RUNTIME),
    "dims_too_many": (set_dims(2), RUNTIME),
    "dims_product": (set_dims(1 << 40, 1 << 40), RUNTIME),
    "dims_negative": (set_dims(-1, -1), RUNTIME),
    "sparse_size": (large_sparse, RUNTIME),
    "element_type": (set_type(77), RUNTIME),
    "no_graph": (lambda m: m.ClearField("graph"), RUNTIME),
    "operator": (lambda m: setattr(m.graph.node[0], "op_type", "NoSuchOperator"), RUNTIME),
    "elsewhere": (lambda m: setattr(m.graph.initializer[0], "data_location", 1), RUNTIME),
    "terminal_codes": (
        lambda m: m.graph.node.append(custom_node("a\n\x1b[2J" + "x" * 9999)),
        RUNTIME,
    ),
    "float_input": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 1),
        r"inputs are 'image' tensor\(float\)",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_a_detector_has_no_use_for_is_refused(grey: Path, name: str) -> None:
    change, reason = REFUSED[name]
    edit(grey, change)
    with pytest.raises(ModelError, match=reason):
        read_metadata(grey)
    refusal(grey)


def test_operators_of_graphs_optimised_offline_are_accepted(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "models" / "corridor.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(shipped, options, providers=["CPUExecutionProvider"])
    model = onnx.load(tmp_path / "optimised.onnx")
    used = {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
    assert "FusedConv" in used
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    score = Detector(tmp_path / "optimised.onnx").score_batch(image).score
    np.testing.assert_allclose(score, Detector(shipped).score_batch(image).score, rtol=1e-4)


def test_file_in_onnx_runtimes_own_format_is_refused(grey: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "own.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(grey, options, providers=["CPUExecutionProvider"])
    assert RUNTIME in refusal(tmp_path / "own.ort")
    # Bytes that are ONNX to one reader and the other format to the next are ONNX here.
    both = tmp_path / "both.onnx"
    both.write_bytes(b"\x08\x08\x12\x08ORTM----" + grey.read_bytes()[2:])
    image = np.full((1, 64, 64, 3), 138, np.uint8)
    assert Detector(both).score_batch(image).score == Detector(grey).score_batch(image).score


def test_damaged_files_are_refused_at_every_length(grey: Path, tmp_path: Path) -> None:
    whole = grey.read_bytes()
    cut = tmp_path / "cut.onnx"
    for size in range(0, len(whole), 7):
        cut.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            read_model_file(cut)


def test_random_damage_never_gets_past_as_another_error(grey: Path, tmp_path: Path) -> None:
    whole = bytearray(grey.read_bytes())
    generator = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(400):
        damaged = whole.copy()
        for position in generator.integers(0, len(whole), generator.integers(1, 8)):
            damaged[position] = generator.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_model_file(path)
        except ModelError:
            refused += 1
    assert refused > 100


def test_what_is_no_readable_file(grey: Path, tmp_path: Path) -> None:
    assert "is not a file but a folder" in refusal(tmp_path)
    assert "is not a file: train one" in refusal(tmp_path / "missing.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")  # nobody writes: opening it would wait for ever
    assert "is not a file but a named pipe" in refusal(tmp_path / "pipe.onnx")
    assert "is not a file but a device" in refusal(Path("/dev/zero"))
    (tmp_path / "empty.onnx").touch()
    assert "is an empty file" in refusal(tmp_path / "empty.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    assert RUNTIME in refusal(tmp_path / "text.onnx")
    (tmp_path / "loop.onnx").symlink_to(tmp_path / "loop.onnx")
    assert f"({os.strerror(errno.ELOOP)})" in refusal(tmp_path / "loop.onnx")
    (tmp_path / "link.onnx").symlink_to(grey)
    assert read_metadata(tmp_path / "link.onnx").name == "grey_difference"
    with pytest.raises(ModelError, match="cannot be read"):
        read_model_file("zero\0byte.onnx")


def test_unreadable_file_is_refused(grey: Path) -> None:
    # A regular file of which nobody, root included, can read the first byte.
    assert f"({os.strerror(errno.EIO)})" in refusal(Path("/proc/self/mem"))
    if os.geteuid() != 0:
        grey.chmod(0)
        assert f"({os.strerror(errno.EACCES)})" in refusal(grey)


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 10)
    assert "more than 256 MB" in refusal(huge)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("provenance", {"recipe": {"rates": [0.1, math.nan]}}, "'provenance.recipe.rates.1'"),
        ("metrics", {"loss": math.inf}, "'metrics.loss' is inf, not a finite number"),
        ("threshold", 10**400, "cannot be read"),
    ],
)
def test_metadata_that_is_not_finite_is_refused(
    grey: Path, field: str, value: object, reason: str
) -> None:
    text = json.dumps(json.loads(read_metadata(grey).to_json()) | {field: value})
    edit(grey, lambda m: helper.set_model_props(m, {METADATA_KEY: text}))
    with pytest.raises(ModelError, match=reason):
        read_metadata(grey)
    refusal(grey)


def test_metadata_bombs_are_refused(grey: Path) -> None:
    for text, reason in (
        ("[" * 100_000, "cannot be read"),
        ('{"format_version": ' + "1" * 10_000 + "}", "cannot be read"),
        (" " * (2**20 + 1), "of 1048577 characters"),
    ):
        edit(grey, functools.partial(helper.set_model_props, dict_value={METADATA_KEY: text}))
        assert reason in refusal(grey)


def test_metadata_need_no_package_onnx(grey: Path) -> None:
    """As on a robot: an import of onnx is an error."""
    program = f"""
import sys
sys.modules["onnx"] = None
from anomaly_detector.cli.main import main
sys.exit(main(["info", {str(grey)!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["threshold"] == 1000.0


def test_info_checks_the_file(grey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(grey, EXTERNAL["constant"])
    assert main(["info", str(grey)]) == 1
    output = capsys.readouterr()
    assert (output.out, "in another file" in output.err) == ("", True)


def test_documented_limit_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "model-format.md").read_text()
    assert f"over {MAX_FILE_BYTES // 2**20} MB" in text
