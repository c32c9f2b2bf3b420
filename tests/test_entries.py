"""Where the cache is, who pays for what is in it, and what is said where it cannot be used."""

import errno
import shutil
import sys
from pathlib import Path

import pytest

from smallmodels import entries, files, folders
from smallmodels.energy import EnergyReading
from smallmodels.energy.readings import MISSING
from smallmodels.errors import InputError, PolicyError, RunInterruptedError
from smallmodels.phases import Context
from smallmodels.records import Component

# Where the cache is


def test_cache_folder_is_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "mine"))
    assert entries.cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("SMALLMODELS_CACHE", "~/mine")
    assert entries.cache_folder() == Path.home() / "mine"


@pytest.mark.parametrize(
    ("platform", "folder"),
    [("linux", ".cache/smallmodels"), ("darwin", "Library/Caches/smallmodels"), ("win32", "AppData/Local/smallmodels")],
)
def test_cache_folder_is_the_users_where_none_is_named(monkeypatch, platform, folder):
    for name in ("SMALLMODELS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert entries.cache_folder() == Path.home() / folder


def test_cache_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("SMALLMODELS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert entries.cache_folder() == tmp_path / "smallmodels"


# What is said where the cache cannot be used


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),  # of safetensors
    ],
    ids=repr,
)
def test_t9_a_full_disk_can_be_gone_on_from(tmp_path, error):
    with (
        pytest.raises(RunInterruptedError, match="is full, and what was finished is kept") as caught,
        entries.writing(tmp_path),
    ):
        raise error
    assert caught.value.exit_code == 75


def test_writing_leaves_other_errors_as_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), entries.writing(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(OSError, match="Input/output error"), entries.writing(tmp_path):
        raise OSError(errno.EIO, "Input/output error")


def test_t11_a_cache_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "signals" / "1", tmp_path / "file" / "1"):
        with pytest.raises(InputError, match=r"should be writable, .* point SMALLMODELS_CACHE to another folder"):
            entries.read_or_build(place, lambda: None, lambda: pytest.fail("built"), Context())


def test_t11_a_disk_without_locks_is_read_and_refused_with_its_reason(tmp_path, monkeypatch):
    def no_locks(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders, "lock_file", no_locks)  # as network file systems without a lock service answer
    assert entries.read_or_build(tmp_path / "1", lambda: "whole", lambda: pytest.fail("built"), Context()) == "whole"
    with pytest.raises(PolicyError, match="on a disk with locks, but No locks available") as caught:
        entries.read_or_build(tmp_path / "1", lambda: None, lambda: pytest.fail("built"), Context())
    assert caught.value.exit_code == 3


def test_t13_what_no_disk_has_room_for_is_refused_and_nothing_is_made(tmp_path):
    place = tmp_path / "not" / "yet" / "there"
    with pytest.raises(
        InputError, match=r"the signal needs 5,000,000,000 MB of disk, but [\d,.]+ MB are free"
    ) as caught:
        entries.require_space(5 * 10**15, "the signal", place)
    assert caught.value.exit_code == 2
    assert "point SMALLMODELS_CACHE and --out to a larger disk" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    entries.require_space(1, "the signal", place)


def test_t13_two_copies_on_one_disk_need_room_for_both(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    entries.require_space(free * 2 // 3, "the signal", tmp_path / "cache")
    with pytest.raises(InputError, match="are free in"):
        entries.require_space(free * 2 // 3, "the signal", tmp_path / "cache", tmp_path / "run")


# Who pays


def reading(joules, label="counter"):
    return EnergyReading(joules, joules / 2, {"cpu": Component(energy_j=joules, label=label)})


def context_of(folder=None, *joules, label="counter"):
    """A phase whose energy is these joules at each time that it is asked."""
    values = iter(joules)
    return Context(folder=folder, energy=(lambda: reading(next(values), label)) if joules else lambda: None)


def paid(parts, context, *, shards=1, **options):
    """The parts of an entry after another phase has worked on it."""
    bill = entries.Bill(parts, context)
    bill.settle()
    bill.begin(**options)
    for _ in range(shards):
        context.counts.add(examples=10, tokens=50, processed=60, operations=100.0)
        bill.note()
    return bill.to_json()


def owed(parts, context):
    entries.Bill(parts, context).settle()
    return context.counts.shared_energy_j, context.counts.shared_cpu_s


def test_each_owes_the_parts_of_the_others(tmp_path):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    parts = paid([], context_of(one, 5.0, 25.0))
    second = context_of(two, 100.0, 104.0)
    parts = paid(parts, second)
    assert second.counts.shared_energy_j == 20.0
    assert owed(parts, context_of(one)) == (4.0, 2.0)
    assert owed(parts, context_of(two)) == (20.0, 10.0)
    assert owed(parts, context_of(three)) == (24.0, 12.0)
    assert owed(parts, context_of()) == (24.0, 12.0)


def test_a_phase_that_was_killed_has_one_part_with_what_was_lost(tmp_path):
    parts = paid([], context_of(tmp_path, 5.0, 25.0))
    again = context_of(tmp_path, 60.0, 70.0)  # 35 J went into a shard that was not finished
    parts = paid(parts, again)
    assert len(parts) == 1
    assert owed(parts, context_of()) == (65.0, 32.5)
    assert again.counts.num_examples == 20


def test_a_phase_that_built_all_before_it_was_killed_owes_nothing_and_counts_its_work(tmp_path):
    parts = paid([], context_of(tmp_path, 5.0, 25.0, 30.0), shards=2)
    again = context_of(tmp_path)
    assert owed(parts, again) == (0.0, 0.0)
    assert (again.counts.num_examples, again.counts.num_operations) == (20, 200.0)


def test_a_new_run_in_the_folder_of_a_deleted_one_owes_what_that_one_paid(tmp_path):
    parts = paid([], context_of(tmp_path / "run", 5.0, 25.0))
    shutil.rmtree(tmp_path / "run")
    assert owed(parts, context_of(tmp_path / "run")) == (20.0, 10.0)


def test_what_was_killed_before_it_finished_anything_is_not_owed(tmp_path):
    parts = paid([], context_of(tmp_path, 5.0), shards=0)
    assert owed(parts, context_of()) == (0.0, 0.0)


def test_parts_of_which_nothing_is_left_are_dropped_but_for_the_own(tmp_path):
    parts = paid([], context_of(tmp_path / "one", 5.0, 25.0))
    other = entries.Bill(parts, context_of(tmp_path / "two"), only_own=True)
    own = entries.Bill(parts, context_of(tmp_path / "one"), only_own=True)
    assert (other.parts, len(own.parts)) == ([], 1)


def test_one_unknown_part_makes_the_joules_unknown_and_not_the_seconds(tmp_path):
    parts = paid([], context_of(tmp_path, 5.0, 25.0))
    parts = paid(parts, context_of())  # outside a run
    energy_j, cpu_s = owed(parts, context_of())
    assert energy_j is None
    assert cpu_s >= 10.0
    assert entries.Bill(parts, context_of()).settle()["label"] == "missing"
    assert parts[1]["spent"]["components"] == {"machine": {"energy_j": None, "label": MISSING.label}}


def test_the_weakest_label_stays(tmp_path):
    parts = paid([], context_of(tmp_path / "one", 0.0, 20.0))
    parts = paid(parts, context_of(tmp_path / "two", 0.0, 20.0, label="modelled"))
    assert entries.Bill(parts, context_of()).settle()["label"] == "modelled"


def test_a_damaged_name_of_the_payer_is_drawn_again(tmp_path):
    parts = paid([], context_of(tmp_path, 5.0, 25.0))
    name = files.read_json(tmp_path / "payer.json")
    (tmp_path / "payer.json").write_text('"')
    assert owed(parts, context_of(tmp_path)) == (20.0, 10.0)
    assert files.read_json(tmp_path / "payer.json") != name
