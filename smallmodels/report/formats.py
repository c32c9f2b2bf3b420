"""Text for pages: strings from anywhere made harmless, numbers with their units, and the template environments.

A label, a data set's name or an example may hold anything: mark-up, control characters, ten megabytes. Every value that
reaches a page passes through `clean` and through the escape of its format, because the environments do it, not
because each template remembers to.
"""

import functools
import math
import re
from typing import TYPE_CHECKING, Any

from smallmodels.text import inert_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jinja2
    from markupsafe import Markup

MAX_CHARACTERS = 2000
"""Longest string that a page shows; what is cut is counted."""

MISSING = "–"
"""Shown for a number that was not measured."""

_SPACE = "\u00a0"  # keeps a number and its unit on one line
# C0 and C1 controls, byte-order mark, lone surrogates (not encodable), and all of Unicode's Bidi_Control.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_MARKDOWN = {character: f"\\{character}" for character in "\\`*_[]~$|"} | {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "\n": " ",
    "\t": " ",
}


def clean(value: object, limit: int = MAX_CHARACTERS) -> str:
    """Any value as text that can be encoded, cannot reorder its surroundings, and has a bounded length.

    Args:
        value: What to show; None becomes the sign for "not measured".
        limit: Longest text in characters; a longer one is cut and says by how much.
    """
    if value is None:
        return MISSING
    text = value if isinstance(value, str) else str(value)
    cut = len(text) - limit
    text = _CONTROLS.sub("\ufffd", text[:limit].replace("\r\n", "\n"))
    return f"{text} … ({cut:,} more characters)" if cut > 0 else text


def markdown(value: object, limit: int = MAX_CHARACTERS) -> str:
    """A value as one line of Markdown text: no mark-up, no link, no new table cell."""
    shown = clean(getattr(value, "text", value), limit)
    text = "".join(_MARKDOWN.get(character, character) for character in shown)
    return text.replace("://", "&#58;//").replace("www.", "www&#46;")


def fenced(text: object) -> "Markup":
    """A Markdown code block that its content cannot end."""
    from markupsafe import Markup

    content = clean(text, 20_000)
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}text\n{content}\n{fence}")  # escaped: the fence is longer than any inside


def markdown_table(
    head: "Sequence[object]", rows: "Sequence[Sequence[object]]", text_columns: "Sequence[int]" = ()
) -> "Markup":
    """A Markdown table of escaped cells; columns but the first and those of text are aligned to the right."""
    from markupsafe import Markup

    rule = ["---" if i == 0 or i in text_columns else "---:" for i in range(len(head))]
    lines = [[markdown(cell) for cell in head], rule, *[[markdown(cell) for cell in row] for row in rows]]
    return Markup("\n".join("| " + " | ".join(line) + " |" for line in lines))


def capital(words: str) -> str:
    """The same words with a capital first letter and nothing else changed."""
    return words[:1].upper() + words[1:]


def heading(title: str, words: str) -> str:
    """What stands above a part of a page: the words alone, or after the group that they are of.

    Args:
        title: Of the group, with its colon and space; empty where there is one.
        words: Without a capital.
    """
    return f"{title}{words}" if title else capital(words)


def csv_cell(value: object) -> object:
    """A value for a CSV file; text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return inert_cell(clean(value))


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits (`digits`), thousands separated, never an exponent."""
    if value is None or not is_number(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    decimals = digits - 1 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:,.{min(max(decimals, 0), 9)}f}"


def large(value: float | None) -> str:
    """A count in words: `17.3 million`, `66`."""
    if value is None or not is_number(value):
        return MISSING
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{number(value / size)}{_SPACE}{name}"
    return f"{value:,.0f}"


def size(num_bytes: float | None, digits: int = 3) -> str:
    """Bytes as kB, MB or GB (powers of ten)."""
    if num_bytes is None or not is_number(num_bytes):
        return MISSING
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{number(num_bytes / unit, digits)}{_SPACE}{name}"
    return f"{num_bytes:.0f}{_SPACE}B"


def duration(seconds: float | None, digits: int = 3) -> str:
    """Seconds as `840 ms`, `12.3 s`, `4 min 12 s` or `1 h 03 min`."""
    if seconds is None or not is_number(seconds):
        return MISSING
    if 0 < seconds < 1:
        return f"{number(seconds * 1000, digits)}{_SPACE}ms"
    if seconds < 59.95:
        return f"{number(seconds, digits)}{_SPACE}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{_SPACE}min {whole % 60:02d}{_SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}{_SPACE}h {minutes % 60:02d}{_SPACE}min"


def energy(joules: float | None) -> str:
    """Joules, from 360 J on as Wh, from 1,000 Wh on as kWh."""
    if joules is None or not is_number(joules):
        return MISSING
    if abs(joules) < 360:
        return f"{number(joules)}{_SPACE}J"
    watt_hours = joules / 3600
    return f"{number(watt_hours / 1000)}{_SPACE}kWh" if watt_hours >= 1000 else f"{number(watt_hours)}{_SPACE}Wh"


def cpu_seconds(value: float | None) -> str:
    """CPU-seconds with three digits."""
    return MISSING if value is None or not is_number(value) else f"{number(value)}{_SPACE}CPU-s"


_OF_COST = {
    "energy_j_per_answer": "J per answer, many at once",
    "cpu_s_per_answer": "CPU-s per answer, many at once",
    "new_tokens_per_answer": "tokens written per answer",
    "read_tokens_per_answer": "tokens read per answer",
}


def is_cost(key: str) -> bool:
    """Whether a metric says what an answer took, and not how good it is."""
    return key in _OF_COST


def metric_name(key: str) -> str:
    """The name of a metric in prose: `mrr_at_10` is MRR@10, `macro_f1` is macro F1."""
    if key in _OF_COST:
        return _OF_COST[key]
    words = re.sub(r"[ _]?(?:_at_|@)(\d)", r"@\1", key).replace("_", " ")
    return re.sub(r"\b(mrr|ndcg|map|f1)(?=@|\b)", lambda match: match.group().upper(), words)


def is_share(key: str) -> bool:
    """Whether a metric is read as a percentage."""
    return "accuracy" in key or key in ("agreement", "calibration_error", "exact_match", "spread_of_groups")


def quality(key: str, value: float | None) -> str:
    """A value of a metric: accuracy in percent, costs with three digits, others with three decimals."""
    if value is None or not is_number(value):
        return MISSING
    if is_cost(key):
        return number(value)
    return f"{100 * value:.1f}{_SPACE}%" if is_share(key) else _plain(value)


def _plain(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= _LARGE else f"{value:.3f}"


_LARGE = 100
"""From here on, as perplexities may be, decimals tell nothing."""


def interval(key: str, low: float | None, high: float | None) -> str:
    """A 95 % interval of a metric, or the sign for "not measured"."""
    if low is None or high is None or not (is_number(low) and is_number(high)):
        return MISSING
    if is_cost(key):
        return f"{number(low)}–{number(high)}"
    if is_share(key):
        return f"{100 * low:.1f}–{100 * high:.1f}{_SPACE}%"
    return f"{_plain(low)}–{_plain(high)}"


def difference(key: str, value: float) -> str:
    """The size of a difference between two values of a metric, without its sign."""
    return f"{100 * abs(value):.1f} points" if is_share(key) else _plain(abs(value))


@functools.cache
def environment(escape: str) -> "jinja2.Environment":
    """The template environment for `html` or `markdown`; every expression in a template is cleaned and escaped."""
    import jinja2

    def for_html(value: Any) -> Any:
        return value if hasattr(value, "__html__") else clean(value)

    def for_markdown(value: Any) -> str:
        return str(value) if hasattr(value, "__html__") else markdown(value)

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("smallmodels", "templates"),
        autoescape=escape == "html",
        finalize=for_html if escape == "html" else for_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals.update(fenced=fenced, markdown_table=markdown_table)
    return made
