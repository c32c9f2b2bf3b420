"""What a picture is made of: lines, boxes, signs and words at places, and marks, which a reader can point at.

A picture is plain data. `svg` writes it for a page or as a file of its own, `png` as an image; both say the same.
Places are in units of the SVG, and y grows downwards.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 400.0, 320.0
"""Usual size of a picture; about the width of a phone, so that its letters stay readable there."""

FONT_SIZE = 12.5

# Name: (light, dark). Words have a contrast of 4.5 : 1 with the paper in both themes, everything else has 3 : 1.
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
    "violet": ("#8a3fa0", "#d9a0ea"),
    "rose": ("#b3365b", "#f593b2"),
    "sand": ("#77670f", "#d8c55f"),
}

Place = tuple[float, float]
Shape = Literal["circle", "square", "diamond", "triangle", "wedge", "cross"]
Anchor = Literal["start", "middle", "end"]
Pattern = Literal["", "rising", "falling", "upright", "level", "grid", "lattice", "dots"]
"""How a box is filled, besides its colour, so that no two are told apart by colour alone."""

SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "triangle", "wedge", "cross")
COLOURS = ("student", "teacher", "control", "violet", "rose", "sand", "plain")
"""In the order in which a picture uses them."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line through places; `dash` has the lengths of its parts and gaps, and nothing for a whole line."""

    places: Sequence[Place]
    colour: str
    width: float = 1.0
    opacity: float = 1.0
    dash: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Box:
    """A filled box; x and y are those of its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    pattern: Pattern = ""
    opacity: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A sign with its centre at a place; its inside has the colour or is empty."""

    x: float
    y: float
    shape: Shape
    colour: str
    filled: bool = True
    radius: float = 4.5


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Many small dots of one colour, for what has no room for signs."""

    places: Sequence[Place]
    colour: str


@dataclass(frozen=True, kw_only=True)
class Words:
    """One line of text; y is that of its base line."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    colour: str = "ink"
    bold: bool = False
    size: float = FONT_SIZE


Item = Line | Box | Sign | Dots | Words


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that a reader can point at, reach by keyboard, and have read out."""

    items: Sequence[Item]
    says: str
    """What it is, in words that need no picture."""
    row: str = ""
    """First cell of the row of the table beneath that tells of the same."""
    touch: Sequence[Place] = ()
    """Where it can be touched although it is small: around one place, or along a line."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture; later items cover earlier ones."""

    width: float
    height: float
    items: Sequence[Item | Mark]

    def marks(self) -> list[Mark]:
        """What a reader can point at, in the order of the keyboard."""
        return [item for item in self.items if isinstance(item, Mark)]

    def flat(self) -> Iterator[Item]:
        """Every item, those of marks included."""
        return itertools.chain.from_iterable(i.items if isinstance(i, Mark) else [i] for i in self.items)

    def words(self) -> list[Words]:
        """Every text of the picture."""
        return [item for item in self.flat() if isinstance(item, Words)]


def text_width(text: str, size: float = FONT_SIZE, *, bold: bool = False) -> float:
    """An estimate, because a picture is drawn with the reader's font; capitals and bold letters are wider."""
    ems = sum(0.72 if letter.isupper() else 0.56 for letter in text)
    return ems * size * (1.08 if bold else 1.0)
