"""What a model is: its size, what a pass of it takes, and what the record says of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from smallmodels.data.texts import text_edges
from smallmodels.models import first_token
from smallmodels.models.compute import Compute
from smallmodels.models.language_model import LanguageModel
from smallmodels.models.loading import Embedder, TextModel, is_token_classifier
from smallmodels.models.static import StaticClassifier, StaticEmbedder, is_static

_POOLED = {"pooler", "projection"}
_HEADS = _POOLED | {"classifier", "pre_classifier", "head"}
"""Parts that see one vector for each text: in encoders and embedders, and in classifiers of texts."""
_OF_TEXTS = ("ForSequenceClassification", "EmbeddingClassifier")
"""Ends of the names of classifiers of texts."""


def num_parameters(model: nn.Module) -> int:
    """All parameters, embeddings included."""
    return sum(p.numel() for p in model.parameters())


def vocabulary_size(model: TextModel) -> int:
    """Rows of a language model's output layer: tokens, and spare rows that a family may have."""
    assert isinstance(model.model, LanguageModel), "only language models have an output layer of tokens"
    return len(model.model.output_layer.weight)


def size_bytes(model: nn.Module) -> int:
    """Bytes of the weights as they are saved: those that two parts share, once."""
    parts = {(t.data_ptr(), t.numel()): t for t in model.state_dict().values()}
    return sum(t.numel() * t.element_size() for t in parts.values())


def describe(model: TextModel, compute: Compute) -> dict[str, Any]:
    """Facts about a trained model for the record: base model, size, measured choices, how to load it."""
    config: Any = model.model.config
    loaders = {
        Embedder: "SentenceTransformer",
        LanguageModel: "AutoModelForCausalLM",
        StaticClassifier: "smallmodels.static.StaticModel",
        StaticEmbedder: "smallmodels.static.StaticModel",
    }
    head = (
        "AutoModelForTokenClassification" if is_token_classifier(model.model) else "AutoModelForSequenceClassification"
    )
    problem = getattr(config, "problem_type", None)
    return {
        **{key: value for key, value in model.notes.items() if key != "training" and value is not None},
        "num_layers": int(config.num_hidden_layers),
        "hidden_size": int(config.hidden_size),
        "num_parameters": num_parameters(model.model),
        "size_bytes": size_bytes(model.model),
        "max_length": model.max_length,
        **compute.choices,
        "weights_sha256": model.weights_sha256(),
        "loader": loaders.get(type(model.model), head),
        **({"begins_with": _begin_of(model.tokenizer)} if isinstance(model.model, LanguageModel) else {}),
        **({"problem": problem} if problem not in (None, "single_label_classification") else {}),
    }


def _begin_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands before each text of a language model, as a tokenizer reads it."""
    return str(tokenizer.decode(text_edges(tokenizer)[0]))


def num_operations(model: nn.Module, lengths: npt.NDArray[np.int64], num_targets: int | None = None) -> float:
    """Floating-point operations of one forward pass over texts of these lengths, padding not counted.

    The output layer of a language model is counted for so many targets, or for each token if None.

    Two for each weight of a linear layer and token, plus the two products of self-attention, and those of DeBERTa with
    every position. Additions, normalisation and look-ups are left out, so is what is done once for a whole batch, and
    what the last layer leaves out (see `first_token`). A pass with gradients takes three times as many.
    """
    return Operations.of(model)(lengths, num_targets)


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of a forward pass, as `num_operations` counts them; called with lengths of texts."""

    per_text: float
    per_token: float
    per_pair: float
    """Of tokens that attend to each other; so many for each token of a text and each token."""
    per_target: float = 0.0
    """Of a language model's output layer, which is asked for what shall be predicted alone."""

    @classmethod
    def of(cls, model: nn.Module) -> "Operations":
        """Those of a model, which `Compute.place` may have shortened."""
        config: Any = model.config
        width, num_layers = int(getattr(config, "hidden_size", 0)), int(getattr(config, "num_hidden_layers", 0))
        is_classifier = is_static(model) or _transformer_name(model).endswith(_OF_TEXTS)
        once = _HEADS if is_classifier else _POOLED
        per_text = {m for name, m in model.named_modules() if set(name.split(".")) & once}
        num_short = 0
        if first_token.is_shortened(model):
            last, num_short = first_token.last_layer(model), 1
            per_text |= set(last.modules()) - set(first_token.for_all_tokens(last))
        per_batch = {m for name, m in model.named_modules() if name.endswith(("pos_key_proj", "pos_query_proj"))}
        weights = {
            m: m.in_features * m.out_features if isinstance(m, nn.Linear) else m.weight.numel()
            for m in model.modules()
            if isinstance(m, nn.Linear | Conv1D) and m not in per_batch
        }
        of_texts = sum(number for module, number in weights.items() if module in per_text)
        of_targets = model.output_layer.weight.numel() if isinstance(model, LanguageModel) else 0
        of_tokens = sum(weights.values()) - of_texts - of_targets + 2 * width * num_short  # one token attends to each
        of_tokens += num_layers * width * _num_positions(config)
        pairs = 0.5 if isinstance(model, LanguageModel) else 1.0  # a token attends to those before it
        per_pair = pairs * 4.0 * width * (num_layers - num_short)
        return cls(2.0 * of_texts, 2.0 * of_tokens, per_pair, 2.0 * of_targets)

    def __call__(self, lengths: npt.NDArray[np.int64], num_targets: int | None = None) -> float:
        """Of one pass over texts of these lengths, in which so many tokens are predicted; each if None."""
        counts = np.asarray(lengths, dtype=np.float64)
        of_tokens = self.per_text * len(counts) + self.per_token * counts.sum() + self.per_pair * (counts**2).sum()
        return float(of_tokens + self.per_target * (counts.sum() if num_targets is None else num_targets))


def _transformer_name(model: nn.Module) -> str:
    """The class of transformers, within adapters or not."""
    bare: Any = getattr(model, "get_base_model", lambda: model)()
    return type(bare).__name__


def _num_positions(config: Any) -> int:
    """With how many vectors of positions DeBERTa multiplies each query and key of a layer; 0 in other families."""
    if not getattr(config, "relative_attention", False):
        return 0
    spans = (getattr(config, "position_buckets", -1), config.max_relative_positions, config.max_position_embeddings)
    return 2 * next(int(span) for span in spans if span > 0) * len({"c2p", "p2c"} & set(config.pos_att_type or []))
