"""The node's parameters in ROS: declared at start, checked and in effect when they are set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterException,
)
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.ros.node.parameters import (
    PARAMETERS,
    ParameterDefinition,
    Parameters,
    check_value,
    to_parameters,
)


class LiveParametersNode(LifecycleNode):
    """A lifecycle node with :data:`PARAMETERS`, which apply as soon as they are set."""

    def __init__(self, name: str, **node_options: Any) -> None:
        try:
            super().__init__(name, **node_options)
        except ParameterException as error:  # use_sim_time is rclpy's own parameter
            raise AnomalyDetectorError(as_one_line(error)) from error
        self._settings = declare_parameters(self)
        self._is_reverting = False
        self.add_on_set_parameters_callback(self._check_parameters)

    def _check(self, settings: Parameters, names: set[str]) -> None:
        """Raise when values, with those of these names new, cannot be put into effect."""
        raise NotImplementedError

    def _put_into_effect(self, names: set[str]) -> None:
        """Do what the new values ask for; raise, with the old ones in effect, when it cannot be."""
        raise NotImplementedError

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set parameters one by one, each as :meth:`set_parameters_atomically` does."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set parameters together; once they are set, put them into effect.

        The services come through here too. rclpy's callbacks are no place to act: of those before
        the set another one may refuse, and Humble has none after it.
        """
        try:
            check_types(parameter_list)
        except AnomalyDetectorError as error:
            return SetParametersResult(successful=False, reason=str(error))
        names = {parameter.name for parameter in parameter_list}
        before = [self.get_parameter(name) for name in names if self.has_parameter(name)]
        result = super().set_parameters_atomically(parameter_list)
        if result.successful:
            try:
                self._put_into_effect(names)
            except AnomalyDetectorError as error:
                self._revert(before)
                return SetParametersResult(successful=False, reason=str(error))
        return result

    def _revert(self, parameters: Iterable[Parameter]) -> None:
        """Set parameters to what is in effect."""
        self._is_reverting = True
        super().set_parameters_atomically(list(parameters))
        self._is_reverting = False
        self._settings, _ = changed_parameters(self, [])

    def _check_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Check new values; nothing is done yet, since another callback may refuse them."""
        try:
            settings, names = changed_parameters(self, changes)
            if not self._is_reverting:
                self._check(settings, names)
        except AnomalyDetectorError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)


def declare_parameters(node: Any) -> Parameters:
    """Declare :data:`PARAMETERS` on an ``rclpy.node.Node`` and return their values.

    Raises:
        AnomalyDetectorError: a value of another type, out of range, or not one of the choices.
    """
    return to_parameters({definition.name: _declare(node, definition) for definition in PARAMETERS})


def check_types(parameters: Iterable[Parameter]) -> None:
    """Refuse values of another type in words; rclpy has numbers: "expected '3' got '2'"."""
    given = {parameter.name: parameter for parameter in parameters}
    for definition in PARAMETERS:
        parameter = given.get(definition.name)
        if parameter is None or definition.is_dynamic or definition.read_only:
            continue
        type_ = parameter.type_.name.lower()
        if type_ not in (definition.type, "not_set"):
            raise AnomalyDetectorError(
                f"parameter {definition.name!r} is {parameter.value!r} ({type_}), "
                f"it must be {definition.constraint}"
            )


def changed_parameters(node: Any, changes: Iterable[Any]) -> tuple[Parameters, set[str]]:
    """Return the values as changes would make them, and the names of ours; raise on a bad value."""
    given = {change.name: change.value for change in changes}
    values = {
        definition.name: check_value(
            definition,
            given[definition.name]
            if definition.name in given
            else node.get_parameter(definition.name).value,
        )
        for definition in PARAMETERS
    }
    return to_parameters(values), given.keys() & values.keys()


def _declare(node: Any, definition: ParameterDefinition) -> Any:
    descriptor = ParameterDescriptor(
        description=definition.description,
        additional_constraints=definition.constraint,
        read_only=definition.read_only,
        dynamic_typing=definition.is_dynamic,
    )
    low, high = definition.minimum, definition.maximum
    if low is not None and high is not None:
        if definition.type == "integer":
            span = IntegerRange(from_value=int(low), to_value=int(high), step=1)
            descriptor.integer_range = [span]
        else:
            reach = FloatingPointRange(from_value=float(low), to_value=float(high))
            descriptor.floating_point_range = [reach]
    try:
        value = node.declare_parameter(definition.name, definition.default, descriptor).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        reason = as_one_line(error)
        raise AnomalyDetectorError(
            f"parameter {definition.name!r} must be {definition.constraint}: {reason}"
        ) from error
    return check_value(definition, value)
