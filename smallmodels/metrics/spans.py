"""Spans of words, as tags mark them, and how many of them are found: the F1 of seqeval, on arrays.

A tag is `O`, or the place of a word in its span with the span's type: `B-person`. Places are B (first), I (inside), E
or L (last) and S or U (the only one); BIO tags have B and I only, IO tags I only.

Shapes: W words of all sentences one after the other, N sentences, T types, S spans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError
from smallmodels.metrics.checks import Indices, Ints, index_pair, require_named
from smallmodels.metrics.f1 import macro_f1_of, ratios, table_of
from smallmodels.metrics.intervals import Statistic, of_sums
from smallmodels.records import Metric

Scheme = Literal["IO", "BIO", "BIOES"]

_O, _B, _I, _E, _S = range(5)
_PLACES = {"O": _O, "B": _B, "I": _I, "E": _E, "S": _S, "L": _E, "U": _S}
_PLACES_OF: dict[Scheme, set[int]] = {"IO": {_O, _I}, "BIO": {_O, _B, _I}, "BIOES": {_O, _B, _I, _E, _S}}


@dataclass(frozen=True, kw_only=True)
class SpanScores:
    """How many spans are found, with the right type and exactly at their place; intervals are over sentences."""

    precision: Metric
    """Of all predicted spans together, as recall and F1 are."""
    recall: Metric
    f1: Metric
    macro_f1: Metric
    """Mean over the types that occur among labels or predictions."""
    per_type: list[dict[str, Any]]
    """One row per type with the keys label, precision, recall, f1 and support; a ratio over zero is None."""


def scheme_of(label_names: Sequence[str]) -> Scheme:
    """The scheme that these tags are of.

    Raises: InputError if one is neither `O` nor a place with a type.
    """
    places = set(_Tags.of(label_names).places.tolist())
    return next(scheme for scheme, allowed in _PLACES_OF.items() if places <= allowed)


def spans_of(tags: Sequence[str], *, scheme: Scheme | None = None) -> list[tuple[str, int, int]]:
    """The spans that the tags of one sentence mark.

    Args:
        tags: One per word.
        scheme: None reads tags that do not fit together as well as it can: a span begins with any tag that does not go
            on with the one before. A scheme leaves out spans that break its rules, such as one of BIO that begins with
            I. The first is seqeval's default, the second its strict mode with IOB2 or IOBES.

    Returns: Type, first word, and the word after the last, in order. A tag without a type has the type `_`.

    Raises: InputError if a tag is none, or is not of the scheme.
    """
    names = list(dict.fromkeys(tags))
    known = _Tags.of(names, scheme)
    tags_W = np.asarray([names.index(tag) for tag in tags], dtype=np.int64)
    kinds, first, stop = _find(tags_W, np.arange(len(tags)) == 0, known, scheme)
    return [(known.types[k], a, b) for k, a, b in zip(kinds.tolist(), first.tolist(), stop.tolist(), strict=True)]


def span_scores(
    predictions: Indices,
    labels: Indices,
    offsets: Indices,
    label_names: Sequence[str],
    *,
    scheme: Scheme | None = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> SpanScores:
    """Precision, recall and F1 of spans, which count as found if first word, last word and type are right.

    Args:
        predictions: Shape (num_words,), indices into `label_names`, sentence after sentence.
        labels: Same shape.
        offsets: Shape (num_sentences + 1,): sentence i has the words `offsets[i]` to `offsets[i + 1]`.
        label_names: The tags.
        scheme: As `spans_of` takes it.
        n_bootstrap: Resamples of sentences behind each interval.
        seed: Of the resampling.

    Returns: A ratio over zero is 0, as in seqeval.

    Raises: InputError if shapes do not fit, an index has no name, or a tag is not of the scheme.

    Source: Ramshaw and Marcus 1995, arXiv:cmp-lg/9505040; equal to seqeval 1.2.2 on the same tags.
    """
    counts_NT3, types = _counts(predictions, labels, offsets, label_names, scheme)
    distinct, counts = np.unique(counts_NT3.reshape(len(counts_NT3), -1), axis=0, return_counts=True)

    def measure(statistic: Statistic) -> Metric:
        """A statistic of (…, num_types, 3): right, predicted and labelled spans."""
        shape = (-1, *counts_NT3.shape[1:])
        return of_sums(distinct, counts, lambda s: statistic(s.reshape(shape)), n_bootstrap=n_bootstrap, seed=seed)

    return SpanScores(
        precision=measure(lambda sums: ratios(sums[..., 0].sum(-1), sums[..., 1].sum(-1))),
        recall=measure(lambda sums: ratios(sums[..., 0].sum(-1), sums[..., 2].sum(-1))),
        f1=measure(lambda sums: ratios(2 * sums[..., 0].sum(-1), sums[..., 1:].sum((-1, -2)))),
        macro_f1=measure(lambda sums: macro_f1_of(sums[..., 0], sums[..., 1:].sum(-1))),
        per_type=table_of(types, *counts_NT3.sum(axis=0).T),
    )


def span_counts(
    predictions: Indices, labels: Indices, offsets: Indices, label_names: Sequence[str], *, scheme: Scheme | None = None
) -> Ints:
    """Right, predicted and labelled spans of each sentence, as `span_scores` counts them.

    Args: As there.

    Returns: Shape (num_sentences, 3).

    Raises: As there.
    """
    counts_NT3, _ = _counts(predictions, labels, offsets, label_names, scheme)
    return np.asarray(counts_NT3.sum(axis=1))


def _counts(
    predictions: Indices, labels: Indices, offsets: Indices, label_names: Sequence[str], scheme: Scheme | None
) -> tuple[Ints, list[str]]:
    """Right, predicted and labelled spans, shape (N, T, 3), and the types."""
    predictions_W, labels_W = index_pair("predictions", predictions, "labels", labels)
    require_named(len(label_names), predictions=predictions_W, labels=labels_W)
    offsets_N1 = np.asarray(offsets, dtype=np.int64)
    if offsets_N1[0] != 0 or offsets_N1[-1] != len(labels_W) or (np.diff(offsets_N1) < 0).any():
        raise InputError(
            f"offsets should rise from 0 to {len(labels_W)}, the number of words, got {offsets_N1[0]} to "
            f"{offsets_N1[-1]}: pass those of the labels"
        )
    tags = _Tags.of(label_names, scheme)
    begins_W = np.isin(np.arange(len(labels_W)), offsets_N1)
    found = _find(predictions_W, begins_W, tags, scheme)
    wanted = _find(labels_W, begins_W, tags, scheme)
    is_right = np.isin(_keys(found, len(labels_W)), _keys(wanted, len(labels_W)))

    counts_NT3 = np.zeros((len(offsets_N1) - 1, len(tags.types), 3), dtype=np.int64)
    for which, (kinds, first, _) in enumerate(([part[is_right] for part in found], found, wanted)):
        sentences = np.searchsorted(offsets_N1, first, side="right") - 1
        np.add.at(counts_NT3[..., which], (sentences, kinds), 1)
    return counts_NT3, tags.types


@dataclass(frozen=True)
class _Tags:
    """Place and type of each tag."""

    places: Ints
    kinds: Ints
    """Indices into `types`; −1 for `O`."""
    types: list[str]

    @classmethod
    def of(cls, names: Sequence[str], scheme: Scheme | None = None) -> "_Tags":
        places, kinds, types = [], [], dict[str, int]()
        for name in names:
            letter, hyphen, kind = name.partition("-")
            place = _PLACES.get(letter)
            if place is None or bool(hyphen) != bool(kind) or (place == _O and hyphen):
                raise InputError(
                    f"a tag should be O, or B, I, E, S, L or U with a type such as B-person, found {name!r}: "
                    "convert the tags"
                )
            if scheme and place not in _PLACES_OF[scheme]:
                raise InputError(f"tags of scheme {scheme} should be made of {', '.join(scheme)}, found {name!r}")
            places.append(place)
            kinds.append(-1 if place == _O else types.setdefault(kind or "_", len(types)))
        return cls(np.asarray(places, dtype=np.int64), np.asarray(kinds, dtype=np.int64), list(types))


def _find(tags_W: Ints, begins_W: npt.NDArray[np.bool_], tags: _Tags, scheme: Scheme | None) -> tuple[Ints, Ints, Ints]:
    """Type, first word and the word after the last of each span."""
    place_W, kind_W = tags.places[tags_W], tags.kinds[tags_W]
    goes_on_W = np.isin(place_W, (_I, _E)) & ~begins_W
    goes_on_W[1:] &= np.isin(place_W[:-1], (_B, _I)) & (kind_W[1:] == kind_W[:-1])
    first_S = np.flatnonzero((place_W != _O) & ~goes_on_W)
    breaks = np.append(np.flatnonzero(~goes_on_W), len(tags_W))
    stop_S = breaks[np.searchsorted(breaks, first_S, side="right")]
    if scheme in ("BIO", "BIOES"):
        opening, closing = place_W[first_S], place_W[stop_S - 1]
        kept = opening == _B if scheme == "BIO" else (opening == _S) | ((opening == _B) & (closing == _E))
        first_S, stop_S = first_S[kept], stop_S[kept]
    return kind_W[first_S], first_S, stop_S


def _keys(spans: tuple[Ints, Ints, Ints], num_words: int) -> Ints:
    """One number for each span, equal for equal spans."""
    kinds, first, stop = spans
    return (kinds * (num_words + 1) + first) * (num_words + 1) + stop
