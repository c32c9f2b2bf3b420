"""Several labels per text to splits: lists, strings with separators, a column for each; what is drawn and refused."""

import datasets
import numpy as np
import pytest
import small_tables
from small_tables import write_jsonl

from smallmodels import data
from smallmodels.errors import InputError

load = data.load_multilabel_classification

SETS = (["joy", "love"], ["anger"], [], ["joy"])
NAMES = ["anger", "joy", "love"]


def rows_of(count=60):
    return [{"text": f"text {i}", "labels": SETS[i % 4]} for i in range(count)]


def sets_of(splits):
    """The names of the labels of every text of all splits."""
    parts = (splits.train, splits.validation, splits.test)
    return {
        text: [name for name, holds in zip(splits.label_names, part.labels[row], strict=True) if holds]
        for part in parts
        for row, text in enumerate(part.texts)
    }


EXPECTED = {f"text {i}": sorted(SETS[i % 4]) for i in range(60)}


# Formats


def test_lists_of_strings_become_a_matrix_and_texts_without_labels_are_kept(tmp_path):
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows_of()))
    assert splits.label_names == NAMES
    assert sets_of(splits) == EXPECTED
    assert (splits.train.labels.dtype, splits.train.labels.shape) == (np.int64, (43, 3))
    assert (splits.notes["text_column_guessed"], splits.notes["label_column_guessed"]) == ("text", "labels")
    assert "num_dropped" not in splits.notes


@pytest.mark.parametrize("sign", [";", "|", ","])
def test_strings_are_cut_at_their_separator(tmp_path, sign):
    lines = [f'text {i},"{f"{sign} ".join(SETS[i % 4])}"' for i in range(60)]
    (tmp_path / "d.csv").write_text("\n".join(["text,labels", *lines]), encoding="utf-8")
    splits = load(str(tmp_path / "d.csv"))
    assert sets_of(splits) == EXPECTED
    assert splits.notes["label_separator"] == sign


def test_a_label_may_hold_a_sign_that_is_not_the_separator(tmp_path):
    rows = [{"text": f"t{i}", "labels": ("fear, or worry;joy", "joy")[i % 2]} for i in range(40)]
    assert load(write_jsonl(tmp_path / "d.jsonl", rows)).label_names == ["fear, or worry", "joy"]


def test_single_labels_are_sets_of_one(tmp_path):
    rows = [{"text": f"t{i}", "labels": ("a b", "c")[i % 2]} for i in range(40)]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows))
    assert splits.label_names == ["a b", "c"]
    assert splits.train.labels.sum(axis=1).tolist() == [1] * len(splits.train)


@pytest.mark.parametrize("yes_no", [(1, 0), (True, False), ("1", "0"), (1.0, 0.0), ("True", "false")])
def test_a_column_for_each_label(tmp_path, yes_no):
    rows = [
        {"text": f"text {i}"} | {name: yes_no[name not in SETS[i % 4]] for name in reversed(NAMES)} for i in range(60)
    ]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows), label_columns=NAMES)
    assert splits.label_names == NAMES
    assert sets_of(splits) == EXPECTED


def test_parquet_keeps_the_names_of_its_class_labels_and_their_order(tmp_path):
    names = ["love", "joy", "anger", "never"]
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=names))}
    )
    rows = [row | {"labels": [names.index(label) for label in row["labels"]]} for row in rows_of()]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "d.parquet")
    splits = load(str(tmp_path / "d.parquet"))
    assert splits.label_names == names
    assert {text: sorted(found) for text, found in sets_of(splits).items()} == EXPECTED
    assert splits.notes["classes_without_rows"]["train"] == ["never"]


def test_integers_without_names_are_their_own(tmp_path):
    rows = [{"text": f"t{i}", "labels": ([10], [9, 10], [])[i % 3]} for i in range(40)]
    assert load(write_jsonl(tmp_path / "d.jsonl", rows)).label_names == ["9", "10"]


# Draws


def test_draws_keep_the_shares_of_rare_labels_and_hang_on_the_seed_alone(tmp_path):
    rows = [{"text": f"t{i}", "labels": ["common", *(["rare"] if i % 10 == 0 else [])]} for i in range(400)]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    splits, again, other = load(path), load(path), load(path, split_seed=1)
    assert splits.source.fingerprint == again.source.fingerprint != other.source.fingerprint
    assert splits.test.labels.mean(axis=0).tolist() == [1, 0.1]
    small = load(path, max_train=50, max_test=20)
    assert (small.train.labels.sum(axis=0).tolist(), small.test.labels.sum(axis=0).tolist()) == ([50, 5], [20, 2])


def serve(monkeypatch, tables, names=None):
    columns = {
        split: {"text": [row[0] for row in rows], "labels": [row[1] for row in rows]} for split, rows in tables.items()
    }
    small_tables.serve(monkeypatch, columns, None if names is None else {"labels": names})


TRAIN = [(f"train {i}", [[0], [0, 1], []][i % 3]) for i in range(40)]


def test_splits_of_the_hub_are_taken_as_they_are(monkeypatch):
    serve(monkeypatch, {"train": TRAIN, "dev": [("v", [1])], "test": [("t", [1, 0]), ("u", [])]}, ["a", "b"])
    splits = load("org/any")
    assert splits.test.labels.tolist() == [[1, 1], [0, 0]]
    assert splits.validation.labels.tolist() == [[0, 1]]


@pytest.mark.parametrize("hidden", [[("t", [-1]), ("u", [-1])], [("t", None), ("u", None)]])
def test_a_test_split_without_known_labels_is_replaced(monkeypatch, hidden):
    serve(monkeypatch, {"train": TRAIN, "test": hidden}, ["a", "b"])
    splits = load("org/any")
    assert len(splits.test) == 8
    assert splits.notes["num_dropped"] == {"test/unlabelled": 2}


# What is refused


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["a"]], r"lists of labels, .* found list in train row 60"),
        ({"a": 1}, r"lists of labels, .* found dict in train row 60"),
        ([0.25], "found float in train row 60"),
        ([3], "one kind of label, found int and str"),
    ],
)
def test_a_bad_row_is_refused(tmp_path, labels, message):
    with pytest.raises(InputError, match=message) as caught:
        load(write_jsonl(tmp_path / "d.jsonl", [*rows_of(), {"text": "bad", "labels": labels}]))
    assert "\n" not in str(caught.value)


def test_bad_texts_are_refused_or_dropped_and_counted(tmp_path):
    path = write_jsonl(
        tmp_path / "d.jsonl", [*rows_of(), {"text": " ", "labels": ["joy"]}, {"text": "t", "labels": None}]
    )
    with pytest.raises(InputError, match=r"1 that are empty .* --drop-bad-texts"):
        load(path)
    notes = load(path, drop_bad_texts=True).notes
    assert notes["num_dropped"] == {"train/blank_text": 1, "train/unlabelled": 1}


def test_a_label_that_train_lacks_is_refused_by_its_row(monkeypatch):
    serve(monkeypatch, {"train": TRAIN, "test": [("t", []), ("u", [0, 7])]})
    with pytest.raises(InputError, match=r"found 7 in column 'labels' \(test/1 is the first row\)"):
        load("org/any")


def test_one_label_only_is_refused(tmp_path):
    rows = [{"text": f"t{i}", "labels": ["a"]} for i in range(40)]
    with pytest.raises(InputError, match="two labels or more, found only a"):
        load(write_jsonl(tmp_path / "d.jsonl", rows))
    rows = [{"text": f"t{i}", "a": 0, "b": 0} for i in range(40)]
    with pytest.raises(InputError, match="texts with a label, found none"):
        load(write_jsonl(tmp_path / "e.jsonl", rows), label_columns=["a", "b"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_columns": ["joy", "hope"]}, "no column 'hope': choose --label-columns from text, joy"),
        ({"label_columns": ["joy", "joy"]}, "name each column once"),
        ({"label_columns": ["joy"], "label_column": "joy"}, "choose --label-column or --label-columns"),
        ({"label_columns": ["joy", "text"]}, "column 'text' should hold 0 or 1 in each row, found 't0' in train row 0"),
        ({"label_column": "text"}, "--text-column and --label-column should differ"),
        ({}, "no column for the label"),
    ],
)
def test_wrong_columns_are_refused(tmp_path, options, message):
    path = write_jsonl(tmp_path / "d.jsonl", [{"text": f"t{i}", "joy": i % 2} for i in range(40)])
    with pytest.raises(InputError, match=message):
        load(path, **options)


# Real data


@pytest.mark.hub
@pytest.mark.slow
def test_real_data_is_read_as_it_is(hub, tmp_path):
    splits, names, shape, empty = hub.evaluate(
        "(lambda s: [s.source.splits, s.label_names, s.test.labels.shape, int((s.train.labels.sum(1) == 0).sum())])"
        "(data.load_multilabel_classification('google-research-datasets/go_emotions'))",
        tmp_path,
    ).get()
    assert splits == {"train": 43_410, "validation": 5426, "test": 5427}
    assert (len(names), names[0], names[-1]) == (28, "admiration", "neutral")
    assert (shape, empty) == ([5427, 28], 0)
