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
        html.table([EVIL, "b"], [[EVIL, EVIL]]),
        html.picture(b"data", "png", EVIL, EVIL),
        html.gallery([html.card(b"data", "jpeg", EVIL, EVIL)]),
    )
    parsed = Tags(page)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="for columns"):
        html.table(["a", "b"], [["1"]])
