"""The one definition of each parameter of the detector node.

The definitions are plain data and need no ROS, so that a test can compare the node,
``config/detector.yaml`` and the README table with them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from anomaly_detector.decision import DECISION_OPTIONS, DecisionOption, DecisionSettings
from anomaly_detector.errors import AnomalyDetectorError

__all__ = [
    "IMAGE_TRANSPORTS",
    "PARAMETERS",
    "ParameterDefinition",
    "ParameterType",
    "ParameterValue",
    "Parameters",
    "declare_parameters",
]

ParameterType = Literal["string", "double", "integer", "string_array"]
ParameterValue = str | float | int | list[str]

IMAGE_TRANSPORTS = ("raw", "compressed")


@dataclass(frozen=True)
class ParameterDefinition:
    """One parameter.

    Attributes:
        name: snake_case name.
        type: ROS parameter type.
        default: value without a params file; of the type ``type`` says.
        description: what it is, in one sentence or two.
        choices: the values a string may have; empty for any.
        minimum: smallest value of a number; None for no range.
        maximum: largest value of a number; None for no range.
        read_only: it can be set at start only.
    """

    name: str
    type: ParameterType
    default: ParameterValue
    description: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    read_only: bool = True

    @property
    def constraint(self) -> str:
        """What a value must be, in words: ``an integer from 1 to 64``."""
        if self.choices:
            return " or ".join(self.choices)
        if self.minimum is not None:
            kind = "an integer" if self.type == "integer" else "a double"
            return f"{kind} from {self.minimum:g} to {self.maximum:g}"
        return {
            "string": "a string",
            "double": "a double (with a decimal point: 1000.0)",
            "integer": "an integer",
            "string_array": "an array of at least one string",
        }[self.type]


_ROS_TYPES: dict[type, ParameterType] = {str: "string", int: "integer", float: "double"}


def _decision_parameter(option: DecisionOption) -> ParameterDefinition:
    return ParameterDefinition(
        f"alarm_{option.name}",
        _ROS_TYPES[type(option.default)],
        option.default,
        re.sub(r"\b(raise|clear|immediate)_", r"alarm_\1_", option.description),
        choices=option.choices,
        minimum=option.minimum,
        maximum=option.maximum,
    )


PARAMETERS: tuple[ParameterDefinition, ...] = (
    ParameterDefinition(
        "model",
        "string",
        "corridor",
        "Path of an .onnx file, or the name of a model in the package's models folder.",
    ),
    ParameterDefinition(
        "image_transport",
        "string",
        "raw",
        "raw subscribes to image, compressed to image/compressed.",
        choices=IMAGE_TRANSPORTS,
    ),
    ParameterDefinition(
        "threshold",
        "double",
        math.nan,
        "A frame is an anomaly when its score is at or above this value, in the model's score "
        "units; NaN takes the model's own calibrated threshold.",
    ),
    # Not an empty array: rclpy takes that for an array of bytes, whatever type is declared.
    ParameterDefinition(
        "providers",
        "string_array",
        [""],
        "ONNX Runtime execution providers in order of preference; one empty string takes CUDA "
        "where it is installed, and the CPU otherwise.",
    ),
    ParameterDefinition(
        "intra_op_threads",
        "integer",
        1,
        "Threads inside one operator; these small networks are fastest with one.",
        minimum=1,
        maximum=64,
    ),
    *map(_decision_parameter, DECISION_OPTIONS),
)
"""The parameters of the detector node, in the order in which they are documented."""


@dataclass(frozen=True)
class Parameters:
    """The values of one node's parameters, as the core takes them.

    Attributes:
        model: path or name, for :func:`anomaly_detector.resources.resolve_model`.
        image_transport: one of :data:`IMAGE_TRANSPORTS`.
        threshold: None for the model's own.
        providers: None for the default.
        intra_op_threads: at least 1.
        decision: when an alarm is raised and cleared.
    """

    model: str
    image_transport: str
    threshold: float | None
    providers: tuple[str, ...] | None
    intra_op_threads: int
    decision: DecisionSettings


def declare_parameters(node: Any) -> Parameters:
    """Declare every parameter on a node and read its value.

    Args:
        node: an ``rclpy.node.Node``.

    Raises:
        AnomalyDetectorError: a value of another type, out of range, or not one of the choices.
    """
    values = {definition.name: _declare(node, definition) for definition in PARAMETERS}
    threshold = float(values["threshold"])
    providers = tuple(str(name) for name in values["providers"])
    return Parameters(
        model=values["model"],
        image_transport=values["image_transport"],
        threshold=None if math.isnan(threshold) else threshold,
        providers=None if providers == ("",) else providers,
        intra_op_threads=values["intra_op_threads"],
        decision=DecisionSettings(
            **{option.name: values[f"alarm_{option.name}"] for option in DECISION_OPTIONS}
        ),
    )


def _declare(node: Any, definition: ParameterDefinition) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

    descriptor = ParameterDescriptor(
        description=definition.description,
        additional_constraints=definition.constraint,
        read_only=definition.read_only,
        # YAML 1.1 reads a bare off as the boolean false, which a string would not take.
        dynamic_typing="off" in definition.choices,
    )
    if definition.minimum is not None and definition.maximum is not None:
        if definition.type == "integer":
            descriptor.integer_range = [
                IntegerRange(
                    from_value=int(definition.minimum), to_value=int(definition.maximum), step=1
                )
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(
                    from_value=float(definition.minimum), to_value=float(definition.maximum)
                )
            ]
    try:
        value = node.declare_parameter(definition.name, definition.default, descriptor).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        reason = " ".join(str(error).split())
        raise AnomalyDetectorError(
            f"parameter {definition.name!r} must be {definition.constraint}: {reason}"
        ) from error
    if value is False and "off" in definition.choices:
        value = "off"
    # rclpy gives None for an empty array, whatever its declared type.
    if value is None or (definition.choices and value not in definition.choices):
        raise AnomalyDetectorError(
            f"parameter {definition.name!r} is {'empty' if value is None else repr(value)}, "
            f"it must be {definition.constraint}"
        )
    return value
