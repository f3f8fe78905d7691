"""int8 detectors: what stays float32, and that a blind one is not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import make_drive, preprocessed
from model_files import write_grey_difference_model
from onnx import TensorProto, helper, numpy_helper

from anomaly_detector.cli.main import main as robot_side
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import WHOLE_FRAME, preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.file import read_metadata
from anomaly_detector.model.latents import LatentEncoder
from anomaly_detector.recordings import open_source
from training.cli.main import main
from training.evaluation.precision import MAX_AUC_LOSS, StressFrames, write_variant
from training.export import quantization
from training.export.quantization import core_nodes, spread, to_int8
from training.scorers.registry import with_scorer_facts


@pytest.fixture(scope="module")
def weights(trained_model: Path) -> Path:
    return trained_model.with_suffix(".training")


def export(weights: Path, out: Path, drive: Path, *options: str) -> int:
    files = ["--weights", str(weights), "--out", str(out), "--data", str(drive)]
    cache = ["--cache", str(out.parent / "cache")]
    return main(["export", *files, *cache, "--stress-frames", "12", *options])


def test_variant_sees_as_much_and_says_what_it_is(
    weights: Path,
    trained_model: Path,
    normal_drive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "int8.onnx"
    assert export(weights, out, normal_drive, "--precision", "int8") == 0
    assert " in int8, threshold " in capsys.readouterr().out
    metadata = read_metadata(out)
    entry = metadata.provenance["precision"]
    assert entry["type"] == "int8"
    assert entry["range_frames"] == 120
    assert entry["stress"]["frames"] == 12
    areas = entry["mean_roc_auc"]
    assert set(areas) == set(entry["mean_recall"]) == {"float32", "int8"}
    assert areas["float32"] - areas["int8"] <= MAX_AUC_LOSS
    # Calibrated on its own scores: about one frame in a hundred of the same drive is flagged.
    images = np.stack([preprocess(frame.pixels) for frame in open_source(normal_drive)])
    scores = Detector(out).score_batch(images)
    assert np.mean(scores.score >= metadata.threshold) <= 0.01
    assert metadata.calibration.quantiles["1.0"] == pytest.approx(float(scores.score.max()))
    expected = Detector(trained_model).score_batch(images).score
    assert not np.array_equal(scores.score, expected)
    np.testing.assert_allclose(scores.score, expected, rtol=0.1)
    # Input and outputs are those of every detector, and no operator is foreign.
    model = onnx.load(out)
    assert [item.type.tensor_type.elem_type for item in model.graph.input] == [TensorProto.UINT8]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    sizes: dict[int, int] = {}
    for tensor in model.graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    assert max(sizes, key=lambda key: sizes[key]) == TensorProto.INT8
    assert out.stat().st_size < 0.6 * trained_model.stat().st_size


def test_variant_that_sees_less_is_not_written(normal_drive: Path, tmp_path: Path) -> None:
    float32 = write_grey_difference_model(tmp_path / "float32.onnx")
    model = onnx.load(float32)
    blind = onnx.ModelProto()
    blind.CopyFrom(model)
    zero = numpy_helper.from_array(np.array(0.0, np.float32), "zero")
    blind.graph.initializer.append(zero)
    # The same score for every frame.
    for node in blind.graph.node:
        if node.op_type == "Mul":
            node.input[1] = "zero"
    out = tmp_path / "int8.onnx"
    frames = StressFrames([open_source(normal_drive)], WHOLE_FRAME, 8)

    def write(variant: Any) -> None:
        write_variant(
            variant,
            read_metadata(float32),
            out,
            float32=float32,
            frames=frames,
            range_frames=8,
            progress=False,
        )

    with pytest.raises(
        AnomalyDetectorError,
        match=r"int8\.onnx not written: mean ROC-AUC on the stress test is 0\.5000 in int8, 0\.5",
    ):
        write(blind)
    assert [path.name for path in tmp_path.iterdir()] == ["float32.onnx"]
    write(model)
    areas = read_metadata(out).provenance["precision"]["mean_roc_auc"]
    assert areas["int8"] == areas["float32"] > 0.51


def test_a_model_file_becomes_int8_with_its_mask_and_its_latents(
    trained_model: Path, normal_drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masked, out = tmp_path / "masked.onnx", tmp_path / "int8.onnx"
    data = ["--data", str(normal_drive)]
    square = ["--mask-polygon", "0,0,60,0,60,45,0,45"]
    command = ["calibrate", "--model", str(trained_model), *data, "--out", str(masked), *square]
    assert robot_side(command) == 0
    for wrong in ([], ["--precision", "int8", "--threshold", "0"]):
        assert export(masked, out, normal_drive, *wrong) == 1
        assert f"{masked} is a finished model: give --precision int8" in capsys.readouterr().err
        assert not out.exists()
    assert export(masked, out, normal_drive, "--precision", "int8") == 0
    metadata = read_metadata(out)
    assert metadata.name == "int8"
    assert len(metadata.provenance["recalibrated"]) == 2
    assert metadata.provenance["precision"]["type"] == "int8"
    assert metadata.map_scale == with_scorer_facts(metadata).map_scale
    assert metadata.input_mask is not None
    images = preprocessed(make_drive(3))
    other = images.copy()
    other[:, :30, :30] = 255 - other[:, :30, :30]
    first, second = (Detector(out).score_batch(frames) for frames in (images, other))
    np.testing.assert_array_equal(first.score, second.score)
    assert not first.anomaly_map[:, :30, :30].any()
    expected = LatentEncoder(masked).encode(images)
    latents = LatentEncoder(out).encode(images)
    for own, wanted in zip(latents, expected, strict=True):
        assert np.corrcoef(own, wanted)[0, 1] > 0.99
    again = tmp_path / "again.onnx"
    assert export(out, again, normal_drive, "--precision", "int8") == 1
    assert f"{out} is in int8 already" in capsys.readouterr().err
    assert not again.exists()


def test_int8_keeps_what_anomalies_stand_out_by(tmp_path: Path) -> None:
    """Whatever the normal frames are like, strange ones score as high as in float32."""
    float32 = Path(__file__).parents[3] / "models" / "corridor.onnx"
    model = onnx.load(float32)
    generator = np.random.default_rng(0)
    normal = preprocessed(make_drive(20))
    strange = np.stack(
        [
            np.full((64, 64, 3), 90, np.uint8),
            np.full((64, 64, 3), [200, 20, 20], np.uint8),
            generator.integers(0, 256, (64, 64, 3), np.uint8),
            normal[3][::-1],
        ]
    )
    expected = scores(model, strange)
    got = scores(to_int8(model, normal), strange)
    np.testing.assert_array_equal(np.sign(got), np.sign(expected))
    assert len(set(got.tolist())) == len(got)  # not all at one ceiling
    np.testing.assert_allclose(got, expected, rtol=0.35)


def relu6_model() -> Any:
    """Return a model of two convolutions with a ReLU6 between them."""
    generator = np.random.default_rng(0)
    kernels = [generator.normal(size=(3, 3, 3, 3)).astype(np.float32) for _ in range(2)]
    names = ("kernel1", "kernel2", "bias", "zero", "six")
    values = (*kernels, np.ones(3, np.float32), np.float32(0), np.float32(6))
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            node("Transpose", ["pixels"], ["planes"], perm=(0, 3, 1, 2)),
            node("Conv", ["planes", "kernel1", "bias"], ["first"]),
            node("Clip", ["first", "zero", "six"], ["cut"]),
            node("Conv", ["cut", "kernel2", "bias"], ["second"]),
            node("ReduceMean", ["second"], ["score"], axes=(1, 2, 3), keepdims=0),
        ],
        "relu6",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 16, 16, 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in zip(names, values, strict=True)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_relu6_is_part_of_its_convolution_and_biases_keep_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = relu6_model()
    images = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), np.uint8)

    corrected = to_int8(model, images)
    # In float32 it would see a far wider range of values, and cost two conversions.
    assert "Clip" not in {node.op_type for node in corrected.graph.node}
    expected = scores(model, images)
    np.testing.assert_allclose(scores(corrected, images), expected, rtol=0.1)
    monkeypatch.setattr(quantization, "correct_biases", lambda *_: None)
    plain = to_int8(model, images)
    shifts = [abs((scores(each, images) - expected).mean()) for each in (corrected, plain)]
    assert shifts[0] < 0.2 * shifts[1]


def scores(model: Any, images: np.ndarray[Any, Any]) -> Any:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["score"], {"image": images})[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--precision", "int8", "--threshold", "5"], "--precision int8 gives other scores: give"),
        (["--threshold", "5", "--range-data", "x"], "--range-data is for --precision int8"),
        (
            ["--precision", "int8", "--data", "x", "--stress-frames", "0"],
            "--stress-frames is 0: give 1 or more",
        ),
    ],
)
def test_wrong_options_are_refused(
    options: list[str],
    reason: str,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "x.onnx"
    assert main(["export", "--weights", str(weights), "--out", str(out), *options]) == 1
    assert reason in capsys.readouterr().err
    assert not out.exists()


def small_graph(*operators: str) -> Any:
    """Return a model of one-input operators in a row."""
    names = [f"t{index}" for index in range(len(operators) + 1)]
    constant = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    nodes = [
        helper.make_node(
            operator, [source, "w"] if operator == "MatMul" else [source], [target], f"n{index}"
        )
        for index, (operator, source, target) in enumerate(
            zip(operators, names, names[1:], strict=False)
        )
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["N", 3])],
        [constant],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_core_is_what_lies_between_the_products() -> None:
    model = small_graph("Abs", "MatMul", "Relu", "MatMul", "Sqrt", "Neg")
    assert core_nodes(model.graph) == ["n1", "n2", "n3"]
    assert core_nodes(small_graph("Abs", "Neg").graph) == []
    with pytest.raises(AnomalyDetectorError, match="no convolution or matrix product"):
        to_int8(small_graph("Abs", "Neg"), np.empty((0, 64, 64, 3), np.uint8))


def test_stress_frames_are_spread_over_recordings_and_read_anew(
    normal_drive: Path, anomalous_drive: Path
) -> None:
    sources = [open_source(normal_drive), open_source(anomalous_drive)]
    frames = StressFrames(sources, WHOLE_FRAME, 5)
    assert len(frames) == 5
    first = list(frames)
    assert [number for number, _ in first] == [0, 39, 79, 119, 159]
    assert [frame.name for _, frame in first] == [frame.name for _, frame in frames]
    assert first[-1][1].name == [frame.name for frame in sources[1]][-1]
    assert isinstance(first[0][1].pixels, Image)
    assert spread(3, 10).tolist() == [0, 1, 2]
