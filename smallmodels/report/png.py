"""Pictures as PNG, for programs that read no SVG. The only importer of matplotlib, of which the pencil is used alone.

With figures and axes a picture takes nearly twice as long, and a page of many models has dozens.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from smallmodels.report.drawing import PALETTE, Box, Dots, Drawing, Item, Line, Place, Sign, Words

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^", "wedge": "v", "cross": "x"}
_HATCHES = {
    "rising": "////", "falling": "\\\\\\\\", "upright": "||||", "level": "----", "grid": "++++", "lattice": "xxxx",
    "dots": "....",
}  # fmt: skip
_DPI = 144
_SCALE = _DPI / 72
"""Pixels for a unit of a picture."""


@contextlib.contextmanager
def _own_style() -> Iterator[None]:
    """Settings of ours on top of matplotlib's own, not of the user's: equal records give equal pictures everywhere."""
    import matplotlib

    theirs = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    with matplotlib.rc_context(theirs | {"hatch.linewidth": 0.7}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that the font lacks are boxes in a PNG
        yield


def to_png(drawing: Drawing) -> bytes:
    """The picture in the light theme, in twice the size of its units."""
    import numpy as np
    from matplotlib.backends.backend_agg import RendererAgg
    from PIL import Image

    with _own_style():
        renderer = RendererAgg(round(drawing.width * _SCALE), round(drawing.height * _SCALE), _DPI)
        pencil = _Pencil(renderer)
        paper = Box(x=0, y=0, width=drawing.width + 1, height=drawing.height + 1, colour="paper")
        for item in (paper, *drawing.flat()):
            pencil.draw(item)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(renderer.buffer_rgba())).convert("RGB").save(buffer, format="png", dpi=(_DPI, _DPI))
    return buffer.getvalue()


class _Pencil:
    """Draws items on a canvas, whose pixels are counted from below, but those of text from above."""

    def __init__(self, renderer: "RendererAgg") -> None:
        from matplotlib.transforms import Affine2D

        self._renderer = renderer
        self._places = Affine2D().scale(_SCALE, -_SCALE).translate(0, renderer.height)

    def draw(self, item: Item) -> None:
        if isinstance(item, Words):
            self._words(item)
        elif isinstance(item, Box):
            self._box(item)
        elif isinstance(item, Sign):
            inside = item.colour if item.filled else "paper"
            self._markers(_MARKERS[item.shape], [(item.x, item.y)], item.colour, inside, size=2 * item.radius, edge=1.8)
        elif isinstance(item, Dots):
            self._markers(".", item.places, item.colour, item.colour, size=4, edge=1.0)
        else:
            self._line(item)

    def _context(self, colour: str, *, width: float, opacity: float = 1.0) -> Any:
        context = self._renderer.new_gc()
        context.set_foreground((*_rgb(colour), opacity), isRGBA=True)
        context.set_linewidth(width)
        return context

    def _words(self, words: Words) -> None:
        font = _font(words.size, words.bold)
        width, _, _ = self._renderer.get_text_width_height_descent(words.text, font, False)
        x = words.x * _SCALE - {"start": 0.0, "middle": width / 2, "end": width}[words.anchor]
        context = self._context(words.colour, width=1)
        self._renderer.draw_text(context, x, words.y * _SCALE, words.text, font, 0)

    def _box(self, box: Box) -> None:
        from matplotlib.path import Path

        right, below = box.x + box.width, box.y + box.height
        corners = [(box.x, box.y), (right, box.y), (right, below), (box.x, below), (box.x, box.y)]
        context = self._context(box.colour, width=0, opacity=box.opacity)
        if box.pattern:
            context.set_hatch(_HATCHES[box.pattern])
            context.set_hatch_color((*_rgb("paper"), box.opacity))
        self._renderer.draw_path(context, Path(corners, closed=True), self._places, (*_rgb(box.colour), box.opacity))

    def _markers(
        self, marker: str, places: Sequence[Place], edge_colour: str, inside: str, *, size: float, edge: float
    ) -> None:
        from matplotlib.markers import MarkerStyle
        from matplotlib.path import Path
        from matplotlib.transforms import Affine2D

        style = MarkerStyle(marker)
        context = self._context(edge_colour, width=edge)
        context.set_joinstyle(style.get_joinstyle())
        context.set_capstyle(style.get_capstyle())
        shape = style.get_transform() + Affine2D().scale(size * _SCALE)
        fill = (*_rgb(inside), 1.0) if style.is_filled() else None
        self._renderer.draw_markers(context, style.get_path(), shape, Path(places), self._places, fill)

    def _line(self, line: Line) -> None:
        from matplotlib.path import Path

        context = self._context(line.colour, width=line.width, opacity=line.opacity)
        context.set_joinstyle("round")
        context.set_capstyle("butt" if line.dash else "projecting")
        if line.dash:
            context.set_dashes(0, line.dash)
        self._renderer.draw_path(context, Path(line.places), self._places)


@functools.cache
def _font(size: float, is_bold: bool) -> "FontProperties":
    from matplotlib.font_manager import FontProperties

    return FontProperties(family="DejaVu Sans", size=size, weight="bold" if is_bold else "normal")


@functools.cache
def _rgb(name: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(PALETTE[name][0])
