"""A few labelled texts of each class, many without labels, and batches in which each text meets others of its class.

Legend: N texts.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from smallmodels.data.batches import StepPlan
from smallmodels.data.drawing import generator, hashes_of
from smallmodels.data.splits import Split, Splits
from smallmodels.errors import InputError, require

NO_LABEL = -1
"""Stands for the label of a text that has none."""

_TEXTS_PER_CLASS = 4
"""In a batch: each text meets three of its own class, and the batch has room for many classes."""

Indices = npt.NDArray[np.int64]


def draw_shots(
    splits: Splits,
    num_shots: int,
    *,
    more: Sequence[Split] = (),
    split_seed: int = 0,
    max_unlabelled: int | None = None,
) -> tuple[Splits, Split]:
    """Keep so many labels of each class, as somebody has who labels a few texts by hand, and forget all others.

    Args:
        splits: Not tokenised; texts of train and validation are drawn from, and test stays as it is.
        num_shots: Different texts of each class to keep labels of.
        more: Other texts, which need no labels.
        split_seed: Of the draw.
        max_unlabelled: At most so many texts without labels, drawn without a look at those that they had; None is all.

    Returns: Splits whose train has the labelled texts, and whose validation has no text: nothing can be chosen there
        without labels that are not among these. And all other texts, labelled `NO_LABEL`.

    Raises: InputError if a class has fewer different texts, or no text is left to go without a label.
    """
    require(num_shots > 0, "num_shots", "> 0", num_shots)
    known = splits.train.join(splits.validation)
    shots = _draw(known, splits.label_names, num_shots, generator(split_seed, "shots"))
    unlabelled = _forget(known.take(np.setdiff1d(np.arange(len(known)), shots)))
    for number, split in enumerate(more):
        named = dataclasses.replace(split, ids=[f"more {number}/{name}" for name in split.ids])
        unlabelled = unlabelled.join(_forget(named))
    if not len(unlabelled):
        raise InputError(
            "there should be texts beside the labelled ones for the teacher to label, found none: add texts, or lower "
            "--num-shots"
        )
    if max_unlabelled is not None and len(unlabelled) > max_unlabelled:
        order = generator(split_seed, "unlabelled").permutation(len(unlabelled))
        unlabelled = unlabelled.take(np.sort(order[:max_unlabelled]))
    train, validation = known.take(shots), known.take([])
    said = (
        f"{num_shots} labelled texts of each class, split_seed {split_seed}; all other texts of train and validation "
        "go without their labels, and nothing is chosen on validation"
    )
    source = dataclasses.replace(
        splits.source,
        splits={"labelled": len(train), "unlabelled": len(unlabelled), "test": len(splits.test)},
        notes={**splits.source.notes, "shots": said},
    )
    notes = {**splits.notes, "shots": said}
    return dataclasses.replace(splits, train=train, validation=validation, source=source, notes=notes), unlabelled


def _draw(known: Split, label_names: Sequence[str], num_shots: int, random: np.random.Generator) -> Indices:
    """Places of the labelled texts, sorted; of equal texts the first one stands for all."""
    _, first = np.unique(hashes_of(known.texts), return_index=True)
    first.sort()
    labels, drawn = known.class_labels[first], []
    for number, name in enumerate(label_names):
        candidates = first[labels == number]
        if len(candidates) < num_shots:
            raise InputError(
                f"there should be {num_shots} different texts of each class to draw labelled ones from, found "
                f"{len(candidates)} of {name!r}: lower --num-shots, add texts, or leave that class out"
            )
        drawn.append(random.permutation(candidates)[:num_shots])
    return np.sort(np.concatenate(drawn))


def _forget(split: Split) -> Split:
    """The same texts without their labels."""
    return dataclasses.replace(split, labels=np.full(len(split), NO_LABEL, dtype=np.int64))


class ClassPlan:
    """For each step some classes, and some texts of each, drawn anew: a pure function of seed and step.

    So every text meets others of its class, and pairs are as many as a batch has: all pairs of the data are never made.
    Texts come sorted by length, so that parts of a batch (see `Batch.split`) have little padding.

    Args:
        labels: Class of each text.
        lengths: Tokens of each text.
        batch_size: Texts per step; fewer where the classes have no more.
        seed: Same seed, same plan.

    Raises: InputError if a batch has no room for two texts of two classes, or the data has not as many.
    """

    def __init__(self, labels: Indices, lengths: Indices, *, batch_size: int, seed: int) -> None:
        require(batch_size >= 4, "batch_size", ">= 4, for two texts of two classes", batch_size)
        found, sizes = np.unique(labels, return_counts=True)
        if len(found) < 2 or sizes.min() < 2:
            raise InputError(
                f"texts should be of two classes or more and two or more of each, found {len(found)} classes and "
                f"{sizes.min(initial=0)} of the rarest: label more texts"
            )
        self.lengths, self.seed = lengths, seed
        self._members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
        self._num_classes = min(len(found), max(2, batch_size // _TEXTS_PER_CLASS))
        self._num_texts = batch_size // self._num_classes

    def indices(self, step: int) -> Indices:
        """The texts of a step."""
        random = np.random.default_rng([self.seed, step])
        classes = random.choice(len(self._members), self._num_classes, replace=False)
        drawn = np.concatenate([random.permutation(self._members[number])[: self._num_texts] for number in classes])
        return drawn[np.argsort(self.lengths[drawn], kind="stable")]


def plan_by_class(train: Split, *, batch_size: int, seed: int) -> StepPlan:
    """A `ClassPlan` of a tokenised split with labels, as `training.fit` takes it."""
    return ClassPlan(train.class_labels, train.require_tokens().lengths, batch_size=batch_size, seed=seed)
