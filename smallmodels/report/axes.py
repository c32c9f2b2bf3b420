"""Axes of a picture: from values to places, the values that are named, and the lines through them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smallmodels.report.drawing import FONT_SIZE, HEIGHT, WIDTH, Anchor, Item, Line, Words
from smallmodels.report.formats import clean

LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 26.0, 46.0
"""Margins around the inside of a picture, for the names of axes and of their values."""

_MOST_TICKS = 6
_ZERO_ROOM = 0.1  # of the axis, where a logarithmic one also has to show a cost of zero
_LABEL_CHARACTERS = 60


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis: values from `low` to `high` lie between the places `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    is_log: bool = False
    has_zero: bool = False
    """A logarithmic axis that keeps a place for zero at its start."""

    def place(self, value: float) -> float:
        """Where a value lies; one outside the axis is moved to its nearer end."""
        if not self.is_log:
            share = (value - self.low) / (self.high - self.low)
            return self._at(share)
        if value <= 0:
            return self._at(0.02 if self.has_zero else 0.0)
        share = math.log(value / self.low) / math.log(self.high / self.low)
        room = _ZERO_ROOM if self.has_zero else 0.0
        return self._at(room + (1 - room) * max(share, 0.0))

    def _at(self, share: float) -> float:
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def linear(low: float, high: float, *, start: float, end: float, most: int = 5) -> Scale:
    """A linear axis from `low` to `high`."""
    ticks = [t for t in linear_ticks(low, high, most) if low - 1e-12 <= t <= high + 1e-12]
    return Scale(low=low, high=high, start=start, end=end, ticks=ticks)


def logarithmic(values: Sequence[float], *, start: float, end: float) -> Scale:
    """A logarithmic axis with all values on it; zero, which has no logarithm, keeps a place at the start.

    Args:
        values: At least one, ≥ 0.
        start: Place of the lower end.
        end: Place of the upper end.
    """
    positive = [v for v in values if v > 0]
    has_zero = len(positive) < len(values)
    if not positive:
        return linear(0.0, 1.0, start=start, end=end)
    low, high = min(positive), max(positive)
    margin = max((high / low) ** 0.12, 1.35)
    low, high = low / margin, high * margin
    ticks = log_ticks(low, high)
    return Scale(
        low=low, high=high, start=start, end=end, ticks=[0.0, *ticks] if has_zero else ticks, is_log=True,
        has_zero=has_zero,
    )  # fmt: skip


def log_ticks(low: float, high: float) -> list[float]:
    """Between three and six round values, evenly spread on a logarithmic axis wherever that is possible."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        ticks = [float(f"{m}e{k}") for k in powers for m in steps]
        ticks = [t for t in ticks if low <= t <= high]
        if len(ticks) >= 3:
            return ticks[:: math.ceil(len(ticks) / _MOST_TICKS)]
    return [t for t in linear_ticks(low, high, 4) if t > 0]


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten between two values."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if span / (m * power) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def plain_number(value: float) -> str:
    """A tick's value without needless zeros: 0.05, 2.5, 12,000, 3 million."""
    if abs(value) >= 1e6:
        return f"{plain_number(value / 1e6)} M"
    return f"{value:,.9f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


def frame(
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    y_label: str,
    y_words: Callable[[float], str] = plain_number,
    height: float = HEIGHT,
) -> list[Item]:
    """Lines and words around a picture. The name of y stands above its axis, where it can be read as it is.

    Args:
        x: Axis to the right.
        y: Axis upwards; its `start` is the lower place.
        x_label: Name of x.
        y_label: Name of y.
        y_words: How a value of y is written.
        height: Of the whole picture.
    """
    items: list[Item] = []
    for tick in y.ticks:
        at = y.place(tick)
        items.append(Line(places=[(x.start, at), (x.end, at)], colour="line"))
        items.append(_soft(x.start - 7, at + 4, y_words(tick), "end"))
    for tick in x.ticks:
        at = x.place(tick)
        items.append(Line(places=[(at, y.end), (at, y.start)], colour="line"))
        items.append(_soft(at, y.start + 17, plain_number(tick), "middle"))
    items.append(Line(places=[(x.start, y.start), (x.end, y.start)], colour="soft"))
    items.append(_soft((x.start + x.end) / 2, height - 8, clean(x_label, _LABEL_CHARACTERS), "middle", FONT_SIZE))
    items.append(_soft(3, TOP - 12, clean(y_label, _LABEL_CHARACTERS), "start", FONT_SIZE))
    return items


def _soft(x: float, y: float, text: str, anchor: Anchor, size: float = FONT_SIZE - 1) -> Words:
    return Words(x=x, y=y, text=text, anchor=anchor, colour="soft", size=size)


def across(width: float = WIDTH) -> tuple[float, float]:
    """Start and end of the inside of a picture, from left to right."""
    return LEFT, width - RIGHT


def upwards(height: float = HEIGHT) -> tuple[float, float]:
    """Start and end of the inside of a picture, from below."""
    return height - BOTTOM, TOP
