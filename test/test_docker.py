"""What deploys the package: images that find what they copy, and a unit that systemd takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import generate

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
IMAGES = ("Dockerfile", "Dockerfile.jetson")
UNIT = DOCKER / "anomaly_detector.service"


def commands(image: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the commands of a Dockerfile, as Docker's own parser reads them."""
    dockerfile = pytest.importorskip("dockerfile", reason="dockerfile is not installed")
    parsed = dockerfile.parse_file(str(DOCKER / image))
    return [(command.cmd.upper(), tuple(command.value)) for command in parsed]


def copied(image: str) -> list[tuple[str, str]]:
    """Return source and destination of everything that is copied from the checkout."""
    pairs = []
    for name, value in commands(image):
        if name == "COPY":
            *sources, destination = value
            pairs += [(source, destination) for source in sources]
    return pairs


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_exists_and_is_sent_to_docker(image: str) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {source for source, _ in copied(image)}
    assert len(sources) >= 8
    for source in sources:
        assert (ROOT / source).exists(), source
    assert sources == sent


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_is_enough_for_setup_py(image: str, tmp_path: Path) -> None:
    source = tmp_path / "src" / "anomaly_detector"
    for path, destination in copied(image):
        if destination.startswith("/"):
            continue
        target = tmp_path / destination
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, target)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "install_data", "--install-dir", "installed"],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=60,
    )
    share = source / "installed" / "share" / "anomaly_detector"
    for name in ("package.xml", "launch/detector.launch.py", "config/detector.yaml"):
        assert (share / name).is_file()
    assert list((share / "models").glob("*.onnx"))
    assert (source / "build" / "lib" / "anomaly_detector" / "ros" / "detector_node.py").is_file()


@pytest.mark.parametrize("image", IMAGES)
def test_image_starts_a_launch_file_and_keeps_numpy_1(image: str) -> None:
    parsed = commands(image)
    (start,) = [value for name, value in parsed if name == "CMD"]
    assert start[:3] == ("ros2", "launch", "anomaly_detector")
    assert (ROOT / "launch" / start[3]).is_file()
    (install,) = [v[0] for name, v in parsed if name == "RUN" and "pip install" in v[0]]
    # Else pip would replace apt's numpy by one that cv_bridge crashes with.
    assert install.count("pip install") == install.count("-r /tmp/requirements.txt") == 1
    assert ("STOPSIGNAL", ("SIGINT",)) in parsed
    variables = [part for name, value in parsed if name == "ENV" for part in value]
    assert variables[variables.index("ORT_DISABLE_TELEMETRY") + 1] == "1"


def test_index_of_jetson_wheels_has_to_be_given() -> None:
    arguments = {value[0] for name, value in commands("Dockerfile.jetson") if name == "ARG"}
    assert "ONNXRUNTIME_INDEX" in arguments  # with a default it would read NAME=...


def test_ros_packages_are_those_of_package_xml() -> None:
    text = (ROOT / "package.xml").read_text(encoding="utf-8")
    needed = set(
        re.findall(r"<exec_depend>(cv_bridge|diagnostic_msgs|vision_msgs|python3-\w+)<", text)
    )
    for image, distro in zip(IMAGES, ("jazzy", "humble"), strict=True):
        apt = (DOCKER / image).read_text(encoding="utf-8")
        for key in needed - {"python3-rich", "python3-yaml"}:  # pip's, and the base's
            ros = f"ros-{distro}-{key.replace('_', '-')}"
            assert (key if key.startswith("python3-") else ros) in apt


def test_entrypoint_is_a_program_that_bash_reads() -> None:
    entrypoint = DOCKER / "entrypoint.sh"
    assert entrypoint.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(entrypoint)], check=True, capture_output=True)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")

    def complaints(unit: Path) -> str:
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return "\n".join(line for line in result.stderr.splitlines() if unit.name in line)

    assert complaints(UNIT) == ""
    wrong = tmp_path / "wrong.service"
    text = UNIT.read_text(encoding="utf-8")
    wrong.write_text(text.replace("KillSignal=", "KilSignal="), encoding="utf-8")
    assert "KilSignal" in complaints(wrong)


def test_unit_switches_telemetry_off() -> None:
    assert "\nEnvironment=ORT_DISABLE_TELEMETRY=1\n" in UNIT.read_text(encoding="utf-8")


def test_unit_s_command_uses_what_its_settings_file_has() -> None:
    text = UNIT.read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=/bin/bash -c '(.*)'$", text, re.MULTILINE)
    used = set(re.findall(r"\$(\w+)", command))
    settings = (DOCKER / "anomaly_detector.env").read_text(encoding="utf-8")
    assert used == {"SETUP", "MODEL", "IMAGE_TOPIC", "ARGUMENTS"}
    assert used <= set(re.findall(r"^(\w+)=", settings, re.MULTILINE))
    subprocess.run(["bash", "-n", "-c", command], check=True, capture_output=True)
    names = {name for name, *_ in generate.launch_arguments("detector.launch.py")}
    assert set(re.findall(r"(\w+):=", command)) <= names
