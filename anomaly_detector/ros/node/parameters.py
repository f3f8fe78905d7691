"""The one definition of each parameter of the detector node.

The definitions are plain data and need no ROS, so that tables are made from them and a test can
compare ``config/detector.yaml`` with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from anomaly_detector.alarms.alarm_filter import ALARM_OPTIONS, AlarmSettings
from anomaly_detector.alarms.incidents import INCIDENT_SETTINGS, IncidentSettings
from anomaly_detector.black_box import BLACK_BOX_SETTINGS, BlackBoxSettings
from anomaly_detector.drawing.overlay import MAX_SIDE
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import RegionOfInterest
from anomaly_detector.images.preprocessing import View
from anomaly_detector.monitoring.gate import GATE_SETTINGS, GateSettings
from anomaly_detector.monitoring.health import HEALTH_SETTINGS, HealthLimits
from anomaly_detector.poses import POSE_SETTINGS, PoseSettings
from anomaly_detector.settings import Setting

ParameterValue = bool | str | float | int | list[str] | list[int] | list[float]

IMAGE_TRANSPORTS = ("raw", "compressed")


@dataclass(frozen=True)
class ParameterDefinition:
    """One parameter: its name, default and description, and the values that it may have.

    The default gives its type. A read-only one can be set at start only; the others apply between
    two frames.
    """

    name: str
    default: ParameterValue
    description: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    read_only: bool = False

    @property
    def type(self) -> str:
        """ROS parameter type: ``bool``, ``double``, ``string_array``, ..."""
        if isinstance(self.default, list):
            return f"{_ROS_TYPES[type(self.default[0])]}_array"
        return _ROS_TYPES[type(self.default)]

    @property
    def is_dynamic(self) -> bool:
        """Whether ROS is to take any type: a string would not take YAML 1.1's false for off."""
        return "off" in self.choices

    @property
    def constraint(self) -> str:
        """What a value must be, in words: ``an integer from 1 to 64``."""
        if self.choices:
            return " or ".join(self.choices)
        if self.minimum is not None:
            kind = "an integer" if self.type == "integer" else "a double"
            return f"{kind} from {self.minimum:g} to {self.maximum:g}"
        return {
            "bool": "true or false",
            "string": "a string",
            "double": "a double (with a decimal point: 1000.0)",
            "integer": "an integer",
            "string_array": "an array of at least one string",
            "integer_array": "an array of integers",
            "double_array": "an array of doubles (with decimal points)",
        }[self.type]


_ROS_TYPES = {bool: "bool", str: "string", int: "integer", float: "double"}


def _parameters_of(
    settings: Sequence[Setting], prefix: str, siblings: str = "(?!)"
) -> list[ParameterDefinition]:
    """Make parameters of settings of the core; ``siblings`` in the texts get the prefix, too."""
    return [
        ParameterDefinition(
            f"{prefix}{setting.name}",
            setting.default,
            re.sub(siblings, rf"{prefix}\g<0>", setting.description),
            setting.choices,
            setting.minimum,
            setting.maximum,
        )
        for setting in settings
    ]


def _settings_of(values: Mapping[str, Any], settings: Sequence[Setting], prefix: str) -> Any:
    return {setting.name: values[f"{prefix}{setting.name}"] for setting in settings}


PARAMETERS: tuple[ParameterDefinition, ...] = (
    ParameterDefinition(
        "model",
        "corridor",
        "Path of an .onnx file, or the name of a model in the package's models folder. Set while "
        "active, the new model is loaded beside the old one and takes over between two frames.",
    ),
    ParameterDefinition(
        "autostart",
        True,
        "Configure and activate at start; false leaves that to a lifecycle manager.",
        read_only=True,
    ),
    ParameterDefinition(
        "image_transport",
        "raw",
        "raw subscribes to image, compressed to image/compressed.",
        choices=IMAGE_TRANSPORTS,
    ),
    ParameterDefinition(
        "region_of_interest",
        [0, 0, 0, 0],
        "Part of the frame that is looked at: x, y, width, height in pixels; a width or height of "
        "0 goes to the edge. All 0 takes the region that the model was trained on "
        "(training train --region); another one gives a warning.",
    ),
    ParameterDefinition(
        "image_scaling",
        [0.0, 0.0],
        "The values that become black and white, for depth and infrared images (16UC1, 32FC1), "
        "which are refused without, and for 16-bit ones of fewer bits. Two equal values take the "
        "model's own (training train --image-scaling); others give a warning.",
    ),
    ParameterDefinition(
        "threshold",
        math.nan,
        "A frame is an anomaly when its score is at or above this value, in the model's score "
        "units; NaN takes the model's own calibrated threshold.",
    ),
    # Not an empty array: rclpy takes that for an array of bytes, whatever type is declared.
    ParameterDefinition(
        "providers",
        [""],
        "ONNX Runtime execution providers in order of preference; one empty string takes TensorRT "
        "or CUDA where they are installed, and the CPU otherwise. The GPU is experimental.",
    ),
    ParameterDefinition(
        "require_gpu",
        False,
        "Refuse to run on the CPU: an error instead of a warning when no GPU provider works.",
    ),
    ParameterDefinition(
        "intra_op_threads",
        1,
        "Threads inside one operator; these small networks are fastest with one.",
        minimum=1,
        maximum=64,
    ),
    ParameterDefinition(
        "fp16",
        False,
        "Use FP16 in TensorRT; other providers ignore it. Experimental.",
    ),
    ParameterDefinition(
        "cuda_graph",
        False,
        "Record the GPU's work for one frame and replay it (CUDA, TensorRT). Experimental.",
    ),
    *_parameters_of(ALARM_OPTIONS, "alarm_", r"\b(raise|clear|immediate)_"),
    ParameterDefinition(
        "overlay_max_side",
        MAX_SIDE,
        "Longest side of the camera's picture in ~/overlay, pixels; larger ones are resized.",
        minimum=64,
        maximum=4096,
    ),
    ParameterDefinition(
        "overlay_boxes",
        True,
        "Draw a box around each hot region in ~/overlay.",
    ),
    *_parameters_of(HEALTH_SETTINGS, ""),
    ParameterDefinition(
        "diagnostics_period",
        1.0,
        "Time between two messages on /diagnostics, seconds.",
        minimum=0.1,
        maximum=60.0,
    ),
    *_parameters_of(GATE_SETTINGS, ""),
    *_parameters_of(POSE_SETTINGS, "pose_"),
    *_parameters_of(INCIDENT_SETTINGS, ""),
    *_parameters_of(BLACK_BOX_SETTINGS, "black_box_"),
)
"""The parameters of the detector node, in the order in which they are documented."""

SESSION_PARAMETERS = frozenset(
    {"model", "providers", "require_gpu", "intra_op_threads", "fp16", "cuda_graph"}
)
"""A change of these loads the model anew."""


@dataclass(frozen=True)
class Parameters:
    """The values of :data:`PARAMETERS`, those of one purpose together, as the core takes them.

    None stands for the model's own threshold, the default providers, and no black box.
    """

    model: str
    autostart: bool
    image_transport: str
    view: View
    threshold: float | None
    providers: tuple[str, ...] | None
    require_gpu: bool
    intra_op_threads: int
    fp16: bool
    cuda_graph: bool
    alarm: AlarmSettings
    overlay_max_side: int
    overlay_boxes: bool
    limits: HealthLimits
    diagnostics_period: float
    gate: GateSettings
    pose: PoseSettings
    incidents: IncidentSettings
    black_box: BlackBoxSettings | None


def parameters_of(values: Mapping[str, Any]) -> Parameters:
    """Return the parameters with some values in the place of their defaults, without a node.

    Raises:
        AnomalyDetectorError: a value of another type, or not one of the choices.
    """
    checked = {}
    for definition in PARAMETERS:
        value = check_value(definition, values.get(definition.name, definition.default))
        if _types(value) != _types(definition.default):
            raise AnomalyDetectorError(
                f"parameter {definition.name!r} is {value!r}, it must be {definition.constraint}"
            )
        checked[definition.name] = value
    return to_parameters(checked)


def _types(value: Any) -> set[type]:
    return {type(value), *map(type, value if isinstance(value, list) else ())}


def to_parameters(values: Mapping[str, Any]) -> Parameters:
    """Return values that were checked one by one as the core takes them.

    Raises:
        AnomalyDetectorError: a value that the core refuses.
    """
    threshold = float(values["threshold"])
    if math.isinf(threshold):
        raise AnomalyDetectorError(
            f"parameter 'threshold' is {threshold}: give a finite number, or NaN for the model's"
        )
    providers = tuple(str(name) for name in values["providers"])
    black_box = BlackBoxSettings(**_settings_of(values, BLACK_BOX_SETTINGS, "black_box_"))
    same = {field.name: values[field.name] for field in fields(Parameters) if field.name in values}
    others = {
        "view": View(
            _region(list(values["region_of_interest"])), _scaling(list(values["image_scaling"]))
        ),
        "threshold": None if math.isnan(threshold) else threshold,
        "providers": None if providers == ("",) else providers,
        "alarm": AlarmSettings(**_settings_of(values, ALARM_OPTIONS, "alarm_")),
        "limits": HealthLimits(**_settings_of(values, HEALTH_SETTINGS, "")),
        "gate": GateSettings(**_settings_of(values, GATE_SETTINGS, "")),
        "pose": PoseSettings(**_settings_of(values, POSE_SETTINGS, "pose_")),
        "incidents": IncidentSettings(**_settings_of(values, INCIDENT_SETTINGS, "")),
        "black_box": black_box if black_box.folder else None,
    }
    return Parameters(**{**same, **others})


def _region(values: list[int]) -> RegionOfInterest:
    if len(values) != 4:
        raise AnomalyDetectorError(
            f"parameter 'region_of_interest' is {values}: give x, y, width and height"
        )
    return RegionOfInterest(*values)


def _scaling(values: list[float]) -> ImageScaling | None:
    if len(values) != 2:
        raise AnomalyDetectorError(
            f"parameter 'image_scaling' is {values}: give the values for black and for white"
        )
    return None if values[0] == values[1] else ImageScaling(*values)


def check_value(definition: ParameterDefinition, value: Any) -> Any:
    """Check what rclpy does not: choices, and arrays that are empty."""
    if value is False and definition.is_dynamic:
        value = "off"
    # rclpy gives None for an empty array, whatever its declared type.
    if value is None or (definition.choices and value not in definition.choices):
        raise AnomalyDetectorError(
            f"parameter {definition.name!r} is {'empty' if value is None else repr(value)}, "
            f"it must be {definition.constraint}"
        )
    return value
