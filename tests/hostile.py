"""Records in which every free string carries an attack, and parsers that show what became of it."""

import dataclasses
from collections import Counter
from html.parser import HTMLParser
from typing import Any

from smallmodels.records import RunRecord, from_json, to_json

MARKUP = (
    '<script>alert(1)</script>"><img src=x onerror=alert(1)></style></title></svg>--><svg onload=alert(1)>'
    "'`{{7*7}}{% raw %} [x](javascript:alert(1)) ![y](http://evil.example/p.png) | $\\frac{$ &lt; "
    "\x00\x1b[31m\u202e\ud800"
)

# Fields that the schema limits to a few words, or by whose value results, costs and phases find each other.
_FIXED = {"label", "kind", "unit", "protocol", "stopped_by", "energy_label", "role", "split", "metric", "replaces"}
_FIXED_KEYS = {"metrics", "components", "energy_labels", "splits"}


def with_attack(record: RunRecord, attack: str = MARKUP) -> RunRecord:
    """The record with the attack at the end of every free string and of every free key."""
    return from_json(RunRecord, _attacked(to_json(record), attack, ""))


def _attacked(value: Any, attack: str, field: str) -> Any:
    if isinstance(value, dict):
        free = field in ("config", "notes", "versions", "model", "files", "sha256")
        return {
            key + attack if free and key != "seed" else key: _attacked(item, attack, "" if free else key)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_attacked(item, attack, field) for item in value]
    return value + attack if isinstance(value, str) and field not in _FIXED else value


def with_hostile_classes(record: RunRecord, attack: str = MARKUP) -> RunRecord:
    """The record with the attack in the names of its classes."""
    results = [
        dataclasses.replace(r, per_class=[row | {"label": row["label"] + attack} for row in r.per_class])
        for r in record.results
    ]
    return dataclasses.replace(record, results=results)


class Reader(HTMLParser):
    """Counts tags and collects attributes and text, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def unsafe(self) -> list[tuple[str, str, str]]:
        """Attributes that could run something or fetch something."""
        links = ("href", "src", "srcset", "action", "xlink:href", "data", "poster", "background")
        return [
            (tag, name, value)
            for tag, name, value in self.attributes
            if name.startswith("on")
            or (name in links and not value.startswith("#"))
            or (name == "style" and "url(" in value.replace("url(#", ""))
        ]
