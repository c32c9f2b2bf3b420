"""Low-rank adapters. The only importer of peft."""

import dataclasses
from typing import Any

from smallmodels.errors import InputError
from smallmodels.models.loading import TextModel, seeded


def add_lora(model: TextModel, *, rank: int, seed: int = 0) -> TextModel:
    """A copy of a classifier with frozen weights and low-rank adapters on its linear layers; the head stays trainable.

    Args:
        model: A classifier.
        rank: Of each adapter, ≥ 1.
        seed: For the adapters' initial weights.

    Source: Hu et al. 2021, arXiv:2106.09685.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    if rank < 1:
        raise InputError(f"the rank of LoRA must be at least 1, got {rank}")
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
    )
    with seeded(seed):
        adapted = get_peft_model(model.copy().model, config)
    return dataclasses.replace(model, model=adapted, notes={**model.notes, "lora_rank": rank})


def merge_adapter(model: TextModel) -> TextModel:
    """Fold adapters into the weights, so that the model loads with plain transformers."""
    adapted: Any = model.model
    if not hasattr(adapted, "merge_and_unload"):
        return model
    return dataclasses.replace(model, model=adapted.merge_and_unload())
