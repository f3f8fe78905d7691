"""What is given on the command line and has no effect is reported at start, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rclpy
import ros_harness
import yaml
from rclpy.context import Context
from ros_harness import Process, running_node

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.shipped import share_path
from anomaly_detector.ros.node.given_parameters import explain_unused, read_params_file
from anomaly_detector.ros.node.parameters import PARAMETERS

NAMES = [definition.name for definition in PARAMETERS]

TOPICS = {"image": "/cam/image_raw", "/image": "/cam/image_raw"}

READY = "active, waiting for"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a params file of node names and their parameters; return its path."""

    def write_file(name: str = "params.yaml", **nodes: dict[str, Any]) -> str:
        path = tmp_path / name
        tree = {node: {"ros__parameters": values} for node, values in nodes.items()}
        path.write_text(yaml.safe_dump(tree))
        return str(path)

    return write_file


def warnings(node: Process) -> list[str]:
    node.wait_for_line(READY)
    return [line for line in node.lines if "has no effect" in line]


def test_misspelt_parameter_and_file_for_another_node_are_reported(
    model: Path, write: Callable[..., str]
) -> None:
    path = write(**{"/detector": {"threshold": 5.0}})
    arguments = ["-p", "treshold:=5.0", "--param", "wheels:=4", "--params-file", path]
    qos = "qos_overrides./image.subscription.depth"
    arguments += ["-r", "image:=/camera/image_raw", "-p", f"{qos}:=5"]
    with running_node(*arguments, model=model) as node:
        lines = warnings(node)
    assert all(line.startswith("[WARN]") for line in lines)
    assert [line.partition("]: ")[2] for line in lines] == [
        "parameter treshold (-p) is none of /anomaly_detector and has no effect: did you mean "
        "threshold?",
        "parameter wheels (-p) is none of /anomaly_detector and has no effect: "
        "ros2 param list /anomaly_detector",
        f"params file {path} is for /detector, not for /anomaly_detector, and has no effect: "
        "name it /anomaly_detector there, or /**",
        f"parameter {qos} (-p) is none of /anomaly_detector and has no effect: did you mean "
        "qos_overrides./camera/image_raw.subscription.depth?",
    ]


def test_what_has_an_effect_is_not_reported(model: Path, write: Callable[..., str]) -> None:
    """A node with a name and a namespace of its own, and files that others use too."""
    own = write("own.yaml", **{"/robot/watcher": {"stale_timeout": 60.0}, "/other": {"wheels": 4}})
    shared = write("shared.yaml", **{"/**": {"use_sim_time": False, "wheel_radius": 0.3}})
    files = [str(share_path("config", "detector.yaml")), own, shared]
    arguments = [part for path in files for part in ("--params-file", path)]
    arguments += ["-r", "__ns:=/robot", "-r", "__node:=watcher", "-p", "max_failures:=20"]
    arguments += ["-p", "qos_overrides./robot/image.subscription.depth:=2"]
    with running_node(*arguments, model=model) as node:
        assert warnings(node) == []


def test_file_without_the_namespace_of_the_node_is_reported(
    model: Path, write: Callable[..., str]
) -> None:
    path = write(anomaly_detector={"threshold": 5.0})
    with running_node("-r", "__ns:=/robot", "--params-file", path, model=model) as node:
        (line,) = warnings(node)
    assert f"{path} is for /anomaly_detector, not for /robot/anomaly_detector" in line
    assert "name it /robot/anomaly_detector there" in line


def explain(*arguments: str, node: str = "/anomaly_detector") -> list[str]:
    return explain_unused(["--ros-args", *arguments], node, NAMES, TOPICS)


def test_of_a_wildcard_only_what_looks_like_ours_is_reported(write: Callable[..., str]) -> None:
    path = write(**{"/**": {"wheel_radius": 0.3, "black_box_foldr": "box"}})
    (line,) = explain("--params-file", path)
    assert line.startswith(f"parameter black_box_foldr (params file {path})")
    assert line.endswith("did you mean black_box_folder?")


def test_of_a_name_everything_is_reported(write: Callable[..., str]) -> None:
    path = write(anomaly_detector={"wheels": {"radius": 0.3}, "model": "corridor"})
    (line,) = explain("--params-file", path)
    assert line.startswith(f"parameter wheels.radius (params file {path})")


def test_parameter_for_another_node_is_reported() -> None:
    assert explain("-p", "camera:threshold:=5.0") == [
        "-p camera:threshold is for /camera, not for /anomaly_detector, and has no effect: give "
        "the parameter alone"
    ]


def test_qos_of_a_topic_before_remapping_is_reported(write: Callable[..., str]) -> None:
    right = "qos_overrides./cam/image_raw.subscription.depth"
    assert explain("-p", f"{right}:=5", "-p", "qos_overrides./other.subscription.depth:=5") == []
    for topic in TOPICS:
        (line,) = explain("-p", f"qos_overrides.{topic}.subscription.depth:=5")
        assert line.endswith(f"has no effect: did you mean {right}?")
    path = write(**{"/**": {"qos_overrides": {"/image": {"subscription": {"depth": 5}}}}})
    (line,) = explain("--params-file", path)
    assert line.endswith(f"has no effect: did you mean {right}?")


def test_what_is_no_ros_argument_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("{")
    assert explain_unused(["-p", "treshold:=1"], "/anomaly_detector", NAMES, {}) == []
    assert explain("--", "-p", "treshold:=1") == []
    for name in ("list.yaml", "broken.yaml", "missing.yaml"):
        assert explain("--params-file", str(tmp_path / name)) == []
    assert explain("--params-file") == explain("-p") == []


PATTERNS = [
    *("node", "/node", "a/node", "/a/b/node", "**", "/**", "*", "/*", "/*/node", "/**/node"),
    *("/a/**", "/*/*", "/**/b/node", "/*/b/*", "other", "/nod"),
]


@pytest.mark.parametrize("namespace", ["", "/a", "/a/b"])
def test_names_are_matched_as_ros_matches_them(namespace: str, write: Callable[..., str]) -> None:
    assert ros_harness.DOMAIN_ID  # set for every context of this process
    for pattern in PATTERNS:
        path = write(**{pattern: {"threshold": 1.0}})
        arguments = ["--ros-args", "--params-file", path]
        context = Context()
        rclpy.init(args=arguments, context=context)
        node = rclpy.create_node("node", namespace=namespace, context=context)
        node.declare_parameter("threshold", 0.0)
        has_effect = node.get_parameter("threshold").value == 1.0
        lines = explain_unused(arguments, node.get_fully_qualified_name(), NAMES, {})
        node.destroy_node()
        context.shutdown()
        assert bool(lines) is not has_effect, (pattern, lines)


@pytest.mark.parametrize("name", ["/**", "/front/eye", "/*/eye"])
def test_params_file_is_read_for_a_node(name: str, write: Callable[..., str]) -> None:
    values = {"threshold": 2.5, "qos_overrides": {"/image": {"subscription": {"depth": 5}}}}
    path = Path(write(**{name: values, "/rear/eye": {"threshold": 3.5}}))
    depth = {"qos_overrides./image.subscription.depth": 5}
    assert read_params_file(path, "/front/eye") == {"threshold": 2.5, **depth}
    assert read_params_file(path, "/rear/eye")["threshold"] == 3.5
    assert read_params_file(path, "/ear") == ({"threshold": 2.5, **depth} if name == "/**" else {})


@pytest.mark.parametrize(
    ("text", "message"), [("- a list", "names no node"), ("a: [", "cannot be read")]
)
def test_params_file_that_is_none_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(AnomalyDetectorError, match=message) as error:
        read_params_file(path, "/eye")
    assert "\n" not in str(error.value)
