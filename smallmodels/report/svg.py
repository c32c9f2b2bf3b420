"""Pictures as SVG: inside a page, whose colours they take, or as files of their own, which bring both themes along."""

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape

from smallmodels.report.drawing import (
    HEIGHT,
    PALETTE,
    WIDTH,
    Box,
    Dots,
    Drawing,
    Item,
    Line,
    Mark,
    Place,
    Shape,
    Sign,
    Words,
)
from smallmodels.report.formats import clean

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_SPACE = "http://www.w3.org/2000/svg"
_MOST_STOPS = 30
"""Marks that the keyboard stops at without the page's script; with it, arrow keys reach all of them."""

# Lines of a pattern in a square of 8, drawn in the colour of the paper over the colour of the box.
_PATTERNS = {
    "rising": "M-2 2l4-4M0 8l8-8M6 10l4-4",
    "falling": "M-2 6l4 4M0 0l8 8M6-2l4 4",
    "upright": "M2 0v8M6 0v8",
    "level": "M0 2h8M0 6h8",
    "grid": "M0 2h8M0 6h8M2 0v8M6 0v8",
    "lattice": "M-2 2l4-4M0 8l8-8M6 10l4-4M-2 6l4 4M0 0l8 8M6-2l4 4",
    "dots": "M2 2h.01M6 6h.01",
}
_PATTERN_WIDTH = {"dots": 2.4}


def inline(drawing: Drawing, *, says: str) -> str:
    """The picture for a page that has `page_style` and `patterns`.

    Args:
        drawing: What to draw.
        says: Text alternative: what the picture shows.
    """
    content = "".join(_parts(drawing.items))
    size = f'viewBox="0 0 {_n(drawing.width)} {_n(drawing.height)}"'
    return f'<svg {size} role="group" aria-label="{_quoted(says)}" class="chart">{content}</svg>'


def to_file(drawing: Drawing, *, title: str) -> str:
    """The picture as a file of its own, with background, both themes and a title that screen readers say."""
    content = "".join(_item(item) for item in drawing.flat())
    return _file((-8, -8, drawing.width + 16, drawing.height + 16), drawing.width, title, content)


def combine(panels: Sequence[tuple[str, Drawing]], *, title: str, columns: int = 2) -> str:
    """Several pictures with a heading each as one SVG file, in rows of so many columns.

    Args:
        panels: Heading and picture; pictures of the usual size.
        title: Text alternative for the whole.
        columns: Pictures in a row.
    """
    columns = min(columns, len(panels))
    row_height, gap = HEIGHT + 30, 20
    width = columns * WIDTH + (columns - 1) * gap
    height = math.ceil(len(panels) / columns) * row_height + 10
    parts = []
    for i, (heading, drawing) in enumerate(panels):
        x, y = (i % columns) * (WIDTH + gap), (i // columns) * row_height
        words = _item(Words(x=3, y=18, text=clean(heading, 60), bold=True, size=13))
        inner = "".join(_item(item) for item in drawing.flat())
        parts.append(f'<g transform="translate({_n(x)} {_n(y + 6)})">{words}<g transform="translate(0 26)">{inner}')
        parts.append("</g></g>")
    return _file((-12, -8, width + 24, height + 12), width + 24, title, "".join(parts))


def _file(box: tuple[float, float, float, float], width: float, title: str, content: str) -> str:
    view = " ".join(map(_n, box))
    x, y, across, down = map(_n, box)
    light = "".join(_colour_rules(name, colours[0]) for name, colours in PALETTE.items())
    dark = "".join(_colour_rules(name, colours[1]) for name, colours in PALETTE.items())
    style = f"<style>{SHAPE_STYLE}{light}@media (prefers-color-scheme:dark){{{dark}}}</style>"
    head = f'<svg xmlns="{_SPACE}" viewBox="{view}" width="{_n(width)}" role="img" aria-label="{_quoted(title)}" '
    head += f'class="chart"><title>{escape(clean(title))}</title>'
    paper = f'<rect x="{x}" y="{y}" width="{across}" height="{down}" rx="8" class="f-paper"/>'
    return f"{head}{style}{patterns()}{paper}{content}</svg>\n"


# --- styles -----------------------------------------------------------------------------------------------------------

SHAPE_STYLE = (
    f".chart text{{font:{12.5}px {FONTS}}}.chart .b{{font-weight:650}}"
    ".chart path,.chart rect{stroke-linejoin:round;stroke-linecap:round}.n{fill:none}"
)
"""Rules that every picture needs, besides those of colours."""


def page_style() -> str:
    """Rules for a page that defines the colours as `--c-ink` and so on, for its theme."""
    return SHAPE_STYLE + "".join(_colour_rules(name, f"var(--c-{name})") for name in PALETTE)


def _colour_rules(name: str, colour: str) -> str:
    return f".f-{name}{{fill:{colour}}}.s-{name}{{stroke:{colour}}}"


def patterns() -> str:
    """What boxes with a pattern refer to; once in every document."""
    made = "".join(
        f'<pattern id="p-{name}" width="8" height="8" patternUnits="userSpaceOnUse"><path class="n s-paper" '
        f'stroke-width="{_PATTERN_WIDTH.get(name, 1.1)}" d="{path}"/></pattern>'
        for name, path in _PATTERNS.items()
    )
    return f"<defs>{made}</defs>"


# --- items ------------------------------------------------------------------------------------------------------------


def _parts(items: Sequence[Item | Mark]) -> Iterator[str]:
    """Marks as they are; what stands between them is hidden from screen readers, to whom the marks say it."""
    stops = itertools.count()
    for is_mark, run in itertools.groupby(items, key=lambda item: isinstance(item, Mark)):
        if is_mark:
            yield from (_mark(item, next(stops)) for item in run if isinstance(item, Mark))
        else:
            yield f'<g aria-hidden="true">{"".join(_item(i) for i in run if not isinstance(i, Mark))}</g>'


def _mark(mark: Mark, number: int) -> str:
    stop = 0 if number < _MOST_STOPS else -1
    row = f' data-row="{_quoted(mark.row)}"' if mark.row else ""
    drawn = "".join(_item(item) for item in mark.items)
    said = escape(clean(mark.says, 400))
    return f'<g class="mark" role="img" tabindex="{stop}"{row}><title>{said}</title>{_touch(mark.touch)}{drawn}</g>'


def _touch(places: Sequence[Place]) -> str:
    if len(places) == 1:
        return f'<circle class="hit" cx="{_n(places[0][0])}" cy="{_n(places[0][1])}" r="12"/>'
    return f'<path class="hit along" d="{_path(places)}"/>' if places else ""


def _item(item: Item) -> str:
    if isinstance(item, Line):
        return _line(item)
    if isinstance(item, Box):
        return _box(item)
    if isinstance(item, Sign):
        inside = item.colour if item.filled else "paper"
        path = _sign_path(item.shape, item.x, item.y, item.radius)
        return f'<path class="f-{inside} s-{item.colour}" stroke-width="1.8" d="{path}"/>'
    if isinstance(item, Dots):
        path = "".join(f"M{_n(x)} {_n(y)}h0" for x, y in item.places)
        return f'<path class="n s-{item.colour}" stroke-width="4" d="{path}"/>'
    return _words(item)


def _line(line: Line) -> str:
    more = f' stroke-width="{_n(line.width)}"' if line.width != 1 else ""
    more += f' opacity="{_n(line.opacity)}"' if line.opacity != 1 else ""
    more += f' stroke-dasharray="{" ".join(map(_n, line.dash))}"' if line.dash else ""
    return f'<path class="n s-{line.colour}"{more} d="{_path(line.places)}"/>'


def _box(box: Box) -> str:
    where = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}"'
    faint = f' opacity="{_n(box.opacity)}"' if box.opacity != 1 else ""
    over = f'<rect {where} fill="url(#p-{box.pattern})"/>' if box.pattern else ""
    return f'<rect {where} class="f-{box.colour}"{faint}/>{over}'


def _words(words: Words) -> str:
    kind = f"f-{words.colour}" + (" b" if words.bold else "")
    anchor = f' text-anchor="{words.anchor}"' if words.anchor != "start" else ""
    size = f' style="font-size:{_n(words.size)}px"' if words.size != 12.5 else ""
    return f'<text x="{_n(words.x)}" y="{_n(words.y)}" class="{kind}"{anchor}{size}>{escape(clean(words.text))}</text>'


def _path(places: Sequence[Place]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in places)


def _sign_path(shape: Shape, x: float, y: float, r: float) -> str:
    at, far, d = f"{_n(x)} {_n(y)}", _n(1.25 * r), _n(2 * r)
    low, half = _n(0.85 * r), _n(r)
    wide, tall = _n(2.2 * r), _n(1.95 * r)
    return {
        "circle": f"M{at}m-{half} 0a{half} {half} 0 1 0 {d} 0a{half} {half} 0 1 0-{d} 0z",
        "square": f"M{at}m-{low}-{low}h{_n(1.7 * r)}v{_n(1.7 * r)}h-{_n(1.7 * r)}z",
        "diamond": f"M{at}m0-{far}l{far} {far}l-{far} {far}l-{far}-{far}z",
        "triangle": f"M{at}m-{_n(1.1 * r)} {low}h{wide}l-{_n(1.1 * r)}-{tall}z",
        "wedge": f"M{at}m-{_n(1.1 * r)}-{low}h{wide}l-{_n(1.1 * r)} {tall}z",
        "cross": f"M{at}m-{half}-{half}l{d} {d}m0-{d}l-{d} {d}",
    }[shape]


def _n(value: float) -> str:
    """A place with one decimal, which is finer than a pixel."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def _quoted(text: str) -> str:
    return escape(clean(text), quote=True)
