"""Losses that compare what student and teacher make of each token on the way, beside a loss on what comes out.

Of a text that is the mean over all of its tokens; where each word has a label, every word of the text gets it, so that
it weighs as much beside a loss of words as beside one of texts. The teacher runs along with the student, because what
its layers give is far too much to be stored.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from smallmodels import losses, models, training
from smallmodels.data.alignment import same_tokens
from smallmodels.data.batches import Batch
from smallmodels.errors import InputError, require
from smallmodels.models import Compute, Model, TextModel


class LiveEncoder:
    """A teacher that reads each batch as its student does.

    Args:
        teacher: An encoder; put on the device, into evaluation mode, and without gradients for good.
        student: Says how texts are cut: by the teacher's tokenizer, or one with some of its tokens.
        compute: Device and attention.

    Raises: InputError if the student's tokens are not the teacher's (see `data.same_tokens`).
    """

    def __init__(self, teacher: TextModel, student: TextModel, compute: Compute) -> None:
        self.ids = torch.from_numpy(same_tokens(student.tokenizer, teacher.tokenizer)).to(compute.device)
        self.network = compute.place(teacher.model).eval().requires_grad_(False)

    def __call__(self, batch: Batch) -> None:
        """Run the teacher; what its layers give is seen by who watches them."""
        with torch.no_grad():
            self.network(**{**batch.inputs, "input_ids": self.ids[batch.inputs["input_ids"]]})


class HiddenStatesLoss(nn.Module):
    """A loss, and beside it how far the student's hidden states are from the teacher's: one value per text or word.

    A student of another width gets a linear map into the teacher's width. It is trained and checkpointed with the
    student, and not saved with it.

    Args:
        loss_fn: Gives one value per text, or per word where these have labels, such as soft targets.
        student: That will be trained.
        teacher: Runs along; see `LiveEncoder`.
        weight: Of the hidden states, beside the other loss; ≥ 0.
        compute: Of the run.
        layers: Pairs of numbers of a student's and a teacher's layer; by default each of the student's layers with the
            one that is as deep in the teacher.
        seed: Of the map's weights.

    Source: Jiao et al. 2020, arXiv:1909.10351, section 3.1.
    """

    def __init__(
        self,
        loss_fn: training.LossFn,
        student: TextModel,
        teacher: TextModel,
        *,
        weight: float,
        compute: Compute,
        layers: Sequence[tuple[int, int]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require(weight >= 0, "weight", ">= 0", weight)
        own, teachers = student.transformer.config, teacher.transformer.config
        self.loss_fn, self.weight = loss_fn, weight
        self.teacher = LiveEncoder(teacher, student, compute)
        self.layers = list(layers or _equally_deep(own.num_hidden_layers, teachers.num_hidden_layers))
        for pair in self.layers:
            _require_layers(student, teacher, pair)
        with models.seeded(seed):
            is_as_wide = own.hidden_size == teachers.hidden_size
            self.projection = (
                nn.Identity() if is_as_wide else nn.Linear(own.hidden_size, teachers.hidden_size, bias=False)
            )

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """One value per text, or per word where these have labels."""
        own, teachers = zip(*self.layers, strict=True)
        with models.watch_states(model, own) as states:
            values = _of_targets(self.loss_fn(model, batch), batch)
        with models.watch_states(self.teacher.network, teachers) as aims:
            self.teacher(batch)
        mask, real_tokens = batch.inputs["attention_mask"], batch.real_tokens
        distances = [
            losses.hidden_states_mse(self.projection(state), aim, mask, real_tokens=real_tokens)
            for state, aim in zip(states, aims, strict=True)
        ]
        means = losses.mean_by_text(torch.stack(distances).mean(0), mask, real_tokens=real_tokens)
        return values + self.weight * _for_targets(means, batch)


class AttentionRelationsLoss(nn.Module):
    """A loss, and beside it how far the student's relations between tokens are from the teacher's: per text or word.

    Student and teacher may have any widths and heads; nothing beside the student is trained.

    Args:
        loss_fn: Gives one value per text, or per word where these have labels, such as soft targets.
        student: That will be trained.
        teacher: Runs along; see `LiveEncoder`.
        weight: Of the relations, beside the other loss; ≥ 0.
        compute: Of the run.
        layers: Numbers of the student's and the teacher's layer; -1 is the last, which the source takes unless the
            teacher is large: there one of the upper middle, such as 20 of 24.
        num_relation_heads: Divides both widths.

    Source: Wang et al. 2021, arXiv:2012.15828, sections 3 and 4.
    """

    def __init__(
        self,
        loss_fn: training.LossFn,
        student: TextModel,
        teacher: TextModel,
        *,
        weight: float,
        compute: Compute,
        layers: tuple[int, int] = (-1, -1),
        num_relation_heads: int = 12,
    ) -> None:
        super().__init__()
        require(weight >= 0, "weight", ">= 0", weight)
        widths = [int(model.transformer.config.hidden_size) for model in (student, teacher)]
        rule = f"a divisor of both widths, {widths[0]} and {widths[1]}"
        is_divisor = num_relation_heads >= 1 and not any(width % num_relation_heads for width in widths)
        require(is_divisor, "num_relation_heads", rule, num_relation_heads)
        _require_layers(student, teacher, layers)
        for model in (student, teacher):
            models.encoder_family(model.model)
        self.loss_fn, self.weight, self.layers = loss_fn, weight, layers
        self.num_relation_heads = num_relation_heads
        self.teacher = LiveEncoder(teacher, student, compute)

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """One value per text, or per word where these have labels."""
        with models.watch_heads(model, self.layers[0]) as parts:
            values = _of_targets(self.loss_fn(model, batch), batch)
        with models.watch_heads(self.teacher.network, self.layers[1]) as aims:
            self.teacher(batch)
        mask, real_tokens = batch.inputs["attention_mask"], batch.real_tokens
        distances = losses.attention_relations(
            parts, aims, mask, num_relation_heads=self.num_relation_heads, real_tokens=real_tokens
        )
        means = losses.mean_by_text(distances, mask, real_tokens=real_tokens)
        return values + self.weight * _for_targets(means, batch)


def _equally_deep(num_layers: int, num_teacher_layers: int) -> list[tuple[int, int]]:
    """Each layer of a student with the teacher's that has as large a share of the layers below it; last with last."""
    ends = np.linspace(0, num_teacher_layers, num_layers + 1)[1:]
    return [(number, int(end + 0.5) - 1) for number, end in enumerate(ends)]


def _require_layers(student: TextModel, teacher: TextModel, numbers: tuple[int, int]) -> None:
    """Refuse numbers of layers that are not there, before anything is trained."""
    for model, number in zip((student, teacher), numbers, strict=True):
        models.layer_of(model.model, number)


def _of_targets(values: Tensor, batch: Batch) -> Tensor:
    """The other loss, refused unless it has one value per text, or per word where these have labels."""
    count, things = (len(batch.targets), "words") if batch.is_of_words else (len(batch), "texts")
    if values.shape != (count,):
        raise InputError(
            f"the loss beside should give one value for each of {count} {things}, got shape {tuple(values.shape)}: "
            "choose one of whole texts or of words with labels, or average its values by text (losses.mean_by_text)"
        )
    return values


def _for_targets(means: Tensor, batch: Batch) -> Tensor:
    """The value of each text; where words have labels, for each of them that of the text which it stands in."""
    if not batch.is_of_words:
        return means
    return means.index_select(0, batch.targets // batch.inputs["input_ids"].shape[1])
