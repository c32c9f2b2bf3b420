"""Runs by what they did: those that share a recipe and a config but for the seed, and how they are called."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smallmodels.records import RunRecord, dotted
from smallmodels.report import words
from smallmodels.report.formats import clean

_CHARACTERS = 120


@dataclass(frozen=True)
class Kind:
    """Runs that share a recipe, a number format and a config but for the seed."""

    difference: str
    """What tells them from the others: the recipe where there are several, and the settings that vary within it."""
    records: Sequence[RunRecord]

    @property
    def name(self) -> str:
        """What tells them from others, and the recipe where there are none."""
        return clean(self.difference or self.records[0].recipe, _CHARACTERS)


def kinds_of(group: Sequence[RunRecord]) -> list[Kind]:
    """The kinds among these runs, in the order in which they came."""
    configs: dict[str, list[RunRecord]] = {}
    for record in group:
        settings = {key: value for key, value in _settings(record).items() if key != "seed"}
        configs.setdefault(json.dumps([record.recipe, settings], sort_keys=True, default=str), []).append(record)
    recipes = {record.recipe for record in group}
    varying = {recipe: _varying([r for r in group if r.recipe == recipe]) for recipe in recipes}
    also = ["recipe"] if len(recipes) > 1 else []
    return [Kind(_setting_words(runs[0], [*also, *varying[runs[0].recipe]]), runs) for runs in configs.values()]


def _settings(record: RunRecord) -> dict[str, Any]:
    """Of the config, and the number format, which is an option of the run."""
    return {**record.config, "number_format": record.model.get("number_format")}


def _varying(runs: Sequence[RunRecord]) -> list[str]:
    """Settings, but for the seed, that are not the same in all runs of a recipe."""
    flats = [dotted(_settings(r)) for r in runs]
    keys = dict.fromkeys(key for flat in flats for key in flat if key != "seed")
    return [key for key in keys if any(_is_other(flat.get(key), flats[0].get(key)) for flat in flats)]


def _is_other(one: Any, two: Any) -> bool:
    """Whether they are written differently in JSON, as 1, 1.0 and true are."""
    return type(one) is not type(two) or one != two


def _setting_words(record: RunRecord, keys: Sequence[str]) -> str:
    values = {"recipe": record.recipe, **dotted(_settings(record))}
    return ", ".join(
        f"{key.rpartition('.')[2].replace('_', ' ')} {words.plain(values[key])}" for key in keys if key in values
    )


def seed_names(records: Sequence[RunRecord]) -> list[str]:
    """A short name for each run of a kind: its seed, and the end of its id where a seed repeats."""
    seeds = [f"seed {clean(words.plain(record.config.get('seed')), 8)}" for record in records]
    repeated = {name for name, count in Counter(seeds).items() if count > 1}
    return [
        f"{seed} {clean(record.run_id)[-6:]}" if seed in repeated else seed
        for seed, record in zip(seeds, records, strict=True)
    ]
