"""Names beside the signs of a picture: each at the place, of several, that covers least of what is there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from smallmodels.report.drawing import FONT_SIZE, Anchor, Place, Words, text_width
from smallmodels.report.formats import clean

_SHARED_DISTANCE = 10.0
_CHARACTERS = 36
# Offsets of a name from its sign, downwards, and its alignment, in the order of preference.
_PLACES: tuple[tuple[float, float, Anchor], ...] = (
    (11, 4, "start"), (-11, 4, "end"), (0, -13, "middle"), (0, 21, "middle"), (11, -9, "start"), (-11, -9, "end"),
    (11, 18, "start"), (-11, 18, "end"), (11, -22, "start"), (-11, -22, "end"), (11, 31, "start"), (-11, 31, "end"),
    (0, -30, "middle"), (0, 38, "middle"), (11, -36, "start"), (-11, -36, "end"),
)  # fmt: skip

Rectangle = tuple[float, float, float, float]
"""Left, upper, right, lower."""


@dataclass(frozen=True, kw_only=True)
class Name:
    """What to write, and where the sign is."""

    place: Place
    text: str
    bold: bool = False


def placed(names: Sequence[Name], *, taken: Sequence[Rectangle], frame: Rectangle) -> list[Words]:
    """The names at their places; signs that all but cover each other share one.

    Args:
        names: At most some dozens: each is compared with everything before it.
        taken: What names should not cover, besides the signs.
        frame: What they should stay inside.
    """
    covered = [_around(name.place, 8) for name in names] + list(taken)
    words = []
    for together in _clusters([name.place for name in names]):
        first = names[together[0]]
        text = " · ".join(clean(names[i].text, _CHARACTERS) for i in together)
        bold = any(names[i].bold for i in together)
        long = text_width(text, bold=bold)
        choices = []
        for order, (dx, dy, anchor) in enumerate(_PLACES):
            x, y = first.place[0] + dx, first.place[1] + dy
            left = x - {"start": 0.0, "end": long, "middle": long / 2}[anchor]
            box = (left, y - FONT_SIZE, left + long, y + 3)
            lost = long * (FONT_SIZE + 3) - overlap(box, frame)
            choices.append((sum(overlap(box, other) for other in covered) + 20 * lost, order, x, y, anchor, box))
        *_, x, y, anchor, box = min(choices)
        covered.append(box)
        words.append(Words(x=x, y=y, text=text, anchor=anchor, bold=bold))
    return words


def _clusters(places: Sequence[Place]) -> list[list[int]]:
    clusters: list[list[int]] = []
    for i, (x, y) in enumerate(places):
        near = (c for c in clusters if math.hypot(x - places[c[0]][0], y - places[c[0]][1]) < _SHARED_DISTANCE)
        if (cluster := next(near, None)) is not None:
            cluster.append(i)
        else:
            clusters.append([i])
    return clusters


def along(start: Place, end: Place) -> Rectangle:
    """The room that an upright or level line takes."""
    (x1, y1), (x2, y2) = start, end
    return min(x1, x2) - 2, min(y1, y2) - 2, max(x1, x2) + 2, max(y1, y2) + 2


def _around(place: Place, distance: float) -> Rectangle:
    x, y = place
    return x - distance, y - distance, x + distance, y + distance


def overlap(one: Rectangle, two: Rectangle) -> float:
    """Area that two rectangles share."""
    across = min(one[2], two[2]) - max(one[0], two[0])
    down = min(one[3], two[3]) - max(one[1], two[1])
    return across * down if across > 0 and down > 0 else 0.0
