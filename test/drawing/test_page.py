"""The HTML pages: escaped text, and nothing loaded from anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from model_files import write_grey_difference_model

from anomaly_detector.drawing.page import (
    Card,
    Cell,
    Curve,
    KeyFigure,
    Link,
    Page,
    Picture,
    Section,
    Table,
    data_uri,
    render_page,
)
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.scoring.fleet.job import FleetOptions, score_fleet

EVIL = "<script>alert('x')</script> \"quoted\" & more"


class Tags(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an opening tag."""
        self.tags.append(tag)
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Take a closing tag, which must be that of the innermost element."""
        assert self.open.pop() == tag


def cells(row: list[Cell]) -> str:
    """Return what a page makes of a row of a table."""
    page = render_page(Page("t", "s", [Section("S", tables=[Table("ab"[: len(row)], [row])])]))
    (found,) = re.findall(r"<tbody>\n<tr>(.*)</tr>\n</tbody>", page)
    return str(found)


def test_every_text_is_escaped_and_every_tag_closed() -> None:
    picture = Picture(data_uri("image/png", b"data"), EVIL, EVIL, wide=True)
    section = Section(
        EVIL,
        [EVIL],
        [KeyFigure(EVIL, EVIL, EVIL), KeyFigure(EVIL, EVIL, EVIL, bad=True)],
        [picture],
        [Card(EVIL, [EVIL], [picture, picture])],
        [
            Table([EVIL, "b"], [[EVIL, EVIL]], EVIL, last_is_text=True, bad_rows=[0]),
            Table(["a", "b"], [[Link(EVIL, EVIL), Curve([0.5], 0.5, EVIL)]]),
        ],
        [EVIL],
    )
    page = render_page(Page(EVIL, EVIL, [section, Section("Other")], EVIL))
    parsed = Tags(page)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert page.count("&lt;script&gt;") == 26
    assert "default-src 'none'" in page
    assert page.count('src="data:image/png;base64,ZGF0YQ=="') == 3
    assert not re.findall(r'(?:src|href)="(?!data:|#|\./%3Cscript%3E)', page)


def test_link_names_a_file_beside_the_page_and_its_text_is_not_escaped_twice() -> None:
    link = '<td><a href="./a%3Ab%20c%26d%231.csv">a &amp; b</a></td>'
    assert link in cells(["1", Link("a:b c&d#1.csv", "a & b")])


@pytest.mark.parametrize(
    ("values", "points"), [([0.0, 1.0, 0.25], "0,100 1,0 2,75"), ([0.5], "0,50 1,50")]
)
def test_curve_goes_up_with_its_values_and_one_value_is_level(
    values: list[float], points: str
) -> None:
    curve = cells(["1", Curve(values, 0.25, "scores")])
    assert f'points="{points}"' in curve
    assert f'd="M0 75H{points.count(" ")}"' in curve


def test_bad_rows_and_last_column_of_words_are_marked() -> None:
    rows = [["a", "1", "fine"], ["b", "2", "broken"]]
    table = Table(["name", "n", "note"], rows, last_is_text=True, bad_rows=[1])
    page = render_page(Page("t", "s", [Section("S", tables=[table])]))
    assert '<tr><td class="text">a</td><td>1</td><td class="text">fine</td></tr>' in page
    assert '<tr class="bad"><td class="text">b</td>' in page


def test_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="for columns"):
        Table(["a", "b"], [["1"]])


def test_jinja2_is_imported_when_a_page_is_written() -> None:
    code = "import sys, anomaly_detector.scoring.fleet.job; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_lack_of_jinja2_is_told_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    model = write_grey_difference_model(tmp_path / "m.onnx")
    out = tmp_path / "out"
    with pytest.raises(AnomalyDetectorError, match="pip install jinja2, or apt install python3-"):
        score_fleet(FleetOptions([str(tmp_path)], model, out))
    assert not out.exists()
