"""Arrays in files without a name: the same numbers, and nothing left behind."""

import errno
import io
import itertools
import pickle
import tempfile

import numpy as np
import pytest

from smallmodels import arrays, entries
from smallmodels.errors import InputError, RunInterruptedError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=[0, 100, 1 << 22], ids=["all in files", "the large in files", "all in memory"])
def limit(request, cache, monkeypatch):
    monkeypatch.setattr(arrays, "LARGE_BYTES", request.param)


@pytest.mark.parametrize("row", [(), (3,), (2, 2)])
@pytest.mark.parametrize("sizes", [[], [0], [1], [5, 0, 70, 1]])
def test_growing_gives_what_was_appended(limit, row, sizes):
    parts = [np.random.default_rng(size).normal(size=(size, *row)) for size in sizes]
    growing = arrays.Growing(np.float32, row)
    for part in parts:
        growing.append(part)
    expected = np.concatenate([np.zeros((0, *row)), *parts]).astype(np.float32)
    found = growing.done()
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    assert np.array_equal(found, expected)
    assert not found.flags.writeable


def test_rows_of_different_lengths_are_taken_in_any_order(limit, monkeypatch):
    monkeypatch.setattr(arrays, "_ROWS_AT_ONCE", 4)
    rows = [np.arange(i, i + i % 5) for i in range(30)]
    growing = arrays.GrowingRows(np.int32)
    for part in (rows[:7], [], rows[7:]):
        growing.append(np.concatenate([*part, []]), [len(row) for row in part])
    values, offsets = growing.done()
    assert arrays.differences(offsets).tolist() == [len(row) for row in rows]
    for wanted in ([], [29, 3, 3, 0], list(range(30))):
        taken, ends = arrays.take_rows(values, offsets, np.array(wanted, dtype=np.int64))
        assert [taken[a:b].tolist() for a, b in itertools.pairwise(ends)] == [rows[i].tolist() for i in wanted]


def test_take_and_kept_are_the_same_numbers(limit, monkeypatch):
    monkeypatch.setattr(arrays, "_ROWS_AT_ONCE", 4)
    array = np.arange(60).reshape(30, 2)
    wanted = np.array([3, 29, 3, 0, 1])
    assert arrays.take(array, wanted).tolist() == array[wanted].tolist()
    assert arrays.kept(array).tolist() == array.tolist()
    assert arrays.join(array[:7], array[7:]).tolist() == array.tolist()
    assert pickle.loads(pickle.dumps(arrays.kept(array))).tolist() == array.tolist()


def test_nothing_has_a_name_in_the_cache_and_small_arrays_need_none(cache):
    arrays.kept(np.zeros(10))
    assert not cache.exists()
    large = arrays.kept(np.zeros(arrays.LARGE_BYTES, dtype=np.int8).repeat(2))
    assert (len(large), list(cache.iterdir())) == (2 * arrays.LARGE_BYTES, [])


def test_t11_where_the_cache_is_read_only_the_temporary_folder_serves(cache, monkeypatch):
    places = []

    def open_file(**options):
        places.append(options.get("dir"))
        if options:
            raise OSError(errno.EROFS, "read-only file system")
        return original()

    original = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", open_file)
    assert len(arrays.kept(np.zeros(1 << 20))) == 1 << 20
    assert places == [entries.cache_folder(), None]


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, RunInterruptedError), (errno.EACCES, InputError)])
def test_t9_a_full_disk_ends_in_one_sentence(cache, monkeypatch, number, expected):
    class Full(io.BufferedRandom):
        def write(self, content):
            raise OSError(number, "no")

    original = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full(original(**options).detach()))
    with pytest.raises(expected, match="point SMALLMODELS_CACHE to") as caught:
        arrays.kept(np.zeros(1 << 20))
    assert "\n" not in str(caught.value)
