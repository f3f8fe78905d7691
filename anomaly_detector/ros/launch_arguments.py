"""The one definition of each argument of the launch files.

Plain data, which needs neither ROS nor ``launch``, so that a test can compare the tables of
``docs/launch.md`` with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from anomaly_detector.resources import share_path
from anomaly_detector.ros.parameters import IMAGE_TRANSPORTS

__all__ = [
    "DDS_PROFILES",
    "DEFAULT_NODE_NAME",
    "DETECTOR_ARGUMENTS",
    "MULTI_CAMERA_ARGUMENTS",
    "OPTIONAL_PARAMETERS",
    "REPLAY_ARGUMENTS",
    "LaunchArgument",
]

DEFAULT_NODE_NAME = "anomaly_detector"

DDS_PROFILES = ("large_images", "none")

OPTIONAL_PARAMETERS = ("model", "image_transport", "providers", "autostart")
"""Parameters of the node that an argument sets only where it is not empty."""


@dataclass(frozen=True)
class LaunchArgument:
    """One argument of a launch file.

    Attributes:
        name: snake_case name.
        default: value when it is not given; None makes it required.
        description: what it is, in one sentence or two.
        choices: the values it may have; empty for any.
        in_share: ``default`` is a path below the package's share folder.
    """

    name: str
    default: str | None
    description: str
    choices: tuple[str, ...] = ()
    in_share: bool = False

    @property
    def default_value(self) -> str | None:
        """The default as launch gets it.

        Raises:
            AnomalyDetectorError: the package's share folder is missing.
        """
        if self.in_share and self.default is not None:
            return str(share_path(self.default))
        return self.default


_BOOLEANS = ("true", "false")

_MODEL = LaunchArgument(
    "model",
    "",
    "Name of a model in the package's models folder, or path of an .onnx file; empty: as the "
    "params file says.",
)
_IMAGE_TRANSPORT = LaunchArgument(
    "image_transport",
    "",
    "raw, or compressed for <image_topic>/compressed; empty: as the params file says.",
    ("", *IMAGE_TRANSPORTS),
)
_NAMESPACE = LaunchArgument("namespace", "", "Namespace of the node and its topics.")
_NODE_NAME = LaunchArgument(
    "node_name", DEFAULT_NODE_NAME, "Name of the node, which its topics begin with."
)
_PARAMS_FILE = LaunchArgument(
    "params_file", "config/detector.yaml", "YAML file with the node's parameters.", in_share=True
)
_PROVIDERS = LaunchArgument(
    "providers",
    "",
    "ONNX Runtime execution providers in order of preference, with commas or spaces between, for "
    "example 'tensorrt,cuda,cpu'; empty: as the params file says.",
)
_AUTOSTART = LaunchArgument(
    "autostart",
    "",
    "Configure and activate at start; false leaves that to a lifecycle manager; empty: as the "
    "params file says.",
    ("", *_BOOLEANS),
)
_RESPAWN = LaunchArgument(
    "respawn",
    "false",
    "Start the node again when its process ends, whatever the reason; with autostart it comes "
    "back active.",
    _BOOLEANS,
)
_RESPAWN_DELAY = LaunchArgument("respawn_delay", "2.0", "Time before it is started again, seconds.")
_USE_SIM_TIME = LaunchArgument(
    "use_sim_time",
    "false",
    "Take the time from /clock: for simulators and 'ros2 bag play --clock'.",
    _BOOLEANS,
)
_LOG_LEVEL = LaunchArgument("log_level", "info", "debug, info, warn, error or fatal.")
_DDS_PROFILE = LaunchArgument(
    "dds_profile",
    "large_images",
    "large_images has the processes started here load the package's profile for large images, for "
    "Fast DDS or Cyclone DDS, unless the environment names one already; none leaves all as it is.",
    DDS_PROFILES,
)

DETECTOR_ARGUMENTS = (
    _MODEL,
    LaunchArgument(
        "image_topic",
        "image",
        "Camera topic, without /compressed. A relative name is in the namespace.",
    ),
    _IMAGE_TRANSPORT,
    _NAMESPACE,
    _NODE_NAME,
    _PARAMS_FILE,
    _PROVIDERS,
    _AUTOSTART,
    _RESPAWN,
    _RESPAWN_DELAY,
    _USE_SIM_TIME,
    _LOG_LEVEL,
    _DDS_PROFILE,
)

MULTI_CAMERA_ARGUMENTS = (
    LaunchArgument(
        "cameras_file",
        "config/multi_camera.yaml",
        "YAML file with the list of cameras; the default is a documented example.",
        in_share=True,
    ),
    LaunchArgument(
        "params_file",
        "config/detector.yaml",
        "YAML file with the parameters that all cameras share; a camera's own come on top.",
        in_share=True,
    ),
    _PROVIDERS,
    _AUTOSTART,
    _RESPAWN,
    _RESPAWN_DELAY,
    _USE_SIM_TIME,
    _LOG_LEVEL,
    _DDS_PROFILE,
)

REPLAY_ARGUMENTS = (
    LaunchArgument("bag", None, "Recording to replay: rosbag2 folder, .mcap or .db3 file."),
    LaunchArgument(
        "out",
        None,
        "Folder for the results, none of which may exist: recording/ (a bag of the camera topic "
        "and the node's answers), scores.csv and events.csv (computed offline from the same bag).",
    ),
    LaunchArgument(
        "image_topic",
        "",
        "Image topic in the bag, as recorded; empty: its only one.",
    ),
    LaunchArgument("rate", "1.0", "Speed, as a factor of the recorded one."),
    LaunchArgument(
        "start_timeout",
        "30.0",
        "Longest time for player, node and recorder to find each other before the first image, "
        "seconds; they have failed when it is over.",
    ),
    LaunchArgument(
        "storage",
        "",
        "Storage of the recording, mcap or sqlite3; empty: the distro's default.",
        ("", "mcap", "sqlite3"),
    ),
    LaunchArgument(
        "record_images",
        "true",
        "Record the camera topic and the overlay beside the scores.",
        _BOOLEANS,
    ),
    LaunchArgument(
        "report",
        "true",
        "Afterwards run 'python -m anomaly_detector replay' on the same bag, at the same rate and "
        "apart from all other nodes: it compares the node with the offline scores frame by frame "
        "and writes report/report.html and report/timeline.png. Needs matplotlib and jinja2, and "
        "the time of the bag again.",
        _BOOLEANS,
    ),
    LaunchArgument(
        "model",
        "corridor",
        "Name of a model in the package's models folder, or path of an .onnx file.",
    ),
    _NAMESPACE,
    _NODE_NAME,
    _PARAMS_FILE,
    _PROVIDERS,
    _DDS_PROFILE,
)
