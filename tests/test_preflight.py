"""Trials and forecasts: what loops leave out is what they would have taken, and a check leaves no trace."""

import json
import time
from pathlib import Path

import pytest

from smallmodels import cli, preflight, trials
from smallmodels.trials import Cost, Trial


@pytest.fixture
def trial(tmp_path):
    return Trial(tmp_path / "cache", loop_s=0.0)


def test_part_of_a_loop_does_the_largest_piece_first_and_leaves_out_what_the_others_would_take(trial):
    sizes = [1.0, 2.0, 3.0, 4.0] * 25
    done = []
    for place in trial.part(sizes, lambda size: size):
        done.append(place)
        time.sleep(0.002 * place)
    left = trial.take()
    assert done[0] == 4.0
    assert len(done) == 4
    expected_s = 0.002 * (sum(sizes) - sum(done))
    assert expected_s < left.duration_s < 1.4 * expected_s
    assert left.deviation_s < 0.2 * left.duration_s
    assert trial.take() == Cost()


def test_every_beginning_of_a_loop_in_part_has_small_and_large_pieces(tmp_path):
    trial = Trial(tmp_path, loop_s=60.0)
    done = list(trial.part(range(1, 1001), float))
    assert len(done) == len(set(done)) == 64
    assert done[0] == 1000
    for number in (5, 16, 64):
        assert 350 < sum(done[1:number]) / (number - 1) < 650


def test_short_loop_is_done_wholly_and_leaves_nothing_out(trial):
    assert sorted(trial.part([3, 1, 2], float)) == [1, 2, 3]
    assert trial.take() == Cost()


def test_repeated_block_counts_what_is_left_out_inside(trial):
    with trial.repeated(5):
        for _ in trial.part([1.0] * 8, float):
            time.sleep(0.01)
    assert 0.36 - 0.04 <= trial.take().duration_s < 0.5  # 5 times 8 pieces of 10 ms, 4 of them done


def test_outside_of_a_trial_all_work_is_done(trial):
    pieces = list(range(100))
    assert trials.part(pieces, float) is pieces
    with trial.open():
        assert len(list(trials.part(pieces, float))) == 4
    assert trials.current() is None


def test_stand_in_for_a_folder_of_the_cache_is_written_without_a_change_there(tmp_path, trial):
    kept = tmp_path / "real" / "signals" / "abc"
    kept.mkdir(parents=True)
    (kept / "entry.json").write_text("1")
    stand_in = trial.overlay(kept)
    assert (stand_in / "entry.json").read_text() == "1"
    assert trial.written_bytes == 0
    (stand_in / "shard").write_bytes(b"12345")
    (stand_in / "entry.json").unlink()
    assert trial.overlay(kept) == stand_in
    assert [path.name for path in kept.iterdir()] == ["entry.json"]
    assert trial.written_bytes == 5


@pytest.fixture
def tickets(tmp_path) -> list[str]:
    """Flags that name a small file of somebody's own."""
    import small_data

    path = tmp_path / "tickets.csv"
    rows = [f"{text},{small_data.LABELS[i % 3]}" for i, text in enumerate(small_data.texts(400))]
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return ["--dataset", str(path)]


def listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_check_foretells_a_run_and_leaves_no_trace(tmp_path, tickets, tiny_model_folder, capfd, monkeypatch):
    cache = tmp_path / "own-cache"
    monkeypatch.setenv("SMALLMODELS_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "LOOP_S", 0.1)
    words = ["distill_text_classifier", "--teacher", str(tiny_model_folder), *tickets, "--num-layers", "2"]
    before = listing(tmp_path)
    assert cli.main(["check", *words]) == 0
    out, err = capfd.readouterr()
    assert listing(tmp_path) == before
    assert "label_only_full_cost" in err
    assert "dataset: tickets.csv" in out
    assert "licence user-provided, not checked" in out
    assert "Time: " in out
    assert cli.main(["check", *words, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    print(json.dumps(found, indent=1))
