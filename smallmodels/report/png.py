"""Pictures as PNG, for programs that read no SVG. The only importer of matplotlib, which is a pencil here."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from smallmodels.report.drawing import PALETTE, Box, Dots, Drawing, Item, Line, Sign, Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^", "wedge": "v", "cross": "x"}
_HATCHES = {
    "rising": "////", "falling": "\\\\\\\\", "upright": "||||", "level": "----", "grid": "++++", "lattice": "xxxx",
    "dots": "....",
}  # fmt: skip
_DPI = 144


@contextlib.contextmanager
def _own_style() -> Iterator[None]:
    """Settings of ours on top of matplotlib's own, not of the user's: equal records give equal pictures everywhere."""
    import matplotlib

    theirs = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    with (
        matplotlib.rc_context(theirs | {"font.family": "DejaVu Sans", "hatch.linewidth": 0.7}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph")  # letters that the font lacks are boxes in a PNG
        yield


def to_png(drawing: Drawing) -> bytes:
    """The picture in the light theme, in twice the size of its units."""
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with _own_style():
        figure = Figure(figsize=(drawing.width / 72, drawing.height / 72), dpi=72)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, drawing.width)
        axes.set_ylim(drawing.height, 0)
        axes.axis("off")
        for order, item in enumerate(drawing.flat()):
            _draw(axes, item, order)
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor=_colour("paper"), metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: "Axes", item: Item, order: int) -> None:
    style: dict[str, Any] = {"zorder": order, "clip_on": False}
    if isinstance(item, Words):
        axes.text(
            item.x,
            item.y,
            item.text,
            ha={"start": "left", "middle": "center", "end": "right"}[item.anchor],
            va="baseline",
            color=_colour(item.colour),
            fontsize=item.size,
            fontweight="bold" if item.bold else "normal",
            parse_math=False,
            **style,
        )
    elif isinstance(item, Box):
        _draw_box(axes, item, style)
    elif isinstance(item, Sign):
        colour = _colour(item.colour)
        inside = colour if item.filled else _colour("paper")
        axes.plot(
            [item.x], [item.y], marker=_MARKERS[item.shape], markersize=2 * item.radius, color=colour,
            markerfacecolor=inside, markeredgewidth=1.8, **style,
        )  # fmt: skip
    elif isinstance(item, Dots):
        xs, ys = zip(*item.places, strict=True) if item.places else ((), ())
        axes.plot(xs, ys, ".", markersize=4, color=_colour(item.colour), **style)
    else:
        _draw_line(axes, item, style)


def _draw_line(axes: "Axes", line: Line, style: dict[str, Any]) -> None:
    xs, ys = zip(*line.places, strict=True)
    dash: dict[str, Any] = {"linestyle": (0, tuple(line.dash))} if line.dash else {}
    axes.plot(xs, ys, color=_colour(line.colour), linewidth=line.width, alpha=line.opacity, **dash, **style)


def _draw_box(axes: "Axes", box: Box, style: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (box.x, box.y),
            box.width,
            box.height,
            facecolor=_colour(box.colour),
            edgecolor=_colour("paper"),
            linewidth=0,
            alpha=box.opacity,
            hatch=_HATCHES.get(box.pattern),
            **style,
        )
    )


def _colour(name: str) -> str:
    return PALETTE[name][0]
