"""The report in a real browser: no console error, no request, every picture there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium
from conftest import add_box, make_drive, write_images
from model_files import write_grey_difference_model

from anomaly_detector.drawing.page import Curve, KeyFigure, Link, Page, Section, Table, write_page
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import open_source
from training.cli.evaluate import write_evaluation
from training.data.opening import LabelledRecording
from training.evaluation.evaluate import evaluate


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as driver:
        yield driver


@pytest.fixture
def report(tmp_path: Path) -> Path:
    normal = write_images(tmp_path / "normal", make_drive(30))
    boxes = write_images(tmp_path / "box", [add_box(frame) for frame in make_drive(10, seed=1)])
    detector = Detector(write_grey_difference_model(tmp_path / "m.onnx", threshold=5500))
    recordings = [
        LabelledRecording(open_source(normal)),
        LabelledRecording(open_source(boxes), class_name="box"),
    ]
    write_evaluation(evaluate(detector, recordings), tmp_path / "out")
    return tmp_path / "out" / "report.html"


def _requests(browser: Any, page: str) -> list[str]:
    """Return the addresses that a page asked for, itself included; not those of the start page."""
    urls = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            parameters = message["params"]
            if parameters["documentURL"].partition("#")[0] == page:
                urls.append(parameters["request"]["url"])
    return urls


def test_report_in_chromium(browser: Any, report: Path) -> None:
    browser.get(report.as_uri())
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]
    assert complaints == []

    requests = _requests(browser, report.as_uri())
    assert requests[0] == report.as_uri()
    assert [url for url in requests[1:] if not url.startswith("data:")] == []

    images = browser.execute_script(
        "return Array.from(document.images, i => [i.alt, i.complete, i.naturalWidth,"
        " i.getBoundingClientRect().width])"
    )
    assert len(images) >= 5
    for alt, complete, natural_width, shown_width in images:
        assert complete, alt
        assert natural_width > 0, alt
        assert shown_width > 50, alt

    # Nothing runs off a laptop's screen, and the links of the contents lead somewhere.
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 1280
    broken = browser.execute_script(
        "return Array.from(document.querySelectorAll('nav a'), a => a.getAttribute('href'))"
        ".filter(h => !document.querySelector(h))"
    )
    assert broken == []
    assert np.isclose(browser.execute_script("return window.scrollY"), 0)


@pytest.mark.parametrize("width", [520, 1280])
def test_long_names_and_wide_tables_fit_the_window(
    browser: Any, tmp_path: Path, width: int
) -> None:
    name = "evening_drive_" * 10
    numbers = Table(["fault", *"abcdefgh"], [["blur_2", *["0.123 [0.100, 0.200]"] * 8]])
    curves = Table(
        ["recording", "frames", "score"],
        [[Link(name, name), "7", Curve([0, 1], 0.5, "score")], [name, "0", f"{name} is missing"]],
        last_is_text=True,
        bad_rows=[1],
    )
    section = Section("Results", [name], [KeyFigure(name, name, name)], tables=[numbers, curves])
    write_page(Page(name, name, [section], name), tmp_path / "page.html")
    browser.set_window_size(width, 900)
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # A word beside many numbers stays on one line.
    assert browser.execute_script("return document.querySelector('td').offsetHeight") < 40
    assert browser.execute_script("return document.querySelector('svg').clientHeight") > 20


def test_browser_test_would_notice_a_broken_page(browser: Any, tmp_path: Path) -> None:
    """The checks above must be able to fail: a page with the faults that they look for."""
    page = tmp_path / "broken.html"
    page.write_text(
        "<img alt='x' src='http://127.0.0.1:9/missing.png'><script>null.fail()</script>"
    )
    browser.get(page.as_uri())
    assert any(entry["level"] == "SEVERE" for entry in browser.get_log("browser"))
    assert "http://127.0.0.1:9/missing.png" in _requests(browser, page.as_uri())
    assert browser.execute_script("return document.images[0].naturalWidth") == 0
