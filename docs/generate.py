"""Write the tables of the pages from the code: ``make docs``.

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; NAME is a key of
:data:`TABLES`. With ``--check`` nothing is written, and a page that is out of date is an error.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import anomaly_detector.cli.main
import training.cli.main
from anomaly_detector.camera_health.watch import CAUSES
from anomaly_detector.errors import IMAGE_ERROR_REASONS
from anomaly_detector.images.encodings import ENCODINGS
from anomaly_detector.monitoring.health import HealthLimits
from anomaly_detector.monitoring.state import REASONS
from anomaly_detector.monitoring.statistics import FrameStatistics
from anomaly_detector.ros.node.diagnostics import MEANINGS, NodeStatus
from anomaly_detector.ros.node.parameters import PARAMETERS
from anomaly_detector.ros.node.result_publishers import TOPICS
from anomaly_detector.ros.state.message import STATE_TOPIC
from training.adaptation.changes import LIMITS
from training.config.options import DEFAULT_SCORER
from training.evaluation.faults import FAULT_SETS
from training.scorers import registry

ROOT = Path(__file__).parents[1]

_BLOCK = re.compile(r"(<!-- generated: ([\w. -]+) -->\n).*?((?:# )?<!-- end -->)", re.DOTALL)

_VERBS: dict[str, Mapping[str, tuple[str, str]]] = {
    "anomaly_detector": anomaly_detector.cli.main._VERBS,
    "training": training.cli.main._VERBS,
}

# What becomes of each kind of encoding, and what that costs.
_ENCODING_KINDS = {
    "direct": ("named channels; alpha is ignored; 8UC3 and 8UC4 are blue first", "none: a view"),
    "bayer": ("bilinear demosaicing; even sizes", "a pass"),
    "deep": ("0 to 65535, or a given scaling", "a pass"),
    "deep bayer": ("demosaicing of 0 to 65535, or of a given scaling; even sizes", "two passes"),
    "yuv422": ("BT.601, limited range; even widths", "a pass"),
    "yuv420": ("BT.601, limited range; even sizes", "a pass"),
    "yuv444": ("BT.601, limited range", "a pass"),
    "measured": ("depth or infrared: only with a given scaling", "a pass"),
}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(row)} |\n" for row in (head, *rows)]
    return "".join([lines[0], "|---" * len(head), "|\n", *lines[1:]])


def parameters() -> str:
    """Return the parameters of the node."""
    return markdown(
        ("parameter", "type", "default", "range", "set", "description"),
        (
            (
                f"`{p.name}`",
                p.type,
                f"`{p.default}`",
                "" if p.minimum is None else f"{p.minimum:g} to {p.maximum:g}",
                "start" if p.read_only else "live",
                p.description,
            )
            for p in PARAMETERS
        ),
    )


def params_file() -> str:
    """Return the parameters at their defaults, as a params file."""
    lines = ["/**:", "  ros__parameters:"]
    for p in PARAMETERS:
        text = p.description
        text += "" if p.minimum is None else f" {p.minimum:g} to {p.maximum:g}."
        text += " Set at start only." if p.read_only else ""
        lines += textwrap.wrap(text, 100, initial_indent="    # ", subsequent_indent="    # ")
        is_word = isinstance(p.default, str) and p.default
        is_nan = isinstance(p.default, float) and math.isnan(p.default)
        value = ".nan" if is_nan else p.default if is_word else json.dumps(p.default)
        lines.append(f"    {p.name}: {value}")
    return "\n".join([*lines, ""])


LaunchArgument = tuple[str, str | None, list[str], str]
"""Name, default (None: required; a file of the package by its path in it), choices, description."""


def launch_arguments(file: str) -> list[LaunchArgument]:
    """Return what a launch file declares; read and not run, as ``launch`` comes with ROS 2 only."""
    shared = ast.parse((ROOT / "anomaly_detector/ros/launching/actions.py").read_text("utf-8"))
    named = {
        target.id: statement.value
        for statement in shared.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }

    def declared(node: ast.expr) -> Iterator[LaunchArgument]:
        if isinstance(node, ast.Starred):
            node = node.value
        if isinstance(node, ast.Name):
            node = named[node.id]
        if isinstance(node, ast.List):
            for element in node.elts:
                yield from declared(element)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "DeclareLaunchArgument":
            # share_path("config/detector.yaml") is known by its text.
            texts: dict[str, list[Any]] = {
                str(part.arg): [n.value for n in ast.walk(part) if isinstance(n, ast.Constant)]
                for part in node.keywords
            }
            default = texts.get("default_value", [None])[0]
            name = ast.literal_eval(node.args[0])
            yield name, default, texts.get("choices", []), texts["description"][0]

    (description,) = (
        node.args[0]
        for node in ast.walk(ast.parse((ROOT / "launch" / file).read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "LaunchDescription"
    )
    return list(declared(description))


def launch_table(file: str) -> str:
    """Return the arguments of a launch file."""
    return markdown(
        ("argument", "default", "values", "description"),
        (
            (
                f"`{name}`",
                "required" if default is None else default and f"`{default}`",
                ", ".join(f"`{choice}`" for choice in choices if choice),
                description,
            )
            for name, default, choices, description in launch_arguments(file)
        ),
    )


def state_reasons() -> str:
    """Return why the state of the node is unknown."""
    return markdown(("reason", "when"), ((f"`{word}`", when) for word, when in REASONS.items()))


def causes() -> str:
    """Return what can ail a camera."""
    return markdown(
        ("cause", "what is seen", "strength", "what to do", "without reference"),
        (
            (f"`{word}`", c.what, c.strength, c.remedy, "no" if c.needs_reference else "yes")
            for word, c in CAUSES.items()
        ),
    )


def topics() -> str:
    """Return the topics that the node publishes."""
    return markdown(
        ("topic", "type", "content"),
        (
            (
                f"`{t.name}`",
                f"`{t.type_name}`",
                t.description,
            )
            for t in (*TOPICS, STATE_TOPIC)
        ),
    )


def diagnostics() -> str:
    """Return the keys of ``/diagnostics``."""
    report = FrameStatistics(failed=Counter(encoding=1)).report(0.0)
    status = NodeStatus("unconfigured", report, HealthLimits(), None, None, "", False, "", "")
    written = {key.replace("(encoding)", "(REASON)") for key in status.values()}
    boxed = {key for key in MEANINGS if key.startswith("Black box")}
    if set(MEANINGS) - boxed != written:
        raise SystemExit(
            f"MEANINGS and the diagnostics differ in {set(MEANINGS) - boxed ^ written}"
        )
    return markdown(("key", "meaning"), ((f"`{key}`", text) for key, text in MEANINGS.items()))


def encodings() -> str:
    """Return the encodings, those of one kind together."""
    kinds: dict[str, list[str]] = {}
    for name, encoding in ENCODINGS.items():
        deep = encoding.kind == "bayer" and encoding.dtype == "u2"
        kinds.setdefault("deep bayer" if deep else encoding.kind, []).append(f"`{name}`")
    rows = ((" ".join(names), *_ENCODING_KINDS[kind]) for kind, names in kinds.items())
    return markdown(("encoding", "taken as", "cost"), rows)


def image_errors() -> str:
    """Return the reasons for which a frame is dropped."""
    rows = ((f"`{reason}`", text) for reason, text in IMAGE_ERROR_REASONS.items())
    return markdown(("reason", "what is wrong"), rows)


def changes() -> str:
    """Return the changes for which a drive of today is refused."""
    rows = []
    for name, limit in LIMITS.items():
        bounds = (("under", limit.low), ("above", limit.high))
        text = " or ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))
        rows.append(
            (f"`{name}`", limit.what, text + " of the past's" * limit.is_factor, limit.remedy)
        )
    return markdown(("change", "figure", "refused", "what to do"), rows)


def faults(chosen: str) -> str:
    """Return the faults of a set; neighbours of one class share a description."""
    rows = []
    for _, group in groupby(FAULT_SETS[chosen], type):
        for index, fault in enumerate(group):
            text = "As before" if index else fault.description.rstrip(".")
            rows.append((f"`{fault.name}`", text, fault.parameter_text))
    return markdown(("fault", "what", "parameters"), rows)


def scorers() -> str:
    """Return the scorers, the default one first."""
    rows = []
    for scorer in registry.scorers().values():
        takes = "; takes `--anomalies`" if "anomalies" in scorer.options else ""
        rows.append(
            (
                f"`{scorer.name}`{' (default)' * (scorer.name == DEFAULT_SCORER)}",
                scorer.description,
                "`--anomalies`" if scorer.needs_anomalies else f"a normal drive{takes}",
            )
        )
    return markdown(("`--scorer`", "what it is", "needs"), rows)


def verbs(program: str) -> str:
    """Return the verbs of a command line, each with a link to its options."""
    return markdown(
        ("command", "what it does"),
        (
            (f"[`python -m {program} {verb}`](#{program}-{verb})", help_text)
            for verb, (_, help_text) in _VERBS[program].items()
        ),
    )


def options(program: str) -> str:
    """Return a heading and the options for each verb of a command line."""
    parts = []
    for verb, (module, _) in _VERBS[program].items():
        parser = argparse.ArgumentParser(add_help=False)
        importlib.import_module(module).add_arguments(parser)
        rows = [_option(action) for action in parser._actions]
        parts.append(f"### {program} {verb}\n\n{markdown(('option', 'description'), rows)}")
    return "\n".join(parts)


def _option(action: argparse.Action) -> tuple[str, str]:
    names = " ".join(f"`{name}`" for name in action.option_strings)
    if not names:
        names = f"`{action.metavar or action.dest}`"
    text = (action.help or "") % vars(action)
    if action.choices is not None:
        text += f": {', '.join(f'`{choice}`' for choice in action.choices)}"
    if action.required and action.option_strings:
        text += " (required)"
    return names, text.replace("|", r"\|")


TABLES: dict[str, Callable[[], str]] = {
    "parameters": parameters,
    "params file": params_file,
    "detector.launch.py": lambda: launch_table("detector.launch.py"),
    "multi_camera.launch.py": lambda: launch_table("multi_camera.launch.py"),
    "replay.launch.py": lambda: launch_table("replay.launch.py"),
    "topics": topics,
    "state reasons": state_reasons,
    "causes": causes,
    "diagnostics": diagnostics,
    "encodings": encodings,
    "image errors": image_errors,
    "scorers": scorers,
    "changes": changes,
    "faults reference": lambda: faults("reference"),
    "faults full": lambda: faults("full"),
    "verbs anomaly_detector": lambda: verbs("anomaly_detector"),
    "verbs training": lambda: verbs("training"),
    "options anomaly_detector": lambda: options("anomaly_detector"),
    "options training": lambda: options("training"),
}
"""What is generated, by the name in the marker."""


def pages() -> list[Path]:
    """Return every page of the project, and the params file."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "config" / "detector.yaml"]
    return [*pages, *sorted((ROOT / "docs").glob("*.md"))]


def updated(text: str) -> str:
    """Return a page's text with its tables written anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 when ``--check`` finds a page out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say which pages are out of date")
    check = parser.parse_args(argv).check
    stale = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = updated(text)
        if new == text:
            continue
        print(f"{page.relative_to(ROOT)}: {'out of date, run make docs' if check else 'written'}")
        stale += 1
        if not check:
            page.write_text(new, encoding="utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
