"""What a page is made of, and its two forms: HTML and Markdown.

A page is plain data until the very end, so both forms say the same, and a test can read it without parsing anything.
"""

import functools
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from smallmodels import __version__, files
from smallmodels.report import figures, formats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 500
"""Rows that a page shows of a long list; what is left out is counted."""


@dataclass(frozen=True)
class Cell:
    """A table cell with a bar in its background that fills a fraction in [0, 1] of it."""

    text: str
    bar: float


Row = list[str | Cell]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; its first column names the row."""

    kind: ClassVar[str] = "table"
    caption: str
    head: list[str]
    rows: list[Row]
    text_columns: tuple[int, ...] = ()
    """Columns besides the first that hold words and are aligned to the left."""
    strong: tuple[int, ...] = ()
    """Rows that stand out."""
    note: str = ""
    fold: str = ""
    """If given, the table is closed until this line is clicked."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    lines: list[str]


@dataclass(frozen=True)
class Code:
    """Text to copy, such as a command; with `fold` it is closed until that line is clicked."""

    kind: ClassVar[str] = "code"
    text: str
    fold: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawing. `alt` says in words what it shows; `name` is the end of its file's name."""

    name: str
    heading: str
    alt: str
    figure: "Figure"


@dataclass(frozen=True)
class Picture:
    """Panels side by side, under each other on a phone; their table beneath or, where it is narrow, beside them."""

    kind: ClassVar[str] = "picture"
    panels: list[Panel]
    table: Table
    beside: bool = False


Block = Text | Bullets | Code | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Fact:
    """One large figure at the top of a page."""

    label: str
    value: str
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that a page shows."""

    title: str
    kicker: str
    summary: str
    facts: list[Fact] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    """What a reader must know before believing a number on the page."""
    sections: list[Section] = field(default_factory=list)
    footer: str = ""

    def panels(self) -> list[Panel]:
        """Every drawing of the page, in order."""
        pictures = [b for s in self.sections for b in s.blocks if isinstance(b, Picture)]
        return [panel for picture in pictures for panel in picture.panels]


def cut_note(total: int, shown: int) -> str:
    """What a table says when it does not show everything."""
    return f"{total - shown:,} more are left out here and stand in record.json." if total > shown else ""


def to_html(page: Page) -> str:
    """The page as one HTML document: no script, no network, readable from a file."""
    from markupsafe import Markup

    def svg(panel: Panel) -> Markup:
        return Markup(figures.to_svg(panel.figure, title=panel.alt, salt=panel.name))  # escaped where it is drawn

    palette = {theme: {n: v[i] for n, v in figures.PALETTE.items()} for i, theme in enumerate(("light", "dark"))}
    made_by = f"{writer()}, matplotlib {importlib.metadata.version('matplotlib')}"
    template = formats.environment("html").get_template("page.html.j2")
    return template.render(page=page, svg=svg, palette=palette, made_by=made_by)


@functools.cache
def writer() -> str:
    """The version of this package and of the very code that writes cards and pages: the same writes the same."""
    package = Path(__file__).parents[1]
    sources = [
        package / "cards.py",
        package / "licenses.py",
        *package.glob("report/*.py"),
        *package.glob("templates/*"),
    ]
    digest = files.sha256_json([files.sha256_file(path) for path in sorted(sources)])
    return f"smallmodels {__version__} ({digest[:12]})"


def to_markdown(page: Page, pictures: Mapping[str, str]) -> str:
    """The page as Markdown.

    Args:
        page: What to say.
        pictures: File name of each panel's picture, by the panel's name.
    """
    return formats.environment("markdown").get_template("page.md.j2").render(page=page, pictures=pictures)
