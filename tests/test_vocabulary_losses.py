"""Divergences and the losses of language models: float64 references, gradients, masks, chunks, vocabularies."""

import functools
import math
import weakref

import pytest
import torch

from smallmodels import losses
from smallmodels.losses import vocabulary

DIVERGENCES = {
    "kl": losses.kl_divergence,
    "reverse": losses.reverse_kl_divergence,
    "jsd": functools.partial(losses.jensen_shannon_divergence, beta=0.3),
    "skew": functools.partial(losses.skew_kl_divergence, skew=0.2),
    "skew reverse": functools.partial(losses.skew_reverse_kl_divergence, skew=0.2),
}
each_divergence = pytest.mark.parametrize("name", DIVERGENCES)


def randn(*shape, seed=0, dtype=torch.float64, scale=1.0):
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def softmax(row, temperature):
    exponentials = [math.exp(x / temperature) for x in row]
    return [e / sum(exponentials) for e in exponentials]


def kl(first, second):
    return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True) if a > 0)


def mixed(first, second, weight):
    return [weight * a + (1 - weight) * b for a, b in zip(first, second, strict=True)]


REFERENCES = {
    "kl": lambda p, q: kl(p, q),
    "reverse": lambda p, q: kl(q, p),
    "jsd": lambda p, q: 0.3 * kl(p, mixed(p, q, 0.3)) + 0.7 * kl(q, mixed(p, q, 0.3)),
    "skew": lambda p, q: kl(p, mixed(p, q, 0.2)),
    "skew reverse": lambda p, q: kl(q, mixed(q, p, 0.2)),
}


# Divergences


@each_divergence
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_divergence_equals_the_slow_reference(name, temperature):
    student, teacher = randn(6, 5), randn(6, 5, seed=1)
    expected = [
        temperature**2 * REFERENCES[name](softmax(p, temperature), softmax(q, temperature))
        for q, p in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    found = DIVERGENCES[name](student, teacher, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@each_divergence
def test_divergence_is_zero_for_equal_logits_and_never_negative(name):
    logits = randn(40, 7)
    assert DIVERGENCES[name](logits, logits + 3, temperature=2.0).abs().max() < 1e-14
    assert (DIVERGENCES[name](logits, randn(40, 7, seed=1), temperature=2.0) > 0).all()


@each_divergence
def test_gradient_of_a_divergence_is_that_of_finite_differences_and_the_teacher_gets_none(name):
    teacher = randn(3, 4, seed=1).requires_grad_()
    divergence = DIVERGENCES[name]
    assert torch.autograd.gradcheck(
        lambda s: divergence(s, teacher.detach(), temperature=2.0), randn(3, 4).requires_grad_()
    )
    divergence(randn(3, 4).requires_grad_(), teacher, temperature=2.0).sum().backward()
    assert teacher.grad is None


@each_divergence
def test_class_that_both_rule_out_has_no_influence_on_value_and_gradient(name):
    student, teacher = randn(3, 4), randn(3, 4, seed=1)
    out = torch.full((3, 1), -math.inf, dtype=torch.float64)
    plain, padded = student.clone().requires_grad_(), student.clone().requires_grad_()
    values = DIVERGENCES[name](plain, teacher, temperature=2.0)
    with_class = DIVERGENCES[name](torch.cat([padded, out], 1), torch.cat([teacher, out], 1), temperature=2.0)
    torch.testing.assert_close(with_class, values)
    values.sum().backward()
    with_class.sum().backward()
    torch.testing.assert_close(padded.grad, plain.grad)


@each_divergence
def test_divergence_widens_half_precision(name):
    student, teacher = randn(5, 300, dtype=torch.bfloat16), randn(5, 300, seed=1, dtype=torch.bfloat16)
    found = DIVERGENCES[name](student, teacher, temperature=1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, DIVERGENCES[name](student.double(), teacher.double(), temperature=1.0).float())


@pytest.mark.parametrize(
    ("divergence", "setting", "bad"),
    [
        (losses.jensen_shannon_divergence, "beta", 0.0),
        (losses.jensen_shannon_divergence, "beta", 1.0),
        (losses.skew_kl_divergence, "skew", 1.0),
        (losses.skew_reverse_kl_divergence, "skew", -0.1),
        (losses.reverse_kl_divergence, "temperature", 0.0),
    ],
)
def test_divergence_refuses_a_setting_out_of_range(divergence, setting, bad):
    with pytest.raises(ValueError, match=f"{setting} must be"):
        divergence(randn(2, 3), randn(2, 3), **{"temperature": 1.0, setting: bad})


def test_skews_of_zero_are_the_plain_divergences():
    student, teacher = randn(4, 6), randn(4, 6, seed=1)
    for skewed, plain in (
        (losses.skew_kl_divergence, losses.kl_divergence),
        (losses.skew_reverse_kl_divergence, losses.reverse_kl_divergence),
    ):
        torch.testing.assert_close(
            skewed(student, teacher, temperature=2.0, skew=0.0), plain(student, teacher, temperature=2.0)
        )


def test_universal_logit_distance_equals_the_slow_reference_for_two_vocabularies():
    student, teacher = randn(4, 5), randn(4, 8, seed=1)
    expected = []
    for q, p in zip(student.tolist(), teacher.tolist(), strict=True):
        first, second = (sorted(softmax(row, 1.0), reverse=True) for row in (q, p))
        expected.append(sum(abs(a - b) for a, b in zip([*first, 0, 0, 0], second, strict=True)))
    torch.testing.assert_close(
        losses.universal_logit_distance(student, teacher), torch.tensor(expected, dtype=torch.float64)
    )
    shuffled = teacher[:, torch.randperm(8)]
    assert losses.universal_logit_distance(shuffled, teacher).max() < 1e-15
    with pytest.raises(ValueError, match="same targets"):
        losses.universal_logit_distance(student[:2], teacher)


def test_gradient_of_universal_logit_distance_is_that_of_finite_differences():
    teacher = randn(3, 7, seed=1)
    assert torch.autograd.gradcheck(lambda s: losses.universal_logit_distance(s, teacher), randn(3, 5).requires_grad_())


@pytest.mark.parametrize(("own", "teachers"), [(9, 9), (5, 8), (8, 5)])
def test_stored_signal_of_the_whole_vocabulary_has_the_full_universal_logit_distance(own, teachers):
    student, teacher = randn(6, own).requires_grad_(), randn(6, teachers, seed=1)
    full = losses.universal_logit_distance(student, teacher)
    stored = losses.top_k_universal_logit_distance(student, losses.top_k(teacher, teachers))
    torch.testing.assert_close(stored, full)
    one, two = (torch.autograd.grad(values.sum(), student, retain_graph=True)[0] for values in (stored, full))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("k", [1, 3, 6, 7])
def test_stored_universal_logit_distance_sees_the_largest_and_all_others_as_one(k):
    student, teacher = randn(5, 6), randn(5, 8, seed=1)
    expected = []
    for q, p in zip(student.tolist(), teacher.tolist(), strict=True):
        first, second = ([*sorted(softmax(row, 1.0), reverse=True), 0, 0][:8] for row in (q, p))
        parts = zip([*first[:k], sum(first[k:])], [*second[:k], sum(second[k:])], strict=True)
        expected.append(sum(abs(a - b) for a, b in parts))
    found = losses.top_k_universal_logit_distance(student, losses.top_k(teacher, k))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert (found <= losses.universal_logit_distance(student, teacher) + 1e-12).all()
    shuffled = teacher[:, torch.randperm(8)]
    assert losses.top_k_universal_logit_distance(shuffled, losses.top_k(teacher, k)).max() < 1e-12


def test_target_without_a_word_of_the_teacher_costs_nothing_and_moves_nothing():
    student, top = randn(3, 5).requires_grad_(), losses.top_k(randn(3, 7, seed=1), 2)
    top.log_probs[1], top.tails[1] = float("-inf"), float("-inf")
    found = losses.top_k_universal_logit_distance(student, top)
    (slope,) = torch.autograd.grad(found.sum(), student)
    assert top.is_told.tolist() == [True, False, True]
    assert (found > 0).tolist() == slope.abs().sum(1).gt(0).tolist() == [True, False, True]
    assert slope.isfinite().all()


def test_gradient_of_stored_universal_logit_distance_is_that_of_the_plain_formula():
    student, teacher = randn(4, 6).requires_grad_(), randn(4, 6, seed=1)
    first, second = (logits.softmax(-1).sort(-1, descending=True).values for logits in (student, teacher))
    parts = [torch.cat([p[:, :3], p[:, 3:].sum(-1, keepdim=True)], dim=1) for p in (first, second)]
    (expected,) = torch.autograd.grad((parts[0] - parts[1]).abs().sum(), student)
    stored = losses.top_k_universal_logit_distance(student, losses.top_k(teacher, 3))
    torch.testing.assert_close(torch.autograd.grad(stored.sum(), student)[0], expected)


# Shift and mask


def test_next_tokens_gives_each_target_the_state_before_it():
    hidden = torch.arange(2 * 4).reshape(2, 4, 1).double()
    input_ids = torch.tensor([[5, 6, 7, 8], [1, 2, 3, 0]])
    is_target = torch.tensor([[False, False, True, True], [False, True, False, False]])
    states, labels = losses.next_tokens(hidden, input_ids, is_target)
    assert states.flatten().tolist() == [1, 2, 4]
    assert labels.tolist() == [7, 8, 2]
    by_places = losses.next_tokens(hidden, input_ids, torch.tensor([2, 3, 5]))
    assert torch.equal(by_places[0], states)
    assert torch.equal(by_places[1], labels)


def test_next_tokens_leaves_out_the_first_token_and_refuses_a_batch_without_targets():
    hidden, input_ids = randn(1, 3, 2), torch.tensor([[1, 2, 3]])
    states, labels = losses.next_tokens(hidden, input_ids, torch.tensor([[True, False, True]]))
    assert labels.tolist() == [3]
    assert torch.equal(states, hidden[:, 1])
    with pytest.raises(ValueError, match="tokens to predict"):
        losses.next_tokens(hidden, input_ids, torch.tensor([[True, False, False]]))
    with pytest.raises(ValueError, match="should have shape"):
        losses.next_tokens(hidden, input_ids, torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="tokens to predict"):
        losses.next_tokens(hidden, input_ids, torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match="the first of a row is one"):
        losses.next_tokens(hidden, input_ids, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="should have shape"):
        losses.next_tokens(hidden, input_ids, torch.tensor([False, True, True]))


def test_next_token_cross_entropy_is_that_of_each_target_by_hand():
    hidden, weight = randn(2, 5, 6).double().requires_grad_(), randn(9, 6, seed=1).double()
    input_ids = torch.tensor([[5, 6, 7, 8, 1], [1, 2, 3, 0, 4]])
    is_target = torch.tensor([[False, False, True, True, False], [False, True, False, False, True]])
    expected = torch.stack(
        [
            -(hidden[row, place - 1] @ weight.T).log_softmax(-1)[input_ids[row, place]]
            for row, place in is_target.nonzero()
        ]
    )
    values = losses.next_token_cross_entropy(hidden, input_ids, is_target, losses.OutputLayer(weight))
    torch.testing.assert_close(values, expected.float(), rtol=1e-6, atol=1e-6)
    (found,) = torch.autograd.grad(values.sum(), hidden)
    (slope,) = torch.autograd.grad(expected.sum(), hidden)
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-6)
    assert found[~torch.roll(is_target, -1, 1)].abs().max() == 0  # states before what is no target


# Chunks


def job(num_targets=50, num_dimensions=6, num_classes=9, bias=False, dtype=torch.float64):
    hidden = randn(num_targets, num_dimensions, dtype=dtype).requires_grad_()
    weight = randn(num_classes, num_dimensions, seed=1, dtype=dtype).requires_grad_()
    layer = losses.OutputLayer(weight, randn(num_classes, seed=2, dtype=dtype).requires_grad_() if bias else None)
    return hidden, layer, torch.arange(num_targets) % num_classes


@pytest.fixture(params=[1, 2000, 2**20], ids=["each", "some", "all"])
def small_chunks(monkeypatch, request):
    """Logits of 7 targets at a time; the gradients of one chunk, of some, or of all are kept for one product."""
    monkeypatch.setattr(vocabulary, "_ROWS", (1, 7))
    monkeypatch.setattr(vocabulary, "_TOGETHER_BYTES", request.param)


WEIGHTINGS = {
    "sum": torch.sum,
    "thrice the sum": lambda values: 3 * values.sum(),
    "sum of thrice": lambda values: (3 * values).sum(),
    "mean": torch.mean,
    "one by one": lambda values: (values * torch.arange(50)).sum(),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_chunks_give_values_and_gradients_of_the_plain_path(small_chunks, bias, weighting):
    hidden, layer, labels = job(bias=bias)
    weigh = WEIGHTINGS[weighting]

    def loss(logits, rows):
        return losses.cross_entropy(logits, labels[rows])

    chunked = losses.by_chunks(hidden, layer, loss)
    plain = loss(layer(hidden), slice(None))
    torch.testing.assert_close(chunked, plain.float())
    leaves = [leaf for leaf in (hidden, layer.weight, layer.bias) if leaf is not None]
    found = torch.autograd.grad(weigh(chunked), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(weigh(plain), leaves), rtol=1.3e-6, atol=1e-5)  # of fp32


def test_products_have_few_shapes_whatever_the_number_of_targets(monkeypatch):
    seen, linear = set(), torch.nn.functional.linear
    monkeypatch.setattr(vocabulary.F, "linear", lambda states, *rest: (seen.add(len(states)), linear(states, *rest))[1])
    for num_targets in range(65, 129):
        hidden, layer, labels = job(num_targets)
        found = losses.by_chunks(hidden, layer, lambda z, rows, labels=labels: losses.cross_entropy(z, labels[rows]))
        expected = losses.cross_entropy(hidden @ layer.weight.T, labels)
        gradients = torch.autograd.grad(found.sum(), (hidden, layer.weight))
        torch.testing.assert_close(found, expected.float())
        torch.testing.assert_close(gradients, torch.autograd.grad(expected.sum(), (hidden, layer.weight)))
    assert len(seen) == 16


def test_chunks_compute_no_gradient_for_what_is_frozen_or_not_asked_for(small_chunks):
    hidden, layer, labels = job(dtype=torch.float32)
    layer.weight.requires_grad_(False)

    def loss(logits, rows):
        return losses.cross_entropy(logits, labels[rows])

    losses.by_chunks(hidden, layer, loss).sum().backward()
    assert layer.weight.grad is None
    assert hidden.grad is not None
    with torch.no_grad():
        assert not losses.by_chunks(hidden, layer, loss).requires_grad


def test_chunks_hold_the_logits_of_few_targets_at_a_time(small_chunks):
    hidden, layer, labels = job(dtype=torch.float32)
    alive, most = weakref.WeakSet(), 0

    class Counted(torch.Tensor):
        pass

    def loss(logits, rows):
        nonlocal most
        logits = logits.as_subclass(Counted)
        alive.add(logits)
        most = max(most, len(alive))
        assert len(logits) <= 7
        return losses.cross_entropy(logits.as_subclass(torch.Tensor), labels[rows])

    losses.by_chunks(hidden, layer, loss).sum().backward()
    assert most <= 2


def test_chunks_see_only_the_ids_that_both_models_have(small_chunks):
    """Rows of one family's padding (Qwen2.5: 151,936 against 152,064) have no part in value and gradient."""
    hidden, layer, labels = job(num_classes=9, dtype=torch.float32)
    labels = labels % 7

    def loss(logits, rows):
        assert logits.shape[1] == 7
        return losses.cross_entropy(logits, labels[rows])

    values = losses.by_chunks(hidden, layer.cut(7), loss)
    torch.testing.assert_close(values, losses.cross_entropy(layer(hidden)[:, :7], labels))
    values.sum().backward()
    assert layer.weight.grad[7:].abs().max() == 0
    assert layer.weight.grad[:7].abs().max() > 0


def test_chunks_under_autocast_multiply_in_bf16_and_add_up_in_float32(small_chunks):
    hidden, layer, labels = job(num_targets=400, num_dimensions=64, num_classes=31, dtype=torch.float32)

    def loss(logits, rows):
        assert logits.dtype == torch.float32
        return losses.cross_entropy(logits, labels[rows])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = losses.by_chunks(hidden, layer, loss)
    (found,) = torch.autograd.grad(values.sum(), layer.weight)
    exact = layer.weight.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(losses.cross_entropy(hidden.detach().double() @ exact.T, labels).sum(), exact)
    assert (found - expected).norm() / expected.norm() < 0.01


@pytest.mark.parametrize("layer", [{"scale": 0.25}, {"softcap": 3.0}, {"scale": 2.0, "softcap": 1.5}], ids=str)
def test_scale_and_softcap_of_a_family_are_part_of_the_chunked_path(small_chunks, layer):
    hidden, plain, labels = job(dtype=torch.float32)
    with_both = losses.OutputLayer(plain.weight, **layer)
    logits = (hidden @ plain.weight.T) * layer.get("scale", 1.0)
    if "softcap" in layer:
        logits = layer["softcap"] * torch.tanh(logits / layer["softcap"])
    expected = losses.cross_entropy(logits, labels)
    found = losses.by_chunks(hidden, with_both, lambda z, rows: losses.cross_entropy(z, labels[rows]))
    torch.testing.assert_close(found, expected)
    leaves = [hidden, plain.weight]
    torch.testing.assert_close(torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(expected.sum(), leaves))


# Top-k


@each_divergence
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_top_k_of_the_whole_vocabulary_is_the_full_divergence_with_its_gradient(name, temperature):
    teacher, plain, stored = randn(5, 8, seed=1), randn(5, 8).requires_grad_(), randn(5, 8).requires_grad_()
    signal = losses.top_k(teacher, 8, (1.0, temperature))
    expected = DIVERGENCES[name](plain, teacher, temperature=temperature)
    found = losses.top_k_divergence(stored, signal, DIVERGENCES[name], temperature=temperature)
    torch.testing.assert_close(found, expected)
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(stored.grad, plain.grad)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_tail_of_student_and_teacher_is_exact_at_every_stored_temperature(temperature):
    logits = randn(6, 20, scale=4.0)
    signal = losses.top_k(logits, 3, (1.0, temperature))
    probs = (logits / temperature).softmax(-1)
    expected = torch.cat([probs.gather(1, signal.ids), 1 - probs.gather(1, signal.ids).sum(1, keepdim=True)], dim=1)
    torch.testing.assert_close(signal.buckets(temperature).softmax(-1), expected)
    found = losses.top_k_log_probs(logits, signal.ids, temperature=temperature)
    torch.testing.assert_close(found.exp(), expected)


def test_tail_at_another_temperature_does_not_follow_and_is_refused():
    signal = losses.top_k(randn(2, 9), 3, (1.0, 2.0))
    with pytest.raises(ValueError, match=r"stored for \(1, 2\), got 3"):
        losses.top_k_divergence(randn(2, 9), signal, losses.kl_divergence, temperature=3.0)


def test_tail_stays_exact_where_it_is_far_below_the_rounding_of_one():
    logits = torch.tensor([[60.0, 0.0, 0.0]], dtype=torch.float32)
    found = losses.top_k_log_probs(logits, torch.tensor([[0]]))
    assert found[0, 1].item() == pytest.approx(math.log(2) - 60, abs=1e-4)
    assert losses.top_k(logits, 1).tails[0, 0].item() == pytest.approx(math.log(2) - 60, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("gap", [12.0, 60.0, 300.0])
def test_tail_and_its_gradient_stay_exact_where_its_exponentials_vanish(gap, temperature):
    ids, weights = torch.tensor([[0], [2]]), torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    wanted = torch.tensor([[gap, 0.0, -1.0, 2.0], [0.5, 0.0, 0.25, 1.0]], dtype=torch.float64, requires_grad=True)
    found = wanted.detach().float().requires_grad_()
    expected = wanted / temperature
    tail = expected.scatter(1, ids, float("-inf")).logsumexp(1, keepdim=True)
    expected = torch.cat([expected.gather(1, ids), tail], dim=1).log_softmax(1)
    log_probs = losses.top_k_log_probs(found, ids, temperature=temperature)
    torch.testing.assert_close(log_probs.double(), expected, rtol=1e-5, atol=1e-5)
    (slopes,) = torch.autograd.grad((log_probs * weights.float()).sum(), found)
    (wanted_slopes,) = torch.autograd.grad((expected * weights).sum(), wanted)
    torch.testing.assert_close(slopes.double(), wanted_slopes, rtol=1e-4, atol=1e-4)
    told = losses.top_k(wanted.detach().float(), 1, (1.0, temperature))
    torch.testing.assert_close(told.buckets(temperature).log_softmax(1)[0].double(), expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [9, 4_999, 20_000])
def test_largest_of_a_large_vocabulary_are_those_of_a_plain_search(size):
    logits = randn(7, size, dtype=torch.float32)
    logits[0, -1], logits[1, 0], logits[2, :40] = 50.0, 50.0, 40.0 + torch.arange(40)[:size]
    logits[3, 5:] = float("-inf")
    found, expected = losses.top_k(logits, 8, (1.0, 2.0)), logits.log_softmax(-1).topk(8)
    torch.testing.assert_close(found.log_probs, expected.values)
    assert torch.equal(found.ids[:3], expected.indices[:3])
    others = logits.log_softmax(-1).scatter(1, found.ids, float("-inf"))
    torch.testing.assert_close(found.tails, torch.stack([(others / t).logsumexp(-1) for t in (1.0, 2.0)], dim=1))
    logits[4, 3] = float("nan")
    assert losses.top_k(logits, 8).log_probs[4].isnan().all()


@each_divergence
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_loss_is_the_weighted_sum_of_both_with_its_gradient(name, temperature):
    labels, signal = torch.tensor([0, 3, 8, 8, 5]), losses.top_k(randn(5, 9, seed=1), 4, (1.0, temperature))
    plain, leaf = randn(5, 9).requires_grad_(), randn(5, 9).requires_grad_()
    soft = losses.top_k_divergence(plain, signal, DIVERGENCES[name], temperature=temperature)
    expected = 0.7 * soft + 0.3 * losses.cross_entropy(plain, labels)
    how = {"temperature": temperature, "soft_weight": 0.7}
    found = losses.top_k_distillation_loss(leaf, signal, labels, DIVERGENCES[name], **how)
    torch.testing.assert_close(found, expected)
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad)
    with pytest.raises(ValueError, match="ids that both models have"):
        losses.top_k_distillation_loss(leaf[:, :3], signal, labels[:0], DIVERGENCES[name], **how)


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_gradient_of_top_k_log_probs_is_that_of_the_plain_path(temperature):
    ids = torch.tensor([[1, 4], [0, 2], [5, 3]])
    weights = randn(3, 3, seed=2)
    leaf, plain = randn(3, 6).requires_grad_(), randn(3, 6).requires_grad_()
    (losses.top_k_log_probs(leaf, ids, temperature=temperature) * weights).sum().backward()
    probs = (plain / temperature).softmax(-1)
    top = probs.gather(1, ids)
    buckets = torch.cat([top, probs.sum(1, keepdim=True) - top.sum(1, keepdim=True)], dim=1)
    (buckets.log() * weights).sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad)


def test_top_k_divergence_is_zero_for_equal_logits_and_at_most_the_full_one():
    student, teacher = randn(30, 12), randn(30, 12, seed=1)
    signal = losses.top_k(teacher, 4)
    assert losses.top_k_divergence(teacher, signal, losses.kl_divergence, temperature=1.0).abs().max() < 1e-14
    coarse = losses.top_k_divergence(student, signal, losses.kl_divergence, temperature=1.0)
    assert (coarse <= losses.kl_divergence(student, teacher, temperature=1.0) + 1e-12).all()


def test_top_k_refuses_ids_that_the_student_does_not_have_and_a_k_out_of_range():
    signal = losses.top_k(randn(2, 9, seed=1), 9)
    with pytest.raises(ValueError, match="ids that both models have"):
        losses.top_k_divergence(randn(2, 5), signal, losses.kl_divergence, temperature=1.0)
    for k in (0, 10):
        with pytest.raises(ValueError, match="k must be"):
            losses.top_k(randn(2, 9), k)


def soft_distance(name, logits, told):
    """A divergence, or the universal logit distance, from a stored signal."""
    if name == "universal_logit_distance":
        return losses.top_k_universal_logit_distance(logits, told)
    return losses.top_k_divergence(logits, told, DIVERGENCES[name], temperature=2.0)


each_soft_distance = pytest.mark.parametrize("name", [*DIVERGENCES, "universal_logit_distance"])


@each_soft_distance
def test_chunked_top_k_and_cross_entropy_together_equal_the_plain_path(small_chunks, name):
    hidden, layer, labels = job(dtype=torch.float32)
    signal = losses.top_k(randn(50, 9, seed=3, dtype=torch.float32), 4, (1.0, 2.0))

    def loss(logits, rows):
        soft = soft_distance(name, logits, signal[rows])
        return 0.7 * soft + 0.3 * losses.cross_entropy(logits, labels[rows])

    leaves = [hidden, layer.weight]
    chunked, plain = losses.by_chunks(hidden, layer, loss), loss(layer(hidden), slice(None))
    torch.testing.assert_close(chunked, plain)
    found = torch.autograd.grad(chunked.sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(plain.sum(), leaves))


@each_soft_distance
def test_state_before_what_is_no_target_gets_no_gradient_from_a_stored_signal(small_chunks, name):
    hidden, layer = randn(2, 5, 6, dtype=torch.float32).requires_grad_(), job(dtype=torch.float32)[1]
    input_ids = torch.tensor([[5, 6, 7, 8, 1], [1, 2, 3, 0, 4]])
    is_target = torch.tensor([[False, False, True, True, False], [False, True, False, False, True]])
    signal = losses.top_k(randn(4, 9, seed=3, dtype=torch.float32), 4, (1.0, 2.0))
    states, _ = losses.next_tokens(hidden, input_ids, is_target)
    values = losses.by_chunks(states, layer, lambda logits, rows: soft_distance(name, logits, signal[rows]))
    (slope,) = torch.autograd.grad(values.sum(), hidden)
    assert torch.equal(slope.abs().sum(-1) > 0, torch.roll(is_target, -1, 1))
