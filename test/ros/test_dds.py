"""The profiles for large images: loaded by the real middleware, and never against one's will."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import ros_harness

from anomaly_detector.ros.graph.dds import (
    CYCLONE_VARIABLE,
    PROFILE_VARIABLES,
    large_image_environment,
)

CURRENT, OLDER = PROFILE_VARIABLES

PRINT_LARGEST_SEGMENT = """
import rclpy
rclpy.init()
node = rclpy.create_node("segment")
sizes = [0]
with open("/proc/self/maps") as maps:
    for line in maps:
        if "/dev/shm/fastrtps_" in line or "/dev/shm/fastdds_" in line:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            sizes.append(end - start)
print(rclpy.get_rmw_implementation_identifier(), max(sizes))
node.destroy_node()
rclpy.shutdown()
"""


@pytest.mark.parametrize(
    ("distro", "variable"),
    [("humble", OLDER), ("jazzy", OLDER), ("kilted", CURRENT), ("rolling", CURRENT)],
)
def test_variable_is_the_one_that_the_distro_reads(distro: str, variable: str) -> None:
    base = {"ROS_DISTRO": distro, "HOME": "/home/robot"}
    environment = large_image_environment(base)
    assert set(environment) - set(base) == {variable}
    assert Path(environment[variable]).is_file()
    assert base == {"ROS_DISTRO": distro, "HOME": "/home/robot"}


def test_cyclone_dds_gets_its_own() -> None:
    base = {"ROS_DISTRO": "jazzy", "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    environment = large_image_environment(base)
    assert set(environment) - set(base) == {CYCLONE_VARIABLE}
    file = Path(environment[CYCLONE_VARIABLE].removeprefix("file://"))
    space = "{https://cdds.io/config}"
    domain = ElementTree.parse(file).getroot().find(f"{space}Domain")
    assert domain is not None
    buffer = domain.find(f"{space}Internal/{space}SocketReceiveBufferSize")
    assert buffer is not None
    # A min would keep every node from starting where the kernel allows less.
    assert set(buffer.attrib) == {"max"}


PRINT_CONFIGURATION = """
from cyclonedds.domain import DomainParticipant
DomainParticipant()
"""

TRACE = (
    "<CycloneDDS><Domain><Tracing><Verbosity>config</Verbosity><OutputFile>stdout</OutputFile>"
    "</Tracing></Domain></CycloneDDS>"
)


@pytest.mark.parametrize("is_whole", [True, False])
def test_cyclone_dds_takes_the_profile(is_whole: bool, tmp_path: Path) -> None:
    # PyPI has no rmw_cyclonedds_cpp, but Cyclone DDS itself.
    pytest.importorskip("cyclonedds", reason="cyclonedds is not installed")
    uri = large_image_environment({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"})[CYCLONE_VARIABLE]
    if not is_whole:  # what it does not know, it refuses
        text = Path(uri.removeprefix("file://")).read_text(encoding="utf-8")
        wrong = tmp_path / "wrong.xml"
        wrong.write_text(text.replace("SocketReceiveBufferSize", "SocketBuffer"), encoding="utf-8")
        uri = f"file://{wrong}"
    result = subprocess.run(
        [sys.executable, "-c", PRINT_CONFIGURATION],
        env={**os.environ, CYCLONE_VARIABLE: f"{uri},{TRACE}"},
        capture_output=True,
        text=True,
        timeout=ros_harness.DEADLINE_S,
    )
    assert (result.returncode == 0) == is_whole, result.stderr
    if is_whole:
        for line in (
            "SocketReceiveBufferSize[@max]: 32 MiB",
            "MaxMessageSize/#text: 65500 B",
            "FragmentSize/#text: 16000 B",
        ):
            assert line in result.stdout


@pytest.mark.parametrize(
    "own",
    [
        *({"ROS_DISTRO": "jazzy", name: "/etc/robot/dds.xml"} for name in PROFILE_VARIABLES),
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp", CYCLONE_VARIABLE: "file:///etc/robot/dds.xml"},
        {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"},
        {"RMW_IMPLEMENTATION": "rmw_connextdds"},
    ],
)
def test_own_profile_and_other_middleware_are_left_alone(own: dict[str, str]) -> None:
    assert large_image_environment(own) == own


def test_installed_fast_dds_makes_the_large_segment() -> None:
    assert ros_harness.DOMAIN_ID  # inherited by the process
    base = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
    environment = large_image_environment(base)
    result = subprocess.run(
        [sys.executable, "-c", PRINT_LARGEST_SEGMENT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=ros_harness.DEADLINE_S,
        check=True,
    )
    middleware, size = result.stdout.split()
    if middleware != "rmw_fastrtps_cpp":
        pytest.skip(f"the middleware here is {middleware}")
    assert result.stderr == ""
    assert int(size) >= 32 * 2**20
