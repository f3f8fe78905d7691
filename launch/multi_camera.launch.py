"""Start one detector node for each camera of a list, each in a namespace of its own.

ros2 launch anomaly_detector multi_camera.launch.py cameras_file:=my_cameras.yaml
"""

from pathlib import Path
from typing import Any

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from anomaly_detector.ros.camera_list import read_cameras
from anomaly_detector.ros.launch_actions import (
    argument_values,
    dds_profile,
    declare_arguments,
    detector_node,
    parameter_overrides,
    positive_number,
)
from anomaly_detector.ros.launch_arguments import DEFAULT_NODE_NAME, MULTI_CAMERA_ARGUMENTS


def make_nodes(context: Any) -> list[Any]:
    """Make the nodes' actions, once the values of the arguments are known."""
    values = argument_values(context, MULTI_CAMERA_ARGUMENTS)
    overrides = parameter_overrides(values)
    overrides["use_sim_time"] = values["use_sim_time"] == "true"
    delay = positive_number("respawn_delay", values["respawn_delay"], zero=True)
    return [
        detector_node(
            namespace=camera.name,
            node_name=DEFAULT_NODE_NAME,
            image_topic=camera.image_topic,
            parameters=[
                values["params_file"],
                *([] if camera.params_file is None else [str(camera.params_file)]),
                # As with the other launch file, an argument wins over a file.
                overrides,
                camera.parameters,
            ],
            respawn=values["respawn"] == "true",
            respawn_delay=delay,
            log_level=values["log_level"],
        )
        for camera in read_cameras(Path(values["cameras_file"]))
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the nodes."""
    return LaunchDescription(
        [
            *declare_arguments(MULTI_CAMERA_ARGUMENTS),
            dds_profile(),
            OpaqueFunction(function=make_nodes),
        ]
    )
