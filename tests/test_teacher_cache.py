"""A teacher's signal whose builder is killed at any row, or whose disk is full or read-only, in real processes."""

import random
import re
import time

import pytest
from children import NUM_ROWS, ROWS_PER_SHARD

SHARDS = ["shard-00000.safetensors", "shard-00001.safetensors", "shard-00002.safetensors"]
SEEDS = range(20)
FEW_SEEDS = (3, 11)
KILLED = -9


@pytest.fixture(scope="module")
def run(fork_server, tiny_model_folder):
    """Call a function of `children` with the tiny model; its result, or its exit code if it was killed."""

    def call(function, *, killed=False, **arguments):
        child = fork_server.start(function, model=tiny_model_folder, **arguments)
        if killed:
            assert child.wait() == KILLED
            return None
        result = child.result()
        if result == "skip":
            pytest.skip("mounting needs rights that this user does not have")
        return result

    return call


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """SHA-256 of the shards of a pass that nobody interrupted."""
    result = run("store", cache=tmp_path_factory.mktemp("whole"))
    assert (len(result["shards"]), result["num_rows"], result["failed"]) == (3, NUM_ROWS, [None] * 3)
    return result["shards"]


def killed_at_random_row(run, whole, cache, seed):
    row = random.Random(seed).randrange(NUM_ROWS)
    run("store", cache=cache, killed_at_row=row, killed=True)
    finished = row // ROWS_PER_SHARD
    result = run("store", cache=cache)
    assert result["shards"] == whole
    assert result["num_rows"] == NUM_ROWS - finished * ROWS_PER_SHARD
    assert result["files"] == ["entry.json", *SHARDS]


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_t1_killed_at_a_random_row_and_restarted_gives_the_same_bytes(run, whole, tmp_path, seed):
    killed_at_random_row(run, whole, tmp_path, seed)


@pytest.mark.faults
@pytest.mark.parametrize("seed", [seed for seed in SEEDS if seed not in FEW_SEEDS])
def test_t1_killed_at_any_of_twenty_random_rows_gives_the_same_bytes(run, whole, tmp_path, seed):
    killed_at_random_row(run, whole, tmp_path, seed)


@pytest.mark.faults
def test_t1_killed_again_and_again_gives_the_same_bytes(run, whole, tmp_path):
    for row in (4, 9, 3, 13):
        run("store", cache=tmp_path, killed_at_row=row, killed=True)
    result = run("store", cache=tmp_path)
    assert result["shards"] == whole
    assert result["num_rows"] == NUM_ROWS - ROWS_PER_SHARD  # only the last of the four got beyond a shard


@pytest.mark.faults
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_t1_t4_killed_while_it_writes_gives_the_same_bytes(run, whole, tmp_path, call, number, after):
    run("store", cache=tmp_path, killed_at=[call, number, after], killed=True)
    result = run("store", cache=tmp_path)
    assert result["shards"] == whole
    assert result["files"] == ["entry.json", *SHARDS]
    assert "damaged cache" not in result["events"]


def test_t1_e2_a_killed_phase_pays_once_for_all_that_it_spent(run, whole, tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "run"
    run("store_in_run", cache=cache, run=folder, killed_at_row=15, killed=True)
    result = run("store_in_run", cache=cache, run=folder, resume=True)
    assert result["shards"] == whole
    assert (result["num_rows"], result["num_examples"]) == (14, NUM_ROWS)
    assert result["owed"] == [0.0, 0.0]
    (part,) = result["parts"]
    phase_j, phase_cpu_s, phase_s = result["phase"]
    spent = part["spent"]
    segment_j, segment_cpu_s, segment_s = result["segment"]
    assert segment_j < spent["components"]["cpu"]["energy_j"] <= phase_j
    assert segment_cpu_s < spent["cpu_s"] <= phase_cpu_s
    assert segment_s < spent["duration_s"] <= phase_s
    other = run("store_in_run", cache=cache, run=tmp_path / "other")
    assert (other["num_rows"], other["num_examples"]) == (0, None)
    assert other["owed"] == [spent["components"]["cpu"]["energy_j"], spent["cpu_s"]]


# Full disks


def stopped_and_finished(first, second, whole):
    error, exit_code, sentence = first["failed"]
    assert (error, exit_code) == ("RunInterruptedError", 75)
    assert "is full" in sentence
    assert "point SMALLMODELS_CACHE to a larger disk" in sentence
    assert "\n" not in sentence
    num_kept = len(first["shards"])
    assert first["files"] == ["entry.json"] * bool(first["files"]) + SHARDS[:num_kept]
    assert second["shards"] == whole
    assert second["num_rows"] == NUM_ROWS - num_kept * ROWS_PER_SHARD
    return num_kept


def test_t9_a_limit_on_the_size_of_files_stops_it_and_it_goes_on(run, whole, tmp_path):
    assert stopped_and_finished(*run("store_with_limit", cache=tmp_path, num_bytes=600), whole) == 0


SMALL_DISKS = {4: 0, 8: 0, 12: 1, 16: 2}
"""Shards that fit, by kilobytes: files take pages of four, the list of shards two of them while it is replaced."""


@pytest.mark.parametrize(
    "kilobytes", [12, *(pytest.param(size, marks=pytest.mark.faults) for size in SMALL_DISKS if size != 12)]
)
def test_t9_a_full_disk_stops_it_and_it_goes_on(run, whole, tmp_path, kilobytes):
    first, second = run("store_on_small_disk", folder=tmp_path, kilobytes=kilobytes, more_kilobytes=200)
    assert stopped_and_finished(first, second, whole) == SMALL_DISKS[kilobytes]


# Disks that cannot be written


def test_t11_a_whole_entry_is_read_where_nothing_can_be_written(run, whole, tmp_path):
    run("store", cache=tmp_path)
    for lock in tmp_path.rglob("*.lock"):
        lock.unlink()
    result = run("store_read_only", cache=tmp_path)
    assert (result["failed"], result["shards"], result["num_rows"]) == ([None] * 3, whole, 0)
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("there", ["nothing", "one damaged shard"])
def test_t11_building_where_nothing_can_be_written_is_refused(run, tmp_path, there):
    if there != "nothing":
        run("store", cache=tmp_path)
        (shard,) = tmp_path.rglob(SHARDS[1])
        shard.write_bytes(b"")
    error, exit_code, sentence = run("store_read_only", cache=tmp_path)["failed"]
    assert (error, exit_code) == ("InputError", 2)
    assert "should be writable" in sentence
    assert "read-only file system" in sentence
    assert "point SMALLMODELS_CACHE to another folder" in sentence


# Two builders


def test_t10_two_builders_in_two_processes_build_once(fork_server, tiny_model_folder, whole, tmp_path):
    building, release, cache = tmp_path / "building", tmp_path / "release", tmp_path / "cache"
    common = {"model": tiny_model_folder, "cache": cache}
    one = fork_server.start("store", **common, building=building, wait_for=release)
    deadline = time.monotonic() + 60
    while not building.exists():
        assert time.monotonic() < deadline, "the first builder did not begin"
        time.sleep(0.02)
    late = fork_server.start("store", **common, lock_wait_s=0.3).result()
    assert late["failed"][:2] == ["PolicyError", 3]
    assert "another process holds it" in late["failed"][2]
    patient = fork_server.start("store", **common)
    release.touch()
    results = [one.result(), patient.result()]
    assert [result["num_rows"] for result in results] == [NUM_ROWS, 0]
    assert [result["shards"] for result in results] == [whole, whole]
    assert results[1]["events"][-1] == "cache"


# Space is asked for beforehand


def test_t13_a_disk_that_is_too_small_is_refused(fork_server, tmp_path):
    answers = {}
    for num_rows in (100, 20_000):
        arguments = {"folder": tmp_path, "kilobytes": 400, "num_rows": num_rows, "width": 77}
        answers[num_rows] = fork_server.start("require_space_on_small_disk", **arguments).result()
    if "skip" in answers.values():
        pytest.skip("mounting needs rights that this user does not have")
    assert answers == {100: None, 20_000: "refused"}


@pytest.mark.parametrize(
    ("recipe", "loader", "needed"),
    [
        ("distill_text_classifier", "load_classifier", r"0\.01"),
        pytest.param("quickstart", "load_embedder", r"0\.0[5-9]", marks=pytest.mark.faults),
    ],
)
def test_t13_recipes_refuse_a_disk_that_is_too_small_before_the_teacher_is_loaded(
    fork_server, tiny_model_folder, tmp_path, recipe, loader, needed
):
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    (tmp_path / "d.csv").write_text("text,label\n" + "".join(f"text {i},{i % 3}\n" for i in range(120)))
    words = [recipe, "--smoke", "--out", str(out)]
    words += [] if recipe == "quickstart" else ["--dataset", str(tmp_path / "d.csv")]
    arguments = {"model": tiny_model_folder, "folder": disk, "words": words, "loader": loader, "kilobytes": 4}
    child = fork_server.start("recipe_on_small_disk", **arguments)
    code, said = child.result(), child.output()
    if code == "skip":
        pytest.skip("mounting needs rights that this user does not have")
    assert code == 2, said
    (sentence,) = [line for line in said.splitlines() if line.startswith("smallmodels: ")]
    assert re.search(rf"the teacher's stored signal needs {needed} MB of disk, but 0\.00 MB are free in", sentence)
    assert not out.exists()


def test_t13_the_estimate_is_what_is_stored(run, tmp_path, monkeypatch):
    asked = []
    from smallmodels import entries, teachers
    from smallmodels.teachers import storing

    monkeypatch.setattr(entries, "require_space", lambda num_bytes, *_: asked.append(num_bytes))
    monkeypatch.setattr(storing, "_ROWS_PER_SHARD", ROWS_PER_SHARD)
    teachers.require_space(NUM_ROWS, 3)
    run("store", cache=tmp_path)
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert stored <= asked[0] <= 4 * stored


def test_t13_what_is_needed_and_free_is_told(tmp_path):
    from smallmodels import teachers

    said = teachers.require_space(10_000, 100, tmp_path)
    assert re.fullmatch(r"The teacher's stored signal needs 8\.\d+ MB of disk; [\d,.]+ MB are free\.", said)
    larger = teachers.require_space(20_000, 100, tmp_path)  # shards, the same in one piece to map, the run's copy
    assert re.search(r"needs 25 MB of disk", larger)
