"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anomaly_detector.encodings import ENCODINGS
from anomaly_detector.errors import IMAGE_ERROR_REASONS
from anomaly_detector.ros.parameters import PARAMETERS
from training.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def table_between(text: str, start: str, end: str) -> list[list[str]]:
    """Give the cells of the Markdown table between two markers, without its two head lines."""
    lines = text.split(start, 1)[1].split(end, 1)[0].splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_readme_lists_the_nodes_parameters() -> None:
    rows = table_between(README, "<!-- parameters", "<!-- /parameters -->")
    expected = [[f"`{p.name}`", p.type, f"`{p.default}`", p.description] for p in PARAMETERS]
    assert rows == expected


def test_links_and_pictures_of_the_readme_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(targets) >= 3
    missing = [t for t in targets if not t.startswith("http") and not (ROOT / t).is_file()]
    assert missing == []


def test_readme_names_only_verbs_that_exist() -> None:
    from anomaly_detector.cli import main as robot_main

    for command, run in (("training", main), ("anomaly_detector", robot_main)):
        for verb in set(re.findall(rf"python -m {command} ([a-z][a-z-]*)", README)):
            with pytest.raises(SystemExit) as end:
                run([verb, "--help"])
            assert end.value.code == 0, f"python -m {command} {verb}"


def test_cameras_lists_the_encodings_and_the_reasons() -> None:
    text = (ROOT / "docs" / "cameras.md").read_text()
    rows = table_between(text, "<!-- encodings", "<!-- /encodings -->")
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == set(ENCODINGS)
    reasons = [row[0].strip("`") for row in table_between(text, "## Dropped frames", "\0")]
    assert reasons == list(IMAGE_ERROR_REASONS)
