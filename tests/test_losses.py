"""Losses against slow float64 references, their gradients, and their properties."""

import math

import pytest
import torch

from smallmodels import losses

NAN, INF = math.nan, math.inf


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def softmax_reference(row: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(x / temperature) for x in row]
    return [e / sum(exponentials) for e in exponentials]


def kl_reference(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> list[float]:
    values = []
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = softmax_reference(student_row, temperature), softmax_reference(teacher_row, temperature)
        values.append(temperature**2 * sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True)))
    return values


def cosine_reference(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def pairwise_reference(student: torch.Tensor, teacher: torch.Tensor) -> list[float]:
    s, t, n = student.tolist(), teacher.tolist(), len(student)
    return [
        sum((cosine_reference(s[i], s[j]) - cosine_reference(t[i], t[j])) ** 2 for j in range(n) if j != i) / (n - 1)
        for i in range(n)
    ]


# Cross-entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_equals_the_slow_reference(smoothing: float) -> None:
    logits, labels = randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    expected = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_probs = [math.log(p) for p in softmax_reference(row, 1.0)]
        target = [smoothing / 4 + (1 - smoothing) * (c == label) for c in range(4)]
        expected.append(-sum(t * lp for t, lp in zip(target, log_probs, strict=True)))
    torch.testing.assert_close(
        losses.cross_entropy(logits, labels, label_smoothing=smoothing), torch.tensor(expected, dtype=torch.float64)
    )


def test_cross_entropy_gradient_is_probabilities_minus_the_label() -> None:
    logits, labels = randn(5, 3).requires_grad_(), torch.tensor([0, 1, 2, 1, 0])
    losses.cross_entropy(logits, labels).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1) - torch.nn.functional.one_hot(labels, 3))


@pytest.mark.parametrize("bad", [-100, -1, 3])
def test_cross_entropy_refuses_a_label_out_of_range(bad: int) -> None:
    # -100 is what PyTorch would skip in silence.
    with pytest.raises(ValueError, match=rf"\[0, 3\), got {bad}"):
        losses.cross_entropy(randn(2, 3), torch.tensor([0, bad]))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, NAN])
def test_cross_entropy_refuses_smoothing_out_of_range(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing must be"):
        losses.cross_entropy(randn(2, 3), torch.tensor([0, 1]), label_smoothing=smoothing)


def test_cross_entropy_refuses_labels_that_are_not_one_integer_per_row() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        losses.cross_entropy(randn(2, 3), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="integers"):
        losses.cross_entropy(randn(2, 3), torch.tensor([0.0, 1.0]))


# KL divergence


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
def test_kl_divergence_equals_the_slow_reference(temperature: float) -> None:
    student, teacher = randn(6, 5), randn(6, 5, seed=1)
    torch.testing.assert_close(
        losses.kl_divergence(student, teacher, temperature=temperature),
        torch.tensor(kl_reference(student, teacher, temperature), dtype=torch.float64),
    )


def test_kl_divergence_is_zero_for_equal_logits_and_for_a_shift() -> None:
    logits = randn(4, 7)
    torch.testing.assert_close(
        losses.kl_divergence(logits, logits, temperature=3.0), torch.zeros(4, dtype=torch.float64), atol=0, rtol=0
    )
    shifted = losses.kl_divergence(logits + 5, logits, temperature=1.0)
    torch.testing.assert_close(shifted, torch.zeros(4, dtype=torch.float64), atol=1e-14, rtol=0)


def test_kl_divergence_is_the_teachers_direction_and_not_negative() -> None:
    teacher = torch.tensor([[9.0, 0.0, 0.0]])
    student = torch.tensor([[0.0, 0.0, 0.0]])
    forward = losses.kl_divergence(student, teacher, temperature=1.0)
    backward = losses.kl_divergence(teacher, student, temperature=1.0)
    assert forward.item() == pytest.approx(math.log(3), abs=0.01)  # the teacher is sure, the student even
    assert backward.item() > 4
    assert (losses.kl_divergence(randn(50, 9), randn(50, 9, seed=1), temperature=2.0) > 0).all()


def test_kl_divergence_of_nearly_equal_logits_is_not_negative_and_still_pulls() -> None:
    teacher = randn(500, 8, dtype=torch.float32)
    student = (teacher + 1e-5 * randn(500, 8, seed=1, dtype=torch.float32)).requires_grad_()
    value = losses.kl_divergence(student, teacher, temperature=1.0)
    assert value.min() >= 0
    value.sum().backward()
    q, p = student.detach().double().softmax(-1), teacher.double().softmax(-1)
    torch.testing.assert_close(student.grad.double(), q - p, rtol=0, atol=2e-7)
    assert (student.grad.abs().sum(-1) > 0).all()


def test_kl_divergence_gradient_carries_the_temperature_once() -> None:
    # d/ds of T² KL is T (q - p): with T² missing it would be (q - p) / T, with T² twice T³ (q - p).
    student, teacher, temperature = randn(4, 3).requires_grad_(), randn(4, 3, seed=1), 4.0
    losses.kl_divergence(student, teacher, temperature=temperature).sum().backward()
    q, p = (student.detach() / temperature).softmax(-1), (teacher / temperature).softmax(-1)
    torch.testing.assert_close(student.grad, temperature * (q - p))


def test_kl_divergence_at_a_high_temperature_tends_to_the_distance_of_centred_logits() -> None:
    # Hinton et al. 2015, section 2.1: for large T the loss matches logits, up to a term that falls as 1 / T.
    student, teacher = randn(4, 3), randn(4, 3, seed=1)
    difference = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    torch.testing.assert_close(
        losses.kl_divergence(student, teacher, temperature=1e3), difference.square().sum(-1) / 6, rtol=1e-2, atol=0
    )


def test_kl_divergence_with_label_like_teacher_is_cross_entropy() -> None:
    # T7: a teacher that rules classes out with minus infinity must not turn into NaN, nor its gradient.
    student = randn(3, 4).requires_grad_()
    teacher = torch.full((3, 4), -INF, dtype=torch.float64)
    labels = torch.tensor([2, 0, 3])
    teacher[torch.arange(3), labels] = 0.0
    divergence = losses.kl_divergence(student, teacher, temperature=1.0)
    torch.testing.assert_close(divergence, losses.cross_entropy(student, labels))
    divergence.sum().backward()
    assert torch.isfinite(student.grad).all()


def test_kl_divergence_of_a_class_that_both_rule_out_is_finite() -> None:
    student, teacher = randn(2, 3), randn(2, 3, seed=1)
    student[:, 0] = teacher[:, 0] = -INF
    student.requires_grad_()
    value = losses.kl_divergence(student, teacher, temperature=2.0)
    torch.testing.assert_close(value, losses.kl_divergence(student[:, 1:], teacher[:, 1:], temperature=2.0))
    value.sum().backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, NAN, INF])
def test_c2_kl_divergence_refuses_a_temperature_that_is_not_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be > 0, got"):
        losses.kl_divergence(randn(2, 3), randn(2, 3), temperature=temperature)


def test_kl_divergence_refuses_another_number_of_classes() -> None:
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 1\)"):
        losses.kl_divergence(randn(2, 3), randn(2, 1), temperature=1.0)  # would broadcast


# Embeddings and hidden states


def test_embedding_mse_equals_the_slow_reference_and_is_zero_for_equal() -> None:
    student, teacher = randn(4, 6), randn(4, 6, seed=1)
    expected = [
        sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 6
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    torch.testing.assert_close(losses.embedding_mse(student, teacher), torch.tensor(expected, dtype=torch.float64))
    assert losses.embedding_mse(student, student).eq(0).all()


def test_embedding_cosine_equals_the_slow_reference_and_ignores_length() -> None:
    student, teacher = randn(4, 6), randn(4, 6, seed=1)
    expected = [1 - cosine_reference(s, t) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    value = losses.embedding_cosine(student, teacher)
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(losses.embedding_cosine(7 * student, teacher), value)
    torch.testing.assert_close(losses.embedding_cosine(-teacher, teacher), torch.full((4,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(
        losses.embedding_cosine(teacher, teacher), torch.zeros(4, dtype=torch.float64), atol=1e-15, rtol=0
    )


def test_embedding_cosine_of_a_zero_vector_is_one_with_a_finite_gradient() -> None:
    student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    value = losses.embedding_cosine(student, randn(1, 3))
    value.sum().backward()
    assert value.item() == 1
    assert torch.isfinite(student.grad).all()


def test_cosine_score_error_equals_the_slow_reference_and_draws_both_embeddings() -> None:
    first, second = randn(4, 6).requires_grad_(), randn(4, 6, seed=1).requires_grad_()
    scores = [0.0, 0.25, 1.0, -0.5]
    value = losses.cosine_score_error(first, second, torch.tensor(scores, dtype=torch.float32))
    cosines = [cosine_reference(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    expected = [(cosine - score) ** 2 for cosine, score in zip(cosines, scores, strict=True)]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(losses.cosine_score_error, (first, second, torch.tensor(scores)))
    same = losses.cosine_score_error(first, 3 * first, torch.ones(4))
    torch.testing.assert_close(same, torch.zeros(4, dtype=torch.float64), atol=1e-28, rtol=0)


@pytest.mark.parametrize(("second", "scores"), [((3, 5), (3,)), ((2, 6), (3,)), ((3, 6), (2,)), ((3, 6), (3, 1))])
def test_cosine_score_error_refuses_what_is_no_pair_with_a_score(second, scores) -> None:
    with pytest.raises(ValueError, match="two embeddings of one width and one score"):
        losses.cosine_score_error(randn(3, 6), randn(*second), randn(*scores))


def test_pairwise_similarity_equals_the_slow_reference_across_widths() -> None:
    student, teacher = randn(5, 3), randn(5, 8, seed=1)
    torch.testing.assert_close(
        losses.pairwise_similarity(student, teacher),
        torch.tensor(pairwise_reference(student, teacher), dtype=torch.float64),
    )


def test_pairwise_similarity_is_zero_after_a_rotation_and_alone() -> None:
    teacher = randn(6, 4)
    rotation, _ = torch.linalg.qr(randn(4, 4, seed=1))
    rotated = losses.pairwise_similarity(3 * teacher @ rotation, teacher)
    torch.testing.assert_close(rotated, torch.zeros(6, dtype=torch.float64), atol=1e-28, rtol=0)
    assert losses.pairwise_similarity(randn(1, 4), randn(1, 4, seed=1)).tolist() == [0]


def test_pairwise_similarity_refuses_another_number_of_targets() -> None:
    with pytest.raises(ValueError, match="got 3 and 4 rows"):
        losses.pairwise_similarity(randn(3, 2), randn(4, 2))


def test_distance_and_pairs_is_the_squared_distance_and_the_similarities() -> None:
    student, teacher = randn(5, 4), randn(5, 4, seed=1)
    pairs = pairwise_reference(student, teacher)
    rows = zip(student.tolist(), teacher.tolist(), pairs, strict=True)
    expected = [sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) + 3 * pair for s, t, pair in rows]
    found = losses.distance_and_pairs(student, teacher, pair_weight=3.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert losses.distance_and_pairs(teacher, teacher, pair_weight=3.0).tolist() == [0] * 5


def test_nested_distances_and_pairs_is_the_mean_over_whole_and_cut_off_embeddings() -> None:
    student, teacher = randn(5, 6), randn(5, 6, seed=1)
    expected = [0.0] * 5
    for width in (6, 2, 4):  # a prefix of 6 or more is the whole
        pairs = pairwise_reference(student[:, :width], teacher)
        for i, (s, t) in enumerate(zip(student[:, :width].tolist(), teacher[:, :width].tolist(), strict=True)):
            away = 1 - cosine_reference(s, t)  # half the squared distance of vectors of length 1
            expected[i] += (0.5 * 2 * away + 0.25 * away + 3 * pairs[i]) / 3
    weights = {"mse_weight": 0.5, "cosine_weight": 0.25, "pair_weight": 3.0}
    found = losses.nested_distances_and_pairs(student, teacher, prefixes=(2, 4, 6, 9), **weights)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    longer = losses.nested_distances_and_pairs(2 * teacher, teacher, **weights)  # directions count alone
    torch.testing.assert_close(longer, torch.zeros(5, dtype=torch.float64), atol=1e-15, rtol=0)  # 1 - cosine rounds


def test_hidden_states_mse_leaves_padding_out() -> None:
    student, teacher = randn(2, 3, 4), randn(2, 3, 4, seed=1)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    value = losses.hidden_states_mse(student, teacher, mask)
    expected = (student - teacher).square().mean(-1)
    torch.testing.assert_close(value, torch.stack([expected[0, 0], expected[0, 1], expected[1, 0]]))

    garbage = torch.where(mask.bool()[..., None], student, torch.full_like(student, NAN)).requires_grad_()
    masked = losses.hidden_states_mse(garbage, teacher, mask)
    torch.testing.assert_close(masked, value)
    masked.sum().backward()
    assert garbage.grad[~mask.bool()].eq(0).all()


def test_hidden_states_mse_refuses_a_mask_of_another_batch() -> None:
    with pytest.raises(ValueError, match="attention_mask should have shape"):
        losses.hidden_states_mse(randn(2, 3, 4), randn(2, 3, 4), torch.ones(2, 4))


# Labels that do not exclude each other, and scores


def sigmoid_reference(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_binary_kl_divergence_equals_the_slow_reference(temperature: float) -> None:
    student, teacher = randn(5, 3), randn(5, 3, seed=1)
    expected = []
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        total = 0.0
        for x, y in zip(student_row, teacher_row, strict=True):
            q, p = sigmoid_reference(x / temperature), sigmoid_reference(y / temperature)
            total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        expected.append(temperature**2 * total)
    found = losses.binary_kl_divergence(student, teacher, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    zero = losses.binary_kl_divergence(student, student, temperature=temperature)
    torch.testing.assert_close(zero, torch.zeros(5, dtype=torch.float64))


def test_binary_kl_divergence_of_a_sure_teacher_is_binary_cross_entropy() -> None:
    student, labels = randn(5, 3), torch.tensor([[1, 0, 1]] * 5)
    sure = (labels.double() - 0.5) * 80
    found = losses.binary_kl_divergence(student, sure, temperature=1.0)
    torch.testing.assert_close(found, losses.binary_cross_entropy(student, labels))


def test_binary_losses_of_sure_logits_are_finite() -> None:
    student = torch.tensor([[200.0, -200.0]], requires_grad=True)
    losses.binary_kl_divergence(student, -student.detach(), temperature=1.0).sum().backward()
    assert torch.isfinite(student.grad).all()


def test_binary_cross_entropy_equals_the_slow_reference() -> None:
    logits, labels = randn(4, 3), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    expected = [
        -sum(
            math.log(sigmoid_reference(x) if label else 1 - sigmoid_reference(x))
            for x, label in zip(r, row, strict=True)
        )
        for r, row in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    found = losses.binary_cross_entropy(logits, labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(ValueError, match="a column for each label"):
        losses.binary_cross_entropy(logits, labels[:, 0])


def test_squared_error_is_of_each_score_and_refuses_several_outputs() -> None:
    found = losses.squared_error(torch.tensor([[1.0], [3.0]]), torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(found, torch.tensor([0.25, 0.0]))
    with pytest.raises(ValueError, match="one score for each of 2 targets"):
        losses.squared_error(torch.zeros(2, 3), torch.zeros(2))


# What holds for all of them

DISTILLATION = {
    "kl_divergence": lambda s, t: losses.kl_divergence(s, t, temperature=2.0),
    "embedding_mse": losses.embedding_mse,
    "embedding_cosine": losses.embedding_cosine,
    "pairwise_similarity": losses.pairwise_similarity,
    "distance_and_pairs": lambda s, t: losses.distance_and_pairs(s, t, pair_weight=10.0),
    "nested_distances_and_pairs": lambda s, t: losses.nested_distances_and_pairs(
        s, t, prefixes=(2, 9), cosine_weight=0.5, pair_weight=10.0
    ),
    "binary_kl_divergence": lambda s, t: losses.binary_kl_divergence(s, t, temperature=2.0),
    "squared_error": lambda s, t: losses.squared_error(s[..., :1], t[..., :1]),
}
ALL = DISTILLATION | {
    "cross_entropy": lambda s, t: losses.cross_entropy(s, t.argmax(-1), label_smoothing=0.1),
    "binary_cross_entropy": lambda s, t: losses.binary_cross_entropy(s, t > 0),
}


@pytest.mark.parametrize("name", ALL)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    teacher = randn(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda s: ALL[name](s, teacher), (randn(4, 3).requires_grad_(),))


@pytest.mark.parametrize("name", DISTILLATION)
def test_teacher_receives_no_gradient(name: str) -> None:
    student, teacher = randn(4, 3).requires_grad_(), randn(4, 3, seed=1).requires_grad_()
    DISTILLATION[name](student, teacher).sum().backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_summed_in_float32(name: str) -> None:
    # 300 columns: sums in bfloat16 would be off in the second digit.
    student, teacher = randn(6, 300, dtype=torch.bfloat16), randn(6, 300, seed=1, dtype=torch.bfloat16)
    value = ALL[name](student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), ALL[name](student.double(), teacher.double()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_autocast_does_not_lower_the_precision(name: str) -> None:
    student, teacher = randn(6, 300, dtype=torch.float32), randn(6, 300, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = ALL[name](student, teacher)
    torch.testing.assert_close(under_autocast, ALL[name](student, teacher), rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_no_targets_give_no_values(name: str) -> None:
    assert ALL[name](torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize("name", [name for name in ALL if "pair" not in name])
def test_a_target_does_not_depend_on_the_others(name: str) -> None:
    student, teacher = randn(6, 3), randn(6, 3, seed=1)
    torch.testing.assert_close(ALL[name](student[2:4], teacher[2:4]), ALL[name](student, teacher)[2:4])


@pytest.mark.parametrize("name", ALL)
def test_inputs_that_are_not_matrices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="should have shape"):
        ALL[name](randn(2, 3, 4), randn(2, 3, 4))
