"""A few labels: which texts get them, which texts come together, what tells them apart, and the recipe of it all."""

import csv
import dataclasses
import functools
import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from small_data import FP32, LABELS, Events, assert_same_bits, classifier, embedder, split, texts, weights

from smallmodels import cli, data, distilling, evaluation, losses, models, records, students, teachers, training
from smallmodels.data.splits import Split, Splits
from smallmodels.errors import InputError, RunInterruptedError
from smallmodels.phases import Context
from smallmodels.runs import Run
from smallmodels.training import TrainConfig

# Which texts get labels


def labelled(name, rows, labels):
    return Split(name, [f"{name}/{i}" for i in range(len(rows))], rows, np.asarray(labels, dtype=np.int64))


@pytest.fixture
def splits():
    """Three classes of 20 texts in train, four in validation, four in test."""
    rows = texts(84)
    parts = {"train": rows[:60], "validation": rows[60:72], "test": rows[72:]}
    made = {name: labelled(name, part, np.arange(len(part)) % 3) for name, part in parts.items()}
    source = records.Source(
        role="dataset",
        kind="dataset",
        name="own.csv",
        revision=None,
        sha256={},
        license=None,
        license_file_seen=False,
        duties=[],
        splits={name: len(part) for name, part in parts.items()},
        fingerprint=None,
        notes={"kept": 1},
    )
    return Splits(**made, label_names=LABELS, source=source)


def test_draw_shots_keeps_so_many_labels_of_each_class_and_forgets_all_others(splits):
    few, unlabelled = data.draw_shots(splits, 8)
    assert np.bincount(few.train.labels).tolist() == [8, 8, 8]
    known = splits.train.join(splits.validation)
    label_of = dict(zip(known.ids, known.labels.tolist(), strict=True))
    assert [label_of[name] for name in few.train.ids] == few.train.labels.tolist()
    assert set(unlabelled.labels.tolist()) == {data.NO_LABEL}
    assert not set(few.train.ids) & set(unlabelled.ids)
    assert {*few.train.ids, *unlabelled.ids} == set(known.ids)
    assert len(few.validation) == 0
    assert few.test is splits.test
    assert few.source.splits == {"labelled": 24, "unlabelled": 48, "test": 12}
    assert few.source.notes["kept"] == 1
    assert "nothing is chosen on validation" in few.source.notes["shots"]


def test_draw_shots_depends_on_its_seed_alone(splits):
    drawn = [list(data.draw_shots(splits, 8, split_seed=seed)[0].train.ids) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_draw_shots_takes_a_text_once_however_often_it_stands_there(splits):
    again = labelled("validation", [f" {text}" for text in splits.train.texts], splits.train.labels)
    twice = dataclasses.replace(splits, validation=again)
    few, _ = data.draw_shots(twice, 20)
    assert len({text.strip() for text in few.train.texts}) == len(few.train) == 60
    with pytest.raises(InputError, match=r"there should be 21 different texts of each class .* found 20 of 'bank'"):
        data.draw_shots(twice, 21)


def test_draw_shots_refuses_a_class_without_texts(splits):
    with pytest.raises(InputError, match=r"found 0 of 'other': lower --num-shots"):
        data.draw_shots(dataclasses.replace(splits, label_names=[*LABELS, "other"]), 8)


def test_draw_shots_refuses_data_in_which_every_text_is_labelled(splits):
    with pytest.raises(InputError, match="texts beside the labelled ones"):
        data.draw_shots(splits, 24)


def test_draw_shots_adds_texts_that_never_had_a_label(splits):
    more = [Split("train", ["train/0", "train/1"], ["one", "two"]), Split("validation", ["train/0"], ["three"])]
    few, unlabelled = data.draw_shots(splits, 24, more=more)
    assert list(unlabelled.texts) == ["one", "two", "three"]
    assert len(set(unlabelled.ids) | set(few.train.ids)) == 3 + 72
    assert unlabelled.labels.tolist() == [data.NO_LABEL] * 3


def test_draw_shots_limits_the_other_texts_without_a_look_at_their_labels(splits):
    few, unlabelled = data.draw_shots(splits, 8, max_unlabelled=10)
    assert len(unlabelled) == 10
    is_shot = np.isin(splits.train.ids, few.train.ids)
    assert is_shot.sum() + np.isin(splits.validation.ids, few.train.ids).sum() == 24
    drawn = []
    for seed in (0, 1):  # labels of texts that are not drawn, in another order
        others = labelled("validation", texts(30, seed=4), np.random.default_rng(seed).integers(0, 3, 30))
        shots = dataclasses.replace(splits, train=few.train, validation=few.validation)
        drawn.append(data.draw_shots(shots, 8, more=[others], max_unlabelled=10)[1].ids)
    assert list(drawn[0]) == list(drawn[1])


# Which texts come together


def class_plan(labels, *, batch_size, seed=0):
    lengths = np.random.default_rng(5).integers(4, 40, len(labels))
    return data.ClassPlan(np.asarray(labels, dtype=np.int64), lengths, batch_size=batch_size, seed=seed)


@pytest.mark.parametrize(
    ("num_classes", "batch_size", "classes", "each"), [(30, 64, 16, 4), (3, 64, 3, 8), (9, 5, 2, 2)]
)
def test_class_plan_draws_texts_of_each_class_together(num_classes, batch_size, classes, each):
    labels = np.arange(8 * num_classes) % num_classes
    plan = class_plan(labels, batch_size=batch_size, seed=0)
    for step in range(20):
        drawn = plan.indices(step)
        assert len(set(drawn.tolist())) == len(drawn) == classes * each <= batch_size
        assert np.unique(labels[drawn], return_counts=True)[1].tolist() == [each] * classes
        assert (np.diff(plan.lengths[drawn]) >= 0).all()


def test_class_plan_is_a_pure_function_of_seed_and_step():
    labels = np.arange(240) % 30
    first, second, other = (class_plan(labels, batch_size=32, seed=seed) for seed in (3, 3, 4))
    forwards = [first.indices(step).tolist() for step in range(8)]
    np.random.seed(1)  # a global state, which must not matter
    assert [second.indices(step).tolist() for step in reversed(range(8))] == forwards[::-1]
    assert other.indices(0).tolist() != forwards[0]
    assert len({tuple(indices) for indices in forwards}) == 8


def test_class_plan_comes_to_every_text():
    plan = class_plan(np.arange(240) % 30, batch_size=32, seed=0)
    counts = np.bincount(np.concatenate([plan.indices(step) for step in range(300)]), minlength=240)
    assert counts.min() > 15  # 40 on average
    assert counts.max() < 75


def test_class_plan_takes_what_a_small_class_has():
    plan = class_plan(np.array([0] * 2 + [1] * 50), batch_size=16, seed=0)
    assert sorted(plan.indices(0).tolist())[:2] == [0, 1]
    assert len(plan.indices(0)) == 2 + 8


def test_class_plan_never_makes_all_pairs():
    labels = np.arange(50_000) % 50  # 1.25 billion pairs
    tracemalloc.start()
    class_plan(labels, batch_size=64, seed=0).indices(7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * len(labels)  # bytes


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 0, 1], []])
def test_class_plan_refuses_labels_that_make_no_pairs(labels):
    with pytest.raises(InputError, match="two classes or more and two or more of each"):
        class_plan(np.asarray(labels, dtype=np.int64), batch_size=8, seed=0)


def test_class_plan_refuses_a_batch_without_room():
    with pytest.raises(InputError, match="batch_size must be >= 4"):
        class_plan(np.arange(8) % 2, batch_size=3, seed=0)


# The contrastive loss


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def contrastive_reference(embeddings, labels, temperature):
    rows, found = embeddings.tolist(), []
    units = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]
    for i, unit in enumerate(units):
        scores = {
            j: sum(x * y for x, y in zip(unit, units[j], strict=True)) / temperature for j in range(len(rows)) if j != i
        }
        total = math.log(sum(math.exp(score) for score in scores.values()))
        if own := [total - score for j, score in scores.items() if labels[j] == labels[i]]:
            found.append(sum(own) / len(own))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0, 9], [0] * 7, [5, 5, 0, 1, 2, 3, 4]])
def test_supervised_contrastive_equals_the_slow_reference(labels, temperature):
    embeddings = randn(7, 5)
    found = losses.supervised_contrastive(embeddings, torch.tensor(labels), temperature=temperature)
    torch.testing.assert_close(found, contrastive_reference(embeddings, labels, temperature))


def test_supervised_contrastive_gradient_agrees_with_finite_differences():
    labels = torch.tensor([0, 1, 0, 1, 2, 0])
    assert torch.autograd.gradcheck(
        lambda e: losses.supervised_contrastive(e, labels, temperature=0.5), (randn(6, 4).requires_grad_(),)
    )


def test_supervised_contrastive_without_a_pair_has_no_value_and_a_gradient_of_zero():
    embeddings = randn(3, 4).requires_grad_()
    values = losses.supervised_contrastive(embeddings, torch.tensor([0, 1, 2]))
    assert values.shape == (0,)
    values.sum().backward()
    assert embeddings.grad.abs().sum() == 0
    assert losses.supervised_contrastive(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert losses.supervised_contrastive(torch.ones(1, 4), torch.tensor([0])).shape == (0,)


def test_supervised_contrastive_is_least_where_classes_are_directions():
    labels = torch.arange(12) % 3
    apart = losses.supervised_contrastive(torch.eye(3, dtype=torch.float64)[labels], labels, temperature=0.02)
    torch.testing.assert_close(apart, torch.full((12,), math.log(3), dtype=torch.float64))
    assert (losses.supervised_contrastive(randn(12, 3), labels, temperature=0.02) > math.log(3)).all()


def test_supervised_contrastive_sees_directions_only():
    embeddings, labels = randn(6, 4), torch.arange(6) % 2
    scales = torch.tensor([0.1, 1, 2, 3, 50, 7], dtype=torch.float64)[:, None]
    expected = losses.supervised_contrastive(embeddings, labels)
    torch.testing.assert_close(losses.supervised_contrastive(scales * embeddings, labels), expected)


def test_supervised_contrastive_sums_half_precision_in_float32_under_autocast_too():
    embeddings, labels = randn(60, 300, dtype=torch.bfloat16), torch.arange(60) % 7
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = losses.supervised_contrastive(embeddings, labels)
    assert value.dtype == torch.float32
    expected = losses.supervised_contrastive(embeddings.double(), labels)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("embeddings", "labels", "temperature", "message"),
    [
        (torch.ones(2, 3, 4), torch.tensor([0, 1]), 0.1, "embeddings should have shape"),
        (torch.ones(2, 3), torch.tensor([0, 1, 1]), 0.1, r"labels should have shape \(2,\)"),
        (torch.ones(2, 3), torch.tensor([0.0, 1.0]), 0.1, "labels should be integers"),
        (torch.ones(2, 3), torch.tensor([0, 1]), 0.0, "temperature must be > 0"),
        (torch.ones(2, 3), torch.tensor([0, 1]), math.nan, "temperature must be > 0"),
    ],
)
def test_supervised_contrastive_refuses_what_does_not_fit(embeddings, labels, temperature, message):
    with pytest.raises(InputError, match=message):
        losses.supervised_contrastive(embeddings, labels, temperature=temperature)


# Training on batches by class

CONFIG = TrainConfig(learning_rate=1e-2, max_steps=6, batch_size=8, checkpoint_steps=2)


@pytest.fixture(scope="module")
def base(tiny_model_folder):
    """Never trained itself: tests train copies."""
    return embedder(tiny_model_folder)


@pytest.fixture(scope="module")
def shots(base):
    return split(base.tokenizer, 24)


def contrast(model, batch):
    return losses.supervised_contrastive(model(**batch.inputs), batch.labels)


def tune(base, shots, **options):
    return training.fit(base.copy(), shots, contrast, CONFIG, plan=data.plan_by_class, compute=FP32, **options)


@pytest.mark.parametrize("step", [1, 3, 6])
def test_r2_training_by_class_stopped_and_resumed_gives_the_same_bits(base, shots, tmp_path, step):
    expected, asked, events = tune(base, shots, seed=3), [], Events()

    def should_stop():
        asked.append(1)
        return len(asked) == step

    with pytest.raises(RunInterruptedError, match=f"after step {step} of 6"):
        tune(base, shots, seed=3, context=Context(folder=tmp_path, should_stop=should_stop))
    torch.manual_seed(step)
    np.random.seed(step)  # a new process has other states of random numbers
    resumed = tune(base, shots, seed=3, context=Context(folder=tmp_path, event=events))
    assert events.kinds == ["resume"]
    assert_same_bits(weights(resumed), weights(expected))


def test_training_by_class_sees_the_batches_of_its_plan_and_does_not_split_them(base, shots):
    seen = []

    def spy(model, batch):
        seen.append(list(batch.ids))
        return contrast(model, batch)

    small_passes = dataclasses.replace(FP32, tokens_per_pass=32)  # a loss of each text alone would be split up
    training.fit(base.copy(), shots, spy, CONFIG, plan=data.plan_by_class, compute=small_passes, seed=1)
    plan = data.plan_by_class(shots, batch_size=8, seed=1)
    expected = [[shots.ids[i] for i in plan.indices(step)] for step in range(6)]
    assert seen[-5:] == expected[1:]  # before the first step it was tried whether the batch may be split
    assert all(len(names) == 8 for names in seen[-5:])


def test_training_by_class_draws_texts_of_a_class_together(base, shots):
    config = dataclasses.replace(CONFIG, learning_rate=1e-3, max_steps=20)
    tuned = training.fit(base.copy(), shots, contrast, config, plan=data.plan_by_class, compute=FP32)

    def loss(model):
        embeddings = torch.from_numpy(models.forward_all(model, shots.tokens, compute=FP32))
        return losses.supervised_contrastive(embeddings, torch.from_numpy(shots.labels)).mean()

    assert loss(tuned) < loss(base) - 0.1


def test_fine_tune_reads_back_what_was_tuned_by_class_and_nothing_else(base, shots, tmp_path):
    events = Events()

    def tuned(plan):
        return teachers.fine_tune(
            base.copy(), shots, contrast, CONFIG, plan=plan, compute=FP32, cache=tmp_path, context=Context(event=events)
        )

    first, again, otherwise = tuned(data.plan_by_class), tuned(data.plan_by_class), tuned(None)
    assert [message for _, message, _ in events.rows].count("fine-tuned teacher read back") == 1
    assert_same_bits(weights(first), weights(again))
    assert first.weights_sha256() != otherwise.weights_sha256()


# The head, and the student's beginning


@pytest.mark.parametrize("num_classes", [2, 3])
def test_fit_head_gives_the_probabilities_of_logistic_regression(base, shots, tmp_path, num_classes):
    few = shots.take(np.flatnonzero(shots.labels < num_classes))
    head = teachers.fit_head(base, few, num_classes=num_classes, compute=FP32)
    embeddings = models.forward_all(base, shots.tokens, compute=FP32).astype(np.float64)
    reference = LogisticRegression(C=100.0, max_iter=1000).fit(embeddings[shots.labels < num_classes], few.labels)
    model = teachers.with_head(base, head)
    found = evaluation.softmax(models.forward_all(model, shots.tokens, compute=FP32))
    np.testing.assert_allclose(found, reference.predict_proba(embeddings), atol=1e-5)
    head.save(tmp_path)
    again = teachers.LinearHead.load(tmp_path)
    np.testing.assert_array_equal(again.weights, head.weights)
    np.testing.assert_array_equal(again.bias, head.bias)


def test_fit_head_refuses_a_class_without_texts(base, shots):
    with pytest.raises(InputError, match="a text of each class, found none of class 3"):
        teachers.fit_head(base, shots, num_classes=4, compute=FP32)


def test_with_head_gives_logits_to_store_and_keeps_the_attention_that_was_chosen(base, shots, tmp_path):
    model = teachers.with_head(base, teachers.fit_head(base, shots, num_classes=3, compute=FP32))
    eager = dataclasses.replace(FP32, attention="eager")
    signals = teachers.store_signals(model, shots, compute=eager, cache=tmp_path)
    assert signals.values.shape == (24, 3)
    assert model.model.embedder.config._attn_implementation == "eager"
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    more = models.num_operations(model.model, np.array([5, 9])) - models.num_operations(base.model, np.array([5, 9]))
    assert more == 2 * 2 * 3 * 32  # the head sees one vector for each text


def test_with_encoder_of_puts_the_students_head_on_the_embedders_layers(base, shots, tiny_model_folder):
    tuned, student = tune(base, shots), classifier(tiny_model_folder)
    changed = students.with_encoder_of(student, tuned)
    inputs = data.batches.collate(shots, np.arange(4)).inputs
    states = changed.model.base_model(**inputs).last_hidden_state
    torch.testing.assert_close(states, tuned.transformer(**inputs).last_hidden_state, rtol=0, atol=0)
    assert torch.equal(changed.model.classifier.weight, student.model.classifier.weight)
    assert not torch.equal(states, student.model.base_model(**inputs).last_hidden_state)


def test_with_encoder_of_refuses_another_shape(base, tiny_model_folder):
    with pytest.raises(InputError, match="is another or missing"):
        students.with_encoder_of(classifier(tiny_model_folder), students.keep_layers(base, 2))


# The recipe


@pytest.fixture
def command(tmp_path, tiny_model_folder, monkeypatch):
    """Words of a smoke run on a file of 120 texts, with the tiny model."""
    path = tmp_path / "tickets.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["message", "team"])
        writer.writerows((text, LABELS[i % 3]) for i, text in enumerate(texts(120)))
    more = [json.dumps({"message": text}) for text in texts(60, seed=1)]
    (tmp_path / "more.jsonl").write_text("\n".join(more), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluation, "measure_inference", functools.partial(evaluation.measure_inference, window_s=0.05))
    words = ["run", "few_shot_classifier", "--smoke", "--dataset", str(path)]  # the column of both files is guessed
    words += ["--label-column", "team", "--teacher", str(tiny_model_folder), "--num-layers", "2", "--max-length", "32"]
    return [*words, "--out", str(tmp_path / "runs")]


MORE = ["--trim-vocabulary", "--unlabelled", "more.jsonl"]


@pytest.fixture
def load_shots(command, tmp_path):
    """Draws shots of the file, with these unlabelled texts beside them, and gives the noted source of these too."""
    tickets = command[command.index("--dataset") + 1]

    def load(rows, **changes):
        path = tmp_path / "few.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        config = cli.load_recipe("few_shot_classifier").Config(dataset=tickets, **changes)
        names = {"dataset_name": tickets, "unlabelled_name": str(path), "text_column": None, "label_column": "team"}
        with Run(tmp_path / f"run {len(rows)} {sorted(changes)}", meter="none", quiet=True) as run:
            run.begin("few_shot_classifier", config)
            splits, unlabelled = distilling.load_shots(run, config, config.num_shots, **names)
            source = next(source for source in run._sources if source.name == "few.jsonl")
        own = [place for place, name in enumerate(unlabelled.ids) if name.startswith("more")]
        return splits, list(unlabelled.take(own).texts), source

    return load


@pytest.mark.parametrize("count", [1, 3, 30])
def test_every_unlabelled_text_of_a_local_file_is_used(load_shots, count):
    rows = texts(count, seed=2)
    splits, more, source = load_shots([{"message": text} for text in rows])
    assert more == rows
    assert source.splits == {"train": count}
    assert source.notes["overlap"] == {"train/held out": 0}
    assert splits.source.splits["unlabelled"] == 120 - 24 - len(splits.test) + count


def test_unlabelled_texts_that_the_test_has_are_counted_and_dropped_if_asked(load_shots):
    splits, _, _ = load_shots([{"message": "new"}])
    rows = [{"message": text} for text in (splits.test.texts[0], "new", "newer")]
    assert load_shots(rows)[2].notes["overlap"] == {"train/held out": 1}
    assert load_shots(rows, drop_overlap=True)[1] == ["new", "newer"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"body": "x"}, r"few.jsonl has no column 'message': name its column of texts like that of --dataset$"),
        ({"message": ""}, r"found 1 that are empty .*add --drop-bad-texts"),
    ],
)
def test_unlabelled_texts_that_cannot_be_had_are_refused_by_flags_that_there_are(load_shots, row, message):
    with pytest.raises(InputError, match=message) as caught:
        load_shots([row])
    assert "--text-columns" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], MORE])
def test_recipe_leaves_a_complete_record_and_a_plain_model(command, tmp_path, more):
    from transformers import AutoModelForSequenceClassification

    assert cli.main([*command, *more]) == 0
    (folder,) = (tmp_path / "runs" / "few_shot_classifier").iterdir()
    record = records.read_record(folder)
    controls = {"untrained_student", "label_only", "label_only_full_cost", "tfidf", "majority"}
    assert {result.role for result in record.results} == {"teacher", "untuned_teacher", "student", *controls}
    source = next(source for source in record.sources if source.name == "tickets.csv")
    assert source.splits["labelled"] == 24
    assert sum(source.splits.values()) == 120 + sum(
        other.splits["train"] for other in record.sources if other.name == "more.jsonl"
    )
    assert ("more.jsonl" in {source.name for source in record.sources}) == bool(more)
    assert record.phase("teacher").num_examples == 2 * 24  # two steps with all labelled texts
    assert record.phase("cache").num_examples == source.splits["labelled"] + source.splits["unlabelled"]
    assert record.result("student").teacher_phases == ["teacher", "head"]
    assert record.payback is not None
    assert record.phase("probe_soft").num_examples > record.phase("probe_label_only").num_examples  # 24 texts a step
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    assert sorted(model.config.label2id) == sorted(LABELS)
    assert model.config.num_hidden_layers == 2
    assert (model.config.vocab_size < base_size(command)) == bool(more)
    assert cli.main(["verify", str(folder)]) == 0


def base_size(command):
    return classifier(command[command.index("--teacher") + 1]).model.config.vocab_size


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-shots", "7"], "num_shots must be from 8 to 64, got 7"),
        (["--num-shots", "64"], "there should be 64 different texts of each class"),
        (["--contrast-temperature", "0"], "contrast_temperature must be > 0"),
        (["--teacher-train.batch-size", "2"], "batch_size must be >= 4"),
        (["--num-layers", "9"], "from 1 to the teacher's 4"),
    ],
)
def test_recipe_refuses_in_one_sentence(command, tmp_path, capsys, flags, message):
    assert cli.main([*command, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
