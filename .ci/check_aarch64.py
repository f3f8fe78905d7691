"""Checks that every requirement of the robot side has a wheel for a 64-bit ARM robot.

Run from the root: ``python .ci/check_aarch64.py``. It asks pip to resolve the package with the
robot's extras for Linux on aarch64 with Python 3.10 (Humble, JetPack 6) and 3.12 (Jazzy), from
wheels alone; nothing is installed. Only the package index is asked. Where that cannot be reached
the check says so and passes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ROBOT_EXTRAS = ("cpu", "adapt", "calibrate", "replay", "review", "watch")
# gpu: PyPI's onnxruntime-gpu is for x86-64; a Jetson takes NVIDIA's (docs/jetson.md). ros: apt's.
OTHER_EXTRAS = ("fleet", "gpu", "jazzy", "openvino", "pretrained", "ros", "test", "training")

PYTHONS = ("3.10", "3.12")
# JetPack 6 and Humble are Ubuntu 22.04, which has glibc 2.35; Jazzy's is newer.
PLATFORMS = ("manylinux_2_35_aarch64", "manylinux_2_28_aarch64", "manylinux_2_17_aarch64")
# apt's cv_bridge was built for numpy 1.
CONSTRAINT = "numpy<2"

_UNREACHABLE = re.compile(
    "Failed to establish a new connection|Temporary failure in name resolution|Read timed out"
    "|Name or service not known|Connection refused|Max retries exceeded|Network is unreachable"
)


def resolve(requirements: list[str], python: str) -> list[str]:
    """Have pip choose wheels.

    Args:
        requirements: as pip takes them.
        python: version of the robot's Python.

    Returns:
        The file names of the wheels; the package itself is a folder, and left out.

    Raises:
        ConnectionError: the index cannot be reached.
        LookupError: a requirement has no wheel; the message is pip's.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed",
            "--disable-pip-version-check", "--retries", "1", "--only-binary", ":all:",
            "--implementation", "cp", "--python-version", python, "--target", f"{folder}/target",
            *(part for platform in PLATFORMS for part in ("--platform", platform)),
            "--report", str(report), *requirements,
        ]  # fmt: skip
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            items = json.loads(report.read_text(encoding="utf-8"))["install"]
            urls = [item["download_info"]["url"] for item in items]
            return sorted(url.rsplit("/", 1)[1] for url in urls if url.endswith(".whl"))
    if _UNREACHABLE.search(result.stdout + result.stderr):
        raise ConnectionError("the package index cannot be reached")
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    raise LookupError("\n".join(errors or result.stderr.splitlines()[-3:]))


def main() -> int:
    """Check each Python; return the exit code."""
    package = f".[{','.join(ROBOT_EXTRAS)}]"
    for python in PYTHONS:
        where = f"{package} for Python {python} on aarch64"
        try:
            wheels = resolve([package, CONSTRAINT], python)
        except ConnectionError as error:
            print(f"not checked, {error}: {where}")
            return 0
        except LookupError as error:
            print(f"error: {where} has requirements without a wheel:\n{error}", file=sys.stderr)
            return 1
        native = [wheel for wheel in wheels if wheel.endswith("aarch64.whl")]
        print(f"{where}: {len(wheels)} wheels, {len(native)} of them for aarch64")
        print("  " + " ".join("-".join(wheel.split("-")[:2]) for wheel in native))
    return 0


if __name__ == "__main__":
    sys.exit(main())
