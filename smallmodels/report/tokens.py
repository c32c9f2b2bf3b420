"""What a language model takes to read a token and to write one, apart: a table for page and card, and a sentence."""

from smallmodels.records import Metric, RunRecord, TokenCosts
from smallmodels.report import formats, words
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import Row, Table

CAPTION = "Cost of a token"
_KINDS = {"J": "energy_j", "CPU-s": "cpu_s"}


def table_of(record: RunRecord) -> Table | None:
    """A row for each model, with 95 % intervals over windows; None where no model writes."""
    unit = words.ranking_unit(record)
    units = ("J", "CPU-s") if unit == "J" else ("CPU-s", "J")
    rows: list[Row] = []
    for result in words.test_results(record):
        use = record.inference_of(result.role)
        if use is not None and use.tokens is not None:
            counts = [number(use.tokens.num_read), number(use.tokens.num_written)]
            costs = [_words(use.tokens, f"{_KINDS[u]}_per_{what}") for u in units for what in ("read", "written")]
            rows.append([words.role_name(result.role), *counts, *costs, use.label])
    if not rows:
        return None
    names = {"CPU-s": "CPU-s", "J": "J" if record.energy_is_counted else "estimated J"}
    costs = [f"{names[u]} per {what} token" for u in units for what in ("read", "written")]
    return Table(
        caption=CAPTION,
        head=["Model", "tokens read in a use", "written", *costs, "how joules were obtained"],
        rows=rows,
        text_columns=(7,),
        note="A use reads a prompt, or the beginning of a text, and writes what comes after, 32 tokens at most: where "
        "answers are longer, a use of them costs more by what these take. Its first written token "
        f"comes with the reading. {MISSING} is a cost that is not known, or that the windows do not tell from none.",
    )


def sentence(record: RunRecord) -> str:
    """What a use of the run's own model is, and what its tokens cost; empty where it does not write."""
    main = words.main_result(record)
    use = record.inference_of(main.role) if main else None
    if use is None or use.tokens is None or record.smoke:
        return ""
    unit = words.ranking_unit(record)
    said = f"A use reads {number(use.tokens.num_read)} tokens and writes {number(use.tokens.num_written)}"
    found = {what: _cost(use.tokens, f"{_KINDS[unit]}_per_{what}") for what in ("read", "written")}
    costs = [f"a {what} token takes {number(cost.value)} {unit}" for what, cost in found.items() if cost is not None]
    return f"{'; '.join([said, *costs])}."


def _cost(tokens: TokenCosts, name: str) -> Metric | None:
    cost: Metric | None = getattr(tokens, name)
    return cost


def _words(tokens: TokenCosts, name: str) -> str:
    cost = _cost(tokens, name)
    if cost is None:
        return MISSING
    has_interval = formats.is_number(cost.low) and formats.is_number(cost.high)
    return f"{number(cost.value)} ({number(cost.low)}–{number(cost.high)})" if has_interval else number(cost.value)
