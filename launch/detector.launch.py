"""Start one detector node on a camera topic.

ros2 launch anomaly_detector detector.launch.py model:=drive.onnx image_topic:=/camera/image
"""

from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from anomaly_detector.ros.launching.actions import (
    DDS_ARGUMENT,
    NAME_ARGUMENTS,
    NODE_ARGUMENTS,
    PARAMS_FILE_ARGUMENT,
    PROVIDERS_ARGUMENT,
    dds_profile,
    detector_node,
    given_file,
    given_parameters,
    positive_number,
)


def launch_node(context: Any) -> list[Any]:
    """Return the node's action, once the values of the arguments are known."""
    given = given_parameters(
        context, "model", "image_transport", "providers", "autostart", "use_sim_time"
    )
    return [
        detector_node(
            name=LaunchConfiguration("node_name"),
            namespace=LaunchConfiguration("namespace"),
            image_topic=LaunchConfiguration("image_topic"),
            parameters=[given_file(context, "params_file"), given],
            respawn=LaunchConfiguration("respawn"),
            respawn_delay=positive_number(context, "respawn_delay", zero=True),
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the node."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="Name of a model in the package's models folder, or path of an .onnx "
                "file; empty: as the params file says.",
            ),
            DeclareLaunchArgument(
                "image_topic",
                default_value="image",
                description="Camera topic, without /compressed. A relative name is in the "
                "namespace.",
            ),
            DeclareLaunchArgument(
                "image_transport",
                default_value="",
                choices=["", "raw", "compressed"],
                description="raw, or compressed for <image_topic>/compressed; empty: as the params "
                "file says.",
            ),
            *NAME_ARGUMENTS,
            PARAMS_FILE_ARGUMENT,
            PROVIDERS_ARGUMENT,
            *NODE_ARGUMENTS,
            DDS_ARGUMENT,
            dds_profile(),
            OpaqueFunction(function=launch_node),
        ]
    )
