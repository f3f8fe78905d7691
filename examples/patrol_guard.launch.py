"""Start a detector and the guard that stops the robot on its alarm.

ros2 launch examples/patrol_guard.launch.py image_topic:=/camera/image_raw stop_topic:=/pause
"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from anomaly_detector.model.shipped import share_path

GUARD = Path(__file__).with_name("patrol_guard.py")


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, the detector and the guard."""
    stop = ["/patrol_guard/stop:=", LaunchConfiguration("stop_topic")]
    return LaunchDescription(
        [
            DeclareLaunchArgument("image_topic", description="Camera topic."),
            DeclareLaunchArgument(
                "stop_topic", default_value="/pause_navigation", description="Lock of twist_mux."
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(share_path("launch/detector.launch.py"))),
                launch_arguments={"image_topic": LaunchConfiguration("image_topic")}.items(),
            ),
            ExecuteProcess(
                cmd=[sys.executable, str(GUARD), "--ros-args", "-r", stop], output="screen"
            ),
        ]
    )
