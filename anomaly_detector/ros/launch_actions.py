"""What the launch files share: their arguments and the detector node as ``launch`` actions.

The node is an ordinary ``Node`` action, not a ``LifecycleNode``: it configures and activates itself
(``autostart``), so that it comes back active when it is respawned, which launch's own lifecycle
events do once only. A lifecycle manager does as well with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.resources import PACKAGE_NAME
from anomaly_detector.ros.dds import large_image_environment
from anomaly_detector.ros.launch_arguments import OPTIONAL_PARAMETERS, LaunchArgument

__all__ = [
    "argument_values",
    "dds_profile",
    "declare_arguments",
    "detector_node",
    "parameter_overrides",
    "positive_number",
]


def declare_arguments(arguments: Sequence[LaunchArgument]) -> list[DeclareLaunchArgument]:
    """Declare arguments, in their order."""
    return [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default_value,
            description=argument.description,
            choices=argument.choices or None,
        )
        for argument in arguments
    ]


def argument_values(context: Any, arguments: Sequence[LaunchArgument]) -> dict[str, str]:
    """Give the values of declared arguments, once launch knows them."""
    return {
        argument.name: str(LaunchConfiguration(argument.name).perform(context))
        for argument in arguments
    }


def dds_profile() -> OpaqueFunction:
    """Set the profile for large images as ``dds_profile`` says, for all that is started later.

    That covers camera drivers in the same launch: raw images need it where they are published.
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


def positive_number(name: str, text: str, *, zero: bool = False) -> float:
    """Read the number of an argument.

    Args:
        name: of the argument, for the error.
        text: its value.
        zero: 0 is good, too.

    Raises:
        AnomalyDetectorError: it is none, or out of range.
    """
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not (0.0 < number < float("inf") or (zero and number == 0.0)):
        raise AnomalyDetectorError(f"{name} is {text!r}: give a positive number, such as 2.0")
    return number


def parameter_overrides(values: Mapping[str, str]) -> dict[str, Any]:
    """Give the parameters that non-empty arguments set, with the types that the node declares.

    Args:
        values: of the arguments; those that are no parameter are left out.
    """
    overrides: dict[str, Any] = {}
    for name in OPTIONAL_PARAMETERS:
        value = values.get(name, "")
        if not value:
            continue
        if name == "autostart":
            overrides[name] = value == "true"
        elif name == "providers":
            overrides[name] = [part for part in re.split(r"[,\s]+", value) if part]
        else:
            overrides[name] = value
    return overrides


def detector_node(
    *,
    namespace: str,
    image_topic: str,
    compressed_topic: str | None = None,
    parameters: Sequence[str | Mapping[str, Any]],
    node_name: str,
    respawn: bool = False,
    respawn_delay: float = 2.0,
    log_level: str = "info",
) -> Node:
    """Make the action that starts one detector node.

    Args:
        namespace: of the node; empty for none.
        image_topic: what ``image`` is remapped to.
        compressed_topic: what ``image/compressed`` is remapped to; None for the usual name below
            ``image_topic``.
        parameters: paths of params files, and values; later ones win.
        node_name: of the node.
        respawn: start it again when its process ends.
        respawn_delay: seconds before that.
        log_level: of the process.
    """
    compressed = f"{image_topic}/compressed" if compressed_topic is None else compressed_topic
    return Node(
        package=PACKAGE_NAME,
        executable="detector_node",
        name=node_name,
        namespace=namespace,
        parameters=[item if isinstance(item, str) else _typed(item) for item in parameters],
        remappings=[
            ("image", image_topic),
            # For ROS this is a topic of its own, which the rule above does not cover.
            ("image/compressed", compressed),
        ],
        ros_arguments=["--log-level", log_level],
        respawn=respawn,
        respawn_delay=respawn_delay,
        output="screen",
    )


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    # launch_ros reads texts as YAML: a model named 2024 would become a number.
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in values.items()
    }
