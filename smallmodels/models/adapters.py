"""Low-rank adapters. The only importer of peft."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smallmodels import files
from smallmodels.errors import InputError
from smallmodels.models.compute import pick_device
from smallmodels.models.encoders import tied_layers
from smallmodels.models.language_model import LanguageModel
from smallmodels.models.loading import Embedder, TextModel, is_token_classifier, quiet_transformers, seeded

_CONFIG_NAME, _WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
"""As peft reads them."""


@dataclass(frozen=True)
class Adapter:
    """Trained adapters by themselves, which `peft.PeftModel.from_pretrained(base_model, folder)` puts on their base."""

    config: Mapping[str, Any]
    """Of peft, as JSON; names the base model without its folder."""
    weights: Mapping[str, Tensor]
    """Of the adapters and a classifier's head, by the names that peft gives them; on the processor."""

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and config, readable by peft."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(self.weights), folder / _WEIGHTS_NAME, metadata={"format": "pt"})
        files.write_json(folder / _CONFIG_NAME, self.config)

    @classmethod
    def load(cls, folder: Path) -> "Adapter":
        """Read what `save` wrote."""
        return cls(files.read_json(folder / _CONFIG_NAME), load_file(folder / _WEIGHTS_NAME))


def add_lora(model: TextModel, *, rank: int, seed: int = 0, dora: bool = False) -> TextModel:
    """A copy of a model with frozen weights and low-rank adapters on its linear layers.

    The new head of a classifier stays trainable; the output layer of a language model gets no adapter, and neither does
    the dense layer of an embedder, which stays as it is.

    Args:
        model: A classifier of texts or words, an embedder, or a language model, which may have been loaded with
            `four_bit`.
        rank: Of each adapter, ≥ 1.
        seed: For the adapters' initial weights.
        dora: Train the length of each weight's rows too.

    Raises: InputError if the rank is less, layers share their weights, or DoRA is asked of weights in 4 bits.
    Source: Hu et al. 2021, arXiv:2106.09685; DoRA: Liu et al. 2024, arXiv:2402.09353; on weights in 4 bits: Dettmers
        et al. 2023, arXiv:2305.14314.
    """
    from peft import LoraConfig, get_peft_model

    if rank < 1:
        raise InputError(f"the rank of LoRA must be at least 1, got {rank}")
    if any(len(group) > 1 for group in tied_layers(model.model)):
        raise InputError(
            "layers with adapters should have weights of their own, which the adapters are added to in the end, found "
            "layers that share them: train such a student without adapters"
        )
    if dora and _is_four_bit(model.transformer):  # its lengths would be lost when the adapters are merged
        raise InputError("dora needs weights that are not in 4 bits, but this model was loaded so: take lora")
    copied = model.copy()
    config = LoraConfig(
        task_type=_task_type(copied.model),
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        exclude_modules=_without_adapters(copied.model),
        use_dora=dora,
    )
    with seeded(seed):
        adapted = get_peft_model(copied.transformer, config)
    wrapped = _wrapped_as(copied.model, adapted)
    if isinstance(wrapped, Embedder) and wrapped.projection is not None:
        wrapped.projection.requires_grad_(False)
    notes = {**model.notes, "lora_rank": rank, **({"dora": True} if dora else {})}
    if _is_four_bit(copied.transformer):
        notes["adapters_trained_on"] = "nf4"
    return dataclasses.replace(model, model=wrapped, notes=notes)


def require_four_bit(device: str = "auto") -> None:
    """Refuse to train adapters on weights in 4 bits where that cannot be done, or would be slower than without.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises: InputError that names what works.
    """
    chosen = pick_device(device)
    if chosen != "cuda":
        raise InputError(f"qlora needs a GPU with CUDA, but this run is on {chosen}: take lora, which works here")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "qlora needs bitsandbytes, which is not installed: pip install 'smallmodels[qlora]', or take lora, which "
            "works here"
        )


def is_adapted(model: nn.Module) -> bool:
    """Whether a model has adapters, which alone are trained then."""
    return hasattr(_adapted(model), "peft_config")


def adapter_of(model: TextModel) -> Adapter | None:
    """The adapters of a model that are not merged yet; None if it has none."""
    if not is_adapted(model.model):
        return None
    from peft import get_peft_model_state_dict

    adapted = _adapted(model.model)
    settings = {**adapted.peft_config["default"].to_dict(), "inference_mode": True}
    settings["base_model_name_or_path"] = model.notes.get("base_model")
    # A set has another order in each process, and a resumed run shall write the same bytes.
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return Adapter(config, {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()})


def merge_adapter(model: TextModel) -> TextModel:
    """Fold adapters into the weights, so that the model loads with plain transformers."""
    if not is_adapted(model.model):
        return model
    adapted = _adapted(model.model)
    is_four_bit = _is_four_bit(adapted.get_base_model())
    merged = _merged_from_four_bit(adapted) if is_four_bit else adapted.merge_and_unload()
    wrapped = _wrapped_as(model.model, merged)
    return dataclasses.replace(model, model=wrapped if wrapped is merged else wrapped.eval())


@torch.no_grad()
def _merged_from_four_bit(adapted: Any) -> nn.Module:
    """The weights that training saw, written out in float32, with the adapters on top.

    peft would round their sum to 4 bits again, and the original weights are not those that the adapters were fitted to.
    """
    inner = adapted.get_base_model()
    deltas = {name: m.get_delta_weight("default") for name, m in inner.named_modules() if hasattr(m, "lora_A")}
    with quiet_transformers():
        plain: nn.Module = adapted.unload().dequantize(dtype=torch.float32)
    for name, delta in deltas.items():
        plain.get_submodule(name).weight.add_(delta)  # type: ignore[operator]
    return plain


def _is_four_bit(transformer: Any) -> bool:
    return bool(getattr(transformer, "is_loaded_in_4bit", False))


def _adapted(model: nn.Module) -> Any:
    """The part that adapters are around."""
    return model.transformer if isinstance(model, (Embedder, LanguageModel)) else model


def _wrapped_as(model: nn.Module, transformer: Any) -> nn.Module:
    """A transformer with what is around that of a model: nothing for classifiers."""
    if isinstance(model, LanguageModel):
        return LanguageModel(transformer)
    if isinstance(model, Embedder):
        return Embedder(transformer, model.projection, model.pooling)
    wrapped: nn.Module = transformer
    return wrapped


def _task_type(model: nn.Module) -> str:
    """What peft calls the kind of a model."""
    if isinstance(model, LanguageModel):
        return "CAUSAL_LM"
    if isinstance(model, Embedder):
        return "FEATURE_EXTRACTION"
    return "TOKEN_CLS" if is_token_classifier(model) else "SEQ_CLS"


def _without_adapters(model: nn.Module) -> list[str]:
    """Linear layers that get none: an embedder's pooler, which has no use, and heads that peft trains whole."""
    if isinstance(model, Embedder):
        return ["pooler.dense"]
    return ["classifier", "score"] if is_token_classifier(model) else ["pre_classifier"]  # the last is DistilBERT's
