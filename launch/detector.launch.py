"""Start one detector node on a camera topic.

The arguments ``model`` and ``image_transport`` are left to the params file unless they are given.
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from anomaly_detector.resources import share_path
from anomaly_detector.ros.dds import large_image_environment
from anomaly_detector.ros.parameters import IMAGE_TRANSPORTS

OPTIONAL_PARAMETERS = ("model", "image_transport")


def make_node(context: LaunchContext) -> list[Node]:
    """Make the node's action, once the values of the arguments are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name in OPTIONAL_PARAMETERS}
    overrides = {
        # A model named 2024 is a text, not a number.
        name: ParameterValue(value, value_type=str)
        for name, value in given.items()
        if value
    }
    image_topic = LaunchConfiguration("image_topic")
    return [
        Node(
            package="anomaly_detector",
            executable="detector_node",
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                LaunchConfiguration("params_file"),
                {
                    "use_sim_time": ParameterValue(
                        LaunchConfiguration("use_sim_time"), value_type=bool
                    ),
                    **overrides,
                },
            ],
            remappings=[
                ("image", image_topic),
                # For ROS this is a topic of its own, which the rule above does not cover.
                ("image/compressed", [image_topic, "/compressed"]),
            ],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the node."""
    arguments = [
        DeclareLaunchArgument(
            "model",
            default_value="",
            description="Path of an .onnx file, or the name of a model of this package; "
            "empty: as the params file says.",
        ),
        DeclareLaunchArgument(
            "image_topic",
            default_value="image",
            description="Camera topic, without /compressed. A relative name is in the namespace.",
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value="",
            choices=["", *IMAGE_TRANSPORTS],
            description="raw, or compressed for <image_topic>/compressed; "
            "empty: as the params file says.",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(share_path("config", "detector.yaml")),
            description="YAML file with the node's parameters.",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node and its topics."
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
    # For nodes that are started after this one in the same launch, camera drivers above all: raw
    # images need it in the process that publishes them.
    profile = [
        SetEnvironmentVariable(name, value)
        for name, value in large_image_environment(os.environ).items()
        if name not in os.environ
    ]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=make_node)])
