"""One data set in many languages, each a configuration of it, as one task."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from smallmodels import files
from smallmodels.data.drawing import note_overlap
from smallmodels.data.languages import in_language, languages_of
from smallmodels.data.rows import SameRows
from smallmodels.data.splits import Split, Splits
from smallmodels.data.text_classification import load_text_classification
from smallmodels.errors import InputError, flags_named
from smallmodels.phases import NO_CONTEXT, Context


def load_in_languages(
    dataset: str, languages: Sequence[str], *, context: Context = NO_CONTEXT, **options: Any
) -> Splits:
    """`load_text_classification` of several configurations, whose rows follow each other.

    Where splits are missing, the rows that are drawn of the first language stand in for them in all, so that no text of
    a test is trained on in another language; rows that the first one lacks are trained on.

    Args:
        dataset: `org/name` or `org/name@revision` on the hub, or local files with `{language}` in their path.
        languages: Its configurations, such as `swh_Latn`, or what stands in the place of `{language}`.
        context: Of the phase.
        options: All others of `load_text_classification`, for each configuration.

    Returns: Splits whose ids begin with the language: `swh_Latn/test/3`; see `languages_of_rows`.

    Raises: As there; InputError if a language is named twice, or two have other labels.
    """
    if not languages or len(set(languages)) < len(languages):
        raise InputError(f"languages should be one or more, each named once, got {', '.join(languages) or 'none'}")
    found, draw = {}, SameRows()
    for number, language in enumerate(languages):
        name, config = in_language(dataset, language)
        with flags_named({"--dataset-config": "--languages"}, "choose other --languages"):
            splits = load_text_classification(name, config=config, draw=draw, **options)
        found[language] = dataclasses.replace(splits, languages=splits.languages or languages_of([], language))
        context.progress(number + 1, len(languages))
    first = found[languages[0]]
    for language, splits in found.items():
        if splits.label_names != first.label_names:
            raise InputError(
                f"{language} should have the labels of {languages[0]}, {', '.join(first.label_names)}, but has "
                f"{', '.join(splits.label_names)}: leave it out"
            )
    parts = {role: _joined(found, role) for role in ("train", "validation", "test")}
    notes = dict(first.source.notes)
    note_overlap(parts, False, notes)
    fingerprints = {language: splits.source.fingerprint for language, splits in found.items()}
    source = dataclasses.replace(
        first.source,
        sha256={name: digest for splits in found.values() for name, digest in splits.source.sha256.items()},
        splits={role: len(split) for role, split in parts.items()},
        fingerprint=files.sha256_json(fingerprints),
        notes={**notes, "languages": list(languages), "fingerprints": fingerprints},
    )
    codes = list(dict.fromkeys(code for splits in found.values() for code in splits.languages))
    train, validation, test = parts.values()
    return dataclasses.replace(
        first, train=train, validation=validation, test=test, source=source, languages=codes, notes=source.notes
    )


def languages_of_rows(split: Split) -> list[str]:
    """The language of each row of `load_in_languages`."""
    return [row.partition("/")[0] for row in split.ids]


def by_language(split: Split) -> dict[str, Split]:
    """The rows of each language of `load_in_languages`."""
    rows: dict[str, list[int]] = {}
    for place, language in enumerate(languages_of_rows(split)):
        rows.setdefault(language, []).append(place)
    return {language: split.take(places) for language, places in rows.items()}


def _joined(found: Mapping[str, Splits], role: str) -> Split:
    parts = []
    for language, splits in found.items():
        split: Split = getattr(splits, role)
        parts.append(dataclasses.replace(split, ids=[f"{language}/{row}" for row in split.ids]))
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.join(part)
    return whole
