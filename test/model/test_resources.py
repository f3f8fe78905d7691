"""Finding config/ and models/ in each way in which the package can be installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.model import shipped as resources
from anomaly_detector.model.shipped import resolve_model, share_path

ROOT = Path(__file__).resolve().parents[2]


def make_share(folder: Path) -> Path:
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "detector.yaml").touch()
    return folder


def test_checkout_is_found_and_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_share(tmp_path / "share" / "anomaly_detector")
    register(tmp_path, monkeypatch)
    assert share_path() == ROOT
    assert share_path("config", "detector.yaml").is_file()
    assert share_path("models") == ROOT / "models"


@pytest.mark.parametrize(
    "packages", ["lib/python3.12/site-packages", "local/lib/python3.10/dist-packages"]
)
def test_share_folder_of_the_install_prefix_is_found(tmp_path: Path, packages: str) -> None:
    share = make_share(tmp_path / "share" / "anomaly_detector")
    module = tmp_path / packages / "anomaly_detector" / "model" / "shipped.py"
    assert resources._share_folder(module) == share


def register(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter the package in an ament index, as colcon does."""
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "anomaly_detector").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))


def test_ament_index_is_asked_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ament_index_python", reason="needs ament_index_python (part of ROS 2)")
    share = make_share(tmp_path / "install" / "share" / "anomaly_detector")
    register(tmp_path / "install", monkeypatch)
    module = tmp_path / "build" / "anomaly_detector" / "anomaly_detector" / "model" / "shipped.py"
    assert resources._share_folder(module) == share


@pytest.mark.parametrize("prefix_path", [None, "", "/no/such/prefix"])
def test_missing_share_folder_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix_path: str | None
) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    if prefix_path is not None:
        monkeypatch.setenv("AMENT_PREFIX_PATH", prefix_path)
    with pytest.raises(AnomalyDetectorError, match="no folder share/anomaly_detector"):
        resources._share_folder(tmp_path / "a" / "anomaly_detector" / "model" / "shipped.py")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A share folder with two models."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "corridor.onnx").touch()
    (folder / "yard.v2.onnx").touch()
    monkeypatch.setattr(resources, "share_path", tmp_path.joinpath)
    return folder


def test_bare_name_is_looked_up(models: Path) -> None:
    assert resolve_model("corridor") == models / "corridor.onnx"
    assert resolve_model("yard.v2") == models / "yard.v2.onnx"


@pytest.mark.parametrize("path", ["/some/where.onnx", "here.onnx", "./corridor", "sub/corridor"])
def test_path_is_used_as_it_is(models: Path, path: str) -> None:
    assert resolve_model(path) == Path(path)


def test_existing_file_wins_over_a_name(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corridor").touch()
    assert resolve_model("corridor") == Path("corridor")


def test_home_is_expanded(models: Path) -> None:
    assert resolve_model("~/corridor.onnx") == Path.home() / "corridor.onnx"


def test_unknown_name_lists_the_models(models: Path) -> None:
    with pytest.raises(ModelError, match=r"'hall' .*\(there: corridor, yard\.v2\)"):
        resolve_model("hall")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "model is empty"),
        ("m" * 300, "File name too long"),
        ("~nobody_here/m.onnx", "home directory"),
    ],
)
def test_what_is_no_name_and_no_path_is_refused(models: Path, name: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        resolve_model(name)
