"""Texts by reading level, without what gives the level away, and one article's versions on one side."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import files
from smallmodels.data.drawing import TEST_FRACTION, VALIDATION_FRACTION, generator, note_overlap
from smallmodels.data.rows import limit_rows
from smallmodels.data.splits import Split, Splits
from smallmodels.data.text_classification import load_text_classification
from smallmodels.errors import InputError
from smallmodels.phases import NO_CONTEXT, Context

SAME_ARTICLE = 0.4
"""Cosine of TF-IDF from which on two texts tell the same story: in OneStopEnglish 95 of 100 versions of an article are
above 0.57, and half of all texts are below 0.12 with their next of another article."""
_LONGEST_COMPARED = 20_000
"""Texts whose similarities with each other are looked at; their matrix would take 3 GB."""
_LEVELS = ("elementary", "intermediate", "advanced", "beginner", "easy", "medium", "hard", "ele", "int", "adv")
_HEADER = re.compile(rf"\s*(?:{'|'.join(_LEVELS)})(?: level)?[\s:.-]*(?:\n|$)", re.IGNORECASE)
_NOT_PLAIN = re.compile(r"""[^\s -~]|['"`]""", re.ASCII)
_LOST_SHARE = 0.1
"""Of the share of texts with characters beyond ASCII at another level: one with less has lost them in storage, since
writers leave out none of them."""


def load_reading_levels(
    dataset: str,
    *,
    split_seed: int = 0,
    drop_overlap: bool = False,
    max_train: int | None = None,
    context: Context = NO_CONTEXT,
    **options: Any,
) -> Splits:
    """`load_text_classification`, with texts that do not say their level and articles that stay on one side.

    A first line that names the level is removed. Where one level lost the characters beyond ASCII, as the intermediate
    texts of OneStopEnglish did ("doesnt", "Jos Ivan"), all levels lose them, and straight quotes and apostrophes too:
    else a classifier sees the level by its punctuation. Data whose levels all have them keep them.

    Where validation or test have to be drawn from train, all texts about one article go to the same of the three:
    its versions share most words, and a model that has seen one knows the story of the others.

    Args:
        dataset: As there.
        split_seed: Seed of the draw.
        drop_overlap: As there, once the rows are drawn.
        max_train: Likewise.
        context: Of the phase.
        options: All others of `load_text_classification`.

    Returns: Splits whose `notes` say how many headers were removed, how many texts lost characters that a level lacks,
        and how many articles there are.

    Raises: As there; InputError if nearly all texts are about one article.
    """
    found = load_text_classification(dataset, split_seed=split_seed, context=context, **options)
    of_first_draw = ("overlap", "num_duplicates_in_train", "classes_without_rows")
    parts, notes = {}, {name: value for name, value in found.source.notes.items() if name not in of_first_draw}
    for split in (found.train, found.validation, found.test):
        parts[split.name], removed = without_headers(split)
        notes.setdefault("num_headers_removed", {})[split.name] = removed
    if _is_one_level_in_ascii(list(parts.values())):
        for role, split in parts.items():
            parts[role], changed = in_plain_ascii(split)
            notes.setdefault("num_texts_made_plain_ascii", {})[role] = changed
    drawn = [role for role in ("validation", "test") if f"{role}_split" in notes]
    if drawn:
        parts = _draw_again(parts, drawn, split_seed, notes)
    parts["train"] = note_overlap(parts, drop_overlap, notes)
    parts["train"] = limit_rows(parts["train"], max_train, split_seed)
    fingerprints = {role: split.fingerprint() for role, split in parts.items()}
    notes["split_fingerprints"] = fingerprints
    source = dataclasses.replace(
        found.source,
        splits={role: len(split) for role, split in parts.items()},
        fingerprint=files.sha256_json([fingerprints[role] for role in ("train", "validation", "test")]),
        notes=notes,
    )
    train, validation, test = (parts[role] for role in ("train", "validation", "test"))
    return dataclasses.replace(found, train=train, validation=validation, test=test, source=source, notes=notes)


def without_headers(split: Split) -> tuple[Split, int]:
    """The split with texts whose first line is not the name of a level, and how many such lines there were."""
    texts = [_HEADER.sub("", text, count=1) if _HEADER.match(text) else text for text in split.texts]
    removed = sum(text != before for text, before in zip(texts, split.texts, strict=True))
    return dataclasses.replace(split, texts=texts), removed


def in_plain_ascii(split: Split) -> tuple[Split, int]:
    """The split with texts as a level has them that lost the characters beyond ASCII, and how many had such or quotes.

    They are dropped, accented letters too, as they were there, and so are control characters, which are what is left
    of some; white space, of which a lost dash leaves two, is one space.
    """
    texts = [" ".join(_NOT_PLAIN.sub("", text).split()) for text in split.texts]
    changed = sum(_NOT_PLAIN.search(text) is not None for text in split.texts)
    return dataclasses.replace(split, texts=texts), changed


def _is_one_level_in_ascii(splits: Sequence[Split]) -> bool:
    """Whether characters beyond ASCII are in hardly any text of one level, but in those of another."""
    levels = np.concatenate([split.class_labels for split in splits])
    others = [not text.isascii() for split in splits for text in split.texts]
    shares = np.bincount(levels, others) / np.bincount(levels)
    return bool(shares.min() < _LOST_SHARE * shares.max())


def articles_of(texts: Sequence[str], *, similarity: float = SAME_ARTICLE) -> npt.NDArray[np.int64]:
    """A number for each text, the same for texts that are alike, directly or through others.

    Args:
        texts: At most 20,000.
        similarity: Cosine of TF-IDF of words from which on two are.

    Raises: InputError if there are more.
    """
    from scipy.sparse.csgraph import connected_components
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(texts) > _LONGEST_COMPARED:
        raise InputError(
            f"there should be at most {_LONGEST_COMPARED:,} texts to find those about one article, found "
            f"{len(texts):,}: use data with splits of their own, or --max-train"
        )
    rows = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(texts)
    _, numbers = connected_components((rows @ rows.T) >= similarity, directed=False)
    return np.asarray(numbers, dtype=np.int64)


def _draw_again(
    parts: dict[str, Split], drawn: Sequence[str], split_seed: int, notes: dict[str, Any]
) -> dict[str, Split]:
    """Take the drawn splits from all texts article by article; a split of the data set's own stays as it is."""
    pool = parts["train"]
    for role in drawn:
        pool = pool.join(dataclasses.replace(parts[role], name="train"))
    articles = articles_of(pool.texts)
    order = generator(split_seed, "articles").permutation(articles.max() + 1)
    sizes = np.bincount(articles)[order].cumsum()
    notes["num_articles"] = len(order)
    fractions = {"test": TEST_FRACTION, "validation": VALIDATION_FRACTION}
    begin, done = 0, dict(parts)
    for role in drawn:
        end = int(np.searchsorted(sizes, (sizes[begin - 1] if begin else 0) + fractions[role] * len(pool))) + 1
        done[role] = dataclasses.replace(pool.take(np.flatnonzero(np.isin(articles, order[begin:end]))), name=role)
        notes[f"{role}_split"] = (
            f"{fractions[role]:.0%} of all texts stand in, article by article, split_seed {split_seed}"
        )
        begin = end
    done["train"] = pool.take(np.flatnonzero(np.isin(articles, order[begin:])))
    for role, split in done.items():
        if len(np.unique(split.class_labels)) < len(np.unique(pool.class_labels)):
            raise InputError(
                f"{role} should have texts of every level, found {len(split)} texts without one of them: use more "
                "data, or data with splits of their own"
            )
    return done
