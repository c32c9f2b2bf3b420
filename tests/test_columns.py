"""Texts on disk and ids that are made when asked for behave as lists do."""

import json

import numpy as np
import pytest

from smallmodels import arrays, values
from smallmodels.data import columns
from smallmodels.data.columns import RowIds, Texts
from smallmodels.data.splits import Split
from smallmodels.data.tables import read_table
from smallmodels.errors import InputError

PLAIN = ["card", "", "Größe ☃", "a\nb", "\ud800 alone", "nul \0", "last"]
IDS = ["train/7", "train/0", "train/19"]


@pytest.fixture(params=[0, 1 << 22], ids=["in files", "in memory"])
def limit(request, tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(arrays, "LARGE_BYTES", request.param)
    monkeypatch.setattr(columns, "_TEXTS_AT_ONCE", 3)


def made(expected):
    return Texts.of(expected) if expected == PLAIN else RowIds("train", np.array([7, 0, 19]))


@pytest.mark.parametrize("expected", [PLAIN, IDS], ids=["texts", "ids"])
def test_columns_read_as_lists_do(limit, expected):
    column, count = made(expected), len(expected)
    assert len(column) == count
    assert list(column) == expected
    assert column == expected
    assert column != expected[::-1]
    assert column != expected[:-1]
    assert [column[i] for i in range(-count, count)] == expected * 2
    assert column[np.int64(1)] == expected[1]
    for part in (slice(None), slice(1, 3), slice(2, 2), slice(5, 1), slice(-2, None), slice(None, None, -2)):
        assert column[part] == expected[part]
    assert expected[1] in column
    assert "other" not in column
    with pytest.raises(IndexError):
        column[count]


@pytest.mark.parametrize("expected", [PLAIN, IDS], ids=["texts", "ids"])
def test_columns_take_any_order(limit, expected):
    for wanted in ([2, 0, 0], [], [1]):
        assert columns.take(made(expected), np.array(wanted, dtype=np.int64)) == [expected[i] for i in wanted]


def test_a_split_with_columns_on_disk_is_kept_and_is_the_same(limit, tmp_path):
    plain = Split("train", [f"train/{i}" for i in range(7)], PLAIN, np.arange(7) % 2)
    split = Split("train", RowIds("train", np.arange(7)), Texts.of(PLAIN), plain.labels)
    assert split.fingerprint() == plain.fingerprint()
    assert split.take([3, 1]).fingerprint() == plain.take([3, 1]).fingerprint()
    (tmp_path / "value").mkdir()
    encoded = json.loads(json.dumps(values.encode(split, tmp_path / "value")))
    read = values.decode(encoded, tmp_path / "value")
    assert (read.ids, read.texts, read.fingerprint()) == (plain.ids, PLAIN, plain.fingerprint())


# Tables


def test_json_columns_hold_what_stood_there_and_null_where_nothing_did(limit, tmp_path):
    rows = [{"text": "a"}, {"text": None, "label": 1}, {"label": [1, {"b": "\ud800"}], "late": 2.5}, {"text": True}]
    for name, content in (("d.jsonl", "\n".join(json.dumps(row) for row in rows)), ("d.json", json.dumps(rows))):
        (tmp_path / name).write_text(content)
        table = read_table(tmp_path / name)
        assert {key: list(column) for key, column in table.columns.items()} == {
            key: [row.get(key) for row in rows] for key in ("text", "label", "late")
        }
        assert len(table) == 4


def test_parquet_columns_are_read_again_each_time(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns_ = {"text": [f"t{i}" for i in range(9)], "a.b": list(range(9)), "s": [{"x": i, "y": [i]} for i in range(9)]}
    pq.write_table(pa.table(columns_), tmp_path / "d.parquet", row_group_size=4)
    table = read_table(tmp_path / "d.parquet")
    for _ in range(2):
        assert {name: list(column) for name, column in table.columns.items()} == columns_
    (tmp_path / "d.parquet").write_bytes((tmp_path / "d.parquet").read_bytes()[:40])
    with pytest.raises(InputError, match="should be a Parquet file"):
        list(table.columns["text"])


def test_a_byte_that_is_no_utf8_is_found_far_into_a_file(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"text,label\n" + b"card,x\n" * 20_000 + b"\xff,x\n")
    with pytest.raises(InputError, match="found byte 140011 that is not"):
        read_table(tmp_path / "d.csv")
