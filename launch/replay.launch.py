"""Replay a recorded drive through the detector, in simulated time, and keep what it says.

ros2 launch anomaly_detector replay.launch.py bag:=drive out:=drive_results model:=corridor_7.onnx

It is ``python -m anomaly_detector replay``, in the ROS_DOMAIN_ID of the launch: RViz and other
nodes may look on. Exit code 1 when it fails.
"""

import os
import sys
from pathlib import Path
from typing import Any

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    TimerAction,
)
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.ros.launching.actions import (
    DDS_ARGUMENT,
    NAME_ARGUMENTS,
    PARAMS_FILE_ARGUMENT,
    PROVIDERS_ARGUMENT,
    given_parameters,
)


def launch_replay(context: Any) -> list[Any]:
    """Return the action that replays, once the values of the arguments are known."""

    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    names = [*value("namespace").split("/"), value("node_name")]
    options = {
        "--out": str(Path(value("out")).expanduser()),
        "--model": value("model"),
        "--node-name": f"/{'/'.join(filter(None, names))}",
        "--params-file": str(Path(value("params_file")).expanduser()),
        "--rate": value("rate"),
        "--start-timeout": value("start_timeout"),
        "--domain-id": os.environ.get("ROS_DOMAIN_ID") or "0",
        "--topic": value("image_topic"),
        "--storage": value("storage"),
    }
    flags = {
        "--no-pictures": value("record_images") == "false",
        "--no-report": value("report") == "false",
        "--no-dds-profile": value("dds_profile") == "none",
    }
    providers = given_parameters(context, "providers").get("providers", [])
    command = [sys.executable, "-m", "anomaly_detector", "replay"]
    command += [str(Path(value("bag")).expanduser()), "--newest-only", "--allow-missing"]
    command += [f"{option}={text}" for option, text in options.items() if text]
    command += [flag for flag, is_given in flags.items() if is_given]
    command += ["--providers", *providers] if providers else []
    return [ExecuteProcess(cmd=command, name="replay", output="screen", on_exit=end)]


def end(event: Any, context: Any) -> Any:
    """End the launch with the replay; fail when it failed."""
    if context.is_shutdown:
        return None
    if event.returncode == 0:
        return EmitEvent(event=Shutdown(reason="the replay is complete"))

    def fail(_: Any) -> None:
        raise AnomalyDetectorError(f"the replay failed with exit code {event.returncode}")

    # Its last words may reach launch after the news of its end.
    return TimerAction(period=1.0, actions=[OpaqueFunction(function=fail)])


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the process."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag", description="Recording to replay: rosbag2 folder, .mcap or .db3 file."
            ),
            DeclareLaunchArgument(
                "out",
                description="Folder for the results, which must be new or empty: report.html, "
                "timeline.png, scores.csv, events.csv, and the bag results.",
            ),
            DeclareLaunchArgument(
                "image_topic",
                default_value="",
                description="Image topic in the bag, as recorded; empty: its only one.",
            ),
            DeclareLaunchArgument(
                "rate", default_value="1.0", description="Speed, as a factor of the recorded one."
            ),
            DeclareLaunchArgument(
                "start_timeout",
                default_value="30.0",
                description="Longest time for the node to become active, seconds.",
            ),
            DeclareLaunchArgument(
                "storage",
                default_value="",
                choices=["", "mcap", "sqlite3"],
                description="Storage of the recorded bag; empty: mcap.",
            ),
            DeclareLaunchArgument(
                "record_images",
                default_value="true",
                choices=["true", "false"],
                description="Record the camera topic and the overlay beside the scores.",
            ),
            DeclareLaunchArgument(
                "report",
                default_value="true",
                choices=["true", "false"],
                description="Write report.html and timeline.png, which needs matplotlib and "
                "jinja2.",
            ),
            DeclareLaunchArgument(
                "model",
                default_value="corridor",
                description="Name of a model in the package's models folder, or path of an .onnx "
                "file.",
            ),
            *NAME_ARGUMENTS,
            PARAMS_FILE_ARGUMENT,
            PROVIDERS_ARGUMENT,
            DDS_ARGUMENT,
            OpaqueFunction(function=launch_replay),
        ]
    )
