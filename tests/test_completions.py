"""Prompts and completions: rows and their targets, templates, answers, adapters."""

import copy
import csv
import dataclasses
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import peft
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from small_data import FP32

from smallmodels import cli, data, energy, generation, losses, models, perplexity, records, runs, training, verification
from smallmodels.data.splits import Split
from smallmodels.errors import InputError
from smallmodels.models import TextModel, adapters
from smallmodels.phases import Context

PROMPTS = [f"what is {i} and {i % 7} together" for i in range(40)]
COMPLETIONS = [f"{i} and {i % 7} is {i + i % 7}\n#### {i + i % 7}" for i in range(40)]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def model():
    tokenizer = models.new_tokenizer([*PROMPTS, *COMPLETIONS], vocabulary_size=300)
    made = models.new_language_model(tokenizer, hidden_size=32, num_layers=2, num_heads=2, max_length=64)
    with torch.no_grad():
        made.model.transformer.model.embed_tokens.weight.mul_(20)
    return made


@pytest.fixture
def chatting(model):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = CHATML
    return tokenizer


def split_of(prompts=PROMPTS, completions=COMPLETIONS):
    ids = [f"train/{i}" for i in range(len(prompts))]
    return Split("train", ids, prompts, completions=completions)


def parts(rows, tokenizer):
    """What is read and what is to be said in each row, as text."""
    tokens, found = rows.tokens, []
    for i in range(len(rows)):
        part = slice(tokens.offsets[i], tokens.offsets[i + 1])
        ids, targets = tokens.ids[part], tokens.targets[part]
        assert (np.diff(targets.astype(int)) >= 0).all()
        found.append((tokenizer.decode(ids[~targets]), tokenizer.decode(ids[targets])))
    return found


# Rows


def test_plain_rows_have_the_completion_and_the_end_as_targets(model):
    rows = data.cut_completions(split_of(), model.tokenizer, template="plain", max_length=64)
    end = "<|endoftext|>"
    expected = [(f"{end}{p}\n", f"{c}{end}") for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert parts(rows, model.tokenizer) == expected
    assert rows.ids == split_of().ids


def test_chat_rows_follow_the_models_template_and_end_with_the_answer(chatting):
    rows = data.cut_completions(split_of(), chatting, template="chat", max_length=200)
    read, said = parts(rows, chatting)[3]
    assert read == f"<|im_start|>user\n{PROMPTS[3]}<|endoftext|>\n<|im_start|>assistant\n"
    assert said == f"{COMPLETIONS[3]}<|endoftext|>"  # the line break after it is no part of the answer


def test_example_without_room_for_its_completion_is_left_out_and_all_of_them_refused(model):
    prompts = [" ".join([prompt] * (1 + i % 4)) for i, prompt in enumerate(PROMPTS)]
    lengths = [len(data.prompt_ids(p, model.tokenizer, "plain")) for p in prompts]
    limit = sorted(lengths)[20]
    rows = data.cut_completions(split_of(prompts), model.tokenizer, template="plain", max_length=limit)
    assert 0 < len(rows) == sum(length < limit for length in lengths) < 40
    assert rows.tokens.lengths.max() <= limit
    assert all(rows.tokens.targets[rows.tokens.offsets[1:] - 1])
    with pytest.raises(InputError, match="larger --max-length"):
        data.cut_completions(split_of(), model.tokenizer, template="plain", max_length=3)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has none: choose --template plain"),
        ("{{ messages | length }} messages", "with and without an answer"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "should write a question and an answer, but: "),
        ("{{ raise_exception('no users here') }}", "no users here: choose --template plain"),
        ("{% for m in messages %", "should write a question and an answer, but: "),
    ],
)
def test_m4_chat_template_that_does_not_fit_or_breaks_out_is_refused_in_a_sentence(model, template, said):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=said):
        data.cut_completions(split_of(), tokenizer, template="chat", max_length=64)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "within 0.2 s, but does not",
        ),
        ("{{ 'x' * 3000000 }}", "at most 1,000,000 characters, but has 3,000,000"),
    ],
    ids=["time", "size"],
)
def test_m4_chat_template_that_takes_too_long_or_writes_too_much_is_refused(model, template, said, monkeypatch):
    from smallmodels.data import completions

    monkeypatch.setattr(completions, "_RENDER_S", 0.2)
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=said):
        data.prompt_ids("hello", tokenizer, "chat")


def test_rows_need_completions(model):
    with pytest.raises(InputError, match="--completion-column"):
        data.cut_completions(split_of(completions=None), model.tokenizer, template="plain", max_length=64)


def test_masked_tokens_have_no_influence_on_loss_and_gradient(model):
    from smallmodels.data import batches

    rows = data.cut_completions(split_of(), model.tokenizer, template="plain", max_length=64)
    batch = batches.collate(rows, np.array([0, 7, 31]))
    network = copy.deepcopy(model.model).requires_grad_(True)
    states, labels = losses.next_tokens(network(**batch.inputs), batch.inputs["input_ids"], batch.targets)
    assert len(labels) == sum(len(model.tokenizer(COMPLETIONS[i])["input_ids"]) + 1 for i in (0, 7, 31))
    logits = network.transformer(**batch.inputs).logits
    expected = [
        float(-logits.detach()[row, place - 1].log_softmax(-1)[batch.inputs["input_ids"][row, place]])
        for row, place in batch.is_target.nonzero().tolist()
    ]
    found = losses.by_chunks(states, network.output_layer, lambda z, chunk: losses.cross_entropy(z, labels[chunk]))
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


# Loading


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["question", "answer"], *rows])
    return str(path)


def test_completions_stay_with_their_prompts_through_every_draw(tmp_path):
    path = write_csv(tmp_path / "sums.csv", zip(PROMPTS, COMPLETIONS, strict=True))
    splits = data.load_texts(path, text_columns=("question",), completion_column="answer", max_train=20)
    right = dict(zip(PROMPTS, COMPLETIONS, strict=True))
    for split in (splits.train, splits.validation, splits.test):
        assert [right[prompt] for prompt in split.texts] == list(split.completions)
    other = data.load_texts(path, text_columns=("question",), completion_column="question", max_train=20)
    assert other.source.fingerprint != splits.source.fingerprint
    with pytest.raises(InputError, match="choose --completion-column from question, answer"):
        data.load_texts(path, text_columns=("question",), completion_column="reply")


# Answers


def test_answers_in_batches_are_those_of_each_prompt_alone(model, monkeypatch):
    monkeypatch.setattr(generation, "_TOKENS_PER_BATCH", 150)
    prompts = [*PROMPTS[:7], "a", "a longer prompt than the others are"]
    context = Context()
    found = generation.answer(model, prompts, template="plain", max_new_tokens=6, compute=FP32, context=context)
    for i, prompt in enumerate(prompts):
        ids = data.prompt_ids(prompt, model.tokenizer, "plain")
        whole = model.model.transformer.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0]
        assert found.texts[i] == model.tokenizer.decode(whole[len(ids) :], skip_special_tokens=True)
        assert found.num_prompt_tokens[i] == len(ids)
        assert found.num_new_tokens[i] == len(whole) - len(ids)
    assert found.prefill.num_tokens == sum(found.num_prompt_tokens)
    assert found.decode.num_tokens == sum(found.num_new_tokens) - len(prompts)
    assert found.prefill.duration_s > 0
    assert context.counts.num_tokens == sum(found.num_prompt_tokens) + sum(found.num_new_tokens)


FAVOURITE = 199
"""Token that a small random model repeats."""
OWN_SETTINGS = {
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "num_beams": 8,
    "suppress_tokens": [FAVOURITE],
    "begin_suppress_tokens": [FAVOURITE],
    "bad_words_ids": [[FAVOURITE]],
    "sequence_bias": [[[FAVOURITE], -40.0]],
    "forced_eos_token_id": 9,
    "guidance_scale": 9.0,
    "max_time": 1e-9,
}
"""Of generation, each of which alone changes greedy answers."""


@pytest.mark.parametrize("name", OWN_SETTINGS)
def test_greedy_answers_are_those_of_the_model_without_settings_of_its_own(model, name):
    unsure, prompts = model.copy(), PROMPTS[:8]
    with torch.no_grad():
        unsure.model.transformer.model.embed_tokens.weight.mul_(0.1)
    changed = unsure.copy()
    own = changed.model.transformer.generation_config
    setattr(own, name, OWN_SETTINGS[name])
    options = {"template": "plain", "max_new_tokens": 6, "compute": FP32}
    expected, found = (generation.answer(m, prompts, **options).token_ids for m in (unsure, changed))
    assert found == expected
    assert expected[0][0] == FAVOURITE
    assert changed.model.transformer.generation_config is own
    for prompt, ids in zip(prompts, expected, strict=True):
        read = torch.tensor([data.prompt_ids(prompt, model.tokenizer, "plain")])
        plain = changed.model.transformer.generate(read, max_new_tokens=6, do_sample=False, tokenizer=model.tokenizer)
        assert plain[0, read.shape[1] :].tolist() != ids


def test_answer_that_does_not_fit_into_the_model_is_refused(model):
    with pytest.raises(InputError, match="takes 64 tokens, but the longest prompt has"):
        generation.answer(model, PROMPTS[:1], template="plain", max_new_tokens=60, compute=FP32)


def test_answers_are_read_back_as_they_were(model, tmp_path):
    found = generation.answer(model, PROMPTS[:3], template="plain", max_new_tokens=4, compute=FP32)
    found.save(tmp_path)
    assert generation.Answers.load(tmp_path) == found


def test_cost_of_an_answer_is_said_where_it_was_measured(model):
    """In a run, whose clock of CPU-seconds is the context's; nothing is said of it outside of one, rather than 0."""
    cpu_s = itertools.count(10.0, 2.0)
    reading = energy.EnergyReading(duration_s=0.0, cpu_s=0.0, components={})
    measured = Context(energy=lambda: dataclasses.replace(reading, cpu_s=next(cpu_s)))
    split, options = split_of(PROMPTS[:4], COMPLETIONS[:4]), {"template": "plain", "max_new_tokens": 5, "compute": FP32}
    inside, outside = (
        generation.evaluate_answers({"student": model}, split, **options, context=context).results[0].metrics
        for context in (measured, Context())
    )
    assert inside["cpu_s_per_answer"].value == 2 * 2.0 / 4  # from before to the first token, and from there to the last
    lengths = [len(data.prompt_ids(prompt, model.tokenizer, "plain")) for prompt in PROMPTS[:4]]
    assert inside["read_tokens_per_answer"].value == np.mean(lengths)
    assert "cpu_s_per_answer" not in outside
    assert "energy_j_per_answer" not in outside


def test_right_answers_need_a_number_on_both_sides():
    texts, completions = ["#### 7", "#### 7", "7", "#### 1,000"], ["x\n#### 7", "#### 8", "#### 7", "#### 1000"]
    assert generation.right_answers(texts, completions) == [True, False, False, True]
    assert generation.right_answers(["#### 7"], ["no number"]) == [False]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("she has 3.\n#### 1,234", "1234"),
        ("#### -5", "-5"),
        ("#### 3.50", "3.50"),
        ("#### 1 #### 2", "1"),
        ("the answer is 7", None),
        ("####7", None),
        ("", None),
    ],
)
def test_gsm8k_answer_is_extracted_as_in_the_official_code(text, number):
    assert generation.gsm8k_answer(text) == number


# Adapters


@pytest.fixture(scope="module")
def base(model, tmp_path_factory):
    """The model as a folder."""
    folder = tmp_path_factory.mktemp("models") / "base"
    model.transformer.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def four_bit(folder):
    pytest.importorskip("bitsandbytes")  # which can do it on a processor too, slowly
    return models.load_language_model(str(folder), max_length=64, four_bit=True)[0]


@pytest.mark.parametrize("adapter", ["lora", "dora", "qlora"])
def test_adapters_alone_are_trained_and_end_in_a_model_that_plain_transformers_load(model, base, tmp_path, adapter):
    rows = data.cut_completions(split_of(), model.tokenizer, template="plain", max_length=64)
    start = four_bit(base) if adapter == "qlora" else model
    adapted = models.add_lora(start, rank=2, dora=adapter == "dora")
    assert models.is_adapted(adapted.model)
    assert not models.is_adapted(start.model)

    def loss_fn(network, batch):
        states, labels = losses.next_tokens(network(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        return losses.by_chunks(states, network.output_layer, lambda z, chunk: losses.cross_entropy(z, labels[chunk]))

    config = training.TrainConfig(learning_rate=2e-2, max_steps=20, batch_size=8)
    before = perplexity.row_losses(model, rows, compute=FP32).nats.sum()
    student = training.fit(adapted, rows, loss_fn, config, compute=FP32)
    assert not models.is_adapted(student.model)
    after = perplexity.row_losses(student, rows, compute=FP32).nats.sum()
    assert after < 0.9 * before
    table = "transformer.model.embed_tokens.weight"
    assert torch.equal(student.model.state_dict()[table], model.model.state_dict()[table])
    student.save(tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([data.prompt_ids(PROMPTS[0], model.tokenizer, "plain")])
    torch.testing.assert_close(plain(ids).logits, student.model.transformer(ids).logits)


def test_weights_in_four_bits_stay_as_they_are_and_the_merged_model_is_what_was_trained(base):
    start = four_bit(base)
    adapted = models.add_lora(start, rank=2)
    assert adapted.notes["adapters_trained_on"] == "nf4"
    assert models.size_bytes(start.model) < 0.6 * models.size_bytes(models.load_language_model(str(base))[0].model)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        plain, trained = (m.model.transformer(ids).logits for m in (start, adapted))
        merged = models.merge_adapter(adapted)
        found = merged.model.transformer(ids).logits
    change = (trained - plain).abs().mean()
    assert (found - trained).abs().mean() < 0.02 * change  # they are multiplied in bf16 in one, in float32 in the other
    assert {parameter.dtype for parameter in merged.model.parameters()} == {torch.float32}
    assert getattr(merged.model.config, "quantization_config", None) is None


def test_operations_of_weights_in_four_bits_are_those_of_all_weights(base):
    lengths = np.array([10])
    expected = models.num_operations(models.load_language_model(str(base))[0].model, lengths)
    assert models.num_operations(four_bit(base).model, lengths) == expected


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cpu", "qlora needs a GPU with CUDA, but this run is on cpu: take lora, which works here"),
        ("cuda", "qlora needs bitsandbytes, which is not installed: pip install 'smallmodels[qlora]', or take lora"),
    ],
)
def test_four_bits_are_refused_where_they_cannot_be_had(monkeypatch, device, sentence):
    monkeypatch.setattr(adapters, "pick_device", lambda name: device)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=re.escape(sentence)):
        models.require_four_bit()


# The recipe


def words_of_recipe(base, tmp_path, adapter):
    path = write_csv(tmp_path / "sums.csv", zip(PROMPTS, COMPLETIONS, strict=True))
    words = ["run", "finetune_language_model", "--smoke", "--out", str(tmp_path / "runs"), "--template", "plain"]
    sizes = ["--max-length", "64", "--lora-rank", "2", "--adapter", adapter, "--base-model", str(base)]
    return [*words, *sizes, "--dataset", path, "--max-test", "3"]


def test_recipe_refuses_qlora_without_a_gpu_before_any_work(base, tmp_path, capsys):
    assert cli.main([*words_of_recipe(base, tmp_path, "qlora"), "--device", "cpu"]) == 2
    assert capsys.readouterr().err == (
        "smallmodels: qlora needs a GPU with CUDA, but this run is on cpu: take lora, which works here\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "adapter", ["none", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dora", "qlora"))]
)
def test_recipe_leaves_a_complete_record_with_answers_and_their_cost(base, tmp_path, adapter, monkeypatch):
    if adapter == "qlora":
        pytest.importorskip("bitsandbytes")
        monkeypatch.setattr(models, "require_four_bit", lambda device: None)  # slow on a processor, but the same path
    assert cli.main(words_of_recipe(base, tmp_path, adapter)) == 0
    (run,) = (tmp_path / "runs" / "finetune_language_model").iterdir()
    record = records.read_record(run)
    assert {result.role for result in record.results} == {"student", "untrained_student"}
    for result in record.results:
        assert {"exact_match", "perplexity", "new_tokens_per_answer"} <= set(result.metrics)
    assert record.phase("answer").num_tokens > 0
    assert TextModel.load(run / "model").model.config.num_hidden_layers == 2
    assert (run / "adapter").exists() == (adapter != "none")


@pytest.mark.parametrize("adapter", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_recipe_leaves_the_adapter_which_peft_puts_on_the_base_model(base, tmp_path, adapter):
    options = ["--max-steps", "10", "--learning-rate", "2e-2", "--number-format", "fp32"]
    assert cli.main([*words_of_recipe(base, tmp_path, adapter), *options]) == 0
    (run,) = (tmp_path / "runs" / "finetune_language_model").iterdir()
    assert {path.name for path in (run / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == base.name
    assert str(base) not in (run / "adapter" / "adapter_config.json").read_text()
    assert "adapter/adapter_model.safetensors" in verification.verify(run).files
    merged = transformers.AutoModelForCausalLM.from_pretrained(run / "model").eval()
    plain = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(run / "model")(PROMPTS[3], return_tensors="pt")
    with torch.no_grad():
        before = plain(**inputs).logits
        adapted = peft.PeftModel.from_pretrained(plain, run / "adapter").eval()
        expected, found = merged(**inputs).logits, adapted(**inputs).logits
    assert (expected - before).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    options = {"max_new_tokens": 12, "do_sample": False}
    assert torch.equal(adapted.generate(**inputs, **options), merged.generate(**inputs, **options))


@pytest.mark.gpu
def test_recipe_trains_on_weights_in_four_bits_on_a_gpu(base, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    pytest.importorskip("bitsandbytes")
    assert cli.main([*words_of_recipe(base, tmp_path, "qlora"), "--device", "cuda"]) == 0
    (run,) = (tmp_path / "runs" / "finetune_language_model").iterdir()
    assert records.read_record(run).model["adapters_trained_on"] == "nf4"
    assert TextModel.load(run / "model").model.config.num_hidden_layers == 2


@pytest.fixture(scope="module")
def sums():
    """A model that has learned which number comes next, and to write it as GSM8K does."""
    prompts = [f"after {i} comes" for i in range(100)]
    completions = [f"#### {i + 1}" for i in range(100)]
    tokenizer = models.new_tokenizer([*prompts, *completions], vocabulary_size=290)
    base = models.new_language_model(tokenizer, hidden_size=64, num_layers=2, num_heads=4, max_length=32)
    split = Split("train", [str(i) for i in range(100)], prompts, completions=completions)
    rows = data.cut_completions(split, tokenizer, template="plain", max_length=32)

    def loss_fn(network, batch):
        states, labels = losses.next_tokens(network(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        return losses.by_chunks(states, network.output_layer, lambda z, chunk: losses.cross_entropy(z, labels[chunk]))

    config = training.TrainConfig(learning_rate=5e-3, max_steps=200, batch_size=32)
    return training.fit(base, rows, loss_fn, config, compute=FP32), split


@pytest.mark.slow
def test_student_of_written_answers_learns_from_those_that_are_right(sums, tmp_path):
    teacher, split = sums
    folder = tmp_path / "teacher"
    teacher.transformer.save_pretrained(folder)
    teacher.tokenizer.save_pretrained(folder)
    right = generation.right_answers(
        generation.answer(teacher, split.texts, template="plain", max_new_tokens=8, compute=FP32).texts,
        split.completions,
    )
    assert sum(right) > 50  # else there is nothing to learn from it
    path = write_csv(tmp_path / "sums.csv", zip(split.texts, split.completions, strict=True))
    words = ["run", "distill_sequence_level", "--out", str(tmp_path / "runs"), "--template", "plain"]
    model = ["--teacher", str(folder), "--hidden-size", "64", "--num-layers", "2", "--max-length", "32"]
    length = ["--max-new-tokens", "8", "--max-steps", "100", "--learning-rate", "5e-3", "--batch-size", "32"]
    options = ["--num-evaluations", "1", "--number-format", "fp32"]
    assert cli.main([*words, *model, *length, *options, "--dataset", path]) == 0
    (run,) = (tmp_path / "runs" / "distill_sequence_level").iterdir()
    record = records.read_record(run)
    (event,) = (event for event in record.events if event.kind == "answers")
    written, used = event.details["num_written"], event.details["num_used"]
    assert written == 81
    assert used == event.details["num_right"] <= written
    assert record.phase("write").num_tokens > 0
    assert record.phase("write").cpu_s > 0
    taught = {result.role: result.metrics["perplexity"].value for result in record.results}
    assert taught["student"] < 0.5 * taught["untrained_student"]
    near, far = (record.result(role) for role in ("student", "untrained_student"))
    assert near.agreement.value > far.agreement.value
    assert near.metrics["kl_from_teacher"].value < far.metrics["kl_from_teacher"].value
    assert record.result("teacher").agreement is None


def test_teacher_without_a_right_answer_is_refused_in_a_sentence(model, tmp_path, capsys):
    folder = tmp_path / "teacher"
    model.transformer.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    path = write_csv(tmp_path / "sums.csv", zip(PROMPTS, COMPLETIONS, strict=True))
    words = ["run", "distill_sequence_level", "--smoke", "--no-keep-wrong", "--out", str(tmp_path / "runs")]
    options = ["--template", "plain", "--max-length", "64", "--teacher", str(folder), "--dataset", path]
    assert cli.main([*words, *options]) == 2
    assert "should answer some of 16 prompts rightly, but did not" in capsys.readouterr().err


@pytest.mark.slow
def test_student_with_another_tokenizer_learns_what_the_teacher_writes(sums, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runs.Run, "cost_ratio", lambda _, phases, to: asked.append((phases, to)) or 7.5)
    teacher, split = sums
    tokenizer = models.new_tokenizer(["another family"], vocabulary_size=270)
    stranger = models.new_language_model(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=96)
    for name, made in (("teacher", teacher), ("stranger", stranger)):
        made.transformer.save_pretrained(tmp_path / name)
        made.tokenizer.save_pretrained(tmp_path / name)
    path = write_csv(tmp_path / "sums.csv", zip(split.texts, split.completions, strict=True))
    words = ["run", "distill_sequence_level", "--smoke", "--out", str(tmp_path / "runs"), "--template", "plain"]
    options = ["--teacher", str(tmp_path / "teacher"), "--student", str(tmp_path / "stranger"), "--dataset", path]
    assert cli.main([*words, *options, "--max-length", "96"]) == 0
    (run,) = (tmp_path / "runs" / "distill_sequence_level").iterdir()
    record = records.read_record(run)
    results = {result.role: result.metrics for result in record.results}
    assert "perplexity" in results["student"]
    assert "perplexity" not in results["teacher"]  # per token, which are others for it
    assert set(results["teacher"]) >= {"exact_match"}
    assert set(results["label_only"]) == set(results["student"])
    assert record.result("label_only").built_by == ["label_only"]
    assert asked == [(["write", "train"], ["train"])]
    taught, control = (record.phase(name) for name in ("train", "label_only"))
    steps = json.loads((run / "config.json").read_text())["choices"]["label_only_steps"]
    length, length_of_given = (phase.num_tokens / phase.num_examples for phase in (taught, control))  # a step has all
    assert length != length_of_given
    assert steps == round(2 * 7.5 * length / length_of_given)
    assert control.num_examples == 16 * steps
    assert len(TextModel.load(run / "model").tokenizer) == len(tokenizer)


# On real questions


@pytest.fixture(scope="module")
def chat_model(model, tmp_path_factory):
    """A folder of a small random model that talks in a form of its own and has room for a question of GSM8K."""
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = CHATML
    made = models.new_language_model(tokenizer, hidden_size=32, num_layers=2, num_heads=2, max_length=1024)
    with torch.no_grad():
        for matrix in (p for p in made.model.parameters() if p.ndim > 1):
            matrix.mul_(20)  # else it may write nothing but blanks
    folder = tmp_path_factory.mktemp("models") / "chat"
    made.transformer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.hub
@pytest.mark.parametrize(
    ("recipe", "flag"), [("distill_sequence_level", "--teacher"), ("finetune_language_model", "--base-model")]
)
def test_recipe_runs_on_gsm8k_of_the_hub_in_the_models_own_form_of_a_dialogue(
    hub, hub_home, chat_model, tmp_path, recipe, flag
):
    words = ["run", recipe, "--smoke", "--template", "chat", "--max-length", "1024", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "smallmodels", *words, flag, str(chat_model)],
        env=hub.environment(hub_home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / recipe).iterdir()
    record = verification.verify(folder)
    (source,) = (source for source in record.sources if source.kind == "dataset")
    assert source.name == "openai/gsm8k"
    assert source.license == "mit"
    for result in record.results:
        assert result.metrics["exact_match"].n == record.config["max_test"]
        assert np.isfinite(result.metrics["perplexity"].value)
    answers = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert len(answers) == record.config["max_test"]
    assert transformers.AutoTokenizer.from_pretrained(folder / "model").chat_template == CHATML
    if recipe == "distill_sequence_level":
        (event,) = (event for event in record.events if event.kind == "answers")
        assert event.details["num_written"] == record.config["max_train"]
        assert 0 < event.details["num_used"] <= event.details["num_kept"]
        assert record.phase("write").num_tokens > event.details["num_written_tokens"] > 0
