"""One definition of each parameter: node, YAML file and definitions say the same."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from rclpy.parameter import Parameter
from ros_harness import ros_context

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.shipped import share_path
from anomaly_detector.ros.node.live_parameters import declare_parameters
from anomaly_detector.ros.node.node import DetectorNode
from anomaly_detector.ros.node.parameters import (
    PARAMETERS,
    ParameterDefinition,
    Parameters,
    parameters_of,
)

ROS_TYPES = {
    "bool": Parameter.Type.BOOL,
    "string": Parameter.Type.STRING,
    "double": Parameter.Type.DOUBLE,
    "integer": Parameter.Type.INTEGER,
    "string_array": Parameter.Type.STRING_ARRAY,
    "integer_array": Parameter.Type.INTEGER_ARRAY,
    "double_array": Parameter.Type.DOUBLE_ARRAY,
}


@pytest.fixture
def context() -> Iterator[Any]:
    with ros_context() as context:
        yield context


@pytest.fixture
def node(context: Any) -> Iterator[DetectorNode]:
    node = DetectorNode(context=context)
    yield node
    node.destroy_node()


def by_name(definition: ParameterDefinition) -> str:
    return definition.name


def equal(left: Any, right: Any) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left + right)
    return both_nan or (left == right and type(left) is type(right))


def test_names_are_unique_and_snake_case() -> None:
    names = [definition.name for definition in PARAMETERS]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and name.isidentifier() for name in names)


def test_yaml_file_holds_the_defaults() -> None:
    contents = yaml.safe_load(share_path("config", "detector.yaml").read_text(encoding="utf-8"))
    assert list(contents) == ["/**"]
    assert list(contents["/**"]) == ["ros__parameters"]
    values = contents["/**"]["ros__parameters"]
    assert list(values) == [definition.name for definition in PARAMETERS]
    for definition in PARAMETERS:
        assert equal(values[definition.name], definition.default), definition.name


@pytest.mark.parametrize("definition", PARAMETERS, ids=by_name)
def test_node_declares_the_definition(node: DetectorNode, definition: ParameterDefinition) -> None:
    parameter = node.get_parameter(definition.name)
    assert parameter.type_ == ROS_TYPES[definition.type]
    value = list(parameter.value) if definition.type.endswith("array") else parameter.value
    assert equal(value, definition.default)
    descriptor = node.describe_parameter(definition.name)
    assert descriptor.description == definition.description
    assert descriptor.read_only == definition.read_only
    assert descriptor.additional_constraints == definition.constraint
    found = [*descriptor.integer_range, *descriptor.floating_point_range]
    ranges = [(r.from_value, r.to_value) for r in found]
    assert ranges == [(definition.minimum, definition.maximum)] * (definition.minimum is not None)


def test_node_declares_nothing_else(node: DetectorNode, context: Any) -> None:
    plain = rclpy.create_node("plain", context=context)
    try:
        standard = set(plain.get_parameters_by_prefix(""))
    finally:
        plain.destroy_node()
    own = set(node.get_parameters_by_prefix("")) - standard
    assert own == {definition.name for definition in PARAMETERS}


def test_read_only_parameter_cannot_be_set(node: DetectorNode) -> None:
    (result,) = node.set_parameters([Parameter("autostart", value=False)])
    assert not result.successful
    assert "read-only" in result.reason


def test_yaml_file_is_read_by_ros(context: Any) -> None:
    """Its .nan and [""] reach the node as the types that it declares."""
    path = str(share_path("config", "detector.yaml"))
    node = DetectorNode(context=context, cli_args=["--ros-args", "--params-file", path])
    try:
        assert math.isnan(node.get_parameter("threshold").value)
        assert node.get_parameter("providers").value == [""]
    finally:
        node.destroy_node()


def declared(context: Any, **overrides: Any) -> Parameters:
    """Return the values that a node reads."""
    given = [Parameter(name, value=value) for name, value in overrides.items()]
    node = rclpy.create_node("values", context=context, parameter_overrides=given)
    try:
        return declare_parameters(node)
    finally:
        node.destroy_node()


def test_values_reach_the_core_as_it_takes_them(context: Any) -> None:
    values = declared(context, threshold=2.5, providers=["CPUExecutionProvider"])
    assert values.model == "corridor"
    assert values.threshold == 2.5
    assert values.providers == ("CPUExecutionProvider",)
    # By default the choice is the core's.
    values = declared(context)
    assert values.threshold is None
    assert values.providers is None


def test_values_without_a_node_are_read_alike(context: Any) -> None:
    assert parameters_of({"wheel_radius": 3}) == declared(context)
    values = parameters_of({"threshold": 2.5, "providers": ["cpu"], "alarm_mode": False})
    assert (values.threshold, values.providers, values.alarm.mode) == (2.5, ("cpu",), "off")


def test_diagnostics_period_changes(node: DetectorNode) -> None:
    (result,) = node.set_parameters([Parameter("diagnostics_period", value=0.1)])
    assert result.successful
    assert [timer.timer_period_ns for timer in node.timers] == [100_000_000]


@pytest.mark.parametrize(
    ("name", "value", "constraint"),
    [
        ("threshold", 5, "a double (with a decimal point: 1000.0)"),
        ("threshold", "high", "a double (with a decimal point: 1000.0)"),
        ("model", ["corridor"], "a string"),
        ("image_scaling", [500, 4000], "an array of doubles (with decimal points)"),
        ("providers", [], "an array of at least one string"),
        ("alarm_mode", "sometimes", "off or frames or seconds"),
    ],
)
def test_wrong_value_without_a_node_is_refused(name: str, value: Any, constraint: str) -> None:
    with pytest.raises(AnomalyDetectorError) as error:
        parameters_of({name: value})
    assert str(error.value) == f"parameter {name!r} is {value!r}, it must be {constraint}"


@pytest.mark.parametrize("value", ["off", "'off'", "false"])
def test_alarm_mode_off_needs_no_quotes(context: Any, value: str) -> None:
    arguments = ["--ros-args", "-p", f"alarm_mode:={value}"]
    node = DetectorNode(context=context, cli_args=arguments)
    try:
        assert node._settings.alarm.mode == "off"
    finally:
        node.destroy_node()


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        ("model", "''", "model is empty"),
        ("model", "5", "parameter 'model' must be a string: .* '5' of type 'INTEGER'"),
        ("image_transport", "theora", "'theora', it must be raw or compressed"),
        ("threshold", "5", "'threshold' must be a double (with a decimal point: 1000.0)"),
        ("threshold", ".inf", "'threshold' is inf: give a finite number"),
        ("intra_op_threads", "0", "'intra_op_threads' must be an integer from 1 to 64: .*(0)"),
        ("intra_op_threads", "65", "'intra_op_threads' must be an integer from 1 to 64: .*(65)"),
        ("intra_op_threads", "two", "'intra_op_threads' must be an integer from 1 to 64: .*'two'"),
        ("alarm_mode", "sometimes", "'sometimes', it must be off or frames or seconds"),
        ("alarm_mode", "5", "'alarm_mode' is 5, it must be off or frames or seconds"),
        ("alarm_clear_level", "0.7", "'alarm_clear_level' must be a double from 0 to 0.5"),
        ("alarm_raise_frames", "11", "raise_frames is 11, more than raise_window_frames"),
        ("providers", "[]", "'providers' is empty"),
        ("providers", "[NoSuchProvider]", "NoSuchProvider not available"),
        ("qos_overrides./image.subscription.reliability", "sometimes", "cannot subscribe"),
        ("qos_overrides./image.subscription.depth", "many", "cannot subscribe"),
    ],
)
def test_bad_value_is_refused_with_name_value_and_remedy(
    context: Any, model: Path, parameter: str, value: str, reason: str
) -> None:
    arguments = ["--ros-args", "-p", f"model:={model}", "-p", f"{parameter}:={value}"]
    pattern = ".*".join(re.escape(part) for part in reason.split(".*"))
    try:
        node = DetectorNode(context=context, cli_args=arguments)
    except AnomalyDetectorError as error:
        refusal = str(error)
    else:
        assert not node.start()
        refusal = node._last_error
        node.destroy_node()
    assert re.search(pattern, refusal)
    assert "\n" not in refusal
