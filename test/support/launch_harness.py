"""The launch files run by the real launch system, for the tests that need it.

Import it after ``pytest.importorskip("launch_ros")``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launch.launch_description_sources import AnyLaunchDescriptionSource
from ros_harness import ROOT, Process, running

RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
path, *arguments = sys.argv[1:]
service = LaunchService()
pairs = [tuple(argument.split(":=", 1)) for argument in arguments]
source = AnyLaunchDescriptionSource(path)
include = IncludeLaunchDescription(source, launch_arguments=pairs)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""

EXECUTABLE = f"""#!{sys.executable}
import sys
from anomaly_detector.ros.detector_node import main
sys.exit(main())
"""


def launch_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which the checkout is an installed ROS package; uses the folder."""
    prefix = folder / "prefix"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "anomaly_detector").touch()
    executable = prefix / "lib" / "anomaly_detector" / "detector_node"
    executable.parent.mkdir(parents=True)
    executable.write_text(EXECUTABLE, encoding="utf-8")
    executable.chmod(0o755)

    def with_first(first: Path, name: str) -> str:
        return os.pathsep.join(part for part in (str(first), os.environ.get(name, "")) if part)

    return {
        **os.environ,
        "AMENT_PREFIX_PATH": with_first(prefix, "AMENT_PREFIX_PATH"),
        "PYTHONPATH": with_first(ROOT, "PYTHONPATH"),
        "ROS_LOG_DIR": str(folder / "log"),
    }


@contextmanager
def launched(
    environment: dict[str, str], file: str = "detector.launch.py", /, **arguments: object
) -> Iterator[Process]:
    """Launch a file of this package with arguments, and end it at the end of the block."""
    pairs = [f"{name}:={value}" for name, value in arguments.items()]
    path = ROOT / "launch" / file
    with running([sys.executable, "-c", RUN, str(path), *pairs], environment) as process:
        try:
            yield process
        finally:
            if process.is_running:
                # Ctrl-C: on SIGTERM, launch goes away without its processes.
                process.send_signal(signal.SIGINT)
                process.wait()


def load(file: str) -> Any:
    """Return the launch description of a file of this package."""
    source = AnyLaunchDescriptionSource(str(ROOT / "launch" / file))
    return source.try_get_launch_description_without_context()
