"""The check of wheels for 64-bit ARM, on an index of our own; the real one is asked in CI only."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_aarch64", ROOT / ".ci/check_aarch64.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_wheel(folder: Path, name: str, tag: str) -> None:
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    wheel = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", wheel)
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")


def test_wheel_of_another_machine_is_not_enough(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    write_wheel(tmp_path, "anywhere", "py3-none-any")
    write_wheel(tmp_path, "arm", "cp310-cp310-manylinux_2_28_aarch64")
    write_wheel(tmp_path, "intel", "cp310-cp310-manylinux_2_28_x86_64")
    assert check.resolve(["anywhere", "arm"], "3.10") == [
        "anywhere-1.0-py3-none-any.whl",
        "arm-1.0-cp310-cp310-manylinux_2_28_aarch64.whl",
    ]
    with pytest.raises(LookupError, match="No matching distribution found for intel"):
        check.resolve(["anywhere", "intel"], "3.10")
    with pytest.raises(LookupError, match="No matching distribution found for arm"):
        check.resolve(["arm"], "3.12")


def test_index_that_cannot_be_reached_is_reported(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConnectionError):
        check.resolve(["nothing-like-this"], "3.10")


def test_every_extra_is_the_robot_s_or_not(check: ModuleType) -> None:
    code = (
        "import setuptools, runpy\n"
        "setuptools.setup = lambda **options: print(*options['extras_require'])\n"
        "runpy.run_path('setup.py')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert set(result.stdout.split()) <= {*check.ROBOT_EXTRAS, *check.OTHER_EXTRAS}
    assert set(check.ROBOT_EXTRAS) <= set(result.stdout.split())
