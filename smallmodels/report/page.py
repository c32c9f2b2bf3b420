"""What a page is made of, and its two forms: HTML and Markdown.

A page is plain data until the very end, so both forms say the same, and a test can read it without parsing anything.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from smallmodels import __version__, files
from smallmodels.report import formats, svg
from smallmodels.report.drawing import PALETTE, Drawing

MAX_ROWS = 500
"""Rows that a page shows of a long list; what is left out is counted."""

MAX_BYTES = 1_000_000
"""Of a page, so that it can be sent by mail and opens at once on a phone."""

_LONG = 60
_TABLE_BYTES, _PICTURE_BYTES = 430_000, 480_000
_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)
_LENGTHS = (500, 400, 300, 200, 150, 100, 80, 60, 40, 25, 15, 10, 5)


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
    is_detail: bool = False
    """Whether it is the first to be cut where a page has no room."""

    @property
    def is_long(self) -> bool:
        """Whether its cells are written without what turns rows into blocks on a phone, which would be most of it."""
        return len(self.rows) > _LONG


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
    figure: Drawing


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

    def links(self) -> dict[str, int]:
        """Where to go on the page: names with the place of their section, from 1.

        Sections of one group, which have their name before a colon, share one link.
        """
        found: dict[str, int] = {}
        for place, section in enumerate(self.sections, 1):
            found.setdefault(section.title.partition(": ")[0], place)
        return found

    def panels(self) -> list[Panel]:
        """Every drawing of the page, in order."""
        pictures = [b for s in self.sections for b in s.blocks if isinstance(b, Picture)]
        return [panel for picture in pictures for panel in picture.panels]


def cut_note(total: int, shown: int) -> str:
    """What a table says when it does not show everything."""
    return f"{total - shown:,} more are left out here and stand in record.json." if total > shown else ""


def to_html(page: Page) -> str:
    """The page as one HTML document: no network, readable from a file, and whole without its small script.

    It stays under `MAX_BYTES`: where there is more, tables are cut to the same number of rows each, those of details
    first, and pictures are left out, those first whose cost is not ranked; the page says what and where it is.
    """
    return next((text for text in map(functools.partial(_rendered, page), _SHARES) if _fits(text)), None) or _rendered(
        page, 0.0
    )


def _fits(text: str) -> bool:
    return len(text.encode()) < MAX_BYTES


def _rendered(page: Page, share: float) -> str:
    """The page with a share of the room that tables and pictures have in a page of few groups."""
    from markupsafe import Markup

    drawn = _drawn(page, int(share * _PICTURE_BYTES))
    palette = {theme: {n: v[i] for n, v in PALETTE.items()} for i, theme in enumerate(("light", "dark"))}
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        formats.environment("html")
        .get_template("page.html.j2")
        .render(
            page=_with_fewer_rows(page, int(share * _TABLE_BYTES)),
            drawn=lambda panel: Markup(drawn[panel.name]) if panel.name in drawn else "",  # escaped where it is drawn
            palette=palette,
            made_by=writer(),
            chart_style=Markup(svg.page_style()),
            patterns=Markup(svg.patterns()),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
        )
    )


def _drawn(page: Page, room: int) -> dict[str, str]:
    """Each panel's picture by its name, without those that the page has no room for."""
    drawn = {panel.name: svg.inline(panel.figure, says=panel.alt) for panel in page.panels()}
    room -= sum(len(text.encode()) for text in drawn.values())
    not_ranked = [p for p in page.panels() if p.heading.endswith("not ranked")]
    # The last go first: those by phase, beside which there is another picture, before what stands alone for a cost.
    unranked = [p.name for p in sorted(not_ranked, key=lambda p: "by phase" in p.heading)]
    for name in [*reversed(unranked), *reversed([name for name in drawn if name not in unranked])]:
        if room >= 0:
            break
        room += len(drawn.pop(name).encode())
    return drawn


def _with_fewer_rows(page: Page, room: int) -> Page:
    """The page with tables cut to the longest length at which all of them have room, those of details first."""
    tables = [t for s in page.sections for b in s.blocks if (t := _table_of(b)) is not None]
    shortest = _LENGTHS[-1]
    lengths = [*((_LENGTHS[0], of_detail) for of_detail in _LENGTHS), *((most, shortest) for most in _LENGTHS[1:])]

    def length(table: Table, most: int, of_detail: int) -> int:
        return of_detail if table.is_detail else most

    known = [(table, _row_bytes(table)) for table in tables]

    def needed(most: int, of_detail: int) -> int:
        return sum(_table_bytes(table, rows, length(table, most, of_detail)) for table, rows in known)

    chosen = next((pair for pair in lengths if needed(*pair) <= room), lengths[-1])
    if all(len(table.rows) <= length(table, *chosen) for table in tables):
        return page

    def cut(block: Block) -> Block:
        table = _table_of(block)
        if table is None:
            return block
        shorter = _cut_table(table, length(table, *chosen))
        return replace(block, table=shorter) if isinstance(block, Picture) else shorter

    return replace(page, sections=[replace(s, blocks=[*map(cut, s.blocks)]) for s in page.sections])


def _table_of(block: Block) -> Table | None:
    return block.table if isinstance(block, Picture) else block if isinstance(block, Table) else None


def _table_bytes(table: Table, row_bytes: Sequence[int], most: int) -> int:
    """About what a table of at most so many rows takes in the page, given the bytes of what each row says."""
    kept = _kept(table, most)
    around = [14 if len(kept) > _LONG else 82 + len(name) for name in table.head]
    return sum(row_bytes[i] for i in kept) + len(kept) * (30 + sum(around))


def _row_bytes(table: Table) -> list[int]:
    cells = ([cell.text if isinstance(cell, Cell) else cell for cell in row] for row in table.rows)
    return [sum(len(formats.clean(text).encode()) for text in row) for row in cells]


def _cut_table(table: Table, most: int) -> Table:
    kept = _kept(table, most)
    left_out = len(table.rows) - len(kept)
    if left_out <= 0:
        return table
    note = (
        f"{left_out:,} more rows are left out here to keep the page small; the files beside it have them. {table.note}"
    )
    strong = tuple(new for new, old in enumerate(kept) if old in table.strong)
    return replace(table, rows=[table.rows[i] for i in kept], strong=strong, note=note.strip())


def _kept(table: Table, most: int) -> list[int]:
    """Which rows of a table stay where it is cut: those that stand out, as a sum at the end, and the first others."""
    strong = table.strong[:most]
    others = [i for i in range(len(table.rows)) if i not in table.strong]
    return sorted([*strong, *others[: most - len(strong)]])


def _script() -> str:
    """The script of every page; nothing of a record is ever in it, so one hash allows it and nothing else."""
    return (Path(__file__).parents[1] / "templates" / "page.js").read_text(encoding="utf-8")


@functools.cache
def writer() -> str:
    """The version of this package and of the very code that writes cards and pages: the same writes the same."""
    package = Path(__file__).parents[1]
    sources = [
        package / "cards.py",
        package / "licenses.py",
        *package.glob("report/**/*.py"),
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
