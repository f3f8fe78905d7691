"""One self-contained HTML page from sections of text, tables, figures and galleries.

A page is data (:class:`Page`), so that any part of the project can add sections to it. The template
turns it into HTML with every text escaped. The page loads nothing from anywhere: pictures are
``data:`` URIs, and its own content security policy forbids all else. jinja2 is imported when a page
is written.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeAlias
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly_detector.drawing.timeline import resized
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path

THUMBNAIL_SIZE = 160
"""Height and width of a frame on a page, pixels."""


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page.

    Attributes:
        file: its name.
        text: what to click on.
    """

    file: str
    text: str

    @property
    def href(self) -> str:
        """The address; "./" since a colon in the name would end a scheme."""
        return f"./{quote(os.fsencode(self.file))}"


@dataclass(frozen=True)
class Curve:
    """A small curve.

    Attributes:
        values: at least one, from 0 (bottom) to 1 (top).
        limit: height of a dashed line.
        alt: what it shows, for readers who cannot see it.
    """

    values: Sequence[float]
    limit: float
    alt: str

    @property
    def points(self) -> Sequence[str]:
        """Points "x,y" of the line, y downwards from 0 to 100; one value is a level line."""
        values = self.values if len(self.values) > 1 else [*self.values, *self.values]
        return [f"{index},{100 - 100 * value:.0f}" for index, value in enumerate(values)]


Cell: TypeAlias = "str | Link | Curve"


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        uri: ``data:`` URI.
        alt: what it shows, for readers who cannot see it.
        caption: text below; may be empty.
        wide: takes the whole width of the page; others stand side by side.
    """

    uri: str
    alt: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: the header.
        rows: as many cells each.
        caption: text above; may be empty.
        text_columns: number of leading columns that hold words and are aligned left; the others
            hold numbers and are aligned right.
        last_is_text: the last column holds words, too, or curves; then only the first and the last
            column break lines.
        bad_rows: indices of rows to mark.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    text_columns: int = 1
    last_is_text: bool = False
    bad_rows: Collection[int] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row {row} for columns {self.columns}")


@dataclass(frozen=True)
class KeyFigure:
    """A number to be seen first: name, value as text, a note below, and whether to mark it."""

    name: str
    value: str
    note: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Card:
    """An entry of a gallery: pictures side by side with a title and lines of text below."""

    title: str
    lines: Sequence[str]
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Section:
    """A section of a page; its parts are shown in the order of the attributes.

    Attributes:
        title: heading; sections of one page need different ones.
        text: paragraphs.
        key_figures: numbers in large type.
        pictures: figures.
        gallery: small pictures in a grid.
        tables: tables.
        notes: paragraphs in small type at the end.
    """

    title: str
    text: Sequence[str] = ()
    key_figures: Sequence[KeyFigure] = ()
    pictures: Sequence[Picture] = ()
    gallery: Sequence[Card] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()

    @property
    def anchor(self) -> str:
        """The section's id in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


@dataclass(frozen=True)
class Page:
    """A whole page: title, a line below it, sections, and a warning above them all."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    warning: str | None = None


def import_jinja2() -> ModuleType:
    """Import jinja2; called before long work, too, whose page it would be too late for.

    Raises:
        AnomalyDetectorError: it is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise AnomalyDetectorError(
            f"an HTML report needs the package jinja2 ({error}): pip install jinja2, or apt "
            "install python3-jinja2 on a ROS host"
        ) from error
    return jinja2


def render_page(page: Page) -> str:
    """Return a page as HTML text.

    Raises:
        AnomalyDetectorError: jinja2 is not installed.
    """
    jinja2 = import_jinja2()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        # Frame names and paths are data that anybody may have chosen.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return f"{environment.get_template('page.html.j2').render(page=page)}\n"


def write_page(page: Page, path: Path) -> None:
    """Write a page; the file appears whole or not at all.

    Raises:
        AnomalyDetectorError: jinja2 is not installed, or the file cannot be written.
    """
    text = render_page(page)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def data_uri(kind: str, data: bytes) -> str:
    """Return the bytes of a file as a ``data:`` URI; ``kind`` is as ``image/png``."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def image_uri(image: NDArray[np.uint8], size: int | None = None) -> str:
    """Return an RGB picture as a PNG ``data:`` URI.

    Args:
        image: uint8 RGB [H, W, 3].
        size: height and width to enlarge it to, pixels; None keeps them.
    """
    shown = image if size is None else resized(image, size)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
    return data_uri("image/png", encoded.tobytes())


def frame_picture(image: NDArray[np.uint8], alt: str) -> Picture:
    """Return a frame, uint8 RGB [H, W, 3], as a thumbnail."""
    return Picture(image_uri(image, THUMBNAIL_SIZE), alt)
