"""What a teacher gives: once, read back for nothing but its debt, and never for something else."""

import dataclasses
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_data import BF16, FP32, Events, assert_same_bits, classifier, cross_entropy, embedder, split, weights

from smallmodels import arrays, files, losses, models, teachers
from smallmodels import entries as cache_entries
from smallmodels.data.splits import Split
from smallmodels.energy import EnergyReading
from smallmodels.errors import DamagedError, PolicyError, RunInterruptedError, TrainingError
from smallmodels.models import Compute
from smallmodels.phases import Context
from smallmodels.records import Component
from smallmodels.teachers import Signals, storing
from smallmodels.training import TrainConfig

CONFIG = TrainConfig(learning_rate=1e-2, max_steps=4, batch_size=8, num_evaluations=2)


@pytest.fixture(scope="module")
def teacher(tiny_model_folder):
    return classifier(tiny_model_folder)


@pytest.fixture(scope="module")
def train(teacher):
    return split(teacher.tokenizer, 24)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of three shards per entry at 24 rows."""
    monkeypatch.setattr(storing, "_ROWS_PER_SHARD", 10)
    return tmp_path / "cache"


def store(teacher, rows, cache, **options):
    return teachers.store_signals(teacher, rows, cache=cache, **{"compute": FP32, **options})


class Passes:
    """Counts the forward passes of a model while the block runs, and looks at it during each."""

    def __init__(self, model):
        self.model, self.training, self.gradients, self.count = model.model, set(), set(), 0

    def __enter__(self):
        self.handle = self.model.register_forward_hook(self.look)
        return self

    def __exit__(self, *_):
        self.handle.remove()

    def look(self, module, inputs, output):
        self.count += 1
        self.training.add(module.training)
        self.gradients.add(torch.is_grad_enabled() or output.logits.requires_grad)


def reading(joules, *, label="counter"):
    return EnergyReading(joules, joules / 2, {"cpu": Component(energy_j=joules, label=label)})


def energy_of(*joules):
    """The energy of a phase at each time that it is asked; the last one stays."""
    values = list(joules)
    return lambda: reading(values.pop(0) if len(values) > 1 else values[0])


def entries(cache):
    return sorted(path for path in (cache / "signals").iterdir() if not path.name.startswith("."))


def shards(cache):
    (entry,) = entries(cache)
    return shards_of(entry)


def shards_of(entry):
    return sorted(entry.glob("shard-*"))


# Signals are stored once


@pytest.mark.parametrize("make", [classifier, embedder])
def test_store_signals_gives_raw_logits_or_embeddings_of_every_row(tiny_model_folder, train, cache, make):
    model = make(tiny_model_folder)
    signals = store(model, train, cache)
    expected = models.forward_all(model, train.tokens, compute=FP32)
    np.testing.assert_allclose(signals.values, expected, atol=1e-6)
    assert signals.values.shape == (24, 3 if make is classifier else 32)
    assert len(shards(cache)) == 3


def test_store_signals_reads_the_second_time_without_a_forward_pass(teacher, train, cache):
    with Passes(teacher) as first:
        built = store(teacher, train, cache)
    with Passes(teacher) as second:
        read = store(teacher, train, cache)
    assert (first.count, second.count) == (3, 0)
    assert np.array_equal(built.values, read.values)
    assert (built.inputs.tolist(), built.key) == (read.inputs.tolist(), read.key)


def test_store_signals_owes_what_an_earlier_run_paid(teacher, train, cache):
    paying = Context(energy=energy_of(10.0, 130.0))
    store(teacher, train, cache, context=paying)
    assert (paying.counts.shared_energy_j, paying.counts.shared_cpu_s) == (0.0, 0.0)
    assert paying.counts.num_examples == 24
    events = Events()
    owing = Context(event=events, energy=lambda: pytest.fail("nothing was built"))
    store(teacher, train, cache, context=owing)
    assert (owing.counts.shared_energy_j, owing.counts.shared_cpu_s) == (120.0, 60.0)
    assert owing.counts.num_examples is None
    kind, _, details = events.rows[0]
    assert (kind, details["energy_j"], details["label"]) == ("cache", 120.0, "counter")


def test_store_signals_owes_unknown_joules_as_unknown_and_cpu_seconds_always(teacher, train, cache):
    store(teacher, train, cache)
    context = Context()
    store(teacher, train, cache, context=context)
    assert context.counts.shared_energy_j is None
    assert context.counts.shared_cpu_s > 0


def test_r4_phase_that_was_interrupted_after_it_built_an_entry_owes_nothing_for_it(teacher, train, cache, tmp_path):
    store(teacher, train, cache, context=Context(folder=tmp_path / "cache"))
    again, other = Context(folder=tmp_path / "cache"), Context(folder=tmp_path / "other")
    store(teacher, train, cache, context=again)
    store(teacher, train, cache, context=other)
    assert again.counts.shared_cpu_s == 0
    assert other.counts.shared_cpu_s > 0


def test_m8_teacher_is_in_evaluation_mode_and_gets_no_gradient(teacher, train, cache):
    model = teacher.copy()
    model.model.train()
    with Passes(model) as passes:
        store(model, train, cache)
    assert passes.training == {False}
    assert passes.gradients == {False}
    assert all(p.grad is None for p in model.model.parameters())


# What changes a signal is part of its address. Raw values of every class are stored and texts are tokenised as they
# are, so a stored temperature, k and a chat template, which would be parts too, do not exist.


def other_weights(teacher):
    model = teacher.copy()
    with torch.no_grad():
        model.model.classifier.bias += 0.5
    return model


def other_tokenizer(teacher):
    from transformers import BertTokenizerFast

    vocabulary = teacher.tokenizer.get_vocab()
    tokenizer = BertTokenizerFast(vocab=vocabulary, do_lower_case=False, model_max_length=64)
    return dataclasses.replace(teacher, tokenizer=tokenizer)


@pytest.mark.parametrize(
    "change",
    ["weights", "config", "tokenizer", "max_length", "one text", "order", "number format"],
)
def test_t5_another_part_is_another_entry(teacher, train, cache, change):
    first = store(teacher, train, cache)
    model, rows, compute = teacher, train, FP32
    if change == "weights":
        model = other_weights(teacher)
    elif change == "tokenizer":
        model = other_tokenizer(teacher)
        rows = train.tokenize(model.tokenizer, max_length=32)
    elif change == "config":
        model = teacher.copy()
        model.model.config.hidden_act = "relu"
    elif change == "max_length":
        rows = train.tokenize(teacher.tokenizer, max_length=33)
    elif change == "one text":
        rows = split(teacher.tokenizer, 23)
    elif change == "order":
        rows = train.take(range(23, -1, -1))
    else:
        compute = BF16
    with Passes(model) as passes:
        second = store(model, rows, cache, compute=compute)
    assert passes.count == 3
    assert second.key != first.key
    assert len(entries(cache)) == 2


def test_t5_another_revision_is_told_by_its_weights(tiny_model_folder, train, cache, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(tiny_model_folder, tmp_path / name)
    tensors = load_file(tmp_path / "two" / "model.safetensors")
    first = store(classifier(tmp_path / "one"), train, cache)
    assert store(classifier(tmp_path / "two"), train, cache).key == first.key  # another name for the same
    tensors["encoder.layer.0.output.dense.bias"][0] += 1e-3
    save_file(tensors, tmp_path / "two" / "model.safetensors", metadata={"format": "pt"})
    assert store(classifier(tmp_path / "two"), train, cache).key != first.key


def test_t5_labels_ids_and_the_last_call_of_the_tokenizer_are_no_part(teacher, train, cache):
    first = store(teacher, train, cache)
    teacher.tokenizer(["a card"], truncation=True, max_length=3, padding="max_length")
    rows = dataclasses.replace(train, labels=None, ids=[f"other/{i}" for i in range(24)])
    with Passes(teacher) as passes:
        assert store(teacher, rows, cache).key == first.key
    assert passes.count == 0


# Damage


def flip_byte(path, place=-3):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(bytes(content))


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in shards_of(folder)}


DAMAGES = {
    "flipped-value": flip_byte,
    "flipped-length": lambda path: flip_byte(path, 1),
    "flipped-metadata": lambda path: flip_byte(path, path.read_bytes().index(b"first_row") + 13),
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-9]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_t2_t4_a_damaged_shard_is_built_again_alone(teacher, train, cache, damage):
    built = store(teacher, train, cache)
    (entry,) = entries(cache)
    before, bytes_before = times(entry), [path.read_bytes() for path in shards(cache)]
    damage(entry / "shard-00001.safetensors")
    events = Events()
    with Passes(teacher) as passes:
        again = store(teacher, train, cache, context=Context(event=events))
    assert passes.count == 1
    assert events.kinds == ["damaged cache", "cache"]
    assert events.rows[0][2] == {"file": "shard-00001.safetensors"}
    assert "shard-00001.safetensors" in events.rows[0][1]
    after = times(entry)
    assert [name for name in before if before[name] == after[name]] == [
        "shard-00000.safetensors",
        "shard-00002.safetensors",
    ]
    assert [path.read_bytes() for path in shards(cache)] == bytes_before
    assert np.array_equal(again.values, built.values)
    with Passes(teacher) as passes:
        store(teacher, train, cache)
    assert passes.count == 0


def test_t2_a_whole_shard_with_other_values_is_built_again(teacher, train, cache):
    built = store(teacher, train, cache)
    one_pass = storing._Pass(teacher, train, storing._WholeTexts(teacher), FP32, Context(), cache)
    (cache / "signals" / built.key / "shard-00001.safetensors").write_bytes(
        storing._shard(built.values[10:20] + 1.0, one_pass._about(1))
    )
    with Passes(teacher) as passes:
        again = store(teacher, train, cache)
    assert passes.count == 1
    assert np.array_equal(again.values, built.values)


@pytest.mark.parametrize("damage", ["flipped-value", "flipped-length", "missing", "empty", "torn"])
def test_t2_t4_without_its_list_of_shards_an_entry_is_built_again(teacher, train, cache, damage):
    built = store(teacher, train, cache)
    (entry,) = entries(cache)
    DAMAGES[damage](entry / "entry.json")
    events = Events()
    with Passes(teacher) as passes:
        again = store(teacher, train, cache, context=Context(event=events))
    assert passes.count == 3
    assert events.kinds == ["damaged cache"]
    assert np.array_equal(again.values, built.values)


@pytest.mark.parametrize("sums_too", [False, True], ids=["files", "files-and-sums"])
@pytest.mark.parametrize("what", ["swapped", "duplicated", "of another entry"])
def test_t2_whole_shards_in_the_wrong_place_are_refused(teacher, train, cache, what, sums_too):
    other = store(other_weights(teacher), train, cache)
    signals = store(teacher, train, cache)
    entry = cache / "signals" / signals.key
    one, two = entry / "shard-00000.safetensors", entry / "shard-00001.safetensors"
    first, second = one.read_bytes(), two.read_bytes()
    if what == "swapped":
        one.write_bytes(second)
        two.write_bytes(first)
    else:
        two.write_bytes(first if what == "duplicated" else (cache / "signals" / other.key / two.name).read_bytes())
    if sums_too:  # and whoever did it mended the list as well
        content = files.read_json(entry / "entry.json")
        content.pop("sha256")
        content["shards"] = {path.name: files.sha256_file(path) for path in shards_of(entry)}
        files.write_json(entry / "entry.json", {"sha256": files.sha256_json(content), **content})
    before = times(entry)
    with Passes(teacher) as passes, pytest.raises(DamagedError, match=r"files were swapped or copied") as caught:
        store(teacher, train, cache)
    name = one.name if what == "swapped" else two.name
    assert f"{name} should hold rows" in str(caught.value)
    assert caught.value.exit_code == 4
    assert passes.count == 0
    assert times(entry) == before


def test_t2_the_list_of_another_entry_is_refused(teacher, train, cache):
    other = store(other_weights(teacher), train, cache)
    signals = store(teacher, train, cache)
    shutil.copy(cache / "signals" / other.key / "entry.json", cache / "signals" / signals.key / "entry.json")
    with pytest.raises(DamagedError, match=r"entry\.json should be of this entry, but is of another"):
        store(teacher, train, cache)


def test_t4_leftovers_are_ignored_and_removed_and_nothing_else_is(teacher, train, cache):
    built = store(teacher, train, cache)
    (entry,) = entries(cache)
    leftovers = [".shard-00001.safetensors.4711.tmp", ".entry.json.4711.tmp", "shard-00007.safetensors"]
    foreign = ["notes.txt", "shard-of-mine.safetensors", ".hidden.tmp"]
    for name in [*leftovers, *foreign]:
        (entry / name).touch()
    (entry / "shard-00001.safetensors").write_bytes(b"")
    again = store(teacher, train, cache)
    assert np.array_equal(again.values, built.values)
    assert [name for name in leftovers if (entry / name).exists()] == []
    assert [name for name in foreign if not (entry / name).exists()] == []


def test_r4_a_stopped_pass_goes_on_with_the_shards_that_are_left(teacher, train, cache):
    expected = store(teacher, train, cache / "other")
    answers = iter([False, False, True])
    with pytest.raises(RunInterruptedError, match="stopped after 20 of 24 rows") as caught:
        store(teacher, train, cache, context=Context(should_stop=lambda: next(answers)))
    assert caught.value.exit_code == 75
    with Passes(teacher) as passes:
        again = store(teacher, train, cache)
    assert passes.count == 1
    assert np.array_equal(again.values, expected.values)
    assert [path.read_bytes() for path in shards(cache)] == [path.read_bytes() for path in shards(cache / "other")]


def test_r4_a_pass_that_another_run_goes_on_with_is_paid_by_both(teacher, train, cache, tmp_path):
    answers = iter([False, True])
    first = Context(folder=tmp_path / "1", should_stop=lambda: next(answers), energy=energy_of(10.0, 40.0))
    with pytest.raises(RunInterruptedError):
        store(teacher, train, cache, context=first)
    events = Events()
    second = Context(folder=tmp_path / "2", energy=energy_of(0.0, 50.0, 70.0), event=events)
    store(teacher, train, cache, context=second)
    assert (second.counts.shared_energy_j, second.counts.num_examples) == (30.0, 14)
    kind, message, details = events.rows[0]
    assert (kind, details["energy_j"]) == ("cache", 30.0)
    assert "1 of 3 shards" in message
    owed = {}
    for name in "123":
        context = Context(folder=tmp_path / name, energy=energy_of(0.0))
        store(teacher, train, cache, context=context)
        owed[name] = (context.counts.shared_energy_j, context.counts.num_examples)
    assert owed == {"1": (70.0, 10), "2": (30.0, 14), "3": (100.0, None)}


def test_r4_a_pass_stopped_before_its_first_shard_pays_for_that_too(teacher, train, cache, tmp_path):
    first = Context(folder=tmp_path / "1", should_stop=lambda: True, energy=energy_of(10.0))
    with pytest.raises(RunInterruptedError, match="stopped after 0 of 24 rows"):
        store(teacher, train, cache, context=first)
    store(teacher, train, cache, context=Context(folder=tmp_path / "1", energy=energy_of(40.0, 50.0)))
    other = Context()
    store(teacher, train, cache, context=other)
    assert other.counts.shared_energy_j == 40.0


def test_t2_of_an_entry_without_a_whole_shard_nothing_is_owed(teacher, train, cache, tmp_path):
    store(teacher, train, cache, context=Context(folder=tmp_path / "1", energy=energy_of(0.0, 60.0)))
    for shard in shards(cache):
        shard.write_bytes(b"")
    again = Context(folder=tmp_path / "2", energy=energy_of(0.0, 50.0))
    store(teacher, train, cache, context=again)
    assert (again.counts.shared_energy_j, again.counts.num_examples) == (0.0, 24)


def test_t2_who_mends_a_damaged_shard_pays_for_it_and_owes_the_rest(teacher, train, cache, tmp_path):
    store(teacher, train, cache, context=Context(folder=tmp_path / "1", energy=energy_of(0.0, 60.0)))
    shards(cache)[2].unlink()
    mending = Context(folder=tmp_path / "2", energy=energy_of(0.0, 8.0))
    store(teacher, train, cache, context=mending)
    assert mending.counts.shared_energy_j == 60.0
    reading_back = Context(folder=tmp_path / "3")
    store(teacher, train, cache, context=reading_back)
    assert reading_back.counts.shared_energy_j == 68.0


FAULTS = {"nan": float("nan"), "inf": float("inf"), "minus inf": float("-inf")}


@pytest.mark.parametrize("make", [classifier, embedder])
@pytest.mark.parametrize("fault", [*FAULTS, "zero"])
def test_t7_rows_that_teach_nothing_are_refused_when_written(tiny_model_folder, train, cache, make, fault):
    model = make(tiny_model_folder)
    tokens = train.require_tokens()
    text = tokens.ids[tokens.offsets[15] : tokens.offsets[16]].tolist()  # a row of the second shard

    def spoil(module, arguments, kwargs, output):
        values = output if isinstance(output, torch.Tensor) else output.logits
        for place, row in enumerate(kwargs["input_ids"].tolist()):
            if [number for number in row if number != tokens.pad_id] == text:
                values[place] = 0.0 if fault == "zero" else values[place]
                values[place, 1] = FAULTS.get(fault, 0.0)
        return output

    model.model.register_forward_hook(spoil, with_kwargs=True)
    wanted = "values that are not all zero" if fault == "zero" else "finite values"
    with pytest.raises(TrainingError, match=f"should give {wanted}, but does not for train/15: try ") as caught:
        store(model, train, cache)
    assert caught.value.exit_code == 1
    assert entries(cache) == []


@pytest.mark.parametrize("fault", [*FAULTS, "zero"])
def test_t7_rows_that_teach_nothing_are_counted_and_refused_when_read(teacher, train, cache, fault, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(storing._WholeTexts, "unusable", lambda self, values: [])  # a writer that does not look
        model = teacher.copy()
        with torch.no_grad():
            model.model.classifier.weight.zero_()
            model.model.classifier.bias.fill_(FAULTS.get(fault, 0.0))
        store(model, train, cache)
    with pytest.raises(DamagedError, match=r"24 of 24 are not \(the first is for train/0\): delete that folder"):
        store(model, train, cache)


@pytest.mark.parametrize("compute", [FP32, BF16], ids=["fp32", "bf16"])
def test_t12_what_is_read_are_the_stored_bytes_and_their_format_is_recorded(teacher, train, cache, compute):
    store(teacher, train, cache, compute=compute)
    read = store(teacher, train, cache, compute=compute)
    stored = [path.read_bytes() for path in shards(cache)]
    headers = [json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]) for content in stored]
    ends = [header["values"]["data_offsets"][1] for header in headers]
    assert b"".join(content[-end:] for content, end in zip(stored, ends, strict=True)) == read.values.tobytes()
    for header in headers:
        assert header["values"]["dtype"] == "F32"
        assert json.loads(header["__metadata__"]["smallmodels"])["about"]["dtype"] == "float32"
    (entry,) = entries(cache)
    assert files.read_json(entry / "entry.json")["key"]["number_format"] == compute.number_format


def test_t12_stored_on_a_gpu_it_is_read_without_one(teacher, train, cache, monkeypatch):
    on_gpu = Compute("cuda", "fp16", 1, 1e9)
    halves = store(teacher, train, cache / "other").values.astype(np.float16).astype(np.float32)
    shards_of_gpu = iter([halves[:10], halves[10:20], halves[20:]])
    with monkeypatch.context() as patched:
        patched.setattr(models, "forward_all", lambda *_, **__: next(shards_of_gpu))  # stands for the GPU
        store(teacher, train, cache, compute=on_gpu)
    with Passes(teacher) as passes:
        read = store(teacher, train, cache, compute=on_gpu)
    assert passes.count == 0
    assert read.values.tobytes() == halves.tobytes()
    (entry,) = entries(cache)
    key = files.read_json(entry / "entry.json")["key"]
    assert (key["device"], key["number_format"]) == ("cuda", "fp16")


# Rows of a split


def test_rows_for_follows_the_split_whatever_its_order(teacher, train, cache):
    signals = store(teacher, train, cache)
    order = np.random.default_rng(0).permutation(24)[:15]
    shuffled = train.take(order).with_signals(signals)
    assert np.array_equal(shuffled.teacher, signals.values[order])
    assert len(np.unique(signals.values, axis=0)) == 24  # so that a wrong row would show


def test_rows_for_gives_equal_texts_equal_rows(teacher, cache):
    rows = Split("train", ["a", "b", "c"], ["good film", "bad film", "good film"])
    rows = rows.tokenize(teacher.tokenizer, max_length=32)
    values = rows.with_signals(store(teacher, rows, cache)).teacher
    assert np.array_equal(values[0], values[2])
    assert not np.array_equal(values[0], values[1])


@pytest.mark.parametrize("change", ["text", "max_length"])
def test_t6_a_changed_input_is_refused(teacher, train, cache, change):
    signals = store(teacher, train, cache)
    if change == "text":
        changed = dataclasses.replace(train, texts=[*train.texts[:5], "open a bank", *train.texts[6:]])
        changed = changed.tokenize(teacher.tokenizer, max_length=32)
    else:
        changed = train.tokenize(teacher.tokenizer, max_length=5)
    with pytest.raises(
        DamagedError, match="should have a row for train/" + ("5" if change == "text" else "0")
    ) as caught:
        changed.with_signals(signals)
    assert caught.value.exit_code == 4


def test_input_hashes_are_of_the_token_ids_and_their_address_is_of_all_as_text(teacher, train, monkeypatch):
    monkeypatch.setattr(arrays, "_ROWS_AT_ONCE", 7)
    hashes = teachers.input_hashes(train.tokens)
    ends = zip(train.tokens.offsets[:-1], train.tokens.offsets[1:], strict=True)
    expected = [files.sha256_bytes(train.tokens.ids[begin:end].tobytes())[:32] for begin, end in ends]
    assert storing._hex(hashes) == expected
    assert storing._sha256_of_inputs(hashes) == files.sha256_json(expected)


def test_large_signals_are_mapped_and_rows_are_the_same(teacher, train, cache, monkeypatch):
    expected = store(teacher, train, cache)
    monkeypatch.setenv("SMALLMODELS_CACHE", str(cache))
    monkeypatch.setattr(arrays, "LARGE_BYTES", 0)
    signals = store(teacher, train, cache)
    for array in (signals.values, signals.inputs, train.with_signals(signals).teacher):
        assert not array.flags.writeable
        assert not array.flags.owndata
    assert np.array_equal(signals.values, expected.values)
    assert train.with_signals(signals).teacher is signals.values
    assert np.array_equal(train.take([5, 1]).with_signals(signals).teacher, expected.values[[5, 1]])
    assert {path.name for path in cache.iterdir()} == {"signals"}


@pytest.mark.parametrize("is_large", [False, True])
def test_signals_are_read_back(teacher, train, cache, tmp_path, monkeypatch, is_large):
    signals = store(teacher, train, cache)
    signals.save(tmp_path)
    if is_large:
        monkeypatch.setattr(arrays, "LARGE_BYTES", 0)
    read = Signals.load(tmp_path)
    assert np.array_equal(read.values, signals.values)
    assert (read.inputs.tolist(), read.key) == (signals.inputs.tolist(), signals.key)
    assert isinstance(read.values, np.memmap) is is_large


# Two at once; in two processes: test_teacher_cache.py


def test_t10_waiting_ends_after_a_while(teacher, train, cache, monkeypatch):
    import fcntl

    key = store(teacher, train, cache).key
    shard = shards(cache)[1]
    content = shard.read_bytes()
    shard.unlink()
    monkeypatch.setattr(cache_entries, "_LOCK_WAIT_S", 0.0)
    with (cache / "signals" / f".{key}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PolicyError, match="another process holds it") as caught:
            store(teacher, train, cache)
        assert caught.value.exit_code == 3
        shard.write_bytes(content)
        assert store(teacher, train, cache).key == key  # what is whole is read without the lock
    shard.unlink()
    assert store(teacher, train, cache).key == key  # free again


# Fine-tuned teachers


class Trained:
    """A loss that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, model, batch):
        self.calls += 1
        return cross_entropy(model, batch)


def fine_tune(base, train, cache, loss_fn=cross_entropy, config=CONFIG, **options):
    validation = split(base.tokenizer, 9, name="validation", seed=1)
    values = iter([0.2, 0.1])
    defaults = {"validation": validation, "validate": lambda _: {"accuracy": next(values)}, "compute": FP32}
    return teachers.fine_tune(base.copy(), train, loss_fn, config, cache=cache, **(defaults | options))


def test_fine_tune_is_read_back_with_equal_weights(teacher, train, cache):
    first_loss, second_loss = Trained(), Trained()
    first = fine_tune(teacher, train, cache, first_loss, context=Context(energy=energy_of(0, 1, 1, 50.0)))
    owing = Context()
    second = fine_tune(teacher, train, cache, second_loss, context=owing)
    assert (first_loss.calls, second_loss.calls) == (4, 0)
    assert_same_bits(weights(first), weights(second))
    assert first.weights_sha256() != teacher.weights_sha256()
    assert second.notes["training"] == first.notes["training"]
    assert second.notes["training"]["best_step"] == 2
    assert (owing.counts.shared_energy_j, owing.counts.shared_cpu_s) == (50.0, 25.0)


@pytest.mark.parametrize(
    "change", ["seed", "config", "labels", "validation", "weights", "loss", "loss of the same name"]
)
def test_t5_another_fine_tuning_is_another_entry(teacher, train, cache, change):
    fine_tune(teacher, train, cache)
    base, rows, options = teacher, train, {}
    if change == "seed":
        options["seed"] = 1
    elif change == "config":
        options["config"] = dataclasses.replace(CONFIG, weight_decay=0.5)
    elif change == "labels":
        rows = dataclasses.replace(train, labels=train.labels[::-1].copy())
    elif change == "validation":
        options["validation"] = split(teacher.tokenizer, 9, name="validation", seed=2)
    elif change == "weights":
        base = other_weights(teacher)
    elif change == "loss of the same name":

        def cross_entropy(model, batch):
            return 2.0 * losses.cross_entropy(model(**batch.inputs).logits, batch.labels)

        options["loss_fn"] = cross_entropy
    else:
        options["loss_fn"] = Trained()
    context = Context()
    fine_tune(base, rows, cache, context=context, **options)
    assert context.counts.num_examples == 4 * 8  # trained, not read back
    assert len(list((cache / "fine-tuned-teacher").glob("[!.]*"))) == 2


def test_r4_a_stopped_fine_tuning_goes_on_and_carries_the_cost_of_both_parts(teacher, train, cache, tmp_path):
    expected = fine_tune(teacher, train, cache / "other")
    folder = tmp_path / "phase"
    stop = iter([False, True])
    with pytest.raises(RunInterruptedError):
        fine_tune(teacher, train, cache, context=Context(folder=folder, should_stop=lambda: next(stop)))
    loss, so_far = Trained(), 30.0  # joules of the phase before it was stopped
    resumed = Context(folder=folder, energy=energy_of(so_far, so_far + 10, so_far + 20))

    def validate(_):
        return {"accuracy": 0.1}

    tuned = fine_tune(teacher, train, cache, loss, context=resumed, validate=validate)
    assert loss.calls == 2
    assert_same_bits(weights(tuned), weights(expected))
    owing = Context()
    fine_tune(teacher, train, cache, Trained(), context=owing, validate=validate)
    assert owing.counts.shared_energy_j == 50.0


def teacher_entry(cache):
    (entry,) = (cache / "fine-tuned-teacher").glob("[!.]*")
    return entry


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model/model.safetensors", "flipped-value"),
        ("model/model.safetensors", "torn"),
        ("manifest.json", "empty"),
        ("entry.json", "missing"),
    ],
)
def test_t2_t4_a_damaged_teacher_is_trained_again(teacher, train, cache, damage, name):
    expected = weights(fine_tune(teacher, train, cache, Trained()))  # a copy: a loaded model may share the file's pages
    entry = teacher_entry(cache)
    DAMAGES[damage](entry / name)
    (entry.parent / f".{entry.name}.4711.tmp" / "model").mkdir(parents=True)
    (entry.parent / f".{entry.name}.4712.tmp").touch()
    (entry.parent / f".{entry.name}.mine.tmp").touch()
    loss, events = Trained(), Events()
    again = fine_tune(teacher, train, cache, loss, context=Context(event=events))
    assert loss.calls == 4
    assert "damaged cache" in events.kinds
    assert_same_bits(weights(again), expected)
    assert [path.name for path in entry.parent.glob("*.tmp")] == [f".{entry.name}.mine.tmp"]
    files.check_manifest(entry)


@pytest.mark.parametrize("name", ["manifest.json", "model/model.safetensors"])
@pytest.mark.parametrize("mine", ["notes.txt", "sketches/one.txt"])
def test_t4_a_damaged_teacher_with_files_of_somebody_else_is_refused(teacher, train, cache, name, mine):
    fine_tune(teacher, train, cache)
    entry = teacher_entry(cache)
    flip_byte(entry / name, 0)
    (entry / mine).parent.mkdir(exist_ok=True)
    (entry / mine).write_text("keep me")
    with pytest.raises(DamagedError):
        fine_tune(teacher, train, cache)
    assert (entry / mine).read_text() == "keep me"


class Filling(Trained):
    """A loss at whose fourth call the disk has room for small files only, as if somebody filled it."""

    def __call__(self, model, batch):
        if self.calls == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().__call__(model, batch)


def test_t9_a_teacher_that_finds_no_room_is_stored_later(teacher, train, cache, tmp_path):
    config = dataclasses.replace(CONFIG, checkpoint_steps=3)
    expected = fine_tune(teacher, train, cache / "other", config=config)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(RunInterruptedError, match=r"disk of the cache in .* is full") as caught:
            fine_tune(teacher, train, cache, Filling(), config, context=Context(folder=tmp_path / "phase"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 75
    assert [path.suffix for path in (cache / "fine-tuned-teacher").iterdir()] == [".lock"]
    loss = Filling()
    again = fine_tune(
        teacher, train, cache, loss, config, context=Context(folder=tmp_path / "phase"), validate=lambda _: {"a": 0.1}
    )
    assert loss.calls == 1  # from the checkpoint after the third step
    assert_same_bits(weights(again), weights(expected))


def test_store_signals_uses_the_cache_folder(teacher, train, monkeypatch, tmp_path):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "mine"))
    signals = teachers.store_signals(teacher, train, compute=FP32)
    assert [entry.name for entry in entries(tmp_path / "mine")] == [signals.key]
