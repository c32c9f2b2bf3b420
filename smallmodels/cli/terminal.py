"""What a person reads in a terminal: the shipped recipes, and the record of a run with the student's work."""

import ast
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallmodels import records
from smallmodels.cli.recipes import shipped_recipes
from smallmodels.text import shorten

if TYPE_CHECKING:
    from rich.console import Console

    from smallmodels.report import Evidence


SHOWN_EXAMPLES, SHOWN_ANSWERS = 3, 3
"""Of the student's work, printed at the end of a run."""


def plain_console() -> "Console":
    """Standard output, where nothing is coloured but what asks for it."""
    from rich.console import Console

    return Console(highlight=False)


def print_recipes() -> None:
    """The shipped recipes, each with the first line of its docstring."""
    recipes = shipped_recipes()
    width = max(map(len, recipes), default=0)
    for name, path in sorted(recipes.items()):
        print(textwrap.fill(_first_line(path), 80, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * 4))


def _first_line(path: Path) -> str:
    """First line of a file's docstring, without running it."""
    try:
        return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    except (SyntaxError, UnicodeDecodeError, OSError):
        return "(cannot be read)"


def compare(found: Sequence[records.RunRecord], evidence: "Evidence") -> None:
    """Print what a report says of runs, in 80 columns and without pictures.

    Args:
        found: Records of complete runs; at least one.
        evidence: What belongs to them.
    """
    from smallmodels import report
    from smallmodels.report import terminal

    terminal.print_page(report.page_of(found, evidence), plain_console())


def show(record: records.RunRecord, *, phases: bool = False, uses_per_day: float | None = None) -> None:
    """Print a record: its table, its summary, and the first of its examples.

    Args:
        record: Of a complete run.
        phases: Whether to print what each phase took as well, which a run says as it goes.
        uses_per_day: Of the student, for the payback in days.
    """
    from smallmodels import progress, report
    from smallmodels.report import words

    console = plain_console()
    console.print()
    console.print(report.terminal_table(record))
    console.print(report.summary(record))
    for sentence in (*words.stop_sentences(record), *words.beside_sentences(record)):
        console.print(sentence, markup=False)
    for line in report.further_sentences(record, uses_per_day):
        console.print(line, markup=False)
    if record.smoke:
        console.print("A smoke run of a few steps shows that everything works; its numbers mean nothing.")
    if phases and record.phases:
        console.print()
        for line in (progress.PHASE_HEAD, *(f"  {progress.phase_row(phase)}" for phase in record.phases)):
            console.print(line, markup=False, soft_wrap=True)
    for line in (line for evaluation in record.external_evaluations for line in ("", *external_lines(evaluation))):
        console.print(line, markup=False, soft_wrap=True)
    for example in record.examples[:SHOWN_EXAMPLES]:
        console.print()
        for line in example_lines(example):
            console.print(line, markup=False, soft_wrap=True)
    console.print()


def external_lines(evaluation: records.ExternalEvaluation) -> list[str]:
    """What another program made of the model, a line for each metric, and what that cost."""
    from smallmodels.report import words

    rows = [words.external_cells(result) for result in evaluation.results]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [words.external_title(evaluation), *(f"  {line}" for line in lines), *words.external_notes(evaluation)]


def example_lines(example: Mapping[str, Any]) -> list[str]:
    """An example of the student's work in lines of 80 columns at most: the input, then its answers."""
    answers = example.get("answers", [])
    answers = answers if isinstance(answers, (list, tuple)) else [answers]
    lines = [f"  {shorten(str(example.get('input', '')), 78)}"]
    for answer in answers[:SHOWN_ANSWERS]:
        text, score = answer, None
        if isinstance(answer, Mapping):
            text = next((answer[key] for key in ("label", "text", "document") if key in answer), "")
            score = next((answer[key] for key in ("score", "probability") if key in answer), None)
        number = f"{score:.2f}" if isinstance(score, (int, float)) else ""
        lines.append(f"    {number:>4}  {shorten(str(text), 70)}" if number else f"    → {shorten(str(text), 74)}")
    return lines
