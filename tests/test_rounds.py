"""Learning in rounds from what the student writes: samples, their rows, what is repeated, and the whole recipe."""

import copy
import csv
import functools
import json

import numpy as np
import pytest
import torch
from small_data import FP32, Events

from smallmodels import cli, data, generation, losses, models, perplexity, records, rounds, teachers, training
from smallmodels.data.splits import Split
from smallmodels.errors import InputError
from smallmodels.models import TextModel
from smallmodels.phases import Context
from smallmodels.teachers import Packing

PROMPTS = [f"what is {i} and {i % 7} together" for i in range(40)]
COMPLETIONS = [f"{i} and {i % 7} is {i + i % 7}\n#### {i + i % 7}" for i in range(40)]
ANSWER = {"template": "plain", "compute": FP32}


def new_model(tokenizer, seed=0):
    made = models.new_language_model(tokenizer, hidden_size=32, num_layers=2, num_heads=2, max_length=64, seed=seed)
    with torch.no_grad():
        made.model.transformer.model.embed_tokens.weight.mul_(4)  # else all tokens are about equally likely
    return made


@pytest.fixture(scope="module")
def model():
    return new_model(models.new_tokenizer([*PROMPTS, *COMPLETIONS], vocabulary_size=300))


@pytest.fixture(scope="module")
def prompts():
    return Split("train", [f"train/{i}" for i in range(40)], PROMPTS, completions=COMPLETIONS)


# Samples


def test_samples_depend_on_the_seed_alone_and_leave_the_global_state(model, monkeypatch):
    monkeypatch.setattr(generation, "_TOKENS_PER_BATCH", 150)  # several batches
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = generation.answer(model, PROMPTS, max_new_tokens=6, temperature=1.0, seed=3, **ANSWER)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = generation.answer(model, PROMPTS, max_new_tokens=6, temperature=1.0, seed=3, **ANSWER)
    assert again.token_ids == first.token_ids
    other = generation.answer(model, PROMPTS, max_new_tokens=6, temperature=1.0, seed=4, **ANSWER)
    assert sum(map(lambda a, b: a != b, other.token_ids, first.token_ids)) > 30


def test_batches_draw_other_samples_for_the_same_prompt(model, monkeypatch):
    monkeypatch.setattr(generation, "_TOKENS_PER_BATCH", 1)  # each prompt alone
    found = generation.answer(model, PROMPTS[:1] * 8, max_new_tokens=6, temperature=1.0, **ANSWER)
    assert len(set(map(tuple, found.token_ids))) > 4


def test_without_temperature_the_seed_changes_nothing(model):
    found = [generation.answer(model, PROMPTS[:3], max_new_tokens=6, seed=seed, **ANSWER) for seed in (0, 1)]
    assert found[0].token_ids == found[1].token_ids


def test_answer_ends_at_any_token_that_the_model_ends_at(model):
    whole = generation.answer(model, PROMPTS[:3], max_new_tokens=8, temperature=1.0, **ANSWER).token_ids
    ends = [row[2] for row in whole]
    changed = model.copy()
    changed.transformer.generation_config.eos_token_id = [model.tokenizer.eos_token_id, *ends]
    found = generation.answer(changed, PROMPTS[:3], max_new_tokens=8, temperature=1.0, **ANSWER).token_ids
    assert [row[:1] for row in found] == [row[:1] for row in whole]
    for row in found:
        assert len(row) <= 3
        assert row[-1] in ends
        assert not set(row[:-1]) & set(ends)


CUTS = {"min_p": 0.2, "typical_p": 0.2, "top_h": 0.2, "epsilon_cutoff": 0.05, "eta_cutoff": 0.9, "top_p": 0.2}
CUTS |= {"temperature": 0.1, "top_k": 2, "repetition_penalty": 2.0, "num_beams": 2, "suppress_tokens": [1, 2, 3]}
"""What a model's own settings of generation may make of its distribution."""


@pytest.mark.parametrize(("temperature", "settings"), [(0.7, {}), (1.5, {}), (1.5, CUTS)], ids=["0.7", "1.5", "cuts"])
def test_samples_are_drawn_from_the_whole_softened_distribution(model, temperature, settings):
    count, prompt = 4000, PROMPTS[0]
    options = {"max_new_tokens": 1, "temperature": temperature, **ANSWER}
    changed = model.copy()
    vars(changed.model.transformer.generation_config).update(settings)
    found = generation.answer(changed, [prompt] * count, **options)
    ids = torch.tensor([data.prompt_ids(prompt, model.tokenizer, "plain")])
    with torch.no_grad():
        logits = model.model.transformer(ids).logits[0, -1].double()
    expected = (logits / temperature).softmax(-1).sort(descending=True)
    drawn = torch.bincount(torch.tensor([row[0] for row in found.token_ids]), minlength=len(logits)) / count
    rare = float(expected.values[50:].sum())
    assert rare > 0.2  # what transformers leaves out unless told otherwise
    for part in (slice(0, 1), slice(0, 10), slice(50, None)):
        share = float(expected.values[part].sum())
        spread = 4 * (share * (1 - share) / count) ** 0.5
        assert float(drawn[expected.indices[part]].sum()) == pytest.approx(share, abs=spread)


@pytest.mark.parametrize("name", CUTS)
def test_samples_are_those_of_the_model_without_settings_of_its_own(model, name):
    options = {"max_new_tokens": 6, "temperature": 1.0, "seed": 2, **ANSWER}
    changed = model.copy()
    setattr(changed.model.transformer.generation_config, name, CUTS[name])
    expected, found = (generation.answer(m, PROMPTS, **options).token_ids for m in (model, changed))
    assert found == expected


def test_tokens_that_the_teacher_does_not_have_are_never_written(model, prompts):
    writer = model.copy()
    writer.transformer.resize_token_embeddings(models.vocabulary_size(model) + 7)
    with torch.no_grad():
        writer.transformer.get_input_embeddings().weight[-7:] = 3 * writer.transformer.get_input_embeddings().weight[:7]
    how = {"template": "plain", "max_new_tokens": 12, "temperature": 1.5, "compute": FP32}
    limit = models.vocabulary_size(model)
    written = generation.answer(writer, prompts.texts, **how).token_ids
    assert max(map(max, written)) >= limit  # else this shows nothing
    written = generation.answer(writer, prompts.texts, **how, num_classes=limit).token_ids
    assert max(map(max, written)) < limit


def test_negative_temperature_is_refused(model):
    with pytest.raises(InputError, match="temperature must be >= 0, got -1"):
        generation.answer(model, PROMPTS[:1], max_new_tokens=1, temperature=-1.0, **ANSWER)


# Rows of a round


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_written_tokens_stay_as_they_are_and_others_keep_their_completion(model, prompts, template):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}<|endoftext|>{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}assistant\n{% endif %}"
    some = prompts.take([4, 5, 6])
    own = [7, 7, 299, 0]  # what it says would be read as other tokens, and it has no end
    rows = data.cut_completions(some, tokenizer, template=template, max_length=64, written=[None, own, None])
    plain = data.cut_completions(some, tokenizer, template=template, max_length=64)
    tokens = rows.require_tokens()
    second = slice(tokens.offsets[1], tokens.offsets[2])
    assert tokens.ids[second][tokens.targets[second]].tolist() == own
    asked = data.prompt_ids(PROMPTS[5], tokenizer, template)
    assert tokens.ids[second][~tokens.targets[second]].tolist() == asked
    for place in (0, 2):
        assert rows.take([place]).tokens.ids.tolist() == plain.take([place]).tokens.ids.tolist()


def test_rounds_take_every_prompt_once_before_they_begin_anew(prompts):
    taken = [rounds.prompts_of(prompts, number, size=15, seed=1) for number in range(4)]
    names = [name.partition("/")[2] for part in taken for name in part.ids]
    assert sorted(names[:40]) == sorted(prompts.ids)
    assert names[40:] == names[:20]
    assert len({name for part in taken for name in part.ids}) == 60
    right = dict(zip(PROMPTS, COMPLETIONS, strict=True))
    assert all(right[text] == part.completions[i] for part in taken for i, text in enumerate(part.texts))
    assert list(rounds.prompts_of(prompts, 0, size=15, seed=2).texts) != list(taken[0].texts)
    assert len(rounds.prompts_of(prompts, 3, size=99, seed=1)) == 40


def write(model, prompts, **changed):
    options = {"on_policy_share": 1.0, "max_length": 64, "max_new_tokens": 6, "temperature": 1.0, "seed": 2, **ANSWER}
    return rounds.write(model, prompts, **{**options, **changed})


def test_a_round_is_what_the_student_wrote_with_its_hash_and_tokens(model, prompts):
    events = Events()
    found = write(model, prompts, context=Context(event=events))
    assert len(found.rows) == 40
    assert found.num_used_tokens == found.num_generated_tokens == int(found.rows.tokens.targets.sum())
    assert found.sha256 == write(model, prompts).sha256 != write(model, prompts, seed=3).sha256
    assert events.kinds == ["samples"]


def test_tokens_that_are_cut_off_count_as_generated_and_not_as_used(model, prompts):
    longest = max(len(data.prompt_ids(text, model.tokenizer, "plain")) for text in PROMPTS)
    found = write(model, prompts, max_length=longest + 1)
    assert 0 < found.num_used_tokens == int(found.rows.tokens.targets.sum()) < found.num_generated_tokens


@pytest.mark.parametrize(("share", "num_own"), [(0.0, 0), (0.25, 10), (1.0, 40)])
def test_share_of_prompts_is_on_policy_and_the_others_have_their_right_completion(model, prompts, share, num_own):
    found = write(model, prompts, on_policy_share=share)
    plain = data.cut_completions(prompts, model.tokenizer, template="plain", max_length=64)
    same = [found.rows.take([i]).tokens.fingerprint() == plain.take([i]).tokens.fingerprint() for i in range(40)]
    assert same.count(False) == num_own
    assert found.num_used_tokens == sum(found.rows.take(np.flatnonzero(~np.array(same))).tokens.targets)


# What is repeated


@pytest.mark.parametrize(
    ("on_new", "on_earlier", "at_most", "share"),
    [(3.0, 1.0, 0.5, 0.25), (1.0, 1.0, 0.5, 0.5), (1.0, 3.0, 0.5, 0.5), (1.0, 3.0, 0.9, 0.75), (2.0, 0.0, 0.5, 0.0)],
)
def test_share_of_earlier_rows_is_that_of_what_is_left_to_learn_there(on_new, on_earlier, at_most, share):
    assert rounds.replay_share(on_new, on_earlier, at_most=at_most) == share


def test_nothing_is_repeated_where_nothing_is_left_to_learn():
    assert rounds.replay_share(0.0, 0.0, at_most=0.5) == 0.0


def divergence(network, states, told):
    return losses.by_chunks(
        states,
        network.output_layer,
        lambda logits, chunk: losses.top_k_divergence(logits, told[chunk], losses.kl_divergence, temperature=1.0),
    )


@pytest.fixture(scope="module")
def scored(model, prompts, tmp_path_factory):
    """New and earlier rows with a teacher's word on them, which is all 300 tokens of it."""
    teacher, cache = new_model(model.tokenizer, seed=1), tmp_path_factory.mktemp("cache")
    packing = Packing(300, (1.0,), 300)

    def of(rows):
        signals = teachers.store_token_signals(teacher, rows, packing=packing, compute=FP32, cache=cache)
        return rows.with_signals(signals)

    new, earlier = prompts.take(range(12)), prompts.take(range(12, 40))
    return teacher, of(write(model, new).rows), of(write(model, earlier).rows)


def test_mean_divergence_is_that_of_plain_logits_over_all_targets(model, scored):
    teacher, rows, _ = scored
    tokens, found = rows.tokens, []
    for i in range(len(rows)):
        part = slice(tokens.offsets[i], tokens.offsets[i + 1])
        ids = torch.from_numpy(tokens.ids[part].astype(np.int64))[None]
        with torch.no_grad():
            p, q = (one.model.transformer(ids).logits[0, :-1].double().log_softmax(-1) for one in (teacher, model))
        found.append((p.exp() * (p - q)).sum(-1)[torch.from_numpy(tokens.targets[part][1:].copy())])
    context = Context()
    value = rounds.mean_divergence(model, rows, divergence, compute=FP32, context=context)
    assert value == pytest.approx(float(torch.cat(found).mean()), rel=1e-3)  # stored in 16 bits
    assert context.counts.num_tokens == len(tokens.ids)


def test_replay_repeats_its_share_of_earlier_rows_each_once(model, scored):
    _, new, earlier = scored
    events = Events()
    options = {"at_most": 0.6, "seed": 1, "compute": FP32}
    found = rounds.replay(model, new, earlier, divergence, **options, context=Context(event=events))
    assert events.kinds == ["replay"]
    assert 0.3 < len(found.places) / (len(found.places) + 12) < 0.6  # random models are as far on both
    assert len(set(found.places)) == len(found.places)
    assert found.num_tokens == int(earlier.take(found.places).tokens.targets.sum())
    assert rounds.replay(model, new, earlier, divergence, **options) == found
    other = rounds.replay(model, new, earlier, divergence, at_most=0.6, seed=2, compute=FP32)
    assert other.places != found.places


def test_share_of_a_replay_comes_from_divergences_on_new_and_on_earlier_rows(model, scored):
    _, new, earlier = scored
    events = Events()
    few = earlier.take(range(8))  # all of them are drawn
    rounds.replay(model, new, few, divergence, at_most=0.9, seed=1, compute=FP32, context=Context(event=events))
    ((_, _, details),) = events.rows
    parts = {"divergence_on_new_rows": new, "divergence_on_earlier_rows": few}
    measured = {name: rounds.mean_divergence(model, part, divergence, compute=FP32) for name, part in parts.items()}
    assert {name: details[name] for name in parts} == pytest.approx(measured, rel=1e-5)
    assert details["replay_share"] == rounds.replay_share(*(details[name] for name in parts), at_most=0.9)
    assert measured["divergence_on_new_rows"] != pytest.approx(measured["divergence_on_earlier_rows"], rel=1e-3)


def test_replay_takes_what_there_is_and_measures_nothing_without_a_share(model, scored):
    _, new, earlier = scored
    few = earlier.take([0, 1])
    assert rounds.replay(model, new, few, divergence, at_most=0.9, seed=1, compute=FP32).places == [0, 1]
    context = Context()
    nothing = rounds.replay(model, new, earlier, divergence, at_most=0.0, seed=1, compute=FP32, context=context)
    assert nothing.places == []
    assert context.counts.num_tokens is None


def test_joined_rows_keep_the_teachers_word_on_each(model, scored):
    _, new, earlier = scored
    chosen = earlier.take([5, 3])
    joined = new.join(chosen)
    assert joined.ids == [*new.ids, *chosen.ids]
    for part, places in ((new, range(12)), (chosen, (12, 13))):
        again = joined.take(list(places))
        assert again.tokens.fingerprint() == part.tokens.fingerprint()
        assert np.array_equal(again.teacher.packed, part.teacher.packed)
    apart = [rounds.mean_divergence(model, part, divergence, compute=FP32) for part in (new, chosen)]
    weights = [rounds.num_targets(part) for part in (new, chosen)]
    together = rounds.mean_divergence(model, joined, divergence, compute=FP32)
    assert together == pytest.approx(float(np.average(apart, weights=weights)), rel=1e-5)


# The recipe


@pytest.fixture(scope="module")
def files_of(model, tmp_path_factory):
    """A teacher with spare rows, another model with its tokenizer, one with another tokenizer, and questions."""
    folder = tmp_path_factory.mktemp("own")
    other = models.new_tokenizer(PROMPTS, vocabulary_size=280)
    teacher = model.copy()
    teacher.transformer.resize_token_embeddings(models.vocabulary_size(model) + 5)
    for name, made in (("teacher", teacher), ("student", new_model(model.tokenizer, 1)), ("other", new_model(other))):
        made.transformer.save_pretrained(folder / name)
        made.tokenizer.save_pretrained(folder / name)
    with (folder / "sums.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["question", "answer"], *zip(PROMPTS, COMPLETIONS, strict=True)])
    return folder


def words(files_of, out, *more):
    of_files = ["--teacher", files_of / "teacher", "--dataset", files_of / "sums.csv", "--out", out]
    sizes = ["--template", "plain", "--max-length", "64", "--number-format", "fp32"]
    return ["run", "distill_on_policy", "--smoke", *map(str, [*of_files, *sizes, *more])]


@pytest.fixture(scope="module")
def run(files_of, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    sizes = ("--num-rounds", 3, "--max-steps", 20, "--batch-size", 8, "--learning-rate", 5e-3, "--k", 32)
    sizes += ("--max-train", 32, "--prompts-per-round", 16)
    assert cli.main(words(files_of, out, "--student", files_of / "student", *sizes, "--num-evaluations", 2)) == 0
    (folder,) = (out / "distill_on_policy").iterdir()
    return folder


def test_recipe_leaves_a_record_of_its_rounds(run, files_of):
    record = records.read_record(run)
    assert {r.role for r in record.results} == {"teacher", "student", "label_only", "untrained_student"}
    for result in record.results:
        assert {"exact_match", "perplexity", "new_tokens_per_answer"} <= set(result.metrics)
    of_rounds = [f"{phase}_{number}" for number in range(3) for phase in ("generate", "cache", "replay", "train")]
    of_rounds.remove("replay_0")
    assert [phase.name for phase in record.phases if phase.name in of_rounds] == of_rounds
    for name in of_rounds:
        assert record.phase(name).num_tokens > 0
        assert record.phase(name).cpu_s > 0
    assert {source.role for source in record.sources} == {"dataset", "teacher", "base_model"}
    saved = TextModel.load(run / "model")
    assert saved.model.config.num_hidden_layers == 2
    teacher = models.load_language_model(str(files_of / "teacher"))[0]
    assert models.vocabulary_size(teacher) == models.vocabulary_size(saved) + 5  # it was scored all the same


def test_control_without_a_teacher_takes_the_steps_that_cost_as_much_as_all_rounds(run):
    record = records.read_record(run)
    paid, control = (record.result(role).built_by for role in ("student", "label_only"))
    assert set(paid) == {"cache", *(p.name for p in record.phases if p.name[-1].isdigit())}
    assert control == ["label_only"]
    choices = json.loads((run / "config.json").read_text())["choices"]
    assert choices["label_only_steps"] == round(10 * record.cost_of(paid)[1] / record.cost_of(["probe_label_only"])[1])
    steps = [value for name, value in choices.items() if name.startswith("label_only_steps")]
    assert record.phase("label_only").num_examples == 8 * steps[-1]  # as they were fitted last
    assert record.phase("probe_label_only").num_examples == 8 * 10


def test_every_token_that_was_generated_used_or_repeated_is_counted(run):
    record = records.read_record(run)
    samples, replays = ([e.details for e in record.events if e.kind == kind] for kind in ("samples", "replay"))
    assert (len(samples), len(replays)) == (3, 2)
    assert len({event["sha256"] for event in samples}) == 3
    for name, events in (("generated", samples), ("used", samples), ("replayed", replays)):
        name = f"num_{name}_tokens"
        assert record.model[name] == sum(event[name] for event in events) > 0
    for number, event in enumerate(samples):  # the teacher reads prompts too
        assert event["num_used_tokens"] < record.phase(f"cache_{number}").num_tokens
    for event in replays:
        left, others = event["divergence_on_earlier_rows"], event["divergence_on_new_rows"]
        assert event["replay_share"] == rounds.replay_share(others, left, at_most=0.5)
        assert event["num_rows"] == round(16 * event["replay_share"] / (1 - event["replay_share"]))


def test_student_comes_nearer_to_its_teacher_round_by_round(run, files_of):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = [line["validation/minus_divergence"] for line in lines if "validation/minus_divergence" in line]
    assert len(values) == 6
    assert values == sorted(values)
    assert values[-1] > 0.6 * values[0]  # both are below 0
    record = records.read_record(run)
    assert record.curve_metric == "divergence"
    assert [p.step for p in record.curve] == [10, 20, 30, 40, 50, 60]
    assert [p.value for p in record.curve] == pytest.approx(values)
    costs = [p.cpu_s for p in record.curve]
    assert costs == sorted(costs)
    names = [p.name for p in record.phases if p.name[-1].isdigit()]
    assert costs[-1] == pytest.approx(record.cost_of(names)[1], rel=0.2)  # of all rounds, samples and scores included
    folders = [files_of / "teacher", files_of / "student", run / "model"]
    teacher, untrained, student = (models.load_language_model(str(folder))[0] for folder in folders)
    texts = Split("test", ["a", "b"], [" ".join(PROMPTS), " ".join(COMPLETIONS)])
    before, after = (perplexity.closeness(m, teacher, texts, compute=FP32).kl.value for m in (untrained, student))
    assert after < 0.8 * before


@pytest.mark.slow
def test_student_is_that_of_the_best_round_and_not_that_of_the_last(files_of, tmp_path, monkeypatch):
    trained, fit = [], training.fit

    @functools.wraps(fit)
    def noted(*args, **options):
        student = fit(*args, **options)
        trained.append(student.weights_sha256())
        return student

    monkeypatch.setattr(training, "fit", noted)
    values = iter([0.0, 2.0, 2.0, 1.0])  # before and after the first round, after the first and after the second
    monkeypatch.setattr(training, "best_value", lambda model: next(values))
    assert cli.main(words(files_of, tmp_path, "--num-rounds", 2)) == 0
    (folder,) = (tmp_path / "distill_on_policy").iterdir()
    assert trained[0] != trained[1]
    assert TextModel.load(folder / "model").weights_sha256() == trained[0]


def test_student_with_other_tokens_is_refused_in_a_sentence(files_of, tmp_path, capsys):
    assert cli.main(words(files_of, tmp_path, "--student", files_of / "other")) == 2
    told = " ".join(capsys.readouterr().err.split())
    said = "should cut texts as teacher does, which scores its tokens, but does not: choose a student"
    assert said in told
    assert "distill_language_model --objective universal_logit_distance or distill_sequence_level" in told


@pytest.mark.slow
def test_one_round_without_samples_learns_from_the_data_set_alone(files_of, tmp_path):
    assert cli.main(words(files_of, tmp_path, "--num-rounds", 1, "--on-policy-share", 0)) == 0
    (folder,) = (tmp_path / "distill_on_policy").iterdir()
    record = records.read_record(folder)
    assert record.model["num_generated_tokens"] == record.model["num_used_tokens"] == 0
    assert record.model["kept_layers"] == [0]
