"""The Foxglove layout and its document: a layout that imports, of topics that the node has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LAYOUT = json.loads((ROOT / "config" / "foxglove_layout.json").read_text())
DOCUMENT = (ROOT / "docs" / "seeing-it-live.md").read_text()
NODE = (ROOT / "docs" / "node.md").read_text()

# The panel types of Foxglove and Lichtblick that are used, each with where it names topics.
PANEL_TYPES = {"Image", "Indicator", "Plot", "StateTransitions", "RawMessages", "RosOut"} | {
    "DiagnosticSummary"
}


def topics_of(panel: dict[str, Any]) -> set[str]:
    """Return the topics that a panel's configuration names, without the fields of the message."""
    paths = [
        panel.get("imageMode", {}).get("imageTopic"),
        *(panel.get(key) for key in ("path", "topicPath", "topicToRender")),
        *(item["value"] for item in panel.get("paths", [])),
    ]
    return {path.split(".")[0] for path in paths if path and path.startswith("/")}


def leaves(node: Any) -> list[str]:
    if isinstance(node, str):
        return [node]
    assert set(node) == {"direction", "first", "second", "splitPercentage"}
    assert node["direction"] in {"row", "column"}
    assert 0 < node["splitPercentage"] < 100
    return leaves(node["first"]) + leaves(node["second"])


def test_layout_has_what_an_import_asks_for() -> None:
    assert set(LAYOUT) == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    assert LAYOUT["playbackConfig"]["speed"] == 1
    for name, panel in LAYOUT["configById"].items():
        kind, _, identity = name.partition("!")
        assert kind in PANEL_TYPES
        assert identity
        assert panel["foxglovePanelTitle"] == panel["lichtblickPanelTitle"]


def test_every_panel_is_placed_once() -> None:
    placed = leaves(LAYOUT["layout"])
    assert len(placed) == len(set(placed))
    assert set(placed) == set(LAYOUT["configById"])


def test_every_series_is_whole() -> None:
    """A series without ``enabled`` or with an unknown time is not drawn, without a word."""
    for name, panel in LAYOUT["configById"].items():
        for item in panel.get("paths", []):
            assert item["timestampMethod"] in {"receiveTime", "headerStamp"}
            if name.startswith("Plot!"):
                assert item["enabled"] is True
        for rule in panel.get("rules", []):
            assert set(rule) == {"operator", "rawValue", "color", "label"}


def test_every_panel_shows_a_topic_that_is_documented() -> None:
    documented = set(re.findall(r"`((?:~/|/)?[a-z_/]+)`", NODE + DOCUMENT))
    for name, panel in LAYOUT["configById"].items():
        topics = topics_of(panel)
        assert topics, name
        for topic in topics:
            inner = topic.replace("/anomaly_detector/", "~/")
            # The relative topic of the camera, as a node without a namespace resolves it.
            assert {inner, inner.removeprefix("/")} & documented, f"{name}: {topic}"


def test_document_lists_every_panel() -> None:
    rows = "\n".join(line for line in DOCUMENT.splitlines() if line.startswith("|"))
    for panel in LAYOUT["configById"].values():
        title = re.split(r"[,(]", panel["foxglovePanelTitle"])[0].strip()
        assert title in rows


def test_thresholds_are_in_the_plots() -> None:
    values = {
        name: [item["value"] for item in panel["paths"]]
        for name, panel in LAYOUT["configById"].items()
        if name.startswith("Plot!")
    }
    assert "0.5" in values["Plot!normalized"]
    assert any('{key=="threshold"}' in value for value in values["Plot!score"])
