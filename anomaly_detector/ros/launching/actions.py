"""What the launch files share: arguments and the detector node.

The node is an ordinary ``Node`` action, not a ``LifecycleNode``: it configures and activates itself
(``autostart``), so that it comes back active when it is respawned, which launch's own lifecycle
events do once only. A lifecycle manager does as well with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.shipped import PACKAGE_NAME, share_path
from anomaly_detector.ros.graph.dds import large_image_environment

NAME_ARGUMENTS = [
    DeclareLaunchArgument(
        "namespace", default_value="", description="Namespace of the node and its topics."
    ),
    DeclareLaunchArgument(
        "node_name",
        default_value="anomaly_detector",
        description="Name of the node, which its topics begin with.",
    ),
]

PARAMS_FILE_ARGUMENT = DeclareLaunchArgument(
    "params_file",
    default_value=str(share_path("config/detector.yaml")),
    description="YAML file with the node's parameters.",
)

PROVIDERS_ARGUMENT = DeclareLaunchArgument(
    "providers",
    default_value="",
    description="ONNX Runtime execution providers in order of preference, with commas or spaces "
    "between, for example 'tensorrt,cuda,cpu'; empty: as the params file says. The GPU is "
    "experimental.",
)

NODE_ARGUMENTS = [
    DeclareLaunchArgument(
        "autostart",
        default_value="",
        choices=["", "true", "false"],
        description="Configure and activate at start; false leaves that to a lifecycle manager; "
        "empty: as the params file says.",
    ),
    DeclareLaunchArgument(
        "respawn",
        default_value="false",
        choices=["true", "false"],
        description="Start the node again when its process ends, whatever the reason; with "
        "autostart it comes back active.",
    ),
    DeclareLaunchArgument(
        "respawn_delay",
        default_value="2.0",
        description="Time before it is started again, seconds.",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=["true", "false"],
        description="Take the time from /clock: for simulators and 'ros2 bag play --clock'.",
    ),
    DeclareLaunchArgument(
        "log_level", default_value="info", description="debug, info, warn, error or fatal."
    ),
]

DDS_ARGUMENT = DeclareLaunchArgument(
    "dds_profile",
    default_value="large_images",
    choices=["large_images", "none"],
    description="large_images has the processes started here load the package's profile for large "
    "images, for Fast DDS or Cyclone DDS, unless the environment names one already; none leaves "
    "all as it is.",
)


def dds_profile() -> OpaqueFunction:
    """Set the profile for large images as ``dds_profile`` says, for all that is started later.

    That covers camera drivers in the same launch: raw images need it where they are published. So
    it stands in no ``GroupAction``, which would take it back.
    """

    def set_profile(context: Any) -> list[SetEnvironmentVariable]:
        if LaunchConfiguration("dds_profile").perform(context) == "none":
            return []
        return [
            SetEnvironmentVariable(name, value)
            for name, value in large_image_environment(os.environ).items()
            if os.environ.get(name) != value
        ]

    return OpaqueFunction(function=set_profile)


def positive_number(context: Any, name: str, *, zero: bool = False) -> float:
    """Return the number that an argument has; with ``zero``, 0 is good, too.

    Raises:
        AnomalyDetectorError: it is none, or out of range.
    """
    text = LaunchConfiguration(name).perform(context)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not (0.0 < number < float("inf") or (zero and number == 0.0)):
        raise AnomalyDetectorError(f"{name} is {text!r}: give a positive number, such as 2.0")
    return number


_READERS: dict[str, Callable[[str], Any]] = {
    "autostart": "true".__eq__,
    "use_sim_time": "true".__eq__,
    "providers": lambda text: [part for part in re.split(r"[,\s]+", text) if part],
}


def given_parameters(context: Any, *names: str) -> dict[str, Any]:
    """Return the node's parameters that arguments of their names set, where not empty."""
    texts = {name: LaunchConfiguration(name).perform(context) for name in names}
    values = {name: _READERS.get(name, str)(text) for name, text in texts.items() if text}
    return {name: value for name, value in values.items() if value != []}


def given_file(context: Any, name: str) -> str:
    """Return the file that an argument names, with ``~`` for the user's home.

    Of a params file that is not there, launch_ros would warn, and start the node without it.

    Raises:
        AnomalyDetectorError: it does not exist.
    """
    path = os.path.expanduser(str(LaunchConfiguration(name).perform(context)))
    if not os.path.isfile(path):
        raise AnomalyDetectorError(f"{name} is {path!r}, which is no file: check the path")
    return path


def detector_node(
    *, name: Any, namespace: Any, image_topic: Any, parameters: Sequence[Any], **options: Any
) -> Node:
    """Return the action that starts one detector node.

    ``image`` is remapped to the topic, without ``/compressed``. Parameters are params files and
    mappings of values; later ones win. Options are those of :class:`launch_ros.actions.Node`.
    """
    return Node(
        package=PACKAGE_NAME,
        executable="detector_node",
        name=name,
        namespace=namespace,
        parameters=[_typed(p) if isinstance(p, Mapping) else p for p in parameters],
        remappings=[
            ("image", image_topic),
            # For ROS this is a topic of its own, which the rule above does not cover.
            ("image/compressed", [image_topic, "/compressed"]),
        ],
        output="screen",
        **options,
    )


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    # launch_ros reads texts as YAML: a model named 2024 would become a number.
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in values.items()
    }
