"""Pairs of texts to splits: classes and scores, usual columns, nested texts; what is drawn and refused."""

import datasets
import numpy as np
import pytest
import small_tables
from small_tables import write_jsonl

from smallmodels import cli, data
from smallmodels.cli import flags
from smallmodels.errors import InputError

load = data.load_text_pairs


def rows_of(count=60, labels=("no", "yes"), columns=("sentence1", "sentence2", "label")):
    return [dict(zip(columns, (f"a {i}", f"b {i}", labels[i % len(labels)]), strict=True)) for i in range(count)]


SCORES = (0.0, 1.25, 2.5, 3.75, 5.0)


def rows_with(splits):
    """(first, second, label) of every row of all splits."""
    parts = (splits.train, splits.validation, splits.test)
    return sorted(
        (first, second, label)
        for part in parts
        for first, second, label in zip(part.texts, part.seconds, part.labels.tolist(), strict=True)
    )


# Classes and scores


def test_pairs_with_classes_become_three_splits(tmp_path):
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows_of()))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (43, 5, 12)
    assert (splits.label_names, splits.train.labels.dtype) == (["no", "yes"], np.int64)
    assert rows_with(splits) == sorted((f"a {i}", f"b {i}", i % 2) for i in range(60))
    assert splits.notes["first_column_guessed"] == "sentence1"
    assert splits.notes["second_column_guessed"] == "sentence2"
    assert splits.notes["labels_guessed"] == "classes"


@pytest.mark.parametrize("as_text", [False, True])
def test_fractions_are_scores(tmp_path, as_text):
    rows = rows_of(labels=SCORES, columns=("sentence1", "sentence2", "similarity_score"))
    if as_text:
        lines = [",".join(map(str, row.values())) for row in rows]
        (tmp_path / "d.csv").write_text("\n".join([",".join(rows[0]), *lines]), encoding="utf-8")
    splits = load(str(tmp_path / "d.csv") if as_text else write_jsonl(tmp_path / "d.jsonl", rows))
    assert (splits.label_names, splits.train.labels.dtype) == ([], np.float32)
    assert rows_with(splits) == sorted((f"a {i}", f"b {i}", SCORES[i % 5]) for i in range(60))
    assert splits.notes["labels_guessed"] == "scores"
    assert "label_map_sha256" not in splits.notes


def test_whole_numbers_are_classes_unless_scores_are_asked_for(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", rows_of(labels=(0, 1, 2.0)))
    assert load(path).label_names == ["0", "1", "2"]
    scores = load(path, regression=True)
    assert (scores.label_names, scores.train.labels.dtype) == ([], np.float32)
    assert "labels_guessed" not in scores.notes


def test_parquet_keeps_the_names_of_its_classes(tmp_path):
    features = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["entailment", "neutral"]),
        }
    )
    rows = rows_of(labels=(1, 0), columns=("premise", "hypothesis", "label"))
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "d.parquet")
    splits = load(str(tmp_path / "d.parquet"))
    assert splits.label_names == ["entailment", "neutral"]
    assert rows_with(splits) == sorted((f"a {i}", f"b {i}", 1 - i % 2) for i in range(60))


# Columns


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        (("question1", "question2", "is_duplicate"), {}),
        (("query", "document", "score"), {}),
        (("left", "right", "label"), {"first_column": "left", "second_column": "right"}),
        (("premise", "hypothesis", "held"), {"label_column": "held"}),
        (("question", "sentence", "label"), {"first_column": "question"}),
    ],
)
def test_usual_columns_are_found_and_others_taken_as_given(tmp_path, columns, options):
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows_of(columns=columns)), **options)
    assert rows_with(splits)[0] == ("a 0", "b 0", 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no column for the first text: choose --first-column from left, right, label"),
        ({"first_column": "left"}, "no column for the second text: choose --second-column"),
        ({"second_column": "right"}, "no column for the first text"),
        ({"first_column": "gone"}, "no column 'gone': choose --first-column from left, right, label"),
        ({"first_column": "left", "second_column": "left"}, "--first-column and --second-column should differ"),
        ({"first_column": "left", "second_column": "label"}, "--second-column and --label-column should differ"),
    ],
)
def test_wrong_columns_are_refused(tmp_path, options, message):
    path = write_jsonl(tmp_path / "d.jsonl", rows_of(columns=("left", "right", "label")))
    with pytest.raises(InputError, match=message):
        load(path, **options)


def test_nested_contexts_become_one_text(tmp_path):
    rows = [
        {
            "question": f"Q {i}?",
            "context": {"contexts": [f"First {i}.", "Second."], "labels": ["BACKGROUND", "RESULTS"]},
            "final_decision": ("yes", "no", "maybe")[i % 3],
        }
        for i in range(60)
    ]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows))
    assert rows_with(splits)[0][:2] == ("Q 0?", "First 0. Second.")
    assert splits.label_names == ["maybe", "no", "yes"]
    for row in rows:
        row["context"] = row["context"]["contexts"]
    assert load(write_jsonl(tmp_path / "e.jsonl", rows)).source.fingerprint == splits.source.fingerprint


# Draws


def test_draws_of_scores_keep_the_share_of_each_tenth(tmp_path):
    rows = rows_of(400, labels=tuple(i / 7 for i in range(40)))
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows), max_train=40)
    edges = np.quantile(np.arange(40) / 7, np.arange(1, 10) / 10)
    assert np.bincount(np.searchsorted(edges, splits.test.labels)).tolist() == [8] * 10
    assert np.bincount(np.searchsorted(edges, splits.train.labels)).tolist() == [4] * 10
    again = load(write_jsonl(tmp_path / "d.jsonl", rows), max_train=40)
    assert again.source.fingerprint == splits.source.fingerprint


def test_overlap_is_that_of_pairs(monkeypatch):
    train = [row | {"sentence1": "same"} for row in rows_of(40)]
    test = [train[0], train[1] | {"sentence2": "other"}]
    serve(monkeypatch, {"train": train, "test": test})
    splits = load("org/any")
    assert splits.notes["overlap"] == {"train/validation": 0, "train/test": 1}
    assert splits.notes["num_duplicates_in_train"] == 0
    dropped = load("org/any", drop_overlap=True)
    assert (len(splits.train) - len(dropped.train), dropped.notes["num_overlap_dropped_from_train"]) == (1, 1)


def serve(monkeypatch, tables, names=None):
    columns = {split: {name: [row[name] for row in rows] for name in rows[0]} for split, rows in tables.items()}
    small_tables.serve(monkeypatch, columns, None if names is None else {"label": names})


@pytest.mark.parametrize("labels", [("no", "yes"), SCORES])
def test_a_test_split_without_labels_is_replaced(monkeypatch, labels):
    serve(monkeypatch, {"train": rows_of(labels=labels), "test": rows_of(4, labels=(-1.0,))})
    splits = load("org/any")
    assert len(splits.test) == 12
    assert splits.notes["num_dropped"] == {"test/unlabelled": 4}


def test_fingerprints_know_second_texts(tmp_path):
    rows = rows_of()
    first = load(write_jsonl(tmp_path / "d.jsonl", rows))
    rows[0]["sentence2"] = "changed"
    assert load(write_jsonl(tmp_path / "d.jsonl", rows)).source.fingerprint != first.source.fingerprint


# What is refused


@pytest.mark.parametrize("column", ["sentence1", "sentence2"])
def test_bad_texts_on_either_side_are_refused_or_dropped_and_counted(tmp_path, column):
    rows = [*rows_of(), rows_of(1)[0] | {column: " "}, rows_of(1)[0] | {column: None}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    with pytest.raises(InputError, match=r"2 that are empty \(row 61 is the first\)"):
        load(path)
    splits = load(path, drop_bad_texts=True)
    assert splits.notes["num_dropped"] == {"train/blank_text": 2}
    assert len(rows_with(splits)) == 60


@pytest.mark.parametrize(
    ("bad", "options", "message"),
    [
        ({"label": "high"}, {"regression": True}, "should hold numbers, found 'high' in train row 60"),
        ({"label": True}, {"regression": True}, "should hold numbers, found True in train row 60"),
        ({"label": [1]}, {}, r"should hold numbers, found \[1\] in train row 60"),
        ({"label": "high"}, {}, "another --label-column, or add --regression False if these are classes$"),
        ({"sentence2": {"text": "x"}}, {}, "objects with 'sentence2s', found one with text in train row 60"),
        ({"sentence2": [1, 2]}, {}, "column 'sentence2' should hold texts, found list in train row 60"),
        ({"sentence1": [1, 2]}, {}, "found list in train row 60: choose another --first-column$"),
        ({"sentence2": [1, 2]}, {}, "found list in train row 60: choose another --second-column$"),
    ],
)
def test_a_bad_row_is_refused(tmp_path, bad, options, message):
    rows = [*rows_of(labels=SCORES), rows_of(1)[0] | {"label": 1.0} | bad]
    with pytest.raises(InputError, match=message) as caught:
        load(write_jsonl(tmp_path / "d.jsonl", rows), **options)
    assert "\n" not in str(caught.value)


def test_the_flag_that_an_error_names_makes_classes_of_labels_that_look_like_scores(tmp_path):
    recipe = cli.load_recipe("distill_sentence_pairs")
    changes, _ = flags.parse_flags(recipe, ["--regression", "False"])
    assert changes == {("regression",): False}
    path = write_jsonl(tmp_path / "d.jsonl", rows_of(labels=("1.5", "high")))
    with pytest.raises(InputError, match="add --regression False"):
        load(path)
    assert load(path, regression=False).label_names == ["1.5", "high"]


def test_rows_without_a_score_are_dropped(tmp_path):
    rows = [*rows_of(labels=SCORES), rows_of(1)[0] | {"label": None}]
    assert load(write_jsonl(tmp_path / "d.jsonl", rows)).notes["num_dropped"] == {"train/unlabelled": 1}


def test_one_class_or_one_score_is_refused(tmp_path):
    with pytest.raises(InputError, match="two classes or more, found only yes"):
        load(write_jsonl(tmp_path / "d.jsonl", rows_of(labels=("yes",))))
    with pytest.raises(InputError, match=r"two different scores or more, found only 2\.5"):
        load(write_jsonl(tmp_path / "d.jsonl", rows_of(labels=(2.5,))))


def test_a_class_that_train_lacks_is_refused(monkeypatch):
    serve(monkeypatch, {"train": rows_of(), "test": rows_of(2, labels=("yes", "perhaps"))})
    with pytest.raises(InputError, match=r"found perhaps in column 'label' \(test/1 is the first row\)"):
        load("org/any")


# Real data


@pytest.mark.hub
@pytest.mark.slow
def test_real_data_sets_are_read_as_they_are(hub, tmp_path):
    summary = (
        "(lambda s: [s.source.splits, s.label_names, s.languages, str(s.test.labels.dtype), s.test.texts[0],"
        " s.test.seconds[0][:40], len(s.test.seconds[0])])"
    )
    similar, questions = hub.evaluate(
        f"[{summary}(data.load_text_pairs('PhilipMay/stsb_multi_mt', config='de')),"
        f" {summary}(data.load_text_pairs('qiaojin/PubMedQA', config='pqa_labeled_official_split'))]",
        tmp_path,
    ).get()
    assert similar[:4] == [{"train": 5749, "validation": 1500, "test": 1379}, [], ["de"], "float32"]
    assert questions[:4] == [{"train": 450, "validation": 50, "test": 500}, ["maybe", "no", "yes"], ["en"], "int64"]
    assert questions[4].endswith("?")
    assert questions[6] > 500
