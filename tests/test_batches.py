"""Which examples make up a step, and what stands in their tensors."""

import numpy as np
import pytest
import torch
from small_data import texts

from smallmodels import arrays
from smallmodels.data.batches import Epoch, Plan, collate, pad, plan_inference, row_length
from smallmodels.data.splits import Split, Tokens
from smallmodels.errors import InputError


def flat(plan):
    return np.concatenate(plan).tolist()


def realistic_lengths(count=10_000, seed=0):
    """Short texts with a long tail, as questions to a bank."""
    drawn = np.random.default_rng(seed).lognormal(mean=2.68, sigma=0.43, size=count)  # as Banking77's
    return np.clip(drawn, 4, 64).astype(np.int64)


def tokens_of(rows, *, pad_id=99):
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Tokens(np.concatenate(rows).astype(np.int32), offsets, pad_id, 8)


def split_of(rows, **columns):
    ids = [f"train/{i}" for i in range(len(rows))]
    return Split("train", ids, texts(len(rows)), tokens=tokens_of(rows), **columns)


# The plan of an epoch


def test_epoch_is_a_pure_function_of_seed_and_epoch():
    lengths = realistic_lengths(400)
    np.random.seed(1)  # global states, which must not matter
    torch.manual_seed(1)
    first = Epoch(lengths, batch_size=32, seed=3, epoch=2)
    np.random.seed(2)
    torch.manual_seed(2)
    Epoch(lengths, batch_size=32, seed=3, epoch=7)
    second = Epoch(lengths, batch_size=32, seed=3, epoch=2)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in second]


@pytest.mark.parametrize("changed", [{"seed": 4}, {"epoch": 3}])
def test_epoch_differs_for_another_seed_or_epoch(changed):
    lengths = realistic_lengths(400)
    plan = Epoch(lengths, batch_size=32, seed=3, epoch=2)
    other = Epoch(lengths, batch_size=32, **{"seed": 3, "epoch": 2} | changed)
    assert flat(plan) != flat(other)
    assert {frozenset(batch.tolist()) for batch in plan} != {frozenset(batch.tolist()) for batch in other}


@pytest.mark.parametrize(
    ("count", "batch_size"), [(1, 8), (8, 8), (9, 8), (100, 32), (5000, 32), (65 * 32, 32), (7, 1)]
)
def test_d15_epoch_covers_every_example_once_and_the_rest_in_one_batch(count, batch_size):
    plan = Epoch(realistic_lengths(count), batch_size=batch_size, seed=0, epoch=0)
    assert sorted(flat(plan)) == list(range(count))
    sizes = sorted((len(batch) for batch in plan), reverse=True)
    full, rest = divmod(count, batch_size)
    assert sizes == [batch_size] * full + [rest] * bool(rest)


def planned_at_once(lengths, *, batch_size, seed, epoch):
    """All batches of an epoch in a list, as its docstring says."""
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order, planned = generator.permutation(len(lengths)), []
    for start in range(0, len(order), 128 * batch_size):
        chosen = order[start : start + 128 * batch_size]
        chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
        planned += [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    return [planned[i] for i in generator.permutation(len(planned))]


@pytest.mark.parametrize(
    ("count", "batch_size", "limit"), [(0, 8, 0), (7, 8, 1 << 22), (1000, 1, 0), (128 * 32, 32, 0), (100_003, 32, 0)]
)
def test_epoch_makes_the_batches_on_demand_that_a_plan_of_all_has(count, batch_size, limit, monkeypatch, tmp_path):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path))
    monkeypatch.setattr(arrays, "LARGE_BYTES", limit)
    lengths = realistic_lengths(count)
    for seed, number in ((0, 0), (3, 2)):
        expected = planned_at_once(lengths, batch_size=batch_size, seed=seed, epoch=number)
        epoch = Epoch(lengths, batch_size=batch_size, seed=seed, epoch=number)
        assert len(epoch) == len(expected)
        assert all(np.array_equal(*pair) for pair in zip(epoch, expected, strict=True))
        assert all(np.array_equal(epoch[i], expected[i]) for i in range(-1, -min(len(epoch), 9), -1))
    if count:
        plan = Plan(lengths, batch_size=batch_size, seed=3)
        assert np.array_equal(plan.indices(2 * len(expected) + len(expected) // 2), expected[len(expected) // 2])


def test_epoch_leaves_less_than_five_percent_padding():
    lengths = realistic_lengths()
    plan = Epoch(lengths, batch_size=32, seed=0, epoch=0)
    processed = sum(len(batch) * int(lengths[batch].max()) for batch in plan)
    assert 1 - lengths.sum() / processed < 0.05
    shuffled = np.random.default_rng(0).permutation(len(lengths))
    batches = [shuffled[i : i + 32] for i in range(0, len(shuffled), 32)]
    at_random = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert 1 - lengths.sum() / at_random > 0.3  # what random batches would waste


def test_epoch_does_not_go_through_lengths_in_order():
    lengths = realistic_lengths(128 * 32)  # as many as are sorted together
    means = [lengths[batch].mean() for batch in Epoch(lengths, batch_size=32, seed=0, epoch=0)]
    ranks = np.argsort(np.argsort(means))
    assert abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) < 0.3


# The plan of a forward pass


def test_plan_inference_covers_every_text_once_within_the_limit():
    lengths = realistic_lengths(1000)
    plan = plan_inference(lengths, max_tokens=512)
    assert sorted(flat(plan)) == list(range(1000))
    assert all(len(batch) * lengths[batch].max() <= 512 for batch in plan)
    assert len(plan) < 1.1 * lengths.sum() / 512 + 1  # and few more batches than needed


def test_plan_inference_takes_a_text_longer_than_the_limit_alone():
    plan = plan_inference(np.array([5, 700, 5]), max_tokens=512)
    assert [sorted(batch.tolist()) for batch in plan] == [[1], [0, 2]]


def test_plan_inference_of_nothing_is_empty():
    assert plan_inference(np.zeros(0, dtype=np.int64), max_tokens=512) == []


# Tensors


def test_pad_fills_on_the_right_and_masks_what_it_filled():
    inputs = pad(tokens_of([[1, 2, 3], [4], [5, 6]]), np.array([2, 0, 1]))
    assert inputs["input_ids"].tolist() == [[5, 6, 99], [1, 2, 3], [4, 99, 99]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert {tensor.dtype for tensor in inputs.values()} == {torch.int64}


def test_pad_goes_to_the_longest_of_these_examples_only():
    assert pad(tokens_of([[1, 2, 3], [4], [5, 6]]), np.array([1, 2]))["input_ids"].shape == (2, 2)


def test_rows_have_at_most_sixteen_lengths_between_two_powers_of_two_and_little_to_fill():
    lengths = {longest: row_length(longest, limit=4096) for longest in range(4097)}
    assert all(lengths[longest] == longest for longest in range(33))
    for power in (32, 64, 128, 1024, 2048):
        assert len({lengths[longest] for longest in range(power + 1, 2 * power + 1)}) == 16
        assert lengths[2 * power] == 2 * power
    assert all(longest <= length <= longest * 17 / 16 for longest, length in lengths.items())


def test_rows_are_never_longer_than_the_longest_text_of_all():
    rows = [[1] * 33, [1] * 65, [1] * 67]
    widths = [pad(tokens_of(rows), np.array([i]))["input_ids"].shape[1] for i in range(3)]
    assert widths == [34, 67, 67]  # 68 would be the next, for which a model may have no position
    parts = collate(split_of(rows), np.array([0, 1, 2])).split(1)
    assert [part.num_processed_tokens for part in parts] == widths
    assert [part.num_tokens for part in parts] == [33, 65, 67]


def test_passes_count_what_fills_their_rows():
    lengths = np.full(100, 65)
    plan = plan_inference(np.append(lengths, 128), max_tokens=680)
    assert max(len(indices) for indices in plan) == 10  # 10 rows of 68


def test_collate_aligns_labels_signals_and_ids():
    teacher = np.arange(6, dtype=np.float32).reshape(3, 2)
    batch = collate(split_of([[1, 2, 3], [4], [5, 6]], labels=np.array([7, 8, 9]), teacher=teacher), np.array([2, 0]))
    assert batch.ids == ["train/2", "train/0"]
    assert batch.labels.tolist() == [9, 7]
    assert batch.teacher.tolist() == [[4, 5], [0, 1]]
    assert (batch.num_tokens, batch.num_processed_tokens) == (5, 6)


@pytest.mark.parametrize(("column", "hint"), [("labels", "needs a split with labels"), ("teacher", "with_signals")])
def test_batch_says_what_its_split_lacks(column, hint):
    batch = collate(split_of([[1], [2]]), np.array([0]))
    with pytest.raises(InputError, match=hint):
        getattr(batch, column)
