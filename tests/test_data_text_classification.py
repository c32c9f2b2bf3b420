"""Local files to splits: columns, labels, what is dropped, drawn and refused. Hub data sets: test_hub_faults.py."""

import dataclasses
import json
import re

import datasets
import numpy as np
import pytest
import sample_records
import small_tables
from small_tables import write_jsonl

from smallmodels import data, report
from smallmodels.data import reading
from smallmodels.errors import InputError
from smallmodels.phases import Context
from smallmodels.runs import Run

load = data.load_text_classification


def write_csv(path, rows, header="text,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def rows_of(num_rows=60, labels=("yes", "no", "maybe")):
    return [{"text": f"text number {i}", "label": labels[i % len(labels)]} for i in range(num_rows)]


@pytest.fixture
def csv_file(tmp_path):
    return write_csv(tmp_path / "tickets.csv", [f"{row['text']},{row['label']}" for row in rows_of()])


# Splits


def test_csv_becomes_three_stratified_splits_without_overlap(csv_file):
    splits = load(csv_file)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (43, 5, 12)
    assert splits.label_names == ["maybe", "no", "yes"]
    assert np.bincount(splits.test.labels).tolist() == [4, 4, 4]
    ids = [set(split.ids) for split in (splits.train, splits.validation, splits.test)]
    assert len(set.union(*ids)) == 60
    assert "20% of train stand in" in splits.notes["test_split"]
    assert "10% of train stand in" in splits.notes["validation_split"]
    for split in (splits.train, splits.validation, splits.test):
        for text, row, label in zip(split.texts, split.ids, split.labels, strict=True):
            number = int(row.removeprefix("train/"))
            assert (text, splits.label_names[label]) == (f"text number {number}", ("yes", "no", "maybe")[number % 3])


def test_source_of_a_local_file_has_its_hash_and_no_folder(csv_file, tmp_path):
    source = load(csv_file).source
    assert (source.name, source.revision, source.license) == ("tickets.csv", None, "user-provided, not checked")
    assert source.splits == {"train": 43, "validation": 5, "test": 12}
    assert len(source.sha256["tickets.csv"]) == len(source.fingerprint) == 64
    assert str(tmp_path) not in json.dumps(dataclasses.asdict(source))


def test_split_seed_decides_the_rows_and_nothing_else_does(csv_file):
    first, again, other = load(csv_file), load(csv_file), load(csv_file, split_seed=1)
    assert first.source.fingerprint == again.source.fingerprint
    assert first.test.ids == again.test.ids != other.test.ids


def test_limits_keep_every_class_and_its_share(tmp_path):
    rows = rows_of(400, labels=("common", "common", "common", "rare"))
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows), max_train=40, max_test=20)
    assert np.bincount(splits.train.labels).tolist() == [30, 10]
    assert np.bincount(splits.test.labels).tolist() == [15, 5]
    with pytest.raises(InputError, match="max_train must be at least 2, got 0"):
        load(write_jsonl(tmp_path / "d.jsonl", rows), max_train=0)


def test_a_class_never_gives_its_last_row_to_a_draw(tmp_path):
    rows = [*rows_of(50, labels=("a", "b")), {"text": "the only one", "label": "single"}]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows))
    assert "the only one" in splits.train.texts


# Formats


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_takes_usual_separators_quotes_and_a_byte_order_mark(tmp_path, delimiter):
    lines = [f'"line one{delimiter} ""quoted"" {i}\nline two\u2028three"{delimiter}{i % 2}' for i in range(30)]
    (tmp_path / "d.csv").write_text("\n".join([f"text{delimiter}label", *lines]), encoding="utf-8-sig")
    splits = load(str(tmp_path / "d.csv"))
    assert splits.train.texts[0].startswith(f'line one{delimiter} "quoted" ')
    assert splits.train.texts[0].endswith("\nline two\u2028three")
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 30


def test_csv_keeps_labels_and_texts_as_they_are_written(tmp_path):
    splits = load(
        write_csv(
            tmp_path / "d.csv",
            [f"NA,{label}" if i == 0 else f"t{i},{label}" for i, label in enumerate(["01", "1"] * 20)],
        )
    )
    assert splits.label_names == ["01", "1"]
    assert "NA" in [*splits.train.texts, *splits.validation.texts, *splits.test.texts]


def test_json_lines_and_an_array_give_the_same(tmp_path):
    lines = load(write_jsonl(tmp_path / "a.jsonl", rows_of()))
    (tmp_path / "b.json").write_text(json.dumps(rows_of(), indent=1))
    assert load(str(tmp_path / "b.json")).source.fingerprint == lines.source.fingerprint


def test_parquet_keeps_the_names_of_its_class_labels(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(40)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "d.parquet")
    splits = load(str(tmp_path / "d.parquet"))
    assert splits.label_names == ["z", "a"]
    assert all(int(text[1:]) % 2 == label for text, label in zip(splits.train.texts, splits.train.labels, strict=True))


# Labels


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ((10, 9), ["9", "10"]),
        ((True, False), ["False", "True"]),
        ((1.0, 0.0), ["0", "1"]),
        ((-1, 0, 1), ["-1", "0", "1"]),
    ],
)
def test_labels_without_names_get_their_own_in_order(tmp_path, labels, names):
    assert load(write_jsonl(tmp_path / "d.jsonl", rows_of(labels=labels))).label_names == names


def test_integer_labels_take_names_from_the_column_beside_them(tmp_path):
    rows = [row | {"label_text": ("bad", "good")[row["label"]]} for row in rows_of(labels=(0, 1))]
    assert load(write_jsonl(tmp_path / "d.jsonl", rows)).label_names == ["bad", "good"]
    rows[0]["label_text"] = "good"  # 0 has two names now
    assert load(write_jsonl(tmp_path / "e.jsonl", rows)).label_names == ["0", "1"]


# Columns


def test_columns_are_guessed_from_usual_names_and_said_so(tmp_path):
    rows = [{"id": i, "sentence": f"s{i}", "category": "ab"[i % 2]} for i in range(30)]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows))
    assert splits.notes["text_column_guessed"] == "sentence"
    assert splits.notes["label_column_guessed"] == "category"
    assert "text_column_guessed" not in load(str(tmp_path / "d.jsonl"), text_column="sentence").notes


def test_a_missing_column_names_those_that_exist(csv_file, tmp_path):
    with pytest.raises(InputError, match=r"tickets\.csv has no column 'body': choose --text-column from text, label"):
        load(csv_file, text_column="body")
    with pytest.raises(InputError, match="no column for the label: choose --label-column from text, mood"):
        load(write_csv(tmp_path / "d.csv", ["a,b"], header="text,mood"))
    with pytest.raises(InputError, match="both are 'text'"):
        load(csv_file, label_column="text")


def test_a_missing_split_names_those_that_exist(csv_file):
    with pytest.raises(InputError, match=r"no split 'held-out': choose --test-split from train"):
        load(csv_file, test_split="held-out")
    with pytest.raises(InputError, match="different splits, got train, train"):
        load(csv_file, test_split="train")


def test_split_that_is_tested_on_is_not_chosen_on_too():
    tables = dict.fromkeys(("train", "validation"))  # as of GLUE, whose test has no labels
    assert reading.pick_splits(tables, "d", "train", None, "validation") == {"train": "train", "test": "validation"}


# Bad rows


def test_d4_texts_of_every_kind_are_kept_dropped_or_repaired_and_counted(tmp_path):
    odd = [None, "", " \n\t", "x" * 1_000_000, "lone \ud800 surrogate", "nul \0 byte"]
    rows = rows_of() + [{"text": text, "label": "yes"} for text in odd] + [{"text": "no label", "label": None}]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows), drop_bad_texts=True)
    texts = [*splits.train.texts, *splits.validation.texts, *splits.test.texts]
    assert splits.notes["num_dropped"] == {"train/blank_text": 3, "train/megabyte_text": 1, "train/unlabelled": 1}
    assert splits.notes["num_repaired"] == {"train/repaired_surrogates": 1}
    assert len(texts) == 62
    assert {"lone ? surrogate", "nul \0 byte"} <= set(texts)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "1 that are empty"),
        ("", "1 that are empty"),
        (" \n", "1 that are empty"),
        ("x" * 1_000_000, "1,000,000 ch"),
    ],
)
def test_d4_a_bad_text_is_refused_with_its_row_and_the_way_out(tmp_path, text, found):
    rows = [*rows_of(), {"text": text, "label": "yes"}]
    with pytest.raises(InputError) as refused:
        load(write_jsonl(tmp_path / "d.jsonl", rows))
    message = str(refused.value)
    assert found in message
    assert f"(row {len(rows)} is the first)" in message
    assert "--drop-bad-texts" in message


def test_d4_texts_of_every_kind_can_be_tokenised(tmp_path, tiny_model_folder):
    from transformers import AutoTokenizer

    rows = rows_of() + [{"text": text, "label": "yes"} for text in ("x y " * 200_000, "lone \ud800 surrogate", "\0")]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows))
    tokenised = splits.tokenize(AutoTokenizer.from_pretrained(tiny_model_folder), max_length=16)
    for split in (tokenised.train, tokenised.validation, tokenised.test):
        assert split.tokens.lengths.max() <= 16
        assert split.tokens.lengths.min() >= 2


def test_d5_overlap_is_counted_and_dropped_on_request(tmp_path, monkeypatch):
    tables = {
        "train": [("same", 0), ("same ", 1), ("other", 1), ("more", 0), ("left", 1), ("right", 0)] * 2,
        "dev": [("held", 0), ("out", 1)],
        "test": [("same", 0), ("new", 1)],
    }
    serve_tables(monkeypatch, tables)
    splits = load("org/any")
    assert splits.notes["overlap"] == {"train/validation": 0, "train/test": 4}
    assert splits.notes["num_duplicates_in_train"] == 7
    assert (len(splits.train), splits.validation.texts) == (12, ["held", "out"])
    dropped = load("org/any", drop_overlap=True)
    assert (len(dropped.train), dropped.notes["num_overlap_dropped_from_train"]) == (8, 4)


def test_d5_a_text_that_occurs_twice_is_not_drawn_for_test(tmp_path):
    rows = rows_of(40, labels=("a", "b")) + rows_of(20, labels=("a", "b"))
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows))
    assert splits.notes["overlap"] == {"train/validation": 0, "train/test": 0}
    assert splits.notes["num_duplicates_in_train"] == 20


# What cannot be trained on


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "", "should begin with a line of column names"),
        ("d.csv", "text,label\n", "should have rows, found none"),
        ("d.jsonl", "\n\n", "should have rows, found none"),
        ("d.csv", "text,label\n,a\n ,b\n", "hold a text below a million characters, found 2 that are empty"),
        ("d.csv", "text,label\na,b\na,b,c\n", "2 values per row, found 3 in row 3"),
        ("d.csv", "text,text\na,b\n", "'text' twice"),
        ("d.csv", 'text,label\n"a,b\n', "should be CSV, but"),
        ("d.jsonl", '{"text": "a"}\n{"text"', "line 2 is not JSON"),
        ("d.jsonl", "[1, 2]\n", "should have JSON objects, found int"),
        ("d.parquet", "PAR0", "should be a Parquet file"),
        ("d.xlsx", "PK", r"should end in \.csv"),
        ("d.csv", b"text,label\n\xff,a\n", "should be UTF-8, found byte 11"),
    ],
)
def test_d1_files_without_usable_rows_are_refused_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        load(str(tmp_path / name))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_data_file_that_does_not_exist_is_no_hub_id(tmp_path):
    with pytest.raises(InputError, match="should be a data file, found no such file"):
        load("data/absent.csv")


def test_d2_one_class_only_is_refused(tmp_path):
    with pytest.raises(InputError, match="two classes or more, found only yes"):
        load(write_jsonl(tmp_path / "d.jsonl", rows_of(labels=("yes",))))


def test_too_few_rows_to_hold_some_back_are_refused(tmp_path):
    with pytest.raises(InputError, match="hold some back for test, found 2"):
        load(write_csv(tmp_path / "d.csv", ["a,x", "b,y"]))


def test_several_labels_per_row_and_fractions_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"one label per row, .* found list in train row 0"):
        load(write_jsonl(tmp_path / "d.jsonl", rows_of(labels=([1, 2],))))
    with pytest.raises(InputError, match=r"one label per row, .* found float"):
        load(write_jsonl(tmp_path / "e.jsonl", rows_of(labels=(0.25, 0.5))))
    with pytest.raises(InputError, match="one kind of label, found int and str"):
        load(write_jsonl(tmp_path / "f.jsonl", rows_of(labels=(1, "one"))))


# Splits that only a hub data set has: the reader of files is given tables


def serve_tables(monkeypatch, tables, names=None):
    """Let `load` find these rows of (text, label) per split, as if read from a hub data set."""
    columns = {
        split: {"text": [row[0] for row in rows], "label": [row[1] for row in rows]} for split, rows in tables.items()
    }
    small_tables.serve(monkeypatch, columns, None if names is None else {"label": names})


TRAIN = [(f"train {i}", i % 2) for i in range(40)]


def test_d2_a_label_in_test_that_train_lacks_is_refused(monkeypatch):
    serve_tables(monkeypatch, {"train": TRAIN, "test": [("t", 0), ("u", 7)]})
    with pytest.raises(InputError, match="test of org/any should only have labels that train has, found 7"):
        load("org/any")


def test_d2_a_named_class_that_train_lacks_is_refused_by_name(monkeypatch):
    serve_tables(monkeypatch, {"train": TRAIN, "test": [("t", 2)]}, names=["a", "b", "c"])
    with pytest.raises(InputError, match="test should only have labels that train has, found c"):
        load("org/any")


def test_d3_a_label_out_of_range_is_refused(monkeypatch):
    serve_tables(monkeypatch, {"train": [*TRAIN, ("x", 2)]}, names=["a", "b"])
    with pytest.raises(InputError, match="found 2 in column 'label'"):
        load("org/any")


def test_d3_another_order_of_labels_is_another_data_set(monkeypatch):
    serve_tables(monkeypatch, {"train": TRAIN}, names=["a", "b"])
    first = load("org/any")
    serve_tables(monkeypatch, {"train": TRAIN}, names=["b", "a"])
    other = load("org/any")
    assert first.notes["label_map_sha256"] != other.notes["label_map_sha256"]
    assert first.source.fingerprint != other.source.fingerprint


def test_d3_a_run_does_not_go_on_with_labels_in_another_order(monkeypatch, tmp_path):
    context = Context(folder=tmp_path / "data")
    serve_tables(monkeypatch, {"train": TRAIN}, names=["a", "b"])
    first = load("org/any", context=context)
    assert load("org/any", context=context).source.fingerprint == first.source.fingerprint
    serve_tables(monkeypatch, {"train": TRAIN}, names=["b", "a"])
    with pytest.raises(InputError, match="but has other labels, which were a, b and are b, a, now: put") as caught:
        load("org/any", context=context)
    assert caught.value.exit_code == 2
    assert load("org/any", context=Context(folder=tmp_path / "other")).label_names == ["b", "a"]


def test_c7_a_run_does_not_go_on_with_other_rows(tmp_path):
    context = Context(folder=tmp_path / "data")
    path = write_jsonl(tmp_path / "d.jsonl", rows_of())
    load(path, context=context)
    write_jsonl(tmp_path / "d.jsonl", rows_of(61))
    with pytest.raises(InputError, match=r"d\.jsonl should be as it was when this run began, but has other rows now"):
        load(path, context=context)


@pytest.mark.parametrize("names", [None, ["a", "b"]])
def test_d3_a_test_split_without_labels_is_replaced_and_said_so(monkeypatch, names):
    serve_tables(monkeypatch, {"train": TRAIN, "test": [("t", -1), ("u", -1)]}, names=names)
    splits = load("org/any")
    assert len(splits.test) == 8
    assert all(row.startswith("train/") for row in splits.test.ids)
    assert "name another with --test-split" in splits.notes["test_split"]
    assert splits.notes["num_dropped"] == {"test/unlabelled": 2}


def test_d1_a_named_split_without_labels_is_refused_and_a_usual_one_replaced(monkeypatch):
    tables = {"train": TRAIN, "held": [("v", -1)], "test": [("t", 1), ("u", 0)]}
    serve_tables(monkeypatch, tables)
    with pytest.raises(InputError, match="split 'held' has no labelled rows: choose another --validation-split"):
        load("org/any", validation_split="held")
    with pytest.raises(InputError, match="split 'held' has no labelled rows: choose another --test-split"):
        load("org/any", test_split="held")
    serve_tables(monkeypatch, {"train": TRAIN, "dev": [("v", -1)], "test": [("t", 1), ("u", 0)]})
    splits = load("org/any")
    assert splits.notes["validation_split"].startswith("no row of dev has a label; 10% of train stand in")
    assert len(splits.validation) == 4


def test_d1_nothing_left_to_train_on_is_refused(monkeypatch):
    serve_tables(monkeypatch, {"train": [("same", 0), ("too", 1)], "dev": [("same", 0)], "test": [("too", 1)]})
    with pytest.raises(InputError, match="two classes or more, found only none"):
        load("org/any", drop_overlap=True)


def test_d2_classes_that_a_split_has_no_row_of_are_named(monkeypatch):
    serve_tables(monkeypatch, {"train": TRAIN, "dev": [("v", 1), ("w", 0)], "test": [("t", 0)]}, names=["a", "b", "c"])
    assert load("org/any").notes["classes_without_rows"] == {"train": ["c"], "validation": ["c"], "test": ["b", "c"]}
    serve_tables(monkeypatch, {"train": TRAIN, "dev": [("v", 1), ("w", 0)], "test": [("t", 0), ("u", 1)]})
    assert "classes_without_rows" not in load("org/any").notes


def test_d2_d4_d5_what_was_counted_stands_in_the_report(tmp_path):
    odd = [{"text": text, "label": "yes"} for text in (None, " ", "lone \ud800 surrogate")]
    rows = [*rows_of(60), *odd, {"text": "only", "label": "single"}, *rows_of(20)]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows), drop_bad_texts=True)
    record = sample_records.classifier_record()
    page = report.run_page(dataclasses.replace(record, sources=[splits.source]))
    found = re.sub(r"<[^>]+>", " ", page)
    for said in (
        "dropped train/blank_text 2",
        "repaired train/repaired_surrogates 1",
        "overlap train/validation 0, train/test 0",
        "duplicates in train 20",
        "classes without rows test single, validation single",
    ):
        assert said in found
    assert splits.notes["overlap"] == {"train/validation": 0, "train/test": 0}


def test_validation_keeps_its_own_split_and_the_numbering_of_train(monkeypatch):
    serve_tables(monkeypatch, {"train": TRAIN, "validation": [("v", 1)], "test": [("t", 1), ("u", 0)]})
    splits = load("org/any")
    assert (splits.validation.texts, splits.validation.labels.tolist()) == (["v"], [1])
    assert splits.test.labels.tolist() == [1, 0]
    assert "validation_split" not in splits.notes


@pytest.mark.parametrize(
    ("declared", "config", "expected"),
    [
        (["en"], None, ["en"]),
        (["am", "sw"], "swh_Latn", ["sw"]),
        (["de", "en"], "de", ["de"]),
        (["de", "en"], "all", []),
        (["de", "en"], None, ["de", "en"]),
        (["en"], "plus", ["en"]),
    ],
)
def test_languages_are_those_of_the_configuration(declared, config, expected):
    from smallmodels.data.languages import languages_of

    assert languages_of(declared, config) == expected


# A phase that was killed, or whose kept value is damaged


@pytest.fixture
def parquet_files(tmp_path):
    """A data set of the hub as it lies on disk: two splits in Parquet files."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, count in (("train", 60), ("test", 12)):
        rows = [{"text": f"{name} {i}", "label": i % 3} for i in range(count)]
        datasets.Dataset.from_list(rows).to_parquet(folder / f"{name}.parquet")
    return folder


STEPS = ["_read_file", "pick_column", "note_dropped", "fill_in", "note_overlap", "finish"]


@pytest.mark.parametrize("killed_in", STEPS)
@pytest.mark.faults
def test_d6_r4_killed_while_data_is_prepared_gives_the_same_data(fork_server, csv_file, tmp_path, killed_in):
    whole = fork_server.start("load_data", run=tmp_path / "whole", dataset=csv_file).result()
    run = tmp_path / "run"
    assert fork_server.start("load_data", run=run, dataset=csv_file, killed_in=killed_in).wait() == -9
    assert not (run / "phases" / "data" / "result.json").exists()
    assert fork_server.start("load_data", run=run, dataset=csv_file, resume=True).result() == whole


def test_d6_killed_while_a_data_set_is_unpacked_leaves_nothing_outside(fork_server, parquet_files, tmp_path):
    arguments = {"dataset": "org/any", "hub_files": parquet_files}
    whole = fork_server.start("load_data", run=tmp_path / "whole", **arguments).result()
    run, outside = tmp_path / "run", tmp_path / "temporary"
    outside.mkdir()
    arguments |= {"run": run, "temporary": outside}
    assert fork_server.start("load_data", **arguments, killed_in="table_of").wait() == -9
    assert list((run / "phases" / "data" / "scratch").iterdir())  # so the kill came while it was in use
    assert fork_server.start("load_data", **arguments, resume=True).result() == whole
    assert not (run / "phases" / "data" / "scratch").exists()
    assert {path.name for path in outside.iterdir()} == {"smallmodels-energy.lock"}  # of the machine, kept on purpose


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
@pytest.mark.parametrize("name", ["value/array-2.npy", "value/manifest.json", "result.json"])
def test_d8_kept_data_that_is_damaged_is_made_again(csv_file, tmp_path, damage, name):
    folder = tmp_path / "run"
    with Run(folder, meter="none") as run:
        run.begin("test", {"seed": 0})
        whole = run.phase("data", load, csv_file)
    path = folder / "phases" / "data" / name
    content = path.read_bytes()
    path.write_bytes(content[:-20] if damage == "cut" else content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    if damage == "missing":
        path.unlink()
    with Run(folder, meter="none", resume=True) as run:
        run.begin("test", {"seed": 0})
        again = run.phase("data", load, csv_file)
        kinds = [event.kind for event in run._log.events]
    assert again.source.fingerprint == whole.source.fingerprint
    assert kinds == ([] if (damage, name) == ("missing", "result.json") else ["phase damaged"])
