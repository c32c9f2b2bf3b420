"""Trials and forecasts: what loops leave out is what they would have taken, and a check leaves no trace."""

import csv
import functools
import json
import tempfile
import time
from pathlib import Path

import pytest
import small_data

from smallmodels import cli, entries, evaluation, preflight, records, trials
from smallmodels.evaluation import inference, windows
from smallmodels.phases import NO_CONTEXT
from smallmodels.trials import Cost, Trial


@pytest.fixture
def trial(tmp_path):
    return Trial(tmp_path / "cache", loop_s=0.0)


def test_part_of_a_loop_does_the_largest_piece_first_and_leaves_out_what_the_others_would_take(trial):
    sizes = [1.0, 2.0, 3.0, 4.0] * 25
    done = []
    for place in trial.part(sizes, lambda size: size):
        done.append(place)
        time.sleep(0.01 * place)
    left = trial.take()
    assert done[0] == 4.0
    assert len(done) == 4
    expected_s = 0.01 * (sum(sizes) - sum(done))
    assert expected_s < left.duration_s < 1.4 * expected_s
    assert left.deviation_s < 0.2 * left.duration_s
    assert trial.take() == Cost()


def test_every_beginning_of_a_loop_in_part_has_small_and_large_pieces(tmp_path):
    trial = Trial(tmp_path, loop_s=60.0)
    done = list(trial.part(range(1, 1001), float))
    assert len(done) == len(set(done)) == 256
    assert done[0] == 1000
    for number in (5, 16, 64, 256):
        assert 350 < sum(done[1:number]) / (number - 1) < 650


def test_short_loop_is_done_wholly_and_leaves_nothing_out(trial):
    assert sorted(trial.part([3, 1, 2], float)) == [1, 2, 3]
    assert trial.take() == Cost()


def test_repeated_block_counts_what_is_left_out_inside(trial):
    began = time.perf_counter()
    with trial.repeated(5):
        for _ in trial.part([1.0] * 8, float):
            time.sleep(0.01)
    spent = time.perf_counter() - began
    assert trial.take().duration_s == pytest.approx(9 * spent, rel=0.4)  # 5 times 8 pieces, 4 of them done


def test_windows_of_inference_are_as_long_as_they_are_told_so_their_cost_is_known():
    window = records.InferenceWindow(duration_s=0.1, num_examples=64, energy_j=None, cpu_s=0.2)
    tried = windows.Taken(window, "missing", [0.1])
    of_windows = windows.left_out(tried, 1.0, 3)
    of_singles = inference._latencies_left_out([0.01] * 5, window, 1.0, 0.1)
    assert of_windows.duration_s == pytest.approx(3 * 1.05 - 0.1)  # a window ends with a call
    assert of_singles.duration_s == pytest.approx(0.5 - 8 * 0.01)  # at least eight single uses
    assert of_windows.cpu_s == pytest.approx(2 * of_windows.duration_s)
    assert of_singles.cpu_s == pytest.approx(2 * of_singles.duration_s)
    assert inference._latencies_left_out([2.0] * 2, window, 1.0, 0.1) == Cost()  # five slow ones are enough


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


def test_entries_that_trials_build_have_one_name_though_their_teachers_are_others(tmp_path):
    names = []
    for number, weights in enumerate(("after four steps", "after five steps")):
        trial = Trial(tmp_path / str(number))
        with trial.open():
            teacher = entries.address({"what": "teacher", "seed": 0}, tmp_path / "cache")
            made = entries.read_or_build(teacher, lambda: None, functools.partial(str, weights), NO_CONTEXT)
            trial.made(made, teacher)
            signal = entries.address({"what": "signals", "weights": made}, tmp_path / "cache")

            def build(signal=signal, trial=trial):
                signal.mkdir(parents=True)
                (signal / "shard").write_bytes(b"12345")
                trial.cache_bytes += 100
                trial.leave_out(Cost(60.0))

            entries.read_or_build(signal, lambda: None, build, NO_CONTEXT)
        names.append([entry.name for entry in trial.built])
        assert [entry.num_bytes for entry in trial.built] == [0, 105]
        assert 60 < trial.built[1].cost.duration_s < 61
    assert names[0] == names[1]
    assert len(set(names[0])) == 2
    assert not (tmp_path / "cache").exists()


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Files of somebody's own, for every recipe that can read one."""
    folder, texts = tmp_path_factory.mktemp("own"), small_data.texts(160)
    labels = [small_data.LABELS[i % 3] for i in range(160)]
    others = [texts[(5 * i + 1) % 160] for i in range(160)]
    sums = [(f"{a}+{b}=", f"{a + b}\n#### {a + b}") for a in range(12) for b in range(12)]
    tables = {
        "classes.csv": [("text", "label"), *zip(texts, labels, strict=True)],
        "levels.csv": [
            ("text", "level"),
            *(
                (f"Intermediate\n{text} {' '.join(f'w{i}x{j}' for j in range(9))}", labels[i])
                for i, text in enumerate(texts)
            ),
        ],
        "labels.csv": [("text", "labels"), *((text, f"{text.split()[0]};{text.split()[-1]}") for text in texts)],
        "pairs.csv": [("premise", "hypothesis", "label"), *zip(texts, others, labels, strict=True)],
        "scores.csv": [
            ("sentence1", "sentence2", "score"),
            *((a, b, len(a) % 6) for a, b in zip(texts, others, strict=True)),
        ],
        "questions.csv": [
            ("question", "context", "final_decision"),
            *zip(texts, others, ["yes", "no"] * 80, strict=True),
        ],
        "sums.csv": [("question", "answer"), *sums],
        **{f"in/{language}.csv": [("text", "category"), *zip(texts, labels, strict=True)] for language in ("en", "sw")},
    }
    (folder / "in").mkdir()
    for name, rows in tables.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    words = [
        "\n".join([*(f"{word} {'B-x' if word == 'card' else 'O'}" for word in text.split()), ""]) for text in texts
    ]
    (folder / "tags.conll").write_text("-DOCSTART- O\n\n" + "\n".join(words) + "\n", encoding="utf-8")
    return folder


TINY = ("--max-length", "32", "--num-layers", "2")
LANGUAGE = ("--dataset", "{own}/sums.csv", "--max-length", "32")
ANSWERS = (*LANGUAGE, "--template", "plain", "--max-new-tokens", "12", "--max-test", "8")
RECIPES = {
    "biomedical_questions": ("--dataset", "{own}/questions.csv", "--teacher", "{bert}", *TINY),
    "distill_embedder": (
        *("--dataset", "{own}/scores.csv", "--dataset-config", "none", "--similarity-dataset", "{own}/scores.csv"),
        *("--similarity-config", "none", "--teacher", "{bert}", *TINY),
    ),
    "distill_language_model": (*LANGUAGE, "--text-columns", "question", "--teacher", "{llama}"),
    "distill_multilabel_classifier": ("--dataset", "{own}/labels.csv", "--teacher", "{bert}", *TINY),
    "distill_on_policy": (*ANSWERS, "--teacher", "{llama}", "--num-rounds", "2", "--k", "8"),
    "distill_sentence_pairs": ("--dataset", "{own}/pairs.csv", "--teacher", "{bert}", *TINY),
    "distill_sequence_level": (*ANSWERS, "--teacher", "{llama}"),
    "distill_static_embedder": ("--dataset", "{own}/classes.csv", "--teacher", "{bert}", "--dimensions", "8"),
    "distill_static_search": ("--teacher", "{bert}", "--dimensions", "8"),
    "distill_text_classifier": ("--dataset", "{own}/classes.csv", "--teacher", "{bert}", *TINY),
    "distill_token_classifier": ("--dataset", "{own}/tags.conll", "--teacher", "{bert}", *TINY),
    "few_shot_classifier": ("--dataset", "{own}/classes.csv", "--teacher", "{bert}", *TINY),
    "finetune_language_model": (*ANSWERS, "--base-model", "{llama}", "--lora-rank", "2"),
    "finetune_text_classifier": ("--dataset", "{own}/classes.csv", "--base-model", "{bert}", *TINY),
    "multilingual_topics": (
        "--dataset",
        "{own}/in/{language}.csv",
        "--languages",
        "en",
        "sw",
        "--teacher",
        "{bert}",
        *TINY,
    ),
    "pretrain_language_model": (*LANGUAGE, "--text-columns", "question"),
    "quickstart": ("--teacher", "{bert}", *TINY),
    "reading_level": ("--dataset", "{own}/levels.csv", "--label-column", "level", "--teacher", "{bert}", *TINY),
    "shrink_text_classifier": ("--dataset", "{own}/classes.csv", "--teacher", "{bert}", "--max-length", "32"),
}


def foretold(capfd, *words: str) -> dict:
    """What a check says as JSON."""
    assert cli.main(["check", *words, "--json"]) == 0, capfd.readouterr().err
    return json.loads(capfd.readouterr().out.splitlines()[-1])


@pytest.fixture
def short_loops(monkeypatch):
    """Makes loops of a trial shorter; gives a list of the forecasts."""
    from smallmodels.cli import check

    found = []

    def shorter(*arguments, **options):
        found.append(preflight.check(*arguments, loop_s=0.1, **options))
        return found[-1]

    monkeypatch.setattr(check, "check", shorter)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(cli.shipped_recipes()))
def test_every_recipe_can_be_checked(name, own, tiny_model_folder, tiny_language_model_folder, short_loops, capfd):
    if name not in RECIPES:
        pytest.skip("its data are on the hub")
    places = {"{own}": own, "{bert}": tiny_model_folder, "{llama}": tiny_language_model_folder}
    words = [
        functools.reduce(lambda word, place: word.replace(place, str(places[place])), places, w) for w in RECIPES[name]
    ]
    found = foretold(capfd, name, "--smoke", *words)
    assert found["duration_s"]["low"] < found["duration_s"]["value"] < found["duration_s"]["high"]
    assert found["trial_duration_s"] < 1.01 * found["duration_s"]["value"]
    assert {"data", "train"} & {phase["name"].split("_")[0] for phase in found["phases"]}
    assert found["run_bytes"] > 0


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with a cache of its own; temporary files are made in it too."""
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(own: Path, model: Path) -> list[str]:
    data = ["--dataset", str(own / "classes.csv"), "--teacher", str(model), *TINY]
    return ["distill_text_classifier", *data, "--num-epochs", "30", "--teacher-train.num-epochs", "20"]


def test_check_says_what_a_run_takes_and_leaves_no_trace(own, place, tiny_model_folder, short_loops, capfd):
    assert cli.main(["check", *words_of(own, tiny_model_folder)]) == 0
    assert [path.name for path in place.rglob("*") if path.name != "smallmodels-energy.lock"] == []
    out, err = capfd.readouterr()
    assert "label_only_full_cost" in err
    assert "dataset: classes.csv, " in out
    assert "licence user-provided, not checked" in out
    assert max(map(len, out.splitlines())) <= 120
    (found,) = short_loops
    phases = {phase.name: phase for phase in found.phases}
    data = next(source for source in found.sources if source.kind == "dataset")
    assert data.splits.keys() == {"train", "validation", "test"}
    assert data.size_bytes == (own / "classes.csv").stat().st_size
    assert phases["train"].tried_s < 0.8 * phases["train"].duration_s
    assert phases["inference"].duration_s > 4 * 3  # four shapes of models, three windows of a second each
    assert found.duration_s.value == pytest.approx(sum(phase.duration_s for phase in found.phases), rel=0.01)
    assert found.duration_s.low < found.duration_s.value < found.duration_s.high
    assert found.cache_bytes == pytest.approx(sum(entry.size_bytes for entry in found.entries), abs=10_000)
    in_teacher, in_cache = (entry.duration_s for entry in found.entries)
    assert 0.5 * phases["teacher"].duration_s < in_teacher <= phases["teacher"].duration_s
    assert 0 < in_cache <= phases["cache"].duration_s
    assert not phases["teacher"].from_cache
    paid_by_student = phases["cache"].cpu_s + phases["train"].cpu_s
    assert phases["label_only"].cpu_s == pytest.approx(paid_by_student)  # however many steps that will be
    assert phases["label_only_full_cost"].cpu_s == pytest.approx(phases["teacher"].cpu_s + paid_by_student)


@pytest.mark.slow
def test_check_foretells_a_run_and_the_cache_costs_nothing(own, place, tiny_model_folder, short_loops, capfd):
    words = words_of(own, tiny_model_folder)
    before = {phase["name"]: phase for phase in foretold(capfd, *words)["phases"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "measure_inference", functools.partial(evaluation.measure_inference, window_s=0.02))
        assert cli.main(["run", *words, "--out", str(place / "runs")]) == 0
    capfd.readouterr()
    (run,) = (place / "runs" / "distill_text_classifier").iterdir()
    took = {phase.name: phase.duration_s for phase in records.read_record(run).phases}
    for name in ("teacher", "train"):
        assert took[name] / 2.5 < before[name]["duration_s"] < 2.5 * took[name]
    kept = {path: path.stat().st_mtime_ns for path in (place / "cache").rglob("*")}
    again = foretold(capfd, *words)
    assert {path: path.stat().st_mtime_ns for path in (place / "cache").rglob("*")} == kept
    after = {phase["name"]: phase for phase in again["phases"]}
    assert after["teacher"]["from_cache"]
    assert after["cache"]["from_cache"]
    assert after["teacher"]["duration_s"] < 0.5 * took["teacher"]
    assert again["cache_bytes"] == 0


@pytest.mark.slow
def test_checks_of_two_configs_name_what_their_runs_would_share(own, place, tiny_model_folder, short_loops, capfd):
    words = words_of(own, tiny_model_folder)
    found = [foretold(capfd, *words, "--temperature", value)["entries"] for value in ("1", "3")]
    names = [[entry["name"] for entry in entries] for entries in found]
    assert names[0] == names[1]  # of the fine-tuned teacher and of its signal
    assert len(set(names[0])) == 2
    other = foretold(capfd, *words, "--teacher-seed", "7")["entries"]
    assert not set(names[0]) & {entry["name"] for entry in other}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["distill_text_classifier", "--dataset", "nowhere.csv"], 2, "nowhere.csv"),
        (["quickstrat"], 2, "did you mean quickstart?"),
        (["quickstart", "--max-entries", "0"], 2, "max_entries must be > 0"),
    ],
)
def test_check_refuses_what_the_run_would_refuse_in_the_same_sentence(words, code, sentence, capfd):
    assert cli.main(["check", *words]) == code
    refusal = [line for line in capfd.readouterr().err.splitlines() if line.startswith("smallmodels: ")]
    assert sentence in refusal[0]
    assert cli.main(["run", *words]) == code
    assert refusal == [line for line in capfd.readouterr().err.splitlines() if line.startswith("smallmodels: ")]
