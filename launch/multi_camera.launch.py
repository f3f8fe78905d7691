"""Start one detector node for each camera of a list, each in a namespace of its own.

ros2 launch anomaly_detector multi_camera.launch.py cameras_file:=my_cameras.yaml
"""

from pathlib import Path
from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from anomaly_detector.model.shipped import share_path
from anomaly_detector.ros.launching.actions import (
    DDS_ARGUMENT,
    NODE_ARGUMENTS,
    PROVIDERS_ARGUMENT,
    dds_profile,
    detector_node,
    given_file,
    given_parameters,
    positive_number,
)
from anomaly_detector.ros.launching.camera_list import read_cameras


def launch_nodes(context: Any) -> list[Any]:
    """Return the nodes' actions, once the values of the arguments are known."""
    given = given_parameters(context, "providers", "autostart", "use_sim_time")
    params_file = given_file(context, "params_file")
    return [
        detector_node(
            name="anomaly_detector",
            namespace=camera.name,
            image_topic=camera.image_topic,
            # As with the other launch file, an argument wins over a file.
            parameters=[
                params_file,
                *([] if camera.params_file is None else [str(camera.params_file)]),
                given,
                camera.parameters,
            ],
            respawn=LaunchConfiguration("respawn"),
            respawn_delay=positive_number(context, "respawn_delay", zero=True),
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        )
        for camera in read_cameras(Path(given_file(context, "cameras_file")))
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the nodes."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "cameras_file",
                default_value=str(share_path("config/multi_camera.yaml")),
                description="YAML file with the list of cameras; the default is a documented "
                "example.",
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(share_path("config/detector.yaml")),
                description="YAML file with the parameters that all cameras share; a camera's own "
                "come on top.",
            ),
            PROVIDERS_ARGUMENT,
            *NODE_ARGUMENTS,
            DDS_ARGUMENT,
            dds_profile(),
            OpaqueFunction(function=launch_nodes),
        ]
    )
