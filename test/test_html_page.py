"""The pages of the robot side: escaped text, and nothing loaded from anywhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from anomaly_detector import html_page as html

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


def test_every_text_is_escaped_and_every_tag_closed() -> None:
    page = html.page(
        EVIL,
        EVIL,
        html.section(EVIL, html.paragraph(EVIL), html.paragraph(EVIL, note=True)),
        html.key_figures([(EVIL, EVIL, EVIL, True), (EVIL, EVIL, EVIL, False)]),
        html.table([EVIL, "b"], [[EVIL, EVIL]], last_is_text=True, bad_rows=[0]),
        html.table(["a", "b"], [[html.file_link(EVIL, EVIL), html.curve([0.5], 0.5, EVIL)]]),
        html.picture(b"data", "png", EVIL, EVIL),
        html.gallery([html.card(b"data", "jpeg", EVIL, EVIL)]),
    )
    parsed = Tags(page)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:|\./%3Cscript%3E)', page)


def test_link_names_a_file_beside_the_page_and_its_text_is_not_escaped_twice() -> None:
    link = html.file_link("a:b c&d#1.csv", "a & b")
    assert link == '<a href="./a%3Ab%20c%26d%231.csv">a &amp; b</a>'
    assert link in html.paragraph("see ", link)
    assert f"<td>{link}</td>" in html.table(["a", "b"], [["1", link]])


@pytest.mark.parametrize(
    ("values", "points"), [([0.0, 1.0, 0.25], "0,100 1,0 2,75"), ([0.5], "0,50 1,50")]
)
def test_curve_goes_up_with_its_values_and_one_value_is_level(
    values: list[float], points: str
) -> None:
    assert f'points="{points}"' in html.curve(values, 0.5, "scores")


def test_bad_rows_and_last_column_of_words_are_marked() -> None:
    rows = [["a", "1", "fine"], ["b", "2", "broken"]]
    table = html.table(["name", "n", "note"], rows, last_is_text=True, bad_rows=[1])
    assert '<tr><td class="text">a</td><td>1</td><td class="text">fine</td></tr>' in table
    assert '<tr class="bad"><td class="text">b</td>' in table


def test_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="for columns"):
        html.table(["a", "b"], [["1"]])
