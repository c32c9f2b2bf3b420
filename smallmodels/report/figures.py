"""The charts of a report: cost against quality, lines such as quality during training, and stacked bars."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smallmodels.report import axes, labels, png, svg
from smallmodels.report.axes import Scale
from smallmodels.report.drawing import (
    COLOURS,
    HEIGHT,
    SHAPES,
    WIDTH,
    Anchor,
    Box,
    Dots,
    Drawing,
    Item,
    Line,
    Mark,
    Pattern,
    Place,
    Shape,
    Sign,
    Words,
    text_width,
)
from smallmodels.report.formats import clean, number

_ROLE_STYLE: dict[str, tuple[str, Shape]] = {
    "student": ("student", "circle"),
    "teacher": ("teacher", "square"),
    "label_only": ("control", "diamond"),
    "label_only_full_cost": ("control", "diamond"),
}
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 3), (1.5, 3), (8, 3, 1.5, 3))
_KEEP_SHARE = 0.6  # points below this share of the best quality are drawn at the edge, or they would flatten the rest
_MAX_MARKS = 100  # further points are dots without a name, so that a page of a thousand runs stays small and quick
_MAX_NAMES = 40
_MAX_SIGNS = 60  # on one line
_MAX_SIGNED = 20  # lines with signs
_MAX_KEYS = 12
_SHORT = 90.0  # widest name at the end of a line
_LEVEL_ROOM, _LEVEL_SIZE = 11.0, 10.0
_PIECE = 8.0
_KEY_SIZE = 11.5
_FAINT = 0.45


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
    name: str = ""
    """What the label stands for, where that is only a number."""


@dataclass(frozen=True)
class _Unit:
    """How a quality is written."""

    percent: bool
    lower_is_better: bool

    def shown(self, y: float) -> float:
        """The number to write."""
        return y * (100 if self.percent else 1) * (-1 if self.lower_is_better else 1) + 0.0  # -0 becomes 0

    def tick(self, y: float) -> str:
        """A value beside the axis."""
        return axes.plain_number(self.shown(y)) + self.sign

    def words(self, y: float) -> str:
        """A value in a sentence."""
        return f"{self.shown(y):.{1 if self.percent else 3}f}{self.sign}"

    @property
    def sign(self) -> str:
        """After the number."""
        return "\u00a0%" if self.percent else ""


# --- cost against quality ---------------------------------------------------------------------------------------------


def scatter(
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    draw_front: bool,
    percent: bool,
    lower_is_better: bool = False,
) -> Drawing:
    """Cost on a logarithmic axis (cheaper to the left) against quality, with intervals and the Pareto front.

    Args:
        points: At least one; a filled sign means that the point is on the front.
        x_label: Cost with its unit.
        y_label: Name of the metric.
        draw_front: Whether to connect the front; False where the cost of this panel must not be ranked.
        percent: Whether quality is shown in percent.
        lower_is_better: Whether the points have the metric's negative, which is shown without its sign.
    """
    unit = _Unit(percent, lower_is_better)
    best = max(p.y for p in points)
    cut = best - (1 - _KEEP_SHARE) * abs(best)
    shown = [p for p in points if p.y >= cut]
    x = _cost_scale(shown)
    y = _quality_scale(_values(shown), room_below=len(shown) < len(points))
    front = sorted((p for p in shown if p.on_front), key=lambda p: (p.x, p.y)) if draw_front else []
    placed = [p if p.y >= cut else _below(p, x, y.low, unit) for p in points]
    items: list[Item | Mark] = [*axes.frame(x, y, x_label=x_label, y_label=y_label, y_words=unit.tick)]
    items += _front_items(front, x, y)
    order = sorted(range(len(points)), key=lambda i: (not points[i].on_front, points[i].x))
    chosen, others = order[:_MAX_MARKS], order[_MAX_MARKS:]
    if others:
        items.append(Dots(places=[(x.place(placed[i].x), y.place(placed[i].y)) for i in others], colour="plain"))
        items.append(_note(f"small dots: {len(others):,} more models"))
    items += [
        _point_mark(placed[i], points[i], x, y, _says(points[i], x_label, y_label, unit))
        for i in sorted(chosen, key=lambda i: points[i].x)
    ]
    named = [placed[i] for i in chosen if len(points) <= _MAX_NAMES or points[i].on_front][:_MAX_NAMES]
    return Drawing(width=WIDTH, height=HEIGHT, items=[*items, *_names(named, placed, front, x, y)])


def _cost_scale(points: Sequence[Point]) -> Scale:
    start, end = axes.across()
    return axes.logarithmic([p.x for p in points], start=start, end=end)


def _values(points: Sequence[Point]) -> list[float]:
    return [v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None]


def _quality_scale(values: Sequence[float], *, room_below: bool = False) -> Scale:
    """An axis upwards with room around the values, and more below for points that are off the scale."""
    low, high = min(values), max(values)
    margin = max((high - low) * 0.12, 0.005)
    bottom, top = low - margin * (2.5 if room_below else 1), high + margin
    if low >= 0:
        bottom = max(bottom, 0.0)
    if high <= 0.0:
        top = min(top, 0.0) if low < 0 else margin
    elif high <= 1.0:
        top = min(top, 1.0 + margin / 3)
    start, end = axes.upwards()
    return axes.linear(bottom, top, start=start, end=end)


def _below(point: Point, x: Scale, bottom: float, unit: _Unit) -> Point:
    """A point far below the others, moved to the edge with its values in its name: the others keep their room."""
    value = f"{unit.shown(point.y):.{1 if unit.percent else 2}f}{unit.sign}"
    if not x.low <= point.x <= x.high:
        value += f", {number(point.x)}"
    return replace(point, label=f"{point.label} ({value})", y=bottom, y_low=None, y_high=None, x_low=None, x_high=None)


def _says(point: Point, x_label: str, y_label: str, unit: _Unit) -> str:
    """A point in one sentence: name, cost, quality, and whether it is on the front."""
    cost = f"{number(point.x)} {x_label}"
    if point.x_low is not None and point.x_high is not None and point.x_low != point.x_high:
        cost += f" ({number(point.x_low)}–{number(point.x_high)})"
    quality = f"{y_label} {unit.words(point.y)}"
    if point.y_low is not None and point.y_high is not None:
        low, high = sorted((unit.shown(point.y_low), unit.shown(point.y_high)))
        digits = 1 if unit.percent else 3
        quality += f" (95\u00a0% interval {low:.{digits}f}–{high:.{digits}f}{unit.sign})"
    name = clean(point.name or point.label, 150)
    return f"{name}: {quality}, {cost}{', on the front' if point.on_front else ''}"


def _front_items(front: Sequence[Point], x: Scale, y: Scale) -> Iterator[Line]:
    """The best quality to be had at each cost, as a staircase."""
    if len(front) > 1:
        steps = _stairs(front, x, y)
        yield Line(places=steps, colour="student", width=1.8, opacity=0.7)


def _stairs(front: Sequence[Point], x: Scale, y: Scale) -> list[Place]:
    places = [(x.place(front[0].x), y.place(front[0].y))]
    for before, point in itertools.pairwise(front):
        places += [(x.place(point.x), y.place(before.y)), (x.place(point.x), y.place(point.y))]
    return places


def _point_mark(point: Point, original: Point, x: Scale, y: Scale, says: str) -> Mark:
    colour, shape = _ROLE_STYLE.get(point.role, ("plain", "triangle"))
    at = x.place(point.x), y.place(point.y)
    items: list[Item] = [
        Line(places=line, colour=colour, width=1.6, opacity=0.6) for line in _interval_lines(point, x, y)
    ]
    is_below = point.y != original.y
    items.append(Sign(x=at[0], y=at[1], shape="wedge" if is_below else shape, colour=colour, filled=point.on_front))
    row = f"{original.label} · {original.name}" if original.name else original.label
    return Mark(items=items, says=says, row=row, touch=[at])


def _interval_lines(point: Point, x: Scale, y: Scale) -> list[list[Place]]:
    lines: list[list[Place]] = []
    if point.x_low is not None and point.x_high is not None and point.x_low < point.x_high:
        at = y.place(point.y)
        lines.append([(x.place(point.x_low), at), (x.place(point.x_high), at)])
    if point.y_low is not None and point.y_high is not None and point.y_low < point.y_high:
        across = x.place(point.x)
        lines.append([(across, y.place(point.y_low)), (across, y.place(point.y_high))])
    return lines


def _names(named: Sequence[Point], points: Sequence[Point], front: Sequence[Point], x: Scale, y: Scale) -> list[Words]:
    taken = [labels.along(*line) for p in points[:_MAX_MARKS] for line in _interval_lines(p, x, y)]
    if len(front) > 1:
        taken += [labels.along(*pair) for pair in itertools.pairwise(_stairs(front, x, y))]
    taken.append((0.0, 0.0, axes.LEFT - 3, HEIGHT - axes.BOTTOM))  # the names of the ticks of quality
    frame = (2.0, axes.TOP - 4, WIDTH - 2, HEIGHT - axes.BOTTOM)
    names = [labels.Name(place=(x.place(p.x), y.place(p.y)), text=p.label, bold=p.role == "student") for p in named]
    return labels.placed(names, taken=taken, frame=frame)


def _note(text: str) -> Words:
    return Words(x=WIDTH - axes.RIGHT, y=axes.TOP - 12, text=text, anchor="end", colour="soft", size=11)


# --- lines ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a picture."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    says: str
    row: str = ""
    style: int = 0
    """Lines of one style have the same colour, dash and sign."""
    marked: int | None = None
    """Place of the value that stands out, such as the best."""
    faint: bool = False
    values_say: Sequence[str] = ()
    """What each value says, where each is a mark of its own and not the line as a whole."""


def style_of(number_of: int) -> tuple[str, Shape, tuple[float, ...]]:
    """Colour, sign and dash of a style; the first 28 differ in more than colour, further ones repeat."""
    dash = _DASHES[number_of // len(COLOURS) % len(_DASHES)]
    return COLOURS[number_of % len(COLOURS)], SHAPES[number_of % len(SHAPES)], dash


def lines(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x: Scale,
    y: Scale,
    y_words: Callable[[float], str] = axes.plain_number,
    levels: Sequence[tuple[str, float]] = (),
    signs: bool = True,
) -> Drawing:
    """Lines through values; each is a mark. Short names stand at the ends of their lines, long ones in a key beneath.

    Args:
        series: At least one.
        x_label: Name of x.
        y_label: Name of y.
        x: Axis to the right.
        y: Axis upwards.
        y_words: How a value of y is written beside the axis.
        levels: Names and values of y with a line of their own, such as that below which something pays.
        signs: Whether every value has a sign.
    """
    items: list[Item | Mark] = [*axes.frame(x, y, x_label=x_label, y_label=y_label, y_words=y_words)]
    drawn: list[Item | Mark] = []
    ends: dict[str, tuple[Series, Place]] = {}
    taken: list[labels.Rectangle] = []
    for number_of, each in enumerate(series):
        places = [(x.place(a), y.place(b)) for a, b in zip(each.xs, each.ys, strict=True)]
        drawn += _line_items(each, places, signs=signs and len(series) <= _MAX_SIGNED)
        taken += _along_all(places) if number_of < _MAX_SIGNED else ()
        if each.label:
            ends.setdefault(each.label, (each, places[-1]))
    items += [*_level_items(levels, x, y, taken), *drawn]
    if all(text_width(name) <= _SHORT for name in ends):
        names = [labels.Name(place=end, text=name) for name, (each, end) in ends.items() if not each.faint]
        frame = (axes.LEFT, axes.TOP - 4, WIDTH - 2, HEIGHT - axes.BOTTOM)
        items += labels.placed(names, taken=taken, frame=frame)
        return Drawing(width=WIDTH, height=HEIGHT, items=items)
    key, height = _line_key([each for each, _ in ends.values()])
    return Drawing(width=WIDTH, height=height, items=[*items, *key])


def _along_all(places: Sequence[Place]) -> Iterator[labels.Rectangle]:
    """The room that a line takes, in pieces that are short enough to say so where it is steep."""
    for (x1, y1), (x2, y2) in itertools.pairwise(places):
        count = max(1, math.ceil(max(abs(x2 - x1), abs(y2 - y1)) / _PIECE))
        steps = [(x1 + (x2 - x1) * i / count, y1 + (y2 - y1) * i / count) for i in range(count + 1)]
        yield from (labels.along(*pair) for pair in itertools.pairwise(steps))


def _level_items(
    levels: Sequence[tuple[str, float]], x: Scale, y: Scale, taken: Sequence[labels.Rectangle]
) -> Iterator[Item]:
    """Lines across with their names at the end where less is; a name that would cover that of another is left out."""
    above = math.inf
    for name, level in sorted(levels, key=lambda each: -y.place(each[1])):
        at, text = y.place(level), clean(name, 24)
        yield Line(places=[(x.start, at), (x.end, at)], colour="ink", width=1.0, dash=(5, 4))
        if above - at < _LEVEL_ROOM:
            continue
        above, wide = at, text_width(text, _LEVEL_SIZE) + 4
        left, right = (
            sum(labels.overlap((start, at - _LEVEL_ROOM, start + wide, at), box) for box in taken)
            for start in (x.start, x.end - wide)
        )
        anchor: Anchor = "start" if left <= right else "end"
        yield Words(
            x=x.start + 4 if left <= right else x.end - 4,
            y=at - 3,
            text=text,
            anchor=anchor,
            colour="soft",
            size=_LEVEL_SIZE,
        )


def _line_key(series: Sequence[Series]) -> tuple[list[Item], float]:
    """The key of lines under the axis, in as many rows as it needs, and the height of the picture with it."""
    items: list[Item] = []
    x, y = 2.0, HEIGHT + 6
    for each in series[:_MAX_KEYS]:
        colour, shape, dash = style_of(each.style)
        name = _shortened(each.label, WIDTH - 36)
        wide = 32 + text_width(name, _KEY_SIZE) + 12
        if x > 2 and x + wide > WIDTH:
            x, y = 2.0, y + _KEY_STEP
        opacity = _FAINT if each.faint else 1.0
        items.append(Line(places=[(x, y), (x + 26, y)], colour=colour, width=1.8, opacity=opacity, dash=dash))
        if not each.faint:
            items.append(Sign(x=x + 13, y=y, shape=shape, colour=colour, radius=3.5))
        items.append(Words(x=x + 32, y=y + 4, text=name, size=_KEY_SIZE))
        x += wide
    if len(series) > _MAX_KEYS:
        y += _KEY_STEP
        items.append(Words(x=2, y=y + 4, text=f"and {len(series) - _MAX_KEYS:,} more", colour="soft", size=_KEY_SIZE))
    return items, y + _KEY_STEP / 2


def _shortened(name: str, room: float) -> str:
    """A name cut to the room that it has: its end goes, and the row and the words of its sign have it whole."""
    shown = clean(name, 150)
    while text_width(shown, _KEY_SIZE) > room:
        shown = shown.rstrip("…")[:-1].rstrip() + "…"
    return shown


def _line_items(series: Series, places: Sequence[Place], *, signs: bool) -> list[Item | Mark]:
    """A line with its signs as one mark, or with a mark for each value where each says something."""
    colour, shape, dash = style_of(series.style)
    opacity = _FAINT if series.faint else 1.0
    line = Line(places=places, colour=colour, width=1.8, opacity=opacity, dash=dash)
    found = [Sign(x=a, y=b, shape=shape, colour=colour, radius=2.2) for a, b in places]
    if series.marked is not None:
        a, b = places[series.marked]
        found[series.marked] = Sign(x=a, y=b, shape=shape, colour=colour)
    if series.values_say:
        chosen = _thinned(len(places), series.marked)
        return [line, *(Mark(items=[found[i]], says=series.values_say[i], touch=[places[i]]) for i in chosen)]
    if not signs or series.faint or len(places) > _MAX_SIGNS:
        found = [] if series.marked is None else [found[series.marked]]
    return [Mark(items=[line, *found], says=series.says, row=series.row, touch=places)]


def _thinned(count: int, marked: int | None) -> list[int]:
    """Places of at most about a hundred values, the last and the one that stands out among them."""
    step = max(1, count // 100)
    return sorted({*range(0, count, step), count - 1, *([] if marked is None else [marked])})


def curves(
    series: Sequence[Series],
    levels: Sequence[tuple[str, float]] = (),
    *,
    x_label: str,
    y_label: str,
    percent: bool,
    lower_is_better: bool = False,
) -> Drawing:
    """Quality during the training of runs against what it had cost so far, with levels to reach.

    The cost of one run is on an axis from zero; that of several, which may be far apart, on a logarithmic one.

    Args:
        series: At least one, with the sign that makes larger better.
        levels: Names and heights, with the same sign.
        x_label: Cost with its unit.
        y_label: Name of the metric.
        percent: Whether quality is shown in percent.
        lower_is_better: Whether the heights are the metric's negative, which is shown without its sign.
    """
    unit = _Unit(percent, lower_is_better)
    start, end = axes.across()
    costs = [v for s in series for v in s.xs]
    if len(series) == 1:
        x = axes.linear(0.0, max(*costs, 1e-9) * 1.06, start=start, end=end)
    else:
        x = axes.logarithmic(costs, start=start, end=end)
    y = _quality_scale([*(v for s in series for v in s.ys), *(height for _, height in levels)])
    return lines(series, levels=levels, x_label=x_label, y_label=y_label, x=x, y=y, y_words=unit.tick)


# --- bars -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a bar."""

    value: float
    colour: str
    pattern: Pattern
    says: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stacked bar; bars with the same heading one after the other stand under it together."""

    heading: str
    label: str
    parts: Sequence[Part]
    total: str
    row: str


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a colour and a pattern mean."""

    name: str
    colour: str
    pattern: Pattern


_BAR, _BAR_STEP, _HEADING, _KEY_STEP = 13.0, 19.0, 20.0, 19.0


def stacks(bars: Sequence[Bar], *, x_label: str, keys: Sequence[Key]) -> Drawing:
    """Bars from left to right under each other, each cut into its parts, with its sum at its end.

    Args:
        bars: From above.
        x_label: What the length of a part means.
        keys: What their colours and patterns mean.
    """
    room = max((text_width(bar.label, 11.5) for bar in bars), default=0.0)
    left = min(room, 130.0) + 8
    sums = max((text_width(bar.total, 11) for bar in bars), default=0.0)
    most = max((sum(p.value for p in bar.parts) for bar in bars), default=0.0) or 1.0
    key_items, top = _key_items(keys)
    height = top + len(bars) * _BAR_STEP + 42
    height += sum(_HEADING for name, _ in itertools.groupby(bars, key=lambda bar: bar.heading) if name)
    x = axes.linear(0.0, most, start=left, end=WIDTH - sums - 10, most=4)
    items: list[Item | Mark] = [*key_items]
    for tick in x.ticks:
        at = x.place(tick)
        items.append(Line(places=[(at, top), (at, height - 40)], colour="line"))
        items.append(
            Words(x=at, y=height - 24, text=axes.plain_number(tick), anchor="middle", colour="soft", size=11.5)
        )
    items.append(Words(x=left, y=height - 6, text=clean(x_label, 60), colour="soft"))
    y = top
    for heading, together in itertools.groupby(bars, key=lambda bar: bar.heading):
        if heading:
            items.append(Words(x=2, y=y + 14, text=clean(heading, 58), bold=True, size=11.5))
            y += _HEADING
        for bar in together:
            items += _bar_items(bar, x, y)
            y += _BAR_STEP
    return Drawing(width=WIDTH, height=height, items=items)


def _key_items(keys: Sequence[Key]) -> tuple[list[Item], float]:
    """The key in as many rows as it needs, and the place under it."""
    items: list[Item] = []
    x, y = 2.0, 2.0
    for key in keys:
        wide = 18 + text_width(key.name, 11.5) + 14
        if x > 2 and x + wide > WIDTH:
            x, y = 2.0, y + _KEY_STEP
        items.append(Box(x=x, y=y, width=13, height=13, colour=key.colour, pattern=key.pattern))
        items.append(Words(x=x + 18, y=y + 11, text=key.name, size=11.5))
        x += wide
    return items, y + _KEY_STEP + 6


def _bar_items(bar: Bar, x: Scale, y: float) -> Iterator[Item | Mark]:
    yield Words(x=x.start - 6, y=y + 11, text=clean(bar.label, 24), anchor="end", size=11.5)
    at = 0.0
    for part in bar.parts:
        left, right = x.place(at), x.place(at + part.value)
        at += part.value
        if right - left < 0.3:  # thinner than a hair: the table has it
            continue
        box = Box(
            x=left, y=y, width=max(right - left - 0.7, 0.3), height=_BAR, colour=part.colour, pattern=part.pattern
        )
        yield Mark(items=[box], says=part.says, row=bar.row)
    yield Words(x=x.place(at) + 5, y=y + 11, text=bar.total, colour="soft", size=11)


# --- files ------------------------------------------------------------------------------------------------------------


def write(figure: Drawing, stem: Path, *, title: str) -> list[Path]:
    """Write the picture as `stem`.svg and `stem`.png."""
    from smallmodels import files

    vector, image = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png")
    files.write_text(vector, svg.to_file(figure, title=title))
    files.write_bytes(image, png.to_png(figure))
    return [vector, image]
