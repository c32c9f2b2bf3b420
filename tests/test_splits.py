"""Rows, their tokens and the teacher's rows, whatever is taken and in which order."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from small_data import retrieval_split, split, texts

from smallmodels import records
from smallmodels.data.splits import Split, Splits, tokenize
from smallmodels.errors import InputError


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_folder)


def rows_of(tokens):
    ends = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    return [tokens.ids[begin:end].tolist() for begin, end in ends]


# Tokens


def test_tokenize_gives_what_the_tokenizer_gives_for_each_text_alone(tokenizer):
    rows = texts(10)
    tokens = tokenize(rows, tokenizer, max_length=64)
    assert rows_of(tokens) == [tokenizer(text)["input_ids"] for text in rows]
    assert tokens.lengths.tolist() == [len(row) for row in rows_of(tokens)]
    assert (tokens.pad_id, tokens.max_length) == (tokenizer.pad_token_id, 64)


def test_tokenize_is_the_same_in_pieces(tokenizer, monkeypatch):
    rows = texts(10)
    whole = tokenize(rows, tokenizer, max_length=16)
    monkeypatch.setattr("smallmodels.data.splits._ROWS_PER_CALL", 3)
    pieces = tokenize(rows, tokenizer, max_length=16)
    assert rows_of(pieces) == rows_of(whole)


def test_tokenize_cuts_long_texts_and_keeps_the_last_special_token(tokenizer):
    tokens = tokenize(["card", "card " * 6, "card " * 7, "card " * 5000], tokenizer, max_length=8)
    assert tokens.lengths.tolist() == [3, 8, 8, 8]
    assert rows_of(tokens)[2][-1] == tokenizer.sep_token_id


def test_d4_tokenize_takes_lone_surrogates_and_nul_bytes(tokenizer):
    tokens = tokenize(["card \ud800 bank", "card \0 bank", " ", ""], tokenizer, max_length=16)
    assert tokens.lengths.min() >= 2
    assert len(tokens.lengths) == 4


def test_tokens_for_are_the_splits_own_unless_another_tokenizer_made_them(tokenizer):
    from transformers import AutoTokenizer

    rows = split(tokenizer, 6, max_length=10)
    assert rows.tokens_for(tokenizer, max_length=32) is rows.tokens
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    assert rows.tokens_for(other, max_length=32) is rows.tokens  # it makes the same
    other.add_tokens(["card works"])
    tokens = rows.tokens_for(other, max_length=32)
    assert rows_of(tokens) == [other(text)["input_ids"] for text in rows.texts]
    assert tokens.max_length == 32
    with pytest.raises(InputError, match="should be tokenised"):
        dataclasses.replace(rows, tokens=None).tokens_for(tokenizer, max_length=32)


def test_tokenize_of_nothing_is_empty(tokenizer):
    tokens = tokenize([], tokenizer, max_length=16)
    assert (len(tokens.lengths), len(tokens.ids)) == (0, 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells memory of files apart")
def test_tokenize_takes_no_more_memory_for_more_texts(tiny_model_folder, tmp_path):
    code = """
        import sys
        from pathlib import Path
        from transformers import AutoTokenizer
        from smallmodels import arrays, memory
        from smallmodels.data.splits import tokenize

        class Rows(list):  # texts that take no memory themselves
            def __init__(self, count):
                self.count = count
            def __len__(self):
                return self.count
            def __getitem__(self, part):
                return ["open the file and return its lines " * 9 for _ in range(*part.indices(self.count))]

        def memory_mb():
            memory.give_back()  # what the C library keeps for later differs from run to run
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1.024e-3

        arrays.LARGE_BYTES = 1 << 16
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        for _ in range(2):  # the first call loads what all others use
            few = tokenize(Rows(2_000), tokenizer, max_length=64)
        before_mb = memory_mb()
        many = tokenize(Rows(40_000), tokenizer, max_length=64)
        print(len(many.lengths), many.ids.nbytes / 1e6, memory_mb() - before_mb)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tiny_model_folder)]
    environment = os.environ | {"SMALLMODELS_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=True)
    count, size_mb, grown_mb = map(float, done.stdout.split())
    assert (count, size_mb > 10) == (40_000, True)
    assert grown_mb < 4
    assert list(tmp_path.iterdir()) == []


def test_tokens_take_follows_the_order_that_is_asked_for(tokenizer):
    tokens = tokenize(texts(5), tokenizer, max_length=16)
    rows = rows_of(tokens)
    assert rows_of(tokens.take(np.array([3, 0, 3]))) == [rows[3], rows[0], rows[3]]
    assert rows_of(tokens.take(np.zeros(0, dtype=np.int64))) == []


# Splits


def test_split_take_keeps_every_column_aligned(tokenizer):
    whole = dataclasses.replace(split(tokenizer, 6), teacher=np.arange(12, dtype=np.float32).reshape(6, 2))
    part = whole.take([4, 1])
    assert part.ids == ["train/4", "train/1"]
    assert part.texts == [whole.texts[4], whole.texts[1]]
    assert part.labels.tolist() == [1, 1]
    assert part.teacher.tolist() == [[8, 9], [2, 3]]
    assert rows_of(part.tokens) == [rows_of(whole.tokens)[4], rows_of(whole.tokens)[1]]


def test_split_join_puts_every_column_one_after_the_other(tokenizer):
    whole = dataclasses.replace(
        split(tokenizer, 6), teacher=np.arange(12, dtype=np.float32).reshape(6, 2), completions=list("abcdef")
    )
    joined = whole.take([4, 1]).join(whole.take([0]))
    again = whole.take([4, 1, 0])
    assert (joined.ids, joined.texts, joined.completions) == (again.ids, again.texts, again.completions)
    assert joined.labels.tolist() == again.labels.tolist()
    assert joined.teacher.tolist() == again.teacher.tolist()
    assert joined.tokens.fingerprint() == again.tokens.fingerprint() != whole.take([1, 4, 0]).tokens.fingerprint()


def test_split_join_refuses_a_column_that_one_part_lacks(tokenizer):
    whole = split(tokenizer, 6)
    with pytest.raises(AssertionError, match="one part has what the other lacks"):
        whole.join(dataclasses.replace(whole, labels=None))


def test_fingerprint_of_tokens_tells_where_a_text_begins_and_what_is_a_target(tokenizer):
    tokens = tokenize(["can you help", "read a file"], tokenizer, max_length=16)
    targets = np.ones(len(tokens.ids), dtype=np.bool_)
    changed = [
        tokens,
        dataclasses.replace(tokens, offsets=np.array([0, 1, len(tokens.ids)])),
        dataclasses.replace(tokens, ids=tokens.ids[::-1].copy()),
        dataclasses.replace(tokens, targets=targets),
        dataclasses.replace(tokens, targets=~targets),
    ]
    assert len({one.fingerprint() for one in changed}) == 5


def test_split_refuses_columns_of_different_lengths():
    with pytest.raises(AssertionError):
        Split("train", ["a"], ["x", "y"])
    with pytest.raises(AssertionError):
        Split("train", ["a"], ["x"], np.array([0, 1]))


def test_a_split_that_is_not_tokenised_says_how(tokenizer):
    with pytest.raises(InputError, match=r"split train should be tokenised: call split\.tokenize"):
        Split("train", ["a"], ["x"]).require_tokens()


def test_with_signals_asks_for_rows_of_this_split(tokenizer):
    class Rows:
        def rows_for(self, split):
            return np.array([[len(text)] for text in split.texts], dtype=np.float32)

    part = split(tokenizer, 6).take([5, 2])
    assert part.with_signals(Rows()).teacher.tolist() == [[len(part.texts[0])], [len(part.texts[1])]]
    assert part.teacher is None


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ({"ids": ["x", "y"]}, True),
        ({"name": "test"}, True),
        ({"texts": ["a", "c"]}, False),
        ({"texts": ["b", "a"]}, False),
        ({"labels": np.array([0, 0])}, False),
        ({"labels": None}, False),
    ],
)
def test_fingerprint_is_of_texts_and_labels_in_order(changed, is_same):
    rows = Split("train", ["1", "2"], ["a", "b"], np.array([0, 1]))
    assert (dataclasses.replace(rows, **changed).fingerprint() == rows.fingerprint()) is is_same


def test_fingerprint_tells_where_a_text_ends():
    assert Split("s", ["1", "2"], ["ab", "c"]).fingerprint() != Split("s", ["1", "2"], ["a", "bc"]).fingerprint()
    assert Split("s", ["1"], ["\ud800"]).fingerprint() != Split("s", ["1"], ["?"]).fingerprint()


def test_retrieval_fingerprint_is_of_both_sides_and_of_what_belongs_to_what(tokenizer):
    rows = retrieval_split(tokenizer)
    swapped = dataclasses.replace(rows, relevant=rows.relevant[::-1].copy())
    fewer = dataclasses.replace(rows, documents=rows.documents.take(range(7)))
    assert len({part.fingerprint() for part in (rows, swapped, fewer)}) == 3
    assert dataclasses.replace(rows, name="other").fingerprint() == rows.fingerprint()


def test_splits_tokenize_tokenises_all_three(tokenizer):
    source = records.Source(
        role="dataset",
        kind="dataset",
        name="x",
        revision=None,
        sha256={},
        license=None,
        license_file_seen=False,
        duties=[],
        splits={},
        fingerprint=None,
        notes={},
    )
    plain = [Split(name, [name], ["card"], np.array([0])) for name in ("train", "validation", "test")]
    done = Splits(*plain, label_names=["a"], source=source).tokenize(tokenizer, max_length=8)
    assert [part.name for part in (done.train, done.validation, done.test)] == ["train", "validation", "test"]
    assert all(
        rows_of(part.tokens)[0] == tokenizer("card")["input_ids"] for part in (done.train, done.validation, done.test)
    )
