"""Training from files of codes: detectors of all three scorers, and combinations that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import add_box, make_drive

from anomaly_detector.detector import Detector
from anomaly_detector.image import Pixels
from anomaly_detector.preprocessing import shrink
from training.cli import main
from training.codes import CodeModel, load_codes
from training.datasets import split_blocks


@pytest.fixture(scope="module")
def codes_files(
    trained_model: Path,
    normal_drive: Path,
    anomalous_drive: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """Codes of the normal drive and of the one with boxes."""
    folder = tmp_path_factory.mktemp("codes")
    files = folder / "normal.npz", folder / "boxes.npz"
    for file, drive in zip(files, (normal_drive, anomalous_drive), strict=True):
        arguments = ["--model", trained_model, "--data", drive, "--out", file]
        arguments += ["--cache", folder / "cache"]
        assert main(["encode", *map(str, arguments)]) == 0
    return files


def train(out: Path, *options: str | Path) -> int:
    return main(["train", "--out", str(out), *map(str, options)])


@pytest.mark.parametrize("scorer", ["mlp", "realnvp", "realnvp-oe"])
def test_detector_from_codes(
    scorer: str, codes_files: tuple[Path, Path], trained_model: Path, tmp_path: Path
) -> None:
    normal, boxes = codes_files
    out = tmp_path / "new.onnx"
    options: list[str | Path] = [] if scorer == "realnvp" else ["--anomaly-codes", boxes]
    options += ["--mlp-epochs", "40", "--realnvp-epochs", "20"]
    assert (
        train(out, "--scorer", scorer, "--codes", normal, "--encoder", trained_model, *options) == 0
    )
    detector = Detector(out)
    metadata = detector.metadata
    assert (metadata.architecture, metadata.scorer) == ("v5", scorer)
    assert metadata.provenance["encoder"] == CodeModel(trained_model).model
    assert metadata.provenance["options"]["codes"] == "normal.npz"
    frames = metadata.provenance["frames"]
    assert (frames["recorded"], frames["anomalies"]) == (120, 0 if scorer == "realnvp" else 40)
    # The threshold comes from the held-out codes, as the finished model scores their frames.
    drive = make_drive(120)
    images = np.stack([shrink(Pixels(frame, "rgb")) for frame in drive])
    names = [f"frame_{i}.png" for i in range(120)]
    assert load_codes(normal).frames.names == names
    held_out, _ = detector.score_batch(images[split_blocks([120]).held_out])
    expected = np.median(held_out)
    assert metadata.calibration.quantiles["0.5"] == pytest.approx(expected, rel=0.01, abs=1e-4)
    seen = [add_box(frame) for frame in make_drive(40, seed=1)]
    scores, maps = detector.score_batch(np.stack([shrink(Pixels(frame, "rgb")) for frame in seen]))
    assert np.median(scores) > np.quantile(held_out, 0.9)
    assert maps.shape == (40, 8, 8)
    # The same encoder as before.
    np.testing.assert_allclose(
        CodeModel(out).encode(images[:3]), CodeModel(trained_model).encode(images[:3]),
        rtol=1e-4, atol=1e-2,
    )  # fmt: skip


def test_combinations_that_cannot_be(
    codes_files: tuple[Path, Path],
    trained_model: Path,
    normal_drive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    normal, boxes = codes_files
    out = tmp_path / "new.onnx"
    encoder = ("--encoder", trained_model)
    other = tmp_path / "other.onnx"
    # The same model with another text in it, so another checksum.
    model = onnx.load(trained_model)
    model.doc_string = "another"
    onnx.save(model, other)
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("--codes", normal, *encoder), "scorer outlier-exposure needs images, not --codes"),
        (("--scorer", "reconstruction", "--codes", normal, *encoder), "needs images"),
        (("--scorer", "realnvp", "--codes", normal), "give --encoder MODEL"),
        (
            ("--scorer", "realnvp", "--codes", normal, *encoder, "--data", normal_drive),
            f"--data and --codes {normal} exclude each other: leave one of them out",
        ),
        (
            ("--scorer", "mlp", "--codes", normal, *encoder, "--anomalies", normal_drive),
            "give --anomaly-codes FILE",
        ),
        (("--scorer", "realnvp", "--codes", normal, *encoder, "--folds", "3"), "--folds and"),
        (("--scorer", "mlp", "--codes", normal, *encoder), "and the codes have none"),
        (
            ("--scorer", "realnvp", "--codes", normal, *encoder, "--anomaly-codes", boxes),
            "leave --anomaly-codes out or choose --scorer mlp",
        ),
        (
            ("--scorer", "realnvp", "--codes", normal, *encoder, "--architecture", "v4"),
            "is of architecture v5, not v4",
        ),
        (("--scorer", "realnvp", "--codes", normal, "--encoder", other), "by another model (tiny)"),
        (("--scorer", "realnvp", "--codes", tmp_path / "no.npz", *encoder), "is not a file"),
        (("--scorer", "realnvp", "--data", normal_drive, *encoder), "give --codes FILE too"),
        (("--scorer", "realnvp"), "option 'data' is missing: give --data"),
    ]
    for options, reason in cases:
        assert train(out, *options) == 1, reason
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["other.onnx"]
