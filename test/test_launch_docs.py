"""docs/launch.md says what the launch files take; read without launch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from test_docs import ROOT, table_between

from anomaly_detector.ros import launch_arguments
from anomaly_detector.ros.launch_arguments import LaunchArgument
from anomaly_detector.ros.node import NODE_NAME

DOCUMENT = (ROOT / "docs" / "launch.md").read_text()
FILES = sorted(path for path in (ROOT / "launch").iterdir() if path.is_file())


def declared(source: str) -> tuple[LaunchArgument, ...]:
    """Give what a launch file passes to declare_arguments, without running it."""
    (name,) = {
        argument.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "declare_arguments"
        for argument in node.args
        if isinstance(argument, ast.Name)
    }
    arguments: tuple[LaunchArgument, ...] = getattr(launch_arguments, name)
    return arguments


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_arguments_are_documented_as_they_are_declared(file: Path) -> None:
    name = file.name
    rows = table_between(DOCUMENT, f"<!-- {name}", f"<!-- /{name} -->")
    expected = []
    for argument in declared(file.read_text(encoding="utf-8")):
        default = "required" if argument.default is None else f"`{argument.default}`"
        expected.append(
            [
                f"`{argument.name}`",
                default if argument.default != "" else "",
                ", ".join(f"`{choice}`" for choice in argument.choices if choice),
                argument.description,
            ]
        )
    assert rows == expected


def test_default_name_is_the_node_s() -> None:
    assert launch_arguments.DEFAULT_NODE_NAME == NODE_NAME


def test_launch_files_are_documented() -> None:
    assert len(FILES) == 3
    for path in FILES:
        assert f"ros2 launch anomaly_detector {path.name}" in DOCUMENT
