"""A templated arithmetic task with exact answers, on which small models can be trained in place to teach others.

Run:    python benchmarks/arithmetic.py runs/arithmetic.csv

Each row is a `question` and an `answer` in the form of GSM8K, its number after `####`. The text is ours, so it has no
licence to look up.
"""

import csv
import itertools
import sys
from pathlib import Path

import numpy as np

NAMES = ("Ada", "Ben", "Chi", "Dina", "Emil", "Fay", "Goro", "Hana")
THINGS = ("apples", "books", "coins", "eggs", "marbles", "pens", "shells", "stamps")
TEMPLATES = {
    "+": "{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?",
    "-": "{name} has {a} {thing} and gives {b} away. How many {thing} are left?",
}
LARGEST, NUM_ROWS = 30, 8_000


def rows(seed: int = 0) -> list[tuple[str, str]]:
    """Questions and answers, each question once."""
    numbers = range(1, LARGEST + 1)
    every = [
        (template.format(name=name, thing=thing, a=a, b=b), f"{a} {sign} {b} = {result}\n#### {result}")
        for sign, template in TEMPLATES.items()
        for name, thing, a, b in itertools.product(NAMES, THINGS, numbers, numbers)
        if (result := a + b if sign == "+" else a - b) >= 0
    ]
    chosen = np.random.default_rng(seed).permutation(len(every))[:NUM_ROWS]
    return [every[i] for i in chosen]


def main(path: Path) -> None:
    """Write the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("question", "answer"))
        writer.writerows(rows())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
