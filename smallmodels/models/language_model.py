"""Causal language models: hidden states and an output layer, so that the logits of a batch are never all there.

Legend: B rows, L tokens, D dimensions of a hidden state.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smallmodels.errors import InputError
from smallmodels.losses import OutputLayer

_TOLERANCE = 1e-3
"""Of logits or states that are computed in two ways in float32."""

_PROBE = 4
"""Tokens of a text that shows whether it is kept apart from another."""


class LanguageModel(nn.Module):
    """A causal language model that gives its last hidden states; `output_layer` makes logits of them."""

    def __init__(self, transformer: PreTrainedModel) -> None:
        super().__init__()
        self.transformer = transformer

    @property
    def config(self) -> Any:
        """The transformer's config."""
        return self.transformer.config

    @property
    def output_layer(self) -> OutputLayer:
        """The layer that makes logits, with what the family does to them."""
        head: Any = self._causal.get_output_embeddings()
        scale, softcap = _scale_and_softcap(self.config)
        return OutputLayer(head.weight, getattr(head, "bias", None), scale, softcap)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """Last hidden states of shape (B, L, D), from ids and mask of shape (B, L).

        Args:
            input_ids: Padded on the right, where rows differ in length.
            attention_mask: Not zero for real tokens.
            position_ids: Instead of the mask, for rows that hold several texts: each begins again at 0, and attends to
                itself alone.
        """
        inputs = {"attention_mask": attention_mask, "position_ids": position_ids}
        given = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        states: Tensor = self._causal.base_model(input_ids=input_ids, use_cache=False, **given).last_hidden_state
        return states

    @property
    def _causal(self) -> Any:
        """The model itself, without what wraps it for adapters."""
        wrapped: Any = self.transformer
        return wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped


def require_known_output(model: LanguageModel, name: str) -> None:
    """Refuse a family that makes its logits in a way that is not known here, instead of training something else.

    Raises: InputError.
    """
    ids = torch.arange(4)[None] % int(model.config.vocab_size)
    with torch.no_grad():
        expected = model.transformer(input_ids=ids, use_cache=False).logits.float()
        found = model.output_layer(model(input_ids=ids))
    if expected.shape != found.shape or not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise InputError(
            f"{name} should make its logits by one product of its last hidden states, scaled or bent as in known "
            f"families, but {type(model.transformer).__name__} does otherwise: choose another model"
        )


def keeps_texts_apart(model: nn.Module) -> bool:
    """Whether a text has the states that it has alone when its row holds another one, which not every family gives it.

    Some read no positions, such as BLOOM, and some carry a state along the row, such as Mamba. What leaks may be small
    in an untrained model, so not a bit may depend on the other text.

    Args:
        model: Put into evaluation mode.
    """
    if not isinstance(model, LanguageModel):
        return False
    model.eval()
    device = next(model.parameters()).device
    one, other, text = torch.arange(3 * _PROBE, device=device).view(3, 1, _PROBE) % int(model.config.vocab_size)
    positions = torch.arange(_PROBE, device=device).repeat(2)[None]
    with torch.no_grad():
        alone = model(input_ids=text)
        try:
            after_one, after_other = (
                model(input_ids=torch.cat([first, text], dim=1), position_ids=positions)[:, _PROBE:]
                for first in (one, other)
            )
        except TypeError:  # it takes no positions
            return False
    return torch.equal(after_one, after_other) and bool((after_one - alone).norm() <= _TOLERANCE * alone.norm())


def _scale_and_softcap(config: Any) -> tuple[float, float | None]:
    """What a family does to the product: Granite divides, Cohere multiplies, Gemma 2 bends."""
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    return scale, None if softcap is None else float(softcap)
