"""How runs are called in pictures: by their recipe, by the settings in which they differ, and by their seed."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smallmodels.records import RunRecord
from smallmodels.report import words
from smallmodels.report.formats import clean

_SETTINGS = 3
_CHARACTERS = 24


@dataclass(frozen=True)
class Kind:
    """Runs that share a recipe and a config but for the seed."""

    name: str
    """The recipe, and the settings in which it differs from others of the same recipe."""
    records: Sequence[RunRecord]
    difference: str = ""
    """What tells it from the others: its name without a recipe that all share, and nothing where it is alone."""


def kinds(records: Sequence[RunRecord]) -> list[Kind]:
    """The runs by kind, in the order in which they came; kinds of one recipe are told apart by their settings."""
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        settings = {key: value for key, value in record.config.items() if key != "seed"}
        found.setdefault(json.dumps([record.recipe, settings], sort_keys=True, default=str), []).append(record)
    by_recipe: dict[str, list[RunRecord]] = {}
    for runs in found.values():
        by_recipe.setdefault(runs[0].recipe, []).append(runs[0])
    differing = {recipe: _differing(firsts) for recipe, firsts in by_recipe.items()}
    names = [_name(runs[0], differing[runs[0].recipe]) for runs in found.values()]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    named = []
    for i, (name, runs) in enumerate(zip(names, found.values(), strict=True)):
        whole = f"{name} · {i + 1}" if name in repeated else name
        only = whole if len(by_recipe) > 1 else whole.removeprefix(clean(runs[0].recipe, 60)).lstrip(", ·")
        named.append(Kind(whole, runs, only if len(found) > 1 else ""))
    return named


def _differing(records: Sequence[RunRecord]) -> list[str]:
    flats = [_flat(record.config) for record in records]
    keys = dict.fromkeys(key for flat in flats for key in flat if key != "seed")
    return [key for key in keys if len({json.dumps(flat.get(key), default=str) for flat in flats}) > 1]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _name(record: RunRecord, keys: Sequence[str]) -> str:
    values = _flat(record.config)
    said = [
        f"{key.rpartition('.')[2].replace('_', ' ')} {clean(words.plain(values.get(key)), _CHARACTERS)}" for key in keys
    ][:_SETTINGS]
    recipe = clean(record.recipe, 60)
    return f"{recipe}, {', '.join(said)}" if said else recipe


def seed_names(records: Sequence[RunRecord]) -> list[str]:
    """A short name for each run of a kind: its seed, and the end of its id where a seed repeats."""
    seeds = [f"seed {clean(words.plain(record.config.get('seed')), 8)}" for record in records]
    repeated = {name for name, count in Counter(seeds).items() if count > 1}
    return [
        f"{seed} {clean(record.run_id)[-6:]}" if seed in repeated else seed
        for seed, record in zip(seeds, records, strict=True)
    ]
