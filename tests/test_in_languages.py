"""One data set in many languages: what is tested in one is trained on in none."""

import csv

import numpy as np
import pytest
import small_data

from smallmodels import data
from smallmodels.data.rows import Rows, SameRows
from smallmodels.data.splits import Split
from smallmodels.errors import InputError

REPEATED = range(0, 120, 6)
"""Rows that are the same text in Swahili, all of one class."""


def files(folder, *, more=0):
    """120 texts in English and Swahili, and further ones in Swahili alone."""
    own = small_data.texts(120 + more)
    for language in ("en", "sw"):
        rows = [[f"{language} {text}", small_data.LABELS[i % 3]] for i, text in enumerate(own)]
        if language == "en":
            rows = rows[:120]
        else:
            for i in REPEATED:
                rows[i][0] = rows[0][0]
        with (folder / f"{language}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["text", "label"], *rows])
    return str(folder / "{language}.csv")


def numbers(split):
    """By language, the numbers of its rows."""
    parts = data.by_language(split)
    return {language: {int(row.rpartition("/")[2]) for row in part.ids} for language, part in parts.items()}


def test_load_in_languages_tests_on_the_same_rows_in_all_where_one_repeats_itself(tmp_path):
    splits = data.load_in_languages(files(tmp_path), ("en", "sw"))
    for split, size in ((splits.train, 86), (splits.validation, 10), (splits.test, 24)):
        found = numbers(split)
        assert found["en"] == found["sw"]
        assert len(found["en"]) == size
    repeated = [text for text in splits.test.texts if text in set(splits.train.texts)]
    assert repeated
    assert splits.notes["overlap"]["train/test"] == sum(text in repeated for text in splits.train.texts)


def test_load_in_languages_trains_on_rows_that_the_first_language_lacks(tmp_path):
    splits = data.load_in_languages(files(tmp_path, more=30), ("en", "sw"))
    train, test = numbers(splits.train), numbers(splits.test)
    assert test["en"] == test["sw"]
    assert train["sw"] - train["en"] == set(range(120, 150))


def test_same_rows_refuses_a_language_without_any_of_them():
    split = Split("train", [f"train/{i}" for i in range(40)], small_data.texts(40))
    rows = Rows.of(split, np.arange(40, dtype=np.int32) % 2, ["a", "b"], {})
    draw = SameRows()
    rest, held_back = draw(rows, "test", 0.2, 0, "sw.csv")
    assert len(held_back.split) == 8
    with pytest.raises(InputError, match="some of the 8 rows that are held back for test in the first language, found"):
        draw(rest, "test", 0.2, 0, "sw.csv")
