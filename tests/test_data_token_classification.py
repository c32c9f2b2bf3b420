"""Tagged words to splits: CoNLL, CSV, JSON Lines, Parquet, the hub; what is dropped, repaired, drawn and refused."""

import csv
import itertools
import json

import datasets
import numpy as np
import pytest
import small_tables
from small_tables import write_jsonl

from smallmodels import data
from smallmodels.arrays import Ragged
from smallmodels.errors import InputError
from smallmodels.phases import Context
from smallmodels.sources import CONLL_ENDINGS

load = data.load_token_classification

NAMES = ["O", "B-place", "I-place", "B-person"]
SHAPES = (["O", "B-person"], ["O"], ["B-place", "I-place", "O"], ["O", "O"])


def sentences(count=60):
    """Words, each with its number, and tags of which each fourth sentence has the rarer ones."""
    return [([f"w{i}-{j}" for j in range(len(SHAPES[i % 4]))], SHAPES[i % 4]) for i in range(count)]


def rows_of(count=60):
    return [{"tokens": words, "ner_tags": tags} for words, tags in sentences(count)]


def write_conll(path, blocks, separator="\t"):
    """Sentences with a blank line after each."""
    lines = ["".join(f"{word}{separator}{tag}\n" for word, tag in zip(*block, strict=True)) for block in blocks]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["tokens", "ner_tags"])
        writer.writerows(rows)
    return str(path)


def pairs_of(splits):
    """(words, tags) of every row of all splits, by its text."""
    parts = (splits.train, splits.validation, splits.test)
    return {
        text: (text.split(" "), [splits.label_names[number] for number in part.labels[row]])
        for part in parts
        for row, text in enumerate(part.texts)
    }


# Formats


@pytest.mark.parametrize("ending", [*CONLL_ENDINGS, ".txt"])
@pytest.mark.parametrize("separator", ["\t", " ", "  x y "])
def test_conll_files_give_words_and_tags_back(tmp_path, ending, separator):
    splits = load(write_conll(tmp_path / f"d{ending}", sentences(), separator))
    assert pairs_of(splits) == {" ".join(words): (words, tags) for words, tags in sentences()}
    assert splits.label_names == ["O", "B-person", "B-place", "I-place"]
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (43, 5, 12)
    assert isinstance(splits.train.labels, Ragged)
    assert splits.train.labels.values.dtype == splits.train.labels.offsets.dtype == np.int64


def test_conll_comments_document_lines_and_blank_lines_are_left_out(tmp_path):
    plain = write_conll(tmp_path / "plain.conll", sentences())
    noise = [
        "# text = Vitamin B\n",
        "#\n",
        "# sent_id = 3 O\n",
        "-DOCSTART- -X- O O\n",
        "-DOCSTART-\tO\n",
        "\n",
        " \n",
    ]
    lines = (tmp_path / "plain.conll").read_text(encoding="utf-8").split("\n\n")
    content = "\n\n".join(itertools.chain(*zip(("".join(noise[i % 7 :]) for i in range(60)), lines, strict=True)))
    (tmp_path / "noisy.conll").write_text("\ufeff" + content.replace("\n", "\r\n"), encoding="utf-8")
    assert load(str(tmp_path / "noisy.conll")).source.fingerprint == load(plain).source.fingerprint


def test_conll_words_may_begin_with_a_hash_or_hold_spaces(tmp_path):
    odd = [(["#", "#tag", "-", "New York", "\xa0"], ["O", "B-person", "O", "B-place", "O"])]
    splits = load(write_conll(tmp_path / "d.conll", [*sentences(), *odd]))
    assert pairs_of(splits)["# #tag - New_York _"][1] == odd[0][1]
    assert splits.notes["num_repaired"] == {"train/repaired_words": 2}


def test_json_lines_parquet_and_conll_give_the_same(tmp_path):
    lines = load(write_jsonl(tmp_path / "d.jsonl", rows_of()))
    datasets.Dataset.from_list(rows_of()).to_parquet(tmp_path / "d.parquet")
    parquet = load(str(tmp_path / "d.parquet"))
    conll = load(write_conll(tmp_path / "d.conll", sentences()))
    assert lines.source.fingerprint == parquet.source.fingerprint == conll.source.fingerprint


@pytest.mark.parametrize("written", [json.dumps, " ".join, "  ".join])
def test_csv_gives_the_same_with_lists_in_json_or_spaces_between(tmp_path, written):
    lines = load(write_jsonl(tmp_path / "d.jsonl", rows_of()))
    cells = load(write_csv(tmp_path / "d.csv", [map(written, sentence) for sentence in sentences()]))
    assert cells.source.fingerprint == lines.source.fingerprint
    assert cells.notes["words_column_guessed"] == "tokens"


def test_csv_rows_without_words_or_tags_are_dropped_and_others_are_split_where_they_are_no_json_list(tmp_path):
    odd = [
        ("", ""),
        ("no tags", ""),
        ("2019", "O"),
        ("[see New York]", "O B-place I-place"),
        ('["New York"]', "B-place"),
    ]
    rows = [*(map(" ".join, sentence) for sentence in sentences()), *odd]
    splits = load(write_csv(tmp_path / "d.csv", rows))
    assert splits.notes["num_dropped"] == {"train/blank_text": 1, "train/unlabelled": 1}
    found = pairs_of(splits)
    assert found["2019"] == (["2019"], ["O"])
    assert found["[see New York]"] == (["[see", "New", "York]"], ["O", "B-place", "I-place"])
    assert found["New_York"] == (["New_York"], ["B-place"])


def test_strings_of_json_lines_are_read_as_those_of_csv(tmp_path):
    rows = [{"tokens": " ".join(words), "ner_tags": json.dumps(tags)} for words, tags in sentences()]
    assert pairs_of(load(write_jsonl(tmp_path / "d.jsonl", rows))).keys() == {" ".join(w) for w, _ in sentences()}


def test_parquet_keeps_the_names_of_its_tags_and_their_order(tmp_path):
    features = datasets.Features(
        {
            "words": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=NAMES)),
        }
    )
    rows = [{"words": words, "tags": [NAMES.index(tag) for tag in tags]} for words, tags in sentences()]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "d.parquet")
    splits = load(str(tmp_path / "d.parquet"))
    assert splits.label_names == NAMES
    assert pairs_of(splits) == {" ".join(words): (words, tags) for words, tags in sentences()}
    assert splits.notes["words_column_guessed"] == "words"
    assert splits.notes["tags_column_guessed"] == "tags"


# Draws


def test_draws_keep_the_shares_of_rare_tags_and_hang_on_the_seed_alone(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", rows_of(400))
    splits, again, other = load(path), load(path), load(path, split_seed=1)
    assert splits.source.fingerprint == again.source.fingerprint != other.source.fingerprint
    person = splits.label_names.index("B-person")
    shares = [np.mean([person in part.labels[i] for i in range(len(part))]) for part in (splits.train, splits.test)]
    assert shares == pytest.approx([0.25, 0.25], abs=0.01)
    assert "20% of train stand in" in splits.notes["test_split"]
    small = load(path, max_train=40, max_test=8)
    assert (len(small.train), len(small.test)) == (40, 8)
    assert sum(person in small.train.labels[i] for i in range(40)) == 10


def test_a_rare_tag_stays_in_train(tmp_path):
    rare = [{"tokens": ["only", "one"], "ner_tags": ["O", "B-rare"]}]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows_of() + rare), max_train=20)
    assert "only one" in splits.train.texts
    assert "B-rare" in splits.notes["classes_without_rows"]["test"]


def test_overlap_is_counted_and_dropped_on_request(monkeypatch):
    serve(monkeypatch, {"train": rows_of(20), "test": rows_of(4)})
    assert load("org/any").notes["overlap"] == {"train/validation": 0, "train/test": 4}
    assert len(load("org/any", drop_overlap=True).train) == 14


def test_a_run_does_not_go_on_with_other_rows(tmp_path):
    context = Context(folder=tmp_path / "data")
    path = write_jsonl(tmp_path / "d.jsonl", rows_of())
    load(path, context=context)
    rows = rows_of()
    rows[0]["ner_tags"] = ["O", "O"]
    write_jsonl(tmp_path / "d.jsonl", rows)
    with pytest.raises(InputError, match="has other rows now"):
        load(path, context=context)


# Splits of the hub


def serve(monkeypatch, tables, names=None):
    columns = {
        split: {name: [row[name] for row in rows] for name in ("tokens", "ner_tags")} for split, rows in tables.items()
    }
    small_tables.serve(monkeypatch, columns, None if names is None else {"ner_tags": names})


def test_named_tags_of_three_splits_are_read(monkeypatch):
    row = {"tokens": ["In", "Nairobi"], "ner_tags": [0, 1]}
    serve(monkeypatch, {"train": [row, row], "validation": [row], "test": [row]}, NAMES)
    splits = load("org/any")
    assert [part.labels[0].tolist() for part in (splits.train, splits.validation, splits.test)] == [[0, 1]] * 3
    assert (splits.test.texts[0], splits.languages) == ("In Nairobi", ["en"])
    assert splits.notes["classes_without_rows"]["test"] == ["I-place", "B-person"]


def test_a_test_split_without_tags_is_replaced(monkeypatch):
    rows = [{"tokens": words, "ner_tags": [NAMES.index(tag) for tag in tags]} for words, tags in sentences(40)]
    hidden = [{"tokens": ["a", "b"], "ner_tags": [-1, -1]}, {"tokens": ["c"], "ner_tags": None}]
    serve(monkeypatch, {"train": rows, "test": hidden}, NAMES)
    splits = load("org/any")
    assert len(splits.test) == 8
    assert splits.notes["num_dropped"] == {"test/unlabelled": 2}


# Bad rows


def test_empty_sentences_are_dropped_and_counted(tmp_path):
    rows = [*rows_of(), {"tokens": [], "ner_tags": []}, {"tokens": None, "ner_tags": None}]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows))
    assert splits.notes["num_dropped"] == {"train/blank_text": 2}
    assert len(pairs_of(splits)) == 60


def test_white_space_and_lone_surrogates_in_words_are_repaired_and_counted(tmp_path):
    words = ["two words", " around ", "", "a\u2028b", "\ud800"]
    rows = [*rows_of(), {"tokens": words, "ner_tags": ["O"] * 5}]
    splits = load(write_jsonl(tmp_path / "d.jsonl", rows))
    assert pairs_of(splits)["two_words around _ a_b ?"][0] == ["two_words", "around", "_", "a_b", "?"]
    assert splits.notes["num_repaired"] == {"train/repaired_words": 4, "train/repaired_surrogates": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "split train .* row 60 has 2 words and 1 tags"),
        ({"tokens": ["a"], "ner_tags": ["NOUN"]}, "'ner_tags' should hold tags .* found 'NOUN' in train row 60"),
        ({"tokens": ["a"], "ner_tags": ["person-B"]}, "found 'person-B' in train row 60"),
        ({"tokens": ["a"], "ner_tags": [3]}, "found 3 in train row 60"),
        ({"tokens": ["a"], "ner_tags": [None]}, "found None in train row 60"),
        ({"tokens": ["a"], "ner_tags": [["O"]]}, r"found \['O'\] in train row 60"),
        ({"tokens": "a b", "ner_tags": ["O", "O"]}, "list of words in each row, found str in train row 60"),
        ({"tokens": ["a"], "ner_tags": "O"}, "list of tags in each row, found str in train row 60"),
        ({"tokens": [7], "ner_tags": ["O"]}, "lists of words, found int in train row 60"),
        ({"tokens": ["x" * 1_000_000], "ner_tags": ["O"]}, "blank lines between sentences"),
    ],
)
def test_a_bad_row_is_refused_with_its_split_and_number(tmp_path, row, message):
    with pytest.raises(InputError, match=message) as caught:
        load(write_jsonl(tmp_path / "d.jsonl", [*rows_of(), row]))
    assert "\n" not in str(caught.value)


def test_an_unknown_tag_is_refused_with_its_split_and_row(monkeypatch):
    test = [{"tokens": ["a"], "ner_tags": ["O"]}, {"tokens": ["a", "b"], "ner_tags": ["O", "B-new"]}]
    serve(monkeypatch, {"train": rows_of(), "test": test})
    with pytest.raises(InputError, match=r"found B-new in column 'ner_tags' \(test/1 is the first row\)"):
        load("org/any")
    serve(monkeypatch, {"train": [{"tokens": ["a"], "ner_tags": [4]}], "test": test[:1]}, NAMES)
    with pytest.raises(InputError, match="found 4 in train row 0"):
        load("org/any")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.conll", "a\tO\nb\n", "line 2 has no tag"),
        ("d.conll", "a\tO\nb\t\n", "line 2 has no tag"),
        ("d.conll", "\n\n# nothing\n", "should have rows, found none"),
        ("d.conll", "a\tNOUN\n", "found 'NOUN' in train row 0"),
        ("d.iob", b"a\tO\n\xff\tO\n", "should be UTF-8, found byte 4"),
        ("d.txt", "A plain text.\n\nAnother.\n", "line 3 has no tag"),
        (
            "d.csv",
            "tokens,tags\na b,O O\nc d,O\n",
            "one tag for each word, row 1 has 2 words and 1 tags: mend the data",
        ),
        ("d.csv", 'tokens,tags\na,O\n"[""a"", ""b""]","[""O""]"\n', "row 1 has 2 words and 1 tags"),
        ("d.csv", 'tokens,tags\n"[""a"", 7]","[""O"", ""O""]"\n', "lists of words, found int in train row 0"),
        ("d.csv", "tokens,tags\n\"['a', 'b']\",\"['O', 'O']\"\n", r"""found "\['O'," in train row 0"""),
    ],
)
def test_files_without_tagged_words_are_refused_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        load(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_conll_file_that_does_not_exist_is_no_hub_id():
    with pytest.raises(InputError, match="should be a data file, found no such file"):
        load("data/absent.conll")


def test_columns_are_asked_for_by_their_flags(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"form": words, "entities": tags} for words, tags in sentences()])
    with pytest.raises(InputError, match="no column for the words: choose --words-column from form, entities"):
        load(path)
    with pytest.raises(InputError, match="no column 'pos': choose --tags-column from form, entities"):
        load(path, words_column="form", tags_column="pos")
    with pytest.raises(InputError, match="--words-column and --tags-column should differ"):
        load(path, words_column="form", tags_column="form")
    assert len(load(path, words_column="form", tags_column="entities").train) == 43


def test_only_o_is_refused(tmp_path):
    rows = [{"tokens": [f"w{i}"], "ner_tags": ["O"]} for i in range(40)]
    with pytest.raises(InputError, match="train should have a tag besides O"):
        load(write_jsonl(tmp_path / "d.jsonl", rows))


# Real data


@pytest.mark.hub
@pytest.mark.slow
def test_real_data_sets_are_read_as_they_are(hub, tmp_path):
    found = hub.evaluate(
        "[(s.source.splits, s.label_names, s.notes.get('num_dropped'), len(s.train.labels.values))"
        " for s in map(data.load_token_classification,"
        " ['ghadeermobasher/BC5CDR-Chemical-Disease', 'leondz/wnut_17'])]",
        tmp_path,
    ).get()
    diseases, emerging = found
    assert diseases[0] == {"train": 4560, "validation": 4581, "test": 4797}
    assert diseases[1] == ["O", "B-Chemical", "I-Chemical", "B-Disease", "I-Disease"]
    assert emerging[0] == {"train": 3394, "validation": 1009, "test": 1287}
    assert len(emerging[1]) == 13
    assert emerging[3] == 62_730
