"""A page in a terminal of 80 columns: its words, its tables where they fit, else a paragraph for each row."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from smallmodels.report.formats import MISSING, clean
from smallmodels.report.page import Block, Bullets, Code, Page, Picture, Table, Text
from smallmodels.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text as Line

WIDTH = 80
_MIN_TEXT = 17
"""Characters that a column of words needs to be read."""
_MAX_NUMBER = 24
"""A wider cell of numbers is broken into lines of its own."""
_STYLES = {"better": "green", "worse": "red"}
"""Of verdicts, which are said in words as well."""


def print_page(page: Page, console: "Console") -> None:
    """Print what a page says; pictures are left out, because each has its table."""
    for block in _page_lines(page):
        console.print(block, width=min(console.width, WIDTH))


def _page_lines(page: Page) -> "Iterator[RenderableType]":
    yield ""
    yield _line(page.title, "bold")
    yield _line(page.kicker, "dim")
    yield ""
    yield _line(page.summary)
    for notice in page.notices:
        yield _line(f"! {notice}", "yellow")
    for section in page.sections:
        yield ""
        yield _line(section.title, "bold underline")
        for block in section.blocks:
            yield from _block(block)
    yield ""


def _block(block: Block) -> "Iterator[RenderableType]":
    if isinstance(block, Text):
        yield _line(block.text)
    elif isinstance(block, Bullets):
        for line in block.lines:
            yield _hanging(f"• {printable(clean(line))}")
    elif isinstance(block, Code):
        if not block.fold:
            yield from (_line(line) for line in clean(block.text).split("\n"))
    else:
        table = block.table if isinstance(block, Picture) else block
        if not table.fold:
            yield from _table(table)


def _line(text: str, style: str = "") -> "Line":
    from rich.text import Text as Line

    return Line(printable(clean(text)), style=style)


def _hanging(text: str, style: str = "") -> "RenderableType":
    """A paragraph whose later lines are indented."""
    from rich.text import Text as Line

    return Line(textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=True), style=style)


def _table(table: Table) -> "Iterator[RenderableType]":
    cells = [[printable(clean(getattr(cell, "text", cell))) for cell in row] for row in table.rows]
    head = [printable(clean(name)) for name in table.head]
    yield ""
    if _fits(head, cells, table.text_columns):
        yield _grid(table, head, cells)
    else:
        yield _line(table.caption, "italic")
        yield from _paragraphs(head, cells, table.strong)
    if table.note:
        yield _line(table.note, "dim")


def _fits(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int]) -> bool:
    """Whether a table has room for its numbers, and for some letters of each column of words."""
    needed = 2
    for place in range(len(head)):
        longest = _width(head, rows, place)
        is_text = place == 0 or place in text_columns
        if not is_text and longest > _MAX_NUMBER:
            return False
        needed += 2 + (min(longest, _MIN_TEXT) if is_text else longest)
    return needed <= WIDTH


def _width(head: Sequence[str], rows: Sequence[Sequence[str]], place: int) -> int:
    """Of the longest cell of a column, or of a word in its head."""
    return max([1, *(len(row[place]) for row in rows), *(len(word) for word in head[place].split())])


def _grid(table: Table, head: Sequence[str], rows: Sequence[Sequence[str]]) -> "RenderableType":
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text as Line

    title = _line(table.caption, "italic")
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1), collapse_padding=True)
    for place, name in enumerate(head):
        is_text = place == 0 or place in table.text_columns
        shown = textwrap.fill(name, _width(head, rows, place), break_long_words=False)
        grid.add_column(Line(shown), justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for i, row in enumerate(rows):
        cells = [Line(cell, style=_STYLES.get(cell.partition(":")[0], "")) for cell in row]
        grid.add_row(*cells, style="bold" if i in table.strong else None)
    return grid


def _paragraphs(
    head: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int]
) -> "Iterator[RenderableType]":
    """Each row as a line with its name and the other cells beneath, what is not known left out."""
    for i, row in enumerate(rows):
        yield _hanging(row[0], "bold" if i in strong or len(row) > 1 else "")
        said = [f"{name} {cell}" for name, cell in zip(head[1:], row[1:], strict=True) if cell not in (MISSING, "")]
        yield _hanging("  " + "; ".join(said))
