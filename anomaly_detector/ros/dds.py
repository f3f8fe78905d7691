"""Keeping large images alive on Fast DDS, the default middleware of ROS 2.

A 640x480 rgb8 image has 0.92 MB, but Fast DDS' shared-memory segment 0.5 MB, so such images travel
as fragmented UDP, of which a best-effort subscription receives next to nothing. The profile
``config/fastdds_large_images.xml`` makes the segment large enough. It has to be loaded by the
process that *publishes* the images; ``benchmarks/frame_loss.py`` shows the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from anomaly_detector.resources import share_path

__all__ = ["PROFILE_VARIABLES", "large_image_environment"]

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""What Fast DDS 3 (Kilted and later) and Fast DDS 2 (Jazzy and earlier) read."""

_FAST_DDS_2_DISTROS = frozenset({"foxy", "galactic", "humble", "iron", "jazzy"})


def large_image_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Give an environment in which a process loads the profile for large images.

    Args:
        base: the environment to start from, for example ``os.environ``; not changed. Fast DDS reads
            the variable when the process makes its first participant.

    Returns:
        A copy of ``base``, with the variable that the distro's Fast DDS reads; unchanged when
        the user has set a profile of their own.

    Raises:
        AnomalyDetectorError: the package's share folder is missing.
    """
    environment = dict(base)
    if any(environment.get(name) for name in PROFILE_VARIABLES):
        return environment
    current, older = PROFILE_VARIABLES
    # One only: Fast DDS 3 reads the older name too, but complains about it.
    variable = older if _has_fast_dds_2(environment.get("ROS_DISTRO")) else current
    environment[variable] = str(share_path("config", "fastdds_large_images.xml"))
    return environment


def _has_fast_dds_2(distro: str | None) -> bool:
    if distro:
        return distro in _FAST_DDS_2_DISTROS
    # PyPI's wheels set no ROS_DISTRO, but say which rclpy they are: 7 is Jazzy's, 9 Kilted's.
    try:
        return int(version("rclpy").split(".")[0]) < 9
    except (PackageNotFoundError, ValueError):
        return False
