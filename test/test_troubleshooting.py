"""The troubleshooting page names only what exists: verbs, options, parameters, topics, keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_docs import table_between

from anomaly_detector.ros.node.diagnostics import MEANINGS
from anomaly_detector.ros.node.parameters import PARAMETERS
from anomaly_detector.ros.node.result_publishers import TOPICS

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / "docs" / name).read_text()
    for name in ("troubleshooting.md", "tutorial.md", "replay.md")
}
PAGE = PAGES["troubleshooting.md"]

ROS2_COMMANDS = {
    *("bag play", "bag record", "launch anomaly_detector", "lifecycle get", "lifecycle set"),
    *("node info", "param get", "param set", "run rqt_image_view", "topic echo", "topic hz"),
    "topic info",
}
OWN_TOPICS = {topic.name.replace("~", "/anomaly_detector", 1) for topic in TOPICS}
OTHER_TOPICS = {"/clock", "/diagnostics", "/camera/image_raw", "/camera/image_raw/compressed"}
OTHER_WORDS = {
    # rclpy's own, nav2's, and the launch files' arguments.
    *("use_sim_time", "qos_overrides", "bond_timeout", "image_topic"),
    # Names of a tutorial's or reader's own files.
    *("corridor_7", "black_box"),
}


def code(text: str) -> list[str]:
    """Return the commands of code blocks, and what stands in backticks outside of them."""
    found = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in found for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", outside)


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_symptom_has_a_command_and_remedies() -> None:
    assert len(sections()) >= 11
    for title, text in sections().items():
        assert "```console" in text, title
        assert len(table_between(text, "\n", "\0")) >= 2, title


@pytest.mark.parametrize("name", PAGES)
def test_ros2_commands_parameters_and_topics_exist(name: str) -> None:
    parameters = {parameter.name for parameter in PARAMETERS} | OTHER_WORDS
    for text in code(PAGES[name]):
        for command in re.findall(r"^ros2 (\w+ \w+)", text):
            assert command in ROS2_COMMANDS, text
        for parameter in re.findall(r"ros2 param [gs]et /anomaly_detector (\w+)", text):
            assert parameter in parameters, text
        for topic in re.findall(
            r"(?<![\w.~$-])(/(?:anomaly_detector|camera|clock|diag)[\w/]*)", text
        ):
            assert topic in OWN_TOPICS | OTHER_TOPICS | {"/anomaly_detector"}, text
        for topic in re.findall(r"^~/\w+[\w/]*$", text):
            # Not a folder in the user's home.
            assert topic in {t.name for t in TOPICS}, text
        if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", text):
            assert text in parameters, text
        if text.startswith(("config/", "benchmarks/")):
            assert (ROOT / text).is_file(), text


def test_diagnostic_keys_exist() -> None:
    named = {text for text in code(PAGE) if re.fullmatch(r"[A-Z][a-z]+( [A-Za-z0-9()]+)*", text)}
    assert len(named) >= 10
    assert named <= set(MEANINGS)


def test_words_quoted_from_the_log_are_the_nodes() -> None:
    source = "".join(path.read_text() for path in (ROOT / "anomaly_detector/ros").rglob("*.py"))
    quoted = re.findall(r'\| "([^"]+)" in the log', PAGE)
    assert len(quoted) >= 3
    # The node puts the transition's name after "cannot".
    assert [words for words in quoted if words.replace("configure", "") not in source] == []
