"""The comparison of architectures and scorers: rows, files and what cannot be compared."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomaly_detector.errors import SourceError
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import open_source
from anomaly_detector.recordings.cache import cache_frames
from training.cli.compare import format_comparison
from training.cli.main import main
from training.config.options import TrainOptions
from training.data.corridor import CorridorDrive, write_drive
from training.data.labels import read_labels, read_visible_shares
from training.evaluation.compare import Comparison, compare, labelled_measure
from training.evaluation.metrics import area_under_roc

WIDTH, HEIGHT = 96, 72


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A normal drive through a small corridor, and one with two kinds of hazards."""
    folder = tmp_path_factory.mktemp("drives")
    normal, test = folder / "normal", folder / "test"
    write_drive(CorridorDrive(60, 3, width=WIDTH, height=HEIGHT), normal, workers=1)
    hazards = ("boxes", "screws")
    rendered = CorridorDrive(48, 3, drive=1, hazards=hazards, width=WIDTH, height=HEIGHT)
    write_drive(rendered, test, workers=1)
    return normal, test


def test_table_of_a_labelled_drive(
    drives: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normal, test = drives
    out = tmp_path / "out"
    command = ["compare", "--data", str(normal), "--test", str(test), "--out", str(out)]
    command += ["--labels", str(test / "labels.csv"), "--seen", "boxes"]
    command += ["--architectures", "v5", "--scorers", "reconstruction, realnvp"]
    # So little time that every network is trained for one epoch.
    code = main([*command, "--minutes", "1e-6", "--cache", str(tmp_path / "c")])
    assert code == 0
    contents = json.loads((out / "comparison.json").read_text())
    rows = [Comparison(**row) for row in contents]
    assert [(row.architecture, row.scorer) for row in rows] == [
        ("v5", "reconstruction"),
        ("v5", "realnvp"),
    ]
    table = (out / "comparison.md").read_text()
    assert table == format_comparison(rows) + "\n"
    assert len({line.count("|") for line in table.splitlines()}) == 1
    printed = capsys.readouterr().out
    for line in table.splitlines():
        assert line in printed
    labels = read_labels(test / "labels.csv")
    names = list(labels.stems or ())
    truth, classes = labels.for_frames(names)
    assert set(classes) == {"normal", "boxes", "screws"}
    shares = read_visible_shares(test / "labels.csv", names)
    assert 0 < (shares[truth > 0] < 0.01).mean() < 1
    images = np.asarray(cache_frames(open_source(test), tmp_path / "c").images)
    for row in rows:
        assert row.epochs == 1
        assert row.macs is not None
        assert row.macs > 1e6
        assert row.milliseconds > 0
        assert math.isfinite(row.validation_loss)
        # The figures are those of the model that was written.
        scores = Detector(out / f"v5_{row.scorer}.onnx").score_batch(images).score
        small = (truth == 0) | (shares < 0.01)
        unseen = np.array([name != "boxes" for name in classes])
        for figure, chosen in (
            (row.roc_auc, truth >= 0),
            (row.roc_auc_small, small),
            (row.roc_auc_unseen, unseen),
        ):
            expected = area_under_roc(scores[chosen], truth[chosen] > 0)
            assert figure == pytest.approx(expected, abs=0.01)
    # The flow stands on the autoencoder, which is trained once.
    assert rows[1].parameters > rows[0].parameters
    provenance = [Detector(out / f"v5_{row.scorer}.onnx").metadata.provenance for row in rows]
    assert provenance[0]["autoencoder"] == provenance[1]["autoencoder"]


def test_a_scorer_with_a_network_of_its_own_is_one_row(
    drives: tuple[Path, Path], tmp_path: Path
) -> None:
    normal, test = drives
    reported: list[Comparison] = []
    options = TrainOptions(
        [str(normal)], tmp_path / "m.onnx", exposure_epochs=1, exposure_steps=2,
        cache=tmp_path / "c", progress=False,
    )  # fmt: skip
    measure = labelled_measure(str(test), test / "labels.csv", None, tmp_path / "c", ())
    rows = compare(options, ["v5", "v4"], ["outlier-exposure"], measure, tmp_path, reported.append)
    assert rows == reported
    assert [(row.architecture, row.scorer) for row in rows] == [("unet", "outlier-exposure")]
    assert 0 <= rows[0].roc_auc <= 1
    assert rows[0].roc_auc_unseen is None
    assert Detector(tmp_path / "unet_outlier-exposure.onnx").metadata.scorer == "outlier-exposure"
    cells = format_comparison([replace(rows[0], macs=None)]).splitlines()[-1].split("|")
    assert cells[1].strip() == "unet"
    assert [cells[4].strip(), cells[10].strip()] == ["", ""]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--architectures", "v5,v9"], "architecture 'v9' is not known: choose from v1"),
        (["--scorers", "magic"], "scorer 'magic' is not known: choose from outlier-exposure"),
        (["--scorers", "mlp-thesis"], "scorer mlp-thesis learns from anomalies: give --anomalies"),
    ],
)
def test_wrong_names_are_told(
    arguments: list[str],
    reason: str,
    drives: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    normal, test = drives
    command = ["compare", "--data", str(normal), "--test", str(test)]
    command += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "c")]
    assert main([*command, "--labels", str(test / "labels.csv"), *arguments]) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert not list((tmp_path / "out").glob("*.onnx"))


def test_visible_shares(drives: tuple[Path, Path], tmp_path: Path) -> None:
    labels = drives[1] / "labels.csv"
    table = read_labels(labels)
    names = list(table.stems or ())[::-1]
    shares = read_visible_shares(labels, names)
    truth, _ = table.for_frames(names)
    assert shares.shape == (48,)
    assert (shares[truth == 0] < 0.0015).all()
    assert (shares[truth > 0] >= 0.0015).all()
    by_hand = tmp_path / "labels.csv"
    by_hand.write_text(
        "frame,label,visible_fraction\na.jpg,0,\nb.jpg,3,0.25\nc.jpg,3,0.5\n", encoding="utf-8-sig"
    )
    assert read_visible_shares(by_hand, ["c", "a.png", "b"]).tolist() == [0.5, 0.0, 0.25]
    by_hand.write_text("frame,label\na.jpg,0\n")
    with pytest.raises(SourceError, match="has no column visible_fraction"):
        read_visible_shares(by_hand, ["a"])
    with pytest.raises(SourceError, match="has no row for frame d"):
        read_visible_shares(labels, ["d"])
