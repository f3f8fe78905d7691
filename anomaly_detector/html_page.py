"""One HTML page that loads nothing from anywhere, for hosts without a template engine.

The functions give pieces of HTML with every text escaped; :func:`page` puts pieces together. Where
a text is taken, so is a :class:`Html`, such as a link, which is left as it is. Pictures become
``data:`` URIs, and the page's own content security policy forbids all else.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Sequence
from html import escape
from urllib.parse import quote

__all__ = [
    "Html",
    "card",
    "curve",
    "file_link",
    "gallery",
    "key_figures",
    "page",
    "paragraph",
    "picture",
    "section",
    "table",
    "warning",
]

_STYLE = """
:root { --ink: #1d2939; --muted: #667085; --line: #e4e7ec; --soft: #f7f8fa; --bad: #d55e00; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color-scheme: light; }
h1 { margin: 0; font-size: 26px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 28px 0 8px; font-size: 20px; border-top: 1px solid var(--line); padding-top: 18px; }
p { margin: 6px 0 12px; max-width: 80ch; overflow-wrap: anywhere; }
p.note, figcaption { color: var(--muted); font-size: 13.5px; }
p.warning { padding: 10px 14px; border-left: 4px solid var(--bad); background: #fff4ec;
  font-weight: 600; max-width: none; }
.keys { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 16px 0; }
.key { background: var(--soft); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 14px; }
.key.bad { border-color: var(--bad); box-shadow: inset 4px 0 var(--bad); }
.key .name, .key .note { color: var(--muted); font-size: 13px; }
.key .value { font-size: 26px; font-weight: 650; line-height: 1.25; }
figure { margin: 12px 0; }
img { display: block; max-width: 100%; height: auto; }
.scroll { overflow-x: auto; margin: 12px 0 18px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); text-align: right; }
th { color: var(--muted); font-weight: 600; font-size: 13px; vertical-align: bottom; }
th.text, td.text { text-align: left; overflow-wrap: anywhere; }
tr.bad td:first-child { box-shadow: inset 4px 0 var(--bad); padding-left: 12px; }
.detailed th, .detailed td { white-space: nowrap; }
.detailed td:first-child { min-width: 13em; white-space: normal; }
.detailed td:last-child { min-width: 238px; white-space: normal; }
a { color: #0b57d0; }
td svg { display: block; width: 220px; height: 34px; }
svg .limit { stroke: var(--bad); stroke-dasharray: 4 3; }
svg .values { fill: none; stroke: var(--ink); stroke-width: 1.5; }
svg path, svg polyline { vector-effect: non-scaling-stroke; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr));
  gap: 16px; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 8px; font-size: 13.5px; }
.card img { width: 100%; border-radius: 4px; }
.card b { display: block; margin-top: 5px; }
@media print { .card, figure, tr { break-inside: avoid; } }
"""


_BAD = " bad"
_BAD_ROW = ' class="bad"'


class Html(str):
    """A piece of HTML that may stand where a text is taken."""

    __slots__ = ()


def page(title: str, subtitle: str, *pieces: str) -> str:
    """Give a whole page.

    Args:
        title: its title, and the heading at its top.
        subtitle: a line below that.
        *pieces: HTML of the other functions.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="note">{escape(subtitle)}</p>\n' + "\n".join(pieces) + "\n</body>\n</html>\n"
    )


def section(title: str, *pieces: str) -> str:
    """Give a section: a heading with pieces below."""
    return "\n".join([f"<section>\n<h2>{escape(title)}</h2>", *pieces, "</section>"])


def paragraph(*texts: str, note: bool = False) -> str:
    """Give a paragraph of texts, one after the other; a note is smaller and grey."""
    kind = ' class="note"' if note else ""
    return f"<p{kind}>{''.join(map(_html, texts))}</p>"


def warning(text: str) -> str:
    """Give a line that nobody is to overlook."""
    return f'<p class="warning">{escape(text)}</p>'


def file_link(name: str, text: str) -> Html:
    """Give a link to a file beside the page.

    Args:
        name: of the file, as it is.
        text: what to click on.
    """
    # "./" so that what is before a colon in the name is no scheme.
    return Html(f'<a href="./{quote(os.fsencode(name))}">{escape(text)}</a>')


def curve(values: Sequence[float], limit: float, alt: str) -> Html:
    """Give a small curve for a cell of a table.

    Args:
        values: at least one, from 0 (bottom) to 1 (top).
        limit: height of a dashed line.
        alt: what it shows, for readers who cannot see it.
    """
    # One value is drawn as a level line.
    drawn = values if len(values) > 1 else [*values, *values]
    points = " ".join(f"{index},{100 - 100 * value:.0f}" for index, value in enumerate(drawn))
    width, height = len(drawn) - 1, 100 - 100 * limit
    return Html(
        f'<svg viewBox="0 -4 {width} 108" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(alt)}"><path class="limit" d="M0 {height:.0f}H{width}"/>'
        f'<polyline class="values" points="{points}"/></svg>'
    )


def key_figures(figures: Sequence[tuple[str, str, str, bool]]) -> str:
    """Give numbers in large type: name, value, a note below, and whether all is well with it."""
    boxes = [
        f'<div class="key{_BAD * (not good)}"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)}</div><div class="note">{escape(note)}</div></div>'
        for name, value, note, good in figures
    ]
    return '<div class="keys">' + "".join(boxes) + "</div>"


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: int = 1,
    last_is_text: bool = False,
    bad_rows: Collection[int] = (),
) -> str:
    """Give a table.

    Args:
        columns: the header.
        rows: as many cells each.
        text_columns: number of leading columns that hold words; the others hold numbers and are
            aligned right.
        last_is_text: the last column holds words, too, or curves; then a table that is too wide
            for the window is scrolled, and only the first and the last column break lines.
        bad_rows: indices of rows to mark.

    Raises:
        ValueError: a row has not as many cells as the header.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"row {row} for columns {columns}")

    def cells(kind: str, texts: Sequence[str]) -> str:
        last = len(texts) - 1 if last_is_text else len(texts)
        classes = [
            ' class="text"' if index < text_columns or index >= last else ""
            for index in range(len(texts))
        ]
        return "".join(
            f"<{kind}{aligned}>{_html(text)}</{kind}>"
            for aligned, text in zip(classes, texts, strict=True)
        )

    body = "".join(
        f"<tr{_BAD_ROW * (index in bad_rows)}>{cells('td', row)}</tr>"
        for index, row in enumerate(rows)
    )
    head = f"<thead><tr>{cells('th', columns)}</tr></thead>"
    kind = ' class="detailed"' if last_is_text else ""
    return f'<div class="scroll"><table{kind}>{head}<tbody>{body}</tbody></table></div>'


def picture(data: bytes, kind: str, alt: str, caption: str = "") -> str:
    """Give a picture.

    Args:
        data: the bytes of its file.
        kind: ``png`` or ``jpeg``.
        alt: what it shows, for readers who cannot see it.
        caption: text below; may be empty.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{_image(data, kind, alt)}{below}</figure>"


def card(data: bytes, kind: str, title: str, text: str) -> str:
    """Give an entry of a gallery: a picture with a title and a line of text below."""
    return (
        f'<div class="card">{_image(data, kind, title)}<b>{escape(title)}</b>{escape(text)}</div>'
    )


def gallery(cards: Sequence[str]) -> str:
    """Give cards in a grid."""
    return '<div class="gallery">' + "".join(cards) + "</div>"


def _html(text: str) -> str:
    return text if isinstance(text, Html) else escape(text)


def _image(data: bytes, kind: str, alt: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{escape(alt)}">'
