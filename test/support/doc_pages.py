"""Reads the project's Markdown pages: links, headings and the commands in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Page:
    """One Markdown page."""

    path: Path

    @cached_property
    def text(self) -> str:
        """The page as it is written."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def _tokens(self) -> list[Token]:
        return _PARSER.parse(self.text)

    def _inline(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()

    @cached_property
    def links(self) -> list[str]:
        """Targets of links and pictures that are no addresses of the web."""
        targets = [str(t.attrGet("href") or t.attrGet("src") or "") for t in self._inline()]
        return [t for t in targets if t and not re.match(r"[a-z]+:", t)]

    @cached_property
    def anchors(self) -> set[str]:
        """What ``#...`` may name: the headings, as GitHub turns them into anchors."""
        slugs: Counter[str] = Counter()
        anchors: set[str] = set()
        for before, token in zip(self._tokens, self._tokens[1:], strict=False):
            if before.type == "heading_open":
                words = "".join(t.content for t in token.children or ()).lower()
                slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
                anchors.add(f"{slug}-{slugs[slug]}" if slugs[slug] else slug)
                slugs[slug] += 1
        return anchors

    @cached_property
    def spans(self) -> list[str]:
        """Code inside the text."""
        return [" ".join(t.content.split()) for t in self._inline() if t.type == "code_inline"]

    @cached_property
    def command_lines(self) -> list[str]:
        """Lines of code blocks, continued ones joined, without comments; and code in the text."""
        blocks = [t.content for t in self._tokens if t.type in ("fence", "code_block")]
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        return [re.sub(r"(^|\s)#.*", "", line).strip() for line in (*lines, *self.spans)]

    def broken_links(self) -> list[str]:
        """Links to files that are not there, and to headings that their page does not have."""
        return [target for target in self.links if not self._leads_somewhere(target)]

    def _leads_somewhere(self, target: str) -> bool:
        name, _, anchor = target.partition("#")
        path = self.path.parent / name if name else self.path
        if not path.exists():
            return False
        return not anchor or (path.suffix == ".md" and anchor in Page(path).anchors)
