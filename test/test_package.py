"""The package as a whole: layers, versions, what is installed, and a real colcon build."""

from __future__ import annotations

import ast
import os
import re
import runpy
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml
from ros_harness import running

import anomaly_detector

ROOT = Path(__file__).parents[1]
ROS_MODULES = {"rclpy", "launch", "launch_ros", "rosbag2_py", "cv_bridge"}
TRAINING_MODULES = {"tensorflow", "keras", "tf2onnx", "matplotlib", "sklearn", "training"}


def imported_modules(path: Path) -> set[str]:
    """Return the top-level modules that a file imports anywhere, functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def robot_files() -> list[Path]:
    return sorted((ROOT / "anomaly_detector").rglob("*.py"))


@pytest.mark.parametrize("path", robot_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_layers(path: Path) -> None:
    modules = imported_modules(path)
    # The one module that draws; whoever imports it does so when there is something to draw.
    if path.name == "timeline.py":
        modules -= {"matplotlib"}
    assert not modules & TRAINING_MODULES
    if "ros" not in path.relative_to(ROOT / "anomaly_detector").parts:
        assert not modules & ROS_MODULES
        assert not [name for name in modules if name.endswith("_msgs")]


def test_importing_the_robot_side_stays_light() -> None:
    """What only training, plotting or the command lines use costs the node no start-up time."""
    heavy = TRAINING_MODULES | {"rosbags", "onnx", "pandas", "scipy", "torch", "PIL", "sympy"}
    code = (
        "import sys, anomaly_detector.model.detector, anomaly_detector.images.preprocessing, "
        "anomaly_detector.ros.node.node; "
        f"print(sorted({heavy} & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"


def test_versions_agree() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.findtext("version") == anomaly_detector.__version__
    assert package.get("format") == "3"


def test_package_xml_names_what_the_code_imports() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for element in package.iter("exec_depend")}
    imported = set().union(*(imported_modules(path) for path in robot_files()))
    needed = {
        name for name in imported if name in ROS_MODULES or name.endswith(("_msgs", "_interfaces"))
    }
    assert needed - {"rosbag2_py"} <= declared
    assert {"python3-numpy", "python3-opencv", "launch", "launch_ros"} <= declared
    # What replay.launch.py runs.
    assert {"ros2bag", "rosbag2_storage_default_plugins"} <= declared


def test_package_xml_is_complete_for_bloom() -> None:
    """Read by the parser that bloom, colcon and rosdep have in common, which warns of gaps."""
    catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    warnings: list[str] = []
    package = catkin_pkg.parse_package(str(ROOT), warnings=warnings)
    package.validate(warnings=warnings)
    assert warnings == []
    assert package.get_build_type() == "ament_python"
    assert [license.file for license in package.licenses] == ["LICENSE"]
    assert (ROOT / "LICENSE").is_file()
    declared = {d.name for d in [*package.exec_depends, *package.test_depends]}
    tested = set().union(*(imported_modules(path) for path in (ROOT / "test").rglob("*.py")))
    assert {name for name in tested if name.endswith(("_msgs", "_interfaces"))} <= declared


def test_rosdoc2_finds_the_pages_and_the_python_package() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    name = package.findtext("export/rosdoc2")
    assert name is not None
    kind, settings = yaml.safe_load_all((ROOT / name).read_text(encoding="utf-8"))
    assert kind == {"type": "rosdoc2 config", "version": 1}
    assert (ROOT / settings["settings"]["python_source"] / "__init__.py").is_file()
    (builder,) = settings["builders"]
    pages = ROOT / builder["sphinx"]["user_doc_dir"]
    assert (pages / "tutorial.md").is_file()
    # What Sphinx takes from there; a wrong name would be ignored by it.
    configuration = runpy.run_path(str(pages / "conf.py"))
    assert {"extensions", "myst_heading_anchors", "autodoc_mock_imports"} <= set(configuration)
    imported = set().union(*(imported_modules(path) for path in robot_files()))
    assert set(configuration["autodoc_mock_imports"]) <= imported


def test_no_machine_path_in_the_project() -> None:
    """Files that are committed name no folder of one machine."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"/(home|root|work|Users)/\w+/")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".rst", ".yaml", ".xml", ".toml", ".cfg", ".j2"}:
            assert not pattern.search(path.read_text()), name


def test_colcon_builds_and_the_node_starts_from_the_install_space(tmp_path: Path) -> None:
    pytest.importorskip("colcon_core", reason="colcon is not installed")
    workspace = tmp_path / "ws"
    source = workspace / "src" / "anomaly_detector"
    source.parent.mkdir(parents=True)
    source.symlink_to(ROOT)
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "COLCON_HOME"}}
    # colcon runs setup.py by the python3 that it runs in.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    build = subprocess.run(
        [sys.executable, "-m", "colcon", "build", "--packages-select", "anomaly_detector"],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    prefix = workspace / "install" / "anomaly_detector"
    share = prefix / "share" / "anomaly_detector"
    assert (share / "package.xml").is_file()
    for folder in ("launch", "config", "models"):
        installed = {file.name for file in (share / folder).iterdir()}
        assert {file.name for file in (ROOT / folder).iterdir() if file.is_file()} == installed
    assert list(prefix.rglob("anomaly_detector/drawing/templates/page.html.j2"))
    assert list(prefix.rglob("anomaly_detector/review/page/review.js"))
    programs = prefix / "lib" / "anomaly_detector"
    assert {"anomaly-detector", "anomaly-detector-train"} <= {f.name for f in programs.iterdir()}
    # Outside the checkout: adapt comes from the other package.
    adapt = f". {workspace}/install/setup.bash && {programs}/anomaly-detector adapt --help"
    subprocess.run(["bash", "-c", adapt], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert list(prefix.rglob("training/config/recipes/v5.yaml"))
    node = programs / "detector_node"
    # A model that is not there: the node says so and waits, and it knows the shipped one.
    command = f". {workspace}/install/setup.bash && exec {node} --ros-args -p model:=nowhere"
    with running(["bash", "-c", command], environment) as process:
        line = process.wait_for_line("model 'nowhere' is neither a file")
        assert f"{share}/models (there: corridor" in line
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


def test_requirements_are_those_of_setup_py() -> None:
    """What a robot installs beside apt's packages: the bounds stand in one place each."""
    extras = (ROOT / "setup.py").read_text(encoding="utf-8")
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needed = [line for line in lines if line and not line.startswith(("#", "numpy"))]
    assert len(needed) == 7
    assert [line for line in needed if f'"{line}"' not in extras] == []
