"""Write the line `Measured:` in the docstring of each recipe from its record, so that no figure there is typed by hand.

Run:    python benchmarks/measured.py            rewrites the lines
        python benchmarks/measured.py --check    changes nothing; exits with 1 if a line is not what the records say
Reads:  benchmarks/results/<recipe>, else of the recipe's cells in benchmarks/results/cpu_small the first seed of that
        with the shortest command. A recipe without a record has no such line.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from smallmodels import files, records
from smallmodels.records import RunRecord
from smallmodels.report import formats, words

ROOT = Path(__file__).resolve().parents[1]
LABEL, INDENT, WIDTH = "Measured:  ", " " * 11, 120
_OLD = re.compile(rf"^{LABEL.strip()}.*\n(?:{INDENT}.*\n)*", re.M)
_BEFORE = re.compile(r"^Licences:", re.M)
_TOLD = (("teacher", "teacher"), ("label_only", "labels alone"))
"""Roles that stand beside the model of the recipe, and what they are called there."""

PLAIN_WORDS = len(["smallmodels", "run", "recipe"])


def sentence(record: RunRecord) -> str:
    """Quality beside the teacher's, what it cost, and where."""
    main = words.main_result(record)
    assert main is not None, f"{record.run_id} has no result"
    values = [(name, words.metric_value(record.result(role), record.metric)) for role, name in _TOLD]
    beside = [f"{name} {formats.quality(record.metric, value)}" for name, value in values if value is not None]
    quality = formats.quality(record.metric, words.metric_value(main, record.metric))
    cost = f"{formats.duration(record.duration_s)} and {formats.number(record.cpu_s)} CPU-s"
    where = f"{record.environment.processor}, {record.environment.num_cores} cores, {record.model['number_format']}"
    data = ", ".join(dict.fromkeys(source.name for source in record.sources if source.kind == "dataset"))
    text = f"{data}: {formats.metric_name(record.metric)} {quality}"
    text += f" ({', '.join(beside)})" if beside else ""
    text += ", one seed" + (", flags as in its record" if len(record.command.split()) > PLAIN_WORDS else "")
    text += f"; {cost} on {where}" + (", which other work shared" if record.contended else "") + "."
    return formats.clean(text).replace("\u00a0", " ")


def with_line(source: str, text: str) -> str:
    """The source of a recipe with this line before its licences; without one if the text is empty."""
    plain = _OLD.sub("", source, count=1)
    if not text:
        return plain
    line = textwrap.fill(LABEL + text, WIDTH, subsequent_indent=INDENT, break_on_hyphens=False) + "\n"
    return _BEFORE.sub(lambda found: line + found[0], plain, count=1)


def record_of(recipe: str, results: Path) -> RunRecord | None:
    """That which its figures come from."""
    own = results / recipe / records.RECORD_NAME
    if own.is_file():
        return records.read_record(own)
    paths = sorted(results.glob(f"cpu_small/*/*/{records.RECORD_NAME}"))
    cells = [record for record in map(records.read_record, paths) if record.recipe == recipe]
    return min(cells, key=lambda record: (len(record.command), int(record.config["seed"])), default=None)


def changed(root: Path) -> list[tuple[Path, str]]:
    """The recipes whose line is not what the records say, with what they should be."""
    found = []
    for path in sorted((root / "recipes").glob("*.py")):
        before = path.read_text(encoding="utf-8")
        record = record_of(path.stem, root / "benchmarks" / "results")
        after = with_line(before, sentence(record) if record else "")
        found += [(path, after)] if after != before else []
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the recipes; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a line is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    found = changed(options.root)
    if options.check and found:
        names = ", ".join(path.name for path, _ in found)
        print(f"{names}: not what benchmarks/results says; run python benchmarks/measured.py", file=sys.stderr)
        return 1
    for path, after in found:
        files.write_text(path, after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
