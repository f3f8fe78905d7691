"""What the README's steps and the Dockerfiles do on a clean machine, step by step, in minutes.

    python -m benchmarks.clean_machine readme --rosdistro DIR --launch DIR --work build/clean
    python -m benchmarks.clean_machine docker/Dockerfile --launch DIR --work build/clean

Makes a clean Debian with mmdebstrap and runs the commands there as they are written, as root. Ends
with exit code 1 at the first that fails. ``readme`` takes the blocks of "Your own robot" and ends
with the hazard's line in the node's log; a Dockerfile's commands end with the node that waits for
images. Where Ubuntu and ROS' packages of apt cannot be had, these stand in:

- Debian for Ubuntu. Its Python, like that of Ubuntu 24.04, refuses a bare ``pip install``.
- ROS' wheels of PyPI in /opt/ros for ROS' packages of apt, and ``--launch`` for ``ros2 launch``: a
  folder into which launch, launch_ros, ros2cli, ros2launch and ros2pkg were installed.
- ``--rosdistro``, a checkout of ros/rosdistro, for what ``rosdep update`` downloads.
- A drive through the synthetic corridor for what ``ros2 bag record`` and the camera give.

Linux, root, and Debian's packages mmdebstrap and util-linux are needed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.tools.tool_node import domain_id
from benchmarks import common

ROOT = Path(__file__).parents[1]
# What a machine of Ubuntu with ROS 2 from apt has.
APT = "ca-certificates procps python3-numpy python3-opencv python3-pip python3-yaml"
COLCON = (
    "colcon python3-colcon-bash python3-colcon-output python3-colcon-package-selection "
    "python3-colcon-parallel-executor python3-colcon-python-setup-py "
    "python3-colcon-recursive-crawl python3-colcon-ros"
)
WHEELS = (
    "ament-index-python diagnostic-msgs geometry-msgs lifecycle-msgs "
    "nav-msgs rclpy rmw-fastrtps-cpp rosgraph-msgs sensor-msgs std-msgs std-srvs"
)
ROS = ". /opt/ros/{}/setup.bash"
ROSDISTRO = "export ROSDISTRO_INDEX_URL=file:///rosdistro/index-v4.yaml;"
NETWORK_FILES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pip.conf",
)
TIMEOUT_S = 1800


@dataclass(frozen=True)
class Step:
    """One command, its seconds, and what stood in for a part of it."""

    command: str
    seconds: float
    instead: str = ""


class CleanMachine:
    """A folder with a clean Debian, in which commands run as on a machine of its own."""

    def __init__(self, root: Path, suite: str) -> None:
        """Make it.

        Raises:
            AnomalyDetectorError: not root, or no mmdebstrap.
        """
        if os.geteuid() or not shutil.which("mmdebstrap"):
            raise AnomalyDetectorError("a clean machine needs root and apt install mmdebstrap")
        self.root = root
        # Its mounts of /dev and /sys are its own and end with it, also where it is interrupted.
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command += ["mmdebstrap", "--quiet", "--variant=minbase"]
        command += ["--include=ca-certificates", "--dpkgopt=force-unsafe-io"]
        subprocess.run([*command, suite, str(root)], check=True)
        for name in NETWORK_FILES:
            if Path(name).is_file():
                shutil.copy(name, root / name[1:])

    def command(self, script: str, env: dict[str, str]) -> list[str]:
        """Return the command that runs a script of bash in it, apart from other processes."""
        root = shlex.quote(str(self.root))
        kept = {
            k: v
            for k, v in os.environ.items()
            if k.startswith(("PIP_CERT", "PIP_INDEX", "SSL_", "OPENBLAS_"))
        }
        settings = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            **kept,
            **env,
        }
        variables = " ".join(shlex.quote(f"{k}={v}") for k, v in settings.items())
        inner = (
            f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && "
            f"exec chroot {root} env -i {variables} bash -o pipefail -c {shlex.quote(script)}"
        )
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inner]

    def run(self, script: str, log: Path, env: dict[str, str] | None = None) -> float:
        """Run a script of bash to its end and return its seconds.

        Raises:
            AnomalyDetectorError: it failed; names its last lines.
        """
        start = time.monotonic()
        with log.open("ab") as file:
            file.write(f"\n$ {script}\n".encode())
            file.flush()
            offset = file.tell()
            command = self.command(script, env or {})
            try:
                code = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=TIMEOUT_S,
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
        if code:
            text = log.read_bytes()[offset:].decode(errors="replace").strip()
            raise AnomalyDetectorError(f"{script!r} ended with {code}: ...{text[-1500:]}")
        return time.monotonic() - start


@contextmanager
def clean_machine(work: Path, suite: str) -> Iterator[CleanMachine]:
    """Make a clean machine below a folder, and remove it afterwards."""
    work.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(dir=work.resolve(), prefix="machine-"))
    try:
        yield CleanMachine(root, suite)
    finally:
        # Never into what is mounted there: that would be the devices of this machine.
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=False)


def readme_blocks() -> list[str]:
    """Return the blocks of commands of the README's section "Your own robot", in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Your own robot")[1].split("\n## ")[0]
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^ {3}", "", block, flags=re.MULTILINE).strip() for block in blocks]


def put_ros(machine: CleanMachine, launch: Path, distro: str, log: Path) -> None:
    """Put ROS 2 where apt would: wheels of PyPI and ``ros2 launch``, for the system's Python."""
    prefix = f"/opt/ros/{distro}"
    wheels = " ".join(f"ros-{name}" for name in WHEELS.split())
    machine.run(
        f"python3 -m venv --without-pip --system-site-packages {prefix} && "
        f"pip --python {prefix}/bin/python install -q {wheels} packaging",
        log,
    )
    (folder,) = (machine.root / prefix[1:]).glob("lib/python3*/site-packages")
    site = f"/{folder.relative_to(machine.root)}"
    shutil.copytree(launch, folder, dirs_exist_ok=True)
    for program in (folder / "bin").glob("*ros2*"):
        text = program.read_text(encoding="utf-8").partition("\n")[2]
        program.write_text(f"#!/usr/bin/python3\n{text}", encoding="utf-8")
    libraries = [prefix + "/lib", *(f"{site}/{libs.name}" for libs in folder.glob("*.libs"))]
    setup = (
        f"export PYTHONPATH={site}${{PYTHONPATH:+:$PYTHONPATH}}\n"
        f"export AMENT_PREFIX_PATH={site}:{prefix}${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}}\n"
        f"export PATH={site}/bin:$PATH LD_LIBRARY_PATH={':'.join(libraries)}\n"
        f"export ROS_DISTRO={distro} ROS_VERSION=2 ROS_PYTHON_VERSION=3\n"
    )
    (machine.root / prefix[1:] / "setup.bash").write_text(setup, encoding="utf-8")


def put_rosdep(machine: CleanMachine, rosdistro: Path, log: Path) -> None:
    """Give rosdep its keys from a checkout; those of ROS' own packages count as installed."""
    index = machine.root / "rosdistro"
    shutil.copytree(rosdistro, index, ignore=shutil.ignore_patterns(".git"))
    package = (ROOT / "package.xml").read_text(encoding="utf-8")
    keys = re.findall(r"<(?:exec|test)_depend>([a-z0-9_]+)<", package)
    text = "".join(f"{key}:\n  debian: []\n" for key in keys)
    (index / "here.yaml").write_text(text, encoding="utf-8")
    sources = machine.root / "etc/ros/rosdep/sources.list.d"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    files = ("here.yaml", "rosdep/base.yaml", "rosdep/python.yaml")
    lines = "".join(f"yaml file:///rosdistro/{file}\n" for file in files)
    (sources / "20-default.list").write_text(lines, encoding="utf-8")
    machine.run(f"{ROSDISTRO} rosdep update -q", log)


def readme(machine: CleanMachine, arguments: argparse.Namespace, log: Path) -> list[Step]:
    """Follow the README from an empty folder to a flagged hazard; return its steps."""
    packages = f"{APT} {COLCON} git make python3-rosdep2 python3-venv sudo"
    machine.run(
        f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}", log
    )
    put_ros(machine, arguments.launch, "jazzy", log)
    put_rosdep(machine, arguments.rosdistro, log)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(machine.root / "repository")], check=True)
    record, train, install, launch = readme_blocks()
    steps = []

    def step(command: str, before: str, instead: str = "") -> None:
        print(f"$ {command}", flush=True)
        seconds = machine.run(f"set -e; {before}; {instead or command}", log)
        steps.append(Step(command, seconds, instead))

    checkout = "cd ~/anomaly_detector"
    step(
        "git clone <this repository> anomaly_detector",
        "cd",
        "git clone -q /repository anomaly_detector",
    )
    setup, train = train.splitlines()
    step(setup, checkout)
    corridor = ".venv/bin/python -m training corridor --seed 0 --bag raw"
    step(record, checkout, f"{corridor} --out drive --frames 1200 && ln -s drive/bag normal_drive")
    machine.run(
        f"{checkout} && {corridor} --out patrol --drive 2 --frames 300 --hazards boxes human", log
    )
    step(train, checkout)
    workspace = f"cd ~/ros2_ws; {ROSDISTRO} . .venv/bin/activate"
    before = ROS.format("jazzy")
    for line in install.splitlines():
        if line.startswith("mkdir"):
            step(line, before, line.replace("<this repository>", "-q /repository"))
        elif line.startswith("python3 -m venv"):
            step(line, f"{before}; cd ~/ros2_ws")
        else:
            step(line, f"{before}; {workspace}")
    play = "python -m anomaly_detector play ~/anomaly_detector/patrol/bag --loop >~/play.log 2>&1 &"
    command = launch.splitlines()[0]
    script = command.replace("/path/to/", "~/anomaly_detector/")
    start = f"{before}; {workspace}; . install/setup.bash; {play} exec {script}"
    steps.append(Step(command, wait_for(machine, start, "anomaly 1 started", log)))
    return steps


def docker(machine: CleanMachine, arguments: argparse.Namespace, log: Path) -> list[Step]:
    """Run a Dockerfile's commands but for packages that cannot be had; return its steps."""
    import dockerfile

    env = dict(text.split("=", 1) for text in arguments.build_arg)
    folder, steps, start = "/", [], []
    for command in dockerfile.parse_file(arguments.what):
        name, value, begin = command.cmd.upper(), command.value, time.monotonic()
        instead = ""
        if name == "ENV":
            env |= dict(zip(value[::2], value[1::2], strict=True))
        elif name == "ARG" and "=" in value[0]:
            env = dict([value[0].split("=", 1)]) | env
        elif name == "WORKDIR":
            folder = value[0]
            (machine.root / folder[1:]).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = value
            to = machine.root / os.path.join(folder, target)[1:]
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to, dirs_exist_ok=True)
                else:
                    (to if target.endswith("/") else to.parent).mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, to)
        elif name == "RUN":
            if "colcon build" in value[0]:
                put_ros(machine, arguments.launch, env["ROS_DISTRO"], log)
            script, instead = as_debian(value[0])
            print(f"$ {' '.join(script.split())}", flush=True)
            machine.run(f"set -e; cd {folder}; {script}", log, env)
        elif name in {"ENTRYPOINT", "CMD"}:
            start += value
        if name in {"COPY", "RUN"}:
            text = f"{name} {' '.join(' '.join(value).split())}"
            steps.append(Step(text, time.monotonic() - begin, instead))
    seconds = wait_for(machine, f"exec {shlex.join(start)}", "active, waiting for", log, env)
    steps.append(Step(shlex.join(start), seconds))
    return steps


def as_debian(script: str) -> tuple[str, str]:
    """Return a RUN command as it runs without ROS' archive of apt, and what is different."""
    missing = re.findall(r"ros-(?:jazzy|humble)-[a-z0-9-]+", script)
    for name in missing:
        script = re.sub(rf"\s{name}\s", " ", script)
    without = [f"without {', '.join(missing)}"] if missing else []
    archive = re.search(r"&& curl .*?ros2\.list\s+&& apt-get update", script, re.DOTALL)
    if archive:
        script = script.replace(archive.group(), "")
        without.append("without ROS' archive")
    if "python3-colcon-common-extensions" in script:
        script = script.replace("python3-colcon-common-extensions", COLCON)
        without.append("with Debian's colcon")
    return script, "; ".join(without)


def wait_for(
    machine: CleanMachine, script: str, line: str, log: Path, env: dict[str, str] | None = None
) -> float:
    """Start a script and wait for a line of its output; return the seconds, and end it.

    Raises:
        AnomalyDetectorError: it ended, or took two minutes, without that line.
    """
    start = time.monotonic()
    command = machine.command(script, {"ROS_DOMAIN_ID": str(domain_id()), **(env or {})})
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    timer = threading.Timer(120.0, process.kill)
    timer.start()
    assert process.stdout is not None
    try:
        with log.open("ab") as file:
            for said in process.stdout:
                file.write(said)
                if line.encode() in said:
                    print(said.decode().strip())
                    return time.monotonic() - start
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    raise AnomalyDetectorError(f"{script!r}: its output has no {line!r}, see {log}")


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Run all steps, print what each took, and return it."""
    log = arguments.work / "log.txt"
    with clean_machine(arguments.work, arguments.suite) as machine:
        run = readme if arguments.what == "readme" else docker
        steps = run(machine, arguments, log)
    for step in steps:
        print(f"{step.seconds:7.1f} s  {step.command}")
        if step.instead:
            print(f"           here: {step.instead}")
    minutes = sum(step.seconds for step in steps) / 60
    print(f"{minutes:7.1f} min in {len(steps)} commands")
    return {"steps": [vars(step) for step in steps], "minutes": minutes}, True


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = common.options(__doc__)
    parser.add_argument("what", help="readme, or a Dockerfile")
    parser.add_argument("--suite", default="bookworm", help="release of Debian (%(default)s)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE", help="of a Dockerfile"
    )
    parser.add_argument("--rosdistro", type=Path, metavar="DIR", help="a checkout of ros/rosdistro")
    parser.add_argument(
        "--launch", type=Path, required=True, metavar="DIR", help="with launch, ros2cli, ..."
    )
    return parser


if __name__ == "__main__":
    sys.exit(common.run(parser(), measure))
