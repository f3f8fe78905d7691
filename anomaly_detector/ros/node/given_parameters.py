"""Parameters on the command line that have no effect, which ROS passes over in silence.

What a node declares of its own accord is compared with what ``-p`` and ``--params-file`` give. It
needs no ROS: rclpy keeps what it was given to itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from anomaly_detector.errors import AnomalyDetectorError, as_one_line

_PARAMETERS = "ros__parameters"

_QOS = "qos_overrides."
"""Declared with the subscription; then comes its topic, after remapping, and the policy."""


@dataclass(frozen=True)
class _Given:
    """Parameters for nodes of a name: ``*`` stands for one part of it, ``**`` for any number."""

    node: str
    values: Mapping[str, Any]

    def is_for(self, node: str) -> bool:
        """Return whether a node, by its full name, gets them."""
        parts = {"**": "(/[^/]+)*", "*": "/[^/]+"}
        names = self.node.strip("/").split("/")
        pattern = "".join(parts.get(name, f"/{re.escape(name)}") for name in names)
        return re.fullmatch(pattern, node) is not None


def explain_unused(
    arguments: Sequence[str], node: str, declared: Collection[str], topics: Mapping[str, str]
) -> list[str]:
    """Return a line for everything on a command line that the only node of a process does not take.

    Args:
        arguments: of the command line.
        node: its full name.
        declared: names of its parameters, those of QoS excepted.
        topics: that it subscribes to: names before remapping to the full ones after it.

    Under a wildcard of a file lie parameters of other nodes as well: only those that look like one
    of this node are named. ROS has accepted the arguments; its words for what is wrong with them
    are not repeated.
    """
    lines = []
    for source, all_given in _read(arguments):
        is_option = source.startswith("-p ")
        place = "-p" if is_option else source
        mine = [given for given in all_given if given.is_for(node)]
        if all_given and not mine:
            others = sorted({given.node for given in all_given})
            others[3:] = ["others"] * (len(others) > 3)
            lines.append(
                f"{source} is for {' and '.join(others)}, not for {node}, and has no effect: "
                + ("give the parameter alone" if is_option else f"name it {node} there, or /**")
            )
        for given in mine:
            is_shared = "*" in given.node and not is_option
            for name in given.values:
                topic, _, policy = name.removeprefix(_QOS).partition(".")
                if name in declared:
                    continue
                if not name.startswith(_QOS):
                    close = get_close_matches(name, declared, 1, 0.75)
                elif topics.get(topic, topic) != topic:
                    close = [f"{_QOS}{topics[topic]}.{policy}"]
                else:
                    continue
                if close or not is_shared:
                    remedy = f"did you mean {close[0]}?" if close else f"ros2 param list {node}"
                    lines.append(
                        f"parameter {name} ({place}) is none of {node} and has no effect: {remedy}"
                    )
    return list(dict.fromkeys(lines))


def _read(arguments: Sequence[str]) -> Iterator[tuple[str, list[_Given]]]:
    is_ros = False
    following = iter(arguments)
    for argument in following:
        if argument in ("--ros-args", "--"):
            is_ros = argument == "--ros-args"
        elif is_ros and argument in ("-p", "--param"):
            left, is_rule, _ = next(following, "").partition(":=")
            node, _, name = left.rpartition(":")
            if is_rule:
                yield f"-p {left}", [_Given(f"/{node or '**'}", {name: None})]
        elif is_ros and argument == "--params-file":
            path = next(following, "")
            with suppress(AnomalyDetectorError):
                yield f"params file {path}", _read_file(Path(path))


def _read_file(path: Path) -> list[_Given]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AnomalyDetectorError(
            f"params file {path} cannot be read: {as_one_line(error)}"
        ) from error
    if not isinstance(tree, Mapping):
        raise AnomalyDetectorError(f"params file {path} names no node: begin it with '/**:'")
    return list(_nodes(tree, ""))


def _nodes(tree: Mapping[Any, Any], namespace: str) -> Iterator[_Given]:
    for key, value in tree.items():
        node = f"{namespace}/{str(key).strip('/')}"
        if not isinstance(value, Mapping):
            continue
        parameters = value.get(_PARAMETERS)
        if isinstance(parameters, Mapping):
            yield _Given(node, dict(_values(parameters)))
        yield from _nodes({k: v for k, v in value.items() if k != _PARAMETERS}, node)


def _values(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_params_file(path: Path, node: str) -> dict[str, Any]:
    """Return the parameters that a params file has for a node of this full name.

    Raises:
        AnomalyDetectorError: the file cannot be read.
    """
    values: dict[str, Any] = {}
    for given in _read_file(path):
        if given.is_for(node):
            values |= given.values
    return values
