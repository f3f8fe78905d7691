"""Start one detector node on a camera topic.

ros2 launch anomaly_detector detector.launch.py model:=drive.onnx image_topic:=/camera/image
"""

from typing import Any

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from anomaly_detector.ros.launch_actions import (
    argument_values,
    dds_profile,
    declare_arguments,
    detector_node,
    parameter_overrides,
    positive_number,
)
from anomaly_detector.ros.launch_arguments import DETECTOR_ARGUMENTS


def make_node(context: Any) -> list[Any]:
    """Make the node's action, once the values of the arguments are known."""
    values = argument_values(context, DETECTOR_ARGUMENTS)
    overrides = parameter_overrides(values)
    overrides["use_sim_time"] = values["use_sim_time"] == "true"
    return [
        detector_node(
            namespace=values["namespace"],
            node_name=values["node_name"],
            image_topic=values["image_topic"],
            parameters=[values["params_file"], overrides],
            respawn=values["respawn"] == "true",
            respawn_delay=positive_number("respawn_delay", values["respawn_delay"], zero=True),
            log_level=values["log_level"],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the node."""
    return LaunchDescription(
        [
            *declare_arguments(DETECTOR_ARGUMENTS),
            dds_profile(),
            OpaqueFunction(function=make_node),
        ]
    )
