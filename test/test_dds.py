"""The Fast DDS profile: loaded by the real middleware, and never against the user's will."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ros_harness

from anomaly_detector.ros.dds import PROFILE_VARIABLES, large_image_environment

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


@pytest.mark.parametrize("variable", PROFILE_VARIABLES)
def test_profile_of_the_user_is_kept(variable: str) -> None:
    base = {"ROS_DISTRO": "jazzy", variable: "/etc/robot/dds.xml"}
    assert large_image_environment(base) == base


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
