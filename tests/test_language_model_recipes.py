"""Recipes of language models in SMOKE size on a local file: records, models, pages."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from small_data import BF16, FP32
from transformers import AutoModelForCausalLM, AutoTokenizer

from smallmodels import cli, data, generation, losses, models, perplexity, records, runs, teachers
from smallmodels.data import batches
from smallmodels.data.splits import Split
from smallmodels.models import TextModel
from smallmodels.teachers import signals as signals_module


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """A JSON Lines file of somebody's own: 60 texts in two columns, one of them blank in a row."""
    path = tmp_path_factory.mktemp("own") / "notes.jsonl"
    rows = [{"title": f"note {i}", "body": f"on day {i} the cat saw {i * 7 % 23} birds. " * 3} for i in range(60)]
    rows[5]["body"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(out, name, *words):
    assert cli.main(["run", name, "--smoke", "--out", str(out), *map(str, words)]) == 0
    (folder,) = (out / name).iterdir()
    return folder


@pytest.fixture(scope="module")
def pretrained(notes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return run(out, "pretrain_language_model", "--dataset", notes, "--text-columns", "title", "body")


@pytest.fixture(scope="module")
def distilled(notes, pretrained, tmp_path_factory):
    out, data = tmp_path_factory.mktemp("runs"), ("--dataset", notes, "--text-columns", "title", "body")
    return run(out, "distill_language_model", *data, "--teacher", pretrained / "model", "--temperature", 2)


def values(record):
    return {result.role: result.metrics["bits_per_byte"].value for result in record.results}


def test_pretraining_leaves_a_complete_record(pretrained):
    record = records.read_record(pretrained)
    assert set(values(record)) == {"student", "untrained_student", "unigrams"}
    assert values(record)["student"] < values(record)["untrained_student"]
    assert record.metric == "bits_per_byte"
    assert all(point.value < 0 for point in record.curve)  # larger is better
    (data,) = record.sources
    assert data.notes["num_dropped"] == {"train/blank_text": 1}
    assert record.model["loader"] == "AutoModelForCausalLM"
    assert [phase.name for phase in record.phases if phase.num_tokens] == ["train", "evaluate", "inference"]
    assert {use.role: use.tokens.num_written for use in record.inference} == {"student": 4.0, "untrained_student": 4.0}
    assert record.payback is None  # nothing is replaced
    assert "bits per byte" in (pretrained / "report.html").read_text()


def test_distillation_is_compared_with_the_teacher_in_use(distilled):
    record = records.read_record(distilled)
    measured_as = {use.role: use.measured_as for use in record.inference}
    assert measured_as == {
        "teacher": "teacher",
        **dict.fromkeys(("student", "untrained_student", "label_only"), "student"),
    }
    payback = record.payback
    assert (payback.replaces, payback.saved_per_use is not None, bool(payback.reason)) == ("teacher", True, True)
    card, page = (distilled / name for name in ("model/README.md", "report.html"))
    for text in (card.read_text(), page.read_text()):
        assert "CPU-s per written token" in text
    assert "Cost of a token" in page.read_text()


def test_distillation_stores_a_signal_and_has_its_control(distilled):
    record = records.read_record(distilled)
    assert set(values(record)) == {"teacher", "student", "untrained_student", "label_only", "unigrams"}
    assert {phase.name for phase in record.phases} >= {"data", "setup", "cache", "train", "label_only", "evaluate"}
    assert record.phase("cache").num_tokens > 0
    assert record.teacher_on_validation < 0  # bits per byte with the sign of the curve
    assert record.model["num_layers"] == 1
    assert {source.role for source in record.sources} >= {"teacher"}
    student = record.result("student")
    assert 0 <= student.agreement.value <= 1
    assert student.metrics["kl_from_teacher"].value > 0
    for result in record.results:
        for name in ("perplexity", "next_token_accuracy"):
            assert np.isfinite(result.metrics[name].value)

    assert record.result("label_only").agreement.n == student.agreement.n
    assert record.result("label_only").metrics["kl_from_teacher"].low > 0
    assert record.result("teacher").agreement is None


def test_stride_and_part_of_the_test_split_are_settings_that_stand_in_the_record(notes, pretrained, tmp_path):
    words = ("--dataset", notes, "--text-columns", "title", "body", "--max-length", 24, "--number-format", "fp32")
    folder = run(tmp_path, "pretrain_language_model", *words, "--stride", 23, "--max-test", 4)
    record, model = records.read_record(folder), TextModel.load(folder / "model")
    test = data.load_texts(str(notes), text_columns=("title", "body"), drop_bad_texts=True, max_test=4).test
    rows, usual = (data.cut_into_rows(test, model.tokenizer, max_length=24, stride=stride) for stride in (23, 12))
    assert len(rows) < len(usual)
    assert record.phase("evaluate").num_tokens == 2 * rows.tokens.lengths.sum()  # of the student before and after
    expected = perplexity.text_losses(model, test, stride=23, compute=FP32).metrics()["bits_per_byte"]
    assert values(record)["student"] == pytest.approx(expected.value, rel=1e-4)
    assert record.model["evaluation_stride"] == record.config["stride"] == 23
    assert any("move on by 23: each token has at least 1 before it" in sentence for sentence in record.limits)
    assert any(sentence.startswith("Tested on 4 of the 6 texts of the test split") for sentence in record.limits)
    usual_record = records.read_record(pretrained)
    assert (usual_record.config["stride"], usual_record.model["evaluation_stride"]) == (None, 32)
    assert not any("of the test split" in sentence for sentence in usual_record.limits)


def test_whole_test_split_is_read_by_default_but_where_each_prompt_is_answered():
    whole = dict.fromkeys(("pretrain_language_model", "distill_language_model"))
    capped = {name: cli.load_recipe(name).Config().max_test for name in (*whole, *WITH_A_CAP)}
    assert capped == {**whole, **WITH_A_CAP}


WITH_A_CAP = {
    "finetune_language_model": 200,
    "distill_sequence_level": 200,
    "distill_on_policy": 200,
}
"""Recipes whose records say that a part of the test split was read."""


SLOW = pytest.mark.slow
OBJECTIVES = ["jensen_shannon", "skew_kl", "skew_reverse_kl", "universal_logit_distance"]


@pytest.mark.parametrize("objective", ["reverse_kl", *(pytest.param(name, marks=SLOW) for name in OBJECTIVES)])
def test_every_objective_runs_with_a_new_student(notes, pretrained, tmp_path, objective):
    words = ("--dataset", notes, "--text-columns", "body", "--teacher", pretrained / "model", "--max-train", 20)
    sizes = ("--hidden-size", 16, "--num-heads", 2, "--objective", objective)
    record = records.read_record(run(tmp_path, "distill_language_model", *words, *sizes))
    assert record.model["hidden_size"] == 16
    assert record.config["objective"] == objective


def test_settings_of_the_divergences_reach_them():
    recipe = cli.load_recipe("distill_language_model")
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 9, generator=generator) for _ in range(2))
    told, labels = losses.top_k(teacher, 9), torch.tensor([0, 3, 8, 5])
    hard = losses.cross_entropy(student, labels)
    for objective, settings in (
        ("kl", {}),
        ("jensen_shannon", {"beta": 0.3}),
        ("skew_kl", {"skew": 0.4}),
        ("skew_reverse_kl", {"skew": 0.4}),
    ):
        config = recipe.Config(objective=objective, soft_weight=0.6, **settings)
        found = recipe.function.__globals__["loss_of"](config)(student, told, labels)
        soft = getattr(losses, f"{objective}_divergence")(student, teacher, temperature=1.0, **settings)
        torch.testing.assert_close(found, 0.6 * soft + 0.4 * hard)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--beta", "1"), "beta must be in (0, 1), got 1.0"),
        (("--skew", "1"), "skew must be in [0, 1), got 1.0"),
        (
            ("--objective", "universal_logit_distance", "--temperature", "2"),
            "temperature must be 1 for universal_logit_distance, got 2.0",
        ),
        (("--student", "x", "--hidden-size", "16"), "hidden_size must be left out where a student is named, got 16"),
        (("--student", "x", "--num-layers", "2"), "num_layers must be left out where a student is named, got 2"),
        (("--stride", "256"), "stride must be in 1 … 255, below max_length, got 256"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_read(words, said, capsys, tmp_path):
    assert cli.main(["run", "distill_language_model", "--out", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err


# What plain libraries make of it


@pytest.fixture(scope="module")
def run_of(pretrained, distilled, talker, tmp_path_factory):
    """Gives the smoke run of a recipe, made the first time that it is asked for."""
    out = tmp_path_factory.mktemp("runs")
    questions = out / "questions.csv"
    rows = [f"what is {i} and {i % 7},#### {i + i % 7}" for i in range(40)]
    questions.write_text("\n".join(["question,answer", *rows]) + "\n")
    data = ("--dataset", questions, "--template", "plain", "--max-length", 64)
    words = {
        "finetune_language_model": ("--base-model", talker),
        "distill_sequence_level": ("--teacher", talker),
        "distill_on_policy": ("--teacher", talker, "--student", "None"),
    }
    made = {"pretrain_language_model": pretrained, "distill_language_model": distilled}

    def get(name):
        if name not in made:
            made[name] = run(out, name, *data, *words[name])
        return made[name]

    return get


CURVES = {
    **dict.fromkeys(("pretrain_language_model", "distill_language_model"), "bits_per_byte"),
    "distill_on_policy": "divergence",
}
"""What training chooses by, which is the perplexity of the completions in all others."""


@pytest.mark.parametrize(
    "name",
    [
        "pretrain_language_model",
        "distill_language_model",
        "finetune_language_model",
        pytest.param("distill_sequence_level", marks=SLOW),
        pytest.param("distill_on_policy", marks=SLOW),
    ],
)
def test_saved_model_writes_the_same_tokens_with_plain_transformers_and_carries_its_card(run_of, name):
    folder, prompts = run_of(name), ["the cat", "what is 5 and 5", "on day 7 the"]
    model, tokenizer = (auto.from_pretrained(folder / "model") for auto in (AutoModelForCausalLM, AutoTokenizer))
    ours = TextModel.load(folder / "model")
    ids_of = {prompt: torch.tensor([data.prompt_ids(prompt, tokenizer, "plain")]) for prompt in prompts}
    for ids in ids_of.values():
        torch.testing.assert_close(model(ids).logits, ours.model.transformer(ids).logits, rtol=0, atol=0)
    answers = generation.answer(ours, prompts, template="plain", max_new_tokens=6, compute=FP32)
    for prompt, written in zip(prompts, answers.token_ids, strict=True):
        ids = ids_of[prompt]
        (found,) = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False)
        assert found[ids.shape[1] :].tolist() == written
    if name not in ("pretrain_language_model", "distill_language_model"):  # which have seen too little in two steps
        assert len({tuple(written) for written in answers.token_ids}) > 1
    record, card = records.read_record(folder), ModelCard.load(folder / "model" / "README.md")
    assert record.curve[-1].step == 2 * record.config.get("num_rounds", 1)
    assert all(records.goodness(record.curve_metric, point.value) > 0 for point in record.curve)
    assert record.curve_metric == CURVES.get(name, "perplexity")
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.library_name == "transformers"
    assert record.title in card.text
    if name not in ("pretrain_language_model", "distill_language_model"):
        assert (
            written_by_the_card(card.text, folder / "model")
            == generation.answer(ours, ["a question"], template="plain", max_new_tokens=50, compute=FP32).texts.pop()
        )


def written_by_the_card(text, folder):
    """What the code under "Use" gives, run as it stands."""
    code = text.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(folder))
    *lines, last = code.strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    return eval(last, names)


# A live teacher


@pytest.mark.parametrize("compute", [FP32, BF16], ids=["fp32", "bf16"])
def test_live_teacher_gives_the_loss_of_the_stored_signal(tiny_language_model_folder, tmp_path, monkeypatch, compute):
    teacher, _ = models.load_language_model(str(tiny_language_model_folder), max_length=32)
    texts = [f"what is the error number {i}, and {'why ' * (i % 4)}" for i in range(12)]
    split = Split("train", [f"train/{i}" for i in range(12)], texts)
    rows = data.cut_into_rows(split, teacher.tokenizer, max_length=16)
    packing = teachers.Packing(6, (2.0,), models.vocabulary_size(teacher))
    signals = teachers.store_token_signals(teacher, rows, packing=packing, compute=compute, cache=tmp_path)
    batch = batches.collate(rows.with_signals(signals), np.arange(len(rows)))
    stored = batch.teacher_top_k
    with compute.autocast():
        live = teachers.LiveTeacher(teacher, packing, compute)(batch)
    asked, top_k = [], signals_module.top_k
    monkeypatch.setattr(signals_module, "top_k", lambda z, *a: asked.append(len(z)) or top_k(z, *a))
    monkeypatch.setattr(losses.vocabulary, "_ROWS", (8, 8))
    layer = losses.OutputLayer(torch.randn(packing.num_classes, 4, generator=torch.Generator().manual_seed(0)))
    states = torch.randn(len(stored), 4, generator=torch.Generator().manual_seed(1))
    for temperature in (1.0, 2.0):
        one, two = (
            losses.by_chunks(states, layer, functools.partial(divergence_from, told, temperature))
            for told in (live, stored)
        )
        torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-3)  # the stored numbers have 16 bits
    assert max(asked) == 8  # no tensor has the logits of all
    assert sum(asked) == 2 * len(stored)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def divergence_from(told, temperature, logits, chunk):
    return losses.top_k_divergence(logits, told[chunk], losses.kl_divergence, temperature=temperature)


@pytest.mark.slow
def test_live_teacher_trains_the_student_of_the_stored_signal(notes, pretrained, distilled, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runs.Run, "cost_ratio", lambda _, phases, to: asked.append((phases, to)) or 2.0)
    words = ("--dataset", notes, "--text-columns", "title", "body", "--teacher", pretrained / "model")
    folder = run(tmp_path, "distill_language_model", *words, "--temperature", 2, "--teacher-signal", "live")
    live = records.read_record(folder)
    stored = records.read_record(distilled)
    assert values(live)["student"] == pytest.approx(values(stored)["student"], rel=1e-3)
    assert values(live)["student"] != values(live)["untrained_student"]
    assert "cache" not in {phase.name for phase in live.phases}
    assert asked == [(["train"], ["train"]), (["probe_soft"], ["probe_label_only"])]  # with and without the teacher
    choices = json.loads((folder / "config.json").read_text())["choices"]
    steps = [value for name, value in choices.items() if name.startswith("label_only_steps")]
    few, many = (live.phase(name).num_examples for name in ("train", "label_only"))
    assert steps[0] == 4 * 2
    assert many / few == steps[-1] / 2
    assert live.phase("probe_soft").num_examples == live.phase("probe_label_only").num_examples
    assert live.result("student").built_by == ["train"]
    assert [event.kind for event in live.events].count("live teacher") == 1


# A student with another tokenizer


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A folder of a small model with a tokenizer of its own."""
    tokenizer = models.new_tokenizer(["other words of another family, cut elsewhere"], vocabulary_size=270)
    folder = tmp_path_factory.mktemp("models") / "stranger"
    made = models.new_language_model(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=48)
    made.transformer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_student_with_another_tokenizer_learns_by_universal_logit_distance(notes, pretrained, stranger, tmp_path):
    words = ("--dataset", notes, "--text-columns", "body", "--teacher", pretrained / "model", "--student", stranger)
    folder = run(tmp_path, "distill_language_model", *words, "--objective", "universal_logit_distance")
    record = records.read_record(folder)
    assert values(record)["student"] != values(record)["untrained_student"]
    assert record.result("student").built_by == ["cache", "pair", "train"]
    assert {result.agreement for result in record.results} == {None}
    assert all("kl_from_teacher" not in result.metrics for result in record.results)
    (pairs,) = (event for event in record.events if event.kind == "pairs")
    assert 0 < pairs.details["num_pairs"] <= pairs.details["num_targets"]
    assert [source.role for source in record.sources if source.kind == "model"] == ["teacher", "base_model"]
    assert len(AutoTokenizer.from_pretrained(folder / "model")) == 270
    assert set(record.result("teacher").metrics) == {"bits_per_byte"}  # all else is per token, which are others for it
    assert {"bits_per_byte", "perplexity"} <= set(record.result("label_only").metrics)


def test_stride_that_the_models_rows_have_no_room_for_is_refused_before_the_teachers_pass(
    notes, stranger, pretrained, tmp_path, capsys
):
    words = ["run", "distill_language_model", "--smoke", "--out", str(tmp_path), "--dataset", str(notes)]
    models_of = ["--text-columns", "body", "--teacher", str(pretrained / "model"), "--student", str(stranger)]
    lengths = ["--objective", "universal_logit_distance", "--max-length", "64", "--stride", "48"]
    assert cli.main([*words, *models_of, *lengths]) == 2
    assert "stride must be in 1 … 47, got 48" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("cache") if path.is_dir()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), r"choose --objective universal_logit_distance, .*distill_sequence_level"),
        (("--objective", "universal_logit_distance", "--teacher-signal", "live"), "choose --teacher-signal stored"),
    ],
)
def test_m7_student_with_another_tokenizer_is_refused_with_what_fits(
    notes, pretrained, stranger, tmp_path, capsys, words, said
):
    models_of = ("--teacher", str(pretrained / "model"), "--student", str(stranger))
    options = ["--smoke", "--out", str(tmp_path), "--dataset", str(notes), "--text-columns", "body", *models_of]
    assert cli.main(["run", "distill_language_model", *options, *words]) == 2
    (sentence,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("smallmodels: "))
    assert re.search(said, sentence)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spare", "signal"),
    [
        ({"teacher": 7}, "stored"),
        pytest.param({"student": 7}, "stored", marks=SLOW),
        pytest.param({"teacher": 7}, "live", marks=SLOW),
    ],
)
def test_named_student_of_the_teachers_family_learns_token_by_token_though_one_has_spare_rows(
    notes, pretrained, distilled, tmp_path, spare, signal
):
    folders = {"teacher": pretrained / "model", "student": distilled / "model"}
    for role, count in spare.items():
        folders[role] = with_spare_rows(folders[role], tmp_path / role, count)
    sizes = [models.vocabulary_size(models.load_language_model(str(folders[role]))[0]) for role in folders]
    assert abs(sizes[0] - sizes[1]) == 7
    words = ("--dataset", notes, "--text-columns", "body", "--max-train", 20, "--teacher-signal", signal)
    named = [word for role, folder in folders.items() for word in (f"--{role}", folder)]
    record = records.read_record(folder := run(tmp_path / "runs", "distill_language_model", *words, *named))
    student, untrained = (record.result(role) for role in ("student", "untrained_student"))
    assert student.metrics["kl_from_teacher"].value > 0
    assert student.agreement.n == untrained.agreement.n > 0
    assert values(record)["student"] != values(record)["untrained_student"]
    assert models.vocabulary_size(TextModel.load(folder / "model")) == sizes[1]


def with_spare_rows(folder, out, count):
    """The same model with rows in its table that no token has."""
    shutil.copytree(folder, out)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(model.get_input_embeddings().weight) + count)
    model.save_pretrained(out)
    return out


def test_encoder_as_a_teacher_of_language_is_refused_in_a_sentence(notes, tiny_model_folder, tmp_path, capsys):
    words = ["run", "distill_language_model", "--smoke", "--out", str(tmp_path), "--dataset", str(notes)]
    code = cli.main([*words, "--text-columns", "body", "--teacher", str(tiny_model_folder)])
    assert code in (2, 4)
    assert capsys.readouterr().err.count("smallmodels: ") == 1
