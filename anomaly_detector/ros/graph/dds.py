"""Keeping large images alive on the middlewares of ROS 2.

**Fast DDS**, the default: a 640x480 rgb8 image has 0.92 MB, but the shared-memory segment 0.5 MB,
so such images travel as fragmented UDP, of which a best-effort subscription receives next to
nothing. The profile ``config/fastdds_large_images.xml`` makes the segment large enough. It has to
be loaded by the process that *publishes* the images; ``benchmarks/frame_loss.py`` shows the
difference.

**Cyclone DDS** has no shared memory of its own: images travel as UDP, and what overflows the
subscriber's socket buffer is lost. ``config/cyclonedds_large_images.xml`` asks for a larger buffer;
it has to be loaded by the process that *subscribes*, and the kernel has to allow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from anomaly_detector.model.shipped import share_path

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""What Fast DDS 3 (Kilted and later) and Fast DDS 2 (Jazzy and earlier) read."""

CYCLONE_VARIABLE = "CYCLONEDDS_URI"
"""What Cyclone DDS reads."""

_MIDDLEWARE_VARIABLE = "RMW_IMPLEMENTATION"
_FAST_DDS = frozenset({"rmw_fastrtps_cpp", "rmw_fastrtps_dynamic_cpp"})
_CYCLONE = "rmw_cyclonedds_cpp"
_FAST_DDS_2_DISTROS = frozenset({"foxy", "galactic", "humble", "iron", "jazzy"})


def large_image_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of an environment in which a process loads the profile for large images.

    Its ``RMW_IMPLEMENTATION`` names the middleware, Fast DDS when it is not set, which reads its
    variable when the process makes its first participant. Nothing is added when the user has set a
    profile of their own, and for a middleware that this package has none for.

    Raises:
        AnomalyDetectorError: the package's share folder is missing.
    """
    environment = dict(base)
    middleware = environment.get(_MIDDLEWARE_VARIABLE)
    if middleware == _CYCLONE:
        if not environment.get(CYCLONE_VARIABLE):
            profile = share_path("config", "cyclonedds_large_images.xml")
            # Not as_uri(): Cyclone DDS takes what follows file:// as it is.
            environment[CYCLONE_VARIABLE] = f"file://{profile}"
        return environment
    if middleware and middleware not in _FAST_DDS:
        return environment
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
