"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_pages import Page

import anomaly_detector.cli.main
import training.cli.main
from anomaly_detector.ros.node.diagnostics import MEANINGS
from anomaly_detector.ros.node.parameters import PARAMETERS
from anomaly_detector.ros.node.result_publishers import TOPICS
from anomaly_detector.ros.state.message import STATE_TOPIC
from docs import generate

ROOT = Path(__file__).parents[1]
PAGES = [Page(path) for path in generate.pages()]
_NO_BENCHMARKS = {"common", "peer_worker", "places"}
BENCHMARKS = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - _NO_BENCHMARKS
COMMAND_LINES = {
    "anomaly_detector": anomaly_detector.cli.main.main,
    "training": training.cli.main.main,
}

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.name)


@by_page
def test_generated_tables_are_up_to_date(page: Page) -> None:
    assert generate.updated(page.text) == page.text, "run 'make docs'"


def test_every_generated_table_is_in_a_page() -> None:
    marker = re.compile(r"^(?:# )?<!-- generated: (.+?) -->", re.MULTILINE)
    names = [name for page in PAGES for name in marker.findall(page.text)]
    assert sorted(names) == sorted(generate.TABLES)


def test_a_page_that_is_out_of_date_is_found_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- generated: topics -->\n| old |\n<!-- end -->\nafter\n")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "pages", lambda: [page])
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "README.md: out of date, run make docs\n"
    assert "| old |" in page.read_text()
    assert generate.main([]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- generated: topics -->\n| topic | type | content |\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "| `~/score` | `std_msgs/Float32` |" in text
    assert generate.main(["--check"]) == 0


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One `two`: three\n\n## Again\n\n## Again\n")
    good = ["there.md", "there.md#one-two-three", "there.md#again-1", "#here", "https://a.b/c.md"]
    bad = ["gone.md", "gone.png", "there.md#four", "there.md#again-2", "#gone", "../gone.md#x"]
    links = "\n".join(f"[x]({target})" for target in good + bad if target != "gone.png")
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n{links}\n\n![a picture](gone.png)\n\n`[code](gone.md)`\n")
    assert sorted(Page(page).broken_links()) == sorted(bad)


@by_page
def test_links_and_pictures_exist(page: Page) -> None:
    assert page.broken_links() == []


@by_page
def test_files_named_in_the_text_exist(page: Page) -> None:
    folders = "anomaly_detector|benchmarks|config|docs|docker|examples|launch|models|test|training"
    names = [span for span in page.spans if re.fullmatch(rf"({folders})/[\w./-]*", span)]
    assert [name for name in names if not (ROOT / name).exists()] == []


@by_page
def test_verbs_and_their_options_exist(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    for line in page.command_lines:
        found = re.search(r"python -m (anomaly_detector|training) ([a-z][\w-]*)(.*)", line)
        if found is None:
            continue
        program, verb, rest = found.groups()
        with pytest.raises(SystemExit) as end:
            COMMAND_LINES[program]([verb, "--help"])
        shown = capsys.readouterr()
        assert end.value.code == 0, f"{line}: {shown.err}"
        for option in re.findall(r"(?<=\s)--[a-z][\w-]*", rest):
            assert re.search(rf"{option}(?![\w-])", shown.out), f"{line}: no option {option}"


@by_page
def test_make_targets_exist(page: Page) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pattern = r"(?:^|[\s;&])make(?:\s+[A-Z]+=\S+)*\s+([a-z][\w-]*)"
    named = {name for line in page.command_lines for name in re.findall(pattern, line)}
    assert named <= targets


@by_page
def test_launch_files_and_their_arguments_exist(page: Page) -> None:
    for line in page.command_lines:
        if found := re.search(r"ros2 launch anomaly_detector (\S+\.py)(.*)", line):
            names = {name for name, *_ in generate.launch_arguments(found[1])}
            assert set(re.findall(r"(\w+):=", found[2])) <= names, line


@by_page
def test_parameters_and_topics_of_the_node_exist(page: Page) -> None:
    parameters = {parameter.name for parameter in PARAMETERS} | {"use_sim_time"}
    topics = {topic.name for topic in (*TOPICS, STATE_TOPIC)}
    for line in page.command_lines:
        named = re.findall(r"ros2 param [gs]et /anomaly_detector (\w+)", line)
        assert set(named) <= parameters, line
        of_node = re.findall(r"(?:ros2 topic \w+|rqt_image_view) /anomaly_detector/(\w+)", line)
        assert {f"~/{name}" for name in of_node} <= topics, line


def test_diagnostics_named_in_troubleshooting_exist() -> None:
    (page,) = (page for page in PAGES if page.path.name == "troubleshooting.md")
    named = {span for span in page.spans if re.fullmatch(r"[A-Z][a-z]+( [A-Za-z0-9()]+)*", span)}
    assert len(named) >= 10
    assert named <= set(MEANINGS)


def test_benchmarks_and_pages_name_one_another() -> None:
    lines = "\n".join(line for page in PAGES for line in page.command_lines)
    assert set(re.findall(r"python -m benchmarks\.(\w+)", lines)) == BENCHMARKS
