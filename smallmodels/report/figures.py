"""Pictures of a report: cost against quality, and quality during training. The only importer of matplotlib.

A picture is drawn once and used three ways: inside a page, where its colours follow the page's light or dark theme; as
an SVG file of its own, which brings both themes along; and as PNG. Drawing needs no window system and no global state.
"""

import contextlib
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallmodels.report.formats import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 400, 320
"""Size of one panel in the units of its SVG; about the width of a phone, so that its letters stay readable there."""

# Name: (light, dark). Each light value is unique, because it is also the placeholder that becomes a CSS variable.
PALETTE = {
    "ink": ("#1c2321", "#e8edea"),
    "soft": ("#5b6662", "#a3b0aa"),
    "line": ("#dfe5e1", "#33403b"),
    "paper": ("#fefefd", "#161c1a"),
    "back": ("#f2f5f3", "#0e1311"),
    "student": ("#0a7d5c", "#3ecf9f"),
    "teacher": ("#3f51b6", "#9db0ff"),
    "control": ("#b65a0b", "#f2a65a"),
    "plain": ("#6d7680", "#aab3bd"),
}

_ROLE_STYLE = {
    "student": ("student", "o"),
    "teacher": ("teacher", "s"),
    "label_only": ("control", "D"),
    "label_only_full_cost": ("control", "D"),
}
_FONT_SIZE = 12.5
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_SHARED_LABEL_DISTANCE = 10.0
_LABEL_CHARACTERS = 30
_KEEP_SHARE = 0.6  # points below this share of the best quality are drawn at the edge, or they would flatten the rest
# Offsets of a label from its point and its alignment, in the order of preference.
_LABEL_PLACES = (
    (11, -4, "left"), (-11, -4, "right"), (0, 13, "center"), (0, -21, "center"), (11, 9, "left"), (-11, 9, "right"),
    (11, -18, "left"), (-11, -18, "right"), (11, 22, "left"), (-11, 22, "right"), (11, -31, "left"),
    (-11, -31, "right"), (0, 30, "center"), (0, -38, "center"), (11, 36, "left"), (-11, 36, "right"),
)  # fmt: skip
_SALT = "smallmodels"  # ids inside the SVG depend on it; fixed, so that equal records give equal files


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model in a picture of cost against quality.

    `x` is its cost and `y` its quality, larger being better, so the negative of a metric where smaller is better; the
    four bounds are the ends of their intervals, None where unknown.
    """

    label: str
    role: str
    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    on_front: bool = False


@contextlib.contextmanager
def _own_style(**settings: Any) -> Iterator[None]:
    """Settings of ours on top of matplotlib's own, not of the user's: equal records give equal pictures everywhere."""
    import matplotlib

    theirs = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    ours = {"font.family": "DejaVu Sans", "font.size": _FONT_SIZE, "svg.fonttype": "none", "svg.hashsalt": _SALT}
    with matplotlib.rc_context(theirs | ours | settings):
        yield


def _new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_axes((58 / width, 48 / height, 1 - 72 / width, 1 - 70 / height))
    colour = {name: light for name, (light, _) in PALETTE.items()}
    figure.patch.set_alpha(0.0)
    axes.patch.set_alpha(0.0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(colour["soft"])
    axes.grid(visible=True, color=colour["line"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colour["soft"], length=0, labelsize=_FONT_SIZE - 1, pad=5)
    return figure, axes


def _label_axes(axes: "Axes", x_label: str, y_label: str) -> None:
    """The name of y stands above the axis, where it can be read without turning one's head."""
    soft = PALETTE["soft"][0]
    axes.set_xlabel(clean(x_label, 60), color=soft, fontsize=_FONT_SIZE, labelpad=5, parse_math=False)
    axes.set_title(
        clean(y_label, 60), color=soft, fontsize=_FONT_SIZE, loc="left", pad=9, x=-58 / (WIDTH - 72), parse_math=False
    )


@_own_style()
def scatter(
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    draw_front: bool,
    percent: bool,
    lower_is_better: bool = False,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> "Figure":
    """Cost (cheaper to the left) against quality (better to the top), with intervals and the Pareto front.

    Args:
        points: At least one; a filled sign means that the point is on the front.
        x_label: Cost with its unit.
        y_label: Name of the metric.
        draw_front: Whether to connect the front; False where the cost of this panel must not be ranked.
        percent: Whether quality is shown in percent.
        lower_is_better: Whether the points have the metric's negative, which is shown without its sign.
        width: In SVG units (1/72 inch).
        height: In the same units.
    """
    figure, axes = _new_figure(width, height)
    _scale_cost(axes, [p.x for p in points])
    best = max(p.y for p in points)
    cut = best - (1 - _KEEP_SHARE) * abs(best)
    unit = _Unit(percent, lower_is_better)
    shown = [p for p in points if p.y >= cut]
    bottom = _scale_quality(axes, shown, unit, room_below=len(shown) < len(points))
    _label_axes(axes, x_label, y_label)
    front = sorted((p for p in shown if p.on_front), key=lambda p: (p.x, p.y))
    if draw_front:
        _draw_front(axes, front)
    placed = [p if p.y >= cut else _below(p, bottom, unit) for p in points]
    for point, original in zip(placed, points, strict=True):
        _draw_point(axes, point, below=original.y < cut)
    _place_labels(axes, placed, front if draw_front else [], width, height)
    return figure


@dataclass(frozen=True)
class _Unit:
    """How a quality is written."""

    percent: bool
    lower_is_better: bool

    def shown(self, y: float) -> float:
        """The number to write."""
        return y * (100 if self.percent else 1) * (-1 if self.lower_is_better else 1) + 0.0  # -0 becomes 0

    @property
    def sign(self) -> str:
        """After the number."""
        return "\u00a0%" if self.percent else ""


def _below(point: Point, bottom: float, unit: _Unit) -> Point:
    """A point far below the others, moved to the lower edge with its value in its name: the others keep their room."""
    value = f"{unit.shown(point.y):.{1 if unit.percent else 2}f}{unit.sign}"
    return replace(point, label=f"{point.label} ({value})", y=bottom, y_low=None, y_high=None)


def _draw_front(axes: "Axes", front: Sequence[Point]) -> None:
    """The best quality to be had at each cost, as a staircase."""
    if len(front) > 1:
        xs, ys = [p.x for p in front], [p.y for p in front]
        axes.step(xs, ys, where="post", color=PALETTE["student"][0], linewidth=1.5, alpha=0.6, zorder=2)


def _draw_point(axes: "Axes", point: Point, *, below: bool) -> None:
    name, marker = _ROLE_STYLE.get(point.role, ("plain", "^"))
    colour = PALETTE[name][0]
    style: dict[str, Any] = {"color": colour, "linewidth": 1.6, "alpha": 0.55, "zorder": 3}
    if point.x_low is not None and point.x_high is not None:
        axes.plot([point.x_low, point.x_high], [point.y, point.y], **style)
    if point.y_low is not None and point.y_high is not None:
        axes.plot([point.x, point.x], [point.y_low, point.y_high], **style)
    axes.plot(
        [point.x],
        [point.y],
        marker="v" if below else marker,
        markersize=9,
        color=colour,
        markerfacecolor=colour if point.on_front else PALETTE["paper"][0],
        markeredgewidth=1.8,
        linestyle="none",
        zorder=4,
        clip_on=False,
    )


def _scale_cost(axes: "Axes", costs: Sequence[float]) -> None:
    """Linear where costs are within a factor of 20, else logarithmic; a cost of zero keeps a place at the left."""
    positive = [c for c in costs if c > 0]
    low, high = min(positive, default=0.0), max(positive, default=1.0)
    if not positive or high / low <= 20:
        axes.set_xlim(0, high * 1.18)
        axes.set_xticks(_linear_ticks(0.0, high * 1.18, 5))
        axes.set_xticklabels([_plain_number(t) for t in axes.get_xticks()])
        return
    left, right = low / 2.2, high * 2.6
    ticks = [t for t in (10.0**k for k in range(-9, 16)) if left <= t <= right]
    if len(ticks) < 3:
        ticks = [m * 10.0**k for k in range(-9, 16) for m in (1, 3) if left <= m * 10.0**k <= right]
    if len(ticks) > 6:
        ticks = ticks[:: math.ceil(len(ticks) / 5)]
    if len(positive) < len(costs):
        axes.set_xscale("symlog", linthresh=low / 2, linscale=0.35)
        ticks = [0.0, *ticks]
        left = -low / 10
    else:
        axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_xticks(ticks)
    axes.set_xticklabels([_plain_number(t) for t in ticks])
    axes.minorticks_off()


def _scale_quality(axes: "Axes", points: Sequence[Point], unit: _Unit, *, room_below: bool = False) -> float:
    """Set the limits of quality and return the lower one; with room below for points that are off the scale."""
    values = [v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None]
    low, high = min(values), max(values)
    margin = max((high - low) * 0.12, 0.005)
    bottom, top = low - margin * (2.5 if room_below else 1), high + margin
    if low >= 0:
        bottom = max(bottom, 0.0)
    if high <= 0.0:
        top = min(top, 0.0)
    elif high <= 1.0:
        top = min(top, 1.0 + margin / 3)
    axes.set_ylim(bottom, top)
    _quality_ticks(axes, bottom, top, unit)
    return bottom


def _quality_ticks(axes: "Axes", bottom: float, top: float, unit: _Unit) -> None:
    ticks = [t for t in _linear_ticks(bottom, top, 5) if t >= bottom]
    axes.set_yticks(ticks)
    axes.set_yticklabels([_plain_number(unit.shown(t)) + unit.sign for t in ticks])


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten between two values."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if span / (m * power) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _plain_number(value: float) -> str:
    return f"{value:,.9f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


def _place_labels(axes: "Axes", points: Sequence[Point], front: Sequence[Point], width: float, height: float) -> None:
    """Write each point's name beside it, at the place of several that covers least of what is there.

    Widths of letters are estimated, because an SVG is drawn with the reader's font.
    """
    centres = [tuple(axes.transData.transform((p.x, p.y))) for p in points]
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in centres] + _line_boxes(axes, points, front)
    taken.append((0.0, 56.0, 55.0, height))  # the names of the ticks of quality
    frame = (2.0, 50.0, width - 2, height - 22)
    for together in _clusters(centres):
        (x, y), point = centres[together[0]], points[together[0]]
        text = " · ".join(clean(points[i].label, _LABEL_CHARACTERS) for i in together)
        long = len(text) * _FONT_SIZE * 0.56
        places: list[tuple[float, int, tuple[int, int], str, tuple[float, float, float, float]]] = []
        for dx, dy, align in _LABEL_PLACES:
            left = x + dx - {"left": 0.0, "right": long, "center": long / 2}[align]
            box = (left, y + dy - 2, left + long, y + dy + _FONT_SIZE)
            covered = sum(_overlap(box, other) for other in taken)
            inside = _overlap(box, frame)
            places.append((covered + 20 * (long * (_FONT_SIZE + 2) - inside), len(places), (dx, dy), align, box))
        _, _, offset, align, box = min(places)
        taken.append(box)
        axes.annotate(
            text,
            (point.x, point.y),
            xytext=offset,
            textcoords="offset points",
            ha=align,
            color=PALETTE["ink"][0],
            fontsize=_FONT_SIZE,
            fontweight="bold" if point.role == "student" else "normal",
            parse_math=False,
            zorder=5,
        )


def _clusters(centres: Sequence[tuple[float, ...]]) -> list[list[int]]:
    """Points whose signs all but cover each other; they share one label."""
    clusters: list[list[int]] = []
    for i, (x, y) in enumerate(centres):
        near = (c for c in clusters if math.hypot(x - centres[c[0]][0], y - centres[c[0]][1]) < _SHARED_LABEL_DISTANCE)
        if (cluster := next(near, None)) is not None:
            cluster.append(i)
        else:
            clusters.append([i])
    return clusters


def _line_boxes(
    axes: "Axes", points: Sequence[Point], front: Sequence[Point]
) -> list[tuple[float, float, float, float]]:
    """Boxes around the intervals and the front's staircase, in the units of the SVG."""
    lines = [((p.x, p.y_low), (p.x, p.y_high)) for p in points if p.y_low is not None and p.y_high is not None]
    for one, two in itertools.pairwise(front):
        lines += [((one.x, one.y), (two.x, one.y)), ((two.x, one.y), (two.x, two.y))]
    boxes = []
    for start, end in lines:
        (x1, y1), (x2, y2) = axes.transData.transform(start), axes.transData.transform(end)
        boxes.append((min(x1, x2) - 2, min(y1, y2) - 2, max(x1, x2) + 2, max(y1, y2) + 2))
    return boxes


def _overlap(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> float:
    across = min(one[2], two[2]) - max(one[0], two[0])
    up = min(one[3], two[3]) - max(one[1], two[1])
    return across * up if across > 0 and up > 0 else 0.0


@_own_style()
def curve(
    xs: Sequence[float],
    ys: Sequence[float],
    *,
    x_label: str,
    y_label: str,
    percent: bool,
    lower_is_better: bool = False,
) -> "Figure":
    """Quality on validation, larger being better, against the cost of training so far; the best point is marked."""
    figure, axes = _new_figure(WIDTH, HEIGHT)
    colour = PALETTE["student"][0]
    points = [Point(label="", role="student", x=x, y=y) for x, y in zip(xs, ys, strict=True)]
    high = max(max(xs), 1e-9)
    axes.set_xlim(0, high * 1.06)
    axes.set_xticks(_linear_ticks(0.0, high * 1.06, 5))
    axes.set_xticklabels([_plain_number(t) for t in axes.get_xticks()])
    _scale_quality(axes, points, _Unit(percent, lower_is_better))
    _label_axes(axes, x_label, y_label)
    axes.plot(xs, ys, color=colour, linewidth=2, marker="o", markersize=4, clip_on=False)
    best = max(range(len(ys)), key=lambda i: ys[i])
    axes.plot([xs[best]], [ys[best]], marker="o", markersize=10, color=colour, linestyle="none", clip_on=False)
    return figure


@dataclass(frozen=True, kw_only=True)
class Line:
    """One training in a picture of several: quality on validation, larger being better, against cost."""

    label: str
    """Of the model; lines of one label look alike and are named once."""
    xs: Sequence[float]
    ys: Sequence[float]


_LINE_STYLES = (
    ("student", "-"), ("teacher", "--"), ("control", "-."), ("plain", ":"),
    ("student", ":"), ("teacher", "-."), ("control", "--"), ("plain", "-"),
)  # fmt: skip


@_own_style()
def curves(
    lines: Sequence[Line],
    levels: Sequence[tuple[str, float]],
    *,
    x_label: str,
    y_label: str,
    percent: bool,
    lower_is_better: bool = False,
) -> "Figure":
    """Several trainings in one picture, each model in a style of its own, with levels to reach as thin lines.

    Args:
        lines: At least one, each with a point or more.
        levels: Names and heights, with the sign that makes larger better.
        x_label: Cost with its unit.
        y_label: Name of the metric.
        percent: Whether quality is shown in percent.
        lower_is_better: Whether the heights are the metric's negative, which is shown without its sign.
    """
    figure, axes = _new_figure(WIDTH, HEIGHT)
    high = max(max(x for line in lines for x in line.xs), 1e-9)
    axes.set_xlim(0, high * 1.06)
    axes.set_xticks(_linear_ticks(0.0, high * 1.06, 5))
    axes.set_xticklabels([_plain_number(t) for t in axes.get_xticks()])
    points = [Point(label="", role="student", x=0, y=y) for line in lines for y in line.ys]
    points += [Point(label="", role="student", x=0, y=y) for _, y in levels]
    _scale_quality(axes, points, _Unit(percent, lower_is_better))
    _label_axes(axes, x_label, y_label)
    soft = PALETTE["soft"][0]
    for name, y in levels:
        axes.plot([0, high * 1.06], [y, y], color=soft, linewidth=0.8, linestyle=(0, (1, 3)))
        axes.annotate(clean(name, 20), (0, y), xytext=(3, 2), textcoords="offset points", color=soft, fontsize=9)
    labels = list(dict.fromkeys(line.label for line in lines))
    for line in lines:
        name, style = _LINE_STYLES[labels.index(line.label) % len(_LINE_STYLES)]
        axes.plot(
            line.xs, line.ys, color=PALETTE[name][0], linestyle=style, linewidth=1.6, alpha=0.8, marker="o",
            markersize=3,
        )  # fmt: skip
    _name_lines(axes, labels)
    return figure


def _name_lines(axes: "Axes", labels: Sequence[str]) -> None:
    """The names of the lines in the corner that curves leave empty, each with a piece of its line."""
    if len(labels) < 2:
        return
    for i, label in enumerate(labels[: len(_LINE_STYLES)]):
        name, style = _LINE_STYLES[i]
        axes.plot([], [], color=PALETTE[name][0], linestyle=style, linewidth=1.6, label=clean(label, _LABEL_CHARACTERS))
    legend = axes.legend(loc="lower right", frameon=False, fontsize=_FONT_SIZE - 2, labelcolor=PALETTE["ink"][0])
    for text in legend.get_texts():
        text.set_parse_math(False)


def to_svg(figure: "Figure", *, title: str, standalone: bool = False, salt: str = "") -> str:
    """The picture as SVG text, with a title that screen readers say.

    Args:
        figure: From this module.
        title: Text alternative: what the picture shows.
        standalone: True for a file of its own, with background and both themes; False for inside a page that defines
            the colours as CSS variables `--c-ink` and so on.
        salt: Makes ids unique among the pictures of one page.
    """
    buffer = io.StringIO()
    with _own_style(**{"svg.hashsalt": _SALT + salt}):
        _quietly(lambda: figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}))
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s*<style type="text/css">.*?</style>', "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'font-family: [^;"]*', f"font-family: {_FONTS}", body)
    for name, (light, _) in PALETTE.items():
        body = body.replace(light, f"var(--c-{name}, {light})")
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # names of groups, which repeat from picture to picture
    box = re.search(r'viewBox="([^"]*)"', body)
    assert box is not None, "matplotlib always writes a viewBox"
    said = escape(clean(title), quote=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1]}" '
    head += f'role="img" aria-label="{said}" class="chart"><title>{escape(clean(title))}</title>'
    body = body[body.index(">") + 1 :]
    return head + (_theme(box[1]) if standalone else "") + body.strip() + "\n"


def combine(panels: "Sequence[tuple[str, Figure]]", *, title: str, columns: int = 2) -> str:
    """Several pictures with a heading each as one SVG file, in rows of so many columns.

    Args:
        panels: Heading and picture; pictures of the default size.
        title: Text alternative for the whole.
        columns: Pictures in a row.
    """
    columns = min(columns, len(panels))
    row_height, gap = HEIGHT + 30, 20
    width = columns * WIDTH + (columns - 1) * gap
    height = math.ceil(len(panels) / columns) * row_height + 10
    ink = f"fill: var(--c-ink, {PALETTE['ink'][0]})"
    parts = []
    for i, (heading, figure) in enumerate(panels):
        x, y = (i % columns) * (WIDTH + gap), (i // columns) * row_height
        inner = to_svg(figure, title=heading, salt=str(i)).replace(
            "<svg ", f'<svg y="26" width="{WIDTH}" height="{HEIGHT}" ', 1
        )
        text = f'<text x="3" y="18" style="font: 600 13px {_FONTS}; {ink}">{escape(clean(heading, 60))}</text>'
        parts.append(f'<g transform="translate({x} {y + 6})">{text}{inner}</g>')
    view_box = f"-12 -8 {width + 24} {height + 12}"
    said = escape(clean(title), quote=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view_box}" '
    head += f'width="{width + 24}" role="img" aria-label="{said}" class="chart"><title>{escape(clean(title))}</title>'
    return head + _theme(view_box) + "".join(parts) + "</svg>\n"


def _theme(view_box: str) -> str:
    """Colours for both themes and a background of its own: the page that shows the file may have either."""
    light = "".join(f"--c-{name}:{value[0]};" for name, value in PALETTE.items())
    dark = "".join(f"--c-{name}:{value[1]};" for name, value in PALETTE.items())
    x, y, width, height = view_box.split()
    return (
        f"<style>.chart{{{light}}}@media (prefers-color-scheme: dark){{.chart{{{dark}}}}}</style>"
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" style="fill: var(--c-paper)"/>'
    )


def write(figure: "Figure", stem: Path, *, title: str) -> list[Path]:
    """Write the picture as `stem`.svg and `stem`.png."""
    from smallmodels import files

    svg, png = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png")
    files.write_text(svg, to_svg(figure, title=title, standalone=True))
    buffer = io.BytesIO()
    paper = PALETTE["paper"][0]
    with _own_style():
        _quietly(lambda: figure.savefig(buffer, format="png", dpi=144, facecolor=paper, metadata={"Software": None}))
    files.write_bytes(png, buffer.getvalue())
    return [svg, png]


def _quietly(draw: Callable[[], Any]) -> None:
    """Draw without the warning that our measuring font lacks a script's letters; the reader's font draws them."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        draw()
