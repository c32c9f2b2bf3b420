"""Prompts and completions: rows and their targets, templates, answers, adapters."""

import copy
import csv
import dataclasses
import functools
import json
import math
import re
import subprocess
import sys
import time

import numpy as np
import peft
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from small_data import BF16, FP32, Events

from smallmodels import (
    cli,
    data,
    distilling,
    energy,
    generation,
    losses,
    models,
    parts,
    perplexity,
    records,
    runs,
    teachers,
    training,
    verification,
)
from smallmodels.data.splits import Split
from smallmodels.errors import InputError, RunInterruptedError
from smallmodels.evaluation import Contender, windows
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


def read_and_said(rows, tokenizer):
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
    assert read_and_said(rows, model.tokenizer) == expected
    assert rows.ids == split_of().ids


def test_chat_rows_follow_the_models_template_and_end_with_the_answer(chatting):
    rows = data.cut_completions(split_of(), chatting, template="chat", max_length=200)
    read, said = read_and_said(rows, chatting)[3]
    assert read == f"<|im_start|>user\n{PROMPTS[3]}<|endoftext|>\n<|im_start|>assistant\n"
    assert said == f"{COMPLETIONS[3]}<|endoftext|>"  # the line break after it is no part of the answer


def test_template_that_writes_the_date_gives_the_same_rows_on_every_day(chatting):
    chatting.chat_template = "\n{{ strftime_now('%d %b %Y, %Y-%m-%d') }}: " + CHATML
    written = chatting.decode(data.prompt_ids("hello", chatting, "chat"))
    assert written.startswith("\n26 Jul 2024, 2024-07-26: <|im_start|>user\nhello")


def test_token_of_both_prompt_and_answer_is_told_apart(model):
    """As where a tokenizer has a token for the line breaks that end the one and begin the other."""
    tokenizer = models.new_tokenizer(["assistant\n\n\n\nyes"] * 50, vocabulary_size=300)
    tokenizer.chat_template = CHATML
    answers = ["\n\n\nyes", "yes"]
    rows = data.cut_completions(split_of(PROMPTS[:2], answers), tokenizer, template="chat", max_length=300)
    for (read, said), prompt, completion in zip(read_and_said(rows, tokenizer), PROMPTS, answers, strict=False):
        assert read.endswith(f"{prompt}<|endoftext|>\n<|im_start|>assistant\n")
        assert said == f"{completion}<|endoftext|>"
    asked = data.prompt_ids(PROMPTS[0], tokenizer, "chat")
    both = tokenizer(f"{tokenizer.decode(asked)}{answers[0]}", add_special_tokens=False)["input_ids"]
    assert both[: len(asked)] != asked  # else this shows nothing


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
    with pytest.raises(InputError, match=r"takes 64 tokens, but the longest prompt, '.+', has 8 and"):
        generation.answer(model, PROMPTS[:1], template="plain", max_new_tokens=60, compute=FP32)


def test_answers_are_read_back_as_they_were(model, tmp_path):
    options = {"template": "plain", "max_new_tokens": 4, "compute": FP32}
    with energy.Meter("fake") as meter:
        context = Context(energy=functools.partial(meter.read, fresh=True))
        measured = generation.answer(model, PROMPTS[:3], **options, context=context)
    assert measured.cost.components["cpu"].energy_j > 0
    for found in (measured, generation.answer(model, PROMPTS[:3], **options)):
        found.save(tmp_path)
        assert generation.Answers.load(tmp_path) == found


def a_thousand_times_as_fast():
    return 1000 * time.monotonic()


class Stopping:
    """Asks a phase to stop once it has been asked so often."""

    def __init__(self, number):
        self.number = number

    def __call__(self):
        self.number -= 1
        return self.number < 0


def counted(monkeypatch):
    """A list that grows by the prompts of each batch that is written."""
    written, generate = [], generation._generate

    def counting(network, rows, *arguments, **options):
        written.append(rows)
        return generate(network, rows, *arguments, **options)

    monkeypatch.setattr(generation, "_TOKENS_PER_BATCH", 150)
    monkeypatch.setattr(generation, "_generate", counting)
    return written


SAMPLED = {"template": "plain", "max_new_tokens": 6, "temperature": 1.0, "seed": 3, "compute": FP32}


def test_answers_that_were_stopped_go_on_after_the_batches_that_are_there(model, tmp_path, monkeypatch):
    written, whole = counted(monkeypatch), Context()
    expected = generation.answer(model, PROMPTS, **SAMPLED, context=whole)
    num_batches = len(written)
    with pytest.raises(RunInterruptedError, match=f"stopped after 2 of {num_batches} batches, which are kept"):
        generation.answer(model, PROMPTS, **SAMPLED, context=Context(folder=tmp_path, should_stop=Stopping(2)))
    written.clear()
    events, resumed = Events(), Context(folder=tmp_path)
    found = generation.answer(model, PROMPTS, **SAMPLED, context=dataclasses.replace(resumed, event=events))
    assert len(written) == num_batches - 2
    assert found.token_ids == expected.token_ids
    assert [message for _, message, _ in events.rows] == [
        f"2 of {num_batches} batches of answers are there from before, and are not made again"
    ]
    assert resumed.counts == whole.counts
    for name in ("prefill", "decode"):
        assert getattr(found, name).num_tokens == getattr(expected, name).num_tokens
        assert getattr(found, name).duration_s > 0
    parts.remove_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_t2_damaged_batch_of_answers_is_written_again_alone(model, tmp_path, monkeypatch):
    written = counted(monkeypatch)
    expected = generation.answer(model, PROMPTS, **SAMPLED, context=Context(folder=tmp_path))
    path = sorted(tmp_path.glob("parts/*/part-*.json"))[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    written.clear()
    events = Events()
    found = generation.answer(model, PROMPTS, **SAMPLED, context=Context(folder=tmp_path, event=events))
    assert len(written) == 1
    assert found.token_ids == expected.token_ids
    assert events.kinds == ["resume", "part damaged"]


@pytest.mark.parametrize(
    ("factor", "change"), [(1.0, {"seed": 4}), (1.0, {"temperature": 0.0}), (1.0, {"max_new_tokens": 5}), (1.1, {})]
)
def test_batches_of_other_answers_are_not_taken_for_these(model, tmp_path, monkeypatch, factor, change):
    written, other, options = counted(monkeypatch), model.copy(), SAMPLED | change
    with torch.no_grad():
        other.model.transformer.model.embed_tokens.weight.mul_(factor)
    generation.answer(model, PROMPTS[:8], **SAMPLED, context=Context(folder=tmp_path))
    written.clear()
    found = generation.answer(other, PROMPTS[:8], **options, context=Context(folder=tmp_path))
    assert sum(map(len, written)) == 8
    assert found.token_ids == generation.answer(other, PROMPTS[:8], **options).token_ids


def test_t5_teachers_answers_are_shared_by_runs_that_ask_the_same(model, tmp_path, monkeypatch):
    written, events, owing = counted(monkeypatch), Events(), Context()
    options = {"template": "plain", "max_new_tokens": 6, "compute": FP32, "cache": tmp_path}
    first = teachers.write_answers(model, PROMPTS[:8], **options)
    assert sum(map(len, written)) == 8
    again = teachers.write_answers(model, PROMPTS[:8], **options, context=dataclasses.replace(owing, event=events))
    assert sum(map(len, written)) == 8
    assert again == first
    assert events.kinds == ["cache"]
    assert owing.counts.shared_cpu_s > 0
    assert owing.counts.num_tokens is None  # none of it was done now
    for number, change in enumerate(({"max_new_tokens": 5}, {"compute": BF16}), start=2):
        teachers.write_answers(model, PROMPTS[:8], **options | change)
        assert sum(map(len, written)) == 8 * number
    direct = generation.answer(model, PROMPTS[:8], template="plain", max_new_tokens=6, compute=FP32)
    assert first.token_ids == direct.token_ids


def test_cost_of_an_answer_is_said_where_it_was_measured(model):
    """In a run alone, and joules only of a second or more: nothing is said of others, rather than 0."""
    split, options = split_of(PROMPTS[:4], COMPLETIONS[:4]), {"template": "plain", "max_new_tokens": 5, "compute": FP32}
    found = {"outside": generation.evaluate_answers({"student": model}, split, **options).results[0].metrics}
    for name, clock in (("long", a_thousand_times_as_fast), ("short", time.monotonic)):
        with energy.Meter(energy.FakeBackend(clock=clock), clock=clock) as meter:
            context = Context(energy=functools.partial(meter.read, fresh=True))
            (result,) = generation.evaluate_answers({"student": model}, split, **options, context=context).results
            found[name] = result.metrics
    costs = {name: {key for key in of if "_j_" in key or "cpu_s" in key} for name, of in found.items()}
    assert costs == {
        "outside": set(),
        "short": {"cpu_s_per_answer"},
        "long": {"cpu_s_per_answer", "energy_j_per_answer"},
    }
    assert found["long"]["energy_j_per_answer"].value > 10 / 4  # 10 W, and more than a second for four
    lengths = [len(data.prompt_ids(prompt, model.tokenizer, "plain")) for prompt in PROMPTS[:4]]
    assert found["long"]["read_tokens_per_answer"].value == np.mean(lengths)


# What a use costs


class Coarse(energy.FakeBackend):
    """10 W, and gives its last sample again while that is younger than 50 ms, as CodeCarbon does."""

    RESOLUTION_S = 0.05

    def __init__(self):
        super().__init__({"cpu": 10.0})
        self.sampled_s, self.sample = -math.inf, {}

    def read(self):
        now_s = time.monotonic()
        if now_s - self.sampled_s >= self.RESOLUTION_S:
            self.sampled_s, self.sample = now_s, super().read()
        return self.sample


@pytest.mark.slow
def test_joules_of_reading_and_of_writing_are_right_though_both_are_shorter_than_the_backend_resolves(
    model, monkeypatch
):
    monkeypatch.setattr(generation, "_SMOKE_TOKENS", 12)
    options = {"template": "plain", "max_new_tokens": 12, "protocol": "smoke", "window_s": 1.0, "compute": FP32}
    with energy.Meter(Coarse()) as meter:
        context = Context(energy=functools.partial(meter.read, fresh=True))
        (use,) = generation.measure_inference({"student": model}, split_of(), **options, context=context).inference
    (whole,), (reading,), tokens = use.windows, use.tokens.reading_windows, use.tokens
    assert min(whole.duration_s, reading.duration_s) >= 1.0
    assert use.label == "counter"
    whole_s, reading_s = (window.duration_s / window.num_examples for window in (whole, reading))
    assert reading_s * use.batch_size < Coarse.RESOLUTION_S
    assert use.energy_j_per_1000 == pytest.approx(10_000 * whole_s, rel=0.06)  # 50 ms of a second at the edges
    assert tokens.energy_j_per_read.value == pytest.approx(10 * reading_s / tokens.num_read, rel=0.06)
    writing_s = (whole_s - reading_s) / (tokens.num_written - 1)
    assert tokens.energy_j_per_written.value == pytest.approx(10 * writing_s, rel=0.15)
    cpu_s = tokens.cpu_s_per_read.value * tokens.num_read + tokens.cpu_s_per_written.value * (tokens.num_written - 1)
    assert 1000 * cpu_s == pytest.approx(use.cpu_s_per_1000)


def windows_of(*joules, cpu_s=0.5):
    found = windows.Windows()
    for each in joules:
        window = records.InferenceWindow(duration_s=1.0, num_examples=10, energy_j=each, cpu_s=cpu_s)
        found.add(windows.Taken(window, "counter", [1.0]))
    return found


def test_cost_of_a_token_is_none_where_the_windows_do_not_tell_it():
    reading = windows_of(20.0, 21.0, 19.0)
    tokens = generation._token_costs(4.0, 6.0, reading, windows_of(70.0, 71.0, 69.0))
    assert tokens.energy_j_per_read.value == pytest.approx(20 / 10 / 4)
    assert tokens.energy_j_per_written.value == pytest.approx((70 - 20) / 10 / 5)
    assert tokens.energy_j_per_written.low < 1.0 < tokens.energy_j_per_written.high
    assert tokens.cpu_s_per_written is None  # both took as much
    assert tokens.cpu_s_per_read.value == pytest.approx(0.05 / 4)
    assert generation._token_costs(4.0, 6.0, reading, windows_of(19.0, 23.0, 21.0)).energy_j_per_written is None
    assert generation._token_costs(4.0, 1.0, reading, windows_of(70.0)).energy_j_per_written is None
    unknown = generation._token_costs(4.0, 6.0, windows_of(20.0, None), windows_of(70.0))
    assert (unknown.energy_j_per_read, unknown.energy_j_per_written) == (None, None)


def test_use_is_an_answer_up_to_its_end_or_a_text_that_goes_on(model):
    """Models of one shape are measured once, unless they write more or less."""
    few, options = split_of(PROMPTS[:4], COMPLETIONS[:4]), {"max_new_tokens": 5, "compute": FP32}
    first = generation.answer(model, few.texts, template="plain", **options).token_ids
    brief = model.copy()
    brief.model.transformer.generation_config.eos_token_id = sorted({ids[0] for ids in first})
    of_roles = {"student": model, "label_only": model.copy(), "brief": brief, "unigrams": Contender(object())}
    for template, like, written in (("plain", "brief", 1.0), (None, "student", 4.0)):
        found = generation.measure_inference(of_roles, few, template=template, protocol="smoke", **options).inference
        assert [use.role for use in found] == ["student", "label_only", "brief"]
        assert [use.measured_as for use in found] == ["student", "student", like]
        assert [use.tokens.num_written for use in found] == [4.0, 4.0, written]
        for use in found:
            assert (use.energy_j_per_1000, use.label, len(use.windows)) == (None, "missing", 1)
            assert use.tokens.energy_j_per_read is None
            assert use.tokens.num_read > 4
            assert 0 < use.latency_p50_s <= use.latency_p95_s
            assert (use.num_parameters, use.batch_size) == (models.num_parameters(model.model), 4)
            assert use.tokens.reading_windows == found[0].tokens.reading_windows  # which do not depend on the end


@pytest.mark.slow
def test_full_protocol_takes_ten_windows_of_reading_and_of_whole_uses_and_keeps_them(model, tmp_path):
    few = split_of(PROMPTS[:4], COMPLETIONS[:4])
    first = generation.answer(model, few.texts, template="plain", max_new_tokens=5, compute=FP32).token_ids
    brief = model.copy()
    brief.model.transformer.generation_config.eos_token_id = sorted({ids[0] for ids in first})
    how = {"template": "plain", "max_new_tokens": 5, "compute": FP32, "window_s": 0.01, "cache": tmp_path}
    context = Context(fingerprint=lambda: "f", inference_protocol="full")
    uses = [
        generation.measure_inference({"student": each}, few, **how, context=context).inference[0]
        for each in (model, model.copy(), brief)
    ]
    for use, num_written in zip(uses, (5.0, 5.0, 1.0), strict=True):
        assert (use.protocol, len(use.windows), len(use.tokens.reading_windows)) == ("full", 10, 10)
        assert use.tokens.num_written == num_written
        assert use.batch_size in {1, 2, 4, 8}
        typical = [each for each in use.variants if (each.texts, each.number_format) == ("typical", "fp32")]
        assert {each.batch_size for each in typical} == {1, use.batch_size}
        assert {each.mean_tokens for each in typical} == {use.tokens.num_read}
        assert {each.texts for each in use.variants} == {"typical", "short", "long"}
    assert dataclasses.replace(uses[1], measured_in=None) == dataclasses.replace(uses[0], measured_in=None)
    assert uses[2].windows != uses[0].windows  # it writes less, so it is another use


def test_right_answers_have_the_number_or_where_there_is_none_the_same_words():
    texts, completions = ["#### 7", "#### 7", "7", "#### 1,000"], ["x\n#### 7", "#### 8", "#### 7", "#### 1000"]
    assert generation.right_answers(texts, completions) == [True, False, False, True]
    texts = ["#### 7", " a  red\napple", "a red apple!", ""]
    assert generation.right_answers(texts, ["no number", "a red apple", "a red apple", "a"]) == [
        False,
        True,
        False,
        False,
    ]


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


def test_dora_on_weights_in_four_bits_is_refused(base):
    with pytest.raises(InputError, match="dora needs weights that are not in 4 bits"):
        models.add_lora(four_bit(base), rank=2, dora=True)


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


@pytest.mark.parametrize("recipe", ["finetune_language_model", "distill_sequence_level", "distill_on_policy"])
def test_answers_without_room_are_refused_before_anything_is_paid_for(base, tmp_path, recipe, capsys):
    path = write_csv(tmp_path / "sums.csv", zip(PROMPTS, COMPLETIONS, strict=True))
    named = "--base-model" if recipe == "finetune_language_model" else "--teacher"
    words = ["run", recipe, "--smoke", "--out", str(tmp_path / "runs"), "--template", "plain", "--dataset", path]
    assert cli.main([*words, "--max-length", "64", named, str(base), "--max-new-tokens", "60"]) == 2
    assert "takes 64 tokens, but the longest prompt, " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()  # nothing was paid for that could be gone on with


@pytest.mark.parametrize("recipe", ["distill_sequence_level", "distill_on_policy"])
def test_prompt_of_train_without_room_for_an_answer_is_refused_before_anything_is_paid_for(
    base, tmp_path, recipe, capsys
):
    prompts = [*PROMPTS[:20], " and then ".join(PROMPTS[:8]), *PROMPTS[20:]]
    path = write_csv(tmp_path / "sums.csv", zip(prompts, [*COMPLETIONS, "#### 1"], strict=True))
    load = functools.partial(data.load_texts, path, text_columns=("question",), completion_column="answer")
    seed = next(seed for seed in range(20) if prompts[20] in load(split_seed=seed).train.texts)
    words = ["run", recipe, "--smoke", "--out", str(tmp_path / "runs"), "--template", "plain", "--dataset", path]
    sizes = ["--max-length", "64", "--max-new-tokens", "8", "--max-train", "None"]
    assert cli.main([*words, *sizes, "--split-seed", str(seed), "--teacher", str(base)]) == 2
    said = capsys.readouterr().err
    assert f"takes 64 tokens, but the longest prompt, '{PROMPTS[0]} and" in said
    assert "leave it out or shorten it" in said
    assert not (tmp_path / "runs").exists()


class Told:
    """Stands for a run that is told of events."""

    def __init__(self):
        self.messages = []

    def event_once(self, kind, message):
        assert kind in ("too long", "no number")
        self.messages.append(message)


def test_completions_that_are_cut_left_out_or_without_a_number_are_told_of(model):
    long = [*PROMPTS[:38], " and ".join(PROMPTS), PROMPTS[39]]
    cut = [f"{text} {'because ' * 30 * (i < 2)}" for i, text in enumerate(COMPLETIONS)]
    parts = {
        "train": split_of(long, cut),
        "validation": split_of(),
        "test": split_of(PROMPTS[:3], ["a", "#### 2", "c"]),
    }
    splits = data.Splits(
        **{name: dataclasses.replace(part, name=name) for name, part in parts.items()}, label_names=[], source=None
    )
    rows = distilling.cut_answers(run := Told(), splits, model.tokenizer, template="plain", max_length=64)
    assert [len(part) for part in (rows.train, rows.validation, rows.test)] == [39, 40, 3]
    assert run.messages == [
        "1 of 40 examples of train have no room for a completion, and are left out: a larger --max-length keeps them",
        "2 of 39 completions of train are cut at 64 tokens and have no end: a larger --max-length keeps it",
        "2 of 3 completions of test have no number after ####: an answer is right there if it says the same, word for "
        "word",
    ]


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
    assert {use.role for use in record.inference} == {"student", "untrained_student"}
    assert all(use.tokens.num_read > 4 and use.protocol == "smoke" for use in record.inference)
    assert (record.model["template"], record.model["begins_with"]) == ("plain", "<|endoftext|>")
    assert TextModel.load(run / "model").model.config.num_hidden_layers == 2
    assert (run / "adapter").exists() == (adapter != "none")


@pytest.mark.parametrize("adapter", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_recipe_leaves_the_adapter_which_peft_puts_on_the_base_model(base, tmp_path, adapter):
    options = ["--max-steps", "10", "--learning-rate", "2e-2", "--number-format", "fp32"]
    assert cli.main([*words_of_recipe(base, tmp_path, adapter), *options]) == 0
    (run,) = (tmp_path / "runs" / "finetune_language_model").iterdir()
    names = {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert {path.name for path in (run / "adapter").iterdir()} == names
    card, record = ModelCard.load(run / "adapter" / "README.md"), records.read_record(run)
    assert (card.data.library_name, card.data.pipeline_tag) == ("peft", "text-generation")
    assert record.title in card.text
    assert 'AutoModelForCausalLM.from_pretrained("path/to/the/base/model")' in card.text
    assert 'PeftModel.from_pretrained(base, "path/to/this/folder")' in card.text
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
    told = [event.details[f"num_{name}_tokens"] for name in ("written", "kept", "used")]
    assert told[0] > told[1] >= told[2] > 0  # of answers alone, without their prompts
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
    choices = json.loads((run / "config.json").read_text())["choices"]
    steps = [value for name, value in choices.items() if name.startswith("label_only_steps")]
    length, length_of_given = (phase.num_tokens / phase.num_examples for phase in (taught, control))  # a step has all
    assert length != length_of_given
    assert steps[0] == round(2 * 7.5 * length / length_of_given)
    assert control.num_examples == 16 * steps[-1]
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
