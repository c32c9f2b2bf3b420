"""Low-rank adapters. The only importer of peft."""

import dataclasses
from typing import Any

from torch import nn

from smallmodels.errors import InputError
from smallmodels.models.language_model import LanguageModel
from smallmodels.models.loading import TextModel, seeded


def add_lora(model: TextModel, *, rank: int, seed: int = 0, dora: bool = False) -> TextModel:
    """A copy of a model with frozen weights and low-rank adapters on its linear layers.

    The new head of a classifier stays trainable; the output layer of a language model gets no adapter.

    Args:
        model: A classifier or a language model.
        rank: Of each adapter, ≥ 1.
        seed: For the adapters' initial weights.
        dora: Train the length of each weight's rows too.

    Source: Hu et al. 2021, arXiv:2106.09685; DoRA: Liu et al. 2024, arXiv:2402.09353.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    if rank < 1:
        raise InputError(f"the rank of LoRA must be at least 1, got {rank}")
    copied = model.copy()
    is_language_model = isinstance(copied.model, LanguageModel)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM if is_language_model else TaskType.SEQ_CLS,
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        use_dora=dora,
    )
    with seeded(seed):
        adapted = get_peft_model(copied.transformer, config)
    wrapped: nn.Module = LanguageModel(adapted) if is_language_model else adapted
    notes = {**model.notes, "lora_rank": rank, **({"dora": True} if dora else {})}
    return dataclasses.replace(model, model=wrapped, notes=notes)


def is_adapted(model: nn.Module) -> bool:
    """Whether a model has adapters, which alone are trained then."""
    return hasattr(_adapted(model), "peft_config")


def merge_adapter(model: TextModel) -> TextModel:
    """Fold adapters into the weights, so that the model loads with plain transformers."""
    if not is_adapted(model.model):
        return model
    merged = _adapted(model.model).merge_and_unload()
    is_language_model = isinstance(model.model, LanguageModel)
    return dataclasses.replace(model, model=LanguageModel(merged).eval() if is_language_model else merged)


def _adapted(model: nn.Module) -> Any:
    """The part that adapters are around."""
    return model.transformer if isinstance(model, LanguageModel) else model
