"""Spans and their F1 against seqeval, its default and its strict mode, on tags that fit together and that do not."""

import itertools
import warnings

import numpy as np
import pytest
import seqeval.metrics
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, IOBES, Entities

from smallmodels import metrics
from smallmodels.errors import InputError

BIO = ["O", "B-a", "I-a", "B-b", "I-b", "B-creative-work", "I-creative-work"]
BIOES = ["O", *(f"{place}-{kind}" for kind in "ab" for place in "BIES")]
SPELLED = str.maketrans("ES", "LU")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns of every type that was never predicted
        yield


def random_tags(names, count, seed, longest=12):
    """Sentences of random tags: most break every rule of their scheme."""
    generator = np.random.default_rng(seed)
    return [
        [names[i] for i in generator.integers(len(names), size=generator.integers(1, longest))] for _ in range(count)
    ]


def mostly_right(sentences, names, seed):
    """The same sentences with a fifth of the tags replaced."""
    generator = np.random.default_rng(seed)
    return [[str(generator.choice(names)) if generator.random() < 0.2 else tag for tag in tags] for tags in sentences]


def scores(predicted, wanted, names, **options):
    """`span_scores` of lists of tags."""
    number = {name: i for i, name in enumerate(names)}
    flat = [[number[tag] for tag in itertools.chain(*sentences)] for sentences in (predicted, wanted)]
    offsets = np.cumsum([0, *map(len, wanted)])
    return metrics.span_scores(np.array(flat[0]), np.array(flat[1]), offsets, names, n_bootstrap=20, **options)


# Spans of one sentence


@pytest.mark.parametrize("names", [BIO, BIOES, ["O", "I-a", "I-b"]])
def test_spans_of_equals_seqevals_default_on_thousands_of_sentences(names):
    for tags in random_tags(names, 3000, seed=0):
        expected = [(kind, first, last + 1) for kind, first, last in get_entities(tags)]
        assert metrics.spans_of(tags) == expected, tags


@pytest.mark.parametrize(("names", "scheme", "theirs"), [(BIO, "BIO", IOB2), (BIOES, "BIOES", IOBES)])
def test_spans_of_a_scheme_equals_seqevals_strict_mode(names, scheme, theirs):
    for tags in random_tags(names, 3000, seed=1):
        expected = [(entity.tag, entity.start, entity.end) for entity in Entities([tags], theirs).entities[0]]
        assert metrics.spans_of(tags, scheme=scheme) == expected, tags


def test_bilou_is_read_as_bioes():
    for tags in random_tags(BIOES, 1000, seed=2):
        spelled = [tag[0].translate(SPELLED) + tag[1:] for tag in tags]
        expected = [(entity.tag, entity.start, entity.end) for entity in Entities([spelled], BILOU).entities[0]]
        assert metrics.spans_of(spelled, scheme="BIOES") == expected
        assert metrics.spans_of(spelled) == metrics.spans_of(tags)


def test_malformed_tags_by_hand():
    assert metrics.spans_of(["I-a", "I-a", "I-b", "O", "I-b"]) == [("a", 0, 2), ("b", 2, 3), ("b", 4, 5)]
    assert metrics.spans_of(["I-a", "B-a", "I-b"], scheme="BIO") == [("a", 1, 2)]
    assert metrics.spans_of(["B", "I", "O", "B"]) == [("_", 0, 2), ("_", 3, 4)]
    assert metrics.spans_of([]) == []


def test_scheme_of_is_the_smallest_that_has_the_tags():
    assert metrics.scheme_of(["O", "I-a"]) == "IO"
    assert metrics.scheme_of(BIO) == "BIO"
    assert metrics.scheme_of(BIOES) == metrics.scheme_of(["O", "U-a", "L-a"]) == "BIOES"


@pytest.mark.parametrize("tag", ["NOUN", "b-a", "B-", "-a", "O-a", "X-a", "", "a-B"])
def test_other_tags_are_refused(tag):
    with pytest.raises(InputError, match="should be O, or B, I, E, S, L or U with a type") as caught:
        metrics.spans_of(["O", tag])
    assert repr(tag) in str(caught.value)


def test_a_scheme_refuses_the_tags_of_another():
    with pytest.raises(InputError, match="scheme BIO should be made of B, I, O, found 'E-a'"):
        metrics.spans_of(["B-a", "E-a"], scheme="BIO")


# Scores of many sentences


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("names", "scheme", "strict"),
    [
        (BIO, None, {}),
        (BIOES, None, {}),
        (["O", "I-a", "I-b"], None, {}),
        (BIO, "BIO", {"mode": "strict", "scheme": IOB2}),
        (BIOES, "BIOES", {"mode": "strict", "scheme": IOBES}),
    ],
)
def test_span_scores_equal_seqeval(names, scheme, strict, seed):
    wanted = random_tags(names, 150, seed)
    predicted = mostly_right(wanted, names, seed + 100)
    found = scores(predicted, wanted, names, scheme=scheme)
    for ours, theirs in (
        (found.precision, seqeval.metrics.precision_score(wanted, predicted, **strict)),
        (found.recall, seqeval.metrics.recall_score(wanted, predicted, **strict)),
        (found.f1, seqeval.metrics.f1_score(wanted, predicted, **strict)),
        (found.macro_f1, seqeval.metrics.f1_score(wanted, predicted, average="macro", **strict)),
    ):
        assert ours.value == pytest.approx(theirs, abs=1e-12)
        assert 0 < ours.value < 1
    expected = seqeval.metrics.classification_report(wanted, predicted, output_dict=True, **strict)
    for row in found.per_type:
        theirs = expected[row["label"]]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [theirs["precision"], theirs["recall"], theirs["f1-score"]], abs=1e-12
        )
        assert row["support"] == theirs["support"]


def test_types_that_never_occur_do_not_count_in_the_mean_and_are_none_in_the_table():
    found = scores([["B-a", "O"]], [["B-a", "O"]], BIO)
    assert found.macro_f1.value == 1
    assert [row["f1"] for row in found.per_type] == [1, None, None]
    assert [row["support"] for row in found.per_type] == [1, 0, 0]


def test_no_span_predicted_is_zero_as_in_seqeval():
    found = scores([["O", "O"], ["O"]], [["B-a", "I-a"], ["O"]], BIO)
    assert (found.precision.value, found.recall.value, found.f1.value) == (0, 0, 0)
    assert found.per_type[0]["precision"] is None


def test_a_span_does_not_reach_into_the_next_sentence():
    found = scores([["I-a"], ["I-a"]], [["B-a"], ["B-a"]], BIO)
    assert found.f1.value == 1
    assert found.per_type[0]["support"] == 2


def test_sentences_without_words_change_nothing():
    predictions, labels = np.array([1, 2, 0, 1]), np.array([1, 2, 0, 3])
    whole = metrics.span_scores(predictions, labels, [0, 2, 4], BIO)
    holes = metrics.span_scores(predictions, labels, [0, 0, 2, 2, 4, 4], BIO)
    assert holes.f1.value == whole.f1.value == 0.5
    assert holes.per_type == whole.per_type


def test_intervals_are_those_of_a_plain_bootstrap_over_sentences():
    wanted = random_tags(BIO, 120, seed=3)
    predicted = mostly_right(wanted, BIO, seed=4)
    number = {name: i for i, name in enumerate(BIO)}
    flat = [np.array([number[tag] for tag in itertools.chain(*tags)]) for tags in (predicted, wanted)]
    found = metrics.span_scores(*flat, np.cumsum([0, *map(len, wanted)]), BIO)
    generator = np.random.default_rng(5)
    plain = []
    for _ in range(300):
        rows = generator.integers(len(wanted), size=len(wanted))
        plain.append(seqeval.metrics.f1_score([wanted[i] for i in rows], [predicted[i] for i in rows]))
    assert [found.f1.low, found.f1.high] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.012)
    assert found.f1.low < found.f1.value < found.f1.high
    assert found.f1.n == 120
    assert metrics.span_scores(*flat, np.cumsum([0, *map(len, wanted)]), BIO) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0], [0, 1]), "one index per item"),
        (([0, 9], [0, 0], [0, 2]), r"predictions should be in \[0, 7\)"),
        (([0, 1], [0, 1], [0, 1]), "offsets should rise from 0 to 2"),
        (([0, 1], [0, 1], [0, 2, 1, 2]), "offsets should rise"),
    ],
)
def test_span_scores_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        metrics.span_scores(*map(np.array, arguments), BIO)


def test_span_counts_are_those_of_each_sentence():
    wanted = random_tags(BIO, 60, seed=7)
    predicted = mostly_right(wanted, BIO, seed=8)
    number = {name: i for i, name in enumerate(BIO)}
    flat = [np.array([number[tag] for tag in itertools.chain(*tags)]) for tags in (predicted, wanted)]
    found = metrics.span_counts(*flat, np.cumsum([0, *map(len, wanted)]), BIO)
    spans = [[set(metrics.spans_of(tags)) for tags in sentences] for sentences in (predicted, wanted)]
    assert found.tolist() == [[len(a & b), len(a), len(b)] for a, b in zip(*spans, strict=True)]
