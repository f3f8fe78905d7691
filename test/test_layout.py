"""The plan of the house: which wing may import which, no cycles, no crowded folder.

Imports inside functions count like those at the top; those for type checkers alone do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_MODULES = 15

WINGS = {
    "anomaly_detector": (
        *("errors", "settings", "files", "stamps", "poses", "signals", "ordered_pool"),
        *("images", "camera_health", "recordings", "model", "alarms", "monitoring", "drawing"),
        *("black_box", "scoring", "review", "notify", "benchmarking", "cli", "ros"),
    ),
    "training": (
        *("networks", "data", "config", "fitting", "scorers", "export", "train"),
        *("adaptation", "evaluation", "reports", "cli"),
    ),
}
"""From the ground up: a wing imports itself and those before it."""

UPWARD = {
    ("anomaly_detector.cli.benchmark", "anomaly_detector.ros.benchmarking.live"),
    ("anomaly_detector.cli.benchmark", "anomaly_detector.ros.benchmarking.node"),
}
"""The only arrows that point up: ``benchmark --ros`` runs a node."""


def modules(package: str) -> dict[str, Path]:
    """Return the file of each module of a package, by dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules("anomaly_detector") | modules("training")


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from statements(node)


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of the project that a file imports."""
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


ARROWS = {name: set(imports(path)) - {name} for name, path in MODULES.items()}


def test_arrows_point_down() -> None:
    upward = set()
    for package, wings in WINGS.items():
        rank = {f"{package}.{name}": index for index, name in enumerate(wings)}
        for module, imported in ARROWS.items():
            here = rank.get(".".join(module.split(".")[:2]), len(rank))
            for other in imported:
                if rank.get(".".join(other.split(".")[:2]), -1) > here:
                    upward.add((module, other))
    assert upward == UPWARD


@pytest.mark.parametrize("package", WINGS)
def test_every_wing_has_its_rank(package: str) -> None:
    wings = {".".join(name.split(".")[1:2]) for name in modules(package)}
    assert wings - {"", "__main__"} == set(WINGS[package])


def test_the_robot_side_knows_nothing_of_training() -> None:
    for module in modules("anomaly_detector"):
        assert not [name for name in ARROWS[module] if name.split(".")[0] == "training"], module


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(ARROWS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_folder_is_crowded() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        names = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(names) <= MOST_MODULES, f"{folder}: {len(names)} modules"
